//! How connections end: each direction by itself, after all its bytes; a reset as a reset; nothing held without a bound.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use process::ends::{reset, reset_at_once, until_reset};
use process::{PATIENCE, Scratch, connect, echo, exchange, own_loopback, until};
use programs::data::{MIB, file, noise, sum, sum_said};
use programs::relay::Relay;
use programs::{Server, client, lacks, reserve, said, server};
use rustix::process::Signal;

/// socat at an address of its own; it serves each connection by `what`, and lets an end in one direction be one in that alone.
fn socat(scratch: &Scratch, what: &str) -> (Server, std::net::SocketAddr) {
    Server::start(scratch, "socat.log", |addr| {
        let mut command = server("socat");
        let listen = format!("TCP-LISTEN:{},bind={},fork,reuseaddr,backlog=128", addr.port(), addr.ip());
        command.args(["-t", "120", &listen, what]);
        command
    })
}

/// `nc` to the relay, which finishes sending when its input ends.
fn nc(relay: &Relay) -> std::process::Command {
    let mut command = client("nc");
    command.args(["-N", "127.0.0.1", &relay.port()]);
    command
}

#[test]
fn a_server_that_answers_only_after_the_end_is_heard() {
    if lacks(&["socat", "nc"]) {
        return;
    }
    let scratch = Scratch::new("after-end");
    let (_socat, addr) = socat(&scratch, "EXEC:sha256sum");
    let relay = Relay::to(addr);
    for (name, len) in [("empty", 0), ("short", 1), ("long", 64 * MIB + 1)] {
        let path = file(&scratch, name, len, 7);
        let answer = said(nc(&relay).stdin(File::open(&path).unwrap()));
        assert_eq!(answer.split_whitespace().next(), Some(&*sum(&path)), "{name}");
    }
    relay.finished();
}

#[test]
fn all_that_is_echoed_comes_back_before_the_end() {
    if lacks(&["socat", "nc"]) {
        return;
    }
    let scratch = Scratch::new("echoed");
    let (_socat, addr) = socat(&scratch, "EXEC:cat");
    let relay = Relay::to(addr);
    let path = file(&scratch, "there", 256 * MIB, 8);
    assert_eq!(sum_said(nc(&relay).stdin(File::open(&path).unwrap())), sum(&path));
    relay.finished();
}

#[test]
fn a_server_that_has_finished_still_hears_the_client() {
    if lacks(&["nc"]) {
        return;
    }
    let scratch = Scratch::new("server-first");
    let (there, back) = (file(&scratch, "there", 8 * MIB, 9), file(&scratch, "back", 8 * MIB, 10));
    let (mut server, addr) = Server::start(&scratch, "heard", |addr| {
        let mut command = server("nc");
        command.args(["-N", "-l", &addr.ip().to_string(), &addr.port().to_string()]);
        command.stdin(File::open(&back).unwrap());
        command
    });
    let relay = Relay::to(addr);
    let mut stream = TcpStream::connect(relay.addr()).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == std::fs::read(&back).unwrap());
    stream.write_all(&std::fs::read(&there).unwrap()).unwrap();
    drop(stream);
    server.ended();
    assert_eq!(sum(&scratch.path("heard")), sum(&there));
    relay.finished();
}

/// A relay on one core, to a listener of ours and to `echo`, and both ends of a connection through the first.
fn pair() -> (Relay, TcpStream, TcpStream) {
    let listener = TcpListener::bind(own_loopback()).unwrap();
    let (to, echo) = (listener.local_addr().unwrap().to_string(), echo(b'o').to_string());
    let relay = Relay::between(&[("127.0.0.1:0", &to), ("127.0.0.1:0", &echo)], &["--cores", "1"]);
    let client = TcpStream::connect(relay.addr()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    relay.counts("/totals/pairs_connected", 1);
    (relay, client, server)
}

#[test]
fn a_reset_by_the_client_reaches_the_server() {
    let (relay, mut client, mut server) = pair();
    client.write_all(b"ping").unwrap();
    let mut got = [0; 4];
    server.read_exact(&mut got).unwrap();
    reset(client);
    assert_eq!(until_reset(&mut server), b"");
    relay.settled();
    assert_eq!(relay.ends("client-reset"), 1);
}

#[test]
fn a_reset_by_the_server_reaches_the_client() {
    let (relay, mut client, mut server) = pair();
    server.write_all(b"ping").unwrap();
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    reset(server);
    assert_eq!(until_reset(&mut client), b"");
    relay.settled();
    assert_eq!(relay.ends("server-reset"), 1);
}

#[test]
fn a_killed_relay_resets_its_clients() {
    let (relay, mut client, mut server) = pair();
    server.write_all(b"half an ans").unwrap();
    let mut got = [0; 11];
    client.read_exact(&mut got).unwrap();
    relay.running.signal(Signal::KILL);
    assert_eq!(until_reset(&mut client), b"");
}

#[test]
fn a_reset_crosses_a_half_closed_pair() {
    let (relay, client, mut server) = pair();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    reset(server);
    let mut client = client;
    assert_eq!(until_reset(&mut client), b"");
    relay.settled();
    assert_eq!(relay.ends("server-reset"), 1);
}

/// The client closes with bytes unread, as one that is killed does: the kernel makes that a reset.
#[test]
fn a_client_that_goes_away_in_the_middle_resets_the_server() {
    let (relay, client, mut server) = pair();
    server.write_all(b"unread").unwrap();
    until("the bytes at the client", || (client.peek(&mut [0; 8]).unwrap() == 6).then_some(()));
    drop(client);
    let got = until("the reset at the server", || server.write(&[0; 65_536]).err());
    assert!(matches!(got.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{got}");
    relay.settled();
    assert_eq!(relay.ends("client-reset"), 1);
}

#[test]
fn a_response_and_the_reset_after_it_arrive_in_that_order() {
    let (relay, mut client, mut server) = pair();
    // The relay stands still, so that it meets both at once.
    relay.running.signal(Signal::STOP);
    let response = noise(60_000, 11);
    server.write_all(&response).unwrap();
    reset(server);
    relay.running.signal(Signal::CONT);
    assert!(until_reset(&mut client) == response);
    relay.settled();
    assert_eq!(relay.ends("server-reset"), 1);
}

#[test]
fn a_request_and_the_reset_after_it_arrive_in_that_order() {
    let (relay, mut client, mut server) = pair();
    relay.running.signal(Signal::STOP);
    let request = noise(60_000, 12);
    client.write_all(&request).unwrap();
    reset(client);
    relay.running.signal(Signal::CONT);
    assert!(until_reset(&mut server) == request);
    relay.settled();
    assert_eq!(relay.ends("client-reset"), 1);
}

#[test]
fn a_long_response_arrives_before_the_reset_after_it() {
    let (relay, mut client, mut server) = pair();
    let response = noise(1_000_000, 13);
    // The relay's kernel buffers take it all, though nobody reads yet.
    server.write_all(&response).unwrap();
    relay.counts("/totals/downstream/bytes", 1_000_000);
    reset(server);
    assert!(until_reset(&mut client) == response);
    relay.settled();
    assert_eq!(relay.ends("server-reset"), 1);
}

#[test]
fn a_refused_dial_is_a_reset_at_once() {
    let relay = Relay::to(reserve());
    for _ in 0..20 {
        reset_at_once(relay.addr());
    }
    relay.settled();
    assert_eq!(relay.ends("dial-refused"), 20);
}

/// Resident memory that the relay may gain while a sender runs into a receiver that stands still.
const GAIN_KIB_MAX: u64 = 8 * 1024;
/// What all the kernel's buffers between the two may take in.
const TAKEN_MAX: u64 = 128 * MIB;
/// How long nothing has to move for the sender to count as stalled.
const STALL: Duration = Duration::from_millis(500);

/// Waits until `value` has been the same for a while.
fn stands_still(value: &AtomicU64) -> u64 {
    let mut seen = (value.load(Relaxed), Instant::now());
    until("the sender to stall", || {
        let now = value.load(Relaxed);
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        (seen.1.elapsed() > STALL).then_some(now)
    })
}

/// `sender` sends without end while `receiver` doesn't read, until it's stalled; then all of it is read.
fn stall(relay: &Relay, mut sender: TcpStream, mut receiver: TcpStream) {
    let block = noise(1024 * 1024, 14);
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = relay.resident_kib();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let wrote = sender.write(&block).unwrap();
                sent.fetch_add(wrote as u64, Relaxed);
            }
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let taken = stands_still(&sent);
        stop.store(true, Relaxed);
        let gained = relay.resident_kib().saturating_sub(before);
        exchange(&mut connect(relay.addr_of(1)).0, "there and back");
        // Every byte is still there when the receiver goes on.
        let got = std::io::copy(&mut receiver, &mut std::io::sink()).unwrap();
        assert_eq!(got, sent.load(Relaxed));
        assert!(taken < TAKEN_MAX, "{taken} bytes were somewhere");
        assert!(gained < GAIN_KIB_MAX, "{gained} KiB gained");
    });
}

#[test]
fn a_receiver_that_stands_still_stops_its_sender_and_nobody_else() {
    let (relay, client, server) = pair();
    stall(&relay, server, client);
    relay.finished();
    let (relay, client, server) = pair();
    stall(&relay, client, server);
    relay.finished();
}

/// One that closes in order, while its peer goes on sending, can't take the bytes: the peer is told so by a reset.
#[test]
fn who_sends_to_a_peer_that_has_closed_is_reset() {
    for (reason, closes_first) in [("client-reset", true), ("server-reset", false)] {
        let (relay, client, server) = pair();
        let (closing, mut sending) = if closes_first { (client, server) } else { (server, client) };
        drop(closing);
        let error = until("the reset", || sending.write(&[0; 65_536]).err());
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        relay.settled();
        assert_eq!(relay.ends(reason), 1);
    }
}
