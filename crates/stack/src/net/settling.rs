//! Sending, and the timers that have things sent.

use midmile_engine::Key;
use smoltcp::iface::PollResult;
use smoltcp::socket::tcp::State;

use super::flow::{Phase, UNARMED};
use super::port::{Port, Sent};
use super::{Net, head_for, instant, note_sent, time};
use crate::link::Transmit;

/// Segments that one connection sends before others have their turn.
const BURST: usize = 64;

impl Net {
    /// Sends what there is to send, as far as the link has room. Answers whether it had too little.
    pub(crate) fn settle<T: Transmit>(&mut self, tx: &mut T) -> bool {
        for _ in 0..self.dirty.len() {
            if !tx.has_room() {
                return true;
            }
            let Some(key) = self.dirty.pop_front() else { break };
            self.settle_one(key, tx);
        }
        false
    }

    /// Has what waits for more leave on all connections: there may be no later.
    pub(crate) fn push_all(&mut self) {
        for slot in 0..self.config.flows_max {
            if let Some((key, flow)) = self.flow_at(slot)
                && flow.held_until.is_some()
            {
                self.push(key);
            }
        }
    }

    /// Whether some connection waits for its turn to send.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn settle_one<T: Transmit>(&mut self, key: Key, tx: &mut T) {
        let (now, orphan_patience) = (self.now, self.config.orphan_patience);
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.dirty = false;
        if flow.rest().is_some() {
            if flow.gives_up_at(orphan_patience).is_none_or(|at| at > now) {
                self.ask_if_due(key, tx);
                return self.arm(key);
            }
            self.wake(key);
        }
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.note_owed(now);
        // What isn't listed has nothing to say any more.
        if flow.phase == Phase::Resolving || !flow.listed {
            return;
        }
        // While its timer is set nothing is due.
        if flow.armed_ms == UNARMED {
            if flow.gives_up_at(orphan_patience).is_some_and(|at| at <= now) && !self.give_up(key) {
                return;
            }
            self.ask_if_due(key, tx);
        }
        let Some(flow) = self.flows.get(key) else { return };
        let waits = flow.held_until.is_some_and(|until| until > now);
        let again = !waits && self.egress(key, tx);
        let Some(flow) = self.flows.get_mut(key) else { return };
        if flow.state() == State::Closed {
            let orphan = flow.phase == Phase::Orphan;
            self.unlist(key);
            if orphan {
                self.release(key);
            }
            return;
        }
        if again {
            self.mark(key);
        }
        self.arm(key);
    }

    /// Sends segments; answers whether there may be more.
    pub(super) fn egress<T: Transmit>(&mut self, key: Key, tx: &mut T) -> bool {
        let Some(flow) = self.flows.get(key) else { return false };
        let (tuple, link) = (flow.tuple, flow.link);
        self.aim(&tuple);
        let now = instant(self.now);
        let Some(flow) = self.flows.get_mut(key) else { return false };
        let mut port = Port {
            packet: None,
            tx,
            head: head_for(&self.figures, link, tuple.is_v4()),
            mtu: self.figures.mtu,
            sink: &mut self.sink,
            sent: Sent::default(),
        };
        for _ in 0..BURST {
            if !port.tx.has_room() {
                return true;
            }
            let iface = &mut self.iface;
            if flow.with_set(|set| iface.poll_egress(now, &mut port, set)).is_none_or(|sent| sent == PollResult::None) {
                return false;
            }
            let before = flow.sent;
            note_sent(flow, std::mem::take(&mut port.sent));
            // It was the last of what there was; asking smoltcp again would cost as much as sending did.
            if flow.sent == flow.taken && flow.sent != before && flow.state() == State::Established {
                return false;
            }
        }
        true
    }

    /// Sets the timer if it's due before the one that is set: one that fires early is only set again.
    fn arm(&mut self, key: Key) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(key) else { return };
        let iface = &mut self.iface;
        let sends_at = flow.with_set(|set| iface.poll_at(instant(now), set).map(time)).flatten();
        let mut rests_at = if self.rests { flow.rests_at(self.config.rest_after) } else { None };
        if rests_at.is_some_and(|at| at <= now) {
            rests_at = self.rest_in_turn(key);
        }
        let Some(flow) = self.flows.get_mut(key) else { return };
        let gives_up_at = flow.gives_up_at(self.config.orphan_patience);
        let times = [sends_at, gives_up_at, flow.asks_at(), flow.held_until, rests_at];
        let Some(at) = times.into_iter().flatten().min() else { return };
        // Rounded up, and not this very millisecond again.
        let at_ms = at.as_nanos().div_ceil(1_000_000).max(now.as_millis() + 1);
        if at_ms < flow.armed_ms {
            flow.armed_ms = at_ms;
            self.timers.set(key.slot(), at_ms);
        }
    }

    /// When a timer is due next.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    /// Has those whose timer is due settled.
    pub(crate) fn handle_timers(&mut self) {
        let now_ms = self.now.as_millis();
        while let Some(slot) = self.timers.expire(now_ms) {
            let Some(key) = self.flows.key_at(slot) else { continue };
            if let Some(flow) = self.flows.get_mut(key) {
                flow.armed_ms = UNARMED;
                flow.held_until = flow.held_until.filter(|until| *until > self.now);
            }
            self.mark(key);
        }
    }
}
