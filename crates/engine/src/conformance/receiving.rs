//! Bytes that come: in pieces, used in parts, kept, paused, and held back.

use super::record::{Seen, Take};
use super::stage::{PeerId, SMALL, Stage};
use super::world::{Verdict, World};
use crate::config::Config;
use crate::handler::ConnId;
use crate::options::LegOptions;
use crate::sim::Rng;

const FRAME: usize = 10;

/// Cores that keep what is left over in blocks, and one that has none and only peeks.
const KEEPING: [Config; 2] = [SMALL, Config { blocks: 0, ..SMALL }];

/// `len` bytes that a seed decides.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut block: Vec<u8> = (0..len.min(4096).div_ceil(8)).flat_map(|_| rng.number().to_le_bytes()).collect();
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let piece = block.len().min(len - bytes.len());
        bytes.extend_from_slice(&block[..piece]);
        // No two blocks are alike.
        block.rotate_left(1);
        block[0] = block[0].wrapping_add(1);
    }
    bytes
}

/// What is left over stands in front of what comes next, whatever the pieces; the answer to each whole frame comes without another word.
pub fn what_is_left_over_stands_in_front_of_what_comes_next<W: World>(world: &mut W) -> Verdict {
    const PIECES: [&[u8]; 6] = [b"0123456789", b"abc", b"defghij01", b"2", b"345678987654321", b"xyz"];
    for config in KEEPING {
        let mut stage = Stage::new(world, config);
        (stage.record().take, stage.record().echoes) = (Take::Frames(FRAME), true);
        let (conn, peer) = stage.accepted();
        for piece in PIECES {
            stage.say(peer, piece);
            stage.until("it's all said", |stage| stage.said_all(peer));
            let whole = stage.said(peer).len() / FRAME * FRAME;
            stage.until_heard(peer, whole);
        }
        stage.finish(peer);
        stage.until_seen(conn, Seen::PeerClose);
        let said = stage.said(peer).to_vec();
        assert_eq!(stage.record().left_over(conn), &said[said.len() - said.len() % FRAME..]);
        stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
        stage.close(conn);
        stage.until("the peer sees the end", |stage| stage.ending(peer).is_some());
        stage.expect_nothing_left();
    }
    Ok(())
}

/// What is left over is offered again when the program asks, without another byte.
pub fn what_is_left_over_is_offered_again_when_asked_for<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        let mut stage = Stage::new(world, config);
        stage.record().take = Take::Nothing;
        let (conn, peer) = stage.accepted();
        stage.say(peer, b"patience");
        stage.until("it's offered", |stage| stage.record().left_over(conn) == b"patience");
        stage.settle();
        let offers = stage.record().offers.len();
        stage.cx().read(conn);
        stage.until("it's offered again", |stage| stage.record().offers.len() > offers);
        stage.take_as(conn, Take::AtMost(3));
        stage.cx().read(conn);
        stage.until_received(conn, 3);
        assert_eq!(stage.record().left_over(conn), b"ience");
        stage.take_as(conn, Take::All);
        stage.cx().read(conn);
        stage.until_received(conn, 8);
        stage.finish(peer);
        stage.until_seen(conn, Seen::PeerClose);
    }
    Ok(())
}

/// A program that uses nothing is offered one buffer's worth at most, and its peer finds no more room after a while; when it uses bytes
/// again, all come, in order.
pub fn a_program_that_uses_nothing_holds_its_peer_back<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        let mut stage = Stage::new(world, config);
        stage.listen_with(&LegOptions { recv_buffer: Some(32 * 1024), ..LegOptions::default() });
        stage.record().take = Take::Nothing;
        let (conn, peer) = stage.accepted();
        hold_back(&mut stage, peer);
        assert!(stage.record().left_over(conn).len() <= config.read_bytes);
        stage.take_as(conn, Take::All);
        stage.cx().read(conn);
        all_comes(&mut stage, conn, peer);
    }
    Ok(())
}

/// A paused connection's peer finds no more room after a while, and nothing is offered; read again, all come.
pub fn a_paused_connection_holds_its_peer_back<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    stage.listen_with(&LegOptions { recv_buffer: Some(32 * 1024), ..LegOptions::default() });
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"first");
    stage.until_received(conn, 5);
    stage.cx().pause(conn);
    hold_back(&mut stage, peer);
    assert_eq!(stage.record().received(conn).len(), 5);
    stage.cx().read(conn);
    all_comes(&mut stage, conn, peer);
    Ok(())
}

/// More than any transport holds: the peer gets stuck with much of it unsent.
fn hold_back<W: World>(stage: &mut Stage<'_, W>, peer: PeerId) {
    let much = 2 * stage.world().0.held_max();
    stage.say(peer, &bytes(1, much));
    stage.until("the peer finds no room", |stage| stage.stuck(peer) > 20);
    let said = stage.said(peer).len();
    assert!(said < much / 2, "{said} bytes are held for a program that reads none");
    // So much is tried with; the rest is taken back.
    stage.hold_tongue(peer);
}

fn all_comes<W: World>(stage: &mut Stage<'_, W>, conn: ConnId, peer: PeerId) {
    stage.finish(peer);
    stage.until_seen(conn, Seen::PeerClose);
    let said = stage.said(peer).len();
    assert_eq!(stage.record().received(conn).len(), said);
}

/// Bytes that come one at a time all arrive, and so does one large piece.
pub fn any_pieces_arrive_in_order<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        for (at_once, len) in [(1, 50), (7, 300), (5000, 40_000), (64 * 1024, 300_000)] {
            let mut stage = Stage::new(world, config);
            let (conn, peer) = stage.accepted();
            stage.says_at_once(peer, at_once);
            stage.say(peer, &bytes(len as u64, len));
            stage.finish(peer);
            stage.until_seen(conn, Seen::PeerClose);
            assert_eq!(stage.record().received(conn).len(), len);
            stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::PeerClose]);
        }
    }
    Ok(())
}

/// A program that uses a random part of each offer gets all bytes, in order.
pub fn any_part_may_be_used<W: World>(world: &mut W) -> Verdict {
    for (seed, config) in (0..).zip(KEEPING.iter().cycle().take(6)) {
        let mut stage = Stage::new(world, *config);
        stage.record().take = Take::Seeded(seed);
        let (conn, peer) = stage.accepted();
        stage.says_at_once(peer, 700);
        stage.say(peer, &bytes(seed, 30_000));
        stage.finish(peer);
        let mut turns = 0;
        stage.until("all is used or left over", |stage| {
            turns += 1;
            // Without blocks what is left over fills the transport's window: only asking goes on then.
            if turns % 10 == 0 {
                stage.cx().read(conn);
            }
            stage.record().ended(conn)
        });
        let record = stage.record();
        assert_eq!(record.received(conn).len() + record.left_over(conn).len(), 30_000);
    }
    Ok(())
}
