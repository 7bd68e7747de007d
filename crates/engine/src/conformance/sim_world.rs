//! The simulation as a world: peers are remotes that the case acts for, and a seed decides the rest.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::world::{Ability, Heard, Posting, Skip, World};
use crate::addr::Addr;
use crate::backend::Progress;
use crate::error::ConnError;
use crate::sim::{DialOutcome, RemoteId, Rng, Sim, Weather};

/// The longest datagram of the simulation's ways: what Ethernet leaves room for.
const DATAGRAM_BYTES: usize = 1472;

/// The simulation, from a seed.
pub struct SimWorld {
    seed: u64,
    rng: Rng,
    addrs: u16,
}

/// An address that a core dials in the simulation.
#[derive(Debug)]
pub struct SimDoor {
    at: Addr,
    taken: usize,
}

/// A stranger in the simulation.
#[derive(Debug)]
pub struct SimCorrespondent {
    at: SocketAddr,
    collected: usize,
}

impl SimWorld {
    /// The world of `seed`.
    ///
    /// # Errors
    /// Never.
    pub const fn new(seed: u64) -> Result<Self, Skip> {
        Ok(Self { seed, rng: Rng::new(seed), addrs: 0 })
    }

    /// The worlds of the first `count` seeds.
    pub fn seeds(count: u64) -> impl Iterator<Item = Result<Self, Skip>> {
        (0..count).map(Self::new)
    }

    fn addr(&mut self) -> Addr {
        self.addrs += 1;
        Addr::Inet(([10, 0, 0, 2], self.addrs).into())
    }

    /// The address of the next peer that talks by datagrams.
    fn stranger(&mut self) -> SocketAddr {
        self.addrs += 1;
        ([198, 51, 100, 1], self.addrs).into()
    }

    /// Bytes that may wait each way: few or many, so that both short and long reads are seen; but more than the messages of a case, which
    /// wait there where a core has no blocks.
    fn window(&mut self) -> usize {
        match self.rng.up_to(2) {
            0 => 150 + self.rng.up_to(200),
            1 => 1000,
            _ => 4000,
        }
    }

    fn wait(&mut self) -> Duration {
        Duration::from_micros(self.rng.up_to(5_000) as u64)
    }

    /// An address where dials end in `error`, at once or later.
    fn failing(&mut self, backend: &mut Sim, error: ConnError) -> Addr {
        let at = self.addr();
        let outcome = if self.rng.one_in(2) {
            DialOutcome::FailsAtOnce(error)
        } else {
            DialOutcome::FailsAfter(self.wait(), error)
        };
        backend.server(&at, vec![outcome]);
        at
    }
}

impl World for SimWorld {
    type Backend = Sim;
    type Peer = RemoteId;
    type Door = SimDoor;
    type Correspondent = SimCorrespondent;

    fn name(&self) -> String {
        format!("simulation of seed {}", self.seed)
    }

    fn lacks(&self, ability: Ability) -> Option<&'static str> {
        match ability {
            Ability::BusyListeners => Some("the simulation's listeners have room for all"),
            Ability::Travels => Some("the simulation has one core"),
            _ => None,
        }
    }

    fn backend(&mut self) -> Sim {
        let mut sim = Sim::new(self.rng.number(), false);
        let calm = if self.keeps_order() { Duration::ZERO } else { Weather::default().delay_max };
        sim.set_weather(Weather { delay_max: calm, bytes_max: DATAGRAM_BYTES, ..Weather::default() });
        sim
    }

    fn free_addr(&mut self) -> Addr {
        self.addr()
    }

    fn connect(&mut self, backend: &mut Sim, to: &Addr) -> RemoteId {
        let window = self.window();
        backend.hand_client(to, window)
    }

    fn door(&mut self, backend: &mut Sim) -> (SimDoor, Addr) {
        let at = self.addr();
        let outcome = DialOutcome::ByHand(self.wait(), self.window());
        backend.server(&at, vec![outcome]);
        (SimDoor { at: at.clone(), taken: 0 }, at)
    }

    fn take(&mut self, backend: &mut Sim, door: &mut SimDoor) -> Option<RemoteId> {
        let next = backend.dialled(&door.at).nth(door.taken)?;
        if !backend.remote(next).was_connected() {
            return None;
        }
        door.taken += 1;
        Some(next)
    }

    fn refusing(&mut self, backend: &mut Sim) -> Addr {
        self.failing(backend, ConnError::Refused)
    }

    fn unreachable(&mut self, backend: &mut Sim) -> Addr {
        self.failing(backend, ConnError::Unreachable)
    }

    fn denied(&mut self, backend: &mut Sim) -> Addr {
        self.failing(backend, ConnError::Denied)
    }

    fn silent(&mut self, backend: &mut Sim) -> Addr {
        let at = self.addr();
        backend.server(&at, vec![DialOutcome::Silent]);
        at
    }

    fn send(&mut self, backend: &mut Sim, peer: &mut RemoteId, bytes: &[u8]) -> Option<usize> {
        match backend.hand_send(*peer, bytes) {
            Ok(Progress::Moved(sent)) => Some(sent),
            Ok(_) => Some(0),
            Err(_) => None,
        }
    }

    fn recv(&mut self, backend: &mut Sim, peer: &mut RemoteId, buf: &mut [u8]) -> Heard {
        match backend.hand_recv(*peer, buf) {
            Ok(Progress::Moved(bytes)) => Heard::Bytes(bytes),
            Ok(Progress::Blocked) => Heard::Nothing,
            Ok(Progress::Ended) => Heard::End,
            Err(_) => Heard::Reset,
        }
    }

    fn finish(&mut self, backend: &mut Sim, peer: &mut RemoteId) {
        backend.hand_finish(*peer);
    }

    fn close(&mut self, backend: &mut Sim, peer: RemoteId) {
        backend.hand_close(peer);
    }

    fn reset(&mut self, backend: &mut Sim, peer: RemoteId) {
        backend.hand_reset(peer);
    }

    fn vanish(&mut self, backend: &mut Sim, peer: RemoteId) {
        backend.hand_vanish(peer);
    }

    fn strange_addr(&mut self) -> SocketAddr {
        ([10, 77, 0, 9], 0).into()
    }

    fn caller_of(&self, backend: &mut Sim, peer: &RemoteId) -> Option<Addr> {
        backend.remote(*peer).source().map(Addr::Inet)
    }

    fn addr_of(&self, _backend: &mut Sim, peer: &RemoteId) -> Option<Addr> {
        Some(peer.addr())
    }

    fn starve(&mut self, backend: &mut Sim, spare: Option<usize>) {
        backend.starve(spare.is_some());
    }

    fn datagram_addrs(&self) -> Vec<IpAddr> {
        vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()]
    }

    fn datagram_bytes_max(&self) -> usize {
        DATAGRAM_BYTES
    }

    fn correspondent(&mut self, _backend: &mut Sim) -> (SimCorrespondent, SocketAddr) {
        let at = self.stranger();
        (SimCorrespondent { at, collected: 0 }, at)
    }

    fn post(
        &mut self,
        backend: &mut Sim,
        from: &mut SimCorrespondent,
        to: SocketAddr,
        bytes: &[u8],
        _segment: Option<u16>,
    ) -> Posting {
        backend.post(Duration::ZERO, from.at, to, bytes.to_vec());
        Posting::Gone
    }

    fn collect(
        &mut self,
        backend: &mut Sim,
        peer: &mut SimCorrespondent,
        buf: &mut [u8],
    ) -> Option<(usize, SocketAddr)> {
        let (from, bytes) = backend.posted(peer.at).get(peer.collected)?;
        buf[..bytes.len()].copy_from_slice(bytes);
        peer.collected += 1;
        Some((bytes.len(), *from))
    }

    fn vacant(&mut self, backend: &mut Sim) -> SocketAddr {
        let at = self.stranger();
        backend.set_bound(at, false);
        at
    }

    fn dropped(&mut self, backend: &mut Sim, at: SocketAddr) -> u64 {
        backend.overflown(at)
    }

    /// In every other world, so that both is seen.
    fn keeps_order(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    fn held_max(&self) -> usize {
        12_000
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn quiet_turns(&self) -> u32 {
        30
    }
}
