//! Suspects: requests that were out on several connections that were lost. Some question that a backend closes on may be the reason, and
//! nobody can tell which of those that were out it was.
//!
//! So a suspect goes on by a connection of its own: it loses that, and nobody else anything. They wait in a row of their own, for a
//! while after each loss, so that a backend that starts again has time to. Who has lost too many is told SERVFAIL.

use std::time::Duration;

use midmile_engine::{Backend, Cx, Key, Time};

use crate::detour::By;
use crate::mux::Mux;
use crate::request::State;

/// After so many connections lost a request goes alone. Backends that start again one after the other seldom lose a request twice.
const LOSSES_SHARED: u8 = 2;
/// After so many it's given up.
const LOSSES_MAX: u8 = 5;
/// How long a suspect waits after a loss.
const PAUSE: Duration = Duration::from_millis(50);
/// Suspects that have a connection at once, of one service on one core; others wait.
const LONE_MAX: usize = 16;

impl Mux {
    /// A request was out on a connection that stood and was lost by no doing of ours. False if it has been on too many such.
    pub(crate) fn may_follow_loss(&mut self, key: Key) -> bool {
        let Some(request) = self.requests.get_mut(key) else { return false };
        request.losses += 1;
        if request.losses == LOSSES_SHARED && !request.is_transfer() {
            request.by = By::Lone;
            self.services[request.service].counters.suspects.add(1);
        }
        request.losses < LOSSES_MAX
    }

    /// Has a request wait for an upstream again: before others, or, if it's a suspect, behind all others and for a while.
    pub(crate) fn wait_again(&mut self, now: Time, key: Key) {
        if let Some(request) = self.requests.get_mut(key).filter(|request| request.by == By::Lone) {
            request.rests_until = now.after(PAUSE);
            self.services[request.service].lone_due.get_or_insert(request.rests_until);
        }
        self.restate(key, State::Waiting);
    }

    /// Dials connections for suspects that have waited, as far as there may be more.
    pub(crate) fn dispatch_lone<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        self.services[at].lone_due = None;
        let mut next = self.services[at].waiting_lone.front();
        // Those that are passed over have a connection that doesn't stand yet: they're few.
        while let Some(slot) = next
            && self.services[at].lone < LONE_MAX
        {
            next = self.turns.after(slot);
            let key = self.requests.key_at(slot).expect("a request waits as long as it's there");
            let rests_until = self.requests.get(key).map_or(Time::ZERO, |request| request.rests_until);
            if self.client_of(key).is_none() {
                self.finish(key);
            } else if rests_until > cx.now() {
                self.services[at].lone_due = Some(rests_until);
                break;
            } else if !self.begin_own(cx, key) {
                break;
            }
        }
    }
}
