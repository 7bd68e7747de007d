//! Leg to leg: all bytes, both ends, and what becomes of one leg when the other is gone.

use super::actor::Ending;
use super::receiving::bytes;
use super::record::{Door, Seen, Take};
use super::stage::{PeerId, SMALL, Stage};
use super::trace::Hook;
use super::world::{Ability, Verdict, World, needs};
use crate::backend::Backend;
use crate::config::Config;
use crate::error::ConnError;
use crate::handler::ConnId;
use crate::options::LegOptions;

/// Two legs and their peers.
struct Legs {
    a: ConnId,
    b: ConnId,
    peer_a: PeerId,
    peer_b: PeerId,
}

/// Cores that splice, and that have to do without pipes, blocks, or both; and one whose buffer is a few bytes.
const WAYS: [Config; 5] = [
    SMALL,
    Config { pipes_max: 0, ..SMALL },
    Config { blocks: 0, ..SMALL },
    Config { blocks: 0, pipes_max: 0, ..SMALL },
    Config { read_bytes: 61, pipe_bytes: 4096, ..SMALL },
];

/// Buffers so small that they fill.
fn tight() -> LegOptions {
    LegOptions { recv_buffer: Some(16 * 1024), send_buffer: Some(16 * 1024), ..LegOptions::default() }
}

/// A leg that was accepted and one that was dialled, nothing forwarded yet.
fn legs<W: World>(stage: &mut Stage<'_, W>) -> Legs {
    stage.record().door = Door::Admit { read: false };
    stage.listen_with(&tight());
    let (a, peer_a) = stage.accepted();
    let (b, peer_b) = stage.dialled();
    Legs { a, b, peer_a, peer_b }
}

/// The same, forwarded both ways: each end is passed on.
fn relayed<W: World>(stage: &mut Stage<'_, W>) -> Legs {
    let legs = legs(stage);
    let Legs { a, b, peer_a, peer_b } = legs;
    stage.relay(peer_a, peer_b);
    stage.relay(peer_b, peer_a);
    stage.hook(passing_on(a, b));
    stage.cx().forward(a, b);
    stage.cx().forward(b, a);
    legs
}

/// Passes each end on to the other leg.
fn passing_on<B: Backend>(a: ConnId, b: ConnId) -> Hook<B> {
    Box::new(move |cx, _, conn, seen| {
        if let (Some(conn), Seen::PeerClose) = (conn, seen) {
            cx.shutdown(if conn == a { b } else { a });
        }
    })
}

fn over<W: World>(stage: &mut Stage<'_, W>, legs: &Legs) {
    for (conn, first) in [(legs.a, Seen::Accept), (legs.b, Seen::Connect)] {
        stage.expect_order(conn, &[first, Seen::PeerClose]);
        stage.close(conn);
    }
    stage.expect_nothing_left();
}

/// A conversation in small pieces, each end passed on by itself.
pub fn a_conversation_is_passed_on<W: World>(world: &mut W) -> Verdict {
    for config in WAYS {
        let mut stage = Stage::new(world, config);
        let legs = relayed(&mut stage);
        for round in 1..20 {
            stage.say(legs.peer_a, b"question");
            stage.until_heard(legs.peer_b, 8 * round);
            stage.say(legs.peer_b, b"answer");
            stage.until_heard(legs.peer_a, 6 * round);
        }
        stage.finish(legs.peer_a);
        stage.until_ending(legs.peer_b, Ending::End);
        assert_eq!(stage.ending(legs.peer_a), None, "one end isn't the other");
        stage.say(legs.peer_b, b"afterword");
        stage.until_heard(legs.peer_a, 6 * 19 + 9);
        stage.finish(legs.peer_b);
        stage.until_ending(legs.peer_a, Ending::End);
        let handed_on = stage.cx().handed_on(legs.a);
        assert_eq!(handed_on, 8 * 19);
        over(&mut stage, &legs);
    }
    Ok(())
}

/// Much, both ways at once, to peers that read at random.
pub fn much_is_passed_on_both_ways<W: World>(world: &mut W) -> Verdict {
    let len = if world.is_virtual() { 15_000 } else { 1_500_000 };
    for (seed, config) in (0..).zip(WAYS) {
        let mut stage = Stage::new(world, config);
        let legs = relayed(&mut stage);
        stage.says_at_once(legs.peer_b, 9_000);
        stage.reads(legs.peer_b, 40_000);
        stage.say(legs.peer_a, &bytes(seed, len));
        stage.finish(legs.peer_a);
        stage.say(legs.peer_b, &bytes(seed + 100, len / 2));
        stage.finish(legs.peer_b);
        stage.until_ending(legs.peer_b, Ending::End);
        stage.until_ending(legs.peer_a, Ending::End);
        assert_eq!((stage.heard(legs.peer_b).len(), stage.heard(legs.peer_a).len()), (len, len / 2));
        over(&mut stage, &legs);
    }
    Ok(())
}

/// A peer that doesn't read holds the one back whose bytes it's to read; then all come.
pub fn a_slow_sink_holds_the_source_back<W: World>(world: &mut W) -> Verdict {
    for config in WAYS {
        let mut stage = Stage::new(world, config);
        let much = 3 * stage.world().0.held_max();
        let legs = relayed(&mut stage);
        stage.reads(legs.peer_b, 0);
        stage.say(legs.peer_a, &bytes(20, much));
        stage.until("the peer finds no room", |stage| stage.stuck(legs.peer_a) > 20);
        stage.hold_tongue(legs.peer_a);
        let said = stage.said(legs.peer_a).len();
        assert!(said < much, "{said} bytes are held for a peer that reads none");
        stage.finish(legs.peer_a);
        stage.reads(legs.peer_b, usize::MAX);
        stage.until_ending(legs.peer_b, Ending::End);
        assert_eq!(stage.heard(legs.peer_b).len(), said);
        stage.finish(legs.peer_b);
        stage.until_ending(legs.peer_a, Ending::End);
        over(&mut stage, &legs);
    }
    Ok(())
}

/// What the program left over goes first, without another word from the peer: forwarded within the offer, after a pause, or while it's
/// read.
pub fn what_is_left_over_is_forwarded<W: World>(world: &mut W) -> Verdict {
    for config in WAYS {
        for (ends, when) in [(false, 0), (true, 0), (false, 1), (true, 1), (false, 2), (true, 2)] {
            let mut stage = Stage::new(world, config);
            let legs = legs(&mut stage);
            stage.strangers(&[legs.peer_b]);
            stage.say(legs.peer_a, b"0123456789and the rest");
            if ends {
                stage.finish(legs.peer_a);
            }
            stage.settle();
            let (a, b) = (legs.a, legs.b);
            let mut pass_on = passing_on(a, b);
            stage.hook(Box::new(move |cx, record, conn, seen| {
                if seen == Seen::Data {
                    match when {
                        0 => cx.forward(a, b),
                        1 => cx.pause(a),
                        _ => {}
                    }
                }
                // The end is passed on once the rest is.
                if when < 2 {
                    pass_on(cx, record, conn, seen);
                }
            }));
            stage.take_as(a, Take::AtMost(10));
            stage.cx().read(a);
            stage.until("the head is used", |stage| stage.record().received(a).len() == 10);
            stage.take_as(a, Take::Nothing);
            stage.settle();
            if when > 0 {
                stage.cx().forward(a, b);
            }
            stage.until("the rest is passed on", |stage| stage.heard(legs.peer_b) == b"and the rest");
            if ends && when < 2 {
                stage.until_ending(legs.peer_b, Ending::End);
            }
        }
    }
    Ok(())
}

/// The sink fails: that's told of it alone, last. The source is nobody's until the program says what becomes of it.
pub fn a_failing_sink_leaves_the_source_to_the_program<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for config in WAYS {
        for full in [false, true] {
            let mut stage = Stage::new(world, config);
            let much = 3 * stage.world().0.held_max();
            let legs = relayed(&mut stage);
            stage.reads(legs.peer_b, 0);
            if full {
                stage.say(legs.peer_a, &bytes(21, much));
                stage.until("the peer finds no room", |stage| stage.stuck(legs.peer_a) > 20);
                stage.hold_tongue(legs.peer_a);
            }
            stage.rip(legs.peer_b);
            assert_eq!(stage.until_failed(legs.b), ConnError::Reset);
            stage.settle();
            stage.expect_order(legs.b, &[Seen::Connect, Seen::Error(ConnError::Reset)]);
            stage.expect_order(legs.a, &[Seen::Accept]);
            // Sending to it is the program's again.
            stage.unrelay(legs.peer_a);
            stage.send_all(legs.a, b"sorry");
            stage.until_heard(legs.peer_a, 5);
            stage.close(legs.a);
            stage.settle();
            stage.expect_nothing_left();
        }
    }
    Ok(())
}

/// The source fails: all that came before is handed on first, and the sink is the program's again.
pub fn a_failing_source_is_handed_on_to_its_last_byte<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for config in WAYS {
        // No more than a kernel sends before it hears back (RFC 6928): a reset throws away what it hasn't sent.
        for len in [0, 10, 14_000] {
            let mut stage = Stage::new(world, config);
            let legs = relayed(&mut stage);
            stage.say(legs.peer_a, &bytes(22, len));
            stage.until("it's all said", |stage| stage.said_all(legs.peer_a));
            stage.rip(legs.peer_a);
            assert_eq!(stage.until_failed(legs.a), ConnError::Reset);
            stage.until_heard(legs.peer_b, len);
            stage.expect(legs.a, &[Seen::Accept, Seen::Error(ConnError::Reset)]);
            stage.expect_order(legs.b, &[Seen::Connect]);
            stage.unrelay(legs.peer_b);
            stage.send_all(legs.b, b"sorry");
            stage.until_heard(legs.peer_b, len + 5);
            stage.close(legs.b);
            stage.until_ending(legs.peer_b, Ending::End);
            stage.expect_nothing_left();
        }
    }
    Ok(())
}

/// The source's peer resets while the sink has no room: what was taken from it isn't lost, and the failure comes behind it.
pub fn a_source_fails_while_its_bytes_wait<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for config in WAYS {
        let mut stage = Stage::new(world, config);
        let much = 3 * stage.world().0.held_max();
        let legs = relayed(&mut stage);
        stage.reads(legs.peer_b, 0);
        stage.say(legs.peer_a, &bytes(23, much));
        stage.until("the peer finds no room", |stage| stage.stuck(legs.peer_a) > 20);
        let said = stage.said(legs.peer_a).len();
        stage.rip(legs.peer_a);
        stage.settle();
        stage.reads(legs.peer_b, usize::MAX);
        assert_eq!(stage.until_failed(legs.a), ConnError::Reset);
        stage.settle();
        // What was on its way when it was reset may be lost; what the core had taken isn't.
        assert!(stage.heard(legs.peer_b).len() <= said);
        stage.expect_order(legs.a, &[Seen::Accept, Seen::Error(ConnError::Reset)]);
        stage.close(legs.b);
        stage.until_ending(legs.peer_b, Ending::End);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// Both fail at once: each is told once.
pub fn both_legs_fail_at_once<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Resets)?;
    for config in WAYS {
        for len in [0, 30_000] {
            let mut stage = Stage::new(world, config);
            let legs = relayed(&mut stage);
            stage.reads(legs.peer_b, 0);
            stage.say(legs.peer_a, &bytes(24, len));
            stage.rip(legs.peer_b);
            stage.rip(legs.peer_a);
            stage.until_failed(legs.a);
            stage.until_failed(legs.b);
            let failed = Seen::Error(ConnError::Reset);
            stage.expect(legs.a, &[Seen::Accept, failed]);
            stage.expect(legs.b, &[Seen::Connect, failed]);
            stage.expect_nothing_left();
        }
    }
    Ok(())
}

/// The program ends one leg while bytes wait for it: the other is its own again, and nothing leaks.
pub fn a_leg_is_ended_while_it_is_forwarded<W: World>(world: &mut W) -> Verdict {
    for config in WAYS {
        for (of_sink, resets) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut stage = Stage::new(world, config);
            let legs = relayed(&mut stage);
            let much = 3 * stage.world().0.held_max();
            stage.reads(legs.peer_b, 0);
            stage.say(legs.peer_a, &bytes(25, much));
            stage.until("the peer finds no room", |stage| stage.stuck(legs.peer_a) > 20);
            stage.hold_tongue(legs.peer_a);
            let (gone, left) = if of_sink { (legs.b, legs.a) } else { (legs.a, legs.b) };
            if resets {
                stage.reset(gone)
            } else {
                stage.close(gone)
            }
            stage.settle();
            stage.expect_order(left, &[if of_sink { Seen::Accept } else { Seen::Connect }]);
            assert_eq!(stage.cx().conns_open(), 1);
            stage.close(left);
            stage.settle();
            stage.expect_nothing_left();
        }
    }
    Ok(())
}

/// Forwarded to another leg in the middle: the first has what it got, the second gets all that follows.
pub fn forwarded_to_another_in_the_middle<W: World>(world: &mut W) -> Verdict {
    for config in WAYS {
        let mut stage = Stage::new(world, config);
        let Legs { a, b, peer_a, peer_b } = legs(&mut stage);
        let (c, peer_c) = stage.dialled();
        stage.strangers(&[peer_b, peer_c]);
        stage.hook(Box::new(move |cx, _, conn, seen| {
            if (conn, seen) == (Some(a), Seen::PeerClose) {
                cx.shutdown(c);
            }
        }));
        stage.cx().forward(a, b);
        stage.says_at_once(peer_a, 700);
        stage.say(peer_a, &bytes(26, 40_000));
        stage.finish(peer_a);
        stage.until("some is passed on", |stage| stage.heard(peer_b).len() > 10_000);
        stage.cx().forward(a, c);
        stage.until_ending(peer_c, Ending::End);
        stage.close(b);
        stage.until_ending(peer_b, Ending::End);
        let whole = [stage.heard(peer_b), stage.heard(peer_c)].concat();
        assert!(whole == stage.said(peer_a), "bytes are lost or doubled at the change");
    }
    Ok(())
}

/// A second source for one sink takes the first one's place, which is then nobody's.
pub fn a_second_source_takes_the_firsts_place<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let Legs { a, b, peer_a, peer_b } = legs(&mut stage);
    let (c, peer_c) = stage.accepted();
    stage.strangers(&[peer_b]);
    stage.cx().forward(a, b);
    stage.say(peer_a, b"first");
    stage.until("it's passed on", |stage| stage.heard(peer_b) == b"first");
    stage.cx().forward(c, b);
    stage.say(peer_a, b"unheard");
    stage.say(peer_c, b", second");
    stage.until("it's passed on", |stage| stage.heard(peer_b) == b"first, second");
    stage.settle();
    assert_eq!(stage.heard(peer_b), b"first, second");
    // Back again: what it said meanwhile comes.
    stage.cx().forward(a, b);
    stage.until("it's passed on", |stage| stage.heard(peer_b) == b"first, secondunheard");
    stage.close(c);
    stage.close(a);
    stage.close(b);
    stage.settle();
    stage.expect_nothing_left();
    Ok(())
}

/// The program sends nothing on a leg that another is forwarded to, and is asked nothing about it.
pub fn the_program_sends_nothing_in_between<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let legs = relayed(&mut stage);
    let cx = stage.cx();
    assert_eq!((cx.send(legs.b, b"in between"), cx.send_ahead(legs.b, b"in between")), (0, 0));
    // Nor to itself, which changes nothing.
    stage.cx().forward(legs.a, legs.a);
    stage.say(legs.peer_a, b"pure");
    stage.until_heard(legs.peer_b, 4);
    stage.settle();
    assert_eq!(stage.record().count(Seen::Writable), 0);
    Ok(())
}

/// What was sent ahead stands in front of what is forwarded.
pub fn what_is_sent_ahead_stands_in_front<W: World>(world: &mut W) -> Verdict {
    for config in WAYS {
        for len in [5, 3_000] {
            let mut stage = Stage::new(world, config);
            let Legs { a, b, peer_a, peer_b } = legs(&mut stage);
            stage.strangers(&[peer_b]);
            let sent = stage.cx().send_ahead(b, b"head");
            stage.cx().forward(a, b);
            stage.hook(passing_on(a, b));
            let body = bytes(27, len);
            stage.say(peer_a, &body);
            stage.until("all is passed on", |stage| stage.heard(peer_b).len() == sent + len);
            assert!(stage.heard(peer_b).starts_with(&b"head"[..sent]) && stage.heard(peer_b).ends_with(&body));
            stage.finish(peer_a);
            stage.until_ending(peer_b, Ending::End);
        }
    }
    Ok(())
}

/// Many pairs at once share few pipes and blocks, and each gets its own bytes.
pub fn many_pairs_share_few_pipes_and_blocks<W: World>(world: &mut W) -> Verdict {
    let len = if world.is_virtual() { 20_000 } else { 400_000 };
    let config =
        Config { conns_max: 32, pipes_max: 3, blocks: 2, turn_bytes: 16 * 1024, loop_bytes: 64 * 1024, ..SMALL };
    let mut stage = Stage::new(world, config);
    let pairs: Vec<Legs> = (0..12).map(|_| legs(&mut stage)).collect();
    let ends: Vec<(ConnId, ConnId)> = pairs.iter().map(|legs| (legs.a, legs.b)).collect();
    stage.hook(Box::new(move |cx, _, conn, seen| {
        if let (Some(conn), Seen::PeerClose) = (conn, seen) {
            let (a, b) = ends.iter().find(|(a, b)| conn == *a || conn == *b).expect("one of them");
            cx.shutdown(if conn == *a { *b } else { *a });
        }
    }));
    for (seed, legs) in (0..).zip(&pairs) {
        stage.relay(legs.peer_a, legs.peer_b);
        stage.relay(legs.peer_b, legs.peer_a);
        stage.cx().forward(legs.a, legs.b);
        stage.cx().forward(legs.b, legs.a);
        stage.reads(legs.peer_b, 20_000);
        stage.say(legs.peer_a, &bytes(seed, len));
        stage.finish(legs.peer_a);
        stage.say(legs.peer_b, &bytes(seed + 50, len / 10));
        stage.finish(legs.peer_b);
    }
    for legs in &pairs {
        stage.until_ending(legs.peer_b, Ending::End);
        stage.until_ending(legs.peer_a, Ending::End);
        assert_eq!((stage.heard(legs.peer_b).len(), stage.heard(legs.peer_a).len()), (len, len / 10));
        stage.close(legs.a);
        stage.close(legs.b);
    }
    stage.expect_nothing_left();
    Ok(())
}

/// A connection that is read is answered while bulk flows beside it.
pub fn bulk_starves_nobody<W: World>(world: &mut W) -> Verdict {
    let config = Config { turn_bytes: 8 * 1024, loop_bytes: 16 * 1024, ..SMALL };
    let mut stage = Stage::new(world, config);
    let much = 2 * stage.world().0.held_max();
    let legs = relayed(&mut stage);
    stage.record().door = Door::Admit { read: true };
    stage.record().echoes = true;
    let (_, peer) = stage.accepted();
    stage.say(legs.peer_a, &bytes(28, much));
    for round in 1..=10 {
        stage.say(peer, b"?");
        stage.until_heard(peer, round);
    }
    stage.finish(legs.peer_a);
    stage.until_ending(legs.peer_b, Ending::End);
    assert_eq!(stage.heard(legs.peer_b).len(), much);
    Ok(())
}
