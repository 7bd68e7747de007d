//! Many connections and random operations, held against a model of what may follow.

use std::time::Duration;

use super::actor::Ending;
use super::receiving::bytes;
use super::record::{Seen, Take};
use super::stage::{PeerId, SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::config::Config;
use crate::error::ConnError;
use crate::handler::ConnId;
use crate::sim::Rng;

/// What was done to one connection.
struct Model {
    conn: ConnId,
    peer: PeerId,
    /// By the program.
    shut: bool,
    ended: bool,
    /// By the peer.
    finished: bool,
    ripped: bool,
    left: bool,
}

impl Model {
    /// Nothing more can be done to it.
    const fn is_over(&self) -> bool {
        self.ended || self.ripped || self.left
    }

    /// Asserts that what was told is what had to follow.
    fn judge<W: World>(&self, stage: &mut Stage<'_, W>) {
        let order = stage.record().order(self.conn);
        let tell = |stage: &mut Stage<'_, W>| format!("{:?}\n{order:?}\n{}", self.conn, stage.tell());
        if self.ended {
            return;
        }
        let reset = Some(&Seen::Error(ConnError::Reset));
        if self.ripped {
            // Where both had finished before, the connection was over, and there was nothing to reset.
            let was_over = self.finished && self.shut;
            assert!(order.last() == reset || was_over, "{}", tell(stage));
        } else if self.left {
            let told = order.contains(&Seen::PeerClose) || order.last() == reset;
            assert!(told, "{}", tell(stage));
        } else {
            assert!(self.finished);
            assert_eq!(order.iter().filter(|seen| **seen == Seen::PeerClose).count(), 1, "{}", tell(stage));
            let said = stage.said(self.peer).len();
            let record = stage.record();
            assert_eq!(record.received(self.conn).len() + record.left_over(self.conn).len(), said);
        }
    }
}

/// A crowd comes and goes: each connection hears what had to follow from what was done to it, and no other.
pub fn a_crowd_comes_and_goes<W: World>(world: &mut W) -> Verdict {
    let crowd = if world.is_virtual() { 40 } else { 1000 };
    let mut rng = Rng::new(world.seed());
    let resets = needs(world, Ability::Resets).is_ok();
    let config = Config { conns_max: u32::try_from(crowd).expect("a few"), blocks: 16, accept_batch: 16, ..SMALL };
    let mut stage = Stage::new(world, config);
    let mut models: Vec<Model> = Vec::new();
    for step in 0..5 * crowd {
        if stage.cx().conns_free() > 0 && (models.len() < crowd / 2 || rng.one_in(6)) {
            stage.record().take = match rng.up_to(3) {
                0 => Take::Seeded(rng.number()),
                1 => Take::AtMost(1 + rng.up_to(100)),
                _ => Take::All,
            };
            let (conn, peer) = if rng.one_in(2) { stage.accepted() } else { stage.dialled() };
            let (shut, ended, finished, ripped, left) = Default::default();
            models.push(Model { conn, peer, shut, ended, finished, ripped, left });
        }
        let place = rng.up_to(models.len() - 1);
        if !models[place].is_over() {
            disturb(&mut stage, &mut models[place], &mut rng, resets);
        }
        if step % 7 == 0 {
            stage.turn();
        }
    }
    wind_down(&mut stage, &mut models);
    for model in &models {
        model.judge(&mut stage);
    }
    for model in &models {
        stage.close(model.conn);
    }
    stage.settle();
    stage.expect_nothing_left();
    Ok(())
}

/// Does something at random to one connection.
fn disturb<W: World>(stage: &mut Stage<'_, W>, model: &mut Model, rng: &mut Rng, resets: bool) {
    let Model { conn, peer, .. } = *model;
    match rng.up_to(24) {
        0..=5 if !model.finished => stage.say(peer, &bytes(rng.number(), 1 + rng.up_to(300))),
        6..=9 if !model.shut => {
            stage.send(conn, &bytes(rng.number(), 1 + rng.up_to(300)));
        }
        10 if !model.shut => {
            model.shut = true;
            stage.cx().shutdown(conn);
        }
        11 | 12 => stage.cx().pause(conn),
        13..=15 => stage.cx().read(conn),
        16 => stage.set_timer(conn, Duration::from_millis(rng.up_to(20) as u64)),
        17 => {
            stage.cx().clear_timer(conn);
            stage.record().expect_timer(conn, None);
        }
        18 => {
            model.ended = true;
            stage.close(conn);
        }
        19 => {
            model.ended = true;
            stage.reset(conn);
        }
        20 => {
            let token = stage.record().token();
            stage.record().renamed(conn, token);
            stage.cx().rename(conn, token, crate::cx::MeterId::NONE);
        }
        21 => {
            model.finished = true;
            stage.finish(peer);
        }
        22 if resets => {
            model.ripped = true;
            stage.rip(peer);
        }
        23 => {
            model.left = true;
            stage.leave(peer);
        }
        _ => stage.reads(peer, if rng.one_in(2) { 50 } else { usize::MAX }),
    }
}

/// Lets everything come to its end.
fn wind_down<W: World>(stage: &mut Stage<'_, W>, models: &mut [Model]) {
    for model in models.iter_mut().filter(|model| !model.is_over()) {
        stage.reads(model.peer, usize::MAX);
        stage.finish(model.peer);
        model.finished = true;
    }
    for model in models.iter().filter(|model| !model.ended) {
        stage.take_as(model.conn, Take::All);
        stage.cx().read(model.conn);
    }
    stage.settle();
    for model in models.iter().filter(|model| !model.is_over()) {
        let told = |stage: &mut Stage<'_, W>| stage.record().ended(model.conn) || stage.record().is_over(model.conn);
        stage.until("the end is told", told);
        assert!(!stage.record().is_over(model.conn), "an error nobody made\n{}", stage.tell());
        stage.cx().shutdown(model.conn);
        stage.until_ending(model.peer, Ending::End);
    }
}
