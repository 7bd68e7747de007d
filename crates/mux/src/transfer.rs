//! Transfers of zones (AXFR, RFC 5936; IXFR, RFC 1995): many answers to one request, and as many bytes as a zone has.
//!
//! They wait in a row of their own, and each gets an upstream of its own, in the order of their coming. A client has so few at once that
//! there's always room for others'; with more it isn't read. Nothing is refused for that: a secondary told REFUSED would come again only
//! after the zone's retry interval (RFC 1035, 3.3.13), while TCP makes it wait as long as it has to. Where its client takes the bytes more slowly than the backend gives them, that upstream isn't read,
//! and nobody else waits for it. The upstream goes with the last answer (`dns::transfer` says which that is). Where the answers can't be
//! followed, a transfer is taken to be complete when its client ends, or none has come for the answer timeout.

use midmile_engine::{Backend, Cx, Key, Time};
use midmile_wire::dns::Message;
use midmile_wire::dns::transfer::{Progress, Transfer};

use crate::counters::Counters;
use crate::detour::By;
use crate::mux::Mux;
use crate::onward::{Avoid, SENDS_MAX};
use crate::request::{Request, State};
use crate::sending::{How, OWED_MAX};
use crate::upstream::Upstream;

/// Transfers at once, of one service on one core; others wait.
const TRANSFERS_MAX: usize = 16;
/// Transfers of one client, under way or waiting; with so many it isn't read until half are over.
pub(crate) const CLIENT_TRANSFERS_MAX: u16 = 8;

impl Mux {
    /// Sends requests whose own upstream stands by now, and begins others as far as there may be more.
    pub(crate) fn dispatch_own<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        let serving = &self.services[at];
        if serving.waiting_transfers.is_empty() && serving.waiting_lone.is_empty() {
            return;
        }
        for index in 0..self.services[at].upstreams.len() {
            let own = self.services[at].upstreams[index];
            let Some(upstream) = self.upstreams.get(own).filter(|upstream| upstream.has_room()) else { continue };
            let request = upstream.own;
            if self.requests.get(request).is_none_or(|request| request.state != State::Waiting) {
                continue;
            }
            if self.client_of(request).is_some() {
                // Where there's no room for its bytes it's tried again.
                self.send_waiting(cx, request, own);
            } else {
                self.finish(request);
            }
        }
        // Those that are passed over have an upstream that doesn't stand yet: they're few.
        let mut next = self.services[at].waiting_transfers.front();
        while let Some(slot) = next
            && self.services[at].transfers < TRANSFERS_MAX
        {
            next = self.turns.after(slot);
            let key = self.requests.key_at(slot).expect("a request waits as long as it's there");
            if self.client_of(key).is_none() {
                self.finish(key);
            } else if !self.begin_own(cx, key) {
                break;
            }
        }
    }

    /// Dials an upstream for a transfer or a suspect that has none: to the place where any other request would go. False if none of
    /// those stands.
    pub(crate) fn begin_own<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) -> bool {
        let Some(request) = self.requests.get(key) else { return true };
        let at = request.service;
        if self.upstreams.get(request.upstream).is_some_and(|upstream| upstream.own == key) {
            return true;
        }
        let lone = request.by == By::Lone;
        let avoid = if request.sends == 0 { Avoid::Nothing } else { Avoid::rather(request.place) };
        let chosen = self.choose(at, avoid).and_then(|key| self.upstreams.get(key)?.place);
        let Some(place) = chosen else { return false };
        let serving = &mut self.services[at];
        let mut upstream = Upstream::new(at, place, serving.service.matching, 1, cx.now());
        (upstream.own, upstream.lone) = (key, lone);
        let Ok(own) = self.upstreams.insert(upstream) else { return false };
        serving.upstreams.push(own);
        serving.transfers += usize::from(!lone);
        serving.lone += usize::from(lone);
        if let Some(request) = self.requests.get_mut(key) {
            (request.upstream, request.place) = (own, Some(place));
            // The question stands in the first chunk whole, and so does the client's version unless its names are very long.
            let query = self.chunks.first(&request.bytes).get(2..).and_then(Message::new);
            request.following = query.and_then(Transfer::of).map(Box::new);
        }
        self.redial(cx, at);
        true
    }

    /// A request's own upstream has failed before it stood: a transfer has had one attempt, a suspect waits.
    pub(crate) fn own_not_dialled<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(request) = self.requests.get_mut(key) else { return };
        if request.by == By::Lone {
            return self.wait_again(cx.now(), key);
        }
        request.sends += 1;
        if request.sends >= SENDS_MAX {
            self.give_up(cx, key);
        }
    }

    /// A transfer's message was handed on: its upstream isn't read while the client has too many before it.
    pub(crate) fn transfer_came<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, client: Key) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let transfer = upstream.own;
        match self.clients.get(client) {
            None => self.finish(transfer),
            Some(client) if client.out.len() > OWED_MAX => {
                upstream.held = true;
                cx.pause(upstream.conn);
            }
            Some(_) => {}
        }
    }

    /// Whether a transfer whose time is up waits for its own client, which has a time of its own: then it begins anew.
    pub(crate) fn transfer_waits(&mut self, now: Time, key: Key) -> bool {
        let client = self.client_of(key);
        let Some(request) = self.requests.get_mut(key) else { return false };
        let held = self.upstreams.get(request.upstream).is_some_and(|upstream| upstream.held);
        if !request.is_transfer() || !held || request.state == State::Waiting || client.is_none() {
            return false;
        }
        request.since = now;
        let serving = &mut self.services[request.service];
        self.ages.remove(&mut serving.age, key.slot());
        self.ages.push_back(&mut serving.age, key.slot());
        true
    }

    /// Reads transfers on whose clients have made room, and closes the upstreams of requests of their own that are over.
    pub(crate) fn look_at_transfers<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        if self.services[at].transfers + self.services[at].lone == 0 {
            return;
        }
        for index in (0..self.services[at].upstreams.len()).rev() {
            let key = self.services[at].upstreams[index];
            let Some(upstream) = self.upstreams.get_mut(key).filter(|upstream| upstream.own != Key::NONE) else {
                continue;
            };
            let Some(request) = self.requests.get(upstream.own) else {
                self.remove_upstream(cx, key, How::Close);
                continue;
            };
            let owed = self.clients.get(request.client).map_or(0, |client| client.out.len());
            if upstream.held && owed <= OWED_MAX / 2 {
                upstream.held = false;
                cx.read_messages(upstream.conn);
            }
        }
    }
}

impl Request {
    /// Whether a transfer has more answers than those so far and this one; also where that isn't known.
    pub(crate) fn awaits_more(&mut self, answer: Option<Message<'_>>, counters: &Counters) -> bool {
        // An error ends it wherever it stands, also where it can't be followed (RFC 5936, 2.2.1).
        if answer.is_some_and(|answer| answer.rcode() != 0) {
            return false;
        }
        let (Some(following), Some(answer)) = (&mut self.following, answer) else { return true };
        let progress = following.see(answer);
        if progress == Progress::Broken {
            counters.transfers_unclear.add(1);
            self.following = None;
        }
        progress != Progress::Last
    }
}
