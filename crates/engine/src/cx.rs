//! Downcalls: what a program asks of the engine.

mod adopt;
mod check;
mod datagrams;
mod deferred;
mod listening;
mod look;
mod sending;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::Addr;
use crate::backend::{Backend, Dialled, Tag};
use crate::config::Config;
use crate::conn::{Ahead, Conn, Reading};
use crate::error::ConnError;
use crate::forward::{Mover, Pumped};
use crate::handler::{ConnId, ListenerId};
use crate::mesh::{CoreId, Seat};
use crate::meter::Meter;
use crate::options::{LegOptions, Probing};
use crate::pool::{BlockPool, PipePool};
use crate::slab::{Key, Slab};
use crate::time::Time;
use crate::timer::Wheel;
use crate::watchdog::Pulse;

pub use adopt::ReleaseError;
pub(crate) use datagrams::Datagrams;
pub(crate) use deferred::push_live;
pub use listening::LISTENERS_MAX;
pub(crate) use listening::Listening;
pub use look::Gauges;

/// A place where bytes are counted, of this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterId(pub(crate) u16);

impl MeterId {
    /// Where nobody looks.
    pub const NONE: Self = Self(0);
}

/// Everything of a core but the program: connections, timers, pools, and the backend beneath.
///
/// # The downcalls, sorted
/// - Listeners: [`listen_at`](Self::listen_at), [`listen`](Self::listen), [`unlisten`](Self::unlisten),
///   [`take_incoming`](Self::take_incoming); who comes there: [`incoming_peer`](Self::incoming_peer),
///   [`incoming_addr`](Self::incoming_addr), [`admit`](Self::admit), [`refuse`](Self::refuse).
/// - Connections of one's own: [`dial`](Self::dial), [`dial_from`](Self::dial_from); on the kernel's also [`adopt`](Self::adopt),
///   [`release`](Self::release).
/// - What becomes of received bytes: [`read`](Self::read), [`read_messages`](Self::read_messages), [`forward`](Self::forward),
///   [`pause`](Self::pause). The last one that was called counts.
/// - Sending: [`send`](Self::send), [`send_vectored`](Self::send_vectored), [`send_ahead`](Self::send_ahead), [`push`](Self::push).
/// - Ending: [`shutdown`](Self::shutdown), [`close`](Self::close), [`reset`](Self::reset); the loop: [`stop`](Self::stop).
/// - Datagrams: [`bind`](Self::bind), [`send_to`](Self::send_to), [`unbind`](Self::unbind).
/// - Time: [`now`](Self::now), [`set_timer`](Self::set_timer), [`clear_timer`](Self::clear_timer), [`set_alarm`](Self::set_alarm).
/// - Other cores: [`core`](Self::core), [`wake`](Self::wake), [`hand_off`](Self::hand_off).
/// - Settings of a connection: [`rename`](Self::rename), [`set_keepalive`](Self::set_keepalive), [`set_probing`](Self::set_probing).
/// - Counting: [`add_meter`](Self::add_meter), [`replace_meter`](Self::replace_meter).
/// - Looking at a connection: [`left_over`](Self::left_over), [`has_forwarded`](Self::has_forwarded), [`handed_on`](Self::handed_on),
///   [`first_handed_on`](Self::first_handed_on), [`last_active`](Self::last_active), [`unsent`](Self::unsent),
///   [`unacknowledged`](Self::unacknowledged), [`local_addr`](Self::local_addr), [`path`](Self::path); at a socket for datagrams:
///   [`datagram_addr`](Self::datagram_addr), [`datagram_counts`](Self::datagram_counts); at the core:
///   [`conns_open`](Self::conns_open), [`conns_free`](Self::conns_free), [`gauges`](Self::gauges).
/// - Beneath: [`backend`](Self::backend), [`entropy`](Self::entropy). For tests: [`check`](Self::check).
///
/// A downcall about a connection, a listener or a socket that's gone does nothing, and says that nothing was done.
pub struct Cx<B: Backend> {
    pub(crate) backend: B,
    pub(crate) config: Config,
    pub(crate) conns: Slab<Conn<B>>,
    pub(crate) timers: Wheel,
    /// Each connection stands in it at most once per generation; see [`push_live`] for those that are gone.
    pub(crate) queue: VecDeque<ConnId>,
    /// Dials that the backend may keep back for their first bytes, and connections that gather, each once; and the turn of it.
    pub(crate) deferred: VecDeque<(u64, ConnId)>,
    pub(crate) listeners: Slab<Listening<B::Listener>>,
    /// Listeners that rest, each once, and until when. All rest equally long, so they are in order.
    pub(crate) resting: VecDeque<(Time, ListenerId)>,
    pub(crate) datagrams: Datagrams<B>,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) blocks: BlockPool,
    pub(crate) pipes: PipePool<B::Pipe>,
    pub(crate) meters: Vec<Arc<Meter>>,
    /// This core's place among others.
    pub(crate) seat: Option<Seat<B::Parcel>>,
    /// Connections that go to other cores at the turn's end, each once.
    pub(crate) departures: VecDeque<(ConnId, CoreId)>,
    /// Connections that came from another core and found no room.
    pub(crate) hand_offs_lost: u64,
    /// What a watchdog sees, and how many upcalls there were.
    pub(crate) pulse: Pulse,
    pub(crate) upcalls: u64,
    /// When an event last came.
    pub(crate) event_at: Time,
    pub(crate) turns: u64,
    /// Upcalls that panicked.
    pub(crate) panics: u64,
    /// Whom the program admitted last: whose connection it is if `on_accept` panics.
    pub(crate) admitted: ConnId,
    pub(crate) stopping: bool,
}

impl<B: Backend> Cx<B> {
    pub(crate) fn new(backend: B, config: Config) -> Self {
        config.check();
        let twice = 2 * config.conns_max as usize;
        Self {
            backend,
            config,
            conns: Slab::with_capacity(config.conns_max),
            timers: Wheel::with_capacity(config.conns_max.saturating_add(1)),
            queue: VecDeque::with_capacity(twice),
            deferred: VecDeque::with_capacity(twice),
            listeners: Slab::with_capacity(LISTENERS_MAX),
            resting: VecDeque::with_capacity(LISTENERS_MAX as usize),
            datagrams: Datagrams::new(),
            buffer: vec![0; config.read_bytes].into_boxed_slice(),
            blocks: BlockPool::new(config.blocks, config.read_bytes),
            pipes: PipePool::new(config.pipes_max, config.pipe_bytes),
            meters: vec![Arc::default()],
            seat: None,
            departures: VecDeque::with_capacity(twice),
            hand_offs_lost: 0,
            pulse: Pulse::default(),
            upcalls: 0,
            event_at: Time::ZERO,
            turns: 0,
            panics: 0,
            admitted: Key::NONE,
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

    /// Ends the loop after this turn: [`Core::run`](crate::Core::run) hands what was sent to the transport, and returns. It ends nothing
    /// else. Connections, listeners and sockets for datagrams stay as they are until the core is dropped, and are told nothing more;
    /// dropping it ends them as the end of the process would: peers of accepted TCP connections see a reset, of dialled ones an end
    /// ([`LegOptions::ends_if_killed`] and [`LegOptions::reset_if_killed`] say otherwise). So a program that wants an orderly end
    /// closes its connections first, and stops when [`Cx::conns_open`] is 0.
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
        if !self.take_slot() {
            return Err(ConnError::Exhausted);
        }
        let dialled = match source {
            None => self.backend.dial(to, options),
            Some(source) => self.backend.dial_from(to, source, options),
        };
        let (socket, dialled) = dialled.inspect_err(|_| self.give_ticket())?;
        let mut conn = Conn::new(socket, token, meter.0, true, self.backend.now());
        conn.writable = dialled == Dialled::Connected;
        let id = self.watch_in(conn).map_err(|(_, error)| {
            self.give_ticket();
            error
        })?;
        if dialled == Dialled::Connected {
            self.enqueue(id);
            if options.fast_open {
                self.defer(id);
            }
        }
        Ok(id)
    }

    /// Whether there's room for another connection; if so, it's taken.
    fn take_slot(&mut self) -> bool {
        !self.conns.is_full() && self.seat.as_ref().is_none_or(|seat| seat.conns.take(seat.core.0))
    }

    /// Lets another core, or this one, have a connection in place of one that's gone.
    pub(crate) fn give_ticket(&self) {
        if let Some(seat) = &self.seat {
            seat.conns.give(seat.core.0);
        }
    }

    /// Puts a connection in for which a slot was taken.
    pub(crate) fn watch_in(&mut self, conn: Conn<B>) -> Result<ConnId, (Conn<B>, ConnError)> {
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
        self.offer_as(id, Reading::Upcall);
    }

    /// Offers what the connection receives to [`Handler::on_message`](crate::Handler::on_message) from now on, message by message as
    /// [`Handler::frame`](crate::Handler::frame) finds them, beginning with what was left over.
    pub fn read_messages(&mut self, id: ConnId) {
        self.offer_as(id, Reading::Messages);
    }

    fn offer_as(&mut self, id: ConnId, reading: Reading) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.offer_due = true;
            // Bytes that were only peeked at make no event again.
            conn.readable = true;
        }
        self.set_reading(id, reading);
    }

    /// Leaves what the connection receives where it is.
    pub fn pause(&mut self, id: ConnId) {
        self.set_reading(id, Reading::Paused);
    }

    /// Hands what `from` receives to `to` from now on, beginning with what was left over. `to` isn't shut down when `from` ends:
    /// [`Handler::on_peer_close`](crate::Handler::on_peer_close) says when.
    pub fn forward(&mut self, from: ConnId, to: ConnId) {
        let Some((source, sink)) = self.conns.pair_mut(from, to) else { return };
        if source.leaving || sink.leaving {
            return;
        }
        let before = std::mem::replace(&mut sink.source, from);
        if before != from
            && let Some(before) = self.conns.get_mut(before)
        {
            before.reading = Reading::Paused;
        }
        self.set_reading(from, Reading::Forward(to));
    }

    fn set_reading(&mut self, id: ConnId, reading: Reading) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.leaving) else { return };
        let before = std::mem::replace(&mut conn.reading, reading);
        conn.readable |= reading != Reading::Paused && std::mem::take(&mut conn.rest_unread);
        if reading != Reading::Paused && conn.failed.is_none() {
            // An end is met again, behind what was only peeked at.
            conn.ended = false;
        }
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

    /// Ends the connection in order: what was sent still reaches the peer. No upcall follows.
    ///
    /// The peer sees a reset instead, and may lose what was sent, where it had sent bytes that nobody has read (RFC 1122, 4.2.2.13):
    /// bytes that are still in the transport, because the connection was paused or none had been asked for, or that come after the
    /// close. What the engine has read counts as read, whether the program used it or left it over. What was left over while all
    /// blocks were in use ([`Config::blocks`]) was only peeked at, and is unread. To be sure that the last answer arrives,
    /// [`Cx::shutdown`], read on until [`on_peer_close`](crate::Handler::on_peer_close), and close then.
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
        if self.conns.get(id).is_some_and(|conn| !conn.leaving) {
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

    /// Switches keepalive and `user_timeout` on as `options` say. Accepted connections inherit it from their listener; on a dialled one it's left
    /// to the program, so that a short connection doesn't pay for it.
    pub fn set_keepalive(&mut self, id: ConnId, options: &LegOptions) {
        if let Some(conn) = self.conns.get_mut(id) {
            self.backend.set_keepalive(&mut conn.socket, options);
        }
    }

    /// Sets when keepalive probes, in place of what its options say; `None` switches it off. On the kernel some system calls: not
    /// for each event.
    pub fn set_probing(&mut self, id: ConnId, probing: Option<&Probing>) {
        if let Some(conn) = self.conns.get_mut(id) {
            self.backend.set_probing(&mut conn.socket, probing);
        }
    }

    pub(crate) fn enqueue(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.queued
        {
            conn.queued = true;
            push_live(&mut self.queue, id, &self.conns, |id| *id);
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
        let before = sink.ahead;
        let pumped = mover.pump(source, sink, taken);
        if before == Ahead::Waits && sink.ahead == Ahead::Gathers {
            self.defer(to);
        }
        Some(pumped)
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
        self.give_ticket();
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
}

/// The program's own entry in the wheel; the connections' are behind it.
pub(crate) const ALARM: u32 = 0;

/// The connection's entry in the wheel.
pub(crate) const fn timer_of(id: ConnId) -> u32 {
    id.slot() + 1
}
