//! Those who connect: admitted, refused, dropped, too many, or gone before they were looked at.

use super::actor::Ending;
use super::record::{Door, Seen, Take};
use super::stage::{PeerId, SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::config::Config;
use crate::error::ConnError;

/// A connection is accepted, its bytes are offered and answered, and its peer ends it.
pub fn an_echo_ended_by_the_peer<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"hello");
    stage.until_heard(peer, 5);
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
    assert_eq!(stage.heard(peer), b"hello");
    assert_eq!(stage.ending(peer), None, "sending goes on after the peer's end");
    stage.close(conn);
    stage.until_ending(peer, Ending::End);
    stage.expect_nothing_left();
    Ok(())
}

/// The program ends the connection: no upcall follows, and the peer reads all that was sent before the end.
pub fn an_echo_ended_by_the_program<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    stage.hook(Box::new(|cx, record, conn, seen| {
        if let (Some(conn), Seen::Data) = (conn, seen) {
            let sent = record.send(cx, conn, b"answer");
            assert!(sent > 0, "a fresh connection has room");
            record.over(conn);
            cx.close(conn);
        }
    }));
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"question");
    stage.until_ending(peer, Ending::End);
    let sent = stage.record().sent(conn).to_vec();
    assert_eq!(stage.heard(peer), sent);
    stage.leave(peer);
    stage.expect(conn, &[Seen::Accept, Seen::Data]);
    stage.expect_nothing_left();
    Ok(())
}

/// Nothing is told of an admitted connection before the program asks for it.
pub fn nothing_is_told_before_it_is_asked_for<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    stage.record().door = Door::Admit { read: false };
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"early");
    stage.finish(peer);
    stage.expect(conn, &[Seen::Accept]);
    stage.cx().read(conn);
    stage.until_seen(conn, Seen::PeerClose);
    stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
    assert_eq!(stage.record().received(conn), b"early");
    Ok(())
}

/// Bytes and an end that came before the connection was accepted are told like others.
pub fn all_came_before_it_was_accepted<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    stage.listen();
    let peer = stage.connect();
    stage.say(peer, b"all of it");
    stage.finish(peer);
    stage.until("all is told", |stage| stage.record().count(Seen::PeerClose) == 1);
    let conn = stage.record().accepted()[0];
    stage.introduce(conn, peer);
    stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
    assert_eq!(stage.record().received(conn), b"all of it");
    Ok(())
}

/// More connect at once than one batch takes, and than the core has room for: those beyond are refused, and all others serve.
pub fn more_than_a_batch_and_more_than_there_is_room_for<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, Config { conns_max: 10, accept_batch: 3, ..SMALL });
    stage.record().echoes = true;
    let (mut turn, mut met) = (0, 0);
    stage.hook(Box::new(move |cx, _, _, seen| {
        if matches!(seen, Seen::Accept | Seen::TurnedAway) {
            met = if cx.gauges().turns == turn { met + 1 } else { 1 };
            turn = cx.gauges().turns;
            assert!(met <= 3, "a batch isn't the end of it");
        }
    }));
    let peers: Vec<PeerId> = (0..12).map(|_| stage.connect()).collect();
    stage.until("all have been met", |stage| {
        stage.record().count(Seen::Accept) + stage.record().count(Seen::TurnedAway) == 12
    });
    assert_eq!(stage.record().count(Seen::TurnedAway), 2);
    for peer in &peers {
        stage.say(*peer, b"?");
    }
    let served = |stage: &Stage<'_, W>, peer: &PeerId| stage.heard(*peer) == b"?";
    let gone = |stage: &Stage<'_, W>, peer: &PeerId| stage.ending(*peer).is_some();
    stage.until("all are answered", |stage| peers.iter().all(|peer| served(stage, peer) || gone(stage, peer)));
    assert_eq!(peers.iter().filter(|peer| served(&stage, peer)).count(), 10, "{}", stage.tell());
    // Whoever goes makes room.
    let first = stage.record().accepted()[0];
    stage.close(first);
    let (_, late) = stage.accepted();
    stage.say(late, b"!");
    stage.until_heard(late, 1);
    Ok(())
}

/// Whoever is refused sees a reset.
pub fn a_refused_one_sees_a_reset<W: World>(world: &mut W) -> Verdict {
    turned_away(world, Door::Refuse)
}

/// Whoever is dropped sees a reset.
pub fn a_dropped_one_sees_a_reset<W: World>(world: &mut W) -> Verdict {
    turned_away(world, Door::Drop)
}

fn turned_away<W: World>(world: &mut W, door: Door) -> Verdict {
    let resets = needs(world, Ability::Resets).is_ok();
    let mut stage = Stage::new(world, SMALL);
    stage.record().door = door;
    let peer = stage.connect();
    stage.until_ending(peer, if resets { Ending::Reset } else { Ending::End });
    assert_eq!(stage.record().count(Seen::TurnedAway), 1);
    stage.expect_nothing_left();
    Ok(())
}

/// Who connects is told.
pub fn who_connects_is_told<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::PeerAddrs)?;
    let mut stage = Stage::new(world, SMALL);
    let peers = [stage.connect(), stage.connect()];
    stage.until("both are accepted", |stage| stage.record().accepted().len() == 2);
    let conns = stage.record().accepted().to_vec();
    for peer in peers {
        let addr = stage.addr_of(peer).expect("peers have addresses here");
        let found: Vec<_> = conns.iter().filter(|conn| stage.record().peer(**conn) == Some(&addr)).collect();
        assert_eq!(found.len(), 1, "one connection is from {addr}");
        let near = stage.cx().local_addr(*found[0]);
        assert_eq!(near, Some(stage.listen()));
    }
    Ok(())
}

/// A peer that has reset its connection before anybody looked is either never met, or fails when it's read.
pub fn reset_before_it_was_accepted<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    stage.listen();
    let peer = stage.connect();
    stage.say(peer, b"gone");
    stage.rip(peer);
    let (conn, _) = stage.accepted();
    let ghosts: Vec<_> = stage.record().accepted().iter().copied().filter(|id| *id != conn).collect();
    if let [ghost] = ghosts[..] {
        assert_eq!(stage.until_failed(ghost), ConnError::Reset);
        let last = stage.record().order(ghost).pop();
        assert_eq!(last, Some(Seen::Error(ConnError::Reset)));
    }
    stage.close(conn);
    stage.settle();
    stage.expect_nothing_left();
    Ok(())
}

/// A connection's slot is taken again: its old handle moves nothing and hears nothing.
pub fn a_stale_handle_is_inert<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, Config { conns_max: 1, ..SMALL });
    let (old, _) = stage.accepted();
    stage.close(old);
    let (new, peer) = stage.accepted();
    assert_eq!(old.slot(), new.slot(), "there's one slot");
    stage.take_as(new, Take::Nothing);
    let cx = stage.cx();
    assert_eq!((cx.send(old, b"stale"), cx.unsent(old), cx.handed_on(old)), (0, 0, 0));
    cx.pause(old);
    cx.read(old);
    cx.forward(old, new);
    cx.forward(new, old);
    cx.shutdown(old);
    cx.push(old);
    cx.clear_timer(old);
    cx.set_timer(old, std::time::Duration::from_millis(1));
    cx.rename(old, 1, crate::cx::MeterId::NONE);
    cx.close(old);
    cx.reset(old);
    stage.take_as(new, Take::All);
    stage.say(peer, b"fresh");
    stage.until_received(new, 5);
    stage.send_all(new, b"answer");
    stage.until_heard(peer, 6);
    assert_eq!(stage.record().order(new)[..2], [Seen::Accept, Seen::Data]);
    assert_eq!(stage.record().count(Seen::PeerClose) + stage.record().count(Seen::Timer), 0);
    Ok(())
}
