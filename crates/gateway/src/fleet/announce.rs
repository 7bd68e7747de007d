//! How the cores are told of clients' SYNs.

use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use midmile_engine::kernel::Waker;

use super::Listening;
use crate::relay::Syn;
use crate::serving::DoorId;

/// Where clients are dialled for early, kept up to date by the fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Vec<(SocketAddr, DoorId)>>>);

impl Places {
    /// Takes note of what listens now.
    pub(super) fn replace(&self, doors: &[(DoorId, Listening)]) {
        let early = doors.iter().filter(|(_, listening)| listening.route.early_dial);
        let places = early.filter_map(|(door, listening)| Some((listening.addr.inet()?, *door))).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// The way in of a connection to `listener`: the one on that very address, or else on every address.
    fn door(&self, listener: SocketAddr) -> Option<DoorId> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let exact = places.iter().find(|(at, _)| *at == listener);
        let wild = || {
            places.iter().find(|(at, _)| {
                let same_family = at.is_ipv6() || listener.is_ipv4();
                at.port() == listener.port() && at.ip().is_unspecified() && same_family
            })
        };
        exact.or_else(wild).map(|(_, door)| *door)
    }

    fn all(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(at, _)| *at).collect()
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
        self.places.all()
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
