//! Upstreams: dialled, answering, lost.

use std::time::Duration;

use midmile_engine::{Backend, Cx, Frame, Key, MeterId, Time};
use midmile_wire::dns::{self, Message};

use crate::keepalive::{self, Change};
use crate::measure::measure;
use crate::mux::Mux;
use crate::onward::SENDS_MAX;
use crate::reason::End;
use crate::request::{Asked, Request, State};
use crate::sending::How;
use crate::service::Matching;
use crate::token::Token;
use crate::upstream::{Stand, Upstream};

/// An upstream that stood for so long, or answered, is dialled again at once when it's lost: its backend works, and lets idle connections
/// go.
const STOOD_MIN: Duration = Duration::from_secs(1);

impl Mux {
    /// Makes a service's upstreams as many as they should be, and dials those that are new.
    pub(crate) fn man<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        let serving = &mut self.services[at];
        let (matching, bounds) = (serving.service.matching, serving.service.bounds);
        for place in 0..serving.service.backends.len() {
            let upstreams = &self.upstreams;
            let is_one = |upstream: &Upstream| {
                upstream.place == Some(place) && upstream.own == Key::NONE && !upstream.is_datagrams()
            };
            let is_there = |key: &&Key| upstreams.get(**key).is_some_and(is_one);
            let there = serving.upstreams.iter().filter(is_there).count();
            for _ in there..usize::from(bounds.upstreams_per_backend) {
                let upstream = Upstream::new(at, place, matching, bounds.outstanding_per_upstream, cx.now());
                if let Ok(key) = self.upstreams.insert(upstream) {
                    serving.upstreams.push(key);
                }
            }
        }
        if self.services[at].has_datagrams {
            self.man_datagrams(at, cx.now());
        }
        self.redial(cx, at);
    }

    /// Dials the upstreams whose rest is over, and looks at those of datagrams.
    pub(crate) fn redial<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        let now = cx.now();
        for index in 0..self.services[at].upstreams.len() {
            let Some(key) = self.services[at].upstreams.get(index).copied() else { break };
            let Some(upstream) = self.upstreams.get_mut(key) else { continue };
            if upstream.is_datagrams() {
                self.tend_datagrams(cx, key);
                continue;
            }
            if upstream.stand == Stand::Open && upstream.look_at <= now {
                // Some backends drop queries in silence: the ids come back, a half to a whole answer timeout after they were given up.
                upstream.look_at = now.after(self.services[at].service.bounds.answer_timeout / 2);
                if upstream.pending.len() > 0 {
                    upstream.pending.sweep(|request| self.requests.get(request).is_some());
                }
                continue;
            }
            let (Stand::Resting { until }, Some(place)) = (upstream.stand, upstream.place) else { continue };
            if until > now {
                continue;
            }
            let serving = &self.services[at];
            let addrs = &serving.service.backends[place].addrs;
            let Some(addr) = upstream.addr.checked_rem(addrs.len()).map(|index| &addrs[index]) else { continue };
            serving.counters.upstreams_dialled.add(1);
            match cx.dial(addr, &serving.service.server, Token::Upstream(key).to_bits(), MeterId::NONE) {
                Ok(conn) => {
                    (upstream.conn, upstream.stand) = (conn, Stand::Dialling);
                    cx.set_timer(conn, serving.service.bounds.attempt_timeout);
                }
                Err(_) => {
                    serving.counters.dials_failed.add(1);
                    upstream.rest(now, addrs.len());
                }
            }
        }
    }

    pub(crate) fn upstream_stands<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let serving = &self.services[upstream.service];
        serving.counters.upstreams_open.add(1);
        (upstream.stand, upstream.heard, upstream.look_at) = (Stand::Open, cx.now(), cx.now());
        (upstream.proved, upstream.late_at) = (cx.now(), Time::ZERO);
        cx.clear_timer(upstream.conn);
        cx.set_keepalive(upstream.conn, &serving.service.server);
        cx.read_messages(upstream.conn);
    }

    pub(crate) fn frame_answer(&mut self, key: Key, bytes: &[u8]) -> Frame {
        let Some(upstream) = self.upstreams.get_mut(key) else { return Frame::More };
        let serving = &self.services[upstream.service];
        let told = measure(&serving.answers, serving.service.bounds.message_max as usize, bytes, &mut upstream.seen);
        told.inspect_err(|error| serving.counters.answers_misframed[error.index()].add(1)).into()
    }

    /// A backend's whole message.
    pub(crate) fn answer_came<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let serving = &self.services[upstream.service];
        let answer = bytes.get(2..).and_then(Message::new);
        let id = match (serving.service.matching, answer) {
            (Matching::Order, _) => 0,
            (Matching::Id, Some(answer)) if answer.is_response() => answer.id(),
            (Matching::Id, _) => return serving.counters.answers_stray.add(1),
        };
        let Some(request_key) = upstream.pending.at(id) else { return serving.counters.answers_stray.add(1) };
        let Some(request) = self.requests.get_mut(request_key) else {
            serving.counters.answers_late.add(1);
            upstream.has_answered(cx.now());
            upstream.pending.remove(id);
            return self.queue_upstream(key);
        };
        if serving.service.matching == Matching::Id && !answers(self.chunks.first(&request.bytes), request, answer) {
            return serving.counters.answers_stray.add(1);
        }
        // Only now: who says something unasked and leaves, as a backend does that has too many clients, isn't dialled again at once.
        upstream.has_answered(cx.now());
        if request.upstream == key {
            upstream.proved = upstream.proved.max(request.sent_at);
        }
        self.note_pace(cx.now(), request_key);
        let (Some(request), Some(upstream)) = (self.requests.get_mut(request_key), self.upstreams.get_mut(key)) else {
            return;
        };
        let serving = &self.services[upstream.service];
        if self.clients.get(request.client).is_some() {
            serving.counters.answers.add(1);
            serving.counters.answer_bytes.add(bytes.len() as u64);
        } else {
            serving.counters.answers_late.add(1);
        }
        let (client, asked, transfer) = (request.client, request.asked, request.is_transfer());
        let more = transfer && request.awaits_more(answer, &serving.counters);
        if more {
            // Others may follow: its time begins anew.
            (request.answered, request.since) = (true, cx.now());
            let serving = &mut self.services[upstream.service];
            self.ages.remove(&mut serving.age, request_key.slot());
            self.ages.push_back(&mut serving.age, request_key.slot());
        } else {
            upstream.pending.remove(id);
        }
        self.hand_back(cx, client, asked, bytes, answer);
        if more {
            self.transfer_came(cx, key, client);
        } else {
            self.finish(request_key);
            if transfer {
                self.remove_upstream(cx, key, How::Close);
            } else {
                self.queue_upstream(key);
            }
        }
    }

    /// Sends what a connection brought to its client.
    fn hand_back<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        key: Key,
        asked: Asked,
        bytes: &[u8],
        answer: Option<Message<'_>>,
    ) {
        let Some(client) = self.clients.get(key) else { return };
        match answer.filter(|_| self.services[client.service].service.matching == Matching::Id) {
            Some(answer) => self.hand_back_message(cx, key, asked, &bytes[2..], answer),
            None => self.deliver(cx, key, &[bytes]),
        }
    }

    /// Sends a DNS message to its client, as it came but for the id and the keepalive option, with its length in front.
    pub(crate) fn hand_back_message<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        key: Key,
        asked: Asked,
        message: &[u8],
        answer: Message<'_>,
    ) {
        let Some(client) = self.clients.get(key) else { return };
        let idle = self.services[client.service].service.bounds.idle_timeout;
        let len = |more: usize| u16::try_from(message.len() + more).expect("no message is longer").to_be_bytes();
        let id = asked.id.to_be_bytes();
        match Change::of(answer, asked, message.len()) {
            Change::None => self.deliver(cx, key, &[&len(0), &id, &message[2..]]),
            Change::Timeout { at } => {
                let option = keepalive::option(idle);
                let timeout = &option[keepalive::TIMEOUT_AT..];
                self.deliver(cx, key, &[&len(0), &id, &message[2..at], timeout, &message[at + timeout.len()..]]);
            }
            Change::Option { begin, end } => {
                let (option, head) = (keepalive::option(idle), &message[2..begin - 2]);
                let options_len = u16::try_from(end - begin + option.len()).expect("the message has more");
                let (options, tail) = message[begin..].split_at(end - begin);
                let options_len = options_len.to_be_bytes();
                self.deliver(cx, key, &[&len(option.len()), &id, head, &options_len, options, &option, tail]);
            }
        }
    }

    /// Lets an upstream go whose place is gone: now, or once its requests are answered.
    pub(crate) fn dismiss<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        upstream.place = None;
        if upstream.stand == Stand::Open && upstream.pending.len() > 0 {
            // Datagrams are looked at until nobody waits for their answers.
            upstream.look_at = cx.now();
            if upstream.is_datagrams() {
                return;
            }
            if upstream.own != Key::NONE {
                // It goes when the transfer ends.
                return;
            }
            cx.set_timer(upstream.conn, self.services[upstream.service].service.bounds.answer_timeout);
        } else {
            self.remove_upstream(cx, key, How::Close);
        }
    }

    /// Takes an upstream out that carries no request.
    pub(crate) fn remove_upstream<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, how: How) {
        let Some(mut upstream) = self.upstreams.remove(key) else { return };
        how.end(cx, upstream.conn);
        self.chunks.release(&mut upstream.out);
        let serving = &mut self.services[upstream.service];
        if let Some(posts) = &mut upstream.posts {
            posts.unbind_all(cx, &mut self.owners, &serving.counters);
        }
        serving.upstreams.retain(|other| *other != key);
        serving.transfers -= usize::from(upstream.own != Key::NONE && !upstream.lone);
        serving.lone -= usize::from(upstream.lone);
        if upstream.stand == Stand::Open && !upstream.is_datagrams() {
            serving.counters.upstreams_open.sub(1);
        }
    }

    /// An upstream's connection is gone, or not good any more, or its dial failed. Its requests go elsewhere.
    pub(crate) fn lose_upstream<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, how: How) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        if upstream.is_datagrams() {
            return self.lose_datagrams(cx, key, false);
        }
        how.end(cx, upstream.conn);
        let now = cx.now();
        let serving = &self.services[upstream.service];
        let (stood, kept, own) = (upstream.stand == Stand::Open, upstream.place, upstream.own);
        match (stood, kept) {
            (true, Some(_)) => serving.counters.upstreams_lost.add(1),
            (false, _) => serving.counters.dials_failed.add(1),
            (true, None) => {}
        }
        if stood {
            serving.counters.upstreams_open.sub(1);
        }
        if stood && how != How::Reset {
            upstream.was_closed();
        }
        if stood && (upstream.answered > 0 || now.since(upstream.heard) >= STOOD_MIN) {
            (upstream.failures, upstream.stand) = (0, Stand::Resting { until: now });
        } else {
            upstream.rest(now, kept.map_or(1, |place| serving.service.backends[place].addrs.len()));
        }
        (upstream.answered, upstream.suspect, upstream.seen, upstream.conn) = (0, false, Default::default(), Key::NONE);
        self.chunks.release(&mut upstream.out);
        let mut from = 0;
        while let Some(request) = self.upstreams.get_mut(key).and_then(|upstream| upstream.pending.pop(&mut from)) {
            self.unsend(cx, key, request, stood && how != How::Reset);
        }
        if kept.is_none() || own != Key::NONE {
            self.remove_upstream(cx, key, How::Gone);
        }
        if !stood {
            self.own_not_dialled(cx, own);
        }
    }

    /// A request was on an upstream that is lost: if it isn't on another, it waits for one, or its client is told.
    /// Whether that was `lost` by no doing of ours, and may have been because of the request, matters for its way.
    pub(crate) fn unsend<B: Backend>(&mut self, cx: &mut Cx<B>, upstream: Key, key: Key, lost: bool) {
        let Some(request) = self.requests.get_mut(key) else { return };
        if request.upstream != upstream || request.state == State::Waiting {
            return;
        }
        let serving = &self.services[request.service];
        let ours_to_answer = serving.service.matching == Matching::Id && !request.answered;
        if self.clients.get(request.client).is_none() {
            self.finish(key);
        } else if !ours_to_answer {
            // What came of it can't be known, or only a part of what was to come has.
            let client = request.client;
            self.end_client(cx, client, End::Unanswered, How::Reset);
            self.finish(key);
        } else if !request.repeatable
            || request.is_transfer() && request.sends >= SENDS_MAX
            || lost && !self.may_follow_loss(key)
        {
            // A transfer dials for itself, so nothing else would pause between its attempts.
            self.give_up(cx, key);
        } else {
            self.wait_again(cx.now(), key);
        }
    }

    /// Takes a service out that is retired and whose last client has gone.
    pub(crate) fn bury<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32) {
        if self.services.get(at).is_none_or(|serving| !serving.retired || serving.clients > 0) {
            return;
        }
        while let Some(request) = self.services[at].age.front().and_then(|slot| self.requests.key_at(slot)) {
            self.finish(request);
        }
        while let Some(key) = self.services[at].upstreams.last().copied() {
            self.remove_upstream(cx, key, How::Close);
        }
        self.services.remove(at);
    }
}

/// Whether an answer is one to this request (RFC 5452, 9.1): it's about the same question. An error may come without any, and so
/// may a transfer's messages but the first (RFC 5936, 2.2), and what an update is answered (RFC 2136, 3.8).
pub(crate) fn answers(request_bytes: &[u8], request: &Request, answer: Option<Message<'_>>) -> bool {
    let (Some(query), Some(answer)) = (request_bytes.get(2..).and_then(Message::new), answer) else { return false };
    if query.opcode() != answer.opcode() {
        return false;
    }
    match (query.question(), answer.question()) {
        (Some(asked), Some(answered)) => asked.is_same(answered),
        (Some(_), None) => {
            let may_be_without = answer.rcode() != 0 || request.is_transfer() || answer.opcode() == dns::OPCODE_UPDATE;
            answer.questions() == 0 && may_be_without
        }
        (None, _) => true,
    }
}
