//! What the near gateway makes of answers to its hellos, of those that aren't any, and of none: a far gateway of the tests' own gives
//! them. And what the far gateway answers byte by byte.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use midmile_wire::trunk::answer::Answer;
use process::ends::{reset, reset_at_once, until_reset};
use process::{PATIENCE, Scratch, own_loopback};
use programs::acceptor::acceptor;
use programs::gateways::{self, KEYS, ONE_CORE, Way, key_file, listener, peer};
use programs::relay::{Relay, number};

/// Gateway a, whose peer b is `far`. Nothing is at the place where its clients want to go.
fn near(name: &str, far: SocketAddr) -> (Scratch, Relay) {
    let scratch = Scratch::new(name);
    let key = key_file(&scratch, "ab.key", KEYS[0]);
    // Longer than any test waits: nobody is helped by a timeout.
    let long = "timeouts = { dial = \"1h\" }";
    let of_a =
        [listener("192.0.2.1:9", &["b"], long), peer(&key, "b", Some(&far.to_string()), "pool_min = 2\npool_max = 2")];
    let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &of_a));
    a.counts("/peers/0/ready", 2);
    (scratch, a)
}

/// Asserts that the one pair of `a` ended so, after so many tries, and that the client heard nothing.
fn ended(a: &Relay, end: &str, retries: u64) {
    a.settled();
    assert_eq!([a.ends(end), a.count("/totals/pairs_opened")], [1, 1], "{:#}", a.status());
    assert_eq!([a.count("/peers/0/taken"), a.count("/peers/0/retries")], [1 + retries, retries]);
    assert_eq!(a.count("/totals/downstream/bytes"), 0);
}

/// Says one byte and ends in order; stays until the other side has gone.
fn says(mut stream: TcpStream, byte: u8) {
    stream.write_all(&[byte]).unwrap();
    // Whoever has read the byte may have gone by now.
    stream.shutdown(Shutdown::Write).ok();
    std::io::copy(&mut stream, &mut std::io::sink()).ok();
}

#[test]
fn each_answer_but_one_resets_the_client_under_its_name() {
    for answer in &Answer::ALL[1..] {
        let far = acceptor(|_, stream| says(stream, answer.to_byte()));
        let (_scratch, a) = near(&format!("answer-{}", answer.name()), far);
        reset_at_once(a.addr());
        // Where nothing was dialled another connection may do better.
        ended(&a, &format!("far-{}", answer.name()), u64::from(answer.is_passing()));
    }
}

#[test]
fn an_answer_that_nobody_knows_is_counted_and_resets_the_client() {
    let far = acceptor(|_, stream| says(stream, 0xff));
    let (_scratch, a) = near("answer-unknown", far);
    reset_at_once(a.addr());
    ended(&a, "answer-unknown", 0);
}

/// The far gateway does `first` with the first connection; the second leads to a server that says a word.
fn second_try(name: &str, first: impl Fn(TcpStream) + Send + 'static) {
    let far = acceptor(move |before, mut stream| {
        if before == 0 {
            return first(stream);
        }
        stream.write_all(b"\0word").unwrap();
    });
    let (_scratch, a) = near(name, far);
    let mut client = TcpStream::connect(a.addr()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = Vec::new();
    client.read_to_end(&mut word).unwrap();
    assert_eq!(word, b"word");
    drop(client);
    a.settled();
    assert_eq!([a.count("/peers/0/taken"), a.count("/peers/0/retries")], [2, 1]);
}

#[test]
fn who_found_no_room_or_a_gateway_that_goes_is_served_by_a_second_try() {
    second_try("answer-again-full", |stream| says(stream, Answer::PairsMax.to_byte()));
    second_try("answer-again-drained", |stream| says(stream, Answer::Drained.to_byte()));
}

#[test]
fn a_connection_that_ends_in_order_without_an_answer_is_no_word_of_the_servers() {
    second_try("answer-none", drop);
}

#[test]
fn two_connections_without_an_answer_reset_the_client_and_are_named() {
    for (name, goes) in [("answer-never-end", drop as fn(TcpStream)), ("answer-never-reset", reset)] {
        let far = acceptor(move |_, stream| goes(stream));
        let (_scratch, a) = near(name, far);
        reset_at_once(a.addr());
        ended(&a, "trunk-lost", 1);
    }
}

#[test]
fn who_has_said_something_is_given_no_second_connection() {
    for (name, passing) in [("answer-late-full", true), ("answer-late-none", false)] {
        let far = acceptor(move |_, mut stream| {
            stream.read_exact(&mut [0; 7]).unwrap();
            if passing {
                says(stream, Answer::PairsMax.to_byte());
            }
        });
        let (_scratch, a) = near(name, far);
        let mut client = TcpStream::connect(a.addr()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"request").unwrap();
        assert_eq!(until_reset(&mut client), b"");
        ended(&a, if passing { "far-pairs-max" } else { "trunk-lost" }, 0);
    }
}

/// How long the server below is silent: longer than the answer waits for its first byte.
const SILENCE: Duration = Duration::from_secs(1);
/// Far more than a gateway needs to accept, and far less than what's left of the silence when the answer comes.
const SLACK: Duration = Duration::from_millis(300);

#[test]
fn the_first_byte_is_the_servers_and_not_the_answer() {
    let server = TcpListener::bind(own_loopback()).unwrap();
    let way = Way::to("answer-first-byte", server.local_addr().unwrap(), ONE_CORE);
    way.ready(8);
    let mut client = TcpStream::connect(way.a.addr()).unwrap();
    let (mut stream, _) = server.accept().unwrap();
    // What is measured, and no wait for anything.
    thread::sleep(SILENCE);
    stream.write_all(b"word").unwrap();
    drop(stream);
    let mut word = Vec::new();
    client.read_to_end(&mut word).unwrap();
    assert_eq!(word, b"word");
    drop(client);
    way.finished();
    for gateway in [&way.a, &way.b] {
        let status = gateway.status();
        let took = Duration::from_micros(number(&status, "/totals/accept_to_first_byte/sum_us"));
        // The gateways accept a little after the client's connect returns.
        assert!(took > SILENCE - SLACK, "{status:#}");
        assert_eq!(gateway.count("/totals/downstream/bytes"), 4);
    }
}
