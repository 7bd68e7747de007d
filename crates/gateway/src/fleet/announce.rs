//! How the cores are told of clients' SYNs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use midmile_engine::kernel::Waker;

use super::Listening;
use crate::plan::Route;
use crate::relay::Syn;
use crate::serving::DoorId;
use crate::trunk::Rule;

/// A way in whose clients are dialled for early.
#[derive(Debug)]
struct Place {
    at: SocketAddr,
    door: DoorId,
    route: Arc<Route>,
}

impl Place {
    /// The addresses that SYNs for it go to; of an intercepted network any address, which stands for all of them.
    fn heard_at(&self) -> Vec<SocketAddr> {
        let intercepted = self.route.intercept.iter().flat_map(|rule| {
            let ip = if is_alone(rule) { rule.net.addr() } else { unspecified(rule) };
            rule.ports.clone().map(move |port| SocketAddr::new(ip, port))
        });
        let own = (!self.route.original).then_some(self.at);
        own.into_iter().chain(intercepted).collect()
    }
}

/// Whether the rule is of one address.
fn is_alone(rule: &Rule) -> bool {
    rule.net.prefix_len() == rule.net.max_prefix_len()
}

fn unspecified(rule: &Rule) -> IpAddr {
    match rule.net.addr() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Where clients are dialled for early, kept up to date by the fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Vec<Place>>>);

impl Places {
    /// Takes note of what listens now.
    pub(super) fn replace(&self, doors: &[(DoorId, Listening)]) {
        let early = doors.iter().filter(|(_, listening)| listening.route.early_dial);
        let places = early.filter_map(|(door, listening)| {
            Some(Place { at: listening.addr.inet()?, door: *door, route: listening.route.clone() })
        });
        *self.lock() = places.collect();
    }

    /// The way in of a connection to `listener`: the one on that very address, or the one that intercepts it, or else the one on
    /// every address.
    fn door(&self, listener: SocketAddr) -> Option<DoorId> {
        let places = self.lock();
        let exact = places.iter().find(|place| place.at == listener);
        let intercepting = || places.iter().find(|place| place.route.intercepts(listener));
        let wild = || {
            places.iter().find(|Place { at, .. }| {
                let same_family = at.is_ipv6() || listener.is_ipv4();
                at.port() == listener.port() && at.ip().is_unspecified() && same_family
            })
        };
        exact.or_else(intercepting).or_else(wild).map(|place| place.door)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the cores of clients' SYNs, so that they dial onward early.
#[derive(Clone, Debug)]
pub struct Announcer {
    /// A core's CPU, and the way to it.
    cores: Vec<(u32, SyncSender<Syn>, Waker)>,
    places: Places,
}

impl Announcer {
    pub(super) const fn new(cores: Vec<(u32, SyncSender<Syn>, Waker)>, places: Places) -> Self {
        Self { cores, places }
    }

    /// The listeners whose clients are dialled for early.
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.places.lock().iter().flat_map(Place::heard_at).collect()
    }

    /// Whether networks are intercepted for any of them: SYNs to addresses that aren't this host's are theirs then.
    #[must_use]
    pub fn intercepts_networks(&self) -> bool {
        self.places.lock().iter().any(|place| place.route.intercept.iter().any(|rule| !is_alone(rule)))
    }

    /// `client` has sent a SYN to `listener`, which came on `cpu`: the core that will accept it is told. False if nobody is to be
    /// told, or that core has too many to hear of already.
    pub fn announce(&self, client: SocketAddr, listener: SocketAddr, cpu: u32) -> bool {
        let Some(door) = self.places.door(listener) else { return false };
        // As the listeners are steered: by CPU, or else by its number.
        let by_cpu = self.cores.iter().find(|(of, ..)| *of == cpu);
        let by_number = || self.cores.get(cpu as usize % self.cores.len().max(1));
        let Some((_, syns, waker)) = by_cpu.or_else(by_number) else { return false };
        let told = syns.try_send(Syn { door, client, listener }).is_ok();
        if told {
            waker.wake();
        }
        told
    }
}
