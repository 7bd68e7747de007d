//! The relay: the program that the engine calls. One a core; it shares nothing with the others but counters.
//!
//! It opens a pair for each client that is let in, dials, and asks the engine to forward leg to leg both ways. While bytes flow
//! it isn't called at all. It's called again when a side has finished sending, a leg fails, or time runs out:
//!
//! - an end crosses as an end, after every byte before it; a pair with both ends seen is finished;
//! - a reset crosses as a reset, after the bytes that came before it;
//! - a pair's one timer stands on its client leg (on the surviving leg once one is gone).

mod admission;
mod answer;
mod clock;
mod dial;
mod early;
mod ending;
mod greeting;
mod guest;
mod measure;
mod messages;
mod original;
mod trunk;
mod warming;
mod watch;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use midmile_engine::{
    Allowance, Backend, ConnError, ConnId, Cx, DatagramId, Flow, Frame, Handler, Incoming, Key, ListenerId, Slab, Time,
};
use midmile_mux::Census;
use midmile_wire::trunk::hello::Hello;

use crate::counters::{CoreCounters, RouteCounters};
use crate::pair::{Side, State, Token};
use crate::plan::Route;
use crate::reason::{End, Refusal};
use crate::report::PairReport;
use crate::room::{Pairs, Room};
use crate::serving::{DoorId, Servings};
use crate::trunk::{Pools, Reach};
use early::Heralds;
pub(crate) use early::Syn;
use guest::Guest;
use messages::Messages;

/// How soon a flowing pair is first looked at: one that lives so long gets keepalive on its server leg.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// What the control side asks of a core.
#[derive(Debug)]
pub(crate) enum Order<L> {
    /// Accept there.
    Open {
        door: DoorId,
        listener: L,
        route: Arc<Route>,
        counters: Arc<RouteCounters>,
        census: Arc<Census>,
        pairs: Arc<Allowance>,
    },
    /// Serve those who come there by another route from now on.
    Swap { door: DoorId, route: Arc<Route>, pairs: Arc<Allowance> },
    /// Stop accepting there.
    Close { door: DoorId },
    /// Reach these peers from now on.
    Peers(Vec<Reach>),
    /// Stop accepting everywhere.
    CloseAll,
    /// Cut what is left, and end.
    Stop,
}

/// What a relay is made of.
#[derive(Debug)]
pub(crate) struct Parts<L> {
    /// Its place among the cores.
    pub(crate) core: u16,
    /// For those of all cores.
    pub(crate) pairs: Arc<Allowance>,
    /// Trunk connections in pools.
    pub(crate) pooled_max: u32,
    pub(crate) counters: Arc<CoreCounters>,
    pub(crate) orders: Receiver<Order<L>>,
    /// SYNs that were heard of.
    pub(crate) syns: Receiver<Syn>,
    pub(crate) reports: SyncSender<PairReport>,
}

/// The relay on one core.
#[derive(Debug)]
pub(crate) struct Relay<L> {
    core: usize,
    pairs: Pairs,
    guests: Slab<Guest>,
    /// Hellos of pairs that are passed on.
    hellos: Slab<Hello>,
    pools: Pools,
    heralds: Heralds,
    messages: Messages,
    /// When the clock is looked at, if anything needs that.
    tick_due: Option<Time>,
    /// When the alarm goes off, if it's set.
    alarm_at: Option<Time>,
    /// What the trace numbers of this core begin with, once one was needed.
    trace_base: Option<[u8; 32]>,
    traces: u64,
    servings: Servings,
    counters: Arc<CoreCounters>,
    orders: Receiver<Order<L>>,
    reports: SyncSender<PairReport>,
}

impl<L> Relay<L> {
    pub(crate) fn new(parts: Parts<L>) -> Self {
        Self {
            core: parts.core.into(),
            guests: Slab::with_capacity(parts.pairs.max()),
            hellos: Slab::with_capacity(parts.pairs.max()),
            messages: Messages::new(parts.pairs.max()),
            pools: Pools::new(parts.pooled_max),
            heralds: Heralds::new(parts.syns, parts.pairs.max() / u32::from(parts.pairs.cores())),
            pairs: Pairs::new(Room::new(parts.pairs, parts.core)),
            tick_due: None,
            alarm_at: None,
            trace_base: None,
            traces: 0,
            servings: Servings::new(),
            counters: parts.counters,
            orders: parts.orders,
            reports: parts.reports,
        }
    }

    /// Pairs open on this core.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn pairs_open(&self) -> usize {
        self.pairs.len() + self.messages.len()
    }

    /// Carries one order out.
    pub(crate) fn obey<B: Backend<Listener = L>>(&mut self, cx: &mut Cx<B>, order: Order<L>) {
        match order {
            Order::Open { door, listener, route, counters, census, pairs } => {
                // It fails only when epoll has no room for one more; the other cores' listeners then serve.
                self.servings.open(cx, door, listener, (route, counters, census), self.room(pairs)).ok();
                self.begin_service(cx, door);
            }
            Order::Swap { door, route, pairs } => {
                let before = self.servings.at(door);
                let service = self.take_service(door);
                self.servings.swap(door, route, self.room(pairs));
                self.go_on_with_service(cx, door, service);
                self.review_guests(cx, before, self.servings.at(door));
            }
            Order::Close { door } => {
                self.let_in_the_queued(cx, Some(door));
                let before = self.servings.at(door);
                let service = self.take_service(door).map(|(id, _)| id);
                self.servings.close(cx, door);
                self.retire_service(cx, service);
                self.review_guests(cx, before, None);
            }
            Order::Peers(peers) => {
                for conn in self.pools.replace(peers) {
                    cx.close(conn);
                }
                self.tend_all(cx);
            }
            Order::CloseAll => {
                self.let_in_the_queued(cx, None);
                self.servings.close_all(cx);
                self.reap_unclaimed(cx, true);
                self.close_guests(cx);
                self.drain_pools(cx);
                self.drain_messages(cx);
            }
            Order::Stop => {
                self.servings.close_all(cx);
                self.drain_pools(cx);
                let left: Vec<Key> = self.pairs.keys().collect();
                for key in left {
                    self.end(cx, key, End::Drained);
                }
                self.close_guests(cx);
                self.cut_messages(cx);
                cx.stop();
            }
        }
    }

    /// This core's part in a bound.
    fn room(&self, allowance: Arc<Allowance>) -> Room {
        Room::new(allowance, u16::try_from(self.core).expect("it came from a u16"))
    }

    /// Both legs stand: the engine moves the bytes from here on.
    fn flow<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        pair.state = State::Flowing;
        cx.forward(pair.client, pair.server);
        pair.idle_due = cx.now().after(serving.route.timeouts.idle.min(FIRST_LOOK));
        self.begin_watch(cx, key);
        self.set_look(cx, key);
    }

    /// One side has finished sending, and all it sent was handed on.
    fn side_finished<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, side: Side) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        if pair.state == State::Header {
            return self.end(cx, key, End::HeaderInvalid);
        }
        if pair.side_ended(side) {
            return self.end(cx, key, End::Finished);
        }
        let Some(serving) = self.servings.get(pair.serving) else { return };
        let half_closed = serving.route.timeouts.half_closed;
        cx.shutdown(pair.leg(side.other()));
        if pair.state == State::Flowing {
            pair.idle_due = cx.now().after(half_closed);
            self.set_look(cx, key);
        } else {
            cx.set_timer(pair.client, half_closed);
        }
    }

    /// A pair's timer has run out.
    fn pair_timer<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get(key) else { return };
        match pair.state {
            State::Header => self.end(cx, key, End::HeaderTimeout),
            State::Dialling if cx.now() < pair.dial_deadline => self.dial_again(cx, key),
            State::Dialling if self.trunk_of(pair).is_some() => self.end(cx, key, End::TrunkUnavailable),
            State::Dialling | State::Greeting { .. } => self.end(cx, key, End::DialTimeout),
            State::Flowing => self.look_at(cx, key),
            State::Resetting { .. } => self.reset_when_sent(cx, key),
        }
    }

    /// A flowing pair's time to be looked at: its peer is dead, it has been quiet for too long, or is looked at again later.
    fn look_at<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        self.measure_first_byte(cx, key);
        self.keep_alive(cx, key);
        if let Some(side) = self.dead_side(cx, key) {
            return self.give_up(cx, key, side, End::TrunkDead);
        }
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        let timeouts = serving.route.timeouts;
        if cx.now() < pair.idle_due {
            return self.set_look(cx, key);
        }
        let (limit, end) = if pair.half_closed() {
            (timeouts.half_closed, End::HalfClosedTimeout)
        } else {
            (timeouts.idle, End::IdleTimeout)
        };
        let quiet = cx.now().since(cx.last_active(pair.client).max(cx.last_active(pair.server)));
        if quiet < limit {
            pair.idle_due = cx.now().after(limit - quiet);
            return self.set_look(cx, key);
        }
        // Nothing was handed on, yet a slow peer may still be reading what the kernel holds for it.
        let unacknowledged = cx.unacknowledged(pair.client) + cx.unacknowledged(pair.server);
        let before = std::mem::replace(&mut pair.unacknowledged, unacknowledged);
        if unacknowledged > 0 && unacknowledged != before {
            pair.idle_due = cx.now().after(limit);
            self.set_look(cx, key);
        } else {
            self.end(cx, key, end);
        }
    }
}

impl<B: Backend> Handler<B> for Relay<B::Listener> {
    fn on_accept(&mut self, cx: &mut Cx<B>, listener: ListenerId, mut incoming: Incoming<B::Socket>) {
        let Some(key) = self.servings.behind(listener) else { return cx.refuse(incoming) };
        let Some(serving) = self.servings.get(key) else { return cx.refuse(incoming) };
        let ip = cx.incoming_peer(&mut incoming).inet().map(|peer| peer.ip());
        let admitted = self.admits(serving, ip, cx.conns_free());
        match admitted.and_then(|()| Self::destination_of(cx, &serving.route, &incoming)) {
            Ok(destination) => self.take_in(cx, key, incoming, destination),
            Err(refusal) => {
                serving.counters.refusals[refusal.index()].add(1);
                cx.refuse(incoming);
            }
        }
    }

    fn on_accept_exhausted(&mut self, _cx: &mut Cx<B>, listener: ListenerId) {
        if let Some(serving) = self.servings.behind(listener).and_then(|key| self.servings.get(key)) {
            serving.counters.refusals[Refusal::Descriptors.index()].add(1);
        }
    }

    fn on_connect(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        if let Some(mux) = self.messages.of(token) {
            return mux.on_connect(cx, conn, token);
        }
        match Token::from_bits(token) {
            Token::Pooled(key) => self.trunk_connected(cx, key),
            Token::Client(pair) | Token::Server(pair) => self.connected(cx, pair),
            Token::Guest(_) => {}
        }
    }

    fn on_data(&mut self, cx: &mut Cx<B>, _conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        match Token::from_bits(token) {
            Token::Client(pair) => self.read_header(cx, pair, bytes),
            Token::Server(pair) => self.heard_answer(cx, pair, bytes),
            Token::Pooled(key) => self.trunk_data(cx, key, bytes),
            Token::Guest(key) => self.guest_data(cx, key, bytes),
        }
    }

    fn frame(&mut self, conn: ConnId, token: u64, bytes: &[u8]) -> Frame {
        self.messages.of(token).map_or(Frame::Broken, |mux| mux.frame(conn, token, bytes))
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) {
        if let Some(mux) = self.messages.of(token) {
            mux.on_message(cx, conn, token, bytes);
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        if let Some(mux) = self.messages.of(token) {
            return mux.on_writable(cx, conn, token);
        }
        match Token::from_bits(token) {
            Token::Server(pair) => self.greet(cx, pair),
            Token::Pooled(key) => self.warm_pooled(cx, key),
            Token::Guest(key) => self.warm_guest(cx, key),
            Token::Client(_) => {}
        }
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        if let Some(mux) = self.messages.of(token) {
            return mux.on_peer_close(cx, conn, token);
        }
        match Token::from_bits(token) {
            Token::Client(pair) => self.side_finished(cx, pair, Side::Client),
            Token::Server(pair) if self.awaits_answer(pair) => self.unanswered(cx, pair),
            Token::Server(pair) => self.side_finished(cx, pair, Side::Server),
            Token::Pooled(key) => self.trunk_failed(cx, key),
            Token::Guest(key) => self.guest_gone(cx, key),
        }
    }

    fn on_error(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, error: ConnError) {
        if let Some(mux) = self.messages.of(token) {
            return mux.on_error(cx, conn, token, error);
        }
        match Token::from_bits(token) {
            // Who knows what it left half done: neither leg outlives it.
            Token::Client(pair) | Token::Server(pair) if error == ConnError::Panicked => {
                self.end(cx, pair, End::Panicked);
            }
            Token::Client(pair) => self.leg_failed(cx, pair, Side::Client, error),
            Token::Server(pair) => self.leg_failed(cx, pair, Side::Server, error),
            Token::Pooled(key) => self.trunk_failed(cx, key),
            Token::Guest(key) => self.guest_gone(cx, key),
        }
    }

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        self.datagram_came(cx, socket, flow, bytes);
    }

    fn on_datagrams_failed(&mut self, cx: &mut Cx<B>, socket: DatagramId, _error: ConnError) {
        self.datagrams_failed(cx, socket);
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        if let Some(mux) = self.messages.of(token) {
            return mux.on_timer(cx, conn, token);
        }
        match Token::from_bits(token) {
            Token::Client(pair) | Token::Server(pair) => self.pair_timer(cx, pair),
            Token::Pooled(key) => self.trunk_timer(cx, key),
            Token::Guest(key) => self.guest_timer(cx, key),
        }
    }

    fn on_alarm(&mut self, cx: &mut Cx<B>) {
        self.alarm_went_off(cx);
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        while let Ok(order) = self.orders.try_recv() {
            self.obey(cx, order);
            self.counters.obeyed_one();
        }
        self.hear(cx);
    }

    fn on_turn_end(&mut self, cx: &mut Cx<B>) {
        self.serve_waiting(cx);
        self.end_turn_of_messages(cx);
        self.counters.publish(cx.gauges());
    }
}

#[cfg(test)]
mod alloc_tests;
#[cfg(test)]
mod messages_sim;
#[cfg(test)]
mod panic_tests;
#[cfg(any(test, fuzzing))]
pub(crate) mod sim_tests;
#[cfg(test)]
mod trunk_sim;
