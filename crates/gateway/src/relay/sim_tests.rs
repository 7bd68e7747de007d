//! The relay in the simulated world: thousands of seeds, each a small crowd of clients and servers that misbehave in every way
//! the world knows. Invariants are checked after each turn, promises at the end.
//!
//! `MIDMILE_SIM_SEEDS=N` runs N seeds in place of the usual number; `MIDMILE_SIM_SEED=S` runs one. A failure names its seed.
#![expect(clippy::unwrap_used, reason = "a test ends where its own arithmetic fails")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::Duration;

use midmile_engine::sim::{DialOutcome, Remote, RemoteId, Rng, Script, Sim, SimListener};
use midmile_engine::{Addr, Allowance, Config, ConnError, Core, Time};
use midmile_wire::proxy::{self, Accept, Header, Version};

use super::{Order, Parts, Relay};
use crate::backend::{Backend, BackendSet, Balance};
use crate::counters::{CoreCounters, RouteCounters};
use crate::plan::{Route, Timeouts};
use crate::reason::{End, Refusal};
use crate::report::PairReport;
use crate::serving::DoorId;

pub(super) const TIMEOUTS: Timeouts = Timeouts {
    dial: Duration::from_millis(200),
    idle: Duration::from_secs(2),
    half_closed: Duration::from_secs(1),
    header: Duration::from_millis(300),
};
/// Long enough for every timeout to have passed, one after another.
const LONGEST: Time = Time::from_nanos(120_000_000_000);

pub(super) fn port(number: usize) -> Addr {
    Addr::Inet(([10, 0, 0, 2], u16::try_from(number).unwrap()).into())
}

/// More turns than any world needs.
const TURNS_MAX: u64 = 400_000;

/// One client, its route, and where that may lead.
struct Visit {
    client: RemoteId,
    backends: Vec<Addr>,
    route: Arc<Route>,
    counters: Arc<RouteCounters>,
}

struct World {
    core: Core<Sim, Relay<SimListener>>,
    visits: Vec<Visit>,
    reports: Receiver<PairReport>,
    turns: u64,
}

/// How unkind a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nobody resets, refuses, dawdles or falls silent, and no system call fails: every pair has to finish.
    Kind,
    Any,
}

pub(super) fn script(rng: &mut Rng, mood: Mood) -> Script {
    let sends = [0, 1, 50, 400, 3000][rng.up_to(4)];
    let unkind = mood == Mood::Any;
    Script {
        preamble: Vec::new(),
        sends,
        send_step: if unkind { 1 } else { 10 } + rng.up_to(300),
        read_step: if unkind && rng.one_in(12) { 0 } else { 1 + rng.up_to(300) },
        pace: Duration::from_micros(50 + rng.up_to(3000) as u64),
        finishes: !(unkind && rng.one_in(8)),
        finishes_last: rng.one_in(3),
        resets_at: (unkind && rng.one_in(5)).then(|| rng.up_to(sends)),
        // A kind remote has room for a PROXY header.
        window: if unkind { 1 } else { 100 } + rng.up_to(600),
    }
}

pub(super) fn outcome(rng: &mut Rng, mood: Mood) -> DialOutcome {
    let script = script(rng, mood);
    let wait = Duration::from_micros(rng.up_to(60_000) as u64);
    let error = [ConnError::Refused, ConnError::Unreachable, ConnError::Exhausted, ConnError::Busy][rng.up_to(3)];
    match if mood == Mood::Kind { rng.up_to(3) } else { rng.up_to(9) } {
        0 => DialOutcome::AtOnce(script),
        1..=5 => DialOutcome::After(wait, script),
        6 => DialOutcome::FailsAtOnce(error),
        7 => DialOutcome::FailsAfter(wait, error),
        8 => DialOutcome::Silent,
        _ => DialOutcome::After(wait * 10, script),
    }
}

fn preamble(rng: &mut Rng, mood: Mood) -> Vec<u8> {
    let from = ([192, 0, 2, 7], 777).into();
    let to = ([192, 0, 2, 1], 80).into();
    let version = if rng.one_in(2) { Version::V1 } else { Version::V2 };
    let mut bytes = proxy::encode(version, &Header::inet(from, to)).as_bytes().to_vec();
    if mood == Mood::Any && rng.one_in(6) {
        let at = rng.up_to(bytes.len() - 1);
        bytes[at] ^= 1 << rng.up_to(7);
    }
    if mood == Mood::Any && rng.one_in(6) {
        bytes.truncate(rng.up_to(bytes.len()));
    }
    bytes
}

fn config(rng: &mut Rng, visits: usize, mood: Mood) -> Config {
    let room = if mood == Mood::Kind { visits } else { 1 + rng.up_to(visits) };
    Config {
        conns_max: u32::try_from(2 * room).unwrap(),
        read_bytes: 120 + rng.up_to(200),
        blocks: rng.up_to(3),
        ..small(rng)
    }
}

/// Pipes that are few and short, and turns that end early: whatever can run out does.
pub(super) fn small(rng: &mut Rng) -> Config {
    Config {
        pipes_max: u32::try_from(rng.up_to(3)).unwrap(),
        pipe_bytes: u32::try_from(16 + rng.up_to(400)).unwrap(),
        turn_bytes: 50 + rng.up_to(500),
        loop_bytes: 50 + rng.up_to(800),
        accept_batch: u32::try_from(1 + rng.up_to(3)).unwrap(),
        accept_rest_ms: 5,
        catch_panics: false,
        ..Config::default()
    }
}

fn world(mut rng: Rng, mood: Mood) -> World {
    let count = 1 + rng.up_to(4);
    let (report_to, reports) = sync_channel(100);
    let ((_, orders), (_, syns)) = (channel(), sync_channel(1));
    let parts = Parts {
        core: 0,
        pairs: Arc::new(Allowance::new(10, 1)),
        pooled_max: 0,
        counters: Arc::new(CoreCounters::default()),
        orders,
        syns,
        reports: report_to,
    };
    let sim = Sim::new(rng.number(), mood == Mood::Any && rng.one_in(2));
    let mut core = Core::new(sim, config(&mut rng, count, mood), Relay::new(parts));
    let visits = (0..count).map(|index| visit(&mut core, &mut rng, index, mood)).collect();
    World { core, visits, reports, turns: 0 }
}

fn visit(core: &mut Core<Sim, Relay<SimListener>>, rng: &mut Rng, index: usize, mood: Mood) -> Visit {
    let (relay, cx) = core.parts();
    let backends: Vec<Addr> = (0..=rng.up_to(2)).map(|backend| port(2000 + index * 10 + backend)).collect();
    for addr in &backends {
        let outcomes = (0..=rng.up_to(1)).map(|_| outcome(rng, mood)).collect();
        cx.backend().server(addr, outcomes);
    }
    let accept_proxy = rng.one_in(3).then_some(Accept::ANY);
    let set = backends.chunks(2).map(|addrs| Arc::new(Backend::new("b", addrs.to_vec(), 1))).collect();
    let balance = if rng.one_in(2) { Balance::RoundRobin } else { Balance::LeastConnections };
    let route = Arc::new(Route {
        spoof_client: index % 2 == 1,
        timeouts: TIMEOUTS,
        accept_proxy,
        send_proxy: [None, Some(Version::V1), Some(Version::V2)][rng.up_to(2)],
        log_pairs: true,
        ..Route::plain(&index.to_string(), port(1000 + index), BackendSet::new(set, balance, None))
    });
    let mut script = script(rng, mood);
    if accept_proxy.is_some() {
        script.preamble = preamble(rng, mood);
        // The kernel's windows hold a header; without a block to keep it in, ours have to as well.
        script.window = script.window.max(200);
    }
    // Two that wait for each other's end never finish.
    script.finishes_last &= mood == Mood::Any;
    let listener = cx.backend().listener(route.listen.clone());
    let client = cx.backend().client(&listener, Duration::from_micros(rng.up_to(100_000) as u64), script);
    let counters = Arc::new(RouteCounters::default());
    let door = DoorId(u32::try_from(index).unwrap());
    relay.obey(
        cx,
        Order::Open {
            door,
            listener,
            route: route.clone(),
            counters: counters.clone(),
            census: Arc::default(),
            pairs: Arc::new(Allowance::new(10, 1)),
        },
    );
    Visit { client, backends, route, counters }
}

impl World {
    fn run(&mut self) {
        loop {
            self.core.turn().unwrap();
            self.turns += 1;
            assert!(self.turns < TURNS_MAX, "the relay turns in circles");
            let (relay, cx) = self.core.parts();
            cx.check();
            let open = relay.pairs_open();
            let sim_now = cx.now();
            let sim = &*cx.backend();
            let came = |visit: &Visit| handled(&visit.counters) > 0 || sim.remote(visit.client).is_over();
            if (open == 0 && self.visits.iter().all(came)) || sim_now > LONGEST {
                break;
            }
        }
        // Those at the far ends still read what is under way.
        let until = self.core.parts().1.now().after(Duration::from_secs(20));
        loop {
            let (relay, cx) = self.core.parts();
            if relay.pairs_open() == 0 && (cx.now() > until || cx.backend().is_quiet()) {
                break;
            }
            self.core.turn().unwrap();
        }
    }

    fn judge(&mut self) {
        let mut reports: HashMap<String, PairReport> = HashMap::new();
        while let Ok(report) = self.reports.try_recv() {
            reports.insert(report.route.to_string(), report);
        }
        let (relay, cx) = self.core.parts();
        assert_eq!(relay.pairs_open(), 0, "pairs are left");
        assert_eq!(cx.conns_open(), 0, "connections are left");
        let gauges = cx.gauges();
        assert_eq!((gauges.pipes_leased, gauges.blocks_leased), (0, 0), "pipes or blocks are left");
        for visit in &self.visits {
            visit.judge(cx.backend(), reports.get(&*visit.route.name));
        }
    }
}

/// Whether the remote takes what it's sent.
fn reads(remote: &Remote) -> bool {
    remote.script().read_step > 0 && !remote.has_reset()
}

/// Clients that were admitted or refused.
fn handled(counters: &RouteCounters) -> u64 {
    let refusals: u64 = counters
        .refusals
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != Refusal::Descriptors.index())
        .map(|(_, counter)| counter.value())
        .sum();
    counters.pairs_opened.value() + refusals
}

/// Whether both have seen what the reason says; `unheard` are the client's bytes that the server hasn't got.
fn judge_end(report: &PairReport, client: &Remote, server: &Remote, unheard: usize) {
    match report.end {
        End::Finished => {
            assert!(server.saw_end() || !reads(server), "finished, and the server saw no end: {report:?} {server:?}");
            assert!(client.saw_end() || !reads(client), "finished, and the client saw no end: {report:?} {client:?}");
        }
        End::ClientReset if reads(server) => {
            assert_eq!(unheard, 0, "bytes before a reset were lost: {report:?} {server:?}");
        }
        End::ServerReset if reads(client) => {
            assert_eq!(
                client.received().len(),
                server.sent().len(),
                "bytes before a reset were lost: {report:?} {client:?}"
            );
        }
        _ => {}
    }
}

impl Visit {
    fn judge(&self, sim: &Sim, report: Option<&PairReport>) {
        let heard = report.is_some_and(|report| report.downstream_bytes > Some(0));
        let first_byte = report.and_then(|report| report.first_byte_after);
        assert_eq!(first_byte.is_some(), heard, "a first byte is there with the bytes: {report:?}");
        let counters = &self.counters;
        assert_eq!(counters.pairs_open.value(), 0);
        let ends: u64 = counters.ends.iter().map(midmile_engine::Counter::value).sum();
        assert_eq!(ends, counters.pairs_opened.value(), "each pair ends once");
        let open: u32 = self.route.backends.backends().iter().map(|backend| backend.open()).sum();
        assert_eq!(open, 0, "a backend's count of pairs has leaked");
        let dialled = self.backends.iter().flat_map(|addr| sim.dialled(addr)).map(|id| sim.remote(id).source());
        let spoofed = self.route.spoof_client;
        assert!({ dialled }.all(|source| source.is_some() == spoofed), "a leg came from another's address");
        let client = sim.remote(self.client);
        let Some(report) = report else {
            assert!(client.received().is_empty() && !client.saw_end(), "a refused client saw something");
            return;
        };
        assert_eq!(counters.ends[report.end.index()].value(), 1);
        // The leg that carried bytes is the one dialled last, if it came to stand.
        let served = report.connected_after.and_then(|_| {
            self.backends.iter().flat_map(|addr| sim.dialled(addr)).filter(|id| sim.remote(*id).was_connected()).last()
        });
        let Some(server) = served.map(|id| sim.remote(id)) else {
            assert!(client.received().is_empty() && !client.saw_end(), "bytes from nowhere: {report:?}");
            return;
        };
        let said = self.behind_header(client.sent());
        let heard = self.without_header(server.received(), &report.client);
        assert!(said.starts_with(heard), "the server heard what the client didn't say");
        assert!(server.sent().starts_with(client.received()), "the client heard what the server didn't say");
        if server.saw_end() {
            assert!(client.has_finished() && heard == said, "the server saw an end before the client's end");
        }
        if client.saw_end() {
            assert!(
                server.has_finished() && client.received() == server.sent(),
                "the client saw an end before the server's"
            );
        }
        if client.has_reset() {
            assert!(server.is_over(), "a client's reset didn't cross");
            assert!(!server.saw_end() || client.has_finished(), "a reset crossed as an end");
        }
        if server.has_reset() {
            assert!(client.is_over(), "a server's reset didn't cross");
        }
        judge_end(report, client, server, said.len() - heard.len());
        assert!((heard.len() as u64..=said.len() as u64).contains(&report.upstream_bytes.unwrap()));
        assert!(report.downstream_bytes.unwrap() >= client.received().len() as u64);
    }

    /// The client, and the servers that were dialled for it.
    #[cfg(test)]
    fn remotes<'a>(&self, sim: &'a Sim) -> Vec<&'a Remote> {
        let dialled = self.backends.iter().flat_map(|addr| sim.dialled(addr));
        std::iter::once(self.client).chain(dialled).map(|id| sim.remote(id)).collect()
    }

    /// What the client sent behind its PROXY header, as the relay has to read it: a damaged one may still be one.
    fn behind_header<'a>(&self, sent: &'a [u8]) -> &'a [u8] {
        let Some(accept) = self.route.accept_proxy else { return sent };
        let header = proxy::decode(sent, accept).expect("a pair whose header was refused never connects");
        &sent[header.expect("nor does one whose header isn't whole").len..]
    }

    /// What the server received behind our PROXY header, which has to be right.
    fn without_header<'a>(&self, received: &'a [u8], client: &Addr) -> &'a [u8] {
        if self.route.send_proxy.is_none() {
            return received;
        }
        match proxy::decode(received, Accept::ANY).expect("our header is one") {
            None => &[],
            Some(decoded) => {
                let Header::Inet { source, .. } = decoded.header else { panic!("our header names the client") };
                assert_eq!(Some(source), client.inet());
                &received[decoded.len..]
            }
        }
    }
}

#[cfg(test)]
fn run(seed: u64, mood: Mood) -> u64 {
    let result = std::panic::catch_unwind(|| {
        let mut world = world(Rng::new(seed), mood);
        world.run();
        world.judge();
        if mood == Mood::Kind {
            let (_, cx) = world.core.parts();
            for visit in &world.visits {
                let finished = visit.counters.ends[End::Finished.index()].value();
                let remotes = visit.remotes(cx.backend());
                assert_eq!(finished, 1, "a kind world's pair didn't finish: {:?} {remotes:?}", visit.counters.ends);
            }
        }
        world.turns
    });
    result.unwrap_or_else(|panic| {
        eprintln!("failing seed: MIDMILE_SIM_SEED={seed}");
        std::panic::resume_unwind(panic)
    })
}

/// A world whose decisions a fuzzer makes: two bytes each.
#[cfg(fuzzing)]
pub fn fuzz(tape: &[u8]) {
    let mut world = world(Rng::from_tape(tape), Mood::Any);
    world.run();
    world.judge();
}

#[cfg(test)]
pub(super) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    match (number("MIDMILE_SIM_SEED"), number("MIDMILE_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(usual),
    }
}

#[test]
fn every_promise_holds_in_any_world() {
    let turns: u64 = seeds(3000).map(|seed| run(seed, Mood::Any)).sum();
    eprintln!("{turns} turns");
}

#[test]
fn in_a_kind_world_every_pair_finishes_whole() {
    let turns: u64 = seeds(1000).map(|seed| run(seed, Mood::Kind)).sum();
    eprintln!("{turns} turns");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let sent = |seed| {
        let mut world = world(Rng::new(seed), Mood::Any);
        world.run();
        let (_, cx) = world.core.parts();
        let seen: Vec<Vec<u8>> =
            world.visits.iter().map(|visit| cx.backend().remote(visit.client).received().to_vec()).collect();
        (world.turns, seen)
    };
    for seed in 0..20 {
        assert_eq!(sent(seed), sent(seed));
    }
}
