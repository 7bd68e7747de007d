//! Early dial in a WAN of the lab's: what it gains where servers speak first, and what SYNs without a client cost.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../crates/kernel/tests/packet/mod.rs"]
mod syns;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use midmile_lab::server::Server;
use midmile_lab::visit;
use process::until;
use programs::wan::{Lines, Wan, near_addr};
use syns::{Packet, RawSender};

const EARLY: Lines<'_> =
    Lines { listener: "early_dial = true\n[listener.timeouts]\ndial = \"2s\"", peer: "", trunk: "", wrong_key: false };
/// Visits whose times are compared, at the least.
const VISITS: usize = 9;

/// An address that is no host's, each in a network of its own.
fn forged(number: u64) -> SocketAddr {
    let [.., high, low] = number.to_be_bytes();
    (Ipv4Addr::new(10, 200 + high, low, 1), 1024).into()
}

/// The forged SYN of this number, which the near gateway's TCP takes for one.
fn syn(number: u64) -> Packet {
    Packet { checksum: true, ..Packet::syn(forged(number), near_addr().into(), 7) }
}

/// What sends packets from the client's host, whoever uses it.
fn sender(wan: &Wan) -> RawSender {
    wan.topology.client().run(RawSender::new).unwrap()
}

/// A server that greets at once and waits for its client's end.
fn greeter(listener: TcpListener) {
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || stream.write_all(b"220 ready\r\n").and_then(|()| stream.read(&mut [0])));
        }
    });
}

/// From the moment before the client's SYN to the greeting, the best of some.
fn greeted(wan: &Wan) -> Duration {
    let greet = || {
        wan.topology.client().run(|| {
            let began = Instant::now();
            let mut stream = TcpStream::connect(near_addr()).unwrap();
            stream.read_exact(&mut [0; 11]).unwrap();
            began.elapsed()
        })
    };
    (0..VISITS).map(|_| greet().unwrap()).min().unwrap()
}

#[test]
fn a_server_that_speaks_first_is_heard_a_round_trip_earlier() {
    // A round trip of the client's, and one of the trunk's with the server's, in which the client's handshake is hidden.
    let (client, onward) = (Duration::from_millis(40), Duration::from_millis(32));
    let Some(wan) = Wan::new("lab-greeting", [20, 15, 1], "") else { return };
    greeter(wan.listen());
    let (near, far) = wan.gateways(EARLY);
    if !near.hears_syns() {
        return;
    }
    let early = greeted(&wan);
    until("the clients' ends", || (near.count("/totals/early_used") == VISITS as u64).then_some(()));
    near.settled();
    drop((near, far));
    let (_near, _far) = wan.gateways(Lines::default());
    let late = greeted(&wan);
    // With it the greeting waits at the gateway when the handshake ends there, and leaves with the last step of it.
    assert!(early >= 2 * client && early < 2 * client + onward / 2, "{early:?}");
    assert!(late >= 2 * client + onward, "{late:?}");
    assert!(late - early > onward / 2, "{early:?}, {late:?}");
}

#[test]
fn a_client_that_sends_its_syn_and_vanishes_costs_one_dial_that_ends_unclaimed() {
    let Some(wan) = Wan::new("lab-vanished", [2, 2, 1], "") else { return };
    let server = wan.listen();
    let (near, far) = wan.gateways(EARLY);
    if !near.hears_syns() {
        return;
    }
    // Its kernel would send it again as well.
    let sender = sender(&wan);
    (0..3).for_each(|_| sender.send(&syn(1)));
    let mut dialled = Wan::accept(&server);
    near.counts("/totals/ends/unclaimed", 1);
    assert!(!matches!(dialled.read(&mut [0]), Ok(1..)), "nobody speaks on it");
    near.settled();
    far.settled();
    assert_eq!(near.count("/totals/early_dials"), 1, "{:#}", near.status());
    assert_eq!(near.count("/totals/early_used"), 0, "{:#}", near.status());
    assert_eq!(far.count("/totals/pairs_opened"), 1, "{:#}", far.status());
}

#[test]
fn forged_syns_leave_the_pool_to_clients_that_stand() {
    // More than the pool has, and too few for SYN cookies.
    const FORGED: u64 = 200;
    let Some(wan) = Wan::new("lab-forged", [10, 10, 1], "") else { return };
    let _server = Server::start(wan.topology.server(), "reno").unwrap();
    let (near, far) = wan.gateways(EARLY);
    if !near.hears_syns() {
        return;
    }
    let visit = || visit::from(wan.topology.client(), near_addr(), 10_000, "reno", false).unwrap().ttfb;
    let calm = (0..VISITS).map(|_| visit()).min().unwrap();
    let sender = sender(&wan);
    let among = (0..2).map(|round| {
        near.settled();
        near.ready();
        (0..FORGED).for_each(|number| sender.send(&syn(round * FORGED + number)));
        visit()
    });
    let among = among.min().unwrap();
    // One that queued up for the trunk behind all of them would take six times as long.
    assert!(among < calm * 3, "{among:?} among forged SYNs, {calm:?} without");
    assert!(near.count("/totals/early_dials") > FORGED, "{:#}", near.status());
    near.settled();
    far.settled();
}
