//! Segments that aren't the peer's next: they change nothing, and are answered to the peer where an honest one may have sent them.

use midmile_engine::ConnError;

use super::*;

/// Somebody else on the same wire.
const STRANGER: LinkAddress = [2, 0, 0, 0, 0, 9];

/// A segment that can't be the next one.
fn misfits(next: Said<'static>) -> [(&'static str, Said<'static>); 9] {
    let (seq, ack) = (next.seq, next.ack.unwrap());
    let far = Said { seq: seq.wrapping_add(1 << 30), payload: b"x", ..next };
    [
        ("keepalive of the kernel's", Said { seq: seq.wrapping_sub(1), ..next }),
        ("keepalive of older systems", Said { seq: seq.wrapping_sub(1), payload: b"\0", ..next }),
        ("a retransmission", Said { seq: seq.wrapping_sub(5), payload: b"again", ..next }),
        ("an old acknowledgement", Said { ack: Some(ack.wrapping_sub(1)), payload: b"x", ..next }),
        ("a guess", far),
        ("behind the window", Said { seq: seq.wrapping_add(200_000), ..next }),
        ("an acknowledgement of nothing sent", Said { ack: Some(ack.wrapping_add(9)), payload: b"x", ..next }),
        ("no acknowledgement", Said { ack: None, payload: b"x", ..next }),
        ("a SYN with an acknowledgement", Said { control: TcpControl::Syn, ..next }),
    ]
}

/// A connection that is silent, at rest or kept from it.
fn quiet(rests: bool) -> World {
    let mut world = at_rest();
    if !rests {
        world.hears(TcpControl::Psh, None, b"unread");
    }
    world.passes(Duration::from_millis(10));
    assert_eq!(world.rests(), rests);
    world
}

#[test]
fn what_is_not_the_next_segment_does_not_wake_it_and_is_answered_once_a_second() {
    let count = misfits(at_rest().next()).len();
    for index in 0..count {
        let mut world = at_rest();
        let (name, said) = misfits(world.next())[index];
        for second in 1..4 {
            for _ in 0..3 {
                world.takes(&said.frame(world.ends, STRANGER));
            }
            let answers = world.settles();
            assert!(world.rests(), "{name}");
            assert_eq!(answers.len(), 1, "{name}, second {second}: {answers:?}");
            assert_eq!((answers[0].seq, answers[0].ack, answers[0].payload), (world.ours, world.theirs, 0), "{name}");
            // Shifted by two bits, as the peer reads it, it's what there is room for.
            assert!(answers[0].flags.ack() && answers[0].window == (u16::MAX >> 2), "{answers:?}");
            world.passes(REST_AFTER);
        }
        assert_eq!(world.net.gauges().misfits, 9);
        world.hears(TcpControl::Psh, None, b"there");
        assert_eq!(world.net.recv(world.key, &mut [0; 9]), Ok(Progress::Moved(5)), "{name}: the peer is heard as ever");
    }
}

#[test]
fn spoilt_segments_and_resets_out_of_the_window_are_dropped() {
    for rests in [true, false] {
        let mut world = quiet(rests);
        let heard = world.net.flows.get(world.key).unwrap().heard;
        world.passes(Duration::from_secs(5));
        let mut spoilt = Said { payload: b"x", ..world.next() }.frame(world.ends, STRANGER);
        *spoilt.last_mut().unwrap() ^= 1;
        world.takes(&spoilt);
        let mut spoilt = world.next().frame(world.ends, STRANGER);
        // Of the IPv4 header.
        spoilt[ETHERNET_BYTES + 8] ^= 1;
        world.takes(&spoilt);
        let far = world.theirs.wrapping_add(1 << 20);
        let reset = Said { control: TcpControl::Rst, seq: far, ..world.next() };
        world.takes(&reset.frame(world.ends, STRANGER));
        assert_eq!(world.settles(), []);
        assert_eq!(world.rests(), rests);
        let (flow, gauges) = (world.net.flows.get(world.key).unwrap(), world.net.gauges());
        assert_eq!((flow.heard, flow.link, gauges.malformed, gauges.misfits), (heard, THEIRS, 2, 1));
    }
}

#[test]
fn a_segment_of_the_peer_wakes_it_though_some_of_it_had_come() {
    let mut world = at_rest();
    world.theirs = world.theirs.wrapping_sub(3);
    world.hears(TcpControl::Psh, None, b"oldnew");
    let mut buf = [0; 9];
    assert_eq!(world.net.recv(world.key, &mut buf), Ok(Progress::Moved(3)));
    assert_eq!(&buf[..3], b"new");
}

/// A peer that is gone is given up in its time, whatever strangers say meanwhile.
#[test]
fn garbage_is_no_sign_of_the_peer() {
    for rests in [true, false] {
        let mut world = quiet(rests);
        let idle = LegOptions::default().keepalive.unwrap();
        let (mut passed, mut error) = (Duration::ZERO, None);
        while error.is_none() {
            assert!(passed < 3 * idle, "it's never given up");
            // Awake, it takes what comes again for a sign of life: the first four.
            for (_, said) in misfits(world.next()).into_iter().skip(if rests { 0 } else { 4 }) {
                world.takes(&said.frame(world.ends, STRANGER));
            }
            world.settles();
            passed += REST_AFTER;
            world.passes(REST_AFTER);
            error = world.net.take_error(world.key);
        }
        assert_eq!(error, Some(ConnError::TimedOut));
        assert!(passed > idle);
    }
}

/// Awake or not, garbage of somebody else's doesn't lead what is sent to him; a segment that fits does.
#[test]
fn nobody_else_becomes_the_neighbour() {
    for rests in [true, false] {
        let mut world = quiet(rests);
        for (_, said) in misfits(world.next()) {
            world.takes(&said.frame(world.ends, STRANGER));
            world.settles();
        }
        world.net.send(world.key, b"for the peer", false).unwrap();
        assert_eq!(world.settles().last().unwrap().payload, 12);
        world.ours = world.ours.wrapping_add(12);
        // The peer's way has changed.
        world.takes(&world.next().frame(world.ends, STRANGER));
        world.net.send(world.key, b"again", false).unwrap();
        world.net.settle(&mut world.link);
        assert!(world.link.take().iter().all(|(to, _)| *to == STRANGER));
    }
}
