//! The loop: events in, upcalls out, every direction in its turn.

mod datagrams;

use std::io;
use std::time::Duration;

use crate::backend::{AcceptError, Backend, Ready, Tag};
use crate::config::Config;
use crate::conn::Reading;
use crate::cx::{ALARM, Cx};
use crate::datagram::DatagramId;
use crate::error::ConnError;
use crate::forward::Pumped;
use crate::handler::{ConnId, Handler, Incoming, ListenerId};
use crate::mesh::Seat;
use crate::slab::Key;
use crate::upcall::Upcall;
use crate::watchdog::Pulse;

/// Events under this tag mean that another thread woke the core.
pub const WAKE: Tag = Tag(u64::MAX);

/// One loop: a program, its connections, and the backend beneath. It runs on the thread that calls it.
pub struct Core<B: Backend, H: Handler<B>> {
    pub(crate) cx: Cx<B>,
    pub(crate) handler: H,
}

impl<B: Backend, H: Handler<B>> Core<B, H> {
    /// A core with no connections. All memory that `config` bounds is reserved here.
    ///
    /// # Panics
    /// When the limits in `config` contradict each other.
    pub fn new(backend: B, config: Config, handler: H) -> Self {
        Self { cx: Cx::new(backend, config), handler }
    }

    /// A core among others, on the seat that a [`Mesh`](crate::Mesh) gave it.
    ///
    /// # Errors
    /// When the backend has no room for what wakes it.
    ///
    /// # Panics
    /// When the limits in `config` contradict each other, or those of another core of the mesh.
    pub fn seated(backend: B, config: Config, handler: H, seat: Seat<B::Parcel>) -> io::Result<Self> {
        let mut core = Self::new(backend, config, handler);
        seat.check(config.read_bytes);
        core.cx.backend.watch_waker(seat.waker())?;
        core.cx.seat = Some(seat);
        Ok(core)
    }

    /// The program and its downcalls, between turns.
    pub const fn parts(&mut self) -> (&mut H, &mut Cx<B>) {
        (&mut self.handler, &mut self.cx)
    }

    /// Takes turns until the program says [`Cx::stop`].
    ///
    /// # Errors
    /// When the backend can't wait for events any more.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.cx.stopping {
            self.turn()?;
        }
        self.cx.backend.flush()
    }

    /// One turn: waits for events, handles them, gives queued directions their turn, fires timers.
    ///
    /// # Errors
    /// When the backend can't wait for events any more.
    pub fn turn(&mut self) -> io::Result<()> {
        let events = self.wait()?;
        self.cx.turns += 1;
        for index in 0..events {
            let ready = self.cx.backend.ready(index);
            self.dispatch(ready);
        }
        self.run_queue();
        self.run_datagrams();
        self.fire_timers();
        self.rouse_listeners();
        self.upcall(Upcall::TurnEnd, Key::NONE, |handler, cx| handler.on_turn_end(cx));
        self.cx.flush_gathered();
        self.see_off();
        self.cx.begin_deferred();
        Ok(())
    }

    /// Waits for events: awake for a while after the last one, if that's configured, then asleep.
    fn wait(&mut self) -> io::Result<usize> {
        let patience = self.patience();
        let spin = patience.map_or(self.cx.config.busy_poll, |patience| patience.min(self.cx.config.busy_poll));
        if spin.is_zero() {
            return self.cx.backend.poll(patience);
        }
        loop {
            let before = self.cx.now();
            let events = self.cx.backend.poll(Some(Duration::ZERO))?;
            let now = self.cx.now();
            if events > 0 {
                self.cx.event_at = now;
                return Ok(events);
            }
            // A simulated clock may pass only in sleep.
            if now == before || now.since(self.cx.event_at) >= spin {
                break;
            }
        }
        let events = self.cx.backend.poll(self.patience())?;
        if events > 0 {
            self.cx.event_at = self.cx.now();
        }
        Ok(events)
    }

    /// What shows which upcall the core is in, for a [`Watchdog`](crate::Watchdog).
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.cx.pulse.clone()
    }

    /// How long the loop may sleep.
    fn patience(&self) -> Option<Duration> {
        if !self.cx.queue.is_empty() || self.cx.datagrams.has_work() || !self.cx.departures.is_empty() {
            return Some(Duration::ZERO);
        }
        let deferred = self.cx.deferred_wait();
        let now = self.cx.now();
        let timer = self
            .cx
            .timers
            .next_ms()
            .map(|at_ms| Duration::from_millis(at_ms).saturating_sub(Duration::from_nanos(now.as_nanos())));
        let rest = self.cx.resting.front().map(|(until, _)| until.since(now));
        [deferred, timer, rest].into_iter().flatten().min()
    }

    fn dispatch(&mut self, ready: Ready) {
        if ready.tag == WAKE {
            self.open_mail();
            self.upcall(Upcall::Wake, Key::NONE, |handler, cx| handler.on_wake(cx));
        } else if let Some(listener) = ListenerId::from_tag(ready.tag) {
            self.accept(listener);
        } else if let Some(socket) = DatagramId::from_tag(ready.tag) {
            self.dispatch_datagrams(socket, ready);
        } else {
            self.dispatch_conn(Key::from_bits(ready.tag.0), ready);
        }
    }

    fn accept(&mut self, id: ListenerId) {
        for _ in 0..self.cx.config.accept_batch {
            let Some(listening) = self.cx.listeners.get(id.0) else { return };
            match self.cx.backend.accept(&listening.listener) {
                Ok((socket, peer)) => {
                    self.cx.admitted = Key::NONE;
                    let incoming = Incoming { socket, peer };
                    self.upcall(Upcall::Accept, Key::NONE, |handler, cx| handler.on_accept(cx, id, incoming));
                }
                Err(AcceptError::Failed) => {}
                Err(AcceptError::Empty) => return,
                Err(AcceptError::Exhausted) => {
                    self.cx.rest_listener(id);
                    self.tell_exhausted(id);
                    return;
                }
            }
        }
    }

    fn tell_exhausted(&mut self, id: ListenerId) {
        self.upcall(Upcall::AcceptExhausted, Key::NONE, |handler, cx| handler.on_accept_exhausted(cx, id));
    }

    /// Watches listeners again that have rested. What they lacked may be lacking still: the others, and all connections, go on.
    fn rouse_listeners(&mut self) {
        while let Some(roused) = self.cx.rouse_listener() {
            if let Err(id) = roused {
                self.tell_exhausted(id);
            }
        }
    }

    fn dispatch_conn(&mut self, id: ConnId, ready: Ready) {
        let Some(conn) = self.cx.conns.get_mut(id) else { return };
        if ready.failed
            && let Some(error) = self.cx.backend.take_error(&mut conn.socket)
        {
            conn.fail(error);
        }
        if ready.readable || ready.peer_finished {
            conn.readable = true;
            conn.end_ahead |= ready.peer_finished;
        }
        let room_came = ready.writable && !conn.writable;
        conn.writable |= ready.writable;
        if conn.connecting {
            if conn.writable || conn.failed.is_some() {
                self.dialled(id);
            }
            return;
        }
        let (source, awaits_room) = (conn.source, conn.awaits_room);
        if conn.readable {
            if conn.bulk && conn.failed.is_none() {
                self.cx.enqueue(id);
            } else {
                self.run_conn(id, &mut 0);
            }
        }
        if room_came {
            self.room_came(id, source, awaits_room);
        }
    }

    fn dialled(&mut self, id: ConnId) {
        let Some(conn) = self.cx.conns.get_mut(id) else { return };
        // A dial that isn't answered fails otherwise (RFC 9293, 3.10.7.3): this one stood, and was reset by the time we look. What
        // came before can still be read, and the failure shows after it.
        let stood = conn.failed == Some(ConnError::Reset);
        if conn.failed.is_some() && !stood {
            self.fail(id);
            return;
        }
        conn.connecting = false;
        conn.active = self.cx.backend.now();
        let token = conn.token;
        self.upcall(Upcall::Connect, id, |handler, cx| handler.on_connect(cx, id, token));
        // Its bytes may have come with it, in the same event, and the program may have asked for them before.
        if stood || self.cx.conns.get(id).is_some_and(|conn| conn.reading != Reading::Paused) {
            self.cx.enqueue(id);
        }
    }

    /// There is room to write on `id` again: who waited for it goes on.
    fn room_came(&mut self, id: ConnId, source: ConnId, awaits_room: bool) {
        if source != Key::NONE {
            if self.cx.conns.get(source).is_some_and(|source| source.bulk) {
                self.cx.enqueue(source);
            } else {
                self.run_conn(source, &mut 0);
            }
        } else if awaits_room && let Some(conn) = self.cx.conns.get_mut(id).filter(|conn| !conn.leaving) {
            conn.awaits_room = false;
            let token = conn.token;
            self.upcall(Upcall::Writable, id, |handler, cx| handler.on_writable(cx, id, token));
        }
    }

    /// Gives each queued connection one turn, until the bytes of a loop are used up.
    fn run_queue(&mut self) {
        let mut taken = 0;
        for _ in 0..self.cx.queue.len() {
            if taken >= self.cx.config.loop_bytes {
                break;
            }
            let Some(id) = self.cx.queue.pop_front() else { break };
            let Some(conn) = self.cx.conns.get_mut(id) else { continue };
            conn.queued = false;
            if conn.connecting {
                // It may stand in the queue before it stands: the program has asked for its bytes early.
                if conn.writable || conn.failed.is_some() {
                    self.dialled(id);
                }
            } else {
                self.run_conn(id, &mut taken);
            }
        }
    }

    /// Does with what `id` received whatever is to be done with it.
    fn run_conn(&mut self, id: ConnId, taken: &mut usize) {
        let Some(conn) = self.cx.conns.get(id) else { return };
        match conn.reading {
            Reading::Forward(sink) => match self.cx.pump(id, taken) {
                None | Some(Pumped::Waiting) => {}
                Some(Pumped::Again) => self.cx.enqueue(id),
                Some(Pumped::Ended) => self.tell_end(id),
                Some(Pumped::SourceFailed) => self.fail(id),
                Some(Pumped::SinkFailed) => self.sink_failed(id, sink),
            },
            Reading::Upcall | Reading::Messages => self.offer(id),
            Reading::Paused if conn.failed.is_some() => self.fail(id),
            Reading::Paused => {}
        }
    }

    fn fire_timers(&mut self) {
        let now_ms = self.cx.now().as_millis();
        while let Some(entry) = self.cx.timers.expire(now_ms) {
            if entry == ALARM {
                self.upcall(Upcall::Alarm, Key::NONE, |handler, cx| handler.on_alarm(cx));
            } else if let Some(id) = self.cx.conns.key_at(entry - 1)
                && let Some(conn) = self.cx.conns.get(id)
            {
                let token = conn.token;
                self.upcall(Upcall::Timer, id, |handler, cx| handler.on_timer(cx, id, token));
            }
        }
    }

    pub(crate) fn tell_end(&mut self, id: ConnId) {
        if let Some(conn) = self.cx.conns.get_mut(id)
            && !conn.end_told
        {
            conn.end_told = true;
            let token = conn.token;
            self.cx.pause(id);
            self.upcall(Upcall::PeerClose, id, |handler, cx| handler.on_peer_close(cx, id, token));
        }
    }

    /// Nothing more can go to `sink`: what waits for it is dropped, and it fails once what it received is handed on.
    fn sink_failed(&mut self, id: ConnId, sink: ConnId) {
        self.cx.drop_held(id);
        self.cx.pause(id);
        self.cx.enqueue(sink);
        // The source may have failed as well; nobody reads it now, so nobody else would find out.
        self.cx.enqueue(id);
    }

    pub(crate) fn fail(&mut self, id: ConnId) {
        if let Some(conn) = self.cx.conns.get(id)
            && let Some(error) = conn.failed
        {
            let token = conn.token;
            self.upcall(Upcall::Error, id, |handler, cx| handler.on_error(cx, id, token, error));
            self.cx.close(id);
        }
    }
}
