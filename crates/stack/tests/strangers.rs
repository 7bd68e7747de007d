//! Segments that no honest peer sends, and those that come at the wrong time: bounds hold, nothing leaks, and honest peers are served.

mod raw;

use std::net::Ipv4Addr;
use std::time::Duration;

use midmile_engine::backend::{AcceptError, Backend, Progress, Tag};
use midmile_engine::{Addr, ConnError, LegOptions};
use raw::{BACKLOG, ISS, PEER, PORT, Seg, Table, config, seg};
use smoltcp::wire::TcpControl;

const CONN: Tag = Tag(2);

#[test]
fn a_flood_of_syns_meets_a_bound_and_honest_clients_get_through() {
    let mut table = Table::new();
    for number in 0..5000_u32 {
        let from = Ipv4Addr::from_bits(0x0A10_0000 + number);
        table.send_from(from.into(), seg(2000, TcpControl::Syn, 7, None));
        let gauges = table.stack.gauges();
        assert!(gauges.half_open <= 8 && gauges.flows <= 8, "{gauges:?}");
        assert_eq!(table.seen().len(), 1, "a SYN's answer is no more than the SYN");
    }
    assert_eq!(table.stack.gauges().half_open_evicted, 5000 - 8);
    let (socket, _) = table.connect(3000);
    table.stack.reset(socket);
    table.pass(Duration::from_secs(60));
    assert_eq!((table.stack.gauges().flows, table.stack.gauges().half_open), (0, 0), "they are forgotten");
}

#[test]
fn connections_beyond_the_backlog_wait_for_an_accept() {
    let mut table = Table::new();
    let backlog = u16::try_from(BACKLOG).unwrap();
    // One more than there's room for is half-open when the queue fills.
    let late = table.syn(4000);
    for port in 0..backlog {
        let iss = table.syn(port + 1);
        table.send(seg(port + 1, TcpControl::None, ISS + 1, Some(iss + 1)));
    }
    let finishing = seg(4000, TcpControl::None, ISS + 1, Some(late + 1));
    assert_eq!(table.send(finishing), [], "the handshake's end is dropped");
    assert_eq!(table.send(seg(4001, TcpControl::Syn, ISS, None)), [], "and so is a SYN");
    assert_eq!(table.stack.gauges().backlog_full, 2);
    for _ in 0..backlog {
        table.accept().unwrap();
    }
    assert_eq!(table.accept().unwrap_err(), AcceptError::Empty);
    table.send(finishing);
    assert!(table.accept().is_ok(), "sent again, it's taken");
}

#[test]
fn who_waits_and_was_reset_is_told_as_failed() {
    let mut table = Table::new();
    let iss = table.syn(1);
    table.send(seg(1, TcpControl::None, ISS + 1, Some(iss + 1)));
    table.send(seg(1, TcpControl::Rst, ISS + 1, None));
    assert_eq!(table.accept().unwrap_err(), AcceptError::Failed);
    assert_eq!(table.accept().unwrap_err(), AcceptError::Empty);
    assert_eq!(table.stack.gauges().flows, 0);
}

#[test]
fn segments_of_no_connection_are_answered_by_resets() {
    let mut table = Table::new();
    let stray = table.send(seg(9, TcpControl::None, 5, Some(77)));
    assert!(matches!(stray[..], [Seg { control: TcpControl::Rst, seq: 77, .. }]), "{stray:?}");
    assert_eq!(table.send(seg(9, TcpControl::Rst, 5, None)), [], "but for resets");
    assert_eq!(table.stack.gauges().resets, 1);
    table.listener = None;
    table.turn();
    let refused = table.send(seg(9, TcpControl::Syn, 5, None));
    assert!(matches!(refused[..], [Seg { control: TcpControl::Rst, ack: Some(6), .. }]), "{refused:?}");
}

#[test]
fn nobody_answers_packets_that_are_not_for_him() {
    let mut table = Table::new();
    for from in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
        table.send_from(from.into(), seg(9, TcpControl::Syn, 5, None));
    }
    table.cable.inject(0, vec![0x45; 30]);
    table.turn();
    assert_eq!(table.seen(), []);
    let gauges = table.stack.gauges();
    assert_eq!((gauges.strangers, gauges.malformed, gauges.flows), (4, 1, 0));
}

#[test]
fn a_connection_that_ended_is_answered_without_a_socket() {
    let mut table = Table::new();
    let (socket, next) = table.connect(1);
    table.stack.close(socket);
    table.turn();
    assert_eq!(table.seen(), [seg(1, TcpControl::Fin, next, Some(ISS + 1))]);
    let fin = seg(1, TcpControl::Fin, ISS + 1, Some(next + 1));
    let last = seg(1, TcpControl::None, next + 1, Some(ISS + 2));
    assert_eq!(table.send(fin), [last]);
    assert_eq!((table.stack.gauges().flows, table.stack.gauges().waits), (0, 1));
    assert_eq!(table.send(fin), [last], "its FIN again");
    assert_eq!(table.send(seg(1, TcpControl::Rst, ISS + 2, None)), [], "a reset doesn't end it (RFC 1337)");
    assert_eq!(table.stack.gauges().waits, 1);
    let old = table.send(seg(1, TcpControl::Syn, ISS, None));
    assert_eq!(old, [last], "an old SYN");
    let answer = table.send(seg(1, TcpControl::Syn, ISS + 100, None));
    assert!(matches!(answer[..], [Seg { control: TcpControl::Syn, .. }]), "a new one begins anew: {answer:?}");
    assert_eq!(table.stack.gauges().waits, 0);
}

#[test]
fn waits_are_bounded_and_pass() {
    let mut table = Table::new();
    for port in 1..10 {
        let (socket, next) = table.connect(port);
        table.stack.close(socket);
        table.turn();
        table.send(seg(port, TcpControl::Fin, ISS + 1, Some(next + 1)));
        table.seen();
    }
    let waits_max = config().waits_max as usize;
    assert_eq!((table.stack.gauges().waits, table.stack.gauges().waits_dropped), (waits_max, 5));
    table.pass(Duration::from_secs(61));
    table.send(seg(99, TcpControl::None, 1, Some(1)));
    assert_eq!(table.stack.gauges().waits, 0);
}

#[test]
fn a_peer_that_began_anew_is_challenged() {
    let mut table = Table::new();
    let (mut socket, next) = table.connect(1);
    table.stack.watch(&socket, CONN).unwrap();
    let challenge = table.send(seg(1, TcpControl::Syn, 50_000, None));
    assert_eq!(challenge, [seg(1, TcpControl::None, next, Some(ISS + 1))]);
    assert_eq!(table.send(seg(1, TcpControl::Syn, 50_000, None)), [], "not more often than each second");
    // Its answer (RFC 9293, 3.10.7.3) ends the old connection.
    table.send(seg(1, TcpControl::Rst, ISS + 1, None));
    assert_eq!(table.stack.take_error(&mut socket), Some(ConnError::Reset));
    assert_eq!(table.stack.recv(&mut socket, &mut [0; 9]), Ok(Progress::Ended), "it's spent");
    assert!(table.events.iter().any(|ready| ready.tag == CONN && ready.failed));
    table.stack.close(socket);
    assert_eq!(table.stack.gauges().flows, 0);
}

/// What the stack's side does, and what its peer sends, before the reset comes.
#[test]
fn a_reset_ends_a_connection_in_each_state() {
    type Before = fn(&mut Table, &mut midmile_stack::Socket, i32) -> i32;
    let established: Before = |_, _, _| ISS + 1;
    let close_wait: Before = |table, _, next| {
        table.send(seg(1, TcpControl::Fin, ISS + 1, Some(next)));
        ISS + 2
    };
    let fin_wait_1: Before = |table, socket, _| {
        table.stack.shutdown(socket).unwrap();
        table.turn();
        ISS + 1
    };
    let fin_wait_2: Before = |table, socket, next| {
        table.stack.shutdown(socket).unwrap();
        table.turn();
        table.send(seg(1, TcpControl::None, ISS + 1, Some(next + 1)));
        ISS + 1
    };
    let closing: Before = |table, socket, next| {
        table.stack.shutdown(socket).unwrap();
        table.turn();
        table.send(seg(1, TcpControl::Fin, ISS + 1, Some(next)));
        ISS + 2
    };
    let last_ack: Before = |table, socket, next| {
        table.send(seg(1, TcpControl::Fin, ISS + 1, Some(next)));
        table.stack.shutdown(socket).unwrap();
        table.turn();
        ISS + 2
    };
    let states = [established, close_wait, fin_wait_1, fin_wait_2, closing, last_ack];
    for (number, before) in states.into_iter().enumerate() {
        let mut table = Table::new();
        let (mut socket, next) = table.connect(1);
        table.stack.watch(&socket, CONN).unwrap();
        let seq = before(&mut table, &mut socket, next);
        table.seen();
        assert_eq!(table.send(seg(1, TcpControl::Rst, seq, None)), [], "state {number}");
        assert_eq!(table.stack.take_error(&mut socket), Some(ConnError::Reset), "state {number}");
        assert!(table.events.iter().any(|ready| ready.failed), "state {number}");
        assert_eq!(table.stack.send(&mut socket, b"x"), Err(ConnError::Reset));
        table.stack.close(socket);
        table.turn();
        assert_eq!((table.stack.gauges().flows, table.seen()), (0, vec![]), "state {number}");
    }
}

#[test]
fn bytes_for_a_program_that_is_gone_are_answered_by_a_reset() {
    let mut table = Table::new();
    let (socket, next) = table.connect(1);
    table.stack.close(socket);
    table.turn();
    table.seen();
    let answer = table.send(Seg { bytes: 10, ..seg(1, TcpControl::None, ISS + 1, Some(next + 1)) });
    assert!(answer.iter().any(|answer| answer.control == TcpControl::Rst), "{answer:?}");
    assert_eq!(table.stack.gauges().flows, 0);
}

#[test]
fn a_closed_connection_is_given_up_when_its_peer_is_silent() {
    let mut table = Table::new();
    let (socket, next) = table.connect(1);
    table.stack.close(socket);
    table.turn();
    table.send(seg(1, TcpControl::None, ISS + 1, Some(next + 1)));
    assert_eq!(table.stack.gauges().flows, 1, "FIN-WAIT-2");
    table.pass(Duration::from_secs(61));
    assert_eq!(table.stack.gauges().flows, 0);
}

#[test]
fn dials_are_refused_or_time_out() {
    let mut table = Table::new();
    let to = Addr::Inet((PEER, PORT).into());
    let options = LegOptions { keepalive: None, ..LegOptions::default() };
    let (mut refused, _) = table.stack.dial(&to, &options).unwrap();
    table.turn();
    let [syn] = table.seen().try_into().unwrap();
    assert!(syn.control == TcpControl::Syn && syn.ack.is_none());
    let local = table.stack.local_addr(&refused).and_then(|addr| addr.inet()).unwrap();
    assert!(config().dial_ports.contains(&local.port()));
    table.refuse(local.port(), syn.seq + 1);
    assert_eq!(table.stack.take_error(&mut refused), Some(ConnError::Refused));
    let (mut silent, _) = table.stack.dial(&to, &options).unwrap();
    table.stack.watch(&silent, CONN).unwrap();
    table.pass(Duration::from_secs(32));
    assert_eq!(table.stack.take_error(&mut silent), Some(ConnError::TimedOut));
    assert!(table.seen().len() >= 4, "it was tried several times");
    drop((refused, silent));
    table.turn();
    assert_eq!(table.stack.gauges().flows, 0);
}

#[test]
fn ports_for_dials_run_out_and_come_back() {
    let mut table = Table::new();
    let to = Addr::Inet((PEER, PORT).into());
    let options = LegOptions { keepalive: None, ..LegOptions::default() };
    let sockets: Vec<_> = (0..10).map(|_| table.stack.dial(&to, &options).unwrap()).collect();
    assert_eq!(table.stack.dial(&to, &options).unwrap_err(), ConnError::Exhausted);
    let other = Addr::Inet((PEER, PORT + 1).into());
    assert!(table.stack.dial(&other, &options).is_ok(), "each port once for each peer");
    drop(sockets);
    table.turn();
    assert!(table.stack.dial(&to, &options).is_ok());
}
