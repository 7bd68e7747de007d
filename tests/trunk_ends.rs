//! How connections end across two gateways: each direction by itself, a reset as a reset, and servers that can't be had.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use process::ends::{reset, reset_at_once, until_reset};
use process::{PATIENCE, own_loopback};
use programs::data::noise;
use programs::gateways::{More, ONE_CORE, Way};
use programs::mute::full;
use programs::reserve;
use rustix::process::Signal;

/// Longer than what all buffers on the way take in.
const LONG: usize = 32_000_000;

/// Two gateways, and both ends of a connection through them.
fn pair(name: &str) -> (Way, TcpStream, TcpStream) {
    let listener = TcpListener::bind(own_loopback()).unwrap();
    let way = Way::to(name, listener.local_addr().unwrap(), ONE_CORE);
    way.ready(8);
    let client = TcpStream::connect(way.a.addr()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    way.b.counts("/totals/pairs_connected", 1);
    (way, client, server)
}

/// Has something cross, so that neither side is one that nothing has come from.
fn ping(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"ping").unwrap();
    let mut got = [0; 4];
    to.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ping");
}

/// `first` finishes sending after a long word, and hears a long answer after that.
fn half_close(first: &mut TcpStream, second: &mut TcpStream) {
    let (word, answer) = (noise(LONG, 41), noise(LONG, 42));
    thread::scope(|scope| {
        scope.spawn(|| {
            first.write_all(&word).unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            first.read_to_end(&mut got).unwrap();
            assert!(got == answer);
        });
        let mut got = Vec::new();
        second.read_to_end(&mut got).unwrap();
        assert!(got == word);
        second.write_all(&answer).unwrap();
        second.shutdown(Shutdown::Write).unwrap();
    });
}

#[test]
fn a_killed_gateway_near_or_far_resets_the_clients() {
    for far in [false, true] {
        let (way, mut client, mut server) = pair(if far { "trunk-killed-far" } else { "trunk-killed-near" });
        ping(&mut server, &mut client);
        let killed = if far { &way.b } else { &way.a };
        killed.running.signal(Signal::KILL);
        assert_eq!(until_reset(&mut client), b"");
    }
}

#[test]
fn a_client_that_has_finished_still_hears_the_server() {
    let (way, mut client, mut server) = pair("trunk-client-first");
    half_close(&mut client, &mut server);
    way.finished();
}

#[test]
fn a_server_that_has_finished_still_hears_the_client() {
    let (way, mut client, mut server) = pair("trunk-server-first");
    half_close(&mut server, &mut client);
    way.finished();
}

/// Asserts how the one pair ended on both sides.
fn ended(way: &Way, reason: &str) {
    way.settled();
    for gateway in [&way.a, &way.b] {
        assert_eq!(gateway.ends(reason), 1, "{:#}", gateway.status());
    }
    assert_eq!(way.pool("retries"), 0);
}

#[test]
fn a_reset_by_the_client_crosses_both_gateways() {
    let (way, mut client, mut server) = pair("trunk-client-reset");
    ping(&mut client, &mut server);
    reset(client);
    assert_eq!(until_reset(&mut server), b"");
    ended(&way, "client-reset");
}

#[test]
fn a_reset_by_the_server_crosses_both_gateways() {
    let (way, mut client, mut server) = pair("trunk-server-reset");
    ping(&mut server, &mut client);
    reset(server);
    assert_eq!(until_reset(&mut client), b"");
    ended(&way, "server-reset");
}

#[test]
fn a_reset_crosses_a_half_closed_pair_and_both_gateways() {
    let (way, mut client, mut server) = pair("trunk-half-reset");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    reset(server);
    assert_eq!(until_reset(&mut client), b"");
    ended(&way, "server-reset");
}

fn signal_both(way: &Way, signal: Signal) {
    for gateway in [&way.a, &way.b] {
        gateway.running.signal(signal);
    }
}

#[test]
fn a_request_and_the_reset_after_it_cross_in_that_order() {
    let (way, mut client, mut server) = pair("trunk-request-reset");
    // Both stand still, so that they meet both at once.
    signal_both(&way, Signal::STOP);
    let request = noise(60_000, 43);
    client.write_all(&request).unwrap();
    reset(client);
    signal_both(&way, Signal::CONT);
    assert!(until_reset(&mut server) == request);
    ended(&way, "client-reset");
}

#[test]
fn a_response_and_the_reset_after_it_cross_in_that_order() {
    let (way, mut client, mut server) = pair("trunk-response-reset");
    signal_both(&way, Signal::STOP);
    let response = noise(60_000, 44);
    server.write_all(&response).unwrap();
    reset(server);
    signal_both(&way, Signal::CONT);
    assert!(until_reset(&mut client) == response);
    ended(&way, "server-reset");
}

/// One hello has gone to b, whose pair ended for `far`: a was told so, and ended its own for `near`.
fn assert_tried_once(way: &Way, near: &str, far: &str) {
    way.settled();
    assert_eq!(way.a.ends(near), 1, "{:#}", way.a.status());
    assert_eq!([way.pool("taken"), way.pool("retries")], [1, 0]);
    assert_eq!([way.b.ends(far), way.b.count("/totals/pairs_opened")], [1, 1], "{:#}", way.b.status());
    assert_eq!(way.a.count("/totals/downstream/bytes"), 0, "an answer is no byte of the server's");
}

#[test]
fn a_server_that_refuses_behind_the_trunk_is_a_reset_at_once() {
    let way = Way::to("trunk-refused", reserve(), ONE_CORE);
    way.ready(8);
    reset_at_once(way.a.addr());
    assert_tried_once(&way, "far-dial-refused", "dial-refused");
}

#[test]
fn what_a_client_said_to_a_server_that_refuses_doesnt_get_in_the_way_of_the_answer() {
    let way = Way::to("trunk-refused-talk", reserve(), ONE_CORE);
    way.ready(8);
    // Both stand still, so that the far gateway finds the client's bytes behind the hello and closes with them unread.
    signal_both(&way, Signal::STOP);
    let mut client = TcpStream::connect(way.a.addr()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&noise(60_000, 45)).unwrap();
    signal_both(&way, Signal::CONT);
    assert_eq!(until_reset(&mut client), b"");
    assert_tried_once(&way, "far-dial-refused", "dial-refused");
}

#[test]
fn a_silent_server_behind_the_trunk_is_given_up_by_the_trunks_dial_timeout() {
    let (to, _socket, _queue) = full();
    let way = Way::to("trunk-silent", to, More { trunk: "timeouts = { dial = \"1s\" }", ..ONE_CORE });
    way.ready(8);
    reset_at_once(way.a.addr());
    assert_tried_once(&way, "far-dial-timeout", "dial-timeout");
}

#[test]
fn a_silent_server_behind_the_trunk_is_given_up_by_the_listeners_dial_timeout() {
    let (to, _socket, _queue) = full();
    let timeouts = ["timeouts = { dial = \"1s\" }", "timeouts = { dial = \"1h\" }"];
    let way = Way::to("trunk-deadline", to, More { listener: timeouts[0], trunk: timeouts[1], ..ONE_CORE });
    way.ready(8);
    reset_at_once(way.a.addr());
    assert_tried_once(&way, "far-dial-timeout", "dial-timeout");
}

#[test]
fn a_server_that_resets_its_connection_is_dialled_once_and_resets_the_client() {
    let listener = TcpListener::bind(own_loopback()).unwrap();
    let way = Way::to("trunk-resetting", listener.local_addr().unwrap(), ONE_CORE);
    way.ready(8);
    thread::scope(|scope| {
        scope.spawn(|| reset(listener.accept().unwrap().0));
        reset_at_once(way.a.addr());
    });
    assert_tried_once(&way, "server-reset", "server-reset");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody comes a second time");
}

#[test]
fn a_client_that_goes_away_while_the_far_gateway_dials_is_forgotten_by_both() {
    let (to, _socket, _queue) = full();
    let dial = "timeouts = { dial = \"1h\" }";
    let way = Way::to("trunk-gone", to, More { listener: dial, trunk: dial, ..ONE_CORE });
    way.ready(8);
    let client = TcpStream::connect(way.a.addr()).unwrap();
    way.b.counts("/totals/pairs_open", 1);
    reset(client);
    way.settled();
    assert_eq!([way.a.ends("client-reset"), way.b.ends("client-gone")], [1, 1], "{:#}", way.b.status());
}
