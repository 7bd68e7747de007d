//! Ends in order: from either side, from both, with bytes after them, and from within every upcall.

use std::time::Duration;

use super::actor::Ending;
use super::receiving::bytes;
use super::record::{Door, Seen, Take};
use super::sending::settled_fill;
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::config::Config;
use crate::error::ConnError;
use crate::options::LegOptions;

/// The peer finishes sending: the program goes on sending, and ends when it likes.
pub fn sending_goes_on_after_the_peers_end<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"that's all");
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    let answer = bytes(7, 20_000);
    stage.send_all(conn, &answer);
    stage.until_heard(peer, answer.len());
    assert_eq!(stage.ending(peer), None);
    stage.cx().shutdown(conn);
    stage.until_ending(peer, Ending::End);
    stage.settle();
    stage.expect_order(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
    stage.close(conn);
    stage.expect_nothing_left();
    Ok(())
}

/// The program finishes sending: the peer goes on, and its bytes and its end are told as ever.
pub fn receiving_goes_on_after_the_programs_end<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.dialled();
    stage.send_all(conn, b"that's all");
    stage.cx().shutdown(conn);
    stage.cx().read(conn);
    stage.until_ending(peer, Ending::End);
    stage.says_at_once(peer, 999);
    stage.say(peer, &bytes(8, 20_000));
    stage.until_received(conn, 20_000);
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    stage.expect(conn, &[Seen::Connect, Seen::Data, Seen::PeerClose]);
    stage.close(conn);
    stage.expect_nothing_left();
    Ok(())
}

/// Both sides finish at the same time: each reads all, and the end.
pub fn both_end_at_once<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"bye");
    stage.finish(peer);
    stage.send_all(conn, b"farewell");
    stage.cx().shutdown(conn);
    stage.until_seen(conn, Seen::PeerClose);
    stage.until_ending(peer, Ending::End);
    assert_eq!(stage.heard(peer), b"farewell");
    stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
    stage.close(conn);
    stage.expect_nothing_left();
    Ok(())
}

/// The end comes without a single byte before it.
pub fn an_end_without_bytes<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    stage.expect(conn, &[Seen::Accept, Seen::PeerClose]);
    // Asking again brings nothing new.
    stage.cx().read(conn);
    stage.expect(conn, &[Seen::Accept, Seen::PeerClose]);
    stage.close(conn);
    stage.until_ending(peer, Ending::End);
    stage.expect_nothing_left();
    Ok(())
}

/// More has come before the end than a turn moves, and than the buffer holds: all of it is told before.
pub fn an_end_behind_more_than_a_turn<W: World>(world: &mut W) -> Verdict {
    for blocks in [4, 0] {
        let mut stage = Stage::new(world, Config { read_bytes: 20, turn_bytes: 40, blocks, ..SMALL });
        stage.record().door = Door::Admit { read: false };
        let (conn, peer) = stage.accepted();
        stage.say(peer, &bytes(14, 140));
        stage.finish(peer);
        stage.until("it's all said", |stage| stage.said_all(peer));
        stage.settle();
        stage.cx().read(conn);
        stage.until_seen(conn, Seen::PeerClose);
        assert_eq!(stage.record().received(conn).len(), 140);
        stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
    }
    Ok(())
}

/// Closed with bytes that the peer hasn't read, all of them reach it, and then the end.
pub fn what_was_sent_before_a_close_arrives<W: World>(world: &mut W) -> Verdict {
    let much = bytes(9, 2 * world.held_max());
    let mut stage = Stage::new(world, SMALL);
    stage.listen_with(&LegOptions { send_buffer: Some(256 * 1024), ..LegOptions::default() });
    let (conn, peer) = stage.accepted();
    stage.reads(peer, 0);
    let sent = settled_fill(&mut stage, conn, &much);
    stage.close(conn);
    stage.settle();
    stage.expect_nothing_left();
    stage.reads(peer, 100_000);
    stage.until_ending(peer, Ending::End);
    assert_eq!(stage.heard(peer).len(), sent);
    Ok(())
}

/// The program sends and closes, sends and finishes, resets, and stops in the same turn: all of it reaches the peers, though
/// no turn follows.
pub fn what_was_sent_in_the_turn_that_stops_arrives<W: World>(world: &mut W) -> Verdict {
    let resets = needs(world, Ability::Resets).is_ok();
    let mut stage = Stage::new(world, SMALL);
    let [closed, finished, reset] = [(); 3].map(|()| stage.accepted());
    stage.settle();
    stage.record().shows_alarms = true;
    stage.cx().set_alarm(Duration::ZERO);
    stage.hook(Box::new(move |cx, record, _, seen| {
        if seen == Seen::Alarm {
            assert_eq!(record.send(cx, closed.0, b"farewell"), 8);
            record.over(closed.0);
            cx.close(closed.0);
            assert_eq!(record.send(cx, finished.0, b"that's all"), 10);
            cx.shutdown(finished.0);
            record.over(reset.0);
            cx.reset(reset.0);
            cx.stop();
        }
    }));
    let last = if resets { Ending::Reset } else { Ending::End };
    stage.run_out("the ends", |stage| [closed, finished, reset].iter().all(|(_, peer)| stage.ending(*peer).is_some()));
    assert_eq!(stage.heard(closed.1), b"farewell");
    assert_eq!(stage.heard(finished.1), b"that's all");
    let endings = [closed, finished, reset].map(|(_, peer)| stage.ending(peer));
    assert_eq!(endings, [Some(Ending::End), Some(Ending::End), Some(last)], "{}", stage.tell());
    Ok(())
}

/// Reset with bytes that the peer hasn't read: it sees a reset.
pub fn a_reset_is_seen_by_the_peer<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for unsent in [false, true] {
        let much = bytes(10, 2 * world.held_max());
        let mut stage = Stage::new(world, SMALL);
        let (conn, peer) = stage.accepted();
        if unsent {
            stage.reads(peer, 0);
            settled_fill(&mut stage, conn, &much);
        }
        stage.reset(conn);
        stage.reads(peer, usize::MAX);
        stage.until_ending(peer, Ending::Reset);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// Closed while bytes of the peer's are unread: the peer can't take its end for an answer (RFC 2525, 2.17).
pub fn a_close_with_unread_bytes_is_a_reset<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().door = Door::Admit { read: false };
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"unread");
    stage.settle();
    stage.close(conn);
    stage.until_ending(peer, Ending::Reset);
    stage.expect_nothing_left();
    Ok(())
}

/// Each upcall of a connection, and how it's brought about.
const UPCALLS: [Seen; 6] = [Seen::Accept, Seen::Connect, Seen::Data, Seen::Writable, Seen::PeerClose, Seen::Timer];

/// The program ends the connection from within each upcall: nothing follows, though there's more to tell.
pub fn an_end_from_within_every_upcall<W: World>(world: &mut W) -> Verdict {
    for at in UPCALLS {
        for resets in [false, true] {
            end_within(&mut Stage::new(world, SMALL), at, resets);
        }
    }
    Ok(())
}

fn end_within<W: World>(stage: &mut Stage<'_, W>, at: Seen, resets: bool) {
    let much = bytes(11, 2 * stage.world().0.held_max());
    stage.record().take = Take::AtMost(1);
    let (conn, peer) = if at == Seen::Accept {
        stage.hook(ender(at, resets));
        let (conn, peer) = stage.accepted();
        (conn, peer)
    } else {
        let to = stage.door();
        stage.hook(ender(at, resets));
        let conn = stage.dial(&to).expect("a peer listens there");
        let peer = stage.taken();
        if at != Seen::Connect {
            stage.until_seen(conn, Seen::Connect);
            stage.set_timer(conn, Duration::from_millis(if at == Seen::Timer { 1 } else { 60_000 }));
        }
        (conn, peer)
    };
    if at == Seen::Writable {
        stage.reads(peer, 0);
        settled_fill(stage, conn, &much);
        stage.reads(peer, usize::MAX);
    } else if at != Seen::Timer {
        stage.say(peer, b"more to tell");
        stage.finish(peer);
        stage.cx().read(conn);
    }
    stage.until_seen(conn, at);
    stage.settle();
    assert_eq!(stage.record().last(conn), Some(at), "{}", stage.tell());
    stage.expect_nothing_left();
}

fn ender<B: crate::backend::Backend>(at: Seen, resets: bool) -> super::trace::Hook<B> {
    Box::new(move |cx, record, conn, seen| {
        if let Some(conn) = conn.filter(|_| seen == at) {
            record.over(conn);
            if resets {
                cx.reset(conn)
            } else {
                cx.close(conn)
            }
            // Inert by now.
            cx.close(conn);
            cx.read(conn);
        }
    })
}

/// The peer closes its socket, not only its sending: what the program sends then fails, and that's told once.
pub fn sending_to_a_peer_that_has_left_fails<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"bye");
    stage.until("it's said", |stage| stage.said_all(peer));
    stage.leave(peer);
    stage.until_seen(conn, Seen::PeerClose);
    assert_eq!(stage.record().received(conn), b"bye");
    stage.until("sending fails", |stage| {
        if stage.record().error(conn).is_none() {
            let (_, cx) = stage.parts();
            cx.send(conn, b"anybody there?");
        }
        stage.record().error(conn).is_some()
    });
    assert_eq!(stage.record().error(conn), Some(ConnError::Reset));
    stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose, Seen::Error(ConnError::Reset)]);
    stage.expect_nothing_left();
    Ok(())
}
