//! Early dial in a WAN of the lab's: what it gains where servers speak first, and what SYNs without a client cost.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../crates/kernel/tests/packet/mod.rs"]
mod syns;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use midmile_lab::server::Server;
use midmile_lab::visit;
use process::{PATIENCE, until};
use programs::lacks;
use programs::wan::{Gateway, Lines, Wan, near_addr};
use syns::{Packet, RawSender};

const EARLY: Lines<'_> =
    Lines { listener: "early_dial = true\n[listener.timeouts]\ndial = \"2s\"", peer: "", trunk: "", wrong_key: false };
/// Pairs without a client at once: a quarter of the `pairs_max` of these tests' gateways.
const UNCLAIMED_MAX: u64 = 250;
/// How long such a pair waits for its client; then another may take its place.
const CLAIM_WAIT: Duration = Duration::from_secs(4);
/// How long SYNs are sent, at the least.
const FLOOD: Duration = Duration::from_secs(2);
/// SYNs sent in a row, and the pause after them: some 15,000 a second, which leave the links' own thread time for others. The
/// bounds are reached after the first fifth of a second.
const BURST: u64 = 32;
const PAUSE: Duration = Duration::from_millis(1);
/// Visits whose times are compared, at the least.
const VISITS: usize = 9;

/// An address that is no host's, in a network that leads back to the client's host.
fn forged(number: u64) -> SocketAddr {
    let [.., high, mid, low] = number.to_be_bytes();
    (Ipv4Addr::new(10, 200 + high % 4, mid, low), 1024).into()
}

/// Whether the near gateway hears of SYNs; says so if this kernel or its privileges don't allow it.
fn hears(near: &Gateway<'_>) -> bool {
    let line = until("word of SYNs", || {
        let log = near.running.log();
        log.lines()
            .find(|line| line.contains("hears of clients' SYNs") || line.contains("no early dial"))
            .map(String::from)
    });
    let hears = line.contains("hears of");
    if !hears {
        println!("SKIP: early dial isn't tried: {line}");
    }
    hears
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
    if !hears(&near) {
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
    if !hears(&near) {
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

/// Leads the forged sources back to the client's host, which takes nothing for them: the gateway's SYN-ACKs vanish there. Its
/// listener's queue is short, so that it is soon full.
fn sink(wan: &Wan) {
    wan.topology.gateways()[0].set_sysctl("net/core/somaxconn", "512").unwrap();
    wan.topology.client().set_sysctl("net/ipv4/ip_forward", "0").unwrap();
    let mut command = Command::new("ip");
    command.args(["route", "add", "10.200.0.0/14", "dev", "link0"]);
    assert!(wan.topology.gateways()[0].spawn(command).unwrap().wait().unwrap().success());
}

/// Sends SYNs from new sources until it is stopped; answers how many.
fn flood(wan: &Wan, stop: &AtomicBool) -> u64 {
    let (sender, mut sent) = (sender(wan), 0);
    // A visit that fails stops nothing.
    let end = Instant::now() + PATIENCE;
    while !stop.load(Relaxed) && Instant::now() < end {
        (sent..sent + BURST).for_each(|number| sender.send(&syn(number)));
        sent += BURST;
        thread::sleep(PAUSE);
    }
    sent
}

/// Times to the first byte of visits one after another until there are `enough`, from the fastest to the slowest.
fn visits(wan: &Wan, mut enough: impl FnMut(usize) -> bool) -> Vec<Duration> {
    let mut all = Vec::new();
    while !enough(all.len()) {
        all.push(visit::from(wan.topology.client(), near_addr(), 10_000, "reno", false).unwrap().ttfb);
    }
    all.sort();
    all
}

#[test]
fn a_flood_of_syns_costs_no_dial_beyond_the_bound_and_no_client_its_time() {
    if lacks(&["ip"]) {
        return;
    }
    let Some(wan) = Wan::new("lab-flood", [10, 10, 1], "") else { return };
    sink(&wan);
    let _server = Server::start(wan.topology.server(), "reno").unwrap();
    let (near, far) = wan.gateways(EARLY);
    if !hears(&near) {
        return;
    }
    let calm = visits(&wan, |count| count == VISITS);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let (sent, among) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&wan, &stop));
        let among = visits(&wan, |count| count >= VISITS && began.elapsed() > FLOOD);
        stop.store(true, Relaxed);
        (flood.join().unwrap(), among)
    });
    let early = near.count("/totals/early_dials") - near.count("/totals/early_used");
    let generations = 1 + began.elapsed().as_secs() / CLAIM_WAIT.as_secs();
    assert!(sent > 10 * UNCLAIMED_MAX, "{sent}");
    assert!((1..=UNCLAIMED_MAX * generations).contains(&early), "{early} dials for {sent} SYNs");
    let [calm_median, median] = [&calm, &among].map(|all| all[all.len() / 2]);
    assert!(median < calm_median * 3, "{calm_median:?}, {median:?}");
    near.running.logged("early dial rests: SYN cookies are sent");

    near.settled();
    far.settled();
    let unclaimed = near.count("/totals/early_dials") - near.count("/totals/early_used");
    assert_eq!(near.ends("unclaimed"), unclaimed, "{:#}", near.status());
    assert_eq!(near.ends("finished"), (calm.len() + among.len()) as u64, "{:#}", near.status());
}
