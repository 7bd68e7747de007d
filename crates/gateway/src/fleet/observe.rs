//! The figures of the fleet, added up over its cores.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use midmile_engine::{Addr, Counter, Meter};
use midmile_wire::trunk::Name;

use super::CoreFigures;
use super::messages::MessagesSnapshot;
use crate::counters::{PeerCounters, RouteCounters, TIME_BOUNDS_US, TimeCounters};
use crate::plan::Route;
use crate::reason::{End, PoolLoss, Refusal};
use crate::serving::DoorId;
use crate::trunk::Peer;

/// A listener's counters, by core.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) door: DoorId,
    pub(super) route: Arc<Route>,
    pub(super) addr: Addr,
    pub(super) counters: Vec<Arc<RouteCounters>>,
    pub(super) retired: bool,
    /// What listeners of the same name had counted that are gone: a counter never goes back.
    past: Option<Box<RouteSnapshot>>,
}

impl Watched {
    pub(super) const fn new(door: DoorId, route: Arc<Route>, addr: Addr, counters: Vec<Arc<RouteCounters>>) -> Self {
        Self { door, route, addr, counters, retired: false, past: None }
    }

    /// Takes over what `gone`, which nobody uses any more, had counted.
    fn inherit(&mut self, gone: &Self) {
        let gone = gone.snapshot();
        match &mut self.past {
            Some(past) => past.absorb(&gone),
            None => self.past = Some(Box::new(gone)),
        }
    }

    fn sum(&self, value: impl Fn(&RouteCounters) -> u64) -> u64 {
        self.counters.iter().fold(0, |sum, counters| sum.wrapping_add(value(counters)))
    }

    fn sums<const N: usize>(&self, of: impl Fn(&RouteCounters) -> &[Counter; N]) -> [u64; N] {
        std::array::from_fn(|index| self.sum(|counters| of(counters)[index].value()))
    }

    fn flow(&self, of: impl Fn(&RouteCounters) -> &Meter) -> Flow {
        Flow {
            copied_bytes: self.sum(|counters| of(counters).copied_bytes()),
            spliced_bytes: self.sum(|counters| of(counters).spliced_bytes()),
        }
    }

    fn times(&self, of: impl Fn(&RouteCounters) -> &TimeCounters) -> Times {
        Times {
            buckets: self.sums(|counters| &of(counters).buckets),
            sum_us: self.sum(|counters| of(counters).sum_us.value()),
        }
    }

    fn pairs_open(&self) -> u64 {
        self.sum(|counters| counters.pairs_open.value())
    }

    /// What is carried by messages, where they are, or were until a reload.
    fn messages(&self) -> Option<MessagesSnapshot> {
        let messages = MessagesSnapshot::of(&self.counters);
        (self.route.mux.is_some() || messages != MessagesSnapshot::default()).then_some(messages)
    }

    fn snapshot(&self) -> RouteSnapshot {
        let messages = self.messages();
        let carried = messages.unwrap_or_default();
        let backends = self.route.backends.backends().iter();
        let mut snapshot = RouteSnapshot {
            name: self.route.name.clone(),
            listen: self.addr.clone(),
            pairs_open: self.pairs_open(),
            pairs_opened: self.sum(|counters| counters.pairs_opened.value()),
            connected: self.sum(|counters| counters.connected.value()),
            dial_retries: self.sum(|counters| counters.dial_retries.value()),
            early_dials: self.sum(|counters| counters.early_dials.value()),
            early_used: self.sum(|counters| counters.early_used.value()),
            early_wasted: self.sum(|counters| counters.early_wasted.value()),
            early_declined: self.sum(|counters| counters.early_declined.value()),
            ends: self.sums(|counters| &counters.ends),
            refusals: self.sums(|counters| &counters.refusals),
            upstream: self.flow(|counters| &counters.upstream).and_copied(carried.request_bytes),
            downstream: self.flow(|counters| &counters.downstream).and_copied(carried.answer_bytes),
            messages,
            connect: self.times(|counters| &counters.connect),
            first_byte: self.times(|counters| &counters.first_byte),
            backends: backends
                .map(|backend| BackendSnapshot {
                    name: backend.name().clone(),
                    healthy: backend.is_healthy(),
                    open: backend.open(),
                })
                .collect(),
            retired: self.retired,
        };
        if let Some(past) = &self.past {
            snapshot.absorb(past);
        }
        snapshot
    }
}

/// All that is watched. The lock is the control path's alone.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) cores: CoreFigures,
    routes: Mutex<Vec<Watched>>,
    /// Peers that are reached, or were: a counter never goes back.
    peers: Mutex<Vec<(Name, Vec<Arc<PeerCounters>>)>>,
    start: Instant,
}

impl Watch {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            cores: (0..cores).map(|_| Arc::default()).collect(),
            routes: Mutex::default(),
            peers: Mutex::default(),
            start: Instant::now(),
        }
    }

    fn routes(&self) -> MutexGuard<'_, Vec<Watched>> {
        // Each change is one push or one assignment, so a panic elsewhere can't have left it half done.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of a peer, by core.
    pub(super) fn peer(&self, peer: &Peer) -> Vec<Arc<PeerCounters>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counters)) = peers.iter().find(|(name, _)| *name == peer.name) {
            return counters.clone();
        }
        let counters: Vec<Arc<PeerCounters>> = self.cores.iter().map(|_| Arc::default()).collect();
        peers.push((peer.name, counters.clone()));
        counters
    }

    fn peer_snapshots(&self) -> Vec<PeerSnapshot> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(name, counters)| PeerSnapshot::of(*name, counters)).collect()
    }

    pub(super) fn add(&self, watched: Watched) {
        let mut routes = self.routes();
        routes.push(watched);
        // What a reload replaced is forgotten once its last pair has ended; its counts live on under its name.
        let gone: Vec<Watched> = routes.extract_if(.., |route| route.retired && route.pairs_open() == 0).collect();
        for gone in gone {
            if let Some(heir) = routes.iter_mut().rev().find(|route| route.route.name == gone.route.name) {
                heir.inherit(&gone);
            }
        }
    }

    pub(super) fn swap(&self, door: DoorId, route: &Arc<Route>) {
        if let Some(watched) = self.routes().iter_mut().find(|watched| watched.door == door) {
            watched.route = route.clone();
        }
    }

    pub(super) fn retire(&self, door: DoorId) {
        if let Some(watched) = self.routes().iter_mut().find(|watched| watched.door == door) {
            watched.retired = true;
        }
    }

    pub(super) fn pairs_open(&self) -> u64 {
        self.routes().iter().map(Watched::pairs_open).sum()
    }

    pub(super) fn ended_by(&self, end: End) -> u64 {
        self.routes().iter().map(|watched| watched.sum(|counters| counters.ends[end.index()].value())).sum()
    }
}

/// Takes figures of a running fleet. Clones watch the same fleet.
#[derive(Clone, Debug)]
pub struct Observer(pub(super) Arc<Watch>);

impl Observer {
    /// The figures now. Each is exact; together they are of slightly different moments.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let cores = &self.0.cores;
        Snapshot {
            uptime: self.0.start.elapsed(),
            cores: u16::try_from(cores.len()).unwrap_or(u16::MAX),
            routes: self.0.routes().iter().map(Watched::snapshot).collect(),
            peers: self.0.peer_snapshots(),
            pipes: cores.iter().map(|core| core.pipes.value()).sum(),
            pipes_leased: cores.iter().map(|core| core.pipes_leased.value()).sum(),
            pipes_missed: cores.iter().map(|core| core.pipes_missed.value()).sum(),
            turns: cores.iter().map(|core| core.turns.value()).sum(),
            panics: cores.iter().map(|core| core.panics.value()).sum(),
            stalls: cores.iter().map(|core| core.stalls.value()).sum(),
            reports_lost: cores.iter().map(|core| core.reports_lost.value()).sum(),
        }
    }
}

/// The figures of a fleet.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since the start.
    pub uptime: Duration,
    /// Loops.
    pub cores: u16,
    /// By listener. One that a reload has closed stays until its last pair has ended.
    pub routes: Vec<RouteSnapshot>,
    /// By peer that trunks lead to.
    pub peers: Vec<PeerSnapshot>,
    /// Pipes that exist.
    pub pipes: u64,
    /// Pipes that hold bytes.
    pub pipes_leased: u64,
    /// Times a bulk direction found no pipe and was copied.
    pub pipes_missed: u64,
    /// Turns of the loops.
    pub turns: u64,
    /// Upcalls in which a relay panicked.
    pub panics: u64,
    /// Times that a relay took far too long over one thing.
    pub stalls: u64,
    /// Pair reports that found the queue to the log full.
    pub reports_lost: u64,
}

/// The figures of one listener.
#[derive(Clone, Debug)]
pub struct RouteSnapshot {
    /// The route's name.
    pub name: Arc<str>,
    /// Where it listens.
    pub listen: Addr,
    /// Pairs open.
    pub pairs_open: u64,
    /// Pairs opened since the start.
    pub pairs_opened: u64,
    /// Pairs whose server leg came to stand.
    pub connected: u64,
    /// Dials begun again after one failed.
    pub dial_retries: u64,
    /// Pairs opened at their client's SYN.
    pub early_dials: u64,
    /// Those whose client came.
    pub early_used: u64,
    /// Those that ended before their client came, for whatever reason.
    pub early_wasted: u64,
    /// SYNs for which no pair was opened.
    pub early_declined: u64,
    /// Pairs ended, by [`End`].
    pub ends: [u64; End::COUNT],
    /// Clients refused, by [`Refusal`].
    pub refusals: [u64; Refusal::COUNT],
    /// From clients to servers.
    pub upstream: Flow,
    /// From servers to clients.
    pub downstream: Flow,
    /// What is carried, where messages are; their bytes are in `upstream` and `downstream` as well.
    pub messages: Option<MessagesSnapshot>,
    /// From clients' acceptance to their established server legs.
    pub connect: Times,
    /// From clients' acceptance to the first byte from the server that was handed on. A pair counts when it ends, or once it has
    /// stood for a second if the byte has come by then.
    pub first_byte: Times,
    /// The backends.
    pub backends: Vec<BackendSnapshot>,
    /// A reload has closed it; pairs are left.
    pub retired: bool,
}

impl RouteSnapshot {
    /// Adds the counts of `from`, a listener of the same name that a reload has closed.
    pub fn absorb(&mut self, from: &Self) {
        self.pairs_open += from.pairs_open;
        self.pairs_opened += from.pairs_opened;
        self.connected += from.connected;
        self.dial_retries += from.dial_retries;
        self.early_dials += from.early_dials;
        self.early_used += from.early_used;
        self.early_wasted += from.early_wasted;
        self.early_declined += from.early_declined;
        let add = |into: &mut [u64], from: &[u64]| into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        add(&mut self.ends, &from.ends);
        add(&mut self.refusals, &from.refusals);
        self.connect.absorb(&from.connect);
        self.first_byte.absorb(&from.first_byte);
        self.upstream.absorb(from.upstream);
        self.downstream.absorb(from.downstream);
        if let Some(from) = &from.messages {
            self.messages.get_or_insert_default().absorb(from);
        }
        // A backend that both share counts its pairs itself, so only those that are gone from this one are added.
        let gone = |backend: &&BackendSnapshot| !self.backends.iter().any(|live| live.name == backend.name);
        let gone: Vec<_> = from.backends.iter().filter(gone).filter(|backend| backend.open > 0).cloned().collect();
        self.backends.extend(gone);
    }
}

/// The pool to a peer.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// The peer's name.
    pub name: Name,
    /// Connections that wait ready.
    pub ready: u64,
    /// Connections being made.
    pub under_way: u64,
    /// Pairs that took one.
    pub taken: u64,
    /// Pairs that found none ready, and waited.
    pub missed: u64,
    /// Dials begun.
    pub dials: u64,
    /// Connections lost before a pair had them, by [`PoolLoss`].
    pub losses: [u64; PoolLoss::COUNT],
    /// Pairs that were given another connection.
    pub retries: u64,
    /// A round trip, in microseconds, by what the kernel says of trunk connections, or else by handshakes; 0 before the first.
    pub rtt_us: u64,
    /// Segments with data sent to it on trunk connections whose pair has ended.
    pub sent_segments: u64,
    /// Those that were sent again.
    pub retransmitted_segments: u64,
    /// Bytes a second at which trunk connections last delivered, on the core where that was most; 0 before the first.
    pub delivery_rate: u64,
    /// The most that any has delivered.
    pub delivery_rate_best: u64,
}

impl PeerSnapshot {
    fn of(name: Name, counters: &[Arc<PeerCounters>]) -> Self {
        let sum = |of: fn(&PeerCounters) -> &Counter| counters.iter().map(|core| of(core).value()).sum();
        let most = |of: fn(&PeerCounters) -> &Counter| counters.iter().map(|core| of(core).value()).max().unwrap_or(0);
        let shown_rtt_us = most(|core| &core.path.rtt_us);
        Self {
            name,
            ready: sum(|core| &core.ready),
            under_way: sum(|core| &core.under_way),
            taken: sum(|core| &core.taken),
            missed: sum(|core| &core.missed),
            dials: sum(|core| &core.dials),
            losses: std::array::from_fn(|index| counters.iter().map(|core| core.losses[index].value()).sum()),
            retries: sum(|core| &core.retries),
            rtt_us: if shown_rtt_us > 0 { shown_rtt_us } else { most(|core| &core.rtt_us) },
            sent_segments: sum(|core| &core.path.sent_segments),
            retransmitted_segments: sum(|core| &core.path.retransmitted_segments),
            delivery_rate: most(|core| &core.path.delivery_rate),
            delivery_rate_best: most(|core| &core.path.delivery_rate_best),
        }
    }
}

/// A backend, as the fleet sees it.
#[derive(Clone, Debug)]
pub struct BackendSnapshot {
    /// The name as the operator wrote it.
    pub name: Arc<str>,
    /// Whether new pairs go there.
    pub healthy: bool,
    /// Pairs open to it.
    pub open: u32,
}

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Counts by bucket of [`TIME_BOUNDS_US`], not cumulative.
    pub buckets: [u64; TIME_BOUNDS_US.len() + 1],
    /// Sum of the times, in microseconds.
    pub sum_us: u64,
}

impl Times {
    /// Adds the counts of `from`.
    pub fn absorb(&mut self, from: &Self) {
        self.sum_us += from.sum_us;
        self.buckets.iter_mut().zip(from.buckets).for_each(|(into, from)| *into += from);
    }
}

/// Bytes moved in one direction, by how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Through the core's buffer.
    pub copied_bytes: u64,
    /// Through a pipe.
    pub spliced_bytes: u64,
}

impl Flow {
    const fn and_copied(self, bytes: u64) -> Self {
        Self { copied_bytes: self.copied_bytes.wrapping_add(bytes), ..self }
    }

    const fn absorb(&mut self, from: Self) {
        self.copied_bytes += from.copied_bytes;
        self.spliced_bytes += from.spliced_bytes;
    }
}
