//! Trunks in the simulated world: one relay is both gateways, its trunk connections lead back to its own trunk listener, and
//! clients, servers, keys and permits misbehave as a seed says.
//!
//! `MIDMILE_SIM_SEEDS` and `MIDMILE_SIM_SEED` as in `sim_tests`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::Duration;

use midmile_engine::sim::{DialOutcome, RemoteId, Rng, Script, Sim, SimListener};
use midmile_engine::{Addr, Allowance, Config, Core, LegOptions, Time};
use midmile_wire::trunk::hello::Destination;
use midmile_wire::trunk::{Key as TrunkKey, Name};

use super::sim_tests::{Mood, TIMEOUTS, outcome, port, script, seeds, small};
use super::{Order, Parts, Relay, Syn};
use crate::backend::{Backend, BackendSet, Balance};
use crate::counters::{CoreCounters, PeerCounters, RouteCounters};
use crate::plan::{Route, Timeouts};
use crate::reason::End;
use crate::report::PairReport;
use crate::serving::DoorId;
use crate::trunk::{Gate, Peer, Permit, PoolLimits, Reach, Rule, Via, Warmth};

const CLIENT_DOOR: DoorId = DoorId(0);
const TRUNK_DOOR: DoorId = DoorId(1);
/// Longer than anybody waits for a client that never comes, and than the slowest server takes to read all before it finishes.
const QUIET: Duration = Duration::from_secs(25);
/// How long a peer may be silent.
const DEAD_AFTER: Duration = Duration::from_secs(4);
const TURNS_MAX: u64 = 400_000;
const LONGEST: Time = Time::from_nanos(60_000_000_000);

/// What is done right in a world.
struct Honest {
    /// Both ends have the same key.
    key: bool,
    /// The permit names the server.
    permit: bool,
    /// A gateway stands between both, which may pass on.
    between: Option<bool>,
}

struct World {
    core: Core<Sim, Relay<SimListener>>,
    clients: Vec<RemoteId>,
    server: Addr,
    ingress: Arc<RouteCounters>,
    egress: Arc<RouteCounters>,
    /// Of the way from ingress to egress, of the way back, and of the way onward.
    ways: [Arc<PeerCounters>; 3],
    reports: Receiver<PairReport>,
    honest: Honest,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn peer(own: &str, other: &str, addrs: Vec<Addr>, key: u8, pool: PoolLimits) -> Arc<Peer> {
    let key = TrunkKey::from_bytes([key; 32]);
    Arc::new(Peer {
        name: name(other),
        own: name(own),
        addrs,
        key,
        leg: LegOptions::default(),
        pool,
        dead_after: Some(DEAD_AFTER),
        warmth: Warmth::default(),
    })
}

fn route(
    label: &str,
    listen: Addr,
    backends: Vec<Arc<Backend>>,
    via: Option<Via>,
    gate: Option<Arc<Gate>>,
) -> Arc<Route> {
    Arc::new(Route {
        early_dial: via.is_some(),
        via,
        gate,
        // A handshake through the trunk takes three of its round trips; what is never claimed is cut after four seconds.
        timeouts: Timeouts { dial: Duration::from_secs(1), idle: QUIET, half_closed: QUIET, ..TIMEOUTS },
        pairs_max: 40,
        log_pairs: true,
        ..Route::plain(label, listen, BackendSet::new(backends, Balance::default(), None))
    })
}

/// A side pads, or doesn't: up to several times what is on its way at once.
fn warm_up(rng: &mut Rng, warmth: &Warmth) {
    if rng.one_in(2) {
        warmth.set(u32::try_from(rng.up_to(10_000)).unwrap());
    }
}

fn config(rng: &mut Rng) -> Config {
    // Room for the messages of the trunk, which come whole or are asked for again.
    Config { conns_max: 200, read_bytes: 1200 + rng.up_to(300), blocks: 200, ..small(rng) }
}

fn world(rng: Rng, mood: Mood) -> World {
    world_of(rng, mood, None)
}

/// For more than ever come.
fn room() -> Arc<Allowance> {
    Arc::new(Allowance::new(40, 1))
}

/// With `long`, clients and servers all follow that script.
fn world_of(mut rng: Rng, mood: Mood, long: Option<&Script>) -> World {
    let any = mood == Mood::Any;
    let honest = Honest { key: !any || !rng.one_in(8), permit: !any || !rng.one_in(8), between: None };
    let between = rng.one_in(3).then(|| !any || !rng.one_in(6));
    let honest = Honest { between, ..honest };
    let (report_to, reports) = sync_channel(100);
    let ((_, orders), (syn_to, syns)) = (channel(), sync_channel(16));
    let counters = Arc::new(CoreCounters::default());
    let parts = Parts { core: 0, pairs: room(), pooled_max: 40, counters, orders, syns, reports: report_to };
    let sim = Sim::new(rng.number(), any && rng.one_in(2));
    let mut core = Core::new(sim, config(&mut rng), Relay::new(parts));
    let (relay, cx) = core.parts();
    let (trunk_addr, client_addr, server) = (port(7000), port(1000), port(2000));
    let trunk = cx.backend().listener(trunk_addr.clone());
    let clients_listener = cx.backend().listener(client_addr.clone());
    cx.backend().server(&trunk_addr, loops(&mut rng, any, &trunk_addr));
    let answers =
        (0..3).map(|_| long.map_or_else(|| outcome(&mut rng, mood), |long| DialOutcome::AtOnce(long.clone())));
    let answers = answers.collect();
    cx.backend().server(&server, answers);

    let pool = PoolLimits { min: u32::try_from(rng.up_to(3)).unwrap(), max: 8 };
    let here = peer("a", "b", vec![trunk_addr.clone()], 7, pool);
    warm_up(&mut rng, &here.warmth);
    let there = peer("b", "a", Vec::new(), if honest.key { 7 } else { 8 }, pool);
    let inside = if honest.permit { 2000..=2000 } else { 2001..=2001 };
    let permit = Permit::new(vec![Rule { net: "10.0.0.0/24".parse().unwrap(), ports: inside }], Vec::new());
    // The one between is `b` as well; the last one is `c` then.
    let onward = peer("b", "c", vec![trunk_addr.clone()], 9, pool);
    let from_between = peer("c", "b", Vec::new(), 9, pool);
    let passes = if honest.between == Some(true) { vec![name("c")] } else { Vec::new() };
    let gate = Gate {
        peers: vec![there.clone(), from_between],
        permit,
        onward: passes,
        dead_after: Some(DEAD_AFTER),
        warmth: Warmth::default(),
    };
    warm_up(&mut rng, &gate.warmth);
    let destination = Destination::address(server.inet().unwrap()).unwrap();
    let backend = Arc::new(Backend::behind_trunk("s", destination, 1));
    let via = Via { first: name("b"), rest: honest.between.map(|_| name("c")).into_iter().collect() };
    let (ingress, egress) = (Arc::new(RouteCounters::default()), Arc::new(RouteCounters::default()));
    let bounds = (pool.min, pool.max);
    let ways: [Arc<PeerCounters>; 3] = Default::default();
    let reached = [here, there.clone(), onward].into_iter().zip(&ways).take(2 + usize::from(honest.between.is_some()));
    let reach = |(peer, counters): (Arc<Peer>, &Arc<PeerCounters>)| Reach { peer, counters: counters.clone(), bounds };
    relay.obey(cx, Order::Peers(reached.map(reach).collect()));
    let out = route("out", trunk_addr, Vec::new(), None, Some(Arc::new(gate)));
    let counters = egress.clone();
    relay.obey(
        cx,
        Order::Open { door: TRUNK_DOOR, listener: trunk, route: out, counters, census: Arc::default(), pairs: room() },
    );
    let clients = (0..=rng.up_to(4)).map(|_| {
        let mut script = script(&mut rng, mood);
        script.finishes_last &= any;
        let script = long.map_or(script, Script::clone);
        cx.backend().client(&clients_listener, Duration::from_micros(rng.up_to(300_000) as u64), script)
    });
    let clients = clients.collect();
    let route = route("in", client_addr.clone(), vec![backend], Some(via), None);
    let (listener, counters) = (clients_listener, ingress.clone());
    relay.obey(cx, Order::Open { door: CLIENT_DOOR, listener, route, counters, census: Arc::default(), pairs: room() });
    // SYNs of clients that never come, and of some that do: their addresses are the simulation's.
    for _ in 0..rng.up_to(4) {
        let client = ([10, 0, 0, 1], u16::try_from(rng.up_to(12)).unwrap()).into();
        syn_to.try_send(Syn { door: CLIENT_DOOR, client, listener: client_addr.inet().unwrap() }).unwrap();
    }
    relay.hear(cx);
    World { core, clients, server, ingress, egress, ways, reports, honest }
}

/// How dials of the trunk go: to its listener, or where `any` may happen, some nowhere.
fn loops(rng: &mut Rng, any: bool, trunk_addr: &Addr) -> Vec<DialOutcome> {
    let rtt = Duration::from_micros(100 + rng.up_to(50_000) as u64);
    let loops = (0..5).map(|_| match any && rng.one_in(10) {
        true => DialOutcome::FailsAfter(rtt, midmile_engine::ConnError::Refused),
        false => DialOutcome::Loops(rtt, trunk_addr.clone(), 2500),
    });
    loops.chain([DialOutcome::Loops(rtt, trunk_addr.clone(), 2500)]).collect()
}

impl World {
    fn run(&mut self) {
        let mut turns = 0;
        let mut draining = false;
        loop {
            self.core.turn().unwrap();
            turns += 1;
            assert!(turns < TURNS_MAX, "the relay turns in circles at {:?}", self.core.parts().1.now());
            let (relay, cx) = self.core.parts();
            cx.check();
            let now = cx.now();
            let sim = &*cx.backend();
            let all_came = self.clients.iter().all(|id| sim.remote(*id).is_over());
            if !draining && ((relay.pairs_open() == 0 && all_came) || now > LONGEST) {
                draining = true;
                relay.obey(cx, Order::CloseAll);
            }
            if draining && relay.pairs_open() == 0 && cx.conns_open() == 0 && now > LONGEST {
                return;
            }
            assert!(
                now < LONGEST.after(Duration::from_secs(200)),
                "connections stay: {} pairs, {} connections",
                relay.pairs_open(),
                cx.conns_open()
            );
        }
    }

    fn judge(&mut self) {
        self.judge_figures();
        let (_, cx) = self.core.parts();
        let gauges = cx.gauges();
        assert_eq!((gauges.pipes_leased, gauges.blocks_leased), (0, 0), "pipes or blocks are left");
        let sim = &*cx.backend();
        for counters in [&self.ingress, &self.egress] {
            assert_eq!(counters.pairs_open.value(), 0);
            let ends: u64 = counters.ends.iter().map(midmile_engine::Counter::value).sum();
            assert_eq!(ends, counters.pairs_opened.value(), "each pair ends once");
        }
        let servers: Vec<_> = sim.dialled(&self.server).map(|id| sim.remote(id)).collect();
        if !self.honest.key || !self.honest.permit || self.honest.between == Some(false) {
            assert!(servers.is_empty(), "a server was dialled for somebody who may not");
        }
        for client in self.clients.iter().map(|id| sim.remote(*id)) {
            // Each client's bytes are its own, so whoever heard some of them heard this client.
            let server = servers
                .iter()
                .find(|server| !server.received().is_empty() && client.sent().starts_with(server.received()));
            if let Some(server) = server {
                assert!(
                    !server.saw_end() || (client.has_finished() && server.received() == client.sent()),
                    "an end before its bytes"
                );
            }
            if client.received().is_empty() {
                continue;
            }
            let server = servers.iter().find(|server| server.sent().starts_with(client.received()));
            let server = server.expect("the client heard what no server said");
            assert!(
                !client.saw_end() || (server.has_finished() && client.received() == server.sent()),
                "an end before its bytes"
            );
        }
        for server in servers.iter().filter(|server| !server.received().is_empty()) {
            let heard = |id: &RemoteId| sim.remote(*id).sent().starts_with(server.received());
            assert!(self.clients.iter().any(heard), "a server heard what no client said");
        }
    }

    /// Early dials are accounted for. The ways are known by what crossed them: hellos one way, and what servers said the other.
    fn judge_figures(&self) {
        let [begun, used, wasted] = [&self.ingress.early_dials, &self.ingress.early_used, &self.ingress.early_wasted];
        assert_eq!(begun.value(), used.value() + wasted.value(), "an early dial is used or wasted");
        let [there, back, _] = &self.ways;
        if self.ingress.connected.value() > 0 {
            assert!(there.path.rtt_us.value() > 0, "a connection that was ready showed no round trip");
            assert!(there.path.sent_segments.value() > 0, "hellos went out by no segment");
        }
        if self.honest.between.is_some() {
            // It counts twice what crosses it.
            return;
        }
        let downstream = self.egress.downstream.copied_bytes() + self.egress.downstream.spliced_bytes();
        assert!(back.path.sent_segments.value() >= downstream, "bytes went back by no segment");
    }

    /// An answer that doesn't stand is what a gateway further on found, and reaches the client as a reset and nothing else; and what
    /// it found reaches whoever waits for it.
    fn judge_answers(&mut self, near: &[&PairReport], far: &[&PairReport]) {
        let sim = &*self.core.parts().1.backend();
        let refused = |end: End| end.name().strip_prefix("far-").is_some();
        let count = |of: &[&PairReport], wanted: &str| of.iter().filter(|report| report.end.name() == wanted).count();
        for report in near.iter().chain(far).filter(|report| refused(report.end)) {
            assert_eq!(
                report.downstream_bytes,
                Some(0),
                "a server's bytes behind an answer that there's none: {report:?}"
            );
        }
        for report in near.iter().filter(|report| refused(report.end)) {
            let client = self.clients.iter().find(|id| id.addr() == report.client);
            let client = sim.remote(*client.expect("an answer is read when the client is there"));
            assert!(client.received().is_empty() && !client.saw_end(), "more than a reset: {report:?} {client:?}");
        }
        for report in near.iter().filter(|report| report.end == End::Finished) {
            let client = self.clients.iter().find(|id| id.addr() == report.client).expect("who finished was there");
            let client = sim.remote(*client);
            if client.script().read_step == 0 || client.has_reset() {
                continue;
            }
            assert!(client.saw_end(), "finished, without an end: {client:?}");
            assert_eq!(report.downstream_bytes, Some(client.received().len() as u64), "lost or invented: {client:?}");
        }
        // Who went before the answer came heard none.
        let gone = [End::ClientReset, End::ClientLost, End::ClientGone, End::Unclaimed, End::Drained, End::IdleTimeout];
        let gone = near.iter().chain(far).filter(|report| gone.contains(&report.end)).count();
        let hops = if self.honest.between == Some(true) { 2 } else { 1 };
        for own in ["dial-refused", "dial-unreachable", "dial-exhausted", "not-permitted"] {
            let (found, told) = (count(far, own), count(near, &format!("far-{own}")));
            assert!(told <= found, "{own} was told {told} times and found {found} times");
            assert!(found <= told + gone, "{own} was found {found} times and told {told} times, {gone} had gone");
            let between = count(far, &format!("far-{own}"));
            assert!(hops == 2 || between == 0, "{own}: nobody stands between");
            assert!(hops == 1 || own == "not-permitted" || between >= told, "{own} wasn't told by the one between");
        }
    }

    /// How pairs ended: at the gateway near the clients, and at either.
    fn ended(&mut self) -> Ends {
        let reports: Vec<PairReport> = std::iter::from_fn(|| self.reports.try_recv().ok()).collect();
        for report in &reports {
            assert_ne!(report.end, End::TrunkDead, "the trunk was never cut");
            let heard = report.downstream_bytes > Some(0);
            assert_eq!(report.first_byte_after.is_some(), heard, "a first byte is there with the bytes: {report:?}");
            assert!(
                !heard || report.first_byte_after >= report.connected_after,
                "an answer before its leg: {report:?}"
            );
        }
        let (near, far): (Vec<&PairReport>, Vec<&PairReport>) =
            reports.iter().partition(|report| &*report.route == "in");
        self.judge_answers(&near, &far);
        let near = near.into_iter().map(|report| report.end).collect();
        Ends { near, all: reports.iter().map(|report| report.end).collect() }
    }
}

struct Ends {
    near: Vec<End>,
    all: Vec<End>,
}

fn run(seed: u64, mood: Mood) -> Ends {
    let result = std::panic::catch_unwind(|| {
        let mut world = world(Rng::new(seed), mood);
        world.run();
        world.judge();
        world.ended()
    });
    result.unwrap_or_else(|panic| {
        eprintln!("failing seed: MIDMILE_SIM_SEED={seed} ({mood:?})");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn every_promise_holds_through_a_trunk_in_any_world() {
    let ends: Vec<End> = seeds(160).flat_map(|seed| run(seed, Mood::Any).all).collect();
    if ends.len() > 600 {
        // A world in which a reason never comes up proves nothing about it.
        for wanted in [
            End::Finished,
            End::TrunkUnavailable,
            End::NotPermitted,
            End::DialRefused,
            End::Unclaimed,
            End::ServerReset,
            End::FarDialRefused,
            End::FarDialTimeout,
            End::FarDialUnreachable,
            End::FarNotPermitted,
        ] {
            assert!(ends.contains(&wanted), "{wanted:?} never happened");
        }
    }
}

#[test]
fn in_a_kind_world_every_pair_finishes_through_a_trunk() {
    for seed in seeds(80) {
        let unkind = [End::Finished, End::Unclaimed];
        let ends = run(seed, Mood::Kind).near;
        assert!(ends.iter().all(|end| unkind.contains(end)), "MIDMILE_SIM_SEED={seed}: {ends:?}");
    }
}

/// Clients and servers that send to each other for minutes, and read as much at a time as `reads` says.
fn lasting(seed: u64, reads: usize) -> World {
    let pace = Duration::from_millis(10 + seed % 20);
    let script = Script { sends: 2_000_000, pace, read_step: reads, ..Script::default() };
    let mut world = world_of(Rng::new(seed), Mood::Kind, Some(&script));
    world.pass(Duration::from_secs(3));
    world
}

impl World {
    /// Goes on for `wait`.
    fn pass(&mut self, wait: Duration) {
        let until = self.core.parts().1.now().after(wait);
        while self.core.parts().1.now() < until {
            self.core.turn().unwrap();
            self.core.parts().1.check();
        }
    }

    /// Pairs that ended because their trunk was dead, and pairs that are open: at the gateway near the clients, and at the other.
    fn dead_and_open(&self) -> [(u64, u64); 2] {
        [&self.ingress, &self.egress]
            .map(|counters| (counters.ends[End::TrunkDead.index()].value(), counters.pairs_open.value()))
    }
}

#[test]
fn a_trunk_that_is_cut_with_bytes_under_way_ends_its_pairs_on_both_sides_in_time() {
    for seed in seeds(8) {
        let mut world = lasting(seed, 100);
        let clients = world.clients.len() as u64;
        assert_eq!(world.dead_and_open().map(|(dead, _)| dead), [0, 0], "MIDMILE_SIM_SEED={seed}");
        world.core.parts().1.backend().cut();
        world.pass(DEAD_AFTER - Duration::from_secs(1));
        assert_eq!(world.dead_and_open().map(|(dead, _)| dead), [0, 0], "MIDMILE_SIM_SEED={seed}: too soon");
        // A quarter until the first look, and what a look is late.
        world.pass(Duration::from_secs(1) + DEAD_AFTER / 4 + Duration::from_millis(500));
        let [near, far] = world.dead_and_open();
        // The far one has pairs as well for clients whose SYN was all that ever came.
        assert_eq!(near, (clients, 0), "MIDMILE_SIM_SEED={seed}");
        assert!(far.0 >= clients, "MIDMILE_SIM_SEED={seed}: {far:?}");
        let sim = world.core.parts().1.backend();
        assert!(world.clients.iter().all(|id| sim.remote(*id).saw_reset()), "MIDMILE_SIM_SEED={seed}");
    }
}

#[test]
fn a_short_cut_ends_nothing_and_neither_does_who_stands_still() {
    for seed in seeds(8) {
        let mut world = lasting(seed, 100);
        world.core.parts().1.backend().cut();
        world.pass(DEAD_AFTER / 4);
        world.core.parts().1.backend().restore();
        world.pass(DEAD_AFTER * 2);
        assert_eq!(world.dead_and_open()[0], (0, world.clients.len() as u64), "MIDMILE_SIM_SEED={seed}");
        let mut world = lasting(seed, 0);
        world.pass(DEAD_AFTER * 4);
        assert_eq!(world.dead_and_open().map(|(dead, _)| dead), [0, 0], "MIDMILE_SIM_SEED={seed}: nobody reads");
    }
}
