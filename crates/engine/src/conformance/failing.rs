//! Resets by the peer, in every state that a connection can be in.

use std::time::Duration;

use super::receiving::bytes;
use super::record::{Door, Seen, Take};
use super::sending::settled_fill;
use super::stage::{PeerId, SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::config::Config;
use crate::error::ConnError;
use crate::handler::ConnId;

const RESET: Seen = Seen::Error(ConnError::Reset);

/// Has the peer reset the connection, and asserts that its failure is told, last.
fn torn<W: World>(stage: &mut Stage<'_, W>, conn: ConnId, peer: PeerId, order: &[Seen]) {
    stage.rip(peer);
    assert_eq!(stage.until_failed(conn), ConnError::Reset);
    stage.expect(conn, order);
    stage.expect_nothing_left();
}

/// Right after it was accepted, while it's read.
pub fn reset_while_nothing_moves<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    torn(&mut stage, conn, peer, &[Seen::Accept, RESET]);
    let (conn, peer) = stage.dialled();
    stage.cx().read(conn);
    torn(&mut stage, conn, peer, &[Seen::Connect, RESET]);
    Ok(())
}

/// While nobody reads it: it's told all the same, and what nobody read is gone.
pub fn reset_while_nobody_reads<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for says in [&b""[..], b"unread"] {
        let mut stage = Stage::new(world, SMALL);
        stage.record().door = Door::Admit { read: false };
        let (conn, peer) = stage.accepted();
        stage.say(peer, says);
        stage.settle();
        torn(&mut stage, conn, peer, &[Seen::Accept, RESET]);
    }
    Ok(())
}

/// Behind bytes that nobody had looked at: they're offered first.
pub fn bytes_before_a_reset_are_offered_before_it<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for (blocks, len) in [(4, 53), (0, 53), (4, 20_000), (0, 20_000)] {
        let mut stage = Stage::new(world, Config { blocks, ..SMALL });
        stage.record().take = Take::Frames(10);
        let (conn, peer) = stage.accepted();
        stage.say(peer, &bytes(12, len));
        stage.until("it's all said", |stage| stage.said_all(peer));
        stage.rip(peer);
        assert_eq!(stage.until_failed(conn), ConnError::Reset);
        let record = stage.record();
        assert_eq!(record.received(conn).len() + record.left_over(conn).len(), len);
        stage.expect(conn, &[Seen::Accept, Seen::Data, RESET]);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// With bytes left over by the program: it's told, and they're dropped.
pub fn reset_with_bytes_left_over<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for blocks in [4, 0] {
        let mut stage = Stage::new(world, Config { blocks, ..SMALL });
        stage.record().take = Take::Nothing;
        let (conn, peer) = stage.accepted();
        stage.say(peer, b"left over");
        stage.until("it's offered", |stage| !stage.record().left_over(conn).is_empty());
        torn(&mut stage, conn, peer, &[Seen::Accept, Seen::Data, RESET]);
    }
    Ok(())
}

/// After a pause, with bytes left over and more unread.
pub fn reset_while_paused<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().take = Take::Nothing;
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"left over");
    stage.until("it's offered", |stage| !stage.record().left_over(conn).is_empty());
    stage.cx().pause(conn);
    stage.say(peer, b", and more");
    stage.settle();
    torn(&mut stage, conn, peer, &[Seen::Accept, Seen::Data, RESET]);
    Ok(())
}

/// While the program waits for room: it's told of the failure, and no more than once.
pub fn reset_while_the_program_awaits_room<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for reads in [false, true] {
        let much = bytes(13, 2 * world.held_max());
        let mut stage = Stage::new(world, SMALL);
        stage.record().door = Door::Admit { read: reads };
        let (conn, peer) = stage.accepted();
        stage.reads(peer, 0);
        settled_fill(&mut stage, conn, &much);
        let before = stage.record().count(Seen::Writable);
        stage.rip(peer);
        assert_eq!(stage.until_failed(conn), ConnError::Reset);
        stage.settle();
        assert_eq!(stage.record().count(Seen::Writable), before, "room is told of on a connection that failed");
        assert_eq!(stage.record().last(conn), Some(RESET));
        stage.expect_nothing_left();
    }
    Ok(())
}

/// After the program has finished sending.
pub fn reset_after_our_end<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.cx().shutdown(conn);
    stage.until("the peer sees the end", |stage| stage.ending(peer).is_some());
    torn(&mut stage, conn, peer, &[Seen::Accept, RESET]);
    Ok(())
}

/// After the peer's own end.
pub fn reset_after_its_end<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"bye");
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    torn(&mut stage, conn, peer, &[Seen::Accept, Seen::Data, Seen::PeerClose, RESET]);
    Ok(())
}

/// With a timer set: it isn't told after the failure.
pub fn reset_with_a_timer_set<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.set_timer(conn, Duration::from_millis(5));
    stage.rip(peer);
    stage.until_failed(conn);
    let cx = stage.cx();
    let until = cx.now().after(Duration::from_millis(20));
    stage.until("the timer's time is over", |stage| stage.cx().now() > until);
    assert_eq!(stage.record().last(conn), Some(RESET));
    Ok(())
}

/// Many at once, with others that live on.
pub fn many_resets_at_once<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, Config { conns_max: 40, ..SMALL });
    stage.record().echoes = true;
    let pairs: Vec<_> = (0..30).map(|_| stage.accepted()).collect();
    for (place, (_, peer)) in pairs.iter().enumerate() {
        if place % 3 > 0 {
            stage.say(*peer, b"last words");
            stage.rip(*peer);
        }
    }
    for (place, (conn, peer)) in pairs.iter().enumerate() {
        if place % 3 > 0 {
            assert_eq!(stage.until_failed(*conn), ConnError::Reset);
        } else {
            stage.say(*peer, b"alive");
            stage.until_heard(*peer, 5);
        }
    }
    assert_eq!(stage.cx().conns_open(), 10);
    Ok(())
}

/// The program ends a connection that has failed, before it was told: nothing is told then.
pub fn a_failed_connection_is_ended_before_it_is_told<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for resets in [false, true] {
        let mut stage = Stage::new(world, SMALL);
        let (conn, peer) = stage.accepted();
        stage.rip(peer);
        if resets {
            stage.reset(conn)
        } else {
            stage.close(conn)
        }
        stage.expect(conn, &[Seen::Accept]);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// The program ends the connection within `on_error`, as well as the engine does after it.
pub fn a_failed_connection_is_ended_while_it_is_told<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, Config { conns_max: 1, ..SMALL });
    let to = stage.door();
    stage.hook(Box::new(move |cx, record, conn, seen| {
        if let (Some(conn), RESET) = (conn, seen) {
            cx.close(conn);
            // Its slot is taken again at once: what ends it afterwards mustn't end this one.
            let token = record.token();
            let next = cx.dial(&to, &crate::options::LegOptions::default(), token, crate::cx::MeterId::NONE);
            record.begin(next.expect("there's room again"), token, true);
        }
    }));
    let (conn, peer) = stage.accepted();
    stage.rip(peer);
    stage.until_failed(conn);
    let peer = stage.taken();
    let next = stage.record().conns().find(|id| *id != conn).expect("one was dialled");
    assert_eq!(next.slot(), conn.slot());
    stage.until_seen(next, Seen::Connect);
    stage.cx().read(next);
    stage.say(peer, b"!");
    stage.until_received(next, 1);
    Ok(())
}
