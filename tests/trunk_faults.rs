//! Gateways that go and come back, drain and reload, and peers that want too much: clients are served or reset at once, and what
//! was open goes on.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use midmile_wire::trunk::Offer;
use process::ends::{reset_at_once, reset_client, until_reset};
use process::{PATIENCE, Scratch, connect, echo, exchange, until};
use programs::between::between;
use programs::dialer::proved;
use programs::gateways::{self, KEYS, More, ONE_CORE, Way, key_file, listener, peer, trunk};
use programs::relay::Relay;
use programs::reserve;
use rustix::process::Signal;

/// Connections that wait ready in these tests' pools.
const READY: u64 = 4;

/// Whether a new client is served. One that isn't has to be told so at once.
fn is_served(addr: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read(&mut [0]) {
        Ok(1) => {
            exchange(&mut stream, "served");
            Some(())
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        other => panic!("neither served nor reset: {other:?}"),
    }
}

/// The connection's end reaches the client, as an end or as a reset.
fn hears_the_end(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_far_gateway_that_comes_back_is_found_again() {
    let scratch = Scratch::new("trunk-restart");
    let (key, to, listen) = (key_file(&scratch, "ab.key", KEYS[0]), echo(b'e').to_string(), reserve().to_string());
    let of_b = [peer(&key, "a", None, ""), trunk(&listen, &["a"], &[&to], "")];
    let of_b = gateways::file(&scratch, "b", "cores = 1", &of_b);
    // Longer than any test waits: nobody is helped by a timeout.
    let of_a = [
        listener(&to, &["b"], "timeouts = { dial = \"1h\" }"),
        peer(&key, "b", Some(&listen), &format!("pool_min = {READY}")),
    ];
    let b = gateways::start(&of_b);
    let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &of_a));
    a.reaches("/peers/0/ready", READY);
    let (mut open, _) = connect(a.addr());
    exchange(&mut open, "before");

    // Killed: it has no time to say goodbye, and its kernel closes its sockets.
    drop(b);
    hears_the_end(&mut open);
    drop(open);
    a.counts("/peers/0/ready", 0);
    for _ in 0..12 {
        reset_at_once(a.addr());
    }
    assert_eq!(a.ends("trunk-unavailable"), 12, "{:#}", a.status());

    let b = gateways::start(&of_b);
    until("a client that is served", || is_served(a.addr()));
    a.reaches("/peers/0/ready", READY);
    let missed = a.count("/peers/0/missed");
    exchange(&mut connect(a.addr()).0, "after");
    assert_eq!(a.count("/peers/0/missed"), missed);
    a.settled();
    b.finished();
}

#[test]
fn a_pool_fills_again_by_itself_when_the_far_gateway_comes_back() {
    let scratch = Scratch::new("trunk-refill");
    let (key, to, listen) = (key_file(&scratch, "ab.key", KEYS[0]), echo(b'e').to_string(), reserve().to_string());
    let of_a = [listener(&to, &["b"], ""), peer(&key, "b", Some(&listen), &format!("pool_min = {READY}"))];
    // Nobody is there yet.
    let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &of_a));
    until("a dial that failed", || (a.count("/peers/0/losses/dial") >= 2).then_some(()));
    let of_b = [peer(&key, "a", None, ""), trunk(&listen, &["a"], &[&to], "")];
    let b = gateways::start(&gateways::file(&scratch, "b", "cores = 1", &of_b));
    a.reaches("/peers/0/ready", READY);
    exchange(&mut connect(a.addr()).0, "served");
    a.finished();
    b.finished();
    assert_eq!(a.count("/peers/0/missed"), 0);
}

/// Trunk connections and pairs that b holds at once in the test below.
const PAIRS_MAX: u64 = 12;

#[test]
fn a_peer_that_takes_all_there_is_and_uses_nothing_is_bounded_and_the_others_use_what_they_have() {
    let scratch = Scratch::new("trunk-greedy");
    let [key, of_greedy] = [("ab.key", KEYS[0]), ("cb.key", KEYS[1])].map(|(name, key)| key_file(&scratch, name, key));
    let to = echo(b'e').to_string();
    let pairs_max = format!("pairs_max = {PAIRS_MAX}");
    let of_b = [
        peer(&key, "a", None, ""),
        peer(&of_greedy, "greedy", None, ""),
        trunk("127.0.0.1:0", &["a", "greedy"], &[&to], &pairs_max),
    ];
    let b = gateways::start(&gateways::file(&scratch, "b", "cores = 1", &of_b));
    let of_a = [listener(&to, &["b"], ""), peer(&key, "b", Some(&b.listen[0]), &format!("pool_min = {READY}"))];
    let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &of_a));
    a.reaches("/peers/0/ready", READY);

    let of_greedy = [listener(&to, &["b"], ""), peer(&of_greedy, "b", Some(&b.listen[0]), "pool_min = 64")];
    let greedy = gateways::start(&gateways::file(&scratch, "greedy", "cores = 1", &of_greedy));
    greedy.counts("/peers/0/ready", PAIRS_MAX - READY);
    until("more to be refused", || (b.count("/totals/refusals/pairs-max") >= 3).then_some(()));
    assert_eq!(greedy.count("/peers/0/ready"), PAIRS_MAX - READY);

    // What a has it can use, all at once.
    let mut clients: Vec<_> = (0..READY).map(|_| connect(a.addr()).0).collect();
    for client in &mut clients {
        exchange(client, "unharmed");
    }
    // Then there is no more, and clients are told so.
    reset_at_once(a.addr());
    for client in &mut clients {
        exchange(client, "unharmed");
    }
    // When the greedy one has gone there's room again.
    drop(greedy);
    until("a client that is served", || is_served(a.addr()));
    drop(clients);
    a.settled();
    b.finished();
}

#[test]
fn a_drain_does_not_wait_for_trunk_connections_that_nobody_uses() {
    let mut way = Way::to("trunk-drain", echo(b'e'), More { peer: "pool_min = 4", ..ONE_CORE });
    way.ready(READY);
    exchange(&mut connect(way.a.addr()).0, "served");
    way.finished();
    // b's drain timeout is as long as the patience of these tests.
    way.b.running.signal(Signal::TERM);
    assert_eq!(way.b.running.code(), Some(0), "{}", way.b.running.log());
    way.ready(0);
    assert!(way.pool("losses/died") >= READY, "{:#}", way.a.status());
    reset_at_once(way.a.addr());
    way.a.running.signal(Signal::TERM);
    assert_eq!(way.a.running.code(), Some(0), "{}", way.a.running.log());
}

/// Nothing is left of it at the far gateway, also if its peer says hello just now.
#[test]
fn a_trunk_connection_that_waits_is_reset_by_a_drain_and_not_ended() {
    let mut way = Way::to("trunk-drain-reset", echo(b'e'), ONE_CORE);
    let mut waits = proved(way.b.addr(), Offer::default()).0;
    way.b.running.signal(Signal::TERM);
    assert_eq!(until_reset(&mut waits), b"");
    assert_eq!(way.b.running.code(), Some(0), "{}", way.b.running.log());
}

#[test]
fn a_drain_of_the_far_gateway_lets_open_pairs_finish() {
    let mut way = Way::to("trunk-drain-open", echo(b'e'), More { peer: "pool_min = 4", ..ONE_CORE });
    way.ready(READY);
    let (mut open, _) = connect(way.a.addr());
    way.b.running.signal(Signal::TERM);
    way.b.running.logged("draining");
    way.ready(0);
    exchange(&mut open, "still open");
    reset_at_once(way.a.addr());
    exchange(&mut open, "still open");
    drop(open);
    assert_eq!(way.b.running.code(), Some(0), "{}", way.b.running.log());
}

#[test]
fn a_drain_of_the_near_gateway_lets_open_pairs_finish() {
    let mut way = Way::to("trunk-drain-near", echo(b'e'), More { peer: "pool_min = 4", ..ONE_CORE });
    way.ready(READY);
    let (mut open, _) = connect(way.a.addr());
    way.a.running.signal(Signal::TERM);
    way.a.running.logged("draining");
    exchange(&mut open, "still open");
    drop(open);
    assert_eq!(way.a.running.code(), Some(0), "{}", way.a.running.log());
    way.b.finished();
    assert_eq!(way.b.count("/totals/pairs_opened"), 1);
}

/// Has a gateway take its file over.
fn reload(gateway: &Relay, times: usize) {
    gateway.running.signal(Signal::HUP);
    until("the reload", || (gateway.running.log().matches("\"reloaded\"").count() == times).then_some(()));
}

#[test]
fn a_reload_with_another_key_and_pool_leaves_open_pairs_alone() {
    let way = Way::to("trunk-reload", echo(b'e'), More { peer: "pool_min = 4", ..ONE_CORE });
    way.ready(READY);
    let (mut open, _) = connect(way.a.addr());
    exchange(&mut open, "before");

    // Another pool alone: what waits ready stays.
    let file = way.scratch.path("a.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    way.scratch.write("a.toml", &text.replace("pool_min = 4", "pool_min = 6"));
    way.ready(READY);
    let dials = way.pool("dials");
    reload(&way.a, 1);
    way.ready(6);
    assert_eq!(way.pool("dials"), dials + 2);
    exchange(&mut open, "another pool");

    // a has another key, and b doesn't yet.
    key_file(&way.scratch, "ab.key", KEYS[1]);
    reload(&way.a, 2);
    way.ready(0);
    exchange(&mut open, "another key");
    reset_client(way.a.addr());
    reload(&way.b, 1);
    until("a client that is served", || is_served(way.a.addr()));
    way.ready(6);
    exchange(&mut open, "both have it");
    drop(open);
    way.settled();
}

#[test]
fn a_peer_that_a_reload_turns_out_opens_no_more_pairs() {
    let way = Way::to("trunk-turned-out", echo(b'e'), More { peer: "pool_min = 4", ..ONE_CORE });
    way.ready(READY);
    let (mut open, _) = connect(way.a.addr());
    let text = std::fs::read_to_string(way.scratch.path("b.toml")).unwrap();
    let other = text.replace("name = \"a\"", "name = \"other\"").replace("[\"a\"]", "[\"other\"]");
    way.scratch.write("b.toml", &other);
    reload(&way.b, 1);
    // What waited ready is of no use any more.
    way.ready(0);
    reset_at_once(way.a.addr());
    assert_eq!(way.b.count("/totals/pairs_opened"), 1, "{:#}", way.b.status());
    exchange(&mut open, "what was open goes on");
    drop(open);
    way.settled();
}

#[test]
fn a_list_that_a_reload_changes_holds_for_connections_that_waited() {
    let to = echo(b'e').to_string();
    let way = Way::to("trunk-list", &to, More { peer: "pool_min = 4", ..ONE_CORE });
    way.ready(READY);
    let (mut open, _) = connect(way.a.addr());
    way.ready(READY);
    let text = std::fs::read_to_string(way.scratch.path("b.toml")).unwrap();
    let other = text.replace(&format!("allow = [{to:?}]"), "allow = []");
    way.scratch.write("b.toml", &(other + &listener(&to, &[], "")));
    reload(&way.b, 1);
    // The core opens the new listener after it has taken the new list: who is served there comes later than both.
    exchange(&mut connect(way.b.running.ready()).0, "the new listener");
    let dials = way.pool("dials");
    assert_eq!(way.pool("ready"), READY, "they wait on");
    reset_at_once(way.a.addr());
    way.a.counts("/totals/ends/far-not-permitted", 1);
    assert_eq!(way.b.ends("not-permitted"), 1, "{:#}", way.b.status());
    assert!(way.pool("dials") <= dials + 1, "the pool stays as it is, but for what was used");
    exchange(&mut open, "what was open goes on");
    drop(open);
    way.settled();
}

#[test]
fn a_trunk_that_a_reload_takes_away_takes_nobody_any_more() {
    let way = Way::to("trunk-gone-way", echo(b'e'), More { peer: "pool_min = 4", ..ONE_CORE });
    way.ready(READY);
    let (mut open, _) = connect(way.a.addr());
    let text = std::fs::read_to_string(way.scratch.path("b.toml")).unwrap();
    way.scratch.write("b.toml", &text.replace("listen = \"127.0.0.1:0\"\npeers", "listen = \"127.0.0.2:0\"\npeers"));
    reload(&way.b, 1);
    way.ready(0);
    reset_at_once(way.a.addr());
    exchange(&mut open, "what was open goes on");
    drop(open);
    way.settled();
}

#[test]
fn a_connection_that_dies_at_its_first_use_is_replaced_without_the_clients_notice() {
    let scratch = Scratch::new("trunk-dying");
    let (key, to) = (key_file(&scratch, "ab.key", KEYS[0]), echo(b'e').to_string());
    let of_b = [peer(&key, "a", None, ""), trunk("127.0.0.1:0", &["a"], &[&to], "")];
    let b = gateways::start(&gateways::file(&scratch, "b", "cores = 1", &of_b));
    let armed = Arc::<AtomicBool>::default();
    let arms = armed.clone();
    let between = between(b.addr(), move |_| !arms.load(Relaxed)).to_string();
    let of_a = [listener(&to, &["b"], ""), peer(&key, "b", Some(&between), "pool_min = 1\npool_max = 1")];
    let a = gateways::start(&gateways::file(&scratch, "a", "cores = 1", &of_a));
    a.counts("/peers/0/ready", 1);
    armed.store(true, Relaxed);
    let (mut client, letter) = connect(a.addr());
    assert_eq!(letter, b'e');
    exchange(&mut client, "nothing was noticed");
    assert_eq!(["taken", "retries"].map(|figure| a.count(&format!("/peers/0/{figure}"))), [2, 1]);
    drop(client);
    a.finished();
    assert_eq!(b.finished()["totals"]["pairs_opened"], 1);
}
