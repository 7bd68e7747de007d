//! Who comes to a trunk without its key or with something else than its protocol, and who asks for what isn't on the list: each is
//! cut and counted under its name, leads to no dial, and harms nobody.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use process::ends::{reset_at_once, reset_client, until_reset};
use process::{PATIENCE, Scratch, connect, echo, exchange, own_loopback, run, text, until};
use programs::between::between;
use programs::gateways::{self, KEYS, ONE_CORE, Way, key_file, listener, peer, trunk};
use programs::relay::Relay;
use rustix::fs::{Mode, chmod};

/// Gateways a and b that hold other keys, or call each other other names, towards a server that nobody should come to.
fn at_odds(name: &str, key_of_a: &str, b_expects: &str) -> (Scratch, Relay, Relay, TcpListener) {
    let scratch = Scratch::new(name);
    let server = TcpListener::bind(own_loopback()).unwrap();
    server.set_nonblocking(true).unwrap();
    let to = server.local_addr().unwrap().to_string();
    let keys = [key_file(&scratch, "a.key", key_of_a), key_file(&scratch, "b.key", KEYS[0])];
    let of_b = [peer(&keys[1], b_expects, None, ""), trunk("127.0.0.1:0", &[b_expects], &[&to], "")];
    let b = gateways::start(&gateways::file(&scratch, "b", "cores = 1", &of_b));
    // Longer than any test waits: nobody is helped by a timeout.
    let of_a = [
        listener(&to, &["b"], "timeouts = { dial = \"1h\" }"),
        peer(&keys[0], "b", Some(&b.listen[0]), "pool_min = 1"),
    ];
    let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &of_a));
    (scratch, a, b, server)
}

/// Clients of a that many times: each is reset at once, however often it went wrong before.
const CLIENTS: u64 = 12;

fn assert_shut_out(a: &Relay, b: &Relay, server: &TcpListener) {
    (0..CLIENTS).for_each(|_| reset_at_once(a.addr()));
    a.settled();
    assert_eq!(a.ends("trunk-unavailable"), CLIENTS, "{:#}", a.status());
    let lost = a.count("/peers/0/losses/handshake");
    assert!(lost >= CLIENTS, "{:#}", a.status());
    assert_eq!(a.count("/peers/0/taken"), 0);
    // b may hear of the last ones a little later.
    until("all to be counted", || (b.count("/totals/refusals/trunk-key") >= lost).then_some(()));
    assert_eq!(b.count("/totals/pairs_opened"), 0);
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody is dialled");
}

#[test]
fn with_a_wrong_key_clients_are_reset_at_once_and_nobody_is_dialled() {
    let (_scratch, a, b, server) = at_odds("trunk-wrong-key", KEYS[1], "a");
    assert_shut_out(&a, &b, &server);
}

#[test]
fn with_a_name_that_is_not_expected_clients_are_reset_at_once_and_nobody_is_dialled() {
    let (_scratch, a, b, server) = at_odds("trunk-wrong-name", KEYS[0], "somebody-else");
    assert_shut_out(&a, &b, &server);
}

/// Asserts that b dials none of `to` where it may dial `allow`, and the server hears of nobody.
fn assert_not_permitted(name: &str, server: &TcpListener, allow: &[&str], to: &[&str]) {
    let way = Way::between(name, to, allow, ONE_CORE);
    way.ready(8);
    for at in 0..to.len() {
        reset_client(way.a.addr_of(at));
    }
    way.settled();
    let tries = to.len() as u64;
    assert_eq!(way.b.ends("not-permitted"), tries, "{:#}", way.b.status());
    assert_eq!([way.a.ends("far-not-permitted"), way.pool("retries")], [tries, 0]);
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody is dialled");
}

/// A server that nobody should come to, and its port.
fn unvisited() -> (TcpListener, u16) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port();
    (server, port)
}

#[test]
fn an_empty_list_allows_nothing() {
    let (server, port) = unvisited();
    assert_not_permitted("trunk-nothing", &server, &[], &[&format!("127.0.0.1:{port}"), &format!("localhost:{port}")]);
}

#[test]
fn another_address_name_or_port_is_not_permitted() {
    let (server, port) = unvisited();
    let next = port.wrapping_add(1).max(1);
    let allow = [format!("127.0.0.1:{next}"), format!("127.0.0.2:{port}"), format!("localhost:{next}")];
    let to = [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("other.internal:{next}")];
    assert_not_permitted("trunk-other", &server, &allow.each_ref().map(|one| &**one), &to.each_ref().map(|one| &**one));
}

#[test]
fn loopback_is_not_permitted_by_a_network_that_contains_it_nor_by_a_name_that_leads_there() {
    let (server, port) = unvisited();
    let name = format!("localhost:{port}");
    let allow = ["0.0.0.0/0:1-65535", "127.0.0.0/8:1-65535", "[::/0]:1-65535", &name];
    let to = [format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}"), name.clone()];
    assert_not_permitted("trunk-loopback", &server, &allow, &to.each_ref().map(|one| &**one));
}

#[test]
fn loopback_is_permitted_by_its_exact_address_and_so_is_a_name_for_it() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let (exact, name) = (to.to_string(), format!("localhost:{}", to.port()));
    let way = Way::between("trunk-exact", &[&exact, &name], &[&exact, &name], ONE_CORE);
    for listen in 0..2 {
        let mut client = TcpStream::connect(way.a.addr_of(listen)).unwrap();
        client.write_all(b"let in").unwrap();
        let mut got = [0; 6];
        server.accept().unwrap().0.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"let in");
    }
    way.finished();
}

/// Two gateways, with a relay of our own between that writes down what a says to b.
struct Recorded {
    _scratch: Scratch,
    a: Relay,
    b: Relay,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Recorded {
    /// One connection waits ready at a; b gives a handshake a second.
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let key = key_file(&scratch, "ab.key", KEYS[0]);
        let to = echo(b'e').to_string();
        let soon = "timeouts = { handshake = \"1s\" }";
        let of_b = [peer(&key, "a", None, ""), trunk("127.0.0.1:0", &["a"], &[&to], soon)];
        let b = gateways::start(&gateways::file(&scratch, "b", "cores = 1", &of_b));
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let hears = said.clone();
        let between = between(b.addr(), move |bytes| {
            hears.lock().unwrap().extend_from_slice(bytes);
            true
        });
        let of_a =
            [listener(&to, &["b"], ""), peer(&key, "b", Some(&between.to_string()), "pool_min = 1\npool_max = 1")];
        let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &of_a));
        a.counts("/peers/0/ready", 1);
        Self { _scratch: scratch, a, b, said }
    }
}

fn stranger(to: &Relay, says: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be cut before all of it is written.
    stream.write_all(says).ok();
    stream
}

fn refused(b: &Relay, reason: &str, wanted: u64) {
    b.counts(&format!("/totals/refusals/{reason}"), wanted);
}

/// Head and names of a's introduction to b: magic, version, and a byte of length before each name.
const INTRODUCED_LEN: usize = 8 + 1 + 2 + 2;
/// Magic, version, a number used once, and the proof of the key.
const CHALLENGE_LEN: usize = 8 + 1 + 32 + 32;

#[test]
fn what_is_not_the_handshake_is_cut_and_counted_and_honest_clients_go_on() {
    let recorded = Recorded::new("trunk-garbage");
    let (a, b) = (&recorded.a, &recorded.b);
    let (mut honest, _) = connect(a.addr());
    let introduction = recorded.said.lock().unwrap()[..INTRODUCED_LEN + 32].to_vec();
    let mut other_version = introduction.clone();
    other_version[8] ^= 0xFF;
    let invalid: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: midmile\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 9 80\r\n",
        &[0; 65_536],
        &other_version,
        // A name of no length.
        &[&introduction[..9], &[0; 64]].concat(),
    ];
    for (at, says) in invalid.iter().enumerate() {
        assert_eq!(until_reset(&mut stranger(b, says)), b"");
        refused(b, "trunk-invalid", at as u64 + 1);
        exchange(&mut honest, "unharmed");
    }
    // Part of an introduction, and then the end.
    let before = invalid.len() as u64;
    for (at, len) in [0, 5, INTRODUCED_LEN, introduction.len() - 1].into_iter().enumerate() {
        stranger(b, &introduction[..len]).shutdown(Shutdown::Write).unwrap();
        refused(b, "trunk-invalid", before + at as u64 + 1);
    }
    // Somebody whom nobody knows.
    let mut unknown = introduction.clone();
    unknown[10] = b'x';
    assert_eq!(until_reset(&mut stranger(b, &unknown)), b"");
    refused(b, "trunk-key", 1);
    // What comes late.
    let mut late: Vec<_> = [0, 5, introduction.len() - 1].map(|len| stranger(b, &introduction[..len])).into();
    // As far as the challenge, and no proof.
    late.push(stranger(b, &introduction));
    late.last().unwrap().read_exact_of(CHALLENGE_LEN);
    for mut late in late {
        assert_eq!(until_reset(&mut late), b"");
        exchange(&mut honest, "unharmed");
    }
    refused(b, "trunk-timeout", 4);
    assert_eq!(b.count("/totals/pairs_opened"), 1, "the honest one: {:#}", b.status());
    drop(honest);
    a.finished();
    b.finished();
}

/// Reads so many bytes and forgets them.
trait ReadExactOf {
    fn read_exact_of(&self, len: usize);
}

impl ReadExactOf for TcpStream {
    fn read_exact_of(&self, len: usize) {
        let mut stream = self;
        stream.read_exact(&mut vec![0; len]).unwrap();
    }
}

#[test]
fn a_recorded_session_opens_nothing_a_second_time() {
    let recorded = Recorded::new("trunk-replay");
    let (a, b) = (&recorded.a, &recorded.b);
    let (mut honest, _) = connect(a.addr());
    exchange(&mut honest, "the honest one");
    // Introduction, proof, hello and the client's bytes.
    let said = recorded.said.lock().unwrap().clone();
    assert!(said.ends_with(b"the honest one"));
    let (introduction, rest) = said.split_at(INTRODUCED_LEN + 32);
    for replays in 1..=3 {
        let mut replayed = stranger(b, introduction);
        // b answers whoever knows its name with a challenge, which is another each time.
        replayed.read_exact_of(CHALLENGE_LEN);
        replayed.write_all(rest).unwrap();
        assert_eq!(until_reset(&mut replayed), b"", "no welcome");
        refused(b, "trunk-key", replays);
        exchange(&mut honest, "unharmed");
    }
    // All of it in one breath: b waits for an answer to its challenge.
    let mut replayed = stranger(b, &said);
    replayed.read_exact_of(CHALLENGE_LEN);
    assert_eq!(until_reset(&mut replayed), b"", "no welcome");
    refused(b, "trunk-timeout", 1);
    assert_eq!(b.count("/totals/pairs_opened"), 1, "{:#}", b.status());
    drop(honest);
    a.finished();
    b.finished();
}

/// What `check` says of a gateway's file whose one peer has the key `key`, of `mode`.
fn checked(name: &str, key: &str, mode: u32) -> (Option<i32>, String) {
    let scratch = Scratch::new(name);
    let path = key_file(&scratch, "b.key", key);
    chmod(&*path, Mode::from_raw_mode(mode)).unwrap();
    let tables = [listener("10.0.0.1:80", &["b"], ""), peer(&path, "b", Some("127.0.0.1:7000"), "")];
    let output = run(&["check", "--config", &gateways::file(&scratch, "a", "", &tables)]);
    (output.status.code(), text(&[output.stdout, output.stderr].concat()))
}

#[test]
fn a_key_file_that_will_not_do_is_one_clear_line() {
    let short = &KEYS[0][..63];
    let cases = [
        ("open", KEYS[0].to_owned(), 0o644, "anybody can read it (mode 644); chmod 600 it"),
        ("short", short.to_owned(), 0o600, "a key has 64 hexadecimal digits"),
        ("long", format!("{}0", KEYS[0]), 0o600, "this one has 65"),
        ("empty", String::new(), 0o600, "this one has 0"),
        ("letters", format!("{short}g"), 0o600, "character 64 of the key is no hexadecimal digit"),
        ("zeros", "0".repeat(64), 0o600, "the key is all zeros"),
        ("endless", "0".repeat(100_000), 0o600, "a key has 64 hexadecimal digits"),
    ];
    for (name, key, mode, told) in cases {
        let (code, said) = checked(&format!("trunk-key-{name}"), &key, mode);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{name}: {said}");
        assert!(said.contains("b.key") && said.contains("peer.key_file") && said.contains(told), "{name}: {said}");
        assert!(key.is_empty() || !said.contains(&key[..16]), "a key isn't told: {said}");
    }
    let (code, said) = checked("trunk-key-good", &format!("{}\n", KEYS[0]), 0o600);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_key_file_that_is_not_there_is_one_clear_line() {
    let scratch = Scratch::new("trunk-key-missing");
    let tables = [peer(&scratch.path("b.key"), "b", Some("127.0.0.1:7000"), ""), listener("10.0.0.1:80", &["b"], "")];
    let output = run(&["check", "--config", &gateways::file(&scratch, "a", "", &tables)]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("b.key: can't read it: No such file"), "{said}");
}

#[test]
fn a_plain_peer_is_for_loopback_alone_and_serves_there() {
    let scratch = Scratch::new("trunk-plain");
    let to = echo(b'p').to_string();
    let plain = |address: &str| format!("[[peer]]\nname = \"b\"\nplain = true\naddress = \"{address}\"\n");
    let of_b = ["[[peer]]\nname = \"a\"\nplain = true\n".to_owned(), trunk("127.0.0.1:0", &["a"], &[&to], "")];
    let b = gateways::start(&gateways::file(&scratch, "b", "", &of_b));
    let a = gateways::start(&gateways::file(&scratch, "a", "", &[listener(&to, &["b"], ""), plain(&b.listen[0])]));
    exchange(&mut connect(a.addr()).0, "in the clear");
    a.finished();
    b.finished();
    let tables = [listener(&to, &["b"], ""), plain("192.0.2.1:7000")];
    let output = run(&["check", "--config", &gateways::file(&scratch, "far", "", &tables)]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("192.0.2.1:7000 isn't a loopback address; write key_file"), "{said}");
}
