//! Bytes that go: more than there's room for, ahead of others, to peers that are slow.

use std::io::IoSlice;

use super::actor::Ending;
use super::receiving::bytes;
use super::record::Seen;
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::handler::ConnId;
use crate::options::LegOptions;

/// Sends until there's no room, and says how much went.
pub(super) fn fill<W: World>(stage: &mut Stage<'_, W>, conn: ConnId, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        let piece = &bytes[sent..bytes.len().min(sent + 64 * 1024)];
        let went = stage.send(conn, piece);
        sent += went;
        if went < piece.len() {
            return sent;
        }
    }
    panic!("{sent} bytes are held for a peer that reads none\n{}", stage.tell());
}

/// A short send is followed by `on_writable` when there's room, and by none before the peer reads; then the rest goes.
pub fn a_short_send_is_followed_by_word_of_room<W: World>(world: &mut W) -> Verdict {
    let much = bytes(3, 2 * world.held_max());
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.reads(peer, 0);
    let sent = settled_fill(&mut stage, conn, &much);
    assert_eq!(stage.send(conn, &much[sent..=sent]), 0, "it's full");
    let before = stage.record().count(Seen::Writable);
    stage.settle();
    assert_eq!(stage.record().count(Seen::Writable), before, "room is told of, and nobody has read");
    stage.reads(peer, usize::MAX);
    stage.until("room is told of", |stage| stage.record().count(Seen::Writable) > before);
    let rest = &much[sent..sent + 10_000.min(much.len() - sent)];
    let went = stage.send(conn, rest);
    assert!(went > 0, "there's room");
    stage.until_heard(peer, sent + went);
    stage.close(conn);
    stage.until_ending(peer, Ending::End);
    Ok(())
}

/// Sends until there's no room and none comes: buffers may grow while their bytes are under way.
pub(super) fn settled_fill<W: World>(stage: &mut Stage<'_, W>, conn: ConnId, much: &[u8]) -> usize {
    let mut sent = fill(stage, conn, much);
    loop {
        stage.settle();
        match fill(stage, conn, &much[sent..]) {
            0 => return sent,
            more => sent += more,
        }
    }
}

/// Bytes sent whenever there's room all arrive at a peer that reads slowly; room is told of once for each short send.
pub fn a_slow_peer_gets_all_bytes<W: World>(world: &mut W) -> Verdict {
    const PIECE: usize = 20_000;
    let much = bytes(4, world.held_max());
    let len = much.len();
    let mut stage = Stage::new(world, SMALL);
    stage.listen_with(&LegOptions { send_buffer: Some(32 * 1024), ..LegOptions::default() });
    let (_, peer) = stage.accepted();
    stage.reads(peer, 30_000);
    stage.hook(Box::new(move |cx, record, conn, seen| {
        if let (Some(conn), Seen::Writable | Seen::Data) = (conn, seen) {
            let mut sent = record.sent(conn).len();
            while sent < len {
                let piece = &much[sent..len.min(sent + PIECE)];
                let went = record.send(cx, conn, piece);
                sent += went;
                if went < piece.len() {
                    return;
                }
            }
            cx.shutdown(conn);
        }
    }));
    stage.say(peer, b"go");
    stage.until_ending(peer, Ending::End);
    assert_eq!(stage.heard(peer).len(), len);
    assert!(stage.record().count(Seen::Writable) > 0, "it went at once");
    Ok(())
}

/// Bytes go both ways at once, much of them, each in its order.
pub fn much_both_ways_at_once<W: World>(world: &mut W) -> Verdict {
    let much = bytes(5, world.held_max() / 4);
    let len = much.len();
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    let mine = much.clone();
    stage.hook(Box::new(move |cx, record, conn, seen| {
        if let (Some(conn), Seen::Writable | Seen::Data) = (conn, seen) {
            let sent = record.sent(conn).len();
            // One piece an upcall.
            let until = len.min(sent + 50_000);
            record.send(cx, conn, &mine[sent..until]);
        }
    }));
    stage.says_at_once(peer, 3000);
    stage.say(peer, &much);
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    assert_eq!(stage.record().received(conn).len(), len);
    stage.hook(Box::new(|_, _, _, _| {}));
    let sent = stage.record().sent(conn).len();
    stage.cx().shutdown(conn);
    stage.until_ending(peer, Ending::End);
    assert!(stage.heard(peer).len() >= sent);
    Ok(())
}

/// An empty send is no send: nothing follows from it.
pub fn an_empty_send_is_nothing<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    assert_eq!(stage.send(conn, b""), 0);
    stage.expect(conn, &[Seen::Accept]);
    stage.say(peer, b"still there");
    stage.until_received(conn, 11);
    Ok(())
}

/// Bytes sent ahead arrive: with what follows, by themselves, when they're pushed, and before an end.
pub fn what_is_sent_ahead_arrives<W: World>(world: &mut W) -> Verdict {
    let waits = needs(world, Ability::SendsAhead).is_ok();
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.dialled();
    let ahead = |stage: &mut Stage<'_, W>, bytes: &[u8]| {
        let mut sent = 0;
        stage.until("it's sent", |stage| {
            let (record, cx) = stage.parts();
            let went = cx.send_ahead(conn, &bytes[sent..]);
            record.note_sent(conn, &bytes[sent..sent + went], sent + went < bytes.len());
            sent += went;
            sent == bytes.len()
        });
    };
    ahead(&mut stage, b"with ");
    assert!(!waits || stage.cx().unsent(conn) > 0, "it waits");
    stage.send_all(conn, b"what follows; ");
    stage.until_heard(peer, 19);
    ahead(&mut stage, b"by itself; ");
    stage.until_heard(peer, 30);
    ahead(&mut stage, b"pushed; ");
    stage.cx().push(conn);
    stage.until_heard(peer, 38);
    ahead(&mut stage, b"before the end");
    stage.cx().shutdown(conn);
    stage.until_ending(peer, Ending::End);
    assert_eq!(stage.heard(peer), b"with what follows; by itself; pushed; before the end");
    Ok(())
}

/// What is pushed arrives even before a reset.
pub fn what_is_pushed_arrives_before_a_reset<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.dialled();
    let (record, cx) = stage.parts();
    let sent = cx.send_ahead(conn, b"answer");
    record.note_sent(conn, &b"answer"[..sent], sent < 6);
    cx.push(conn);
    stage.until_heard(peer, sent);
    stage.reset(conn);
    stage.until_ending(peer, Ending::Reset);
    Ok(())
}

/// Bytes that aren't acknowledged are known, and fewer when they are.
pub fn what_a_peer_has_not_taken_is_known<W: World>(world: &mut W) -> Verdict {
    let much = bytes(6, 2 * world.held_max());
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    stage.reads(peer, 0);
    assert_eq!(stage.cx().unacknowledged(conn), 0);
    let sent = settled_fill(&mut stage, conn, &much);
    let (waits, at) = (stage.cx().unacknowledged(conn), stage.cx().last_active(conn));
    assert!(waits > 0, "{sent} bytes are sent and none is under way");
    stage.reads(peer, usize::MAX);
    stage.until_heard(peer, sent);
    stage.until("all is acknowledged", |stage| stage.cx().unacknowledged(conn) == 0);
    assert!(stage.cx().last_active(conn) >= at);
    Ok(())
}

/// Parts are sent as one piece, empty ones and all, more than a system call takes; the rest when there's room.
pub fn parts_are_sent_as_one<W: World>(world: &mut W) -> Verdict {
    let whole = bytes(7, 30_000);
    let mut stage = Stage::new(world, SMALL);
    let (conn, peer) = stage.accepted();
    let mut sent = 0;
    stage.until("all parts are sent", |stage| {
        if stage.record().awaits_room(conn) {
            return false;
        }
        let rest = &whole[sent..];
        let parts: Vec<IoSlice<'_>> =
            rest.chunks(17).flat_map(|part| [IoSlice::new(part), IoSlice::new(b"")]).collect();
        let (record, cx) = stage.parts();
        let went = cx.send_vectored(conn, &parts);
        record.note_sent(conn, &rest[..went], went < rest.len());
        sent += went;
        sent == whole.len()
    });
    assert_eq!(stage.cx().send_vectored(conn, &[]), 0);
    assert_eq!(stage.cx().send_vectored(conn, &[IoSlice::new(b""); 3]), 0);
    stage.until_heard(peer, whole.len());
    Ok(())
}
