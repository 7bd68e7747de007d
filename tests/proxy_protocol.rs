//! The PROXY protocol, sent to nginx and accepted from curl and haproxy; and headers that are none.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use process::{PATIENCE, Scratch, echo};
use programs::nginx::{self, Site};
use programs::relay::Relay;
use programs::{Server, curl, is_listening, lacks, said, server};
use rustix::process::Signal;

/// nginx answers with the address that the header gave it.
const WHO: Site = Site {
    listen: "proxy_protocol",
    directives: "location /who { return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }",
};

/// Where clients connect from, to be told from the relay itself.
const CLIENT: &str = "127.0.0.5";

/// What nginx says, and what curl says of its own end of the connection.
fn who(url: &str, more: &[&str]) -> (String, String) {
    let ends = ["--interface", CLIENT, "--write-out", "\n%{local_ip} %{local_port}", url];
    let said = said(&mut curl(&[more, &ends].concat()));
    let (told, own) = said.split_once('\n').unwrap();
    (told.to_owned(), own.to_owned())
}

#[test]
fn nginx_learns_the_client_from_our_header() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("proxy-out");
    let (_nginx, addr) = nginx::start(&scratch, WHO);
    for version in ["v1", "v2"] {
        let relay = Relay::with(addr, &["--send-proxy", version]);
        let (told, own) = who(&relay.url("/who"), &[]);
        assert_eq!(told, own, "{version}");
        assert!(told.starts_with(CLIENT), "{told}");
        relay.finished();
    }
}

#[test]
fn nginx_learns_the_client_from_curls_header_through_ours() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("proxy-curl");
    let (_nginx, addr) = nginx::start(&scratch, WHO);
    for (accept, send) in [("any", "v2"), ("v1", "v1")] {
        let relay = Relay::with(addr, &[&format!("--accept-proxy={accept}"), "--send-proxy", send]);
        let (told, own) = who(&relay.url("/who"), &["--haproxy-protocol"]);
        assert_eq!(told, own, "{accept} to {send}");
        relay.finished();
    }
}

/// haproxy, which sends a header of `version` on to `to`.
fn haproxy(scratch: &Scratch, to: SocketAddr, version: &str) -> (Server, SocketAddr) {
    let send = if version == "v1" { "send-proxy" } else { "send-proxy-v2" };
    let start = |addr| {
        let config = format!(
            "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 30s\n timeout client 30s\n timeout server 30s\n\
             listen front\n bind {addr}\n server relay {to} {send}\n"
        );
        let mut command = server("haproxy");
        command.args(["-db", "-f", &scratch.write(&format!("haproxy-{version}.cfg"), &config)]);
        command
    };
    Server::start(scratch, &format!("haproxy-{version}.log"), start)
}

#[test]
fn haproxys_header_is_understood_and_its_client_passed_on() {
    if lacks(&["nginx", "curl", "haproxy"]) {
        return;
    }
    let scratch = Scratch::new("proxy-haproxy");
    let (_nginx, addr) = nginx::start(&scratch, WHO);
    for version in ["v1", "v2"] {
        let relay = Relay::with(addr, &[&format!("--accept-proxy={version}"), "--send-proxy", "v2"]);
        let (_haproxy, front) = haproxy(&scratch, relay.addr(), version);
        assert!(is_listening(front));
        let (told, own) = who(&format!("http://{front}/who"), &[]);
        assert_eq!(told, own, "{version}");
        relay.settled();
    }
}

/// The signature of version 2 (the specification, §2.2).
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Beginnings of connections that can't become a header.
fn hostile() -> Vec<Vec<u8>> {
    let v2 = |rest: &[u8]| [V2, rest].concat();
    vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 80\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4\r\n".to_vec(),
        [b"PROXY TCP4 ".as_slice(), &[b'1'; 4096]].concat(),
        v2(&[0x31, 0x11, 0, 12]),
        v2(&[0x21, 0x11, 0xff, 0xff]),
        v2(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]),
        v2(&[0x2f, 0x11, 0, 12]),
        vec![0; 65_536],
    ]
}

/// Asserts that the relay cuts the connection, without a byte for the client.
fn assert_cut(mut stream: TcpStream, what: &[u8]) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} after {what:?}"),
    }
}

#[test]
fn what_is_not_a_header_is_refused_and_counted() {
    let relay = Relay::with(echo(b'e'), &["--accept-proxy"]);
    let hostile = hostile();
    for bytes in &hostile {
        let mut stream = TcpStream::connect(relay.addr()).unwrap();
        // It may be cut before all of it is written.
        stream.write_all(bytes).ok();
        assert_cut(stream, &bytes[..bytes.len().min(32)]);
    }
    // Half a header, and then the end.
    for bytes in [b"PROXY TCP4 1.2.3".as_slice(), &V2[..7], b""] {
        let mut stream = TcpStream::connect(relay.addr()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_cut(stream, bytes);
    }
    relay.settled();
    assert_eq!(relay.ends("header-invalid"), hostile.len() as u64 + 3, "{:#}", relay.status());
    assert_eq!(relay.count("/totals/pairs_connected"), 0, "no server is bothered");
}

#[test]
fn the_wrong_version_is_refused() {
    for (accept, bytes) in [("v1", V2), ("v2", b"PROXY TCP4 1.2.3.4 5.6.7.8 9 80\r\n")] {
        let relay = Relay::with(echo(b'e'), &[&format!("--accept-proxy={accept}")]);
        let mut stream = TcpStream::connect(relay.addr()).unwrap();
        stream.write_all(bytes).unwrap();
        assert_cut(stream, bytes);
        relay.settled();
        assert_eq!(relay.ends("header-invalid"), 1);
    }
}

#[test]
fn a_header_that_is_late_is_refused_and_those_in_time_are_served() {
    let scratch = Scratch::new("proxy-late");
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\naccept_proxy = \"any\"\n\
         timeouts = {{ header = \"1s\" }}\n",
        echo(b'e')
    );
    let relay = Relay::of_file(&scratch.write("m.toml", &text));
    let late: Vec<_> = [b"".as_slice(), b"PROXY TCP4 1.2.3.4 5.6"]
        .into_iter()
        .map(|bytes| {
            let mut stream = TcpStream::connect(relay.addr()).unwrap();
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
    // A header may come in pieces, and with the first bytes behind it.
    let mut stream = TcpStream::connect(relay.addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["PROXY TCP4 1.2.3.4 ", "5.6.7.8 9 ", "80\r\nhello"] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    let mut got = [0; 6];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ehello");
    for late in late {
        assert_cut(late, b"");
    }
    drop(stream);
    relay.settled();
    assert_eq!(relay.ends("header-timeout"), 2);
    assert_eq!(relay.ends("finished"), 1);
}

#[test]
fn a_header_with_its_request_and_its_end_in_one_segment_is_served() {
    let relay = Relay::with(echo(b'e'), &["--accept-proxy"]);
    let mut stream = TcpStream::connect(relay.addr()).unwrap();
    stream.write_all(b"PROXY UNKNOWN\r\nall at once").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    assert_eq!(got, "eall at once");
    relay.finished();
}

/// More than a core has blocks to keep what came behind a header.
const AT_ONCE: usize = 200;

#[test]
fn many_requests_right_behind_their_headers_all_arrive() {
    let relay = Relay::with(echo(b'e'), &["--accept-proxy", "--cores", "1"]);
    let mut clients: Vec<_> = (0..AT_ONCE).map(|_| TcpStream::connect(relay.addr()).unwrap()).collect();
    relay.counts("/totals/pairs_open", AT_ONCE as u64);
    // The relay stands still, so that it meets all headers at once.
    relay.running.signal(Signal::STOP);
    for stream in &mut clients {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PROXY UNKNOWN\r\nnot another word").unwrap();
    }
    relay.running.signal(Signal::CONT);
    for mut stream in clients {
        let mut got = [0; 17];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"enot another word");
    }
    relay.finished();
}
