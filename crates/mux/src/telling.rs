//! Backends are told that their answers came where nothing that is sent would tell them: many servers hold back a small answer until they know
//! that the one before arrived (Nagle's algorithm), and the kernel waits up to 40 ms before it says so by itself. A packet for each answer would
//! cost both sides more than the answers do, so a backend is told at once only if it wasn't just told. `docs/experiments/held-back.md`
//! has the figures.

use std::time::Duration;

use midmile_engine::{Backend, Cx, Key, Time};

use crate::mux::Mux;
use crate::upstream::Upstream;

/// A backend that has been told isn't told again for so long; then it is, if answers came meanwhile. An alarm may be a millisecond late.
const PAUSE: Duration = Duration::from_micros(250);

/// What an upstream's backend knows of the answers that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// When it may be told again.
    from: Time,
    /// Answers have come since, and nothing was sent that told of them.
    behind: bool,
    /// It stands in the list of those to be told.
    listed: bool,
}

impl Told {
    pub(crate) const NEVER: Self = Self { from: Time::ZERO, behind: false, listed: false };

    /// Bytes went to the backend: they tell it, too.
    pub(crate) const fn by_bytes(&mut self) {
        self.behind = false;
    }
}

impl Mux {
    /// Answers came of an upstream, others are awaited, and nothing is sent.
    pub(crate) fn tell<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(Upstream { told, conn, .. }) = self.upstreams.get_mut(key) else { return };
        told.behind = cx.now() < told.from;
        if !told.behind {
            told.from = cx.now().after(PAUSE);
            cx.acknowledge(*conn);
        } else if !std::mem::replace(&mut told.listed, true) {
            self.untold.push(key);
            self.tell_at = Some(self.tell_at.map_or(told.from, |at| at.min(told.from)));
        }
    }

    /// Tells those whose pause is over, at the turn's end.
    pub(crate) fn tell_due<B: Backend>(&mut self, cx: &mut Cx<B>) {
        if self.tell_at.is_none_or(|at| cx.now() < at) {
            return;
        }
        self.tell_at = None;
        for index in (0..self.untold.len()).rev() {
            let key = self.untold[index];
            let Some(upstream) = self.upstreams.get_mut(key) else {
                self.untold.swap_remove(index);
                continue;
            };
            let told = &mut upstream.told;
            if told.behind && cx.now() < told.from {
                self.tell_at = Some(self.tell_at.map_or(told.from, |at| at.min(told.from)));
                continue;
            }
            let is_behind = told.behind && upstream.pending.live() > 0;
            (told.behind, told.listed) = (false, false);
            self.untold.swap_remove(index);
            if is_behind {
                self.tell(cx, key);
            }
        }
    }
}
