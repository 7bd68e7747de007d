//! The mux in the simulated world: thousands of seeds, each a few clients and backends that misbehave in every way the world knows.
//! Invariants are checked after each turn, promises at the end.
//!
//! `MIDMILE_SIM_SEEDS=N` runs N seeds in place of the usual number; `MIDMILE_SIM_SEED=S` runs one. A failure names its seed.
#![expect(clippy::unwrap_used, reason = "a test ends where its own arithmetic fails")]

mod actors;
#[cfg(test)]
mod cases;
mod correspondents;
#[cfg(test)]
mod datagram_cases;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::sim::{DialOutcome, Rng, Sim};
use midmile_engine::{
    Addr, Config, ConnError, ConnId, Core, Counter, Cx, DatagramId, Flow, Frame, Handler, Incoming, LegOptions,
    ListenerId, Time,
};
use midmile_wire::frame::{Framing, Line};

use crate::upstream::Upstream;
use crate::{Bounds, Counters, End, Ended, Matching, Mux, Place, Service, ServiceId, Transport};
use actors::{Backend, Client, Manners};
#[cfg(test)]
pub(crate) use actors::{answer_to, query};
#[cfg(test)]
pub(crate) use correspondents::cut_answer_to;
use correspondents::{Correspondent, weather};

/// More turns than any world needs.
const TURNS_MAX: u64 = 100_000;
const WINDOW: usize = 4000;

pub(super) const BOUNDS: Bounds = Bounds {
    message_max: 2000,
    outstanding_per_client: 4,
    clients_per_address: 0,
    message_timeout: Duration::from_millis(400),
    idle_timeout: Duration::from_millis(600),
    answer_timeout: Duration::from_millis(250),
    attempt_timeout: Duration::from_millis(80),
    upstreams_per_backend: 2,
    outstanding_per_upstream: 5,
};

/// How unkind a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Everybody answers, reads and stays: each request gets its answer.
    Kind,
    Any,
}

/// The owner of the mux.
pub(crate) struct Owner {
    pub(crate) mux: Mux,
    pub(crate) service: Option<ServiceId>,
    next: u64,
    pub(crate) ended: Vec<Ended>,
    pub(super) refused: usize,
}

impl Owner {
    pub(crate) fn new(mux: Mux) -> Self {
        Self { mux, service: None, next: 0, ended: Vec::new(), refused: 0 }
    }
}

impl<B: midmile_engine::Backend> Handler<B> for Owner {
    fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, mut incoming: Incoming<B::Socket>) {
        // The port says which client it is.
        let owner = cx.incoming_peer(&mut incoming).inet().map_or(self.next, |addr| u64::from(addr.port()));
        self.next += 1;
        if let Err((incoming, _)) = self.mux.admit(cx, self.service.unwrap(), incoming, owner) {
            self.refused += 1;
            cx.refuse(incoming);
        }
    }

    fn on_connect(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        assert!(Mux::owns(token));
        self.mux.on_connect(cx, conn, token);
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: &[u8]) -> usize {
        panic!("the mux reads messages");
    }

    fn frame(&mut self, conn: ConnId, token: u64, bytes: &[u8]) -> Frame {
        self.mux.frame(conn, token, bytes)
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) {
        self.mux.on_message(cx, conn, token, bytes);
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.mux.on_writable(cx, conn, token);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.mux.on_peer_close(cx, conn, token);
    }

    fn on_error(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, error: ConnError) {
        self.mux.on_error(cx, conn, token, error);
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.mux.on_timer(cx, conn, token);
    }

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        assert!(self.mux.on_datagram(cx, socket, flow, bytes), "a socket that nobody has bound");
    }

    fn on_datagrams_failed(&mut self, cx: &mut Cx<B>, socket: DatagramId, _: ConnError) {
        assert!(self.mux.on_datagrams_failed(cx, socket), "a socket that nobody has bound");
    }

    fn on_turn_end(&mut self, cx: &mut Cx<B>) {
        self.mux.on_turn_end(cx);
        if let Some(due) = self.mux.due() {
            cx.set_alarm(due.since(cx.now()));
        }
        while let Some(ended) = self.mux.next_ended() {
            self.ended.push(ended);
        }
    }
}

pub(super) struct World {
    pub(super) core: Core<Sim, Owner>,
    clients: Vec<Client>,
    backends: Vec<Backend>,
    correspondents: Vec<Correspondent>,
    pub(super) places: Vec<Addr>,
    pub(super) counters: Arc<Counters>,
    pub(super) matching: Matching,
    pub(super) rng: Rng,
    mood: Mood,
    faults: bool,
    turns: u64,
}

pub(super) fn port(number: usize) -> Addr {
    Addr::Inet(([10, 0, 0, 2], u16::try_from(number).unwrap()).into())
}

fn config(rng: &mut Rng, conns: u32) -> Config {
    Config {
        conns_max: conns,
        read_bytes: 2000 + rng.up_to(2000),
        blocks: rng.up_to(3),
        turn_bytes: 200 + rng.up_to(3000),
        loop_bytes: 4000,
        accept_batch: 1 + u32::try_from(rng.up_to(3)).unwrap(),
        accept_rest_ms: 5,
        catch_panics: false,
        ..Config::default()
    }
}

/// How dials to a place go.
fn outcomes(rng: &mut Rng, mood: Mood) -> Vec<DialOutcome> {
    let wait = |rng: &mut Rng| Duration::from_micros(rng.up_to(20_000) as u64);
    let stands = |rng: &mut Rng| {
        let window = if mood == Mood::Any && rng.one_in(4) { 300 + rng.up_to(400) } else { WINDOW };
        DialOutcome::ByHand(wait(rng), window)
    };
    let mut all: Vec<DialOutcome> = (0..rng.up_to(6))
        .map(|_| match if mood == Mood::Kind { 9 } else { rng.up_to(9) } {
            0 => DialOutcome::FailsAtOnce(ConnError::Refused),
            1 => DialOutcome::FailsAfter(wait(rng), ConnError::Unreachable),
            2 => DialOutcome::Silent,
            _ => stands(rng),
        })
        .collect();
    all.push(if mood == Mood::Any && rng.one_in(12) { DialOutcome::Silent } else { stands(rng) });
    all
}

pub(crate) fn service(places: &[Addr], matching: Matching, bounds: Bounds) -> Service {
    let place = |addr: &Addr| Arc::new(Place::new(addr.to_string().into(), vec![addr.clone()]));
    Service {
        name: "s".into(),
        framing: if matching == Matching::Id { Framing::Dns } else { Framing::Line(Line { len_max: 2000 }) },
        matching,
        backends: places.iter().map(place).collect(),
        server: LegOptions::default(),
        bounds,
    }
}

/// The service, with places that are asked by datagrams.
pub(crate) fn with_datagrams(service: Service, is_one: impl Fn(usize) -> bool) -> Service {
    let place = |(index, place): (usize, &Arc<Place>)| {
        let transport = if is_one(index) { Transport::Udp } else { Transport::Tcp };
        Arc::new(Place::new(place.name.clone(), place.addrs.clone()).asked_by(transport))
    };
    let backends = service.backends.iter().enumerate().map(place).collect();
    Service { backends, ..service }
}

impl World {
    fn new(mut rng: Rng, matching: Matching, mood: Mood) -> Self {
        let count = 1 + rng.up_to(5);
        let faults = mood == Mood::Any && rng.one_in(2);
        let sim = Sim::new(rng.number(), faults);
        let places: Vec<Addr> = (0..=rng.up_to(2)).map(|place| port(2000 + place)).collect();
        let requests_max = if rng.one_in(3) { 1 + rng.up_to(6) } else { 100 };
        let mux = Mux::new(8, u32::try_from(requests_max).unwrap());
        let mut core = Core::new(sim, config(&mut rng, 40), Owner::new(mux));
        let counters = Arc::new(Counters::default());
        let (owner, cx) = core.parts();
        for place in &places {
            let outcomes = outcomes(&mut rng, mood);
            cx.backend().server(place, outcomes);
        }
        let at = port(1000);
        cx.listen_at(&at, &LegOptions::default(), 100).unwrap();
        let by_datagrams = if matching == Matching::Id { rng.up_to(7) } else { 0 };
        let is_one = |place: usize| by_datagrams & 1 << place != 0;
        let service = with_datagrams(service(&places, matching, BOUNDS), is_one);
        let unkind = mood == Mood::Any;
        let weather = weather(&mut rng, unkind);
        cx.backend().set_weather(weather);
        let asked = places.iter().enumerate().filter(|(place, _)| is_one(*place));
        let correspondents =
            asked.map(|(_, addr)| Correspondent::new(&mut rng, addr.inet().unwrap(), unkind)).collect();
        owner.service = Some(owner.mux.serve(cx, Arc::new(service), counters.clone(), Arc::default()));
        let clients = (0..count)
            .map(|number| {
                let manners = if mood == Mood::Any && rng.one_in(2) { Manners::Any } else { Manners::Good };
                // Without a block to keep it in, the window has to hold a message.
                let window = if manners == Manners::Any && rng.one_in(3) { 100 + rng.up_to(300) } else { WINDOW };
                let remote = cx.backend().hand_client(&at, window);
                Client::new(&mut rng, remote, number, manners, matching, mood == Mood::Kind)
            })
            .collect();
        Self {
            core,
            clients,
            backends: Vec::new(),
            correspondents,
            places,
            counters,
            matching,
            rng,
            mood,
            faults,
            turns: 0,
        }
    }

    /// One turn, and then what everybody else does.
    pub(super) fn turn(&mut self) {
        self.core.turn().unwrap();
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "the mux turns in circles");
        let (owner, cx) = self.core.parts();
        cx.check();
        owner.mux.check();
        for place in &self.places {
            let known = |id| self.backends.iter().any(|backend| backend.remote == id);
            let new: Vec<_> = cx.backend().dialled(place).filter(|id| !known(*id)).collect();
            for remote in new {
                self.backends.push(Backend::new(&mut self.rng, remote, self.matching, self.mood == Mood::Any));
            }
        }
        let now = cx.now();
        let mut next = None;
        for backend in &mut self.backends {
            next = next.into_iter().chain(backend.act(cx.backend(), &mut self.rng, now)).min();
        }
        for correspondent in &mut self.correspondents {
            next = next.into_iter().chain(correspondent.act(cx.backend(), &mut self.rng, now)).min();
        }
        for client in &mut self.clients {
            next = next.into_iter().chain(client.act(cx.backend(), &mut self.rng, now)).min();
        }
        // The world doesn't wait for remotes that are acted for: a turn has to come when they want one, and now and then.
        let tick = Duration::from_millis(1 + self.rng.up_to(30) as u64);
        let wait = next.into_iter().chain(owner.mux.due()).map(|at| at.since(now)).min();
        cx.set_alarm(wait.map_or(tick, |wait| wait.min(tick)));
    }

    fn run(&mut self) {
        let mut now = Time::ZERO;
        // Who comes at the beginning has been accepted by then, whatever accept made of it.
        while now < Time::from_nanos(100_000_000)
            || self.clients.iter().any(|client| !client.is_over())
            || self.core.parts().0.mux.clients() > 0
        {
            self.turn();
            now = self.core.parts().1.now();
            let left = self.clients.iter().filter(|client| !client.is_over()).collect::<Vec<_>>();
            assert!(now < Time::from_nanos(20_000_000_000), "clients are left: {left:?}");
        }
        // Until the last request's time is over, and its id is free again.
        let until = self.core.parts().1.now().after(BOUNDS.answer_timeout * 3);
        while self.core.parts().1.now() < until {
            self.turn();
        }
    }

    fn judge(&mut self) {
        let (owner, cx) = self.core.parts();
        assert_eq!((owner.mux.requests(), self.counters.requests_open.value()), (0, 0), "requests are left");
        let mux = &owner.mux;
        let is_left = |upstream: &&Upstream| !upstream.is_datagrams() && upstream.pending.len() > 0;
        assert_eq!(
            mux.upstreams.keys().filter_map(|key| mux.upstreams.get(key)).filter(is_left).count(),
            0,
            "ids are left"
        );
        owner.mux.cut(cx);
        owner.mux.check();
        assert_eq!((owner.mux.chunks.used(), cx.conns_open()), (0, 0), "chunks or connections are left");
        let mut ends: HashMap<u64, End> = HashMap::new();
        for ended in &owner.ended {
            assert!(ends.insert(ended.owner, ended.end).is_none(), "a client ended twice");
        }
        let counted: u64 = self.counters.ends.iter().map(Counter::value).sum();
        assert_eq!(counted, ends.len() as u64);
        let open = [&self.counters.clients_open, &self.counters.upstreams_open, &self.counters.sockets_open];
        assert_eq!(open.map(Counter::value), [0; 3]);
        for client in &self.clients {
            let port = client.remote.addr().inet().unwrap().port();
            let end = ends.get(&u64::from(port)).copied();
            assert!(end.is_some() || owner.refused > 0 || self.faults, "a client has neither ended nor been refused");
            client.judge(end, self.matching, self.mood == Mood::Kind);
        }
    }
}

#[cfg(test)]
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    match (number("MIDMILE_SIM_SEED"), number("MIDMILE_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(usual),
    }
}

#[cfg(test)]
fn run(seed: u64, matching: Matching, mood: Mood) -> u64 {
    let result = std::panic::catch_unwind(|| {
        let mut world = World::new(Rng::new(seed), matching, mood);
        world.run();
        world.judge();
        world.turns
    });
    result.unwrap_or_else(|panic| {
        eprintln!("failing seed: MIDMILE_SIM_SEED={seed}");
        std::panic::resume_unwind(panic)
    })
}

/// A world whose decisions a fuzzer makes: one byte for the matching, then two for each decision.
#[cfg(fuzzing)]
pub fn fuzz(tape: &[u8]) {
    let Some((matching, tape)) = tape.split_first() else { return };
    let matching = if matching % 2 == 0 { Matching::Id } else { Matching::Order };
    let mut world = World::new(Rng::from_tape(tape), matching, Mood::Any);
    world.run();
    world.judge();
}

#[test]
fn every_promise_holds_in_any_world_of_dns() {
    let turns: u64 = seeds(400).map(|seed| run(seed, Matching::Id, Mood::Any)).sum();
    eprintln!("{turns} turns");
}

#[test]
fn in_a_kind_world_every_query_has_its_answer() {
    let turns: u64 = seeds(300).map(|seed| run(seed, Matching::Id, Mood::Kind)).sum();
    eprintln!("{turns} turns");
}

#[test]
fn every_promise_holds_in_any_world_of_lines() {
    let turns: u64 = seeds(800).map(|seed| run(seed, Matching::Order, Mood::Any)).sum();
    eprintln!("{turns} turns");
}

#[test]
fn in_a_kind_world_every_line_has_its_answer() {
    let turns: u64 = seeds(300).map(|seed| run(seed, Matching::Order, Mood::Kind)).sum();
    eprintln!("{turns} turns");
}
