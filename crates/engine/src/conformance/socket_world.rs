//! A world whose peers are the kernel's sockets, for any backend that the kernel can talk to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::letters::SocketCorrespondent;
use super::sockets::{Home, SocketDoor, SocketPeer, Sockets};
use super::world::{Ability, Heard, Posting, Skip, World};
use crate::addr::Addr;
use crate::backend::Backend;
use crate::datagram::DATAGRAM_BYTES_MAX;
use crate::kernel::Kernel;
use crate::uring::{Unavailable, Uring, UringConfig};

/// Longer than the kernel takes to give a ring's memory back.
const RING_WAIT: Duration = Duration::from_secs(20);

/// Descriptors of a process that's to run out of them.
const FEW: u64 = 100;

/// What a backend adds to a world of the kernel's sockets.
pub trait Side {
    /// What is tested.
    type Backend: Backend + 'static;

    /// Its name.
    fn name(&self) -> &'static str;

    /// A backend of its own for a core.
    fn backend(&mut self) -> Self::Backend;

    /// Where its listeners stand, with port 0, if that isn't where peers do.
    fn home(&self) -> Option<Addr> {
        None
    }

    /// Another address of its, for sockets for datagrams, where [`Side::home`] says one.
    fn second_home(&self) -> Option<IpAddr> {
        None
    }

    /// Bytes of the longest datagram that goes each way.
    fn datagram_bytes_max(&self) -> usize {
        DATAGRAM_BYTES_MAX
    }

    /// Datagrams to `at` that were dropped for want of room before they came to the engine.
    fn dropped(&self, backend: &mut Self::Backend, at: SocketAddr) -> u64;

    /// Why it lacks `ability`, beyond what its transport lacks.
    fn lacks(&self, _ability: Ability) -> Option<&'static str> {
        None
    }
}

/// A backend among the kernel's sockets.
pub struct SocketWorld<S> {
    side: S,
    sockets: Sockets,
    /// The process does nothing but this, so that its descriptors may be taken away.
    alone: bool,
    /// Descriptors that nobody else is to have.
    fillers: Vec<OwnedFd>,
    /// Where the network forbids to go.
    denied: Option<Addr>,
}

impl<S: Side> SocketWorld<S> {
    /// `side` with peers among `sockets`.
    #[must_use]
    pub const fn new(side: S, sockets: Sockets) -> Self {
        Self { side, sockets, alone: false, fillers: Vec::new(), denied: None }
    }

    /// The same in a process that does nothing else. Its descriptors are few from now on (`RLIMIT_NOFILE`, getrlimit(2)): the kernel
    /// reads the limit when an accept is asked for, which with io_uring is long before.
    ///
    /// # Panics
    /// When the limit can't be lowered.
    #[must_use]
    pub fn alone(self) -> Self {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(FEW), ..limit }).expect("a limit may be lowered");
        Self { alone: true, ..self }
    }

    /// The same in a network where nobody may go to `to`.
    #[must_use]
    pub fn forbidding(self, to: Addr) -> Self {
        Self { denied: Some(to), ..self }
    }

    fn transport_lacks(&self, ability: Ability) -> Option<&'static str> {
        match (self.sockets.home(), ability) {
            (_, Ability::Starving) if !self.alone => Some("the process's descriptors aren't this test's alone"),
            (Home::Inet(_), Ability::Denials) if self.denied.is_none() => Some("this network forbids no way"),
            (Home::Inet(_), Ability::BusyListeners) => Some("TCP waits by itself for room in a listener's queue"),
            (Home::Inet(IpAddr::V6(_)), Ability::DialFrom) => Some("this host has one IPv6 address of its own"),
            (Home::Inet(IpAddr::V6(_)), Ability::TwoAddrs) if self.side.home().is_none() => {
                Some("this host has one IPv6 address of its own")
            }
            (Home::Inet(_), Ability::Truncation) => Some("no packet has a datagram that is too long for an inbox"),
            (Home::Inet(_), _) => None,
            (Home::Unix, Ability::Datagrams) => Some("datagrams of Unix-domain sockets aren't the engine's"),
            (Home::Unix, Ability::Resets | Ability::QueueResets) => Some("Unix-domain sockets know no reset"),
            (Home::Unix, Ability::Vanishing) => Some("Unix-domain peers are there or gone"),
            (Home::Unix, Ability::Silence) => Some("a Unix-domain listener answers at once, be it that it's full"),
            (Home::Unix, Ability::PeerAddrs) => Some("Unix-domain peers have no names"),
            (Home::Unix, Ability::DialFrom) => Some("Unix-domain peers have no addresses"),
            (Home::Unix, Ability::SendsAhead) => Some("a Unix-domain socket sends at once"),
            (Home::Unix, _) => None,
        }
    }
}

impl<S: Side> World for SocketWorld<S> {
    type Backend = S::Backend;
    type Peer = SocketPeer;
    type Door = SocketDoor;
    type Correspondent = SocketCorrespondent;

    fn name(&self) -> String {
        format!("{} among {}", self.side.name(), self.sockets.home())
    }

    fn lacks(&self, ability: Ability) -> Option<&'static str> {
        self.transport_lacks(ability).or_else(|| self.side.lacks(ability))
    }

    fn backend(&mut self) -> S::Backend {
        self.side.backend()
    }

    fn free_addr(&mut self) -> Addr {
        self.side.home().unwrap_or_else(|| self.sockets.free_addr())
    }

    fn connect(&mut self, _backend: &mut S::Backend, to: &Addr) -> SocketPeer {
        self.sockets.connect(to)
    }

    fn door(&mut self, _backend: &mut S::Backend) -> (SocketDoor, Addr) {
        self.sockets.door()
    }

    fn take(&mut self, _backend: &mut S::Backend, door: &mut SocketDoor) -> Option<SocketPeer> {
        Sockets::take(door)
    }

    fn refusing(&mut self, _backend: &mut S::Backend) -> Addr {
        self.sockets.refusing()
    }

    fn unreachable(&mut self, _backend: &mut S::Backend) -> Addr {
        self.sockets.unreachable()
    }

    fn denied(&mut self, _backend: &mut S::Backend) -> Addr {
        self.denied.clone().unwrap_or_else(|| self.sockets.forbidden())
    }

    fn silent(&mut self, _backend: &mut S::Backend) -> Addr {
        self.sockets.full()
    }

    fn send(&mut self, _backend: &mut S::Backend, peer: &mut SocketPeer, bytes: &[u8]) -> Option<usize> {
        Sockets::send(peer, bytes)
    }

    fn recv(&mut self, _backend: &mut S::Backend, peer: &mut SocketPeer, buf: &mut [u8]) -> Heard {
        Sockets::recv(peer, buf)
    }

    fn finish(&mut self, _backend: &mut S::Backend, peer: &mut SocketPeer) {
        Sockets::finish(peer);
    }

    fn close(&mut self, _backend: &mut S::Backend, peer: SocketPeer) {
        drop(peer);
    }

    fn reset(&mut self, _backend: &mut S::Backend, peer: SocketPeer) {
        Sockets::reset(peer);
    }

    fn vanish(&mut self, _backend: &mut S::Backend, peer: SocketPeer) {
        self.sockets.vanish(peer);
    }

    /// On loopback every address below 127 is this host's; the source is one that nobody has bound.
    fn strange_addr(&mut self) -> SocketAddr {
        ([127, 77, 0, 9], 0).into()
    }

    fn caller_of(&self, _backend: &mut S::Backend, peer: &SocketPeer) -> Option<Addr> {
        self.lacks(Ability::PeerAddrs).map_or_else(|| Sockets::caller_of(peer), |_| None)
    }

    fn addr_of(&self, _backend: &mut S::Backend, peer: &SocketPeer) -> Option<Addr> {
        self.lacks(Ability::PeerAddrs).map_or_else(|| Sockets::addr_of(peer), |_| None)
    }

    fn datagram_addrs(&self) -> Vec<IpAddr> {
        match (self.side.home().and_then(|home| home.inet()), self.sockets.home()) {
            (Some(home), _) => [Some(home.ip()), self.side.second_home()].into_iter().flatten().collect(),
            // On loopback every address below 127 is this host's.
            (None, Home::Inet(IpAddr::V4(ip))) => vec![ip.into(), Ipv4Addr::new(127, 0, 0, 2).into()],
            (None, Home::Inet(ip)) => vec![ip],
            (None, Home::Unix) => Vec::new(),
        }
    }

    fn datagram_bytes_max(&self) -> usize {
        self.side.datagram_bytes_max()
    }

    fn correspondent(&mut self, _backend: &mut S::Backend) -> (SocketCorrespondent, SocketAddr) {
        self.sockets.correspondent()
    }

    fn post(
        &mut self,
        _backend: &mut S::Backend,
        from: &mut SocketCorrespondent,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<u16>,
    ) -> Posting {
        Sockets::post(from, to, bytes, segment)
    }

    /// Between sockets of the kernel's a piece is cut up by whoever reads it; to others it comes cut up.
    fn cuts_up(&self) -> bool {
        self.side.home().is_none()
    }

    fn collect(
        &mut self,
        _backend: &mut S::Backend,
        peer: &mut SocketCorrespondent,
        buf: &mut [u8],
    ) -> Option<(usize, SocketAddr)> {
        Sockets::collect(peer, buf)
    }

    fn vacant(&mut self, _backend: &mut S::Backend) -> SocketAddr {
        self.sockets.vacant()
    }

    fn dropped(&mut self, backend: &mut S::Backend, at: SocketAddr) -> u64 {
        self.side.dropped(backend, at)
    }

    /// Opens what the limit lets it, and closes the spare ones.
    fn starve(&mut self, _backend: &mut S::Backend, spare: Option<usize>) {
        self.fillers.clear();
        if let Some(spare) = spare {
            self.fillers.extend(Sockets::all_descriptors());
            let left = self.fillers.len().saturating_sub(spare);
            self.fillers.truncate(left);
        }
    }
}

/// The kernel's sockets by epoll.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelSide;

impl Side for KernelSide {
    type Backend = Kernel;

    fn name(&self) -> &'static str {
        "kernel"
    }

    fn lacks(&self, ability: Ability) -> Option<&'static str> {
        match ability {
            Ability::DialFrom => {
                crate::probe::transparent().is_err().then_some("this process may not take others' addresses")
            }
            Ability::FullSockets => Some("on loopback a socket's datagrams are at their peer's at once"),
            _ => None,
        }
    }

    fn backend(&mut self) -> Kernel {
        Kernel::new().expect("the system has an epoll instance left")
    }

    fn dropped(&self, _backend: &mut Kernel, at: SocketAddr) -> u64 {
        Sockets::dropped(at)
    }
}

/// The kernel's sockets by epoll, with peers at `home`.
///
/// # Errors
/// When this host has no such address.
pub fn kernel_world(home: Home) -> Result<SocketWorld<KernelSide>, Skip> {
    Ok(SocketWorld::new(KernelSide, Sockets::new(home)?))
}

/// The kernel's sockets by io_uring.
#[derive(Clone, Copy, Debug, Default)]
pub struct UringSide;

impl Side for UringSide {
    type Backend = Uring;

    fn name(&self) -> &'static str {
        "uring"
    }

    fn lacks(&self, ability: Ability) -> Option<&'static str> {
        KernelSide.lacks(ability)
    }

    /// The kernel takes a ring apart some time after it was closed; where many were, the next may find no memory for a moment.
    fn backend(&mut self) -> Uring {
        let deadline = Instant::now() + RING_WAIT;
        loop {
            match Uring::new(UringConfig::default()) {
                Ok(ring) => return ring,
                Err(Unavailable::NoMemory) if Instant::now() < deadline => thread::yield_now(),
                Err(error) => panic!("a ring could be made before: {error}"),
            }
        }
    }

    fn dropped(&self, _backend: &mut Uring, at: SocketAddr) -> u64 {
        Sockets::dropped(at)
    }
}

/// The kernel's sockets by io_uring, with peers at `home`.
///
/// # Errors
/// When this host has no such address, or no io_uring for us.
pub fn uring_world(home: Home) -> Result<SocketWorld<UringSide>, Skip> {
    crate::probe::io_uring().map_err(|error| Skip(format!("io_uring isn't tried: {error}")))?;
    Ok(SocketWorld::new(UringSide, Sockets::new(home)?))
}
