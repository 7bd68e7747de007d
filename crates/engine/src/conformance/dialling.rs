//! Dials: those that stand, and every way in which one doesn't.

use std::time::Duration;

use super::actor::Ending;
use super::record::{Seen, Take};
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::addr::Addr;
use crate::config::Config;
use crate::cx::MeterId;
use crate::error::ConnError;
use crate::options::LegOptions;

/// A dial that stands is told first, and bytes go both ways; what came with it comes after.
pub fn a_dial_that_stands_is_told_before_its_bytes<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    stage.hook(Box::new(|cx, record, conn, seen| {
        if let (Some(conn), Seen::Connect) = (conn, seen) {
            // As an echo, which waits for room if there's none.
            record.say(cx, conn, b"hello");
            cx.read(conn);
        }
    }));
    let to = stage.door();
    let conn = stage.dial(&to).expect("a peer listens there");
    let peer = stage.taken();
    stage.say(peer, b"welcome");
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    stage.until_heard(peer, 12);
    stage.expect(conn, &[Seen::Connect, Seen::Data, Seen::PeerClose]);
    assert_eq!(stage.heard(peer), b"hellowelcome");
    Ok(())
}

/// Nothing is told of a dialled connection but that it stands, until the program asks for more.
pub fn a_dial_that_stands_is_not_read_by_itself<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.dialled();
    stage.say(peer, b"early");
    stage.expect(conn, &[Seen::Connect]);
    stage.cx().read(conn);
    stage.until_received(conn, 5);
    Ok(())
}

/// A dial that nobody takes is refused, at once or by an upcall.
pub fn a_dial_is_refused<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (world, backend) = stage.world();
    let to = world.refusing(backend);
    fails(&mut stage, &to, ConnError::Refused);
    Ok(())
}

/// A dial to where no way leads fails, at once or by an upcall.
pub fn a_dial_leads_nowhere<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (world, backend) = stage.world();
    let to = world.unreachable(backend);
    fails(&mut stage, &to, ConnError::Unreachable);
    Ok(())
}

/// A dial to where this host may not go is told as denied, at once or by an upcall.
pub fn a_dial_is_denied<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Denials)?;
    let mut stage = Stage::new(world, SMALL);
    let (world, backend) = stage.world();
    let to = world.denied(backend);
    fails(&mut stage, &to, ConnError::Denied);
    Ok(())
}

/// A dial to a listener whose queue is full says so.
pub fn a_dial_to_a_full_listener_is_told_to_come_again<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::BusyListeners)?;
    let mut stage = Stage::new(world, SMALL);
    let (world, backend) = stage.world();
    let to = world.silent(backend);
    // How many find room is the transport's.
    let mut dials = (0..4).map(|_| stage.dial(&to)).filter_map(Result::err);
    assert_eq!(dials.next(), Some(ConnError::Busy));
    Ok(())
}

fn fails<W: World>(stage: &mut Stage<'_, W>, to: &Addr, error: ConnError) {
    match stage.dial(to) {
        Err(at_once) => assert_eq!(at_once, error),
        Ok(conn) => {
            assert_eq!(stage.until_failed(conn), error);
            stage.expect(conn, &[Seen::Error(error)]);
        }
    }
    stage.expect_nothing_left();
    // Others aren't touched by it.
    let (conn, peer) = stage.dialled();
    stage.cx().read(conn);
    stage.say(peer, b"!");
    stage.until_received(conn, 1);
}

/// Nobody answers a dial: its timer runs, and the program gives up. Nothing follows.
pub fn a_dial_that_is_never_answered_ends_by_its_timer<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Silence)?;
    for resets in [false, true] {
        let mut stage = Stage::new(world, SMALL);
        let (world, backend) = stage.world();
        let to = world.silent(backend);
        let conn = stage.dial(&to).expect("nobody answers, not even that");
        assert_eq!(stage.send(conn, b"too early"), 0, "a dial under way has no room");
        stage.cx().read(conn);
        stage.set_timer(conn, Duration::from_millis(20));
        stage.until_seen(conn, Seen::Timer);
        if resets {
            stage.reset(conn)
        } else {
            stage.close(conn)
        }
        stage.expect(conn, &[Seen::Timer]);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// A dial that the program gives up before it stands is never told of.
pub fn a_dial_may_be_given_up_at_once<W: World>(world: &mut W) -> Verdict {
    for resets in [false, true] {
        let mut stage = Stage::new(world, SMALL);
        let to = stage.door();
        let conn = stage.dial(&to).expect("a peer listens there");
        if resets {
            stage.reset(conn)
        } else {
            stage.close(conn)
        }
        stage.expect(conn, &[]);
        stage.expect_nothing_left();
        let other = stage.dial(&to).expect("a peer listens there");
        stage.until_seen(other, Seen::Connect);
    }
    Ok(())
}

/// A dial stands, and its peer resets it before the core looks: it's told that it stood, what came with it, and that it failed.
pub fn a_dial_that_stood_and_was_reset_is_told_as_such<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for says in [&b""[..], b"farewell"] {
        let mut stage = Stage::new(world, SMALL);
        stage.hook(Box::new(|cx, _, conn, seen| {
            if let (Some(conn), Seen::Connect) = (conn, seen) {
                cx.read(conn);
            }
        }));
        let to = stage.door();
        let conn = stage.dial(&to).expect("a peer listens there");
        let peer = stage.taken();
        stage.introduce(conn, peer);
        stage.say(peer, says);
        stage.until("it's all said", |stage| stage.said_all(peer));
        stage.rip(peer);
        assert_eq!(stage.until_failed(conn), ConnError::Reset);
        assert_eq!(stage.record().received(conn), says);
        let (connect, error) = (Seen::Connect, Seen::Error(ConnError::Reset));
        let order = if says.is_empty() { vec![connect, error] } else { vec![connect, Seen::Data, error] };
        stage.expect(conn, &order);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// A core without room dials nobody, and says so.
pub fn a_full_core_dials_nobody<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, Config { conns_max: 1, ..SMALL });
    let (conn, peer) = stage.dialled();
    let to = stage.door();
    assert_eq!(stage.dial(&to), Err(ConnError::Exhausted));
    stage.close(conn);
    stage.until_ending(peer, Ending::End);
    stage.dial(&to).expect("there's room again");
    Ok(())
}

/// A dial from another's address is seen as that one's.
pub fn a_dial_from_anothers_address<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::DialFrom)?;
    let mut stage = Stage::new(world, SMALL);
    let (to, source) = (stage.door(), stage.world().0.strange_addr());
    let (record, cx) = stage.parts();
    let token = record.token();
    let conn = cx
        .dial_from(&to, Some(source), &LegOptions::default(), token, MeterId::NONE)
        .expect("others' addresses may be taken");
    record.begin(conn, token, true);
    let peer = stage.taken();
    let caller = stage.caller_of(peer).and_then(|addr| addr.inet()).map(|addr| addr.ip());
    assert_eq!(caller, Some(source.ip()));
    stage.until_seen(conn, Seen::Connect);
    stage.cx().read(conn);
    stage.say(peer, b"?");
    stage.until_received(conn, 1);
    Ok(())
}

/// Many dials at once, each with a conversation of its own.
pub fn many_dials_at_once<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, Config { conns_max: 64, ..SMALL });
    stage.hook(Box::new(|cx, record, conn, seen| {
        if let (Some(conn), Seen::Connect) = (conn, seen) {
            record.set_take(conn, Take::All);
            cx.read(conn);
        }
    }));
    let to = stage.door();
    let conns: Vec<_> = (0..50).map(|_| stage.dial(&to).expect("a peer listens there")).collect();
    let peers: Vec<_> = (0..50).map(|_| stage.taken()).collect();
    for (place, peer) in (0_u8..).zip(&peers) {
        stage.say(*peer, &[place; 100]);
        stage.finish(*peer);
    }
    stage.until("all are told of their ends", |stage| stage.record().count(Seen::PeerClose) == conns.len());
    for conn in conns {
        stage.expect_order(conn, &[Seen::Connect, Seen::Data, Seen::PeerClose]);
        let received = stage.record().received(conn);
        assert!(received.len() == 100 && received.iter().all(|byte| *byte == received[0]), "streams are mixed up");
        stage.close(conn);
    }
    stage.expect_nothing_left();
    Ok(())
}
