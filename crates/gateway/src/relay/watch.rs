//! Legs through a trunk are watched: a pair whose other gateway has fallen silent ends, though its own kernel still tries.

use std::time::Duration;

use midmile_engine::{Backend, ConnError, Cx, Key};

use super::Relay;
use crate::pair::{Pair, Side};
use crate::reason::End;
use crate::trunk::{Keepalive, Watch};

const SIDES: [Side; 2] = [Side::Client, Side::Server];

impl<L> Relay<L> {
    /// How long the peer on this side may leave what it is sent unanswered; `None` where the leg goes through no trunk, or isn't
    /// watched.
    fn dead_after(&self, pair: &Pair, side: Side) -> Option<Duration> {
        match side {
            Side::Client => self.servings.get(pair.serving)?.route.gate.as_ref()?.dead_after,
            Side::Server => {
                let index = self.pools.index_of(&self.trunk_of(pair)?)?;
                self.pools.pools[index].peer.dead_after
            }
        }
    }

    /// How often the pair's legs are looked at; `None`: none is watched.
    fn looks_every(&self, pair: &Pair) -> Option<Duration> {
        SIDES.into_iter().filter_map(|side| self.dead_after(pair, side)).map(Watch::every).min()
    }

    /// Both legs stand: those through a trunk are watched from now on.
    pub(super) fn begin_watch<B: Backend>(&mut self, cx: &Cx<B>, key: Key) {
        let every = self.pairs.get(key).and_then(|pair| self.looks_every(pair));
        if let (Some(every), Some(pair)) = (every, self.pairs.get_mut(key)) {
            pair.watch_due = cx.now().after(every);
            pair.watches = [Watch::NEW; 2];
        }
    }

    /// Looks at the legs if they are due. Answers the side whose peer is dead.
    pub(super) fn dead_side<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) -> Option<Side> {
        let pair = self.pairs.get(key)?;
        let every = self.looks_every(pair)?;
        if cx.now() < pair.watch_due {
            return None;
        }
        self.pairs.get_mut(key)?.watch_due = cx.now().after(every);
        SIDES.into_iter().find(|side| self.is_dead(cx, key, *side, every))
    }

    fn is_dead<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, side: Side, every: Duration) -> bool {
        let Some(pair) = self.pairs.get(key) else { return false };
        let Some(limit) = self.dead_after(pair, side) else { return false };
        let leg = pair.leg(side);
        let (path, rest) = (cx.path(leg), cx.now().since(cx.last_active(leg)));
        let Some(pair) = self.pairs.get_mut(key) else { return false };
        let watch = &mut pair.watches[side as usize];
        if watch.look(every, limit, path.as_ref()) {
            return true;
        }
        match watch.keepalive(rest, limit) {
            None => {}
            Some(Keepalive::Watch(probing)) => cx.set_probing(leg, Some(&probing)),
            Some(Keepalive::Own) => self.restore_keepalive(cx, key, side),
        }
        false
    }

    /// Has the server leg probed as the operator wants, if it isn't yet: only a pair that has stood for a while is worth the system
    /// calls.
    pub(super) fn keep_alive<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        if !std::mem::replace(&mut pair.kept_alive, true) {
            self.set_keepalive(cx, key, Side::Server);
        }
    }

    /// Probes the leg as the operator wants it again.
    fn restore_keepalive<B: Backend>(&self, cx: &mut Cx<B>, key: Key, side: Side) {
        let Some(pair) = self.pairs.get(key) else { return };
        cx.set_probing(pair.leg(side), None);
        self.set_keepalive(cx, key, side);
    }

    fn set_keepalive<B: Backend>(&self, cx: &mut Cx<B>, key: Key, side: Side) {
        let Some(pair) = self.pairs.get(key) else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        let pool = self.trunk_of(pair).and_then(|name| self.pools.index_of(&name));
        let options = match (side, pool) {
            (Side::Client, _) => &serving.route.client,
            (Side::Server, None) => &serving.route.server,
            (Side::Server, Some(index)) => &self.pools.pools[index].peer.leg,
        };
        cx.set_keepalive(pair.leg(side), options);
    }

    /// Why a standing pair ends whose leg on this side has failed by `error`.
    pub(super) fn end_by(&self, key: Key, side: Side, error: ConnError) -> End {
        let watched = self.pairs.get(key).is_some_and(|pair| self.dead_after(pair, side).is_some());
        match error {
            ConnError::Reset => side.end_by_reset(),
            ConnError::TimedOut if watched => End::TrunkDead,
            _ => side.end_by_loss(),
        }
    }

    /// Sets a flowing pair's timer to its next look: for idleness, or of the watch.
    pub(super) fn set_look<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get(key) else { return };
        let watched = self.looks_every(pair).is_some();
        let due = if watched { pair.idle_due.min(pair.watch_due) } else { pair.idle_due };
        cx.set_timer(pair.client, due.since(cx.now()));
    }
}
