//! Sockets for datagrams: bound to a port or to any, once, to one address or all, and let go, from within upcalls too.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::correspondents::ROOMY;
use super::record::Seen;
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::datagram::{DatagramId, SendToError};

/// All addresses of the family of `ip`.
pub(super) fn any(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// A port that the system chose is told; it's given again when it's asked for; and each time the socket hears and is heard.
pub fn any_port_is_filled_in_and_a_given_one_kept<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let mut at = SocketAddr::new(stage.datagram_home(), 0);
    for _ in 0..3 {
        let socket = stage.bind_at(at, &ROOMY).expect("nobody is bound there");
        at = stage.reached_at(socket);
        stage.acquainted(socket);
        stage.unbind(socket);
    }
    Ok(())
}

/// An address at which a socket is bound can't be bound again, nor all addresses at its port, nor it beside all of them, until the socket
/// is let go; another port can.
pub fn an_address_is_bound_once<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let home = stage.datagram_home();
    let mut first = stage.bind();
    let other = stage.bind();
    let port = stage.reached_at(first).port();
    assert_ne!(stage.reached_at(other).port(), port);
    for ip in [home, any(home)] {
        for again in [home, any(home)] {
            let again = stage.bind_at(SocketAddr::new(again, port), &ROOMY).map_err(|error| error.kind());
            assert_eq!(again, Err(ErrorKind::AddrInUse), "beside a socket at {ip}");
        }
        let (heard, _) = stage.acquainted(first);
        assert_eq!(stage.collected(heard).len(), 1, "a bind that failed takes nothing");
        stage.unbind(first);
        let next = if ip == home { any(home) } else { home };
        first = stage.bind_at(SocketAddr::new(next, port), &ROOMY).expect("it was let go");
    }
    stage.acquainted(first);
    stage.acquainted(other);
    Ok(())
}

/// Nothing is told of a socket that was let go, not what waited before either; its handle is inert, also when another socket is there.
pub fn nothing_is_told_of_a_socket_that_was_let_go<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let socket = stage.bind();
    let (peer, flow) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    for number in 0..5 {
        stage.post(peer, at, &[number]);
    }
    stage.unbind(socket);
    stage.cx().unbind(socket);
    let (record, cx) = stage.parts();
    assert_eq!(record.send_to(cx, socket, flow, b"gone"), Err(SendToError::Gone));
    stage.settle();
    let next = stage.bind_at(at, &ROOMY).expect("it was let go");
    assert_ne!(next, socket);
    stage.cx().unbind(socket);
    let (record, cx) = stage.parts();
    assert_eq!(record.send_to(cx, socket, flow, b"gone"), Err(SendToError::Gone));
    stage.post(peer, at, b"another");
    stage.until_told(next, 1);
    assert_eq!(stage.record().told(next)[0].1, b"another");
    assert_eq!(stage.collected(peer).len(), 1);
    Ok(())
}

/// A socket let go within the upcall of its first datagram tells no other of the batch, and what it sent before still goes out.
pub fn let_go_within_an_upcall<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let socket = stage.bind();
    let (peer, _) = stage.acquainted(socket);
    stage.hook(Box::new(|cx, record, _, seen| {
        if seen == Seen::Datagram {
            let socket = record.socket();
            let flow = record.told(socket).last().expect("one was told").0;
            record.send_to(cx, socket, flow, b"farewell").expect("there's room");
            record.unbound(socket);
            cx.unbind(socket);
        }
    }));
    let at = stage.reached_at(socket);
    for number in 0..10 {
        stage.post(peer, at, &[number]);
    }
    stage.until_collected(peer, 2);
    stage.settle();
    assert_eq!(stage.record().told(socket).len(), 2);
    assert_eq!(stage.collected(peer)[1].1, b"farewell");
    Ok(())
}

/// A socket that's let go within another's upcall isn't heard of any more, though its datagrams came in the same turn.
pub fn let_go_within_anothers_upcall<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let sockets = [stage.bind(), stage.bind()];
    let peers = sockets.map(|socket| stage.acquainted(socket).0);
    stage.hook(Box::new(move |cx, record, _, seen| {
        if seen == Seen::Datagram {
            let other = if record.socket() == sockets[0] { sockets[1] } else { sockets[0] };
            if cx.datagram_addr(other).is_some() {
                record.unbound(other);
                cx.unbind(other);
            }
        }
    }));
    for (socket, peer) in sockets.into_iter().zip(peers) {
        let at = stage.reached_at(socket);
        stage.post(peer, at, b"one");
        stage.post(peer, at, b"two");
    }
    let told = |stage: &mut Stage<'_, W>| sockets.map(|socket| stage.record().told(socket).len());
    stage.until("one of them is told all", |stage| told(stage).contains(&3));
    stage.settle();
    let mut told = told(&mut stage);
    told.sort_unstable();
    assert_eq!(told, [1, 3]);
    Ok(())
}

/// Within an upcall of its only socket a core lets it go and binds another at the same address, which hears what comes from then on.
pub fn bound_within_an_upcall<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let mut socket = stage.bind();
    let at = stage.reached_at(socket);
    let (peer, _) = stage.acquainted(socket);
    stage.hook(Box::new(move |cx, record, _, seen| {
        if seen == Seen::Datagram {
            let before = record.socket();
            let flow = record.told(before).last().expect("one was told").0;
            record.unbound(before);
            cx.unbind(before);
            let next = cx.bind(at, &ROOMY).expect("it was let go just now");
            record.bound(next, at);
            record.send_to(cx, next, flow, b"from the next").expect("there's room");
        }
    }));
    for round in 1..4 {
        stage.post(peer, at, &[round]);
        stage.until_collected(peer, 1 + usize::from(round));
        let next = newest(&mut stage, at).expect("one is bound");
        assert_ne!(next, socket);
        socket = next;
    }
    Ok(())
}

/// The socket that's bound at `at`.
fn newest<W: World>(stage: &mut Stage<'_, W>, at: SocketAddr) -> Option<DatagramId> {
    let (record, cx) = stage.parts();
    record.sockets().find(|socket| cx.datagram_addr(*socket) == Some(at))
}

/// A socket at all addresses is asked at each of them, is told at which, and answers from there.
pub fn answers_leave_from_the_address_that_was_asked<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    needs(world, Ability::TwoAddrs)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let addrs = stage.world().0.datagram_addrs();
    let socket = stage.bind_at(SocketAddr::new(any(addrs[0]), 0), &ROOMY).expect("there's a free port");
    let (peer, _) = stage.acquainted(socket);
    let port = stage.reached_at(socket).port();
    for round in 0..6 {
        let asked = SocketAddr::new(addrs[round % 2], port);
        stage.post(peer, asked, format!("round {round}").as_bytes());
        stage.until_collected(peer, 2 + round);
        assert_eq!(stage.collected(peer)[1 + round].0, asked);
        let flow = stage.record().told(socket)[1 + round].0;
        assert_eq!(flow.local, Some(asked.ip()));
    }
    // Both at once: no answer takes another's address.
    for round in 0..20 {
        stage.post(peer, SocketAddr::new(addrs[usize::from(round % 3 == 0)], port), &[round]);
    }
    stage.until_collected(peer, 27);
    Ok(())
}

/// A socket at one address doesn't hear what comes to another, and two at the same port of two addresses are told apart.
pub fn a_socket_at_one_address_hears_no_other<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    needs(world, Ability::TwoAddrs)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let second = stage.world().0.datagram_addrs()[1];
    let one = stage.bind();
    let (peer, _) = stage.acquainted(one);
    let at_one = stage.reached_at(one);
    let at_two = SocketAddr::new(second, at_one.port());
    stage.post(peer, at_two, b"to nobody");
    stage.post(peer, at_one, b"to one");
    stage.until_collected(peer, 2);
    stage.settle();
    let two = stage.bind_at(at_two, &ROOMY).expect("another address");
    stage.post(peer, at_two, b"to two");
    stage.post(peer, at_one, b"to one again");
    stage.until_collected(peer, 4);
    let record = stage.record();
    assert_eq!((record.told(one).len(), record.told(two).len()), (3, 1));
    assert_eq!(record.told(two)[0].1, b"to two");
    Ok(())
}
