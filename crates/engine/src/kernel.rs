//! The kernel's TCP and Unix-domain sockets, by epoll and splice.
//!
//! Sockets are watched edge-triggered, for everything at once, so each costs one `epoll_ctl` in its life; listeners are watched
//! level-triggered and exclusively. Small exchanges cost one `recv` and one `send` a message. Bulk goes by `splice(2)` through
//! a pipe of a megabyte, which hands pages over. Needs Linux 4.5.

pub(crate) mod address;
mod cpu;
mod datagram;
mod friend;
mod listener;
mod socket;
mod transparent;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::rand::GetRandomFlags;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::addr::Addr;
use crate::backend::{AcceptError, Backend, Dialled, Progress, Ready, Tag, Transfer};
use crate::core::WAKE;
use crate::error::{ConnError, ListenError};
use crate::options::{LegOptions, Probing};
use crate::path::PathInfo;
use crate::sys::{self, Queued};
use crate::time::Time;
use crate::waker::Waker;

pub use cpu::{allowed_cpus, pin_to};
pub use datagram::DatagramSocket;
pub(crate) use datagram::try_coalescing;
pub(crate) use listener::try_steering;
pub use listener::{Listener, listen};
pub use socket::Socket;
use socket::{Kind, Nodelay};
pub(crate) use transparent::try_transparent;

/// Events fetched at once.
const EVENTS: usize = 256;
/// Keepalive probes without an answer that end a connection.
const KEEPALIVE_PROBES: u32 = 3;
/// `TCP_QUICKACK`: what is due is acknowledged now, and what comes later as before. With 1, each segment is acknowledged at once until something is
/// sent, and a server that gathers its small answers sends each by itself: twice the work for both (`__tcp_sock_set_quickack` in net/ipv4/tcp.c).
const ACKNOWLEDGE_ONCE: i32 = 2;

/// A pipe: both ends of it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// Copies `bytes` into it and says how many there was room for.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<usize, ConnError> {
        match rustix::io::write(&self.write, bytes) {
            Ok(len) => Ok(len),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The kernel as a [`Backend`]. One a core.
pub struct Kernel {
    epoll: OwnedFd,
    events: Vec<Event>,
    /// Kept, for a wake that came before the last other clone was dropped would be lost with its descriptor.
    wakers: Vec<Waker>,
    start: Timespec,
    now: Time,
    /// Unpredictable bytes in store, drawn from the kernel many at a time (getrandom(2) gives 256 without a break), and how many pieces
    /// of 32 are left at its front.
    entropy: [u8; 256],
    entropy_left: usize,
}

impl Kernel {
    /// An epoll instance with nothing in it.
    ///
    /// # Errors
    /// When there's no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let start = clock_gettime(ClockId::Monotonic);
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS),
            wakers: Vec::new(),
            start,
            now: Time::ZERO,
            entropy: [0; 256],
            entropy_left: 0,
        })
    }

    pub(crate) fn read_clock(&mut self) {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec - self.start.tv_sec).unwrap_or(0);
        // Either may be the larger within its second, so the difference is taken in wrapping arithmetic.
        let nanos = (seconds * 1_000_000_000).wrapping_add_signed(now.tv_nsec - self.start.tv_nsec);
        self.now = Time::from_nanos(nanos);
    }
}

/// The epoll instance: readable while there are events to [poll](Backend::poll) for.
impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Sorts the answer of a read or a write.
fn progress(answer: Result<usize, Errno>, none: Progress) -> Transfer {
    match answer {
        Ok(0) => Ok(none),
        Ok(bytes) => Ok(Progress::Moved(bytes)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Progress::Blocked),
        Err(errno) => Err(errno.into()),
    }
}

/// A socket for a leg to `to`, with what has to be set before it is bound or connected.
fn leg_for(to: &Addr, options: &LegOptions) -> Result<OwnedFd, Errno> {
    let family = match to {
        Addr::Inet(addr) if addr.is_ipv4() => AddressFamily::INET,
        Addr::Inet(_) => AddressFamily::INET6,
        Addr::Unix(_) => AddressFamily::UNIX,
    };
    let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    listener::set_buffers(&fd, options.recv_buffer, options.send_buffer)?;
    if to.inet().is_some() {
        listener::set_sending(&fd, options)?;
        if options.fast_open {
            listener::set_fast_open(&fd)?;
        }
    }
    Ok(fd)
}

/// Begins the connection of a leg.
fn connect(fd: OwnedFd, to: &Addr, options: &LegOptions) -> Result<(Socket, Dialled), ConnError> {
    let tcp = to.inet().is_some();
    let kind = Kind::of(tcp, options.friend, true);
    let nodelay = match kind {
        // A friend's is asked for when it becomes one.
        Kind::Friend { .. } if options.nodelay => {
            sockopt::set_tcp_nodelay(&fd, true)?;
            Nodelay::Settled
        }
        Kind::Tcp if options.nodelay => Nodelay::AtFirstSend,
        _ => Nodelay::Settled,
    };
    let abrupt = tcp && options.reset_if_killed;
    if abrupt {
        listener::set_abrupt(&fd)?;
    }
    let mut socket = Socket { fd, kind, nodelay, deferred: false, abrupt };
    match address::connect(&socket.fd, to) {
        Ok(()) => {
            socket.deferred = tcp && options.fast_open;
            Ok((socket, Dialled::Connected))
        }
        Err(Errno::INPROGRESS) => Ok((socket, Dialled::Pending)),
        // A Unix-domain listener's queue is full: such a socket never reports that room came.
        Err(Errno::AGAIN) => Err(ConnError::Busy),
        Err(errno) => Err(errno.into()),
    }
}

impl Backend for Kernel {
    type Socket = Socket;
    type Listener = Listener;
    type Pipe = Pipe;
    type Parcel = Socket;

    fn now(&self) -> Time {
        self.now
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.read_clock();
        Ok(self.events.len())
    }

    fn ready(&self, index: usize) -> Ready {
        let Event { flags, data } = self.events[index];
        Ready {
            tag: Tag(data.u64()),
            readable: flags.contains(EventFlags::IN),
            writable: flags.contains(EventFlags::OUT),
            peer_finished: flags.intersects(EventFlags::RDHUP | EventFlags::HUP),
            failed: flags.contains(EventFlags::ERR),
        }
    }

    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()> {
        // Edge-triggered, so that nobody has to read the counter.
        epoll::add(&self.epoll, waker, EventData::new_u64(WAKE.0), EventFlags::IN | EventFlags::ET)?;
        self.wakers.push(waker.clone());
        Ok(())
    }

    fn listen(&mut self, at: &Addr, options: &LegOptions, backlog: u32) -> Result<(Listener, Addr), ListenError> {
        listener::listen_alone(at, options, backlog)
    }

    fn watch_listener(&mut self, listener: &Listener, tag: Tag) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&self.epoll, listener, EventData::new_u64(tag.0), flags)?;
        Ok(())
    }

    fn ignore_listener(&mut self, listener: &Listener) -> io::Result<()> {
        epoll::delete(&self.epoll, listener)?;
        Ok(())
    }

    fn accept(&mut self, listener: &Listener) -> Result<(Socket, Option<Addr>), AcceptError> {
        match net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((fd, peer)) => {
                let peer = address::from_any(peer);
                Ok((Socket::accepted(fd, listener), Some(peer)))
            }
            Err(Errno::AGAIN) => Err(AcceptError::Empty),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Err(AcceptError::Exhausted),
            Err(_) => Err(AcceptError::Failed),
        }
    }

    fn peer_addr(&self, socket: &Socket) -> Addr {
        match net::getpeername(&socket.fd) {
            Ok(peer) => address::from_any(peer),
            // It's over already.
            Err(_) => sys::peer_name(socket.fd.as_fd()).map_or_else(|_| address::from_any(None), Addr::Inet),
        }
    }

    fn dial(&mut self, to: &Addr, options: &LegOptions) -> Result<(Socket, Dialled), ConnError> {
        connect(leg_for(to, options)?, to, options)
    }

    fn dial_from(
        &mut self,
        to: &Addr,
        source: SocketAddr,
        options: &LegOptions,
    ) -> Result<(Socket, Dialled), ConnError> {
        transparent::dial(to, source, options)
    }

    fn watch(&mut self, socket: &Socket, tag: Tag) -> Result<(), ConnError> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket.fd, EventData::new_u64(tag.0), flags)?;
        friend::watched(&self.epoll, socket, tag, flags);
        Ok(())
    }

    fn recv(&mut self, socket: &mut Socket, buf: &mut [u8]) -> Transfer {
        progress(friend::receive(socket, buf, RecvFlags::empty()), Progress::Ended)
    }

    fn peek(&mut self, socket: &mut Socket, buf: &mut [u8]) -> Transfer {
        progress(friend::receive(socket, buf, RecvFlags::PEEK), Progress::Ended)
    }

    fn discard(&mut self, socket: &mut Socket, len: usize) -> Result<(), ConnError> {
        let mut sink = [0_u8; 4096];
        let mut left = len;
        while left > 0 {
            let step = left.min(sink.len());
            match friend::receive(socket, &mut sink[..step], RecvFlags::empty()) {
                Ok(0) => return Err(ConnError::Reset),
                Ok(bytes) => left -= bytes,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn begin(&mut self, socket: &mut Socket) -> Result<(), ConnError> {
        if !std::mem::take(&mut socket.deferred) {
            return Ok(());
        }
        match net::send(&socket.fd, &[], SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::INPROGRESS | Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn send(&mut self, socket: &mut Socket, bytes: &[u8]) -> Transfer {
        socket.before_send();
        progress(friend::send(socket, bytes, SendFlags::empty()), Progress::Blocked)
    }

    fn send_vectored(&mut self, socket: &mut Socket, parts: &[IoSlice<'_>]) -> Transfer {
        socket.before_send();
        let own = || net::sendmsg(&socket.fd, parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
        progress(friend::send_parts(socket, parts).unwrap_or_else(own), Progress::Blocked)
    }

    /// `MSG_MORE`: a segment that isn't full waits (`tcp_nagle_check`, which `TCP_NODELAY` doesn't change) for the next send
    /// without the flag, or for the acknowledgement of what was sent before. If neither comes the timer of zero-window probes sends
    /// it, after a retransmission timeout and 200 ms at least (`tcp_check_probe_timer`, `tcp_probe0_base`). A Unix-domain socket
    /// sends at once.
    fn send_ahead(&mut self, socket: &mut Socket, bytes: &[u8]) -> Transfer {
        socket.deferred = false;
        progress(friend::send(socket, bytes, SendFlags::MORE), Progress::Blocked)
    }

    /// Setting `TCP_NODELAY` sends what waits, also where it was set before (tcp(7)).
    fn push(&mut self, socket: &mut Socket) {
        if socket.is_tcp() {
            // It fails only on a connection that has failed.
            sockopt::set_tcp_nodelay(&socket.fd, true).ok();
        }
    }

    fn acknowledge(&mut self, socket: &mut Socket) {
        if socket.is_tcp() {
            // It fails only on a connection that has failed.
            sys::set_int(socket.fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, ACKNOWLEDGE_ONCE).ok();
        }
    }

    fn pipe(&mut self, bytes: u32) -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused beyond fs.pipe-user-pages-soft for the unprivileged: the pipe is then smaller, and serves.
        fcntl_setpipe_size(&write, bytes as usize).ok();
        Ok(Pipe { read, write })
    }

    fn may_splice(&self, source: &Socket, sink: &Socket) -> bool {
        friend::may_splice(source, sink)
    }

    fn splice_in(&mut self, socket: &mut Socket, pipe: &mut Pipe, len: usize) -> Transfer {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        progress(splice(&socket.fd, None, &pipe.write, None, len, flags), Progress::Ended)
    }

    fn splice_out(&mut self, pipe: &mut Pipe, socket: &mut Socket, len: usize) -> Transfer {
        socket.before_send();
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        progress(splice(&pipe.read, None, &socket.fd, None, len, flags), Progress::Blocked)
    }

    fn shutdown(&mut self, socket: &mut Socket) -> Result<(), ConnError> {
        Ok(friend::shut(socket)?)
    }

    fn close(&mut self, socket: Socket) {
        friend::closing(socket, Socket::for_close);
    }

    fn reset(&mut self, socket: Socket) {
        friend::closing(socket, Socket::for_reset);
    }

    fn detach(&mut self, socket: Socket) -> Result<Socket, Socket> {
        match epoll::delete(&self.epoll, &socket.fd) {
            Ok(()) => {
                friend::unwatched(&self.epoll, &socket);
                Ok(socket)
            }
            Err(_) => Err(socket),
        }
    }

    /// Adding a socket to an epoll instance tells how it stands at once, edge-triggered ones too (epoll_ctl(2)).
    fn attach(&mut self, parcel: Socket) -> Result<Socket, ConnError> {
        Ok(parcel)
    }

    fn take_error(&mut self, socket: &mut Socket) -> Option<ConnError> {
        match sockopt::socket_error(&socket.fd) {
            Ok(Ok(())) => friend::error(socket).map(ConnError::from),
            Ok(Err(errno)) | Err(errno) => Some(errno.into()),
        }
    }

    fn unsent(&self, socket: &Socket) -> usize {
        if socket.is_tcp() { sys::queued(socket.fd.as_fd(), Queued::Unsent).unwrap_or(0) } else { 0 }
    }

    fn unacknowledged(&self, socket: &Socket) -> usize {
        sys::queued(socket.fd.as_fd(), Queued::Unacknowledged).unwrap_or(0) + friend::unread(socket)
    }

    fn path(&self, socket: &Socket) -> Option<PathInfo> {
        // A socket of ours is asked for what each TCP socket has, so it doesn't fail; if it did, nothing would be known.
        if socket.is_tcp() { sys::path(socket.fd.as_fd()).unwrap_or(None) } else { None }
    }

    fn set_keepalive(&mut self, socket: &mut Socket, options: &LegOptions) {
        if socket.is_tcp() {
            // It fails only on a connection that has failed, and that shows at the next transfer.
            listener::set_liveness(&socket.fd, options).ok();
        }
    }

    fn set_probing(&mut self, socket: &mut Socket, probing: Option<&Probing>) {
        if socket.is_tcp() {
            // As above.
            listener::set_probing(&socket.fd, probing).ok();
        }
    }

    fn entropy(&mut self) -> [u8; 32] {
        if self.entropy_left == 0 {
            // So few bytes come whole and at once from an initialised generator (getrandom(2)), and it's long initialised.
            rustix::rand::getrandom(&mut self.entropy, GetRandomFlags::empty()).expect("the kernel has random numbers");
            self.entropy_left = self.entropy.len() / 32;
        }
        self.entropy_left -= 1;
        let drawn = &mut self.entropy[32 * self.entropy_left..][..32];
        let mut bytes = [0; 32];
        bytes.copy_from_slice(drawn);
        // What was given out is nowhere but there.
        drawn.fill(0);
        bytes
    }

    fn local_addr(&self, socket: &Socket) -> Option<Addr> {
        net::getsockname(&socket.fd).ok().map(|addr| address::from_any(Some(addr)))
    }
}
