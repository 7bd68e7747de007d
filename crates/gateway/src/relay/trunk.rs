//! The ingress side of a trunk: pools are tended, and a pair is sent on its way through one of their connections.

use std::time::Duration;

use midmile_engine::{Backend, ConnId, Cx, Key, MeterId, Time};
use midmile_wire::trunk::hello::{self, Destination, Hello, Path, TraceId};
use midmile_wire::trunk::{Name, Nonce, Session, auth};

use super::Relay;
use super::greeting::header_of;
use crate::pair::{Pair, State, Token};
use crate::reason::{End, PoolLoss};
use crate::trunk::{Pooled, PooledState};

/// For a trunk connection to stand and be authenticated.
pub(super) const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// How long a connection waits ready before it's worth the system calls of keepalive: a busy pool's are taken sooner.
const KEPT_AFTER: Duration = Duration::from_secs(1);
/// How long a connection waits ready at most, from then on. Far below what a far end, or a box between that tracks connections, waits.
const AGE_MAX: Duration = Duration::from_mins(4);

impl<L> Relay<L> {
    /// Serves other peers from now on.
    pub(super) fn tend_all<B: Backend>(&mut self, cx: &mut Cx<B>) {
        for index in 0..self.pools.pools.len() {
            self.tend(cx, index);
        }
    }

    /// Begins as many connections as the pool lacks.
    fn tend<B: Backend>(&mut self, cx: &mut Cx<B>, index: usize) {
        let Some(pool) = self.pools.pools.get(index) else { return };
        for _ in 0..pool.missing(cx.now(), self.pools.draining) {
            if !self.dial_trunk(cx, index) {
                break;
            }
        }
        let Some(pool) = self.pools.pools.get(index) else { return };
        pool.publish();
        if !pool.is_calm(cx.now(), self.pools.draining) {
            self.watch_clock(cx);
        }
    }

    /// A tick: rates are looked at, and whoever rested tries again.
    pub(super) fn tick_pools<B: Backend>(&mut self, cx: &mut Cx<B>) {
        for index in 0..self.pools.pools.len() {
            let pool = &mut self.pools.pools[index];
            pool.demand.tick();
            for _ in 0..pool.surplus() {
                let Some(oldest) = self.pools.pools[index].ready.front().copied() else { break };
                self.lose_trunk(cx, oldest, PoolLoss::Retired);
            }
        }
        self.tend_all(cx);
    }

    fn dial_trunk<B: Backend>(&mut self, cx: &mut Cx<B>, index: usize) -> bool {
        let Some(pool) = self.pools.pools.get_mut(index) else { return false };
        let to = pool.peer.addrs[pool.turn % pool.peer.addrs.len()].clone();
        let (moved, cold) = (self.servings.moved(), false);
        let (peer, state) = (pool.peer.name, PooledState::Dialling);
        let pooled = Pooled { conn: Key::NONE, peer, state, since: cx.now(), moved, cold, kept_alive: false };
        let Ok(key) = self.pools.slots.insert(pooled) else { return false };
        pool.counters.dials.add(1);
        match cx.dial(&to, &pool.peer.leg, Token::Pooled(key).to_bits(), MeterId::NONE) {
            Ok(conn) => {
                pool.under_way += 1;
                cx.set_timer(conn, HANDSHAKE_WAIT);
                if let Some(pooled) = self.pools.slots.get_mut(key) {
                    pooled.conn = conn;
                }
                true
            }
            Err(_) => {
                self.pools.slots.remove(key);
                pool.counters.losses[PoolLoss::Dial.index()].add(1);
                self.pool_failed(cx, index, cx.now());
                false
            }
        }
    }

    /// One that was begun at `begun` couldn't be made: the pool rests, and tells the pairs that wait if nothing else is under way.
    fn pool_failed<B: Backend>(&mut self, cx: &mut Cx<B>, index: usize, begun: Time) {
        let Some(pool) = self.pools.pools.get_mut(index) else { return };
        pool.rest(cx.now(), begun);
        while let Some(pool) = self.pools.pools.get_mut(index)
            && pool.under_way == 0
            && let Some(pair) = pool.waiting.pop_front()
        {
            if self.pairs.get(pair).is_some_and(|pair| pair.state == State::Dialling) {
                self.end(cx, pair, End::TrunkUnavailable);
            }
        }
    }

    /// The TCP handshake is done: introduces us.
    pub(super) fn trunk_connected<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let nonce = Nonce(cx.entropy());
        let Some(pooled) = self.pools.slots.get_mut(key) else { return };
        let Some(pool) = self.pools.pools.iter_mut().find(|pool| pool.peer.name == pooled.peer) else { return };
        pool.observe_rtt(cx.now().since(pooled.since));
        let (await_challenge, introduction) = auth::begin(pool.peer.own, pool.peer.name, nonce);
        pooled.state = PooledState::Introduced(await_challenge);
        let conn = pooled.conn;
        if cx.send(conn, introduction.as_bytes()) < introduction.as_bytes().len() {
            return self.lose_trunk(cx, key, PoolLoss::Handshake);
        }
        cx.read(conn);
    }

    /// The peer has answered; says how many bytes of that were used.
    pub(super) fn trunk_data<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) -> usize {
        let offer = self.offer(cx.now(), key);
        let Some(pooled) = self.pools.slots.get_mut(key) else { return 0 };
        let Some(pool) = self.pools.pools.iter().find(|pool| pool.peer.name == pooled.peer) else { return 0 };
        let step = match &pooled.state {
            PooledState::Introduced(state) => state
                .handle(bytes, &pool.peer.key, offer)
                .map(|step| step.map(|(taken, proof, next)| (taken, Some(proof), PooledState::Proved(next)))),
            PooledState::Proved(state) => match state.handle(bytes) {
                Ok(Some((taken, session, padding))) => {
                    self.welcomed(cx, key, session, padding, taken < bytes.len());
                    return taken;
                }
                other => other.map(|_| None),
            },
            PooledState::Warming(..) => return self.pooled_padding(cx, key, bytes.len()),
            // Nobody speaks before the hello.
            PooledState::Dialling | PooledState::Ready(_) => {
                self.lose_trunk(cx, key, PoolLoss::Handshake);
                return 0;
            }
        };
        let (taken, message, next) = match step {
            Ok(Some(step)) => step,
            Ok(None) => return 0,
            Err(_) => {
                self.lose_trunk(cx, key, PoolLoss::Handshake);
                return 0;
            }
        };
        pooled.state = next;
        let conn = pooled.conn;
        if let Some(message) = message
            && cx.send(conn, message.as_bytes()) < message.as_bytes().len()
        {
            self.lose_trunk(cx, key, PoolLoss::Handshake);
            return 0;
        }
        taken
    }

    /// A connection is authenticated and warm: it waits, and pairs that wait are served when the turn ends.
    pub(super) fn trunk_ready<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let now = cx.now();
        let Some(pooled) = self.pools.slots.get_mut(key) else { return };
        pooled.since = now;
        cx.set_timer(pooled.conn, KEPT_AFTER);
        let (conn, peer, cold) = (pooled.conn, pooled.peer, pooled.cold);
        let Some(index) = self.pools.index_of(&peer) else { return };
        let pool = &mut self.pools.pools[index];
        pool.cold += u32::from(cold);
        pool.under_way = pool.under_way.saturating_sub(1);
        pool.recover();
        pool.look_at_path(now, || cx.path(conn));
        pool.ready.push_back(key);
        self.pools.served = false;
        self.spare_cold(cx, index);
        self.tend(cx, index);
    }

    /// Gives pairs that wait what has become ready in this turn: not within the upcall of a connection that is to be theirs.
    pub(super) fn serve_waiting<B: Backend>(&mut self, cx: &mut Cx<B>) {
        if std::mem::replace(&mut self.pools.served, true) {
            return;
        }
        for index in 0..self.pools.pools.len() {
            while let Some(pool) = self.pools.pools.get_mut(index)
                && let Some(pair) = pool.next_served(|key| self.pairs.get(key).is_some_and(|pair| pair.unclaimed))
            {
                if self.pairs.get(pair).is_some_and(|pair| pair.state == State::Dialling && pair.server == Key::NONE) {
                    self.set_out(cx, pair, index);
                }
            }
        }
        if self.pools.draining {
            self.drain_pools(cx);
        }
        self.tend_all(cx);
    }

    /// A connection that no pair has is gone, or goes now.
    pub(super) fn lose_trunk<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, why: PoolLoss) {
        let Some(pooled) = self.pools.slots.remove(key) else { return };
        cx.close(pooled.conn);
        let Some(index) = self.pools.index_of(&pooled.peer) else { return };
        let pool = &mut self.pools.pools[index];
        pool.counters.losses[why.index()].add(1);
        if pool.warming == key {
            pool.warming = Key::NONE;
        }
        if matches!(pooled.state, PooledState::Ready(_)) {
            pool.ready.retain(|ready| *ready != key);
            pool.cold -= u32::from(pooled.cold);
        } else {
            pool.under_way = pool.under_way.saturating_sub(1);
            self.pool_failed(cx, index, pooled.since);
        }
        self.tend(cx, index);
    }

    /// A connection's timer: its handshake took too long, or it has waited for long enough.
    pub(super) fn trunk_timer<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pooled) = self.pools.slots.get(key) else { return };
        match pooled.state {
            PooledState::Warming(..) => self.warm_pooled(cx, key),
            PooledState::Ready(_) if !pooled.kept_alive => self.keep(cx, key),
            PooledState::Ready(_) => self.lose_trunk(cx, key, PoolLoss::Retired),
            _ => self.lose_trunk(cx, key, PoolLoss::Timeout),
        }
    }

    /// A connection has waited for a while, and may for longer: its peer is looked after from now on.
    fn keep<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pooled) = self.pools.slots.get_mut(key) else { return };
        let Some(pool) = self.pools.pools.iter().find(|pool| pool.peer.name == pooled.peer) else { return };
        pooled.kept_alive = true;
        cx.set_keepalive(pooled.conn, &pool.peer.leg);
        cx.set_timer(pooled.conn, AGE_MAX);
    }

    /// A connection has failed, or its peer has closed it.
    pub(super) fn trunk_failed<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pooled) = self.pools.slots.get(key) else { return };
        let why = match pooled.state {
            PooledState::Dialling => PoolLoss::Dial,
            PooledState::Introduced(_) | PooledState::Proved(_) | PooledState::Warming(..) => PoolLoss::Handshake,
            PooledState::Ready(_) => PoolLoss::Died,
        };
        self.lose_trunk(cx, key, why);
    }

    /// The peer whose trunk the pair goes through, if it does.
    pub(super) fn trunk_of(&self, pair: &Pair) -> Option<Name> {
        if let Some(hello) = self.hellos.get(pair.hello) {
            return hello.path.next().map(|(next, _)| next);
        }
        self.servings.get(pair.serving)?.route.via.as_ref().map(|via| via.first)
    }

    /// Sends the pair on through a trunk, or has it wait for a connection.
    pub(super) fn take_trunk<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get(key) else { return };
        let name = self.trunk_of(pair);
        let index = name.and_then(|name| self.pools.index_of(&name));
        let Some(index) = index else { return self.end(cx, key, End::TrunkUnavailable) };
        let (left, unclaimed) = (pair.dial_deadline.since(cx.now()), pair.unclaimed);
        cx.set_timer(pair.client, left);
        let pool = &mut self.pools.pools[index];
        pool.demand.note();
        if pool.ready.is_empty() || unclaimed && !pool.spares() {
            pool.counters.missed.add(1);
            pool.waiting.push_back(key);
        } else {
            self.set_out(cx, key, index);
        }
        self.tend(cx, index);
    }

    /// The pair takes a connection that is ready, says hello on it, and flows.
    fn set_out<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, index: usize) {
        let hello = self.hello_for(cx, key);
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        let Some(pool) = self.pools.pools.get_mut(index) else { return };
        let taken = pool.take_ready(&mut self.pools.slots);
        let (Some(Pooled { conn, state: PooledState::Ready(session), kept_alive, .. }), Some(hello)) = (taken, hello)
        else {
            return self.end(cx, key, End::TrunkUnavailable);
        };
        pool.counters.taken.add(1);
        cx.clear_timer(conn);
        // It goes on being read, for its answer; one without a client yet keeps that in the kernel, with what comes behind.
        if pair.unclaimed {
            cx.pause(conn);
        }
        cx.rename(conn, Token::Server(key).to_bits(), serving.meters.downstream);
        pair.server = conn;
        pair.kept_alive = kept_alive;
        if say(cx, conn, &hello, &session) {
            return self.connected(cx, key);
        }
        cx.reset(conn);
        pair.server = Key::NONE;
        if std::mem::replace(&mut pair.retried, true) {
            self.end(cx, key, End::TrunkUnavailable);
        } else {
            pool.counters.retries.add(1);
            self.take_trunk(cx, key);
        }
    }

    /// What the next gateway has to know of the pair.
    fn hello_for<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) -> Option<Hello> {
        let pair = self.pairs.get(key)?;
        let left = pair.dial_deadline.since(cx.now());
        // Rounded up: when the next gateway gives up, our own time is over too.
        let deadline_ms = u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        if let Some(came) = self.hellos.get(pair.hello) {
            let (_, path) = came.path.next()?;
            return Some(Hello { path, deadline_ms, ..*came });
        }
        let trace = self.trace(cx);
        let pair = self.pairs.get(key)?;
        let serving = self.servings.get(pair.serving)?;
        let destination = match &pair.given {
            Some(original) => Destination::address(original.addr()?.inet()?).ok()?,
            None => *serving.route.backends.backends().get(usize::from(pair.backend?))?.destination()?,
        };
        let mut path = Path::EMPTY;
        for name in &serving.route.via.as_ref()?.rest {
            path.push(*name).ok()?;
        }
        Some(Hello { client: header_of(cx, pair), destination, path, deadline_ms, trace })
    }

    /// A number for a pair that no other pair of any gateway has: what this core drew once, and a count.
    fn trace<B: Backend>(&mut self, cx: &mut Cx<B>) -> TraceId {
        let base = *self.trace_base.get_or_insert_with(|| cx.entropy());
        self.traces += 1;
        let mut trace = [0; 16];
        trace.copy_from_slice(&base[..16]);
        for (byte, count) in trace[8..].iter_mut().zip(self.traces.to_be_bytes()) {
            *byte ^= count;
        }
        TraceId(trace)
    }

    /// Nobody new comes: what waits ready is closed, and only those who wait are still served.
    pub(super) fn drain_pools<B: Backend>(&mut self, cx: &mut Cx<B>) {
        for conn in self.pools.drain() {
            cx.close(conn);
        }
    }
}

/// Says hello; false if there wasn't room for all of it, which a fresh connection always has.
fn say<B: Backend>(cx: &mut Cx<B>, conn: ConnId, hello: &Hello, session: &Session) -> bool {
    let message = hello::encode(hello, session);
    cx.send(conn, message.as_bytes()) == message.as_bytes().len()
}
