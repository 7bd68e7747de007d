//! Two gateways and more between clients and servers: what goes in at one comes out at the other, and nobody notices.

mod process;
mod programs;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;

use process::ends::{reset_at_once, reset_client};
use process::{PATIENCE, Scratch, connect, echo, exchange, own_loopback};
use programs::data::{KIB, MIB, file, fill, noise, sum, sum_said};
use programs::gateways::{self, KEYS, More, ONE_CORE, Way, key_file, listener, listener_on, peer, trunk};
use programs::nginx::{self, Site};
use programs::relay::{Relay, number};
use programs::{client, curl, lacks, reserve, reserve_v6, said};
use rustix::process::Signal;

fn download(relay: &Relay, path: &str) -> String {
    sum_said(&mut curl(&[&relay.url(path)]))
}

#[test]
fn files_cross_two_gateways_as_they_are() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("trunk-site");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let (small, big) = (file(&scratch, "data/small", KIB, 31), file(&scratch, "data/big", 100 * MIB, 32));
    let way = Way::to("trunk-files", addr, More { peer: "pool_min = 8", ..More::default() });
    way.ready(8);
    assert_eq!(download(&way.a, "/small"), sum(&small));
    assert_eq!(download(&way.a, "/big"), sum(&big));
    said(&mut curl(&["--upload-file", &big, &way.a.url("/put/stored")]));
    assert_eq!(sum(&scratch.path("put/stored")), sum(&big));
    way.finished();
    assert_eq!([way.pool("taken"), way.pool("missed"), way.pool("retries")], [3, 0, 0]);
    let at_b = way.b.status();
    assert_eq!(number(&at_b, "/totals/pairs_opened"), 3);
    for direction in ["upstream", "downstream"] {
        let [bytes, spliced] = ["bytes", "spliced_bytes"].map(|what| format!("/totals/{direction}/{what}"));
        assert!(number(&at_b, &spliced) > 50 * MIB, "bulk goes by splice: {at_b:#}");
        assert_eq!(number(&at_b, &bytes), way.a.count(&bytes), "a hello is no byte of the client's");
    }
    let refusals = at_b["totals"]["refusals"].as_object().unwrap();
    assert!(refusals.values().all(|count| count == 0), "{at_b:#}");
}

/// Connections at once.
const PARALLEL: u64 = 200;

#[test]
fn two_hundred_at_once_each_take_a_connection_that_was_ready() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("trunk-many-site");
    let (nginx, addr) = nginx::start(&scratch, Site { listen: "backlog=1024", ..Site::default() });
    let noise = noise(128 * 1024, 33);
    (0..PARALLEL).for_each(|index| fill(scratch.path(&format!("data/{index}")), 100 * KIB, index, &noise));
    let names = (0..PARALLEL).map(|index| index.to_string());
    let sums = said(client("sha256sum").args(names).current_dir(scratch.path("data")));
    let sums = scratch.write("sums", &sums);
    std::fs::create_dir(scratch.path("got")).unwrap();
    // Each core has half of it: all clients may come to the same one.
    let way = Way::to("trunk-many", addr, More { peer: "pool_min = 512\npool_max = 1024", ..More::default() });
    way.ready(512);
    // nginx stands still until all have connected, so that they really are there at once.
    nginx.signal(Signal::STOP);
    let (most, output) = (PARALLEL.to_string(), scratch.path("got/#1"));
    let url = way.a.url(&format!("/[0-{}]", PARALLEL - 1));
    thread::scope(|scope| {
        scope.spawn(|| {
            let at_once = ["--http1.1", "--parallel", "--parallel-immediate", "--no-progress-meter"];
            said(curl(&at_once).args(["--parallel-max", &most, "--output", &output, &url]))
        });
        way.b.counts("/totals/pairs_connected", PARALLEL);
        nginx.signal(Signal::CONT);
    });
    said(client("sha256sum").args(["--check", "--quiet", &sums]).current_dir(scratch.path("got")));
    way.finished();
    assert_eq!([way.pool("taken"), way.pool("missed"), way.pool("retries")], [PARALLEL, 0, 0]);
    assert_eq!(way.b.count("/totals/pairs_opened"), PARALLEL);
}

#[test]
fn an_empty_pool_makes_a_connection_for_who_comes() {
    let way = Way::to("trunk-empty", echo(b'e'), More { peer: "pool_min = 0", ..ONE_CORE });
    assert_eq!(way.pool("dials"), 0, "nobody has come");
    exchange(&mut connect(way.a.addr()).0, "there and back");
    way.finished();
    assert_eq!([way.pool("taken"), way.pool("missed")], [1, 1]);
}

#[test]
fn a_server_that_speaks_first_is_heard_before_the_client_says_a_word() {
    let way = Way::to("trunk-banner", echo(b'b'), ONE_CORE);
    let (mut stream, banner) = connect(way.a.addr());
    assert_eq!(banner, b'b');
    assert_eq!(way.b.count("/totals/upstream/bytes"), 0);
    exchange(&mut stream, "then I speak");
    drop(stream);
    way.finished();
}

/// Three gateways, a to c by way of b, which may pass on to `onward`; c dials `to`.
fn three(scratch: &Scratch, to: &str, onward: &str) -> [Relay; 3] {
    let (ab, bc) = (key_file(scratch, "ab.key", KEYS[0]), key_file(scratch, "bc.key", KEYS[1]));
    let of_c = [peer(&bc, "b", None, ""), trunk("127.0.0.1:0", &["b"], &[to], "")];
    let c = gateways::start(&gateways::file(scratch, "c", "cores = 1", &of_c));
    let of_b = [
        peer(&bc, "c", Some(&c.listen[0]), ""),
        peer(&ab, "a", None, ""),
        // What b may dial by itself is nothing to those who are passed on.
        trunk("127.0.0.1:0", &["a"], &[to], onward),
    ];
    let b = gateways::start(&gateways::file(scratch, "b", "cores = 1", &of_b));
    let of_a = [listener(to, &["b", "c"], ""), peer(&ab, "b", Some(&b.listen[0]), "")];
    let a = gateways::start(&gateways::file(scratch, "a", "cores = 1", &of_a));
    b.counts("/peers/0/ready", 8);
    a.counts("/peers/0/ready", 8);
    [a, b, c]
}

#[test]
fn a_file_crosses_three_gateways_as_it_is() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("trunk-three");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let wanted = sum(&file(&scratch, "data/file", 64 * MIB, 34));
    let [a, b, c] = three(&scratch, &addr.to_string(), "onward = \"c\"");
    assert_eq!(download(&a, "/file"), wanted);
    for gateway in [&a, &b, &c] {
        let status = gateway.finished();
        assert_eq!(number(&status, "/totals/pairs_opened"), 1, "{status:#}");
    }
    for gateway in [&a, &b] {
        assert_eq!(["taken", "missed"].map(|figure| gateway.count(&format!("/peers/0/{figure}"))), [1, 0]);
    }
}

#[test]
fn who_may_not_be_passed_on_is_reset() {
    let scratch = Scratch::new("trunk-onward");
    let server = TcpListener::bind(own_loopback()).unwrap();
    let [a, b, c] = three(&scratch, &server.local_addr().unwrap().to_string(), "");
    reset_client(a.addr());
    a.settled();
    b.settled();
    assert_eq!([b.ends("not-permitted"), b.count("/totals/pairs_opened")], [1, 1], "{:#}", b.status());
    assert_eq!(a.ends("far-not-permitted"), 1, "{:#}", a.status());
    assert_eq!([b.count("/peers/0/taken"), c.count("/totals/pairs_opened")], [0, 0]);
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "nobody has come to the server");
}

#[test]
fn what_the_last_of_three_gateways_found_is_told_by_all() {
    let scratch = Scratch::new("trunk-three-refused");
    let gateways = three(&scratch, &reserve().to_string(), "onward = \"c\"");
    reset_at_once(gateways[0].addr());
    let ends = ["far-dial-refused", "far-dial-refused", "dial-refused"];
    for (gateway, end) in gateways.iter().zip(ends) {
        gateway.settled();
        assert_eq!([gateway.ends(end), gateway.count("/totals/pairs_opened")], [1, 1], "{:#}", gateway.status());
    }
    // The last one is gone, so the one between has nobody to go on by.
    let [a, b, c] = gateways;
    drop(c);
    b.counts("/peers/0/ready", 0);
    reset_at_once(a.addr());
    a.counts("/totals/ends/far-trunk-unavailable", 1);
    b.counts("/totals/ends/trunk-unavailable", 1);
    assert_eq!(a.count("/peers/0/retries"), 0);
}

#[test]
fn a_server_that_speaks_first_is_heard_through_three_gateways_word_by_word() {
    let scratch = Scratch::new("trunk-three-banner");
    let server = TcpListener::bind(own_loopback()).unwrap();
    let [a, b, c] = three(&scratch, &server.local_addr().unwrap().to_string(), "onward = \"c\"");
    let (mut client, mut stream) = (TcpStream::connect(a.addr()).unwrap(), server.accept().unwrap().0);
    for text in [b"one", b"two"] {
        // The answer crosses once, and what the server says is all that the client hears.
        std::io::Write::write_all(&mut stream, text).unwrap();
        let mut heard = [0; 3];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, text);
    }
    drop((client, stream));
    [a, b, c].iter().for_each(|gateway| drop(gateway.finished()));
}

/// nginx answers with the address that the header gave it.
const WHO: Site = Site {
    listen: "proxy_protocol",
    directives: "location /who { return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }",
};

#[test]
fn the_server_learns_the_clients_address_from_the_last_gateway() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("trunk-who");
    let (_nginx, addr) = nginx::start(&scratch, WHO);
    let to = addr.to_string();
    let mut listeners = vec![("127.0.0.1:0", "127.0.0.5")];
    if reserve_v6().is_some() {
        listeners.push(("[::1]:0", "::1"));
    }
    let tables: String = listeners.iter().map(|(listen, _)| listener_on(listen, &to, &["b"], "")).collect();
    let way = Way::of("trunk-proxy", &tables, &[&to], More { trunk: "send_proxy = \"v2\"", ..More::default() });
    for (listen, (_, client)) in way.a.listen.iter().zip(&listeners) {
        let ends = ["--interface", client, "--write-out", "\n%{local_ip} %{local_port}"];
        let said = said(curl(&ends).arg(format!("http://{listen}/who")));
        let (told, own) = said.split_once('\n').unwrap();
        assert_eq!(told, own, "{listen}");
        assert!(told.starts_with(client), "{told}");
    }
    way.finished();
}

#[test]
fn a_clients_own_proxy_header_goes_all_the_way() {
    let server = TcpListener::bind(own_loopback()).unwrap();
    let more = More { listener: "accept_proxy = \"v1\"", trunk: "send_proxy = \"v1\"", ..ONE_CORE };
    let way = Way::to("trunk-header", server.local_addr().unwrap(), more);
    let mut stream = TcpStream::connect(way.a.addr()).unwrap();
    std::io::Write::write_all(&mut stream, b"PROXY TCP4 1.2.3.4 5.6.7.8 9 80\r\nhello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = String::new();
    accepted.read_to_string(&mut got).unwrap();
    assert_eq!(got, "PROXY TCP4 1.2.3.4 5.6.7.8 9 80\r\nhello");
    drop((accepted, stream));
    way.finished();
}
