//! How a pair ends: every way out leads through [`Relay::end`], which counts it once, under one reason.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{Backend, ConnError, ConnId, Cx, Key};

use super::Relay;
use crate::pair::{Given, Pair, Side, State};
use crate::reason::End;
use crate::report::PairReport;

/// How long bytes that came before a reset may take to get onto the wire before the reset follows them.
const RESET_WAIT: Duration = Duration::from_secs(5);
/// How often it's looked whether they are.
const RESET_LOOK: Duration = Duration::from_millis(5);

impl<L> Relay<L> {
    /// One leg has failed; it's gone when the upcall that told so returns.
    pub(super) fn leg_failed<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, side: Side, error: ConnError) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        if side == Side::Server && pair.awaits_answer && pair.state == State::Flowing {
            return self.unanswered(cx, key);
        }
        match (pair.state, side) {
            (State::Dialling, Side::Server) => {
                pair.server = Key::NONE;
                self.dial_next(cx, key, Some(error));
            }
            (State::Header | State::Dialling | State::Greeting { .. }, Side::Client) => {
                self.end(cx, key, End::ClientGone)
            }
            // Its client will be served anew, if it comes.
            _ if pair.unclaimed => self.end(cx, key, side.end_by_reset()),
            (State::Resetting { end, .. }, _) => self.end(cx, key, end),
            (State::Header | State::Greeting { .. } | State::Flowing, _) => {
                let end = self.end_by(key, side, error);
                self.let_go(cx, key, side, end);
            }
        }
    }

    /// A leg whose peer is dead goes, and the pair with it: its client or server still gets what came before.
    pub(super) fn give_up<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, side: Side, end: End) {
        let Some(pair) = self.pairs.get(key) else { return };
        let leg = pair.leg(side);
        self.let_go(cx, key, side, end);
        cx.reset(leg);
    }

    /// A leg of a standing pair is gone; the other follows for the same reason.
    fn let_go<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, side: Side, end: End) {
        self.measure_leg(cx, key, side);
        let Some(pair) = self.pairs.get_mut(key) else { return };
        match side {
            // Nobody is left whom an answer would help.
            Side::Client => cx.pause(pair.server),
            // Our answer may still wait for the server's first byte, which doesn't come any more.
            Side::Server if pair.came_from.is_some() && cx.handed_on(pair.server) == 0 => cx.push(pair.client),
            Side::Server => {}
        }
        pair.gone_bytes[side as usize] = cx.handed_on(pair.leg(side));
        *pair.leg_mut(side) = Key::NONE;
        pair.state = State::Resetting { end, until: cx.now().after(RESET_WAIT) };
        self.reset_when_sent(cx, key);
    }

    /// Resets the surviving leg once what came before the reset is on the wire, as one connection would have shown it.
    pub(super) fn reset_when_sent<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get(key) else { return };
        let State::Resetting { end, until } = pair.state else { return };
        let survivor = if pair.client == Key::NONE { pair.server } else { pair.client };
        if cx.now() >= until || cx.unsent(survivor) == 0 {
            self.end(cx, key, end);
        } else {
            cx.set_timer(survivor, RESET_LOOK);
        }
    }

    /// Ends the pair: closes its legs in order if it's finished, resets them if not, and counts it.
    pub(super) fn end<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, end: End) {
        for side in [Side::Client, Side::Server] {
            self.measure_leg(cx, key, side);
        }
        let Some(pair) = self.pairs.remove(key) else { return };
        self.hellos.remove(pair.hello);
        let handed_on =
            |leg: ConnId, side: Side| if leg == Key::NONE { pair.gone_bytes[side as usize] } else { cx.handed_on(leg) };
        let upstream = handed_on(pair.client, Side::Client);
        let downstream = handed_on(pair.server, Side::Server);
        // Counted first: who hears of the end finds it in the figures.
        if let Some(serving) = self.servings.get(pair.serving) {
            serving.counters.ends[end.index()].add(1);
        }
        let parts = self.answer_why(cx, &pair, end);
        for leg in [pair.client, pair.server].into_iter().skip(usize::from(parts)) {
            if end == End::Finished { cx.close(leg) } else { cx.reset(leg) }
        }
        let Some(serving) = self.servings.get(pair.serving) else { return };
        serving.counters.pairs_open.sub(1);
        serving.counters.early_wasted.add(u64::from(pair.unclaimed));
        let backend = pair.backend.map(|index| &serving.route.backends.backends()[usize::from(index)]);
        if let Some(backend) = backend {
            backend.ended(self.core);
        }
        if serving.route.log_pairs {
            let report = PairReport {
                route: serving.route.name.clone(),
                client: pair.peer.clone(),
                backend: backend.map_or_else(|| given_name(&pair), |backend| backend.name().clone()),
                end,
                lasted: cx.now().since(pair.opened),
                connected_after: duration(pair.connected_after),
                first_byte_after: duration(pair.first_byte_after),
                upstream_bytes: Some(upstream),
                downstream_bytes: Some(downstream),
            };
            if self.reports.try_send(report).is_err() {
                self.counters.reports_lost.add(1);
            }
        }
        if !parts {
            self.servings.pair_ended(pair.serving);
        }
    }
}

/// Where a hello led to, as an address.
fn given_name(pair: &Pair) -> Arc<str> {
    pair.given.as_ref().and_then(Given::addr).map_or_else(String::new, ToString::to_string).into()
}

fn duration(nanos: Option<NonZeroU64>) -> Option<Duration> {
    nanos.map(|nanos| Duration::from_nanos(nanos.get()))
}
