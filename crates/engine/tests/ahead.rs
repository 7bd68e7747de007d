//! Bytes sent ahead of others, on the kernel's sockets, by epoll and by io_uring: they share a segment with what follows.
//! That they arrive at all, conformance sees to.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use midmile_engine::{Backend, Config, ConnError, ConnId, Core, Cx, Handler, LegOptions, MeterId};

mod under;

use under::Under;

/// Waits for its dial.
struct Dialling;

impl<B: Backend> Handler<B> for Dialling {
    fn on_connect(&mut self, cx: &mut Cx<B>, _conn: ConnId, _token: u64) {
        cx.stop();
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: &[u8]) -> usize {
        0
    }

    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}

    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, error: ConnError) {
        panic!("{error}");
    }
}

/// A connection and its far end.
fn connected<B: Under>() -> (Core<B, Dialling>, ConnId, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut core = Core::new(B::made().unwrap(), Config { conns_max: 4, ..Config::default() }, Dialling);
    let cx = core.parts().1;
    let conn = cx.dial(&server.local_addr().unwrap().into(), &LegOptions::default(), 0, MeterId::NONE).unwrap();
    core.run().unwrap();
    let (far, _) = server.accept().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (core, conn, far)
}

fn arrived(far: &mut TcpStream) -> Vec<u8> {
    let mut bytes = [0; 100];
    let len = far.read(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

fn what_is_sent_ahead_shares_a_segment_with_what_follows<B: Under>() {
    let (mut core, conn, mut far) = connected::<B>();
    let cx = core.parts().1;
    let before = cx.path(conn).unwrap().sent_segments;
    assert_eq!(cx.send_ahead(conn, b"0"), 1);
    assert_eq!((cx.path(conn).unwrap().sent_segments, cx.unsent(conn)), (before, 1), "it waits");
    assert_eq!(cx.send(conn, b" and more"), 9);
    cx.backend().flush().unwrap();
    assert_eq!(cx.path(conn).unwrap().sent_segments, before + 1);
    assert_eq!(arrived(&mut far), b"0 and more");
}

fn what_is_pushed_arrives_before_a_reset<B: Under>() {
    let (mut core, conn, mut far) = connected::<B>();
    let cx = core.parts().1;
    assert_eq!(cx.send_ahead(conn, b"0"), 1);
    cx.push(conn);
    cx.reset(conn);
    cx.backend().flush().unwrap();
    assert_eq!(arrived(&mut far), b"0");
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn a_burst_behind_it_fills_segments_and_its_last_piece_doesnt_wait_for_long<B: Under>() {
    const BURST: usize = 2000;
    let (mut core, to, mut far) = connected::<B>();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let cx = core.parts().1;
    let from = cx.dial(&server.local_addr().unwrap().into(), &LegOptions::default(), 0, MeterId::NONE).unwrap();
    let (mut source, _) = server.accept().unwrap();
    core.turn().unwrap();
    let cx = core.parts().1;
    assert_eq!(cx.send_ahead(to, b"0"), 1);
    cx.forward(from, to);
    source.write_all(&[b'x'; BURST]).unwrap();
    while core.parts().1.handed_on(from) < BURST as u64 {
        core.turn().unwrap();
    }
    // A segment of the loopback device's holds far more.
    assert_eq!(core.parts().1.unsent(to), 1 + BURST, "it waits for more");
    // Each turn ends by itself, for there's something to be done soon; were there nothing, the first would never.
    while core.parts().1.unsent(to) > 0 {
        core.turn().unwrap();
    }
    let mut bytes = [0; 1 + BURST];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[BURST]), (b'0', b'x'));
}

on_each!(
    what_is_sent_ahead_shares_a_segment_with_what_follows,
    what_is_pushed_arrives_before_a_reset,
    a_burst_behind_it_fills_segments_and_its_last_piece_doesnt_wait_for_long,
);
