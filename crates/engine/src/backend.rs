//! The seam: what the engine needs from whatever carries its bytes.
//!
//! A backend offers non-blocking sockets and tells when they became ready; the engine above holds all state and makes all
//! decisions, so that one relay runs on the kernel ([`crate::kernel`]) and in the simulation ([`crate::sim`]) unchanged.
//!
//! # Contract
//! - Readiness is edge-triggered: [`Backend::poll`] reports a change once. The engine remembers it until an operation answers
//!   [`Progress::Blocked`], or until it moved fewer bytes than there was room for.
//! - A short `send` or `splice_out` means that the socket is full; readiness to write is then reported once there is room.
//! - A short `recv` means that the socket was empty at that moment, unless its peer has finished sending: then the end is there
//!   to be read, and no further event tells of it. A short `splice_in` means nothing: its pipe may have run out of slots.
//! - Once an operation has failed, the error is spent: later ones may look like an orderly end. The engine remembers it.
//! - Closing a socket ends its events, save those of the batch under way. Tags carry a generation for that reason.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::Addr;
use crate::datagram::DatagramBackend;
use crate::error::{ConnError, ListenError};
use crate::options::{LegOptions, Probing};
use crate::path::PathInfo;
use crate::time::Time;
use crate::waker::Waker;

/// Most parts that [`Backend::send_vectored`] is given at once (`UIO_MAXIOV` of linux/uio.h).
pub const PARTS_MAX: usize = 1024;

/// What an event belongs to. The engine chooses it when it registers a socket or a listener, and gets it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

/// One event: what became possible, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// What it belongs to.
    pub tag: Tag,
    /// There is something to read, or to accept.
    pub readable: bool,
    /// There is room to write, or a dial has come to stand.
    pub writable: bool,
    /// The peer has finished sending: its end is there to be read after the data.
    pub peer_finished: bool,
    /// The connection has failed.
    pub failed: bool,
}

/// How far an operation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes, at least one.
    Moved(usize),
    /// None now; an event will tell when to try again.
    Blocked,
    /// The peer has finished sending, and all of it has been read.
    Ended,
}

/// An answer to a read or a write.
pub type Transfer = Result<Progress, ConnError>;

/// How a dial stands when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// Established already (a Unix-domain socket, TCP Fast Open).
    Connected,
    /// Under way: an event will tell.
    Pending,
}

/// Why nothing was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The queue is empty.
    Empty,
    /// This connection failed before it was accepted (accept(2), "Error handling"); there may be more.
    Failed,
    /// No descriptor or memory: the listener should rest for a while.
    Exhausted,
}

/// Non-blocking sockets, pipes and a clock. See the [module](self) for the contract.
pub trait Backend: DatagramBackend {
    /// One connection. Dropping it ends it, in order or by a reset: see [`Backend::close`] and [`Backend::reset`].
    type Socket;
    /// A socket that accepts.
    type Listener;
    /// A bounded queue of bytes in which data waits between two sockets without being copied.
    type Pipe;
    /// A connection on its way to another core: one that no backend watches. [`std::convert::Infallible`] where they can't travel.
    type Parcel: Send;

    /// The time read by the last [`Backend::poll`].
    fn now(&self) -> Time;

    /// Waits at most `timeout` (`None`: for ever) and returns how many events there are to fetch by [`Backend::ready`].
    ///
    /// # Errors
    /// When the system refuses to wait at all; the loop can't go on.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<usize>;

    /// Has all go out that was sent, ended and closed so far. A backend that gathers a turn's work does so by itself at its next poll:
    /// this is for a loop that stops.
    ///
    /// # Errors
    /// As [`Backend::poll`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The event at `index`, below the last poll's number.
    fn ready(&self, index: usize) -> Ready;

    /// Lets `waker` wake the core: an event under [`WAKE`](crate::WAKE) follows each call of it, or several calls at once.
    ///
    /// # Errors
    /// When the system has no room for it.
    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()>;

    /// Listens on `at` and says where: port 0 is filled in. At most `backlog` connections wait to be accepted, fewer where the system
    /// says so.
    ///
    /// # Errors
    /// See [`ListenError`].
    fn listen(&mut self, at: &Addr, options: &LegOptions, backlog: u32) -> Result<(Self::Listener, Addr), ListenError>;

    /// Lets `listener` report under `tag`; level-triggered, unlike sockets.
    ///
    /// # Errors
    /// When the system has no room for it.
    fn watch_listener(&mut self, listener: &Self::Listener, tag: Tag) -> io::Result<()>;

    /// Stops reports of `listener` until it is watched again.
    ///
    /// # Errors
    /// When it wasn't watched.
    fn ignore_listener(&mut self, listener: &Self::Listener) -> io::Result<()>;

    /// Takes one connection from the queue, and says who connects where that costs nothing: [`Backend::peer_addr`] tells otherwise.
    /// A backend that accepts ahead of its caller may say [`AcceptError::Empty`] once where only those are taken that it has told of: asked again,
    /// it looks at the kernel's queue too.
    ///
    /// # Errors
    /// See [`AcceptError`].
    fn accept(&mut self, listener: &Self::Listener) -> Result<(Self::Socket, Option<Addr>), AcceptError>;

    /// Who is at the other end of an accepted connection.
    fn peer_addr(&self, socket: &Self::Socket) -> Addr;

    /// Begins a connection to `to`.
    ///
    /// # Errors
    /// When it failed at once.
    fn dial(&mut self, to: &Addr, options: &LegOptions) -> Result<(Self::Socket, Dialled), ConnError>;

    /// Begins a connection to `to` that comes from `source`, which needn't be an address of this host. Where its port is taken,
    /// any other of the same address is used.
    ///
    /// # Errors
    /// When it failed at once; [`ConnError::Denied`] from a backend that can't.
    fn dial_from(
        &mut self,
        _to: &Addr,
        _source: SocketAddr,
        _options: &LegOptions,
    ) -> Result<(Self::Socket, Dialled), ConnError> {
        Err(ConnError::Denied)
    }

    /// Lets `socket` report under `tag` from now on.
    ///
    /// # Errors
    /// When the system has no room for it.
    fn watch(&mut self, socket: &Self::Socket, tag: Tag) -> Result<(), ConnError>;

    /// Reads into `buf`.
    ///
    /// # Errors
    /// When the connection has failed; data that came before has been read by then.
    fn recv(&mut self, socket: &mut Self::Socket, buf: &mut [u8]) -> Transfer;

    /// Reads into `buf` and leaves the bytes where they are.
    ///
    /// # Errors
    /// As [`Backend::recv`].
    fn peek(&mut self, socket: &mut Self::Socket, buf: &mut [u8]) -> Transfer;

    /// Drops `len` bytes that a peek has shown.
    ///
    /// # Errors
    /// As [`Backend::recv`].
    fn discard(&mut self, socket: &mut Self::Socket, len: usize) -> Result<(), ConnError>;

    /// Writes what there is room for.
    ///
    /// # Errors
    /// When the connection has failed.
    fn send(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> Transfer;

    /// Writes what there is room for of `parts`, one behind another; at least one has bytes, and there are [`PARTS_MAX`] at most.
    ///
    /// # Errors
    /// When the connection has failed.
    fn send_vectored(&mut self, socket: &mut Self::Socket, parts: &[IoSlice<'_>]) -> Transfer {
        let mut sent = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let Progress::Moved(bytes) = self.send(socket, part)? else { break };
            sent += bytes;
            if bytes < part.len() {
                break;
            }
        }
        Ok(if sent == 0 { Progress::Blocked } else { Progress::Moved(sent) })
    }

    /// Writes what there is room for, to go out with what is sent next: no packet of its own, as far as the transport can. What
    /// waits goes out with the next bytes, with the end, by [`Backend::push`], or by itself after a fraction of a second.
    ///
    /// # Errors
    /// When the connection has failed.
    fn send_ahead(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> Transfer;

    /// Has what [`Backend::send_ahead`] left waiting go out now. A failure shows at the next transfer.
    fn push(&mut self, socket: &mut Self::Socket);

    /// Has the peer told now of all that was received, if it isn't yet. Nothing happens where a transport does so by itself.
    fn acknowledge(&mut self, socket: &mut Self::Socket);

    /// Makes a pipe that holds about `bytes` bytes.
    ///
    /// # Errors
    /// When the system has no room for it.
    fn pipe(&mut self, bytes: u32) -> io::Result<Self::Pipe>;

    /// Whether bytes may be spliced from the one socket to the other; else they are copied. It may come to be so.
    fn may_splice(&self, _source: &Self::Socket, _sink: &Self::Socket) -> bool {
        true
    }

    /// Moves at most `len` bytes from `socket` into the empty `pipe`.
    ///
    /// # Errors
    /// As [`Backend::recv`].
    fn splice_in(&mut self, socket: &mut Self::Socket, pipe: &mut Self::Pipe, len: usize) -> Transfer;

    /// Moves at most `len` bytes, which the pipe holds, to `socket`.
    ///
    /// # Errors
    /// When the connection has failed.
    fn splice_out(&mut self, pipe: &mut Self::Pipe, socket: &mut Self::Socket, len: usize) -> Transfer;

    /// Has a dial that waits for its first bytes (TCP Fast Open) go out without any.
    ///
    /// # Errors
    /// When the connection has failed.
    fn begin(&mut self, socket: &mut Self::Socket) -> Result<(), ConnError>;

    /// Finishes sending: the peer reads the end after what was sent.
    ///
    /// # Errors
    /// When the connection has failed.
    fn shutdown(&mut self, socket: &mut Self::Socket) -> Result<(), ConnError>;

    /// Ends the connection in order: what was sent still reaches the peer, and then the end.
    fn close(&mut self, socket: Self::Socket);

    /// Ends the connection at once, so that the peer sees a reset where the transport has one.
    fn reset(&mut self, socket: Self::Socket);

    /// Takes a connection off this core, to be attached to another that has a backend of the same kind. Its events end here; bytes that
    /// wait in it, either way, go along.
    ///
    /// # Errors
    /// The connection, unchanged, when it can't travel (now, or at all).
    fn detach(&mut self, socket: Self::Socket) -> Result<Self::Parcel, Self::Socket>;

    /// Takes in a connection that another core has detached. Once it is watched, an event tells how it stands: what happened on the
    /// way isn't lost.
    ///
    /// # Errors
    /// When there's no room for it; its peer sees a reset then.
    fn attach(&mut self, parcel: Self::Parcel) -> Result<Self::Socket, ConnError>;

    /// Takes the error that an event told of; `None` if there's none after all.
    fn take_error(&mut self, socket: &mut Self::Socket) -> Option<ConnError>;

    /// Bytes handed to the socket that haven't been put on the wire yet.
    fn unsent(&self, socket: &Self::Socket) -> usize;

    /// Bytes handed to the socket that its peer hasn't acknowledged yet: while they get fewer, the peer lives.
    fn unacknowledged(&self, socket: &Self::Socket) -> usize;

    /// What the transport knows of the way to the peer; `None` where it tells nothing (a Unix-domain socket, Linux before 4.9).
    fn path(&self, socket: &Self::Socket) -> Option<PathInfo>;

    /// Sets the options of a dialled leg that matter only once it has lived for a while (keepalive).
    fn set_keepalive(&mut self, socket: &mut Self::Socket, options: &LegOptions);

    /// Sets when keepalive probes, in place of the leg's options; `None` switches it off.
    fn set_probing(&mut self, socket: &mut Self::Socket, probing: Option<&Probing>);

    /// Unpredictable bytes, for a nonce.
    fn entropy(&mut self) -> [u8; 32];

    /// This end's address.
    fn local_addr(&self, socket: &Self::Socket) -> Option<Addr>;
}
