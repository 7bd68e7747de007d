//! Downcalls: what a program asks of the engine.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::Addr;
use crate::backend::{AcceptError, Backend, Dialled, Progress, Tag};
use crate::config::Config;
use crate::conn::{Conn, Reading};
use crate::error::ConnError;
use crate::forward::{Mover, Pumped};
use crate::handler::{ConnId, Incoming, ListenerId};
use crate::meter::Meter;
use crate::options::LegOptions;
use crate::path::PathInfo;
use crate::pool::{BlockPool, PipePool};
use crate::slab::{Key, Slab};
use crate::time::Time;
use crate::timer::Wheel;

/// Tags with this bit belong to listeners.
const LISTENER_BIT: u64 = 1 << 63;

/// A place where bytes are counted, of this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterId(u16);

impl MeterId {
    /// Where nobody looks.
    pub const NONE: Self = Self(0);
}

#[derive(Debug)]
pub(crate) struct Listening<L> {
    pub(crate) listener: L,
    /// When it is watched again, if it rests.
    pub(crate) rests_until: Option<Time>,
}

/// Everything of a core but the program: connections, timers, pools, and the backend beneath.
pub struct Cx<B: Backend> {
    pub(crate) backend: B,
    pub(crate) config: Config,
    pub(crate) conns: Slab<Conn<B>>,
    pub(crate) timers: Wheel,
    /// Each connection stands in it at most once per generation, so it never outgrows its reserve by more than the stale ones.
    pub(crate) queue: VecDeque<ConnId>,
    /// Dials that the backend may keep back for their first bytes, and the turn in which they were made.
    pub(crate) deferred: VecDeque<(u64, ConnId)>,
    pub(crate) listeners: Vec<Option<Listening<B::Listener>>>,
    pub(crate) resting: usize,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) blocks: BlockPool,
    pub(crate) pipes: PipePool<B::Pipe>,
    pub(crate) meters: Vec<Arc<Meter>>,
    pub(crate) turns: u64,
    pub(crate) stopping: bool,
}

impl<B: Backend> Cx<B> {
    pub(crate) fn new(backend: B, config: Config) -> Self {
        config.check();
        Self {
            backend,
            config,
            conns: Slab::with_capacity(config.conns_max),
            timers: Wheel::with_capacity(config.conns_max.saturating_add(1)),
            queue: VecDeque::with_capacity(config.conns_max as usize),
            deferred: VecDeque::new(),
            listeners: Vec::new(),
            resting: 0,
            buffer: vec![0; config.read_bytes].into_boxed_slice(),
            blocks: BlockPool::new(config.blocks, config.read_bytes),
            pipes: PipePool::new(config.pipes_max, config.pipe_bytes),
            meters: vec![Arc::default()],
            turns: 0,
            stopping: false,
        }
    }

    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Time {
        self.backend.now()
    }

    /// The backend beneath.
    pub const fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Ends the loop after this turn.
    pub const fn stop(&mut self) {
        self.stopping = true;
    }

    /// Registers a place where bytes are counted, for as long as the core lives.
    ///
    /// # Panics
    /// Beyond 65,535 of them.
    pub fn add_meter(&mut self, meter: Arc<Meter>) -> MeterId {
        let id = u16::try_from(self.meters.len()).expect("fewer than 65,536 meters");
        self.meters.push(meter);
        MeterId(id)
    }

    /// Counts in another place from now on, and lets go of the one before.
    pub fn replace_meter(&mut self, id: MeterId, meter: Arc<Meter>) {
        self.meters[usize::from(id.0)] = meter;
    }

    /// Accepts from `listener` from now on.
    ///
    /// # Errors
    /// When the backend has no room for it.
    pub fn listen(&mut self, listener: B::Listener) -> std::io::Result<ListenerId> {
        let free = self.listeners.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.listeners.push(None);
            self.listeners.len() - 1
        });
        let id = ListenerId(u32::try_from(index).expect("few listeners"));
        self.backend.watch_listener(&listener, id.tag())?;
        self.listeners[index] = Some(Listening { listener, rests_until: None });
        Ok(id)
    }

    /// Stops accepting and closes the listener. Connections still in its queue are reset by the kernel.
    pub fn unlisten(&mut self, id: ListenerId) {
        if let Some(gone) = self.listeners.get_mut(id.0 as usize).and_then(Option::take)
            && gone.rests_until.is_some()
        {
            self.resting -= 1;
        }
    }

    /// Takes one connection out of the accept queue: for a program that is about to close the listener, whose clients have
    /// connected already. `None` when there's none, or nothing to accept it with.
    pub fn take_incoming(&mut self, id: ListenerId) -> Option<Incoming<B::Socket>> {
        let listening = self.listeners.get(id.0 as usize)?.as_ref()?;
        loop {
            match self.backend.accept(&listening.listener) {
                Ok((socket, peer)) => return Some(Incoming { socket, peer }),
                Err(AcceptError::Failed) => {}
                Err(AcceptError::Empty | AcceptError::Exhausted) => return None,
            }
        }
    }

    /// Takes an accepted connection in. Nothing is read until it's asked for.
    ///
    /// # Errors
    /// The connection, when the core is full or the backend can't watch it: refuse it.
    pub fn admit(
        &mut self,
        incoming: Incoming<B::Socket>,
        token: u64,
        meter: MeterId,
    ) -> Result<ConnId, Incoming<B::Socket>> {
        let Incoming { socket, peer } = incoming;
        let conn = Conn::new(socket, token, meter.0, false, self.now());
        match self.insert(conn) {
            Ok(id) => Ok(id),
            Err((conn, _)) => Err(Incoming { socket: conn.socket, peer }),
        }
    }

    /// This end's address of an accepted connection: on a transparent listener, where its client wanted to go.
    #[must_use]
    pub fn incoming_addr(&self, incoming: &Incoming<B::Socket>) -> Option<Addr> {
        self.backend.local_addr(&incoming.socket)
    }

    /// Turns an accepted connection away: its client sees a reset.
    pub fn refuse(&mut self, incoming: Incoming<B::Socket>) {
        self.backend.reset(incoming.socket);
    }

    /// Begins a connection to `to`. `on_connect` or `on_error` follows.
    ///
    /// # Errors
    /// When it failed at once; no upcall follows then.
    pub fn dial(&mut self, to: &Addr, options: &LegOptions, token: u64, meter: MeterId) -> Result<ConnId, ConnError> {
        self.dial_from(to, None, options, token, meter)
    }

    /// Begins a connection to `to` that comes from `source`, if one is given: another's address, so that the peer sees that one.
    /// Its packets must find the way back to this host.
    ///
    /// # Errors
    /// When it failed at once; no upcall follows then.
    pub fn dial_from(
        &mut self,
        to: &Addr,
        source: Option<SocketAddr>,
        options: &LegOptions,
        token: u64,
        meter: MeterId,
    ) -> Result<ConnId, ConnError> {
        if self.conns.is_full() {
            return Err(ConnError::Exhausted);
        }
        let (socket, dialled) = match source {
            None => self.backend.dial(to, options)?,
            Some(source) => self.backend.dial_from(to, source, options)?,
        };
        let mut conn = Conn::new(socket, token, meter.0, true, self.backend.now());
        conn.writable = dialled == Dialled::Connected;
        let id = self.insert(conn).map_err(|(_, error)| error)?;
        if dialled == Dialled::Connected {
            self.enqueue(id);
            if options.fast_open {
                self.deferred.push_back((self.turns, id));
            }
        }
        Ok(id)
    }

    fn insert(&mut self, conn: Conn<B>) -> Result<ConnId, (Conn<B>, ConnError)> {
        let id = self.conns.insert(conn).map_err(|conn| (conn, ConnError::Exhausted))?;
        let conn = self.conns.get(id).expect("it was put in just now");
        if let Err(error) = self.backend.watch(&conn.socket, Tag(id.to_bits())) {
            let conn = self.conns.remove(id).expect("it was put in just now");
            return Err((conn, error));
        }
        Ok(id)
    }

    /// Offers what the connection receives to [`Handler::on_data`](crate::Handler::on_data) from now on; what was left over is
    /// offered again at once.
    pub fn read(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.offer_due = true;
            // Bytes that were only peeked at make no event again.
            conn.readable = true;
        }
        self.set_reading(id, Reading::Upcall);
    }

    /// Leaves what the connection receives where it is.
    pub fn pause(&mut self, id: ConnId) {
        self.set_reading(id, Reading::Paused);
    }

    /// Hands what `from` receives to `to` from now on, beginning with what was left over. `to` isn't shut down when `from` ends:
    /// [`Handler::on_peer_close`](crate::Handler::on_peer_close) says when.
    pub fn forward(&mut self, from: ConnId, to: ConnId) {
        let Some((_, sink)) = self.conns.pair_mut(from, to) else { return };
        let before = std::mem::replace(&mut sink.source, from);
        if before != from
            && let Some(before) = self.conns.get_mut(before)
        {
            before.reading = Reading::Paused;
        }
        self.set_reading(from, Reading::Forward(to));
    }

    fn set_reading(&mut self, id: ConnId, reading: Reading) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let before = std::mem::replace(&mut conn.reading, reading);
        if let Reading::Forward(sink) = before
            && before != reading
            && let Some(sink) = self.conns.get_mut(sink)
            && sink.source == id
        {
            sink.source = Key::NONE;
        }
        if reading != Reading::Paused {
            self.enqueue(id);
        }
    }

    /// Sends what there is room for and says how much that was. After a short answer `on_writable` follows; the rest is the
    /// caller's to keep. Sends nothing while another connection is forwarded to this one.
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        if conn.source != Key::NONE || conn.failed.is_some() {
            return 0;
        }
        let sent = match conn.writable.then(|| self.backend.send(&mut conn.socket, bytes)) {
            Some(Ok(Progress::Moved(sent))) => sent,
            Some(Ok(_)) | None => 0,
            Some(Err(error)) => {
                conn.fail(error);
                self.enqueue(id);
                return 0;
            }
        };
        if sent < bytes.len() {
            conn.writable = false;
            conn.awaits_room = true;
        }
        sent
    }

    /// Finishes sending: the peer reads the end after what was sent.
    pub fn shutdown(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Err(error) = self.backend.shutdown(&mut conn.socket) {
            conn.fail(error);
            self.enqueue(id);
        }
    }

    /// Ends the connection in order: what was sent still reaches the peer. No upcall follows.
    pub fn close(&mut self, id: ConnId) {
        if let Some(socket) = self.remove(id) {
            self.backend.close(socket);
        }
    }

    /// Ends the connection at once; its peer sees a reset where the transport has one. No upcall follows.
    pub fn reset(&mut self, id: ConnId) {
        if let Some(socket) = self.remove(id) {
            self.backend.reset(socket);
        }
    }

    /// Sets the connection's one timer, in place of the one before. It has a grain of a millisecond, and
    /// waits twelve days at most.
    pub fn set_timer(&mut self, id: ConnId, wait: Duration) {
        if self.conns.get(id).is_some() {
            // Rounded up: a timer never fires early.
            let at_ms = self.now().after(wait).as_nanos().div_ceil(1_000_000);
            self.timers.set(timer_of(id), at_ms);
        }
    }

    /// Clears the connection's timer.
    pub fn clear_timer(&mut self, id: ConnId) {
        if self.conns.get(id).is_some() {
            self.timers.clear(timer_of(id));
        }
    }

    /// Gives the connection another token, which upcalls carry from now on, and another place where what it receives is counted;
    /// [`Cx::handed_on`] begins anew.
    pub fn rename(&mut self, id: ConnId, token: u64, meter: MeterId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.token = token;
            conn.meter = meter.0;
            conn.handed_on = 0;
            conn.first_handed_on = Time::ZERO;
        }
    }

    /// Whether any byte that the connection received was taken to be forwarded: it can't be had again.
    #[must_use]
    pub fn has_forwarded(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.forwarded)
    }

    /// Unpredictable bytes, for a nonce.
    pub fn entropy(&mut self) -> [u8; 32] {
        self.backend.entropy()
    }

    /// Has [`Handler::on_alarm`](crate::Handler::on_alarm) called once after `wait`, in place of the alarm set before. It has a
    /// grain of a millisecond, and waits twelve days at most.
    pub fn set_alarm(&mut self, wait: Duration) {
        let at_ms = self.now().after(wait).as_nanos().div_ceil(1_000_000);
        self.timers.set(ALARM, at_ms);
    }

    /// When bytes last came from the connection or went to it; when it was made, if none did.
    #[must_use]
    pub fn last_active(&self, id: ConnId) -> Time {
        self.conns.get(id).map_or(Time::ZERO, |conn| conn.active)
    }

    /// Bytes received on the connection and handed on.
    #[must_use]
    pub fn handed_on(&self, id: ConnId) -> u64 {
        self.conns.get(id).map_or(0, |conn| conn.handed_on)
    }

    /// When the first of them was; `None` before. It's begun anew with [`Cx::handed_on`].
    #[must_use]
    pub fn first_handed_on(&self, id: ConnId) -> Option<Time> {
        let conn = self.conns.get(id)?;
        (conn.handed_on > 0).then_some(conn.first_handed_on)
    }

    /// What the transport knows of the way to the peer, for connections that have a way. A system call on the kernel: not for each event.
    #[must_use]
    pub fn path(&self, id: ConnId) -> Option<PathInfo> {
        self.backend.path(&self.conns.get(id)?.socket)
    }

    /// Bytes sent on the connection that aren't on the wire yet.
    #[must_use]
    pub fn unsent(&self, id: ConnId) -> usize {
        self.conns.get(id).map_or(0, |conn| self.backend.unsent(&conn.socket))
    }

    /// Bytes sent on the connection that its peer hasn't acknowledged yet: while they get fewer, the peer lives.
    #[must_use]
    pub fn unacknowledged(&self, id: ConnId) -> usize {
        self.conns.get(id).map_or(0, |conn| self.backend.unacknowledged(&conn.socket))
    }

    /// Switches keepalive on as `options` say. Accepted connections inherit it from their listener; on a dialled one it's left
    /// to the program, so that a short connection doesn't pay for it.
    pub fn set_keepalive(&mut self, id: ConnId, options: &LegOptions) {
        if let Some(conn) = self.conns.get_mut(id) {
            self.backend.set_keepalive(&mut conn.socket, options);
        }
    }

    /// This end's address.
    #[must_use]
    pub fn local_addr(&self, id: ConnId) -> Option<Addr> {
        self.conns.get(id).and_then(|conn| self.backend.local_addr(&conn.socket))
    }

    /// Connections that are open.
    #[must_use]
    pub const fn conns_open(&self) -> usize {
        self.conns.len()
    }

    /// Room for connections.
    #[must_use]
    pub const fn conns_free(&self) -> usize {
        self.config.conns_max as usize - self.conns.len()
    }

    /// What the pools hold, and how far the loop has come.
    #[must_use]
    pub const fn gauges(&self) -> Gauges {
        Gauges {
            pipes: self.pipes.existing(),
            pipes_leased: self.pipes.leased(),
            pipes_missed: self.pipes.missed,
            blocks_leased: self.blocks.leased(),
            turns: self.turns,
        }
    }

    /// Dials that found no first bytes in the turn after theirs go out without.
    pub(crate) fn begin_deferred(&mut self) {
        while let Some((turn, id)) = self.deferred.front().copied()
            && turn < self.turns
        {
            self.deferred.pop_front();
            let Some(conn) = self.conns.get_mut(id) else { continue };
            if let Err(error) = self.backend.begin(&mut conn.socket) {
                conn.fail(error);
                self.enqueue(id);
            }
        }
    }

    pub(crate) fn enqueue(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.queued
        {
            conn.queued = true;
            self.queue.push_back(id);
        }
    }

    /// One turn of the direction that begins at `from`; `None` if it doesn't forward.
    pub(crate) fn pump(&mut self, from: ConnId, taken: &mut usize) -> Option<Pumped> {
        let Reading::Forward(to) = self.conns.get(from)?.reading else { return None };
        let (source, sink) = self.conns.pair_mut(from, to)?;
        let mut mover = Mover {
            now: self.backend.now(),
            backend: &mut self.backend,
            buffer: &mut self.buffer,
            blocks: &mut self.blocks,
            pipes: &mut self.pipes,
            meter: &self.meters[usize::from(source.meter)],
            config: &self.config,
        };
        Some(mover.pump(source, sink, taken))
    }

    /// Drops what `id` has read and not handed on.
    pub(crate) fn drop_held(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(stash) = conn.stash.take() {
            self.blocks.give_back(stash);
        }
        if let Some(pipe) = conn.pipe.take() {
            if conn.pipe_bytes == 0 {
                self.pipes.give_back(pipe);
            } else {
                self.pipes.forget();
            }
        }
        conn.pipe_bytes = 0;
    }

    /// Takes the connection out, with all that hangs on it.
    fn remove(&mut self, id: ConnId) -> Option<B::Socket> {
        self.drop_held(id);
        let conn = self.conns.remove(id)?;
        self.timers.clear(timer_of(id));
        // Either may have been put together with another connection by now.
        if let Some(source) = self.conns.get_mut(conn.source)
            && source.reading == Reading::Forward(id)
        {
            source.reading = Reading::Paused;
        }
        if let Reading::Forward(sink) = conn.reading
            && let Some(sink) = self.conns.get_mut(sink)
            && sink.source == id
        {
            sink.source = Key::NONE;
        }
        Some(conn.socket)
    }

    /// Asserts the invariants between connections, pools and queue. Simulation and fuzzing call it each step.
    ///
    /// # Panics
    /// When one of them doesn't hold.
    pub fn check(&self) {
        let (mut blocks, mut pipes) = (0, 0);
        for id in self.conns.keys() {
            let Some(conn) = self.conns.get(id) else { continue };
            blocks += usize::from(conn.stash.is_some());
            pipes += usize::from(conn.pipe.is_some());
            assert!(conn.stash.is_none() || conn.pipe_bytes == 0, "bytes wait in two places");
            assert_eq!(conn.pipe.is_some(), conn.pipe_bytes > 0, "a pipe is kept without bytes");
            if let Reading::Forward(sink) = conn.reading {
                assert!(self.conns.get(sink).is_some_and(|sink| sink.source == id), "a sink doesn't know its source");
            }
            if let Some(source) = self.conns.get(conn.source) {
                assert_eq!(source.reading, Reading::Forward(id), "a source doesn't know its sink");
            }
            assert!(!conn.queued || self.queue.contains(&id), "a connection believes that it's queued");
        }
        assert_eq!((blocks, pipes), (self.blocks.leased(), self.pipes.leased()), "a block or a pipe has leaked");
    }
}

/// The program's own entry in the wheel; the connections' are behind it.
pub(crate) const ALARM: u32 = 0;

/// The connection's entry in the wheel.
const fn timer_of(id: ConnId) -> u32 {
    id.slot() + 1
}

impl ListenerId {
    pub(crate) const fn tag(self) -> Tag {
        Tag(LISTENER_BIT | self.0 as u64)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a listener's tag is its bit and 32 bits of index")]
    pub(crate) const fn from_tag(tag: Tag) -> Option<Self> {
        if tag.0 & LISTENER_BIT == 0 { None } else { Some(Self(tag.0 as u32)) }
    }
}

/// What a core's pools hold, and how far its loop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Pipes that exist, leased or ready.
    pub pipes: usize,
    /// Pipes that hold bytes.
    pub pipes_leased: usize,
    /// Times that a bulk direction found no pipe and was copied.
    pub pipes_missed: u64,
    /// Blocks that hold bytes.
    pub blocks_leased: usize,
    /// Turns of the loop.
    pub turns: u64,
}
