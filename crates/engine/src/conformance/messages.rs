//! Messages: whole ones only, each told once, however their bytes come.

use super::receiving::bytes;
use super::record::{Door, Seen, Take};
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::config::Config;
use crate::error::ConnError;

/// Cores that keep the beginning of a message in blocks, and one that leaves it in the transport. Longer messages than these have bytes
/// are refused.
const KEEPING: [Config; 2] = [Config { read_bytes: 128, ..SMALL }, Config { read_bytes: 128, blocks: 0, ..SMALL }];

/// Messages of the lengths of `bodies`, two bytes longer each.
fn stream(bodies: &[usize]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (seed, len) in (0..).zip(bodies) {
        stream.extend(u16::try_from(*len).expect("a short message").to_be_bytes());
        stream.extend(bytes(seed, *len));
    }
    stream
}

fn reading<W: World>(world: &mut W, config: Config) -> Stage<'_, W> {
    let mut stage = Stage::new(world, config);
    stage.record().door = Door::AdmitMessages;
    stage
}

/// Each message is told once it's whole, whatever the pieces; the empty one too, and the longest.
pub fn whole_messages_whatever_the_pieces<W: World>(world: &mut W) -> Verdict {
    const BODIES: [usize; 9] = [5, 0, 126, 1, 0, 0, 100, 126, 3];
    for config in KEEPING {
        for at_once in [1, 3, 50, 10_000] {
            let mut stage = reading(world, config);
            let (conn, peer) = stage.accepted();
            stage.says_at_once(peer, at_once);
            stage.say(peer, &stream(&BODIES));
            stage.finish(peer);
            stage.until_seen(conn, Seen::PeerClose);
            assert_eq!(stage.record().messages(conn), BODIES.map(|len| len + 2));
            stage.expect(conn, &[Seen::Accept, Seen::Message, Seen::PeerClose]);
            assert_eq!(stage.cx().left_over(conn), 0);
        }
    }
    Ok(())
}

/// A program that pauses after each message is told the next when it asks again, without another byte.
pub fn a_pause_after_each_message<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        let mut stage = reading(world, config);
        stage.hook(Box::new(|cx, _, conn, seen| {
            if let (Some(conn), Seen::Message) = (conn, seen) {
                cx.pause(conn);
            }
        }));
        let (conn, peer) = stage.accepted();
        stage.say(peer, &stream(&[10; 12]));
        stage.finish(peer);
        for round in 1..=12 {
            stage.until("another message", |stage| stage.record().messages(conn).len() == round);
            stage.settle();
            assert_eq!(stage.record().messages(conn).len(), round, "a message after a pause");
            stage.cx().read_messages(conn);
        }
        stage.until_seen(conn, Seen::PeerClose);
    }
    Ok(())
}

/// A message longer than the buffer ends the connection, behind those before it.
pub fn a_message_that_is_too_long<W: World>(world: &mut W) -> Verdict {
    fails(world, &stream(&[5, 5, 127, 5]), ConnError::TooLong)
}

/// What is no message ends the connection, behind those before it.
pub fn what_is_no_message<W: World>(world: &mut W) -> Verdict {
    fails(world, &[&stream(&[5, 5])[..], &[0xFF; 20]].concat(), ConnError::Broken)
}

fn fails<W: World>(world: &mut W, stream: &[u8], error: ConnError) -> Verdict {
    for config in KEEPING {
        for at_once in [1, 10_000] {
            let mut stage = reading(world, config);
            let (conn, peer) = stage.accepted();
            stage.says_at_once(peer, at_once);
            stage.say(peer, stream);
            assert_eq!(stage.until_failed(conn), error);
            assert_eq!(stage.record().messages(conn), [7, 7]);
            stage.expect(conn, &[Seen::Accept, Seen::Message, Seen::Error(error)]);
            stage.until("the peer sees the end", |stage| stage.ending(peer).is_some());
            stage.expect_nothing_left();
        }
    }
    Ok(())
}

/// The peer ends in the midst of a message: its end is told, and the beginning isn't.
pub fn an_end_in_the_midst_of_a_message<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        let mut stage = reading(world, config);
        let (conn, peer) = stage.accepted();
        let whole = stream(&[5, 100]);
        stage.say(peer, &whole[..whole.len() - 1]);
        stage.finish(peer);
        stage.until_seen(conn, Seen::PeerClose);
        assert_eq!(stage.record().messages(conn), [7]);
        stage.expect(conn, &[Seen::Accept, Seen::Message, Seen::PeerClose]);
        assert!(stage.cx().left_over(conn) > 0 || config.blocks == 0, "the beginning is left over");
    }
    Ok(())
}

/// The peer resets in the midst of a message: those before it are told, and then that.
pub fn a_reset_in_the_midst_of_a_message<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for config in KEEPING {
        let mut stage = reading(world, config);
        let (conn, peer) = stage.accepted();
        let whole = stream(&[5, 5, 100]);
        stage.say(peer, &whole[..whole.len() - 1]);
        stage.until("it's said", |stage| stage.said_all(peer));
        stage.rip(peer);
        assert_eq!(stage.until_failed(conn), ConnError::Reset);
        assert_eq!(stage.record().messages(conn), [7, 7]);
        stage.expect(conn, &[Seen::Accept, Seen::Message, Seen::Error(ConnError::Reset)]);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// The connection ends within the upcall of a message: those behind it aren't told.
pub fn ended_within_a_message<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        for resets in [false, true] {
            let mut stage = reading(world, config);
            stage.hook(Box::new(move |cx, record, conn, seen| {
                if let (Some(conn), Seen::Message) = (conn, seen) {
                    record.over(conn);
                    if resets { cx.reset(conn) } else { cx.close(conn) }
                }
            }));
            let (conn, peer) = stage.accepted();
            stage.say(peer, &stream(&[5; 10]));
            stage.until_seen(conn, Seen::Message);
            stage.settle();
            assert_eq!(stage.record().messages(conn), [7]);
            stage.expect_nothing_left();
        }
    }
    Ok(())
}

/// From messages to bytes within the upcall of one: the bytes behind it are offered, and none twice.
pub fn from_messages_to_bytes<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        let mut stage = reading(world, config);
        stage.hook(Box::new(|cx, _, conn, seen| {
            if let (Some(conn), Seen::Message) = (conn, seen) {
                cx.read(conn);
            }
        }));
        stage.record().take = Take::AtMost(7);
        let (conn, peer) = stage.accepted();
        stage.say(peer, &stream(&[5; 10]));
        stage.until_received(conn, 14);
        assert_eq!(stage.record().messages(conn), [7]);
        stage.take_as(conn, Take::All);
        stage.cx().read(conn);
        stage.until_received(conn, 70);
    }
    Ok(())
}

/// From messages to a forward within the upcall of one: the bytes behind it go to the other leg, also when the end is behind them.
pub fn from_messages_to_a_forward<W: World>(world: &mut W) -> Verdict {
    for config in KEEPING {
        for ends in [false, true] {
            let mut stage = reading(world, config);
            let (to, sink) = stage.dialled();
            stage.strangers(&[sink]);
            stage.hook(Box::new(move |cx, _, conn, seen| {
                if let (Some(conn), Seen::Message) = (conn, seen) {
                    cx.forward(conn, to);
                }
            }));
            let (conn, peer) = stage.accepted();
            let whole = stream(&[5, 9, 9]);
            stage.say(peer, &whole);
            if ends {
                stage.finish(peer);
            }
            stage.until("the rest is passed on", |stage| stage.heard(sink) == &whole[7..]);
            assert_eq!(stage.record().messages(conn), [7]);
        }
    }
    Ok(())
}

/// However many strangers begin a message, whom we dialled has a block for its own.
pub fn beginnings_of_strangers_leave_blocks_to_the_dialled<W: World>(world: &mut W) -> Verdict {
    let mut stage = reading(world, Config { blocks: 4, ..SMALL });
    let beginning = &stream(&[2000])[..3];
    for _ in 0..5 {
        let (_, peer) = stage.accepted();
        stage.say(peer, beginning);
        stage.settle();
    }
    assert_eq!(stage.cx().gauges().blocks_leased, 3, "the last quarter isn't for them");
    let (conn, peer) = stage.dialled();
    stage.cx().read_messages(conn);
    stage.say(peer, beginning);
    stage.until("there's a block for it", |stage| stage.cx().gauges().blocks_leased == 4);
    stage.say(peer, &stream(&[2000])[3..]);
    stage.until_received(conn, 2002);
    assert_eq!(stage.cx().gauges().blocks_leased, 3, "it's given back");
    Ok(())
}

/// Many connections, each message answered: none is mixed up with another's.
pub fn many_conversations_in_messages<W: World>(world: &mut W) -> Verdict {
    let mut stage = reading(world, Config { conns_max: 40, read_bytes: 128, blocks: 3, ..SMALL });
    stage.record().echoes = true;
    let pairs: Vec<_> = (0..30).map(|_| stage.accepted()).collect();
    let whole = stream(&[20, 0, 126, 33, 7]);
    for (place, (_, peer)) in pairs.iter().enumerate() {
        stage.says_at_once(*peer, 1 + place * 3);
        stage.say(*peer, &whole);
    }
    for (conn, peer) in pairs {
        stage.until_heard(peer, whole.len());
        assert_eq!(stage.record().messages(conn).len(), 5);
    }
    Ok(())
}
