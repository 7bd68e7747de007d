//! Clients of messages in the simulated world: whatever they and their servers do, and whatever reloads and drains come meanwhile, each is
//! counted in once and out once, and nothing is left of it. That answers find their way is the multiplexor's own simulation's to show.

use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Duration;

use midmile_engine::sim::{Rng, Script, Sim, SimListener};
use midmile_engine::{Addr, Allowance, Config, Core, LegOptions, Time};
use midmile_mux::{Bounds, Matching, Service};
use midmile_wire::frame::{Framing, Line};

use super::sim_tests::{Mood, TIMEOUTS, outcome, port, seeds, small};
use super::{Order, Parts, Relay};
use crate::backend::{Backend, BackendSet, Balance};
use crate::counters::{CoreCounters, RouteCounters};
use crate::plan::Route;
use crate::reason::End;
use crate::serving::DoorId;

/// Worlds, unless the environment says otherwise.
const SEEDS: u64 = 400;
/// Clients of a world at most.
const CLIENTS_MAX: usize = 12;
/// Orders of a world at most, before its last two.
const ORDERS_MAX: usize = 6;
/// Turns in which every client has come to its end: each step of a remote is one at most.
const TURNS_MAX: usize = 40_000;
/// When every client has come and been met; without any left nothing happens after it.
const ALL_CAME: Time = Time::from_nanos(3_000_000_000);
/// The longest message; the core's buffer holds one.
const MESSAGE_MAX: u32 = 128;

/// What a route gives its clients.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Dns,
    Lines,
    Bytes,
}

const KINDS: [Kind; 3] = [Kind::Dns, Kind::Lines, Kind::Bytes];

struct World {
    core: Core<Sim, Relay<SimListener>>,
    rng: Rng,
    backends: Vec<Arc<Backend>>,
    counters: Arc<RouteCounters>,
    /// Of the process, and of each version of the route.
    allowances: Vec<Arc<Allowance>>,
}

/// A message of a client, or what some send in place of one.
fn message(rng: &mut Rng, number: usize) -> Vec<u8> {
    let id = u8::try_from(number).unwrap();
    let query = [&[0, 19, 0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x01a\0", &[0, 1, 0, 1]].concat();
    match rng.up_to(9) {
        0 => query[..1 + rng.up_to(10)].to_vec(),
        1 => vec![0xff; 1 + rng.up_to(200)],
        2..=4 => b"a line\n".to_vec(),
        _ => query,
    }
}

fn service(kind: Kind, rng: &mut Rng, backends: &[Arc<Backend>]) -> Option<Arc<Service>> {
    let (framing, matching) = match kind {
        Kind::Dns => (Framing::Dns, Matching::Id),
        Kind::Lines => (Framing::Line(Line { len_max: MESSAGE_MAX as usize }), Matching::Order),
        Kind::Bytes => return None,
    };
    let mut millis = |most: usize| Duration::from_millis(50 + rng.up_to(most) as u64);
    let (message_timeout, idle_timeout, attempt_timeout) = (millis(300), millis(300), millis(100));
    let bounds = Bounds {
        message_max: MESSAGE_MAX,
        message_timeout,
        idle_timeout,
        attempt_timeout,
        answer_timeout: attempt_timeout * 2,
        clients_per_address: u32::try_from(rng.up_to(3)).unwrap(),
        outstanding_per_client: u16::try_from(1 + rng.up_to(3)).unwrap(),
        upstreams_per_backend: u16::try_from(1 + rng.up_to(1)).unwrap(),
        ..Bounds::default()
    };
    let backends = backends.iter().map(|backend| backend.place().clone()).collect();
    Some(Arc::new(Service { name: "r".into(), framing, matching, backends, server: LegOptions::default(), bounds }))
}

fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let (reports, _) = sync_channel(1000);
    let ((_, orders), (_, syns)) = (channel(), sync_channel(1));
    let pairs = Arc::new(Allowance::new(u32::try_from(1 + rng.up_to(CLIENTS_MAX)).unwrap(), 1));
    let counters = Arc::new(CoreCounters::default());
    let parts = Parts { core: 0, pairs: pairs.clone(), pooled_max: 0, counters, orders, syns, reports };
    let conns_max = u32::try_from(2 + rng.up_to(3 * CLIENTS_MAX)).unwrap();
    let config = Config { conns_max, read_bytes: MESSAGE_MAX as usize, blocks: rng.up_to(3), ..small(&mut rng) };
    let mut core = Core::new(Sim::new(rng.number(), rng.one_in(2)), config, Relay::new(parts));
    let cx = core.parts().1;
    let backends = (0..=rng.up_to(1)).map(|index| {
        let addr = port(2000 + index);
        cx.backend().server(&addr, (0..3).map(|_| outcome(&mut rng, Mood::Any)).collect());
        Arc::new(Backend::new(index.to_string(), vec![addr], 1))
    });
    let backends: Vec<Arc<Backend>> = backends.collect();
    World { core, rng, backends, counters: Arc::default(), allowances: vec![pairs] }
}

impl World {
    fn route(&mut self, listen: Addr) -> (Arc<Route>, Arc<Allowance>) {
        let kind = KINDS[self.rng.up_to(2)];
        let pairs_max = u32::try_from(1 + self.rng.up_to(CLIENTS_MAX)).unwrap();
        let pairs = Arc::new(Allowance::new(pairs_max, 1));
        self.allowances.push(pairs.clone());
        let route = Route {
            mux: service(kind, &mut self.rng, &self.backends),
            timeouts: TIMEOUTS,
            pairs_max,
            log_pairs: true,
            ..Route::plain("r", listen, BackendSet::new(self.backends.clone(), Balance::RoundRobin, None))
        };
        (Arc::new(route), pairs)
    }

    /// Opens the door, and has clients come to it.
    fn open(&mut self) {
        let listen = port(1000);
        let (route, pairs) = self.route(listen.clone());
        let cx = self.core.parts().1;
        let listener = cx.backend().listener(listen);
        for _ in 0..1 + self.rng.up_to(CLIENTS_MAX - 1) {
            let rng = &mut self.rng;
            let preamble = (0..=rng.up_to(5)).flat_map(|number| message(rng, number)).collect::<Vec<u8>>();
            let script = Script {
                preamble,
                resets_at: rng.one_in(5).then_some(0),
                finishes: !rng.one_in(4),
                send_step: 1 + rng.up_to(100),
                read_step: if rng.one_in(8) { 0 } else { 1 + rng.up_to(100) },
                window: 100 + rng.up_to(300),
                pace: Duration::from_micros(50 + rng.up_to(20_000) as u64),
                ..Script::default()
            };
            cx.backend().client(&listener, Duration::from_micros(rng.up_to(500_000) as u64), script);
        }
        let counters = self.counters.clone();
        self.obey(Order::Open { door: DoorId(0), listener, route, counters, census: Arc::default(), pairs });
    }

    fn obey(&mut self, order: Order<SimListener>) {
        let (relay, cx) = self.core.parts();
        relay.obey(cx, order);
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.core.turn().unwrap();
            let (relay, cx) = self.core.parts();
            cx.check();
            assert_eq!(relay.pairs_open() as u64, self.counters.pairs_open.value());
            if cx.now() > ALL_CAME && relay.pairs_open() == 0 {
                return;
            }
        }
    }

    fn run(&mut self) {
        self.open();
        for _ in 0..self.rng.up_to(ORDERS_MAX) {
            let turns = self.rng.up_to(150);
            self.turns(turns);
            let (route, pairs) = self.route(port(1000));
            self.obey(Order::Swap { door: DoorId(0), route, pairs });
        }
        let turns = self.rng.up_to(600);
        self.turns(turns);
        if self.rng.one_in(2) {
            let closes_one = self.rng.one_in(2);
            self.obey(if closes_one { Order::Close { door: DoorId(0) } } else { Order::CloseAll });
            for _ in 0..TURNS_MAX {
                if self.core.parts().0.pairs_open() == 0 {
                    break;
                }
                self.turns(1);
            }
            assert_eq!(self.core.parts().0.pairs_open(), 0, "a client has no end: {:?}", self.counters);
        }
        self.obey(Order::Stop);
        self.turns(1);
    }

    fn judge(&mut self) {
        let (relay, cx) = self.core.parts();
        assert_eq!((relay.pairs_open(), cx.conns_open(), cx.gauges().blocks_leased), (0, 0, 0));
        let ends: u64 = self.counters.ends.iter().map(|end| end.value()).sum();
        assert_eq!((self.counters.pairs_opened.value(), self.counters.pairs_open.value()), (ends, 0));
        assert!(self.allowances.iter().all(|allowance| allowance.left() == allowance.max()), "room is left taken");
    }
}

#[test]
fn each_client_is_counted_out_once_in_any_world() {
    let mut by_end = [0; End::COUNT];
    for seed in seeds(SEEDS) {
        let judged = std::panic::catch_unwind(|| {
            let mut world = world(seed);
            world.run();
            world.judge();
            world.counters
        });
        let counters = judged.unwrap_or_else(|panic| {
            eprintln!("failing seed: MIDMILE_SIM_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
        by_end.iter_mut().zip(counters.ends.iter()).for_each(|(sum, end)| *sum += end.value());
    }
    let met = [
        End::Finished,
        End::ClientReset,
        End::IdleTimeout,
        End::MessageTimeout,
        End::MessageTooLong,
        End::MessageCut,
        End::Answered,
        End::Drained,
    ];
    for end in met.into_iter().filter(|_| seeds(SEEDS) == (0..SEEDS)) {
        assert!(by_end[end.index()] > 0, "no world had a client that ended as {}", end.name());
    }
}
