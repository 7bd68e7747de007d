//! A fault of the relay's own: the pair that it was dealing with ends wholly, under its own reason, and the next one is served.

use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Duration;

use midmile_engine::sim::{DialOutcome, RemoteId, Script, Sim, SimListener, SimSocket};
use midmile_engine::{Allowance, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, ListenerId, Upcall};
use midmile_wire::proxy::{self, Accept, Header, Version};

use super::sim_tests::{TIMEOUTS, port};
use super::{Order, Parts, Relay};
use crate::backend::{Backend, BackendSet, Balance};
use crate::counters::{CoreCounters, RouteCounters};
use crate::plan::Route;
use crate::reason::End;
use crate::serving::DoorId;

/// A relay that panics once: before or after what it does in an upcall.
struct Faulty {
    relay: Relay<SimListener>,
    panics_in: Option<Upcall>,
    after: bool,
}

impl Faulty {
    fn during<R>(&mut self, upcall: Upcall, work: impl FnOnce(&mut Relay<SimListener>) -> R) -> R {
        let now = self.panics_in == Some(upcall);
        if now {
            self.panics_in = None;
        }
        assert!(!now || self.after, "a fault before {}", upcall.name());
        let answer = work(&mut self.relay);
        assert!(!now, "a fault after {}", upcall.name());
        answer
    }
}

impl Handler<Sim> for Faulty {
    fn on_accept(&mut self, cx: &mut Cx<Sim>, listener: ListenerId, incoming: Incoming<SimSocket>) {
        self.during(Upcall::Accept, |relay| relay.on_accept(cx, listener, incoming));
    }

    fn on_connect(&mut self, cx: &mut Cx<Sim>, conn: ConnId, token: u64) {
        self.during(Upcall::Connect, |relay| relay.on_connect(cx, conn, token));
    }

    fn on_data(&mut self, cx: &mut Cx<Sim>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        self.during(Upcall::Data, |relay| relay.on_data(cx, conn, token, bytes))
    }

    fn on_writable(&mut self, cx: &mut Cx<Sim>, conn: ConnId, token: u64) {
        self.during(Upcall::Writable, |relay| relay.on_writable(cx, conn, token));
    }

    fn on_peer_close(&mut self, cx: &mut Cx<Sim>, conn: ConnId, token: u64) {
        self.during(Upcall::PeerClose, |relay| relay.on_peer_close(cx, conn, token));
    }

    fn on_error(&mut self, cx: &mut Cx<Sim>, conn: ConnId, token: u64, error: ConnError) {
        self.relay.on_error(cx, conn, token, error);
    }

    fn on_timer(&mut self, cx: &mut Cx<Sim>, conn: ConnId, token: u64) {
        self.during(Upcall::Timer, |relay| relay.on_timer(cx, conn, token));
    }

    fn on_alarm(&mut self, cx: &mut Cx<Sim>) {
        self.relay.on_alarm(cx);
    }

    fn on_turn_end(&mut self, cx: &mut Cx<Sim>) {
        self.relay.on_turn_end(cx);
    }
}

struct World {
    core: Core<Sim, Faulty>,
    clients: [RemoteId; 2],
    counters: Arc<RouteCounters>,
    figures: Arc<CoreCounters>,
}

fn world(panics_in: Upcall, after: bool) -> World {
    let ((_, orders), (_, syns)) = (channel(), sync_channel(1));
    let (reports, _) = sync_channel(1);
    let figures = Arc::new(CoreCounters::default());
    let parts = Parts {
        core: 0,
        pairs: Arc::new(Allowance::new(10, 1)),
        pooled_max: 0,
        counters: figures.clone(),
        orders,
        syns,
        reports,
    };
    let handler = Faulty { relay: Relay::new(parts), panics_in: Some(panics_in), after };
    let config = Config { conns_max: 8, read_bytes: 300, ..Config::default() };
    let mut core = Core::new(Sim::new(5, false), config, handler);
    let (handler, cx) = core.parts();
    // A server with little room: our PROXY header doesn't fit at once.
    let serves = Script { sends: 2000, read_step: 30, window: 20, finishes_last: true, ..Script::default() };
    let server = port(2000);
    cx.backend().server(&server, vec![DialOutcome::After(Duration::from_millis(5), serves)]);
    let backend = Arc::new(Backend::new("b", vec![server], 1));
    let route = Arc::new(Route {
        timeouts: TIMEOUTS,
        accept_proxy: Some(Accept::ANY),
        send_proxy: Some(Version::V1),
        ..Route::plain("r", port(1000), BackendSet::new(vec![backend], Balance::LeastConnections, None))
    });
    let listener = cx.backend().listener(route.listen.clone());
    let header = Header::inet(([192, 0, 2, 7], 777).into(), ([192, 0, 2, 1], 80).into());
    let preamble = proxy::encode(Version::V1, &header).as_bytes().to_vec();
    // Slow enough that the pair's first look at itself comes while bytes flow.
    let pace = Duration::from_millis(10);
    let script = Script { preamble, sends: 4000, send_step: 50, pace, ..Script::default() };
    let clients =
        [Duration::ZERO, Duration::from_secs(3)].map(|wait| cx.backend().client(&listener, wait, script.clone()));
    let counters = Arc::new(RouteCounters::default());
    let order = Order::Open {
        door: DoorId(0),
        listener,
        route,
        counters: counters.clone(),
        census: Arc::default(),
        pairs: Arc::new(Allowance::new(10, 1)),
    };
    handler.relay.obey(cx, order);
    World { core, clients, counters, figures }
}

fn the_pair_ends_wholly(panics_in: Upcall, after: bool) {
    let World { mut core, clients, counters, figures } = world(panics_in, after);
    while core.parts().1.now().as_nanos() < 60_000_000_000 {
        core.turn().unwrap();
        core.parts().1.check();
    }
    let (handler, cx) = core.parts();
    let case = format!("{} {after}", panics_in.name());
    assert_eq!(handler.panics_in, None, "{case}: it didn't come to that");
    let opened = counters.pairs_opened.value();
    // One that panics before it has a pair has none to end.
    let panicked = u64::from(opened == 2);
    assert!(panicked == 1 || (panics_in == Upcall::Accept && !after), "{case}");
    assert_eq!(counters.ends[End::Panicked.index()].value(), panicked, "{case}");
    assert_eq!(counters.ends[End::Finished.index()].value(), 1, "{case}: {:?}", counters.ends);
    assert_eq!((counters.pairs_open.value(), figures.panics.value()), (0, 1), "{case}");
    assert_eq!((handler.relay.pairs_open(), cx.conns_open(), cx.gauges().blocks_leased), (0, 0, 0), "{case}");
    let dialled: Vec<RemoteId> = cx.backend().dialled(&port(2000)).collect();
    let sim = &*cx.backend();
    let first = sim.remote(clients[0]);
    // The simulated transport can't reset what is only dropped.
    assert!(!first.saw_end() || panicked == 0, "{case}: {first:?}");
    if let [server, _] = dialled[..] {
        assert!(sim.remote(server).saw_reset() || !sim.remote(server).was_connected(), "{case}");
    }
    let second = sim.remote(clients[1]);
    assert!(second.saw_end() && second.received().len() == 2000, "{case}: {second:?}");
}

#[test]
fn a_pair_over_which_the_relay_panics_ends_wholly_and_the_next_is_served() {
    for upcall in [Upcall::Accept, Upcall::Data, Upcall::Connect, Upcall::Writable, Upcall::Timer, Upcall::PeerClose] {
        for after in [false, true] {
            the_pair_ends_wholly(upcall, after);
        }
    }
}
