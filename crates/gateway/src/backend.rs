//! Backends of a route: their addresses, their health, and how one is chosen.
//!
//! A set is shared by the cores and by the health checker. Health is one flag a backend, written by the checker; the number of
//! open pairs is one cell a core, written by that core alone. So choosing takes no lock. Addresses never change: when a name
//! resolves to something new, the control side makes a new set and hands it over with a new plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use midmile_engine::Addr;
use midmile_mux::{Place, Transport};
use midmile_wire::trunk::hello::Destination;

/// Most backends a route may have: which ones a pair has tried is kept in one 64-bit word.
pub const BACKENDS_MAX: usize = 64;

/// How a backend is chosen for a new pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after another, each core for itself.
    #[default]
    RoundRobin,
    /// The one with the fewest open pairs, counted over all cores; ties go round.
    LeastConnections,
}

/// How a backend's health is checked: by a connection that is closed again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Between two checks.
    pub every: Duration,
    /// For a check to succeed.
    pub timeout: Duration,
    /// Successes in a row that bring a backend back.
    pub rise: u32,
    /// Failures in a row that take a backend out.
    pub fall: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { every: Duration::from_secs(5), timeout: Duration::from_secs(2), rise: 2, fall: 3 }
    }
}

/// One backend: a name as the operator wrote it, and the addresses it stands for.
#[derive(Debug)]
pub struct Backend {
    /// Its name, its addresses and its health; a multiplexor sees the same.
    place: Arc<Place>,
    /// Where the last gateway of a trunk goes for it.
    destination: Option<Destination>,
    open: Box<[AtomicU32]>,
}

impl Backend {
    /// A backend named `name` that stands for `addrs`, counted by `cores` cores. It starts healthy.
    ///
    /// # Panics
    /// If `addrs` is empty.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, addrs: Vec<Addr>, cores: u16) -> Self {
        Self::at(Place::new(name.into(), addrs), cores)
    }

    /// A backend at a place, which says how a multiplexor asks it too; counted by `cores` cores.
    #[must_use]
    pub fn at(place: Place, cores: u16) -> Self {
        Self { place: Arc::new(place), destination: None, open: (0..cores.max(1)).map(|_| AtomicU32::new(0)).collect() }
    }

    /// A backend behind a trunk: another gateway finds and dials it. It is taken for healthy.
    #[must_use]
    pub fn behind_trunk(name: impl Into<Arc<str>>, destination: Destination, cores: u16) -> Self {
        Self {
            // No multiplexor sees it: messages don't go through trunks.
            place: Arc::new(Place {
                name: name.into(),
                addrs: Vec::new(),
                transport: Transport::Tcp,
                healthy: AtomicBool::new(true),
            }),
            destination: Some(destination),
            open: (0..cores.max(1)).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// The name as the operator wrote it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.place.name
    }

    /// What a multiplexor is told of it.
    #[must_use]
    pub const fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Where the last gateway of a trunk goes for it; `None` for one that is dialled from here.
    #[must_use]
    pub const fn destination(&self) -> Option<&Destination> {
        self.destination.as_ref()
    }

    /// The addresses, tried in this order. Empty behind a trunk only.
    #[must_use]
    pub fn addrs(&self) -> &[Addr] {
        &self.place.addrs
    }

    /// Whether new pairs, or messages, may go there.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.place.healthy.load(Relaxed)
    }

    /// Lets new pairs or messages go there, or not. Open pairs aren't touched.
    pub fn set_healthy(&self, healthy: bool) {
        self.place.healthy.store(healthy, Relaxed);
    }

    /// Pairs open to it on all cores.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.iter().fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }

    /// Counts a pair opened by `core`. Only that core may call it.
    pub(crate) fn opened(&self, core: usize) {
        let cell = &self.open[core];
        cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts a pair ended by `core`. Only that core may call it.
    pub(crate) fn ended(&self, core: usize) {
        let cell = &self.open[core];
        cell.store(cell.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

/// Which backends of a set a pair has tried already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried(u64);

impl Tried {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn mark(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    const fn has(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }
}

/// The backends of a route.
#[derive(Debug)]
pub struct BackendSet {
    backends: Box<[Arc<Backend>]>,
    balance: Balance,
    health: Option<HealthCheck>,
}

impl BackendSet {
    /// A set of at most [`BACKENDS_MAX`] backends. Only a trunk listener has none.
    ///
    /// # Panics
    /// If there are too many.
    #[must_use]
    pub fn new(backends: Vec<Arc<Backend>>, balance: Balance, health: Option<HealthCheck>) -> Self {
        assert!(backends.len() <= BACKENDS_MAX, "a route has {BACKENDS_MAX} backends at most");
        Self { backends: backends.into(), balance, health }
    }

    /// The backends, in the operator's order.
    #[must_use]
    pub const fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// How one is chosen.
    #[must_use]
    pub const fn balance(&self) -> Balance {
        self.balance
    }

    /// How they are checked, if they are.
    #[must_use]
    pub const fn health(&self) -> Option<HealthCheck> {
        self.health
    }

    /// The backend for a pair's next dial: healthy, not tried yet. `turn` is the choosing core's own place in the round.
    pub(crate) fn choose(&self, turn: &mut usize, tried: Tried) -> Option<usize> {
        let count = self.backends.len();
        let start = turn.checked_rem(count)?;
        let candidates = (0..count)
            .map(|step| (start + step) % count)
            .filter(|index| !tried.has(*index) && self.backends[*index].is_healthy());
        let chosen = match self.balance {
            Balance::RoundRobin => { candidates }.next(),
            Balance::LeastConnections => candidates.min_by_key(|index| self.backends[*index].open()),
        }?;
        *turn = chosen + 1;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(balance: Balance) -> BackendSet {
        let addr = || vec![Addr::Inet(([127, 0, 0, 1], 1).into())];
        let backends = ["a", "b", "c"].map(|name| Arc::new(Backend::new(name, addr(), 2)));
        BackendSet::new(backends.into(), balance, None)
    }

    #[test]
    fn round_robin_goes_round_and_leaves_out_the_sick_and_the_tried() {
        let set = set(Balance::RoundRobin);
        let mut turn = 0;
        let none = Tried::default();
        assert_eq!([(); 4].map(|()| set.choose(&mut turn, none)), [Some(0), Some(1), Some(2), Some(0)]);
        set.backends()[1].set_healthy(false);
        assert_eq!(set.choose(&mut turn, none), Some(2));
        let mut tried = Tried::default();
        tried.mark(0);
        assert_eq!(set.choose(&mut turn, tried), Some(2));
        tried.mark(2);
        assert_eq!(set.choose(&mut turn, tried), None);
    }

    #[test]
    fn least_connections_counts_every_core_and_breaks_ties_in_turn() {
        let set = set(Balance::LeastConnections);
        let mut turn = 0;
        let none = Tried::default();
        assert_eq!([(); 3].map(|()| set.choose(&mut turn, none)), [Some(0), Some(1), Some(2)]);
        set.backends()[0].opened(0);
        set.backends()[1].opened(1);
        assert_eq!(set.choose(&mut turn, none), Some(2));
        set.backends()[0].ended(0);
        set.backends()[2].opened(0);
        assert_eq!(set.choose(&mut turn, none), Some(0));
    }
}
