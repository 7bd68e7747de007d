//! The pools of one core: who is under way, who waits ready, and which pairs wait for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{ConnId, Key, PathInfo, Slab, Time};
use midmile_wire::trunk::auth::{AwaitChallenge, AwaitWelcome};
use midmile_wire::trunk::{Name, Session};

use super::demand::Demand;
use super::peer::Peer;
use super::warming::Warming;
use crate::counters::PeerCounters;

/// Longest rest after failures.
const REST_MAX: Duration = Duration::from_secs(5);
/// Rest after the first failure; each further one doubles it.
const REST_MIN: Duration = Duration::from_millis(100);
/// Least time between two looks at the way to the peer by connections that become ready.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// A peer to reach.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) peer: Arc<Peer>,
    pub(crate) counters: Arc<PeerCounters>,
    /// Fewest and most connections in this core's share of its pool.
    pub(crate) bounds: (u32, u32),
}

/// How far a trunk connection has come that no pair has yet.
#[derive(Debug)]
pub(crate) enum PooledState {
    /// The TCP handshake is under way.
    Dialling,
    /// The peer has our introduction.
    Introduced(AwaitChallenge),
    /// The peer has our proof.
    Proved(AwaitWelcome),
    /// It's authenticated, and padding opens its windows.
    Warming(Warming, Session),
    /// It waits for a pair.
    Ready(Session),
}

/// A trunk connection that no pair has yet.
#[derive(Debug)]
pub(crate) struct Pooled {
    pub(crate) conn: ConnId,
    pub(crate) peer: Name,
    pub(crate) state: PooledState,
    pub(crate) since: Time,
    /// Live bytes that had flowed on this core when it was dialled.
    pub(crate) moved: u64,
    /// It does without padding, where there might be some.
    pub(crate) cold: bool,
    /// Keepalive looks after it.
    pub(crate) kept_alive: bool,
}

/// Connections to one peer.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) peer: Arc<Peer>,
    pub(crate) counters: Arc<PeerCounters>,
    pub(crate) demand: Demand,
    /// Bounds of this core's share.
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Oldest first.
    pub(crate) ready: VecDeque<Key>,
    pub(crate) under_way: u32,
    /// The one that is warmed, or [`Key::NONE`]: they don't compete with each other.
    pub(crate) warming: Key,
    /// The peer has sent padding.
    pub(crate) peer_pads: bool,
    /// Of those that wait ready, the ones that weren't warmed.
    pub(crate) cold: u32,
    /// When the next one may be made in place of a cold one.
    pub(crate) warms_from: Time,
    /// Pairs that found none ready for them. Some may have ended since.
    pub(crate) waiting: VecDeque<Key>,
    /// A round trip to the peer, as handshakes showed it.
    pub(crate) rtt: Duration,
    /// The address to try next.
    pub(crate) turn: usize,
    failures: u32,
    rests_until: Time,
    /// When the last rest began.
    rested_at: Time,
    /// When the next look at the way to the peer is due.
    look_due: Time,
}

impl Pool {
    fn new(peer: Arc<Peer>, counters: Arc<PeerCounters>, (min, max): (u32, u32)) -> Self {
        Self {
            peer,
            counters,
            demand: Demand::default(),
            min,
            max,
            // And one in place of a cold one.
            ready: VecDeque::with_capacity(max as usize + 1),
            under_way: 0,
            warming: Key::NONE,
            peer_pads: false,
            cold: 0,
            warms_from: Time::ZERO,
            waiting: VecDeque::new(),
            rtt: Duration::ZERO,
            turn: 0,
            failures: 0,
            rests_until: Time::ZERO,
            rested_at: Time::ZERO,
            look_due: Time::ZERO,
        }
    }

    /// How many connections should be begun now. Whoever waits is worth a try even while the pool rests: its client learns at
    /// once whether the peer is there, and not when the rest is over.
    pub(crate) fn missing(&self, now: Time, draining: bool) -> u32 {
        let rests = now < self.rests_until && self.waiting.is_empty();
        if self.peer.addrs.is_empty() || rests {
            return 0;
        }
        let ahead = if draining { 0 } else { self.demand.wanted(self.min, self.max) };
        let wanted = ahead.saturating_add(count(&self.waiting)).min(self.max);
        // Before the first has shown that the peer is there, one tries.
        let one_by_one = self.failures > 0 || (self.warms() && self.waiting.is_empty());
        let under_way_max = if one_by_one { 1 } else { self.demand.under_way_max() };
        let replaced = if self.replaces_cold(now) { self.cold } else { 0 };
        // Nobody waits until a connection is warm.
        let no_help = if self.warming != Key::NONE && !self.waiting.is_empty() { 1 } else { replaced };
        let standing = count(&self.ready).saturating_add(self.under_way).saturating_sub(no_help);
        wanted.saturating_sub(standing).min(under_way_max.saturating_sub(self.under_way))
    }

    /// Whether one of its connections takes padding to be ready.
    pub(crate) fn warms(&self) -> bool {
        self.peer_pads || self.peer.warmth.padding() > 0
    }

    /// Whether connections that weren't warmed are replaced by ones that are.
    fn replaces_cold(&self, now: Time) -> bool {
        self.warms() && self.waiting.is_empty() && now >= self.warms_from
    }

    /// Whether one that is cold can be let go of: there are more than are wanted.
    pub(crate) fn has_cold_to_spare(&self) -> bool {
        let wanted = self.demand.wanted(self.min, self.max) as usize;
        self.cold > 0 && self.warms() && self.ready.len() > wanted + self.waiting.len()
    }

    /// Whether a pair without a client may take one that is ready. Half of the pool's minimum is left for clients that stand: whoever
    /// sends SYNs with forged sources must not have it.
    pub(crate) fn spares(&self) -> bool {
        self.ready.len() > self.min as usize / 2
    }

    /// The pair to be served next, if there's a connection for one: those with a client come before those without.
    pub(crate) fn next_served(&mut self, is_unclaimed: impl Fn(Key) -> bool) -> Option<Key> {
        if self.ready.is_empty() {
            return None;
        }
        match self.waiting.iter().position(|pair| !is_unclaimed(*pair)) {
            Some(place) => self.waiting.remove(place),
            None if self.spares() => self.waiting.pop_front(),
            None => None,
        }
    }

    /// Takes a connection that is ready: the one that was made last, whose state is still in the CPU's caches, on this host and on the
    /// peer's; a warm one before a cold one.
    pub(crate) fn take_ready(&mut self, slots: &mut Slab<Pooled>) -> Option<Pooled> {
        let is_warm = |key: &Key| slots.get(*key).is_some_and(|pooled| !pooled.cold);
        let place = if self.cold > 0 { self.ready.iter().rposition(is_warm) } else { None };
        let key = match place {
            Some(place) => self.ready.remove(place),
            None => self.ready.pop_back(),
        };
        let taken = slots.remove(key?);
        self.cold -= u32::from(taken.as_ref().is_some_and(|taken| taken.cold));
        taken
    }

    /// How many of those that wait ready should go at this tick: they were made for more than come now.
    pub(crate) fn surplus(&self) -> u32 {
        Demand::surplus(count(&self.ready), self.demand.wanted(self.min, self.max))
    }

    /// One that was begun at `begun` couldn't be made: nothing is tried for a while, longer each time. Those that were under way with
    /// it say nothing new.
    pub(crate) fn rest(&mut self, now: Time, begun: Time) {
        if begun < self.rested_at {
            return;
        }
        self.rested_at = now;
        let rest = REST_MIN.saturating_mul(1 << self.failures.min(10)).min(REST_MAX);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = now.after(rest);
        self.turn = self.turn.wrapping_add(1);
    }

    /// One has come to stand: there's no reason to rest any more.
    pub(crate) const fn recover(&mut self) {
        self.failures = 0;
        self.rests_until = Time::ZERO;
    }

    /// A handshake took `took`: the round trip follows it slowly.
    pub(crate) fn observe_rtt(&mut self, took: Duration) {
        self.rtt = if self.rtt.is_zero() { took } else { self.rtt - self.rtt / 8 + took / 8 };
        self.counters.rtt_us.set(u64::try_from(self.rtt.as_micros()).unwrap_or(u64::MAX));
    }

    /// Takes in what is known of the way to the peer by a connection that has just become ready; at most one a second. While it
    /// waits nothing crosses it, so there's nothing new to see by looking later.
    pub(crate) fn look_at_path(&mut self, now: Time, path: impl FnOnce() -> Option<PathInfo>) {
        if now < self.look_due {
            return;
        }
        self.look_due = now.after(LOOK_WAIT);
        if let Some(path) = path() {
            self.counters.path.observe(&path);
        }
    }

    /// Nothing changes by itself: no look at the clock is needed.
    pub(crate) fn is_calm(&self, now: Time, draining: bool) -> bool {
        let settled = draining || self.cold == 0 || !self.warms();
        let enough = self.surplus() == 0 && self.missing(now, draining) == 0;
        settled && self.demand.is_over() && enough && now >= self.rests_until
    }

    /// Has the figures show what there is.
    pub(crate) fn publish(&self) {
        self.counters.ready.set(self.ready.len() as u64);
        self.counters.under_way.set(u64::from(self.under_way));
    }
}

fn count(keys: &VecDeque<Key>) -> u32 {
    u32::try_from(keys.len()).unwrap_or(u32::MAX)
}

/// The pools of a core, and the connections in them.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) pools: Vec<Pool>,
    pub(crate) slots: Slab<Pooled>,
    /// Nothing has become ready that pairs may wait for.
    pub(crate) served: bool,
    /// Nobody new comes: only those who wait are still served.
    pub(crate) draining: bool,
}

impl Pools {
    pub(crate) fn new(conns_max: u32) -> Self {
        Self { pools: Vec::new(), slots: Slab::with_capacity(conns_max), served: true, draining: false }
    }

    /// The place of the pool to a peer.
    pub(crate) fn index_of(&self, name: &Name) -> Option<usize> {
        self.pools.iter().position(|pool| pool.peer.name == *name)
    }

    pub(crate) fn pool(&mut self, name: &Name) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.peer.name == *name)
    }

    /// Serves `peers` from now on. Answers the connections to close: those to peers that are gone, or are reached in another way.
    pub(crate) fn replace(&mut self, peers: Vec<Reach>) -> Vec<ConnId> {
        let mut old = std::mem::take(&mut self.pools);
        for Reach { peer, counters, bounds } in peers {
            let same = old.iter().position(|pool| pool.peer.same_way(&peer));
            self.pools.push(match same {
                Some(at) => {
                    let mut pool = old.swap_remove(at);
                    (pool.peer, pool.min, pool.max) = (peer, bounds.0, bounds.1);
                    pool
                }
                None => {
                    let mut pool = Pool::new(peer, counters, bounds);
                    // Pairs that wait don't care by which way their peer is reached.
                    if let Some(before) = old.iter_mut().find(|old| old.peer.name == pool.peer.name) {
                        pool.waiting = std::mem::take(&mut before.waiting);
                    }
                    pool
                }
            });
        }
        let gone: Vec<Key> = old.iter().flat_map(|pool| self.keys_of(pool)).collect();
        gone.into_iter().filter_map(|key| self.slots.remove(key)).map(|pooled| pooled.conn).collect()
    }

    fn keys_of(&self, pool: &Pool) -> Vec<Key> {
        let of_pool = |key: &Key| self.slots.get(*key).is_some_and(|pooled| pooled.peer == pool.peer.name);
        self.slots.keys().filter(of_pool).collect()
    }

    /// Begins to drain. Answers the connections to close: those that wait ready.
    pub(crate) fn drain(&mut self) -> Vec<ConnId> {
        self.draining = true;
        let mut gone = Vec::new();
        for pool in &mut self.pools {
            pool.cold = 0;
            gone.extend(pool.ready.drain(..).filter_map(|key| self.slots.remove(key)).map(|pooled| pooled.conn));
            pool.publish();
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use midmile_engine::{Addr, LegOptions};
    use midmile_wire::trunk::Key as TrunkKey;

    use super::*;
    use crate::trunk::{PoolLimits, Warmth};

    const MIN: u32 = 512;

    fn pool() -> Pool {
        let peer = Peer {
            name: "b".parse().unwrap(),
            own: "a".parse().unwrap(),
            addrs: vec![Addr::Inet(([10, 0, 0, 1], 1).into()), Addr::Inet(([10, 0, 0, 2], 1).into())],
            key: TrunkKey::from_bytes([7; 32]),
            leg: LegOptions::default(),
            pool: PoolLimits { min: MIN, max: 2 * MIN },
            dead_after: None,
            warmth: Warmth::default(),
        };
        Pool::new(Arc::new(peer), Arc::default(), (MIN, 2 * MIN))
    }

    #[test]
    fn dials_that_failed_together_make_one_short_rest_and_the_next_address_is_tried() {
        let mut pool = pool();
        let (begun, failed) = (Time::ZERO.after(REST_MIN), Time::ZERO.after(2 * REST_MIN));
        for _ in 0..64 {
            pool.rest(failed, begun);
        }
        assert_eq!(pool.missing(failed, false), 0, "it rests");
        assert_eq!(pool.missing(failed.after(REST_MIN), false), 1, "one tries after the shortest rest");
        assert_eq!(pool.turn % pool.peer.addrs.len(), 1);
        pool.rest(failed.after(REST_MIN), failed.after(REST_MIN));
        assert_eq!(pool.missing(failed.after(2 * REST_MIN), false), 0, "the next rest is longer");
    }

    #[test]
    fn the_last_one_made_is_taken_first_and_a_cold_one_last() {
        let mut pool = pool();
        let mut slots = Slab::with_capacity(4);
        let keys: Vec<Key> = [false, false, true, true]
            .map(|cold| {
                let (peer, state, conn) = (pool.peer.name, PooledState::Dialling, Key::NONE);
                let pooled = Pooled { conn, peer, state, since: Time::ZERO, moved: 0, cold, kept_alive: false };
                slots.insert(pooled).unwrap()
            })
            .to_vec();
        pool.ready.extend(keys.iter().copied());
        pool.cold = 2;
        for left in [[0, 2, 3].as_slice(), &[2, 3], &[2], &[]] {
            pool.take_ready(&mut slots).unwrap();
            assert_eq!(pool.ready, left.iter().map(|at| keys[*at]).collect::<Vec<_>>());
        }
        assert_eq!((pool.cold, pool.take_ready(&mut slots).is_none()), (0, true));
    }

    #[test]
    fn a_pool_whose_peer_is_back_fills_at_once() {
        let mut pool = pool();
        let mut now = Time::ZERO;
        for _ in 0..20 {
            pool.rest(now, now);
            now = now.after(Duration::from_millis(1));
        }
        assert_eq!(pool.missing(now, false), 0, "it rests for long");
        pool.recover();
        assert!(pool.missing(now, false) >= 64, "{}", pool.missing(now, false));
    }
}
