//! One datagram after another: whole, of any length, from whom and to where, told apart, and counted where it can't be.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::binding::any;
use super::correspondents::ROOMY;
use super::receiving::bytes;
use super::record::Seen;
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::datagram::{DATAGRAM_BYTES_MAX, DatagramOptions, Flow, SendToError};
use crate::error::ConnError;

/// A datagram is told whole, with who sent it and which of the core's addresses it came to; so is one without a byte; and so are answers.
pub fn a_datagram_is_told_with_its_flow<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let socket = stage.bind();
    let at = stage.reached_at(socket);
    let (peer, _) = stage.acquainted(socket);
    for (count, said) in (2..).zip([&b"hello"[..], b"", b"\0", b""]) {
        stage.post(peer, at, said);
        stage.until_collected(peer, count);
        let flow = Flow { peer: stage.seat_of(peer), local: Some(at.ip()) };
        assert_eq!(stage.record().told(socket)[count - 1], (flow, said.to_vec()));
        assert_eq!(stage.collected(peer)[count - 1], (at, said.to_vec()));
    }
    stage.settle();
    let counts = stage.counts(socket);
    assert_eq!((counts.received, counts.sent), (5, 5));
    Ok(())
}

/// Each length that goes through comes back as it was: the longest, and those around it.
pub fn the_longest_that_goes_through_comes_back<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let most = world.datagram_bytes_max();
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let socket = stage.bind();
    let at = stage.reached_at(socket);
    let (peer, _) = stage.acquainted(socket);
    let lengths = [most, most - 1, most / 2, 1, most, most / 3];
    for (count, len) in (2..).zip(lengths) {
        stage.post(peer, at, &bytes(len as u64, len));
        stage.until_collected(peer, count);
        assert_eq!(stage.collected(peer)[count - 1].1.len(), len);
    }
    let counts = stage.counts(socket);
    assert_eq!((counts.truncated, counts.failed, counts.exhausted, counts.failed_reads), (0, 0, 0, 0));
    Ok(())
}

/// One that's longer than a datagram or the outbox may be is refused by name; one that's too long for the way is counted. Those before and
/// behind it go.
pub fn one_that_is_too_long_is_refused_or_counted<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let most = world.datagram_bytes_max();
    let mut stage = Stage::new(world, SMALL);
    let socket = stage.bind();
    let (peer, flow) = stage.acquainted(socket);
    stage.send_to(socket, flow, b"before");
    let (record, cx) = stage.parts();
    let too_long = vec![0; DATAGRAM_BYTES_MAX + 1];
    assert_eq!(record.send_to(cx, socket, flow, &too_long), Err(SendToError::TooLong));
    if most < DATAGRAM_BYTES_MAX {
        record.send_to(cx, socket, flow, &too_long[..=most]).expect("the way isn't looked at yet");
    }
    stage.send_to(socket, flow, b"behind");
    stage.until_collected(peer, 3);
    stage.expect_accounted(socket);
    let counts = stage.counts(socket);
    assert_eq!((counts.sent, counts.failed, counts.refused), (3, u64::from(most < DATAGRAM_BYTES_MAX), 0));
    // An outbox is a bound of its own.
    let at = SocketAddr::new(stage.datagram_home(), 0);
    let small = stage.bind_at(at, &DatagramOptions { outbox_bytes: 100, ..ROOMY }).expect("there's a free port");
    let (record, cx) = stage.parts();
    assert_eq!(record.send_to(cx, small, flow, &[7; 101]), Err(SendToError::TooLong));
    for _ in 0..5 {
        stage.send_to(small, flow, &[7; 100]);
    }
    stage.until_collected(peer, 8);
    assert_eq!(stage.expect_accounted(small), 5);
    Ok(())
}

/// One that came and is longer than there's room for is dropped whole and counted, and those around it are told.
pub fn one_that_came_too_long_is_counted<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    needs(world, Ability::Truncation)?;
    let most = world.datagram_bytes_max();
    let mut stage = Stage::new(world, SMALL);
    let socket = stage.bind();
    let (peer, _) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    stage.post(peer, at, b"before");
    stage.post(peer, at, &vec![7; most + 1]);
    stage.post(peer, at, b"behind");
    stage.until_told(socket, 3);
    stage.settle();
    let counts = stage.counts(socket);
    assert_eq!((counts.received, counts.truncated), (3, 1));
    Ok(())
}

/// One that doesn't go through in one packet is told whole, if it can be put together, or not at all; and what comes behind it is told.
pub fn no_part_of_one_is_told<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let most = world.datagram_bytes_max();
    let mut stage = Stage::new(world, SMALL);
    let socket = stage.bind();
    let (peer, _) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    for more in [1, 20, 5000] {
        stage.post(peer, at, &bytes(more as u64, most + more));
    }
    stage.settle();
    stage.post(peer, at, b"behind");
    stage.until("what's behind is told", |stage| {
        stage.record().told(socket).last().is_some_and(|(_, said)| said == b"behind")
    });
    let (told, posted, counts) =
        (stage.record().told(socket).len(), stage.posted(peer), stage.counts(socket).truncated);
    assert!(told <= posted && stage.too_long(peer) <= 3 && counts <= 3, "{told} of {posted}, {counts} truncated");
    Ok(())
}

/// What goes nowhere, or is to leave from an address that isn't the core's, is counted, and the rest goes.
pub fn what_cannot_be_sent_is_counted<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let home = stage.datagram_home();
    let socket = stage.bind_at(SocketAddr::new(any(home), 0), &ROOMY).expect("there's a free port");
    let (peer, flow) = stage.acquainted(socket);
    // Documentation's addresses are nobody's (RFC 5737, RFC 3849).
    let nobodys: IpAddr = if home.is_ipv4() { [192, 0, 2, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 9].into() };
    let strange = Flow { local: Some(nobodys), ..flow };
    let series: [(Flow, &[u8]); 6] =
        [(strange, b"a"), (flow, b"1"), (strange, b"b"), (strange, b"c"), (flow, b"2"), (strange, b"d")];
    for (flow, said) in series {
        stage.send_to(socket, flow, said);
    }
    stage.until_collected(peer, 3);
    stage.settle();
    stage.expect_accounted(socket);
    let counts = stage.counts(socket);
    assert_eq!((counts.sent, counts.failed, counts.exhausted), (3, 4, 0));
    Ok(())
}

/// A peer that's gone costs nothing: what its host answers (ICMP, port unreachable) is nobody's error, and the others are served.
pub fn an_unreachable_peer_costs_no_other<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let socket = stage.bind();
    let (peer, flow) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    let (world, backend) = stage.world();
    let gone = world.vacant(backend);
    for round in 1..6 {
        stage.send_to(socket, Flow { peer: gone, ..flow }, b"anybody?");
        stage.settle();
        stage.send_to(socket, Flow { peer: gone, ..flow }, b"anybody?");
        stage.post(peer, at, &[round]);
        stage.until_collected(peer, 1 + usize::from(round));
    }
    let counts = stage.counts(socket);
    assert_eq!((counts.sent, counts.failed, counts.exhausted, counts.failed_reads), (16, 0, 0, 0), "{counts:?}");
    Ok(())
}

/// A socket with one peer is told that nobody is bound there, once for each turn in which that came, and goes on.
pub fn a_socket_whose_one_peer_is_gone_is_told<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    needs(world, Ability::Absence)?;
    let mut stage = Stage::new(world, SMALL);
    let at = SocketAddr::new(stage.datagram_home(), 0);
    let (world, backend) = stage.world();
    let gone = world.vacant(backend);
    let alone = stage.bind_at(at, &DatagramOptions { peer: Some(gone), ..ROOMY }).expect("there's a free port");
    let other = stage.bind();
    let failed = Seen::DatagramsFailed(ConnError::Refused);
    for round in 1..4 {
        stage.send_to(alone, Flow::to(gone), b"anybody?");
        stage.send_to(other, Flow::to(gone), b"anybody?");
        stage.until("it's told", |stage| stage.record().count(failed) == round);
        stage.settle();
        assert_eq!(stage.record().count(failed), round);
    }
    assert_eq!((stage.counts(alone).sent, stage.counts(alone).failed), (3, 0));
    assert_eq!(stage.counts(other).failed_reads, 0, "a socket that talks with anybody is told of one");
    Ok(())
}

/// Each of two sockets is told its own datagrams and answers them from its own port.
pub fn two_sockets_are_told_apart<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let sockets = [stage.bind(), stage.bind()];
    let ats = sockets.map(|socket| stage.reached_at(socket));
    let (peer, _) = stage.acquainted(sockets[0]);
    for number in 0..30_u8 {
        stage.post(peer, ats[usize::from(number % 3 == 0)], &[number]);
    }
    stage.until_collected(peer, 31);
    let record = stage.record();
    assert_eq!(sockets.map(|socket| record.told(socket).len()), [21, 10]);
    assert!(record.told(sockets[1]).iter().all(|(_, said)| said[0] % 3 == 0));
    Ok(())
}

/// What is sent between two turns goes out in the next one, and so does what's sent in an upcall of anything else; no other event has to
/// come for it.
pub fn what_is_sent_goes_out_by_itself<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let socket = stage.bind();
    let (peer, flow) = stage.acquainted(socket);
    stage.settle();
    stage.record().shows_alarms = true;
    let sent = stage.counts(socket).sent;
    stage.send_to(socket, flow, b"between turns");
    stage.cx().set_alarm(Duration::from_secs(15));
    let before = stage.cx().now();
    stage.bare_turn();
    let slept = stage.cx().now().since(before);
    assert!(slept < Duration::from_secs(1), "the core slept for {slept:?} on what was to be sent");
    assert_eq!(stage.counts(socket).sent, sent + 1);
    stage.hook(Box::new(move |cx, record, _, seen| {
        if seen == Seen::Alarm {
            record.send_to(cx, socket, flow, b"within an alarm").expect("there's room");
        }
    }));
    stage.cx().set_alarm(Duration::ZERO);
    while stage.record().count(Seen::Alarm) == 0 {
        stage.bare_turn();
    }
    assert_eq!(stage.counts(socket).sent, sent + 2);
    stage.record().shows_alarms = false;
    stage.until_collected(peer, 3);
    Ok(())
}

/// A core whose sockets have nothing to tell sleeps.
pub fn a_core_with_sockets_sleeps<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let (socket, other) = (stage.bind(), stage.bind());
    let (peer, _) = stage.acquainted(socket);
    stage.acquainted(other);
    stage.unbind(other);
    stage.settle();
    let turns = stage.cx().gauges().turns;
    stage.record().shows_alarms = true;
    stage.cx().set_alarm(Duration::from_millis(100));
    while stage.record().count(Seen::Alarm) == 0 {
        stage.bare_turn();
    }
    let turns = stage.cx().gauges().turns - turns;
    assert!(turns < 8, "the core woke {turns} times for nobody");
    // And it's woken.
    let at = stage.reached_at(socket);
    stage.post(peer, at, b"wake up");
    stage.cx().set_alarm(Duration::from_secs(15));
    while stage.record().told(socket).len() < 2 {
        stage.bare_turn();
        assert_eq!(stage.record().count(Seen::Alarm), 1, "the core slept through a datagram");
    }
    Ok(())
}
