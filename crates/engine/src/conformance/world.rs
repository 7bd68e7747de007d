//! What a case needs of the surroundings of a backend: listeners that peers can reach, addresses to dial, and peers to act for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::addr::Addr;
use crate::backend::Backend;

/// What a world may lack. A case that needs it is skipped there, and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ability {
    /// Connections can be reset, and the other side can tell a reset from an end.
    Resets,
    /// Peers can stop answering, as if their hosts were gone.
    Vanishing,
    /// There is an address where a dial is never answered.
    Silence,
    /// A dial to a listener whose queue is full fails with [`ConnError::Busy`](crate::ConnError::Busy), rather than wait.
    BusyListeners,
    /// There is an address where this host may not go.
    Denials,
    /// Connections can move from one of the world's backends to another.
    Travels,
    /// The backend can be brought to find no descriptor for an accept: [`World::starve`].
    Starving,
    /// Connections that stand and weren't accepted are reset when their listener is closed.
    QueueResets,
    /// Peers have addresses of their own, which [`Incoming::peer`](crate::Incoming) shows.
    PeerAddrs,
    /// [`Cx::dial_from`](crate::Cx::dial_from) works for this process.
    DialFrom,
    /// Bytes sent ahead wait for others, which [`Cx::unsent`](crate::Cx::unsent) shows.
    SendsAhead,
    /// Peers talk to the core by datagrams.
    Datagrams,
    /// The core has two addresses for its sockets for datagrams.
    TwoAddrs,
    /// A datagram can come that's longer than the backend has room for.
    Truncation,
    /// A socket for datagrams can be full: its transport takes less than a program sends at once.
    FullSockets,
    /// A socket for datagrams with one peer hears that nobody is bound there: [`World::vacant`].
    Absence,
}

/// Why a case wasn't run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a case ended that didn't fail: `Err` says why it was skipped. A failure is a panic.
pub type Verdict = Result<(), Skip>;

/// What a peer's read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many bytes, at least one.
    Bytes(usize),
    /// None for the moment.
    Nothing,
    /// The end, after all bytes.
    End,
    /// The connection was reset, or never came to stand.
    Reset,
}

/// What became of a datagram that a peer was to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posting {
    /// It's on its way.
    Gone,
    /// There's no room for the moment.
    NotNow,
    /// It's longer than peers can send.
    TooLong,
}

/// The surroundings of one backend under test. Made anew for each case.
///
/// Peers are never waited for: each call does what can be done at once, and the case calls again after the core's next turn. So peers may
/// stand behind the very core that is tested (a TCP in user space), or in another network namespace: see [`super::Sockets`].
pub trait World {
    /// What is tested.
    type Backend: Backend + 'static;
    /// The far end of a connection.
    type Peer;
    /// Where peers accept what the core dials.
    type Door;
    /// A peer that talks by datagrams ([`Ability::Datagrams`], as all that is about them).
    type Correspondent;

    /// The world's name, and whatever makes the run repeatable, for messages.
    fn name(&self) -> String;

    /// Why the world lacks `ability`; `None` if it has it.
    fn lacks(&self, ability: Ability) -> Option<&'static str>;

    /// A backend of its own for a core. Cases with several cores ask several times.
    fn backend(&mut self) -> Self::Backend;

    /// An address that nobody listens on, for a listener of the core's, where peers reach it. Its port may be 0.
    fn free_addr(&mut self) -> Addr;

    /// A peer that begins to connect to `to`, which may be closed by now.
    fn connect(&mut self, backend: &mut Self::Backend, to: &Addr) -> Self::Peer;

    /// A place where peers accept, and its address to dial.
    fn door(&mut self, backend: &mut Self::Backend) -> (Self::Door, Addr);

    /// The peer of the next dial that stands at `door`, if one does.
    fn take(&mut self, backend: &mut Self::Backend, door: &mut Self::Door) -> Option<Self::Peer>;

    /// An address where a dial is refused.
    fn refusing(&mut self, backend: &mut Self::Backend) -> Addr;

    /// An address to which there's no way.
    fn unreachable(&mut self, backend: &mut Self::Backend) -> Addr;

    /// An address where this host may not go ([`Ability::Denials`]).
    fn denied(&mut self, backend: &mut Self::Backend) -> Addr;

    /// An address where nobody answers ([`Ability::Silence`]), or where a listener says that its queue is full
    /// ([`Ability::BusyListeners`]).
    fn silent(&mut self, backend: &mut Self::Backend) -> Addr;

    /// The peer sends what there's room for. `None`: the connection is broken.
    fn send(&mut self, backend: &mut Self::Backend, peer: &mut Self::Peer, bytes: &[u8]) -> Option<usize>;

    /// The peer reads into `buf`.
    fn recv(&mut self, backend: &mut Self::Backend, peer: &mut Self::Peer, buf: &mut [u8]) -> Heard;

    /// The peer finishes sending and goes on reading.
    fn finish(&mut self, backend: &mut Self::Backend, peer: &mut Self::Peer);

    /// The peer closes its socket.
    fn close(&mut self, backend: &mut Self::Backend, peer: Self::Peer);

    /// The peer resets the connection ([`Ability::Resets`]).
    fn reset(&mut self, backend: &mut Self::Backend, peer: Self::Peer);

    /// The peer answers nothing from now on ([`Ability::Vanishing`]).
    fn vanish(&mut self, backend: &mut Self::Backend, peer: Self::Peer);

    /// Another's address, to dial from ([`Ability::DialFrom`]).
    fn strange_addr(&mut self) -> SocketAddr;

    /// Who connected to the peer, as the peer sees it; `None` without [`Ability::PeerAddrs`].
    fn caller_of(&self, backend: &mut Self::Backend, peer: &Self::Peer) -> Option<Addr>;

    /// The address that a peer connects from; `None` without [`Ability::PeerAddrs`].
    fn addr_of(&self, backend: &mut Self::Backend, peer: &Self::Peer) -> Option<Addr>;

    /// Takes all descriptors away but so many, which are for peers, so that no accept succeeds; `None` gives them back
    /// ([`Ability::Starving`]).
    fn starve(&mut self, backend: &mut Self::Backend, spare: Option<usize>);

    /// Bytes that the transport may hold for one direction of a connection that isn't read, at most.
    fn held_max(&self) -> usize {
        8 * 1024 * 1024
    }

    /// Addresses of the core's for its sockets for datagrams, of one family: one, or two ([`Ability::TwoAddrs`]). Any free port of
    /// theirs may be bound.
    fn datagram_addrs(&self) -> Vec<IpAddr>;

    /// Bytes of the longest datagram that goes each way; at most [`DATAGRAM_BYTES_MAX`](crate::datagram::DATAGRAM_BYTES_MAX).
    fn datagram_bytes_max(&self) -> usize;

    /// A peer that talks by datagrams, and where it's bound.
    fn correspondent(&mut self, backend: &mut Self::Backend) -> (Self::Correspondent, SocketAddr);

    /// The peer sends `bytes` as one datagram; or, if the world cuts them up, as several of `segment` bytes each, of which the last may
    /// be shorter, that travel in one piece.
    fn post(
        &mut self,
        backend: &mut Self::Backend,
        from: &mut Self::Correspondent,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<u16>,
    ) -> Posting;

    /// Whether peers' datagrams can travel in one piece.
    fn cuts_up(&self) -> bool {
        false
    }

    /// The next datagram that has come to the peer, if one has: how many bytes of `buf` it fills, and who sent it.
    fn collect(
        &mut self,
        backend: &mut Self::Backend,
        peer: &mut Self::Correspondent,
        buf: &mut [u8],
    ) -> Option<(usize, SocketAddr)>;

    /// An address at the peers' where no socket for datagrams is.
    fn vacant(&mut self, backend: &mut Self::Backend) -> SocketAddr;

    /// Datagrams to the core's socket at `at` that were dropped for want of room before they came to the engine.
    fn dropped(&mut self, backend: &mut Self::Backend, at: SocketAddr) -> u64;

    /// Whether datagrams between two ends don't overtake one another.
    fn keeps_order(&self) -> bool {
        true
    }

    /// What decides a case's random operations.
    fn seed(&self) -> u64 {
        1
    }

    /// Whether the backend's clock isn't the real one.
    fn is_virtual(&self) -> bool {
        false
    }

    /// Turns without any news after which nothing more comes by itself.
    fn quiet_turns(&self) -> u32 {
        8
    }
}

/// Goes on if `world` has `ability`.
///
/// # Errors
/// Why it's skipped, if it hasn't.
pub fn needs<W: World>(world: &W, ability: Ability) -> Verdict {
    world.lacks(ability).map_or(Ok(()), |why| Err(Skip(why.into())))
}
