//! The core's one alarm: for the clock of pools and early dials, and for the multiplexor.

use midmile_engine::{Backend, Cx, Time};

use super::Relay;
use crate::trunk::TICK;

impl<L> Relay<L> {
    /// Has the alarm go off in a tick.
    pub(super) fn watch_clock<B: Backend>(&mut self, cx: &mut Cx<B>) {
        if self.tick_due.is_none() {
            let due = cx.now().after(TICK);
            self.tick_due = Some(due);
            self.arm(cx, due);
        }
    }

    /// Has the alarm go off at `due` at the latest.
    pub(super) fn arm<B: Backend>(&mut self, cx: &mut Cx<B>, due: Time) {
        if self.alarm_at.is_none_or(|at| due < at) {
            self.alarm_at = Some(due);
            cx.set_alarm(due.since(cx.now()));
        }
    }

    /// The alarm went off, for whoever it was set; it may be early for the others.
    pub(super) fn alarm_went_off<B: Backend>(&mut self, cx: &mut Cx<B>) {
        self.alarm_at = None;
        match self.tick_due {
            Some(due) if cx.now() >= due => {
                self.tick_due = None;
                self.tick_pools(cx);
                self.reap_unclaimed(cx, false);
                if !self.heralds.is_idle() {
                    self.watch_clock(cx);
                }
            }
            Some(due) => self.arm(cx, due),
            None => {}
        }
    }
}
