//! Datagrams: UDP that calls you.
//!
//! A socket is bound once ([`Cx::bind`](crate::Cx::bind)) and talks with anybody. What comes is fetched in batches and told one
//! datagram at a time ([`Handler::on_datagram`](crate::Handler::on_datagram)); what the program sends
//! ([`Cx::send_to`](crate::Cx::send_to)) gathers in the socket's outbox, and goes out when the turn ends or the outbox is full.
//!
//! # The contract
//! - A [`Flow`] says who is at the other end and which of this host's addresses is at ours. Sending to the flow that a datagram came
//!   with answers from the address that it came to, on sockets that are bound to all addresses too.
//! - UDP may lose. What the engine drops itself is in one of [`DatagramCounts`], save what the outbox still holds when the socket goes
//!   ([`Cx::unbind`](crate::Cx::unbind)). What the system drops isn't: above all what comes while the socket is full of datagrams
//!   unread ([`DatagramOptions::recv_buffer`]), which the system counts for itself (`RcvbufErrors` in `/proc/net/snmp`, `drops` in
//!   `/proc/net/udp`), and what is lost once it's handed to the transport.
//! - A full outbox answers [`SendToError::Full`], and [`Handler::on_datagrams_writable`](crate::Handler::on_datagrams_writable)
//!   follows. A server that answers questions lets such an answer go; a sender of bulk waits.
//! - ICMP errors are nobody's: an unconnected socket can't tell whom one is about without its error queue, and anybody can forge
//!   them. A peer that is gone is one that doesn't answer. A socket with one peer ([`DatagramOptions::peer`]) is told
//!   ([`Handler::on_datagrams_failed`](crate::Handler::on_datagrams_failed)): the system holds an error against both ends' ports.
//! - A flood doesn't starve connections: a socket is given [`TURN_DATAGRAMS`] a turn, all together [`LOOP_DATAGRAMS`] (a batch that was
//!   begun is told to its end), and then events are looked at again.
//! - Memory: one inbox a core, of a MiB, made with its first socket; one outbox a socket, as its options say.

mod inbox;
mod outbox;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::backend::{Tag, Transfer};
use crate::error::ConnError;
use crate::slab::Key;

pub(crate) use inbox::SLOT_BYTES;
pub use inbox::{Inbox, SLOTS};
pub use outbox::Departures;
pub(crate) use outbox::Outbox;

/// Sockets for datagrams that a core may have.
pub const DATAGRAM_SOCKETS_MAX: u32 = 1024;
/// Datagrams that one socket is given before the others have had their turn.
pub const TURN_DATAGRAMS: usize = 256;
/// Datagrams that all sockets are given before the core looks for events again.
pub const LOOP_DATAGRAMS: usize = 1024;
/// Longest datagram: what 16 bits of length leave behind the header of UDP and, below IPv4, that of IP (RFC 768, RFC 791).
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Tags with this bit, and without the listeners' above it, belong to sockets for datagrams.
const DATAGRAM_BIT: u64 = 1 << 62;

/// A handle to a socket for datagrams. Inert once the socket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramId(pub(crate) Key);

impl DatagramId {
    /// Its place among the sockets, below [`DATAGRAM_SOCKETS_MAX`]: no other open socket of its core has the same.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0.slot()
    }

    pub(crate) const fn tag(self) -> Tag {
        Tag(DATAGRAM_BIT | self.0.to_bits())
    }

    /// The socket that `tag` belongs to. Listeners and the waker are told apart before.
    pub(crate) const fn from_tag(tag: Tag) -> Option<Self> {
        if tag.0 & DATAGRAM_BIT == 0 { None } else { Some(Self(Key::from_bits(tag.0 & !DATAGRAM_BIT))) }
    }
}

/// Both ends of a datagram's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who sent it, or who is to have it.
    pub peer: SocketAddr,
    /// The address of this host that it came to, or that it is to come from; the port is the socket's. `None`: whichever the system
    /// chooses for the way to the peer. Where the datagram came to many (a multicast group over IPv6) it's `None` as well.
    pub local: Option<IpAddr>,
}

impl Flow {
    /// The way to `peer`, from whichever address the system chooses.
    #[must_use]
    pub const fn to(peer: SocketAddr) -> Self {
        Self { peer, local: None }
    }
}

/// Whether a socket that is bound at the address `at` hears what comes to `to`: its own address, or each of its family if it's bound to
/// all; to all of IPv6 means IPv4's as well (RFC 3493, 3.7). Two sockets that would hear the same aren't bound to one port.
#[must_use]
pub fn hears(at: IpAddr, to: IpAddr) -> bool {
    at == to || (at.is_unspecified() && (at.is_ipv6() || to.is_ipv4()))
}

/// What an operator may set on a socket for datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramOptions {
    /// `SO_RCVBUF` in bytes: what may wait unread. As [`LegOptions::recv_buffer`](crate::LegOptions::recv_buffer).
    pub recv_buffer: Option<u32>,
    /// `SO_SNDBUF` in bytes: what may wait unsent in the system.
    pub send_buffer: Option<u32>,
    /// Others of the same user may bind the address too, if they all say so (`SO_REUSEPORT`, Linux 3.9): one socket a core. The system
    /// gives each flow to one of them, by a hash.
    pub shared: bool,
    /// Datagrams of equal length to one peer go down in one piece and are cut up late (`UDP_SEGMENT`, Linux 4.18), and those that came
    /// together come up together (`UDP_GRO`, Linux 5.0), where the system can. The program never sees a difference, save in speed.
    pub coalesce: bool,
    /// The one whom the socket talks with (it's connected): the system takes nothing from others, as far as it can, and says what
    /// became of what was sent. Something of others' may have come before the socket knew its peer, and a backend without the
    /// means (the user-space stack) takes all; so a program still looks whom a datagram is from.
    pub peer: Option<SocketAddr>,
    /// The outbox, in bytes; at least one of the longest datagrams that the program sends must fit.
    pub outbox_bytes: u32,
}

impl Default for DatagramOptions {
    fn default() -> Self {
        Self {
            recv_buffer: None,
            send_buffer: None,
            shared: false,
            coalesce: true,
            peer: None,
            outbox_bytes: 128 * 1024,
        }
    }
}

/// What became of a socket's datagrams, since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Told to the program.
    pub received: u64,
    /// Longer than there was room for, and dropped.
    pub truncated: u64,
    /// Reads that failed, for want of memory say, or to tell that what was sent before isn't taken. What they were about is still
    /// there.
    pub failed_reads: u64,
    /// Handed to the transport.
    pub sent: u64,
    /// Dropped, because the system had no memory or no room in a queue (`ENOBUFS`, `ENOMEM`).
    pub exhausted: u64,
    /// Dropped, because they can't be sent: too long for the way, no way there, forbidden by a firewall, a local address that is gone.
    pub failed: u64,
    /// Refused by [`SendToError::Full`].
    pub refused: u64,
}

/// Why a datagram wasn't gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendToError {
    /// The outbox and the socket are full. Let the datagram go, or wait for `on_datagrams_writable`.
    #[error("no room for another datagram")]
    Full,
    /// It's longer than a datagram or the outbox may be.
    #[error("longer than a datagram may be")]
    TooLong,
    /// The socket is gone.
    #[error("the socket is gone")]
    Gone,
}

/// Whether a batch was the last for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// There may be more: fetch again.
    More,
    /// Nothing waited behind the batch, which may be empty; an event tells when something comes.
    Last,
}

/// The half of the seam that carries datagrams; see [`crate::backend`] for the other. Events are edge-triggered here too.
pub trait DatagramBackend {
    /// One bound socket. Dropping it closes it.
    type DatagramSocket;

    /// Binds a socket to `at` and says where: port 0 is filled in.
    ///
    /// # Errors
    /// The system's: [`io::ErrorKind::AddrInUse`] where somebody else is bound there.
    fn bind(&mut self, at: SocketAddr, options: &DatagramOptions) -> io::Result<(Self::DatagramSocket, SocketAddr)>;

    /// Lets `socket` report under `tag` from now on: readable when datagrams come, writable when there's room after
    /// [`Progress::Blocked`](crate::backend::Progress::Blocked). What waits already is reported as well.
    ///
    /// # Errors
    /// When the system has no room for it.
    fn watch_datagrams(&mut self, socket: &mut Self::DatagramSocket, tag: Tag) -> io::Result<()>;

    /// Fetches a batch into `inbox`, which is empty.
    ///
    /// # Errors
    /// When the read failed; nothing was fetched then. The error is spent.
    fn recv_datagrams(&mut self, socket: &mut Self::DatagramSocket, inbox: &mut Inbox) -> Result<Arrival, ConnError>;

    /// Sends the first datagrams of `batch`, which isn't empty: `Moved` says how many, and the rest is tried again at once. After
    /// `Blocked` an event tells when there's room.
    ///
    /// # Errors
    /// When the first datagram can't be sent: it's spent, and the others are tried.
    fn send_datagrams(&mut self, socket: &mut Self::DatagramSocket, batch: &Departures<'_>) -> Transfer;
}
