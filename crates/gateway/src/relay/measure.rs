//! What a pair's legs tell before they go: how the way to a peer was, and when the server's first byte came.

use std::num::NonZeroU64;
use std::time::Duration;

use midmile_engine::{Backend, Cx, Key};

use super::Relay;
use crate::pair::Side;

/// A time as a pair keeps it: it's there, so it isn't zero.
pub(super) fn nanos(took: Duration) -> Option<NonZeroU64> {
    NonZeroU64::new(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1))
}

impl<L> Relay<L> {
    /// Looks at a leg that is about to go.
    pub(super) fn measure_leg<B: Backend>(&mut self, cx: &Cx<B>, key: Key, side: Side) {
        let Some(pair) = self.pairs.get(key) else { return };
        let leg = pair.leg(side);
        let peer = match side {
            Side::Client => pair.came_from.as_ref().map(|peer| peer.name),
            Side::Server => self.trunk_of(pair),
        };
        if let Some(pool) = peer.and_then(|name| self.pools.pool(&name))
            && let Some(path) = cx.path(leg)
        {
            pool.counters.path.observe_end(&path);
        }
        if side == Side::Server {
            self.measure_first_byte(cx, key);
        }
    }

    /// Counts how long the client waited for the server's first byte, once that has been handed on.
    pub(super) fn measure_first_byte<B: Backend>(&mut self, cx: &Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key).filter(|pair| pair.first_byte_after.is_none()) else { return };
        let Some(at) = cx.first_handed_on(pair.server) else { return };
        let took = at.since(pair.opened);
        pair.first_byte_after = nanos(took);
        if let Some(serving) = self.servings.get(pair.serving) {
            serving.counters.first_byte.observe(took);
        }
    }
}
