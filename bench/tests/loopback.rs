//! The load processes and the floor on loopback, without namespaces and without root.
#![cfg(test)]

mod started;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use started::{Load, Started, free_address};

fn floor(to: SocketAddr) -> (Started, SocketAddr) {
    let listen = free_address();
    let mut command = Command::new(env!("CARGO_BIN_EXE_midmile-bench-floor"));
    let process = Started(command.args([listen.to_string(), to.to_string()]).spawn().unwrap());
    (process, listen)
}

/// A load server, the floor before it, and a client that has connected through both.
fn through_floor(client: &[&str]) -> (Load, Started, Load) {
    let address = free_address();
    let server = Load::start(&["server", &address.to_string()]);
    let (floor, listen) = floor(address);
    let probe = Command::new(env!("CARGO_BIN_EXE_midmile-bench"))
        .args(["load", "probe", &listen.to_string()])
        .status()
        .unwrap();
    assert!(probe.success());
    let (kind, options) = client.split_first().unwrap();
    let mut args = vec![*kind];
    let listen = listen.to_string();
    args.push(&listen);
    args.extend(options);
    (server, floor, Load::start(&args))
}

#[test]
fn exchanges_complete_and_take_time() {
    let (mut server, _floor, mut client) = through_floor(&["rr", "--conns", "20"]);
    client.reaches("requests", 1_000);
    thread::sleep(Duration::from_millis(50));
    assert!(client.counter("p50_ns") > 0);
    assert!(server.counter("requests") >= 1_000);
}

#[test]
fn short_connections_end_without_errors() {
    let (_server, _floor, mut client) = through_floor(&["crr", "--conns", "8"]);
    client.reaches("requests", 500);
    assert_eq!(client.counter("errors"), 0);
}

#[test]
fn bulk_arrives() {
    let (mut server, _floor, _client) = through_floor(&["bulk", "--conns", "3"]);
    server.reaches("bytes", 50_000_000);
}

#[test]
fn a_slow_reader_holds_the_sender_back() {
    let (mut server, _floor, mut client) = through_floor(&["bulk", "--conns", "1", "--purpose", "slow"]);
    server.reaches("slow_bytes", 500_000);
    let (sent, read) = (client.counter("bytes"), server.counter("slow_bytes"));
    assert!(read < 5_000_000, "read {read} bytes in about half a second");
    assert!(sent > read && sent - read < 64_000_000, "{sent} sent, {read} read");
}

#[test]
fn the_floor_forwards_a_half_close() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_floor, listen) = floor(listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(&request).unwrap();
        request.len()
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut client = loop {
        match TcpStream::connect(listen) {
            Ok(client) => break client,
            Err(_) => assert!(Instant::now() < deadline, "the floor doesn't listen"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    let request = vec![7_u8; 3_000_000];
    client.write_all(&request).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut response = Vec::new();
    client.read_to_end(&mut response).unwrap();
    assert!(response == request, "{} bytes came back", response.len());
    assert_eq!(server.join().unwrap(), request.len());
}
