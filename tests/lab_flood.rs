//! A flood of 100,000 SYNs a second at a gateway with early dial: what it sets off, and what it costs other clients.
//!
//! `cargo test --test lab_flood -- --nocapture` prints the figures; docs/experiments/syn-flood.md has them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod flood;
mod process;
mod programs;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../crates/kernel/tests/packet/mod.rs"]
mod syns;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use flood::{Flooder, Sent, cookies, per_second, received};
use midmile_lab::server::Server;
use midmile_lab::visit;
use programs::lacks;
use programs::wan::{Lines, Wan, near_addr};

/// SYNs a second that have to arrive.
const RATE: f64 = 100_000.0;
/// SYNs a second that are sent: some more, since a sender that lost its CPU for a moment catches up late. Another number may be
/// given in this variable, to see what the machine can take.
const SENT_RATE: f64 = 110_000.0;
const SENT_RATE_VARIABLE: &str = "MIDMILE_FLOOD_RATE";
/// Share of what is to be sent that arrives on a machine that isn't the limit.
const KEPT_UP: f64 = 0.99;
/// How long SYNs are sent, at the least.
const FLOOD: Duration = Duration::from_secs(5);
/// How often it is tried; the first round that is as it should be suffices.
const ROUNDS: usize = 3;
/// Visits whose times are compared, at the least.
const VISITS: usize = 21;
/// Pairs without a client at once: a quarter of the `pairs_max` of these tests' gateways.
const UNCLAIMED_MAX: u64 = 250;
/// How long such a pair waits for its client; then another may take its place.
const CLAIM_WAIT: Duration = Duration::from_secs(4);

const EARLY: Lines<'_> =
    Lines { listener: "early_dial = true\n[listener.timeouts]\ndial = \"2s\"", peer: "", trunk: "", wrong_key: false };
const LATE: Lines<'_> = Lines { listener: "[listener.timeouts]\ndial = \"2s\"", ..EARLY };

/// Times to the first byte of visits one after another, from the fastest to the slowest.
struct Visits(Vec<Duration>);

impl Visits {
    /// Visits until there are `enough`.
    fn make(wan: &Wan, mut enough: impl FnMut(usize) -> bool) -> Self {
        let mut all = Vec::new();
        while !enough(all.len()) {
            all.push(visit::from(wan.topology.client(), near_addr(), 10_000, "reno", false).unwrap().ttfb);
        }
        all.sort();
        Self(all)
    }

    fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap()
    }

    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }
}

impl fmt::Display for Visits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent: usize| self.0[(self.0.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
        let count = self.0.len();
        write!(f, "{count} visits, TTFB ms: median {:.1}, p90 {:.1}, slowest {:.1}", at(50), at(90), at(100))
    }
}

/// What one flood came to.
struct Flooded {
    sent: Sent,
    /// SYNs that the gateway's device has received.
    received: u64,
    cookies: u64,
    visits: Visits,
}

fn sent_rate() -> f64 {
    std::env::var(SENT_RATE_VARIABLE).map_or(SENT_RATE, |text| text.parse().unwrap())
}

/// Floods the near gateway while clients visit it by the emulated link.
fn flooded(wan: &Wan, flooder: &Flooder) -> Flooded {
    let victim = &wan.topology.gateways()[0];
    let (before, stop, began) = ((received(victim), cookies(victim)), AtomicBool::new(false), Instant::now());
    let (sent, visits) = thread::scope(|scope| {
        let flood = scope.spawn(|| flooder.flood(sent_rate(), &stop));
        let visits = Visits::make(wan, |count| count >= VISITS && began.elapsed() > FLOOD);
        stop.store(true, Relaxed);
        (flood.join().unwrap(), visits)
    });
    Flooded { sent, received: received(victim) - before.0, cookies: cookies(victim) - before.1, visits }
}

/// What a round came to, with early dial on or off.
struct Measured {
    /// SYNs a second that arrived.
    rate: f64,
    /// Medians of the visits before the flood, and in it.
    calm: Duration,
    flood: Duration,
}

/// Calm and flood with early dial on or off. Whatever the rate, no dial is beyond the bound and nothing is left.
fn measure(wan: &Wan, flooder: &Flooder, early: bool) -> Option<Measured> {
    let (near, far) = wan.gateways(if early { EARLY } else { LATE });
    if early && !near.hears_syns() {
        return None;
    }
    let calm = Visits::make(wan, |count| count == VISITS);
    let flooded = flooded(wan, flooder);
    let rate = per_second(flooded.received, flooded.sent.time);
    let dials = near.count("/totals/early_dials") - near.count("/totals/early_used");
    println!("early dial {}", if early { "on" } else { "off" });
    println!("  no flood: {calm}");
    println!("  flood:    {}", flooded.visits);
    println!(
        "  sent {:.0}/s, arrived {rate:.0}/s for {:.1} s ({} in all), {} cookies; {dials} early dials unused",
        flooded.sent.rate(),
        flooded.sent.time.as_secs_f64(),
        flooded.received,
        flooded.cookies,
    );
    assert!(flooded.cookies > flooded.received / 2, "the kernel answers a flood with cookies: {}", flooded.cookies);
    if early {
        let generations = 1 + flooded.sent.time.as_secs() / CLAIM_WAIT.as_secs();
        assert!((1..=UNCLAIMED_MAX * generations).contains(&dials), "{dials} dials");
        near.running.logged("early dial rests: SYN cookies are sent");
    }
    near.settled();
    far.settled();
    let dials = near.count("/totals/early_dials") - near.count("/totals/early_used");
    assert_eq!(near.ends("unclaimed"), dials, "{:#}", near.status());
    assert_eq!(near.ends("finished"), calm.count() + flooded.visits.count(), "{:#}", near.status());
    Some(Measured { rate, calm: calm.median(), flood: flooded.visits.median() })
}

/// Whether early dial has cost the flood no SYN, and the clients nothing beyond what the flood costs the kernel.
fn costs_nothing(late: &Measured, early: &Measured) -> bool {
    early.rate >= RATE && early.flood < late.flood * 3 / 2 && early.flood < early.calm * 3
}

#[test]
fn a_flood_of_syns_costs_no_dial_beyond_the_bound_and_no_client_its_time() {
    if lacks(&["ip"]) {
        return;
    }
    let Some(wan) = Wan::new("lab-flood", [10, 10, 1], "") else { return };
    let _server = Server::start(wan.topology.server(), "reno").unwrap();
    let flooder = Flooder::new(&wan.topology.gateways()[0], near_addr());
    // Only what is measured within one round can be compared: another program may take a CPU for some seconds.
    let mut machine_kept_up = true;
    for _ in 0..ROUNDS {
        let Some(late) = measure(&wan, &flooder, false) else { return };
        let Some(early) = measure(&wan, &flooder, true) else { return };
        if costs_nothing(&late, &early) {
            return;
        }
        machine_kept_up &= late.rate >= KEPT_UP * sent_rate();
    }
    assert!(!machine_kept_up, "with early dial alone the flood or the clients are slower");
    println!("SKIP: the flood isn't tried at its full rate: this machine doesn't keep up without early dial either");
}
