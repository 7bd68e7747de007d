//! Programs that panic: the connection it was about is told and reset, and the core goes on.

use std::panic::resume_unwind;
use std::time::Duration;

use super::actor::Ending;
use super::receiving::bytes;
use super::record::{Door, Seen};
use super::sending::settled_fill;
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::config::Config;
use crate::error::ConnError;
use crate::handler::ConnId;

const GUARDED: Config = Config { catch_panics: true, ..SMALL };
const PANICKED: Seen = Seen::Error(ConnError::Panicked);

/// Panics at the first upcall of that kind, without a word on the terminal.
fn touchy<W: World>(stage: &mut Stage<'_, W>, at: Seen) {
    let mut done = false;
    stage.hook(Box::new(move |_, _, _, seen| {
        if seen == at && !std::mem::replace(&mut done, true) {
            resume_unwind(Box::new("the program's fault"));
        }
    }));
}

/// The connection is told last of the panic and gone, and the next one is served. Nothing else of the case has panicked.
fn judge<W: World>(stage: &mut Stage<'_, W>, conn: ConnId, told: bool) {
    stage.until("it's gone", |stage| stage.cx().conns_open() == 0);
    stage.settle();
    let last = stage.record().last(conn);
    assert_eq!(last == Some(PANICKED), told, "{}", stage.tell());
    assert_eq!(stage.cx().gauges().panics, 1, "{}", stage.tell());
    stage.record().door = Door::Admit { read: true };
    let (next, peer) = stage.accepted();
    stage.say(peer, b"served");
    stage.until_received(next, 6);
    assert_eq!(stage.cx().gauges().panics, 1);
    stage.close(next);
    stage.expect_nothing_left();
}

/// In each upcall of a connection.
pub fn a_panic_over_a_connection_costs_that_one<W: World>(world: &mut W) -> Verdict {
    let ending = if needs(world, Ability::Resets).is_ok() { Ending::Reset } else { Ending::End };
    for at in [Seen::Accept, Seen::Data, Seen::Message, Seen::PeerClose, Seen::Timer, Seen::Writable] {
        let mut stage = Stage::new(world, GUARDED);
        if at == Seen::Message {
            stage.record().door = Door::AdmitMessages;
        }
        touchy(&mut stage, at);
        let (conn, peer) = stage.accepted();
        match at {
            Seen::Timer => stage.set_timer(conn, Duration::from_millis(2)),
            Seen::PeerClose => stage.finish(peer),
            Seen::Writable => {
                let much = bytes(40, 2 * stage.world().0.held_max());
                stage.reads(peer, 0);
                settled_fill(&mut stage, conn, &much);
                stage.reads(peer, usize::MAX);
            }
            // A message, too.
            _ => stage.say(peer, &[0, 1, 7]),
        }
        stage.until("the peer sees the end", |stage| stage.ending(peer).is_some());
        // Unread bytes of a Unix-domain peer's make a reset of any end.
        assert!(stage.ending(peer) == Some(ending) || stage.ending(peer) == Some(Ending::Reset), "{at:?}");
        judge(&mut stage, conn, true);
    }
    Ok(())
}

/// Over a dial that stands.
pub fn a_panic_over_a_dial_costs_that_one<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, GUARDED);
    touchy(&mut stage, Seen::Connect);
    let to = stage.door();
    let conn = stage.dial(&to).expect("a peer listens there");
    stage.until_failed(conn);
    judge(&mut stage, conn, true);
    Ok(())
}

/// Over an error: that was its last word.
pub fn a_panic_over_an_error_is_the_last_word<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, GUARDED);
    touchy(&mut stage, Seen::Error(ConnError::Reset));
    let (conn, peer) = stage.accepted();
    stage.rip(peer);
    stage.until_failed(conn);
    judge(&mut stage, conn, false);
    Ok(())
}

/// Over a leg that is forwarded: the other is the program's again.
pub fn a_panic_over_a_forwarded_leg_leaves_the_other<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, GUARDED);
    stage.record().door = Door::Admit { read: false };
    let (a, peer_a) = stage.accepted();
    let (b, peer_b) = stage.dialled();
    stage.strangers(&[peer_a, peer_b]);
    touchy(&mut stage, Seen::PeerClose);
    stage.cx().forward(a, b);
    stage.cx().forward(b, a);
    stage.say(peer_a, b"through");
    stage.until("it's passed on", |stage| stage.heard(peer_b) == b"through");
    stage.finish(peer_a);
    assert_eq!(stage.until_failed(a), ConnError::Panicked);
    stage.settle();
    assert_eq!(stage.cx().conns_open(), 1);
    stage.send_all(b, b"alone now");
    stage.until("it's sent", |stage| stage.heard(peer_b) == b"throughalone now");
    stage.close(b);
    judge(&mut stage, a, true);
    Ok(())
}
