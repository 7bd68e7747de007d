//! The stack as a backend of the engine.

mod datagrams;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use midmile_engine::backend::{AcceptError, Backend, Dialled, Progress, Ready, Tag, Transfer};
use midmile_engine::{Addr, ConnError, Key, LegOptions, ListenError, PathInfo, Probing, Time, WAKE, Waker};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::config::{ConfigError, StackConfig};
use crate::gauges::StackGauges;
use crate::link::{Link, Receive, Transmit};
pub use datagrams::DatagramSocket;

use crate::net::{Accepted, Ahead, Closed, HOP_LOOK_EVERY, Net};

/// Frames taken before events are told.
const FRAMES: usize = 256;
/// Frames after which answers leave, so that they don't all wait for the last.
const FLUSH_EVERY: usize = 64;
/// How soon a link without room is tried again.
const ROOM_LOOK_EVERY: Duration = Duration::from_micros(50);
/// Times that a link without room is tried when the loop stops: a second's worth at most.
const FLUSHES: usize = 20_000;
/// Bytes of a pipe at most: what is larger than a connection's buffers is no use.
const PIPE_BYTES_MAX: usize = 256 * 1024;

/// A TCP of its own above a link: one a core, and one a receive queue. See the [crate](crate)'s documentation for when to use it.
pub struct Stack<D: Link> {
    net: Net,
    link: D,
    dropped: Arc<Dropped>,
}

/// What was dropped without being closed.
#[derive(Debug, Default)]
struct Dropped {
    any: AtomicBool,
    sockets: Mutex<Vec<Key>>,
    listeners: Mutex<Vec<u32>>,
}

/// A connection. Dropped, it ends with a reset, as the kernel's accepted ones do.
#[derive(Debug)]
pub struct Socket {
    key: Key,
    dropped: Arc<Dropped>,
}

/// A listener. Dropped, it ends; connections that wait for it are reset.
#[derive(Debug)]
pub struct Listener {
    index: u32,
    dropped: Arc<Dropped>,
}

/// Bytes on their way from one connection to another.
#[derive(Debug)]
pub struct Pipe {
    bytes: Vec<u8>,
    taken: usize,
    room: usize,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.key != Key::NONE {
            self.dropped.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
            self.dropped.any.store(true, Ordering::Release);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.dropped.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
        self.dropped.any.store(true, Ordering::Release);
    }
}

impl Socket {
    /// Its key, for somebody who ends it now.
    fn into_key(mut self) -> Key {
        std::mem::replace(&mut self.key, Key::NONE)
    }
}

impl<D: Link> Stack<D> {
    /// A stack above `link`, without connections. All its tables are reserved here.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn new(link: D, config: StackConfig) -> Result<Self, ConfigError> {
        Self::build(link, config, None)
    }

    /// As [`Stack::new`], with the same random numbers for the same seed: for tests, and for nothing that a stranger can reach.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn with_seed(link: D, config: StackConfig, seed: u64) -> Result<Self, ConfigError> {
        Self::build(link, config, Some(seed))
    }

    fn build(link: D, config: StackConfig, seed: Option<u64>) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { net: Net::new(config, link.figures(), seed), link, dropped: Arc::default() })
    }

    /// What it counts.
    #[must_use]
    pub fn gauges(&self) -> StackGauges {
        self.net.gauges()
    }

    /// The link beneath.
    pub const fn link(&mut self) -> &mut D {
        &mut self.link
    }

    /// Looks whether everything holds that has to, which takes long.
    ///
    /// # Panics
    /// When something doesn't: a mistake of ours.
    pub fn check(&self) {
        self.net.check();
    }

    /// Ends what was dropped.
    fn bury(&mut self) {
        if !self.dropped.any.swap(false, Ordering::Acquire) {
            return;
        }
        let sockets = std::mem::take(&mut *self.dropped.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        let listeners = std::mem::take(&mut *self.dropped.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        for key in sockets {
            self.net.reset(key);
        }
        for index in listeners {
            self.net.unlisten(index);
        }
    }

    /// Looks again for next hops that weren't known.
    fn resolve(&mut self) {
        let mut index = 0;
        while index < self.net.resolving() {
            let hop = match self.net.resolving_to(index) {
                Some(to) => self.link.next_hop(to),
                None => Err(ConnError::Unreachable),
            };
            if !self.net.resolved(index, hop) {
                index += 1;
            }
        }
    }

    /// Sends what there is to send, and answers whether the link had too little room.
    fn settle(&mut self) -> bool {
        let (_, mut tx) = self.link.halves();
        let full = self.net.settle(&mut tx);
        tx.flush();
        full
    }

    fn receive(&mut self) {
        let (mut rx, mut tx) = self.link.halves();
        let mut ahead = Ahead::default();
        for count in 1..=FRAMES {
            self.net.look_ahead(&mut rx, &mut ahead);
            let Some(frame) = rx.next_frame() else { break };
            self.net.handle_frame(frame, &mut tx);
            if count % FLUSH_EVERY == 0 {
                tx.flush();
            }
        }
    }

    /// How long may be waited: for ever, unless the caller, a timer or something that is to be tried again says otherwise.
    fn patience(&self, timeout: Option<Duration>, full: bool) -> Option<Duration> {
        if self.net.has_news() || self.net.has_mail() || (self.net.is_dirty() && !full) {
            return Some(Duration::ZERO);
        }
        let timer = self
            .net
            .next_ms()
            .map(|at_ms| Duration::from_millis(at_ms).saturating_sub(Duration::from_nanos(self.link.now().as_nanos())));
        let room = (full || self.net.awaits_mail_room()).then_some(ROOM_LOOK_EVERY);
        let hop = (self.net.resolving() > 0).then_some(HOP_LOOK_EVERY);
        [timeout, timer, room, hop].into_iter().flatten().min()
    }

    fn begin_dial(&mut self, to: &Addr, from: Option<SocketAddr>, options: &LegOptions) -> Result<Socket, ConnError> {
        let to = to.inet().ok_or(ConnError::Denied)?;
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let hop = self.link.next_hop(to.ip())?;
        let key = self.net.dial(to, hop, from, options)?;
        Ok(self.socket(key))
    }

    fn socket(&self, key: Key) -> Socket {
        Socket { key, dropped: self.dropped.clone() }
    }
}

impl<D: Link> fmt::Debug for Stack<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("gauges", &self.gauges()).finish_non_exhaustive()
    }
}

impl<D: Link> Backend for Stack<D> {
    type Socket = Socket;
    type Listener = Listener;
    type Pipe = Pipe;
    /// A connection belongs to the queue that its packets come by.
    type Parcel = std::convert::Infallible;

    fn now(&self) -> Time {
        self.net.now
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.bury();
        let full = self.settle();
        let woken = self.link.wait(self.patience(timeout, full))?;
        self.net.now = self.link.now();
        self.net.follow_mtu(self.link.figures().mtu);
        self.receive();
        self.net.handle_timers();
        if self.net.resolving() > 0 {
            self.resolve();
        }
        let mut events = self.net.gather();
        let has_room = self.net.awaits_mail_room() && self.link.halves().1.has_room();
        events += self.net.gather_mail(has_room);
        if woken {
            let event = Ready { tag: WAKE, readable: true, writable: false, peer_finished: false, failed: false };
            self.net.add_event(event);
            events += 1;
        }
        Ok(events)
    }

    /// What a peer's window has no room for, and what gets lost on the way, needs later turns: they're the stack's, not the kernel's. A
    /// device that takes nothing for a while is waited for no longer than that.
    fn flush(&mut self) -> io::Result<()> {
        self.bury();
        self.net.push_all();
        for _ in 0..FLUSHES {
            let full = self.settle();
            if !full && !self.net.is_dirty() && !self.link.is_stalled() {
                break;
            }
            // What comes meanwhile is for a later turn, if there's one.
            self.link.wait(Some(ROOM_LOOK_EVERY))?;
        }
        Ok(())
    }

    fn ready(&self, index: usize) -> Ready {
        self.net.event(index)
    }

    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()> {
        self.link.watch_waker(waker)
    }

    fn listen(&mut self, at: &Addr, options: &LegOptions, backlog: u32) -> Result<(Listener, Addr), ListenError> {
        self.bury();
        let refused = |why: String| ListenError::System(io::Error::new(io::ErrorKind::InvalidInput, why));
        let Some(asked) = at.inet() else {
            return Err(refused("a user-space stack has no Unix-domain sockets".to_owned()));
        };
        let asked = SocketAddr::new(asked.ip().to_canonical(), asked.port());
        match self.net.listen(asked, options, backlog) {
            Ok((index, at)) => Ok((Listener { index, dropped: self.dropped.clone() }, Addr::Inet(at))),
            Err(Closed::InUse) => Err(ListenError::InUse),
            Err(Closed::NotGiven) => {
                Err(refused(format!("{asked} isn't among the addresses and ports that the stack was given")))
            }
            Err(Closed::NoCongestionControl) => {
                Err(refused("the user-space stack has the congestion controls reno and cubic".to_owned()))
            }
            Err(Closed::TooMany) => Err(refused("the stack has as many listeners as it may have".to_owned())),
        }
    }

    fn watch_listener(&mut self, listener: &Listener, tag: Tag) -> io::Result<()> {
        self.net.watch_door(listener.index, Some(tag));
        Ok(())
    }

    fn ignore_listener(&mut self, listener: &Listener) -> io::Result<()> {
        self.net.watch_door(listener.index, None);
        Ok(())
    }

    fn accept(&mut self, listener: &Listener) -> Result<(Socket, Option<Addr>), AcceptError> {
        match self.net.accept(listener.index) {
            Accepted::One(key, peer) => Ok((self.socket(key), Some(Addr::Inet(peer)))),
            Accepted::Failed => Err(AcceptError::Failed),
            Accepted::Empty => Err(AcceptError::Empty),
        }
    }

    fn peer_addr(&self, socket: &Socket) -> Addr {
        // A handle's flow stays until the handle is let go.
        let none = || SocketAddr::from(([0, 0, 0, 0], 0));
        Addr::Inet(self.net.peer_addr(socket.key).unwrap_or_else(none))
    }

    fn dial(&mut self, to: &Addr, options: &LegOptions) -> Result<(Socket, Dialled), ConnError> {
        Ok((self.begin_dial(to, None, options)?, Dialled::Pending))
    }

    /// From an address of the stack's alone.
    fn dial_from(
        &mut self,
        to: &Addr,
        source: SocketAddr,
        options: &LegOptions,
    ) -> Result<(Socket, Dialled), ConnError> {
        Ok((self.begin_dial(to, Some(source), options)?, Dialled::Pending))
    }

    fn watch(&mut self, socket: &Socket, tag: Tag) -> Result<(), ConnError> {
        self.net.watch(socket.key, tag);
        Ok(())
    }

    fn recv(&mut self, socket: &mut Socket, buf: &mut [u8]) -> Transfer {
        self.net.recv(socket.key, buf)
    }

    fn peek(&mut self, socket: &mut Socket, buf: &mut [u8]) -> Transfer {
        self.net.peek(socket.key, buf)
    }

    fn discard(&mut self, socket: &mut Socket, len: usize) -> Result<(), ConnError> {
        self.net.discard(socket.key, len)
    }

    fn send(&mut self, socket: &mut Socket, bytes: &[u8]) -> Transfer {
        self.net.send(socket.key, bytes, false)
    }

    fn send_ahead(&mut self, socket: &mut Socket, bytes: &[u8]) -> Transfer {
        self.net.send(socket.key, bytes, true)
    }

    fn push(&mut self, socket: &mut Socket) {
        self.net.push(socket.key);
    }

    /// 10 ms after they came bytes are acknowledged anyway (smoltcp's delay).
    fn acknowledge(&mut self, _socket: &mut Socket) {}

    fn pipe(&mut self, bytes: u32) -> io::Result<Pipe> {
        let room = (bytes as usize).clamp(1, PIPE_BYTES_MAX);
        Ok(Pipe { bytes: Vec::new(), taken: 0, room })
    }

    fn splice_in(&mut self, socket: &mut Socket, pipe: &mut Pipe, len: usize) -> Transfer {
        pipe.taken = 0;
        pipe.bytes.resize(len.min(pipe.room), 0);
        let came = self.net.recv(socket.key, &mut pipe.bytes);
        pipe.bytes.truncate(if let Ok(Progress::Moved(bytes)) = came { bytes } else { 0 });
        came
    }

    fn splice_out(&mut self, pipe: &mut Pipe, socket: &mut Socket, len: usize) -> Transfer {
        let rest = &pipe.bytes[pipe.taken..];
        let went = self.net.send(socket.key, &rest[..len.min(rest.len())], false);
        if let Ok(Progress::Moved(bytes)) = went {
            pipe.taken += bytes;
        }
        went
    }

    fn begin(&mut self, _: &mut Socket) -> Result<(), ConnError> {
        Ok(())
    }

    fn shutdown(&mut self, socket: &mut Socket) -> Result<(), ConnError> {
        self.net.shutdown(socket.key)
    }

    fn close(&mut self, socket: Socket) {
        self.net.close(socket.into_key());
    }

    fn reset(&mut self, socket: Socket) {
        self.net.reset(socket.into_key());
    }

    fn detach(&mut self, socket: Socket) -> Result<Self::Parcel, Socket> {
        Err(socket)
    }

    fn attach(&mut self, parcel: Self::Parcel) -> Result<Socket, ConnError> {
        match parcel {}
    }

    fn take_error(&mut self, socket: &mut Socket) -> Option<ConnError> {
        self.net.take_error(socket.key)
    }

    fn unsent(&self, socket: &Socket) -> usize {
        self.net.unsent(socket.key)
    }

    fn unacknowledged(&self, socket: &Socket) -> usize {
        self.net.unacknowledged(socket.key)
    }

    /// smoltcp tells nothing of the way.
    fn path(&self, _: &Socket) -> Option<PathInfo> {
        None
    }

    fn set_keepalive(&mut self, socket: &mut Socket, options: &LegOptions) {
        self.net.set_keepalive(socket.key, options);
    }

    fn set_probing(&mut self, socket: &mut Socket, probing: Option<&Probing>) {
        self.net.set_probing(socket.key, probing);
    }

    fn entropy(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // So few bytes come whole and at once from an initialised generator (getrandom(2)), and it's long initialised.
        getrandom(bytes.as_mut_slice(), GetRandomFlags::empty()).expect("the kernel has random numbers");
        bytes
    }

    fn local_addr(&self, socket: &Socket) -> Option<Addr> {
        self.net.local_addr(socket.key).map(Addr::Inet)
    }
}
