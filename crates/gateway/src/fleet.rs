//! The cores as one: listeners opened, threads started, orders given, figures added up. All of it is control path.

mod announce;
mod messages;
mod observe;
mod start;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use midmile_engine::kernel::{self, Listener};
use midmile_engine::{Addr, Allowance, LegOptions, ListenError, Pulse, Stall, Waker, Watchdog};
use midmile_mux::Census;

use crate::counters::{CoreCounters, RouteCounters};
use crate::plan::{Limits, Plan, Route};
use crate::reason::End;
use crate::relay::{Order, Syn};
use crate::report::PairReport;
use crate::serving::DoorId;
use crate::trunk::{Peer, Reach};

pub use announce::Announcer;
use announce::Places;
pub use messages::{DatagramsSnapshot, MessagesSnapshot};
pub use observe::{BackendSnapshot, Flow, Observer, PeerSnapshot, RouteSnapshot, Snapshot, Times};
use observe::{Watch, Watched};

/// How long the relay may take over one thing. It takes microseconds; a machine that doesn't let a core run takes longer.
const STALL_AFTER: Duration = Duration::from_secs(1);
/// Pair reports that may wait for the log.
const REPORTS_MAX: usize = 4096;

/// Why the fleet can't start, or can't take a new plan.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on: choose another, or end what stands there.
    #[error("listener {route}: can't listen on {addr}: {source}")]
    Listen {
        /// The route's name.
        route: Arc<str>,
        /// Its address.
        addr: Addr,
        /// Why not.
        source: ListenError,
    },
    /// The limits ask for more cores than this process may run on.
    #[error("{wanted} cores are asked for, and this process may run on {allowed}")]
    Cores {
        /// Asked for.
        wanted: u16,
        /// CPUs in the affinity mask.
        allowed: usize,
    },
    /// A thread, an epoll instance or a descriptor can't be had.
    #[error("can't start a core: {0}")]
    Core(#[from] io::Error),
    /// The limits of the process differ from the running ones: restart to change them.
    #[error("limits can't change while running; restart to change them")]
    Limits,
}

/// A core ended by itself: a bug, or a system that can't wait for events any more.
#[derive(Debug, thiserror::Error)]
pub enum FleetFailure {
    /// Its loop returned an error.
    #[error("core {core} failed: {source}")]
    Failed {
        /// Which.
        core: usize,
        /// Why.
        source: io::Error,
    },
    /// Its thread panicked.
    #[error("core {core} panicked")]
    Panicked {
        /// Which.
        core: usize,
    },
}

/// A listener that accepts.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The route behind it.
    pub route: Arc<Route>,
    /// Where it listens, with the port that the kernel chose if it was to.
    pub addr: Addr,
}

#[derive(Debug)]
struct CoreHandle {
    cpu: u32,
    orders: Sender<Order<Listener>>,
    /// Orders that it was given.
    given: AtomicU64,
    syns: SyncSender<Syn>,
    waker: Waker,
    pulse: Pulse,
    thread: JoinHandle<io::Result<()>>,
}

impl CoreHandle {
    fn order(&self, order: Order<Listener>) {
        self.given.fetch_add(1, Relaxed);
        // A core that is gone takes no orders; `stop` says why it went.
        if self.orders.send(order).is_ok() {
            self.waker.wake();
        }
    }
}

/// The running cores.
#[derive(Debug)]
pub struct Fleet {
    cores: Vec<CoreHandle>,
    limits: Limits,
    doors: Vec<(DoorId, Listening)>,
    listening: Vec<Listening>,
    next_door: u32,
    places: Places,
    watch: Arc<Watch>,
    watchdog: Option<Watchdog>,
}

impl Fleet {
    /// Opens every listener and starts one thread a core, pinned to a CPU. All accept when it returns. The receiver gets a
    /// report for each pair that ends on a route that logs them.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start(plan: Plan) -> Result<(Self, Receiver<PairReport>), StartError> {
        let limits = plan.limits;
        let allowed = kernel::allowed_cpus()?;
        if usize::from(limits.cores) > allowed.len() || limits.cores == 0 {
            return Err(StartError::Cores { wanted: limits.cores, allowed: allowed.len() });
        }
        let cpus = &allowed[..usize::from(limits.cores)];
        let watch = Arc::new(Watch::new(cpus.len()));
        let mut opened = Vec::new();
        for route in plan.routes {
            opened.push(open(route, cpus, false)?);
        }
        let (reports, received) = sync_channel(REPORTS_MAX);
        let mut fleet = Self {
            cores: Vec::new(),
            limits,
            doors: Vec::new(),
            listening: Vec::new(),
            next_door: 0,
            places: Places::default(),
            watch,
            watchdog: None,
        };
        if let Err(error) = fleet.start_cores(cpus, &reports) {
            // Those that have started end again; they have nothing to cut, and this error is the one to tell.
            fleet.stop().ok();
            return Err(error);
        }
        // Pools fill before anybody can come.
        fleet.reach(plan.peers);
        for (listening, listeners) in opened {
            fleet.mount(listening, listeners);
        }
        fleet.list();
        Ok((fleet, received))
    }

    /// Has the cores reach `peers`, and no others.
    fn reach(&self, peers: Vec<Arc<Peer>>) {
        let counted: Vec<_> = peers.into_iter().map(|peer| (self.watch.peer(&peer), peer)).collect();
        for (index, core) in self.cores.iter().enumerate() {
            let part = |all: u32| start::share(all, self.limits.cores);
            let peers = counted.iter().map(|(counters, peer)| {
                let min = if peer.pool.min == 0 { 0 } else { part(peer.pool.min) };
                let bounds = (min, part(peer.pool.max));
                Reach { peer: peer.clone(), counters: counters[index].clone(), bounds }
            });
            core.order(Order::Peers(peers.collect()));
        }
    }

    /// Puts opened listeners to work.
    fn mount(&mut self, listening: Listening, listeners: Vec<Listener>) {
        let door = DoorId(self.next_door);
        self.next_door += 1;
        let route = listening.route.clone();
        let counters: Vec<Arc<RouteCounters>> = self.cores.iter().map(|_| Arc::default()).collect();
        let (pairs, census) = (self.pairs_of(&route), Arc::<Census>::default());
        for ((core, listener), counters) in self.cores.iter().zip(listeners).zip(&counters) {
            let (route, census, pairs) = (route.clone(), census.clone(), pairs.clone());
            let counters = counters.clone();
            core.order(Order::Open { door, listener, route, counters, census, pairs });
        }
        self.watch.add(Watched::new(door, route, listening.addr.clone(), counters));
        self.doors.push((door, listening));
    }

    fn list(&mut self) {
        self.listening = self.doors.iter().map(|(_, listening)| listening.clone()).collect();
        self.places.replace(&self.doors);
    }

    /// A handle by which the cores are told of clients' SYNs.
    #[must_use]
    pub fn announcer(&self) -> Announcer {
        let cores = self.cores.iter().map(|core| (core.cpu, core.syns.clone(), core.waker.clone()));
        Announcer::new(cores.collect(), self.places.clone())
    }

    /// Has the cores watched: a fault by which one doesn't come back from something is counted, and told to `tell` on a thread of its own,
    /// when it's noticed and again when it's over.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn watch_stalls(&mut self, mut tell: impl FnMut(Stall) + Send + 'static) -> io::Result<()> {
        let watch = self.watch.clone();
        let count = move |stall: Stall| {
            watch.cores[usize::from(stall.core)].stalls.add(u64::from(!stall.over));
            tell(stall);
        };
        let pulses = self.cores.iter().map(|core| core.pulse.clone()).collect();
        self.watchdog = Some(Watchdog::start(pulses, STALL_AFTER, count)?);
        Ok(())
    }

    /// The listeners that accept.
    #[must_use]
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Serves `plan` from now on: opens new listeners, closes those that are gone, puts the new routes behind those that stay.
    /// Pairs that are open go on as they are.
    ///
    /// # Errors
    /// See [`StartError`]; nothing has changed then.
    pub fn reload(&mut self, plan: Plan) -> Result<(), StartError> {
        if plan.limits != self.limits {
            return Err(StartError::Limits);
        }
        let cpus: Vec<u32> = self.cores.iter().map(|core| core.cpu).collect();
        let mut gone = std::mem::take(&mut self.doors);
        let (mut staying, mut opened) = (Vec::new(), Vec::new());
        for route in plan.routes {
            let same = gone.iter().position(|(_, old)| stays(&old.route, &route));
            if let Some(at) = same {
                staying.push((gone.swap_remove(at), route));
                continue;
            }
            let joining = gone.iter().any(|(_, old)| old.route.listen == route.listen);
            match open(route, &cpus, joining) {
                Ok(new) => opened.push(new),
                Err(error) => {
                    self.doors = staying.into_iter().map(|(door, _)| door).chain(gone).collect();
                    return Err(error);
                }
            }
        }
        self.reach(plan.peers);
        for ((door, mut listening), route) in staying {
            self.swap(door, &route);
            listening.route = route;
            self.doors.push((door, listening));
        }
        for (listening, listeners) in opened {
            self.mount(listening, listeners);
        }
        for (door, _) in gone {
            self.order_all(|| Order::Close { door });
            self.watch.retire(door);
        }
        self.list();
        Ok(())
    }

    fn swap(&self, door: DoorId, route: &Arc<Route>) {
        let pairs = self.pairs_of(route);
        self.order_all(|| Order::Swap { door, route: route.clone(), pairs: pairs.clone() });
        self.watch.swap(door, route);
    }

    /// The pairs that a route may hold, for all cores.
    fn pairs_of(&self, route: &Route) -> Arc<Allowance> {
        Arc::new(Allowance::new(route.pairs_max, self.limits.cores))
    }

    fn order_all(&self, order: impl Fn() -> Order<Listener>) {
        for core in &self.cores {
            core.order(order());
        }
    }

    /// Stops accepting everywhere; open pairs go on.
    pub fn stop_accepting(&mut self) {
        self.order_all(|| Order::CloseAll);
        for (door, _) in self.doors.drain(..) {
            self.watch.retire(door);
        }
        self.list();
    }

    /// Pairs open now.
    #[must_use]
    pub fn pairs_open(&self) -> u64 {
        self.watch.pairs_open()
    }

    /// Whether every order was carried out and no pair is open: with nobody accepted any more, that is the end of a drain.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let obeys = |(core, figures): (&CoreHandle, &Arc<CoreCounters>)| figures.obeyed() == core.given.load(Relaxed);
        self.cores.iter().zip(&self.watch.cores).all(obeys) && self.pairs_open() == 0
    }

    /// Whether a core has ended by itself; [`Fleet::stop`] says why.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.cores.iter().any(|core| core.thread.is_finished())
    }

    /// Ends the cores. Pairs still open are reset; the answer says how many.
    ///
    /// # Errors
    /// When a core had ended by itself before.
    pub fn stop(self) -> Result<u64, FleetFailure> {
        self.order_all(|| Order::Stop);
        for (core, handle) in self.cores.into_iter().enumerate() {
            match handle.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(source)) => return Err(FleetFailure::Failed { core, source }),
                Err(_) => return Err(FleetFailure::Panicked { core }),
            }
        }
        Ok(self.watch.ended_by(End::Drained))
    }

    /// The figures now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.observer().snapshot()
    }

    /// A handle that others may take figures by.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer(self.watch.clone())
    }
}

/// Whether the old route's listener can serve the new one: what is inherited from it must be the same.
fn stays(old: &Route, new: &Route) -> bool {
    let inet = old.listen.inet();
    // Two that leave the port to the kernel are the same only by name.
    let same_place = old.listen == new.listen && (old.name == new.name || inet.is_none_or(|addr| addr.port() != 0));
    // What carried messages may have its clients see an end where relayed ones see a reset; the other way round it costs a call each.
    let ends_if_killed = old.client.ends_if_killed;
    let inherited = LegOptions { ends_if_killed, ..new.client.clone() };
    let enough = inherited == old.client && (new.client.ends_if_killed || !ends_if_killed);
    same_place && (enough || inet.is_none())
}

fn open(route: Arc<Route>, cpus: &[u32], joining: bool) -> Result<(Listening, Vec<Listener>), StartError> {
    match kernel::listen(&route.listen, &route.client, cpus, joining) {
        Ok((listeners, addr)) => Ok((Listening { route, addr }, listeners)),
        Err(source) => Err(StartError::Listen { route: route.name.clone(), addr: route.listen.clone(), source }),
    }
}

/// The counters that the cores write, by core.
type CoreFigures = Vec<Arc<CoreCounters>>;
