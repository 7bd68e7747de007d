//! Outages: nothing leads to any backend of a service.
//!
//! Who asks meanwhile waits for a while, so that a backend that starts again loses no question. Once the outage has lasted, or where health
//! checks know of it already, a request is answered SERVFAIL as soon as each backend has been tried in vain since it came: its asker
//! turns to another resolver then. Whoever waits has the backends tried again, so the first that is back is found soon.

use midmile_engine::{Backend, Cx, Key, Time};

use crate::mux::Mux;
use crate::request::State;
use crate::service::Matching;
use crate::serving::Serving;
use crate::upstream::{Stand, Upstream};

/// How long after an outage began requests wait all the same, how long each waits at most from then on, and how often backends are tried
/// while any does: each as a part of the answer timeout.
const GRACE_PART: u32 = 2;
const WAIT_PART: u32 = 4;
const LOOK_PART: u32 = 32;

/// An outage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    since: Time,
    /// When it's looked at next, if there are requests.
    look_at: Time,
}

impl Outage {
    /// From when on its requests have no grace.
    fn grace_until(&self, serving: &Serving) -> Time {
        let is_known = serving.service.backends.iter().all(|place| !place.is_healthy());
        if is_known { Time::ZERO } else { self.since.after(serving.service.bounds.answer_timeout / GRACE_PART) }
    }
}

impl Serving {
    /// When an outage is to be looked at.
    pub(crate) fn outage_due(&self) -> Option<Time> {
        self.outage.filter(|_| !self.age.is_empty()).map(|outage| outage.look_at)
    }
}

impl Mux {
    /// Notes whether a service has an outage, and deals with the requests that wait in one. Where answers come in order, requests
    /// wait for as long as answers may take: their clients would end.
    pub(crate) fn look_at_outage<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        let now = cx.now();
        let serving = &self.services[at];
        let stands = |key: &Key| self.upstreams.get(*key).is_some_and(Upstream::leads_on);
        if serving.service.matching == Matching::Order || serving.upstreams.iter().any(stands) {
            self.services[at].outage = None;
            return;
        }
        let serving = &mut self.services[at];
        let mut outage = serving.outage.unwrap_or(Outage { since: now, look_at: now });
        let (grace_until, is_due) = (outage.grace_until(serving), outage.look_at <= now && !serving.age.is_empty());
        if is_due {
            outage.look_at = now.after(serving.service.bounds.answer_timeout / LOOK_PART);
        }
        serving.outage = Some(outage);
        if is_due && grace_until <= now {
            self.refuse_waiting(cx, at, grace_until);
            self.hasten(at, now);
        }
    }

    /// Gives up the requests that wait and since whose coming, and the end of the grace, each backend has been tried in vain, and those
    /// that have waited for so long.
    fn refuse_waiting<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32, grace_until: Time) {
        let now = cx.now();
        let serving = &self.services[at];
        let wait = serving.service.bounds.answer_timeout / WAIT_PART;
        let ways = serving.upstreams.iter().filter_map(|key| self.upstreams.get(*key)).filter(|way| way.is_shared());
        let tried_all = ways.map(|way| way.failed_at).min().unwrap_or(Time::ZERO);
        let mut next = serving.age.front();
        while let Some(key) = next.and_then(|slot| self.requests.key_at(slot)) {
            let Some(request) = self.requests.get(key) else { break };
            let since = request.since.max(grace_until);
            if since > tried_all && since.after(wait) > now {
                break;
            }
            let following = self.ages.after(key.slot()).and_then(|slot| self.requests.key_at(slot));
            if request.state == State::Waiting {
                self.give_up(cx, key);
            }
            // Its client may have ended by it, and what else that had asked; those before stay, and are few.
            next = match following {
                Some(following) if self.requests.get(following).is_none() => self.services[at].age.front(),
                following => following.map(Key::slot),
            };
        }
    }

    /// Has connections to a place dialled soon that rest: it takes datagrams and leaves some unanswered, so there's no outage, and somebody waits
    /// for a connection.
    pub(crate) fn hasten_connections(&mut self, at: u32, place: Option<usize>) {
        let serving = &self.services[at];
        let pause = serving.service.bounds.answer_timeout / LOOK_PART;
        for key in &serving.upstreams {
            if let Some(upstream) = self.upstreams.get_mut(*key)
                && upstream.place == place
                && !upstream.is_datagrams()
                && let Stand::Resting { until } = &mut upstream.stand
            {
                *until = upstream.failed_at.after(pause).min(*until);
            }
        }
    }

    /// Has all backends tried now that rest.
    fn hasten(&mut self, at: u32, now: Time) {
        for key in &self.services[at].upstreams {
            if let Some(upstream) = self.upstreams.get_mut(*key)
                && upstream.is_shared()
                && let Stand::Resting { until } = &mut upstream.stand
            {
                *until = now.min(*until);
            }
        }
    }
}
