//! The kernel's TCP and Unix-domain sockets, by io_uring.
//!
//! The same sockets as [`crate::kernel`]'s, waited for and moved in another way: a turn of the loop is one system call, which hands
//! over all that the turn's connections send and brings all that came meanwhile. What io_uring does badly stays with the system
//! calls of the kernel backend: bulk goes by `splice(2)`, since the ring would punt it to worker threads, and large messages by a
//! call of their own, since they'd be copied once more.
//!
//! ```text
//!   accept, recv: armed once, they complete as often as something comes
//!        │ buffers from a ring of the core's                     ┌─ blocks of the core's
//!        ▼                                                       │
//!   queue of a connection ──► recv, peek           send ──► block ──► one operation a turn
//!        │ full: cancelled; none: plain                          │ larger than a block
//!        ▼                                                       ▼
//!   plain: a look, then recv(2), splice(2)                  send(2), splice(2)
//! ```
//!
//! - **Memory** of a connection: at most 96 bytes and its handle. Buffers and blocks belong to the core: one holds them only while
//!   something is unread or unsent.
//! - **Bulk costs** what it costs on the kernel backend, and a look (an operation, no system call) each time that a socket runs dry
//!   or full. A direction that turns to bulk has its receive cancelled: one turn.
//! - **Descriptors** are ordinary ones. Registered ones were within noise of them, and can't be asked for options or `TCP_INFO`.
//!
//! Needs Linux 6.1; [`Unavailable`] says what is missing. A ring belongs to the thread that made it.

mod accept;
mod available;
mod config;
mod datagrams;
mod ending;
mod events;
mod look;
mod receive;
mod row;
mod socket;
#[cfg(test)]
mod tests;
mod transmit;
mod travel;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::Addr;
use crate::backend::{AcceptError, Backend, Dialled, Ready, Tag, Transfer};
use crate::error::{ConnError, ListenError};
use crate::kernel::{self, Kernel, Listener, Pipe};
use crate::options::{LegOptions, Probing};
use crate::path::PathInfo;
use crate::sys::operation::What;
use crate::sys::ring::Ring;
use crate::time::Time;
use crate::waker::Waker;
use accept::Door;
use row::Row;
use socket::Table;

pub use available::Unavailable;
pub(crate) use available::try_uring;
pub use config::UringConfig;
pub use socket::Socket;
pub use travel::Parcel;

/// Below this share of all buffers, no connection begins to receive into them.
const LOW_WATER_SHARE: u16 = 16;

/// What a ring holds, and what it counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections, with those that are closed and still under way.
    pub sockets: usize,
    /// Buffers that the kernel can receive into.
    pub recv_buffers_free: u16,
    /// Blocks in which nothing waits to be sent.
    pub send_blocks_free: usize,
    /// Times that a receive found no buffer, and its connection turned plain.
    pub recv_starved: u64,
    /// Waiting spins on the device's queue.
    pub napi: bool,
}

/// io_uring as a [`Backend`]. One a core.
pub struct Uring {
    ring: Ring,
    /// The same sockets by system calls. Its clock is ours.
    plain: Kernel,
    config: UringConfig,
    table: Table,
    /// For each buffer in a connection's queue, the next one there.
    next: Box<[u16]>,
    /// Blocks in which nothing waits. Last in, first out: what was used last is in the caches.
    blocks: Vec<u16>,
    doors: Vec<Door>,
    /// Kept, for a wake that came before the last other clone was dropped would be lost with its descriptor.
    wakers: Vec<Waker>,
    /// The epoll instance of `plain` is looked at, for it has sockets for datagrams.
    has_datagrams: bool,
    /// An event since the last poll says that somebody woke the core.
    woken: bool,
    /// One a connection, a listener, a socket for datagrams: those of the last poll and those that the next one tells.
    events: Vec<Ready>,
    /// Whose they are.
    event_of: Vec<u32>,
    /// How many of them the last poll has told of; what comes behind them is for the next one.
    told: usize,
    /// Connections with something to send, each once.
    dirty: Vec<u32>,
    /// Connections whose block is being sent, within [`Backend::poll`].
    sent: Vec<u32>,
    /// Connections on which nothing may be received, each once.
    resting: Vec<u32>,
    /// Connections whose handles were dropped, within [`Backend::poll`].
    dropped: Vec<u32>,
    low_water: u16,
    bundles: bool,
    gauges: Gauges,
}

impl Uring {
    /// A ring with nothing in it.
    ///
    /// # Errors
    /// See [`Unavailable`].
    ///
    /// # Panics
    /// When the limits in `config` make no sense.
    pub fn new(config: UringConfig) -> Result<Self, Unavailable> {
        config.check();
        let ring = Ring::new(config.sizes()).map_err(Unavailable::from_setup)?;
        if let Some(operation) = ring.missing()? {
            return Err(Unavailable::Lacks(operation));
        }
        let (many, events_max) = (config.sockets_max as usize, events::max(&config));
        let napi = config.napi_busy_poll.is_some_and(|time| ring.busy_poll(time).is_ok());
        Ok(Self {
            bundles: config.bundles && ring.has_bundles() && available::is_since(6, 16),
            ring,
            plain: Kernel::new()?,
            config,
            table: Table::new(config.sockets_max),
            next: vec![socket::NONE; config.recv_buffers.into()].into_boxed_slice(),
            blocks: (0..config.send_blocks).rev().collect(),
            doors: Vec::new(),
            wakers: Vec::new(),
            has_datagrams: false,
            woken: false,
            events: Vec::with_capacity(events_max),
            event_of: Vec::with_capacity(events_max),
            told: 0,
            dirty: Vec::with_capacity(many),
            sent: Vec::with_capacity(many),
            resting: Vec::with_capacity(many),
            dropped: Vec::with_capacity(many),
            low_water: config.recv_buffers / LOW_WATER_SHARE,
            gauges: Gauges { napi, ..Gauges::default() },
        })
    }

    /// What the ring holds, and what it counted.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            sockets: self.table.in_use(),
            recv_buffers_free: self.ring.offered(),
            send_blocks_free: self.blocks.len(),
            ..self.gauges
        }
    }

    /// Handles what has completed.
    fn reap(&mut self) {
        while let Some(done) = self.ring.next_done() {
            match done.name.what {
                What::Recv => self.received(&done),
                What::Readable => self.readable(&done),
                What::Room => self.room_came(&done),
                What::Hangup => self.hung_up(&done),
                What::Send => self.send_came_short(&done),
                What::Accept => self.accepted(done),
                What::Wake => self.woken(&done),
                What::Datagrams => self.datagrams_came(),
                What::Nothing => {}
            }
        }
    }

    /// One system call: hands over all that was gathered, waits, and handles what has come.
    fn exchange(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.queue_sends();
        self.ring.enter(patience)?;
        self.reap();
        while self.ring.has_overflown() {
            self.ring.enter(Some(Duration::ZERO))?;
            self.reap();
        }
        self.sort_sent();
        Ok(())
    }

    /// How long the ring may wait.
    fn patience(&self, timeout: Option<Duration>) -> Option<Duration> {
        if self.doors_have_news() || !self.events.is_empty() {
            return Some(Duration::ZERO);
        }
        let lingering = self.table.first(Row::Lingering).map(|index| self.lingers_until(index).since(self.plain.now()));
        [timeout, lingering].into_iter().flatten().min()
    }
}

impl Backend for Uring {
    type Socket = Socket;
    type Listener = Listener;
    type Pipe = Pipe;
    type Parcel = Parcel;

    fn now(&self) -> Time {
        self.plain.now()
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.forget_told();
        self.end_dropped();
        self.end_lingering();
        self.feed_starved();
        self.watch_resting();
        self.exchange(self.patience(timeout))?;
        self.plain.read_clock();
        self.report_doors();
        (self.told, self.woken) = (self.events.len(), false);
        Ok(self.told)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.exchange(Some(Duration::ZERO))
    }

    fn ready(&self, index: usize) -> Ready {
        self.events[index]
    }

    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()> {
        self.wakers.push(waker.clone());
        self.await_wake(self.wakers.len() - 1);
        Ok(())
    }

    fn listen(&mut self, at: &Addr, options: &LegOptions, backlog: u32) -> Result<(Listener, Addr), ListenError> {
        self.plain.listen(at, options, backlog)
    }

    fn watch_listener(&mut self, listener: &Listener, tag: Tag) -> io::Result<()> {
        self.open_door(listener, tag)
    }

    fn ignore_listener(&mut self, listener: &Listener) -> io::Result<()> {
        self.shut_door(listener)
    }

    fn accept(&mut self, listener: &Listener) -> Result<(Socket, Option<Addr>), AcceptError> {
        self.take_in(listener)
    }

    fn peer_addr(&self, socket: &Socket) -> Addr {
        let sock = self.table[socket.slot()].sock.as_ref().expect("a handle's socket is open");
        self.plain.peer_addr(sock)
    }

    fn dial(&mut self, to: &Addr, options: &LegOptions) -> Result<(Socket, Dialled), ConnError> {
        if self.table.is_full() {
            return Err(ConnError::Exhausted);
        }
        let (sock, dialled) = self.plain.dial(to, options)?;
        let socket = self.table.insert(sock, dialled == Dialled::Pending).map_err(|_| ConnError::Exhausted)?;
        Ok((socket, dialled))
    }

    fn dial_from(
        &mut self,
        to: &Addr,
        source: SocketAddr,
        options: &LegOptions,
    ) -> Result<(Socket, Dialled), ConnError> {
        if self.table.is_full() {
            return Err(ConnError::Exhausted);
        }
        let (sock, dialled) = self.plain.dial_from(to, source, options)?;
        let socket = self.table.insert(sock, dialled == Dialled::Pending).map_err(|_| ConnError::Exhausted)?;
        Ok((socket, dialled))
    }

    fn watch(&mut self, socket: &Socket, tag: Tag) -> Result<(), ConnError> {
        let slot = &mut self.table[socket.slot()];
        (slot.tag, slot.watched) = (tag, true);
        if slot.connecting {
            self.await_connection(socket.slot());
        } else {
            self.arm(socket.slot());
            if std::mem::take(&mut self.table[socket.slot()].travelled) {
                self.tell_arrival(socket.slot());
            }
        }
        Ok(())
    }

    fn recv(&mut self, socket: &mut Socket, buf: &mut [u8]) -> Transfer {
        self.read(socket, buf)
    }

    fn peek(&mut self, socket: &mut Socket, buf: &mut [u8]) -> Transfer {
        self.show(socket, buf)
    }

    fn discard(&mut self, socket: &mut Socket, len: usize) -> Result<(), ConnError> {
        self.drop_shown(socket, len)
    }

    fn send(&mut self, socket: &mut Socket, bytes: &[u8]) -> Transfer {
        self.write(socket, bytes, false)
    }

    fn send_vectored(&mut self, socket: &mut Socket, parts: &[IoSlice<'_>]) -> Transfer {
        self.write_parts(socket, parts)
    }

    /// With nothing pending the kernel keeps them, as it does for [`Kernel`].
    fn send_ahead(&mut self, socket: &mut Socket, bytes: &[u8]) -> Transfer {
        self.write(socket, bytes, true)
    }

    fn push(&mut self, socket: &mut Socket) {
        self.push_out(socket);
    }

    fn acknowledge(&mut self, socket: &mut Socket) {
        self.plain.acknowledge(self.table[socket.slot()].sock());
    }

    fn pipe(&mut self, bytes: u32) -> io::Result<Pipe> {
        self.plain.pipe(bytes)
    }

    fn splice_in(&mut self, socket: &mut Socket, pipe: &mut Pipe, len: usize) -> Transfer {
        self.read_to_pipe(socket, pipe, len)
    }

    fn splice_out(&mut self, pipe: &mut Pipe, socket: &mut Socket, len: usize) -> Transfer {
        self.write_pipe(pipe, socket, len)
    }

    fn begin(&mut self, socket: &mut Socket) -> Result<(), ConnError> {
        self.begin_now(socket)
    }

    fn shutdown(&mut self, socket: &mut Socket) -> Result<(), ConnError> {
        self.write_end(socket)
    }

    /// With bytes unread, the peer sees a reset, as from the kernel's sockets (RFC 1122, 4.2.2.13).
    fn close(&mut self, socket: Socket) {
        if self.table[socket.slot()].unread() > 0 {
            self.reset(socket);
            return;
        }
        self.end_in_order(socket.release());
    }

    fn reset(&mut self, socket: Socket) {
        let index = socket.release();
        // What was sent this turn goes out before the reset if there's room, as it would have from the kernel's sockets.
        if !self.table[index].full {
            self.flush_now(index).ok();
        }
        self.close_by(index, kernel::Socket::for_reset);
    }

    fn detach(&mut self, socket: Socket) -> Result<Parcel, Socket> {
        self.pack(socket)
    }

    fn attach(&mut self, parcel: Parcel) -> Result<Socket, ConnError> {
        self.unpack(parcel)
    }

    fn take_error(&mut self, socket: &mut Socket) -> Option<ConnError> {
        let slot = &mut self.table[socket.slot()];
        slot.error.take().or_else(|| self.plain.take_error(slot.sock()))
    }

    fn unsent(&self, socket: &Socket) -> usize {
        let slot = &self.table[socket.slot()];
        slot.pending() + slot.sock.as_ref().map_or(0, |sock| self.plain.unsent(sock))
    }

    fn unacknowledged(&self, socket: &Socket) -> usize {
        let slot = &self.table[socket.slot()];
        slot.pending() + slot.sock.as_ref().map_or(0, |sock| self.plain.unacknowledged(sock))
    }

    fn path(&self, socket: &Socket) -> Option<PathInfo> {
        self.table[socket.slot()].sock.as_ref().and_then(|sock| self.plain.path(sock))
    }

    fn set_keepalive(&mut self, socket: &mut Socket, options: &LegOptions) {
        self.plain.set_keepalive(self.table[socket.slot()].sock(), options);
    }

    fn set_probing(&mut self, socket: &mut Socket, probing: Option<&Probing>) {
        self.plain.set_probing(self.table[socket.slot()].sock(), probing);
    }

    fn entropy(&mut self) -> [u8; 32] {
        self.plain.entropy()
    }

    fn local_addr(&self, socket: &Socket) -> Option<Addr> {
        self.table[socket.slot()].sock.as_ref().and_then(|sock| self.plain.local_addr(sock))
    }
}
