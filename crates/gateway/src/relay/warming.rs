//! Warming on either side of a trunk: padding goes out as the kernel takes it, what comes is thrown away, and a connection is ready
//! when both are through. What is decided, and when, is [`Warming`]'s.

use midmile_engine::{Backend, Cx, Key, Time};
use midmile_wire::trunk::{Offer, PADDING_MAX, Padding, Session};

use super::Relay;
use super::guest::GuestState;
use super::trunk::HANDSHAKE_WAIT;
use crate::reason::{PoolLoss, Refusal};
use crate::trunk::{PooledState, Warmed, Warming, is_live};

/// What padding is made of.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// After live bytes were in the way, how long until a warm connection is tried again in place of a cold one.
const RETRY_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

impl<L> Relay<L> {
    /// What the proof of a pool's connection says of padding: none while a pair waits for it, while another connection to the peer
    /// is warmed, or while live bytes flow; these have shown themselves since it was dialled, two round trips ago.
    pub(super) fn offer(&mut self, now: Time, key: Key) -> Offer {
        let Some(pooled) = self.pools.slots.get_mut(key) else { return Offer::default() };
        let PooledState::Introduced(_) = pooled.state else { return Offer::default() };
        let Some(pool) = self.pools.pools.iter_mut().find(|pool| pool.peer.name == pooled.peer) else {
            return Offer::default();
        };
        let moved = self.servings.moved().saturating_sub(pooled.moved);
        let live = is_live(moved, now.since(pooled.since), pool.peer.leg.pacing);
        let another = pool.warming != Key::NONE && pool.warming != key;
        pooled.cold = live || another || !pool.waiting.is_empty();
        if pooled.cold {
            pool.warms_from = now.after(RETRY_WAIT);
            return Offer::default();
        }
        pool.warming = key;
        Offer { follows: pool.peer.warmth.padding(), takes: PADDING_MAX }
    }

    /// The peer has welcomed us, and says how much padding it sends; `more` says that some of it has come already.
    pub(super) fn welcomed<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        key: Key,
        session: Session,
        padding: Padding,
        more: bool,
    ) {
        let (now, moved) = (cx.now(), self.servings.moved());
        let Some(pooled) = self.pools.slots.get_mut(key) else { return };
        if let Some(pool) = self.pools.pools.iter_mut().find(|pool| pool.peer.name == pooled.peer) {
            pool.demand.made(now.since(pooled.since));
            if pool.warming == key {
                pool.peer_pads = padding.receives > 0;
            }
        }
        if padding == Padding::default() {
            pooled.state = PooledState::Ready(session);
            return self.warm(cx, key);
        }
        pooled.state = PooledState::Warming(Warming::new(padding, now, HANDSHAKE_WAIT, moved), session);
        if more {
            cx.read(pooled.conn);
        }
        self.warm_pooled(cx, key);
    }

    /// Padding of the peer's has come; answers how many of `bytes` bytes were used.
    pub(super) fn pooled_padding<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: usize) -> usize {
        let Some(pooled) = self.pools.slots.get_mut(key) else { return 0 };
        let PooledState::Warming(warming, _) = &mut pooled.state else { return 0 };
        let taken = warming.take(bytes);
        if taken < bytes {
            // Nobody speaks before the hello.
            self.lose_trunk(cx, key, PoolLoss::Handshake);
        } else if warming.is_received() {
            self.warm_pooled(cx, key);
        }
        taken
    }

    /// Looks at a connection of a pool that is being warmed.
    pub(super) fn warm_pooled<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let moved = self.servings.moved();
        let Some(pooled) = self.pools.slots.get_mut(key) else { return };
        let conn = pooled.conn;
        let PooledState::Warming(warming, session) = &mut pooled.state else { return };
        let Some(pool) = self.pools.pools.iter().find(|pool| pool.peer.name == pooled.peer) else { return };
        let waits = (cx.unsent(conn), cx.unacknowledged(conn));
        match warming.look(cx.now(), moved, pool.peer.leg.pacing, waits) {
            Warmed::Late => self.lose_trunk(cx, key, PoolLoss::Warming),
            Warmed::Ready => {
                pooled.state = PooledState::Ready(*session);
                self.warm(cx, key);
            }
            Warmed::Send(bytes) => {
                warming.sent(send_zeros(cx, conn, bytes));
                cx.set_timer(conn, warming.wait(cx.now()));
            }
        }
    }

    /// A connection of a pool is as warm as it gets.
    fn warm<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        if let Some(pool) = self.pools.pools.iter_mut().find(|pool| pool.warming == key) {
            pool.warming = Key::NONE;
        }
        self.trunk_ready(cx, key);
    }

    /// One more is ready: a cold one that nobody needs any more goes.
    pub(super) fn spare_cold<B: Backend>(&mut self, cx: &mut Cx<B>, index: usize) {
        let Some(pool) = self.pools.pools.get(index).filter(|pool| pool.has_cold_to_spare()) else { return };
        let is_cold = |key: &&Key| self.pools.slots.get(**key).is_some_and(|pooled| pooled.cold);
        if let Some(key) = pool.ready.iter().find(is_cold).copied() {
            self.lose_trunk(cx, key, PoolLoss::Retired);
        }
    }

    /// A guest has proved itself.
    pub(super) fn guest_proved<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, session: Session, padding: Padding) {
        let moved = self.servings.moved();
        let Some(guest) = self.guests.get_mut(key) else { return };
        let Some(serving) = self.servings.get(guest.serving) else { return };
        if padding == Padding::default() {
            guest.state = GuestState::Known(session);
            return cx.set_timer(guest.conn, serving.route.timeouts.idle);
        }
        let warming = Warming::new(padding, cx.now(), serving.route.timeouts.header, moved);
        guest.state = GuestState::Warming(warming, session);
        self.warm_guest(cx, key);
    }

    /// Padding of a guest's has come, and its hello may be right behind it; answers how many of `bytes` bytes were used.
    pub(super) fn guest_padding<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        key: Key,
        bytes: usize,
    ) -> Result<usize, Refusal> {
        let Some(guest) = self.guests.get_mut(key) else { return Ok(0) };
        let GuestState::Warming(warming, _) = &mut guest.state else { return Ok(0) };
        let conn = guest.conn;
        let taken = warming.take(bytes);
        if warming.is_done() {
            self.warm_guest(cx, key);
        } else if taken < bytes {
            // A dialer has nothing to say before it has all of our padding.
            return Err(Refusal::TrunkInvalid);
        }
        if taken < bytes {
            cx.read(conn);
        }
        Ok(taken)
    }

    /// Looks at a guest that is being warmed. The dialer waits for acknowledgements; here the padding only has to go out.
    pub(super) fn warm_guest<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let moved = self.servings.moved();
        let Some(guest) = self.guests.get_mut(key) else { return };
        let GuestState::Warming(warming, session) = &mut guest.state else { return };
        let Some(serving) = self.servings.get(guest.serving) else { return };
        match warming.look(cx.now(), moved, serving.route.client.pacing, (cx.unsent(guest.conn), 0)) {
            Warmed::Late => self.turn_out(cx, key, Some(Refusal::TrunkWarming)),
            Warmed::Ready => {
                guest.state = GuestState::Known(*session);
                cx.set_timer(guest.conn, serving.route.timeouts.idle);
            }
            Warmed::Send(bytes) => {
                warming.sent(send_zeros(cx, guest.conn, bytes));
                cx.set_timer(guest.conn, warming.wait(cx.now()));
            }
        }
    }
}

/// Hands zeros to the kernel, as many of `bytes` as it takes; answers how many those were.
fn send_zeros<B: Backend>(cx: &mut Cx<B>, conn: Key, bytes: usize) -> usize {
    let mut sent = 0;
    while sent < bytes {
        let piece = (bytes - sent).min(ZEROS.len());
        let taken = cx.send(conn, &ZEROS[..piece]);
        sent += taken;
        if taken < piece {
            break;
        }
    }
    sent
}
