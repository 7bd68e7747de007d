//! Requests: where they go, how long they may take.

use midmile_engine::{Backend, Cx, Key, Time};
use midmile_wire::dns::{self, Message};

use crate::client::Client;
use crate::detour::{By, Detour};
use crate::list::List;
use crate::mux::Mux;
use crate::reason::End;
use crate::request::{Request, State};
use crate::sending::How;
use crate::service::{Matching, Transport};
use crate::serving::Serving;
use crate::turns::{ROWS, row_of};
use crate::upstream::Upstream;

/// How many upstreams may have a request and be silent, and how often a transfer is tried.
pub(crate) const SENDS_MAX: u8 = 3;

/// What a choice avoids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Avoid {
    Nothing,
    /// A place, if there's another.
    Rather(usize),
    /// A place, by all means.
    Strictly(usize),
    /// All others, if this place will do.
    Others(usize),
}

impl Avoid {
    /// Where a request was sent last, if that's still a place.
    pub(crate) fn rather(place: Option<usize>) -> Self {
        place.map_or(Self::Nothing, Self::Rather)
    }
}

impl Mux {
    /// Sends a request that has just come, or has it wait behind those that do.
    pub(crate) fn assign<B: Backend>(&mut self, cx: &mut Cx<B>, request: Key, bytes: &[u8]) {
        let Some((at, by)) = self.requests.get(request).map(|request| (request.service, request.by)) else { return };
        // Transfers begin at the turn's end, in the order of their coming.
        if let Some(row) = row_of(by)
            && self.services[at].rows[row].is_empty()
            && self.may_go_at_once(request, row)
            && let Some(upstream) = self.choice(request)
            && self.send_on(cx, request, upstream, Some(bytes))
        {
            return;
        }
        self.join_waiting(request, false);
    }

    /// Whether a request that has just come waits behind none of its client's, and that may have one more out.
    fn may_go_at_once(&self, request: Key, row: usize) -> bool {
        let Some(request) = self.requests.get(request) else { return false };
        let serving = &self.services[request.service];
        // It counts as out already.
        let may_send = |client: &Client| client.waiting[row].is_empty() && client.has_allowance(serving, 1);
        self.clients.get(request.client).is_some_and(may_send)
    }

    /// Sends those that wait, as far as there's room for them.
    pub(crate) fn dispatch<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        // A row each: those for whom only a connection will do don't hold up those that may go as datagrams, nor transfers anybody.
        for row in 0..ROWS {
            self.dispatch_row(cx, at, row);
        }
        self.dispatch_lone(cx, at);
        self.dispatch_own(cx, at);
    }

    /// Sends a request that waits. False, and it waits on, if there's no room.
    pub(crate) fn send_waiting<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, to: Key) -> bool {
        self.leave(key);
        let sent = self.send_on(cx, key, to, None);
        if !sent {
            self.restate(key, State::Waiting);
        }
        sent
    }

    /// The client of a request, if it's still there.
    pub(crate) fn client_of(&self, request: Key) -> Option<Key> {
        let client = self.requests.get(request)?.client;
        self.clients.get(client).map(|_| client)
    }

    /// The upstream on which a request is sent best now, if there's one.
    pub(crate) fn choice(&mut self, request: Key) -> Option<Key> {
        let request = self.requests.get(request)?;
        let at = request.service;
        match self.services[at].service.matching {
            Matching::Order => {
                let bound_to = self.clients.get(request.client)?.upstream;
                if bound_to == Key::NONE {
                    return self.choose(at, Avoid::Nothing);
                }
                // From one that is to go it moves to another once it has its answers from there.
                let stays = |upstream: &&Upstream| upstream.place.is_some() && upstream.has_room();
                self.upstreams.get(bound_to).filter(stays).map(|_| bound_to)
            }
            Matching::Id => {
                let avoid = match request {
                    Request { returns: true, place: Some(place), .. } => Avoid::Others(*place),
                    Request { sends: 0, .. } => Avoid::Nothing,
                    Request { place, .. } => Avoid::rather(*place),
                };
                let by = request.by;
                self.choose_by(at, avoid, by)
            }
        }
    }

    /// As [`Mux::choose_by`], among connections.
    pub(crate) fn choose(&mut self, at: u32, avoid: Avoid) -> Option<Key> {
        self.choose_by(at, avoid, By::Connection)
    }

    /// Among the upstreams that have room: healthy places first, then those that answer, then those that aren't stuck or were found
    /// to be so by a request the longest ago, then those that aren't a way round a place's
    /// datagrams, then the least outstanding.
    pub(crate) fn choose_by(&mut self, at: u32, avoid: Avoid, by: By) -> Option<Key> {
        let serving = &mut self.services[at];
        let count = serving.upstreams.len();
        let first = serving.next.checked_rem(count)?;
        serving.next = first + 1;
        let (behind, ahead) = serving.upstreams.split_at(first);
        let mut best = None;
        for key in ahead.iter().chain(behind) {
            let Some(upstream) = self.upstreams.get(*key).filter(|upstream| upstream.has_room()) else { continue };
            let Some(place) = upstream.place else { continue };
            let is_datagrams = upstream.is_datagrams();
            if avoid == Avoid::Strictly(place) || upstream.own != Key::NONE || (is_datagrams && by != By::Datagram) {
                continue;
            }
            let backend = &serving.service.backends[place];
            let avoided = match avoid {
                Avoid::Others(kept) => kept != place,
                avoid => avoid == Avoid::Rather(place),
            };
            let is_round = !is_datagrams && by == By::Datagram && backend.transport == Transport::Udp;
            let stuck = upstream.stuck_at();
            let score = (!backend.is_healthy(), upstream.suspect, stuck, avoided, is_round, upstream.pending.live());
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, *key));
            }
        }
        best.map(|(_, key)| key)
    }

    /// Sends a request on an upstream: with `bytes`, or those that were kept. False, and nothing has changed, if there's no room.
    fn send_on<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, to: Key, bytes: Option<&[u8]>) -> bool {
        let (Some(request), Some(upstream)) = (self.requests.get_mut(key), self.upstreams.get_mut(to)) else {
            return false;
        };
        if upstream.is_datagrams() {
            return self.post_on(cx, key, to, bytes);
        }
        let serving = &self.services[request.service];
        let Some(id) = upstream.pending.insert(key) else { return false };
        let id_bytes = id.to_be_bytes();
        let by_id = serving.service.matching == Matching::Id;
        let out = &mut upstream.out;
        let kept = match (bytes, by_id) {
            (Some(bytes), true) => self.chunks.append(out, &[&bytes[..2], &id_bytes, &bytes[4..]]),
            (Some(bytes), false) => self.chunks.append(out, &[bytes]),
            (None, true) => {
                let len = self.chunks.first(&request.bytes);
                let head = [len[0], len[1], id_bytes[0], id_bytes[1]];
                self.chunks.append_chain(out, &head, &request.bytes, 4)
            }
            (None, false) => self.chunks.append_chain(out, &[], &request.bytes, 0),
        };
        if !kept {
            upstream.pending.undo(id);
            return false;
        }
        let by_datagrams = |place: usize| serving.service.backends[place].transport == Transport::Udp;
        if request.by == By::Datagram && upstream.place.is_some_and(by_datagrams) {
            serving.counters.detours[Detour::Unavailable.index()].add(1);
        }
        if !by_id && let Some(client) = self.clients.get_mut(request.client) {
            client.upstream = to;
            client.carried += 1;
        }
        self.note_sent(cx, key, to, State::Sent);
        self.gathered(cx, to);
        true
    }

    /// A request that stood in no list has been sent.
    pub(crate) fn note_sent<B: Backend>(&mut self, cx: &Cx<B>, key: Key, to: Key, state: State) {
        let Some(request) = self.requests.get_mut(key) else { return };
        if request.sends > 0 {
            self.services[request.service].counters.retries.add(1);
        }
        (request.state, request.upstream, request.sent_at, request.returns) = (state, to, cx.now(), false);
        request.sends = request.sends.saturating_add(1);
        request.place = self.upstreams.get(to).and_then(|upstream| upstream.place);
        if let Some(list) = self.services[request.service].list_of(state) {
            self.turns.push_back(list, key.slot());
        }
    }

    /// Has a request leave the list that it stands in.
    fn leave(&mut self, key: Key) {
        let Some(request) = self.requests.get_mut(key) else { return };
        let before = std::mem::replace(&mut request.state, State::Settled);
        if before == State::Waiting {
            self.leave_waiting(key);
        } else if let Some(list) = self.services[request.service].list_of(before) {
            self.turns.remove(list, key.slot());
        }
    }

    /// Has a request be in another state: behind others, or before those that wait.
    pub(crate) fn restate(&mut self, key: Key, state: State) {
        self.leave(key);
        let Some(request) = self.requests.get_mut(key) else { return };
        request.state = state;
        if state == State::Waiting {
            self.join_waiting(key, true);
        } else if let Some(list) = self.services[request.service].list_of(state) {
            self.turns.push_back(list, key.slot());
        }
    }

    /// When something of a service is due.
    pub(crate) fn due_of(&self, serving: &Serving) -> Option<Time> {
        let bounds = &serving.service.bounds;
        let front = |slot: Option<u32>| self.requests.get(self.requests.key_at(slot?)?);
        let answer = front(serving.age.front()).map(|request| request.since.after(bounds.answer_timeout));
        let sent = |list: &List, wait| front(list.front()).map(|request| request.sent_at.after(wait));
        let attempts = [
            sent(&serving.sent, serving.patience()),
            sent(&serving.late, bounds.attempt_timeout),
            sent(&serving.posted, bounds.datagram_wait()),
            sent(&serving.reposted, bounds.attempt_timeout),
        ];
        let dial = serving.upstreams.iter().filter_map(|key| self.upstreams.get(*key)?.due());
        dial.chain(answer)
            .chain(attempts.into_iter().flatten())
            .chain(serving.lone_due)
            .chain(serving.outage_due())
            .min()
    }

    /// Deals with requests whose time is up.
    pub(crate) fn expire<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        let now = cx.now();
        let bounds = self.services[at].service.bounds;
        for state in [State::Posted, State::Reposted, State::Sent, State::Late] {
            let wait = match state {
                State::Posted => bounds.datagram_wait(),
                State::Sent => self.services[at].patience(),
                _ => bounds.attempt_timeout,
            };
            while let Some(slot) = self.services[at].list_of(state).and_then(|list| list.front())
                && let Some(key) = self.requests.key_at(slot)
                && self.requests.get(key).is_some_and(|request| request.sent_at.after(wait) <= now)
            {
                match state {
                    State::Posted => self.post_again(cx, key),
                    State::Sent => self.note_late(key),
                    _ => self.attempt_over(cx, key),
                }
            }
        }
        while let Some(key) = self.services[at].age.front().and_then(|slot| self.requests.key_at(slot)) {
            if self.requests.get(key).is_none_or(|request| request.since.after(bounds.answer_timeout) > now) {
                break;
            }
            self.time_over(cx, key);
        }
    }

    /// A request should have been answered by now. Its client may have one less out, and what comes goes by another upstream rather, if this
    /// one answers nothing else either.
    fn note_late(&mut self, key: Key) {
        self.restate(key, State::Late);
        let Some(request) = self.requests.get(key) else { return };
        if let Some(upstream) = self.upstreams.get_mut(request.upstream) {
            upstream.late_at = upstream.late_at.max(request.sent_at);
        }
        let client = request.client;
        if let Some(client) = self.clients.get_mut(client) {
            client.note_late();
        }
        self.line_up(client);
    }

    /// Notes how long the answer took that has come to a request.
    pub(crate) fn note_pace(&mut self, now: Time, key: Key) {
        let Some(request) = self.requests.get(key).filter(|request| !request.is_transfer()) else { return };
        let (took, prompt, client) = (now.since(request.sent_at), request.state == State::Sent, request.client);
        let serving = &mut self.services[request.service];
        let bounds = &serving.service.bounds;
        serving.pace.note(took, bounds.attempt_timeout);
        if prompt && let Some(client) = self.clients.get_mut(client) {
            client.note_prompt(bounds);
        }
    }

    /// An upstream has had a request for as long as it has for one: another backend gets it as well, or this one by a connection in place of a
    /// datagram. Whichever answers first is heard.
    fn attempt_over<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        self.leave(key);
        let Some(request) = self.requests.get_mut(key) else { return };
        request.silences = request.silences.saturating_add(1);
        let (at, place, upstream_key, by) = (request.service, request.place, request.upstream, request.by);
        let again = request.may_go_again();
        let (mut silent, mut is_datagrams, mut leaves) = (false, false, false);
        if let Some(upstream) = self.upstreams.get_mut(upstream_key) {
            silent = upstream.heard <= request.sent_at;
            upstream.suspect |= silent;
            is_datagrams = upstream.is_datagrams();
            leaves = upstream.place.is_none();
        }
        if again && self.client_of(key).is_some() {
            if let Some(other) = self.choose_by(at, place.map_or(Avoid::Nothing, Avoid::Strictly), by) {
                self.send_on(cx, key, other, None);
            } else if leaves {
                // Those that have come in its stead don't stand yet.
                self.restate(key, State::Waiting);
            } else if is_datagrams {
                self.detour(key, Detour::Unanswered);
                let connection = self.choose(at, place.map_or(Avoid::Nothing, Avoid::Others));
                if !connection.is_some_and(|connection| self.send_on(cx, key, connection, None)) {
                    self.restate(key, State::Waiting);
                    self.hasten_connections(at, place);
                }
            }
        }
        if silent && is_datagrams {
            self.lose_datagrams(cx, upstream_key, false);
        }
    }

    /// After a reload requests know places by other numbers: each old one's new one. Those that an upstream has had for too long which
    /// is to go wait for another now.
    pub(crate) fn follow_places(&mut self, at: u32, places: &[Option<usize>]) {
        let mut next = self.services[at].age.front();
        while let Some(slot) = next {
            next = self.ages.after(slot);
            let key = self.requests.key_at(slot).expect("a request stands among its service's as long as it's there");
            let Some(request) = self.requests.get_mut(key) else { continue };
            request.place = request.place.and_then(|place| places[place]);
            let leaves = self.upstreams.get(request.upstream).is_some_and(|upstream| upstream.place.is_none());
            let waits = self.clients.get(request.client).is_some();
            if leaves && waits && request.state == State::Settled && request.may_go_again() {
                self.restate(key, State::Waiting);
            }
        }
    }

    /// A request's time is up altogether.
    fn time_over<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        if self.transfer_waits(cx.now(), key) {
            return;
        }
        let Some(request) = self.requests.get(key) else { return };
        let (upstream, sent_at) = (request.upstream, request.sent_at);
        let stays = request.state != State::Waiting;
        let service = &self.services[request.service].service;
        let (by_order, attempt) = (service.matching == Matching::Order, service.bounds.attempt_timeout);
        self.give_up(cx, key);
        // One that has said nothing since, and that for long, is no good any more; in order, nothing behind the request would ever be
        // answered.
        let silent = |upstream: &Upstream| upstream.heard <= sent_at && sent_at.after(attempt) <= cx.now();
        if stays && self.upstreams.get(upstream).is_some_and(|upstream| by_order || silent(upstream)) {
            self.lose_upstream(cx, upstream, How::Reset);
        }
    }

    /// Tells a client that there's no answer, or no more: SERVFAIL, or its end. A transfer that has had answers, and of which the last can't
    /// be known, is taken to be complete.
    pub(crate) fn give_up<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(request) = self.requests.get(key) else { return };
        let (client, id_matters) = (request.client, self.services[request.service].service.matching == Matching::Id);
        let complete = request.answered && request.following.is_none();
        if self.clients.get(client).is_some() && !complete {
            let query = Message::new(self.chunks.first(&request.bytes).get(2..).unwrap_or_default());
            match query.filter(|_| id_matters && !request.answered) {
                Some(query) => {
                    let refusal = dns::Refusal::of(query, dns::RCODE_SERVFAIL);
                    self.services[request.service].counters.servfails.add(1);
                    self.deliver(cx, client, &[refusal.framed()]);
                }
                None => {
                    let end = if request.sends == 0 { End::NoBackend } else { End::Unanswered };
                    self.end_client(cx, client, end, How::Reset);
                }
            }
        }
        self.finish(key);
    }

    /// A request is over.
    pub(crate) fn finish(&mut self, key: Key) {
        let Some(waits) = self.requests.get(key).map(|request| request.state == State::Waiting) else { return };
        self.leave(key);
        let Some(mut request) = self.requests.remove(key) else { return };
        let serving = &mut self.services[request.service];
        self.ages.remove(&mut serving.age, key.slot());
        let kept = request.bytes.len();
        self.chunks.release(&mut request.bytes);
        serving.counters.requests_open.sub(1);
        if let Some(client) = self.clients.get_mut(request.client) {
            client.outstanding -= 1;
            client.kept -= kept;
            client.transfers -= u16::from(request.is_transfer());
            if serving.service.matching == Matching::Order && !waits {
                client.carried -= 1;
                if client.carried == 0 {
                    client.upstream = Key::NONE;
                }
            }
            self.queue_client(request.client);
            self.line_up(request.client);
        }
    }
}
