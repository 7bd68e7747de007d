//! Peers that stop answering: nobody is told but by what the leg's options wait for (`user_timeout`, keepalive).

use std::time::Duration;

use super::record::{Door, Seen};
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::error::ConnError;
use crate::handler::ConnId;
use crate::options::{LegOptions, Probing};

const TIMED_OUT: Seen = Seen::Error(ConnError::TimedOut);
/// How long what is sent may stay unanswered.
const PATIENCE: Duration = Duration::from_millis(300);
/// How much earlier a timer may seem to run out: clocks are read at a turn's beginning, and kernels round.
const BLUR: Duration = Duration::from_millis(20);

/// A leg that gives up soon.
fn impatient() -> LegOptions {
    LegOptions { keepalive: None, user_timeout: Some(PATIENCE), ..LegOptions::default() }
}

/// Sends to a peer that has vanished, and asserts that it's given up when its time is over, and that this is all that is told.
fn given_up<W: World>(stage: &mut Stage<'_, W>, conn: ConnId, order: &[Seen]) {
    let since = stage.cx().now();
    stage.send_all(conn, b"anybody there?");
    assert_eq!(stage.until_failed(conn), ConnError::TimedOut);
    let waited = stage.record().seen_at(conn, TIMED_OUT).since(since);
    assert!(waited + BLUR >= PATIENCE, "it's given up after {waited:?}");
    stage.expect(conn, order);
    stage.expect_nothing_left();
}

/// What is sent is answered no more: the connection ends by its `user_timeout`, which the listener gave it, be it read or not. What the
/// peer said before was offered.
pub fn an_accepted_peer_stops_answering<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Vanishing)?;
    for read in [true, false] {
        let mut stage = Stage::new(world, SMALL);
        stage.record().door = Door::Admit { read };
        stage.listen_with(&impatient());
        let (conn, peer) = stage.accepted();
        stage.say(peer, b"last words");
        if read {
            stage.until_received(conn, 10);
        }
        stage.settle();
        stage.vanish(peer);
        let order = [Seen::Accept, Seen::Data, TIMED_OUT];
        given_up(&mut stage, conn, if read { &order } else { &[Seen::Accept, TIMED_OUT] });
    }
    Ok(())
}

/// The same of one that was dialled, whose program asks for it.
pub fn a_dialled_peer_stops_answering<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Vanishing)?;
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.dialled();
    stage.cx().set_keepalive(conn, &impatient());
    stage.cx().read(conn);
    stage.settle();
    stage.vanish(peer);
    given_up(&mut stage, conn, &[Seen::Connect, TIMED_OUT]);
    Ok(())
}

/// Nothing is sent, and keepalive finds out who has gone; another's peer answers it, and goes on.
pub fn keepalive_finds_who_has_gone<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Vanishing)?;
    let mut stage = Stage::new(world, SMALL);
    stage.listen_with(&LegOptions { keepalive: None, ..LegOptions::default() });
    let (gone, left) = stage.accepted();
    let (alive, stays) = stage.accepted();
    // The shortest that the kernel knows: one second without a word, and one for the answer.
    let probing = Probing { after: Duration::from_secs(1), every: Duration::from_secs(1), count: 1 };
    for conn in [gone, alive] {
        stage.cx().set_probing(conn, Some(&probing));
    }
    stage.vanish(left);
    assert_eq!(stage.until_failed(gone), ConnError::TimedOut);
    stage.expect(gone, &[Seen::Accept, TIMED_OUT]);
    stage.say(stays, b"!");
    stage.until_received(alive, 1);
    assert_eq!(stage.cx().conns_open(), 1);
    Ok(())
}

/// A dial that nobody answers ends by its `user_timeout`, which its program asks for, once the first SYN's answer is missed.
pub fn a_dial_that_is_never_answered_times_out<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Silence)?;
    let mut stage = Stage::new(world, SMALL);
    let (world, backend) = stage.world();
    let to = world.silent(backend);
    let since = stage.cx().now();
    let conn = stage.dial(&to).expect("nobody answers, not even that");
    stage.cx().set_keepalive(conn, &impatient());
    assert_eq!(stage.until_failed(conn), ConnError::TimedOut);
    let waited = stage.record().seen_at(conn, TIMED_OUT).since(since);
    assert!(waited + BLUR >= PATIENCE, "it's given up after {waited:?}");
    stage.expect(conn, &[TIMED_OUT]);
    stage.expect_nothing_left();
    Ok(())
}
