//! Datagrams to backends: bound, sent, sent once more, answered; and when a backend takes none.
//!
//! To each place that is asked by datagrams leads one upstream of those, beside its connections. What goes there is a copy of the query
//! with an id of its own, which asks for no longer an answer than a datagram may be; nothing else is changed.

use std::time::Duration;

use midmile_engine::{Addr, Backend, Cx, DatagramId, Flow, Key, Time};
use midmile_wire::dns::Message;

use crate::back::answers;
use crate::detour::{By, DATAGRAM_MAX, Detour};
use crate::mux::Mux;
use crate::posts::Posts;
use crate::request::State;
use crate::sending::How;
use crate::service::Transport;
use crate::upstream::{Pending, Stand, Upstream};

/// How often an upstream's sockets, and what is out by them, are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same of one that is to go.
const LEAVING_LOOK_EVERY: Duration = Duration::from_millis(100);

impl Mux {
    /// Makes the upstream of datagrams of each place that has to have one and has none.
    pub(crate) fn man_datagrams(&mut self, at: u32, now: Time) {
        let serving = &mut self.services[at];
        let max = serving.service.bounds.datagrams_max();
        for (place, backend) in serving.service.backends.iter().enumerate() {
            let upstreams = &self.upstreams;
            let is_one = |upstream: &Upstream| upstream.place == Some(place) && upstream.is_datagrams();
            let there = serving.upstreams.iter().any(|key| upstreams.get(*key).is_some_and(is_one));
            let peer = backend.addrs.first().and_then(Addr::inet);
            let Some(peer) = peer.filter(|_| backend.transport == Transport::Udp && !there) else { continue };
            if let Ok(key) = self.upstreams.insert(Upstream::of_datagrams(at, place, peer, max, now)) {
                serving.upstreams.push(key);
            }
        }
    }

    /// Binds the sockets of an upstream whose rest is over, and looks at one that stands.
    pub(crate) fn tend_datagrams<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let now = cx.now();
        match self.upstreams.get(key).map(|upstream| upstream.stand) {
            Some(Stand::Resting { until }) if until <= now => self.bind_datagrams(cx, key),
            Some(Stand::Open) => self.look_at_datagrams(cx, key),
            _ => {}
        }
    }

    fn bind_datagrams<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let serving = &self.services[upstream.service];
        let Some(place) = upstream.place else { return };
        let addrs = &serving.service.backends[place].addrs;
        let addr = upstream.addr.checked_rem(addrs.len()).and_then(|index| addrs[index].inet());
        let Some(posts) = &mut upstream.posts else { return };
        if let Some(peer) = addr {
            // Other ports than before: who knew those knows nothing.
            **posts = Posts::new(peer);
            posts.renew(cx, &mut self.owners, &serving.counters, key);
        }
        if posts.in_use() > 0 {
            (upstream.stand, upstream.heard, upstream.look_at) = (Stand::Open, cx.now(), cx.now().after(LOOK_EVERY));
        } else {
            upstream.rest(cx.now(), addrs.len());
        }
    }

    /// Sees to it that sockets go out of use in time, and that nothing is left of what nobody waits for.
    fn look_at_datagrams<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let now = cx.now();
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let counters = &self.services[upstream.service].counters;
        let (Some(posts), Pending::Drawn(drawn)) = (&mut upstream.posts, &mut upstream.pending) else { return };
        let leaves = upstream.place.is_none();
        if posts.tired && !leaves {
            posts.renew(cx, &mut self.owners, counters, key);
        }
        if upstream.look_at > now {
            return;
        }
        upstream.look_at = now.after(if leaves { LEAVING_LOOK_EVERY } else { LOOK_EVERY });
        let requests = &self.requests;
        drawn.sweep(leaves, |request| requests.get(request).is_some());
        if leaves && drawn.len() == 0 {
            return self.remove_upstream(cx, key, How::Gone);
        }
        posts.retire(cx, &mut self.owners, counters, |place| drawn.posts().any(|used| used == place));
        if !leaves {
            posts.renew(cx, &mut self.owners, counters, key);
        }
    }

    /// Sends a request as a datagram: with `bytes`, or those that were kept. False, and nothing has changed, if there's no room.
    pub(crate) fn post_on<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, to: Key, bytes: Option<&[u8]>) -> bool {
        let (Some(request), Some(upstream)) = (self.requests.get_mut(key), self.upstreams.get_mut(to)) else {
            return false;
        };
        let (Some(posts), Pending::Drawn(drawn)) = (&mut upstream.posts, &mut upstream.pending) else { return false };
        let lots = &mut self.lots;
        let chosen = posts.choose(lots.draw(cx)).and_then(|post| Some((post, posts.at(post)?)));
        let Some((post, socket)) = chosen else { return false };
        let Some(id) = drawn.insert(key, post, || lots.draw(cx)) else { return false };
        let mut datagram = Datagram::EMPTY;
        match bytes {
            Some(bytes) => datagram.take(&bytes[2..]),
            None => self.chunks.copy_from(&request.bytes, 2, |bytes| datagram.take(bytes)),
        }
        if cx.send_to(socket, Flow::to(posts.peer()), datagram.finish(id, request.size_at)).is_err() {
            drawn.remove(id);
            return false;
        }
        posts.spend(post, false);
        request.posted_id = id;
        self.services[request.service].counters.datagrams.add(1);
        self.note_sent(cx, key, to, State::Posted);
        true
    }

    /// A datagram had no answer soon: the same goes once more, under the same id and from the same port, so that an answer to either is
    /// one.
    pub(crate) fn post_again<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        self.restate(key, State::Reposted);
        let waits = self.client_of(key).is_some();
        let Some(request) = self.requests.get(key) else { return };
        let Some(upstream) = self.upstreams.get_mut(request.upstream) else { return };
        upstream.suspect |= upstream.heard <= request.sent_at;
        let (Some(posts), Pending::Drawn(drawn)) = (&mut upstream.posts, &upstream.pending) else { return };
        posts.window.handle_loss(request.sent_at, cx.now());
        let Some(socket) = drawn.post(request.posted_id).and_then(|post| posts.at(post)).filter(|_| waits) else {
            return;
        };
        let mut datagram = Datagram::EMPTY;
        self.chunks.copy_from(&request.bytes, 2, |bytes| datagram.take(bytes));
        let datagram = datagram.finish(request.posted_id, request.size_at);
        // Without room it's as if this were lost too: its time goes on.
        if cx.send_to(socket, Flow::to(posts.peer()), datagram).is_ok() {
            self.services[request.service].counters.datagrams_again.add(1);
        }
    }

    /// A datagram has come to a socket of ours. Nothing is believed of it but what shows that it's the answer to what was asked: who
    /// sent it, the socket that it came to, its id and its question (RFC 5452, 9.1).
    pub(crate) fn datagram_came<B: Backend>(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        let Some(key) = self.owners.of(socket) else { return };
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let counters = &self.services[upstream.service].counters;
        let (Some(posts), Pending::Drawn(drawn)) = (&mut upstream.posts, &mut upstream.pending) else { return };
        let Some(post) = posts.place_of(socket) else { return };
        let is_peer = (flow.peer.ip(), flow.peer.port()) == (posts.peer().ip(), posts.peer().port());
        let answer = Message::new(bytes).filter(|answer| is_peer && answer.is_response());
        let found = answer.filter(|answer| drawn.post(answer.id()) == Some(post));
        let found = found.and_then(|answer| Some((answer, drawn.at(answer.id())?)));
        let request = found.and_then(|(_, request)| self.requests.get(request));
        let is_right =
            |answer| request.is_none_or(|request| answers(self.chunks.first(&request.bytes), request, answer));
        let Some((answer, request_key)) = found.filter(|(answer, _)| is_right(Some(*answer))) else {
            counters.answers_stray.add(1);
            return posts.spend(post, true);
        };
        let client = request.map(|request| (request.client, request.asked));
        posts.window.handle_answer(drawn.len());
        drawn.remove(answer.id());
        upstream.has_answered(cx.now());
        let why = Detour::of_answer(answer);
        match client.filter(|(client, _)| self.clients.get(*client).is_some()) {
            Some(_) if why.is_some() => self.take_round(request_key, key, why),
            Some((client, asked)) => {
                counters.answers.add(1);
                counters.answer_bytes.add(bytes.len() as u64 + 2);
                self.hand_back_message(cx, client, asked, bytes, answer);
                self.finish(request_key);
            }
            None => {
                counters.answers_late.add(1);
                self.finish(request_key);
            }
        }
        self.queue_upstream(key);
    }

    /// A datagram's answer won't do: the request goes by a connection, to the same place if that has one.
    fn take_round(&mut self, key: Key, upstream: Key, why: Option<Detour>) {
        let Some(request) = self.requests.get(key) else { return };
        let counters = &self.services[request.service].counters;
        if request.upstream != upstream || request.state == State::Waiting {
            // It has gone on elsewhere.
            return counters.answers_late.add(1);
        }
        self.detour(key, why.unwrap_or(Detour::Truncated));
        self.restate(key, State::Waiting);
        if let Some(request) = self.requests.get_mut(key) {
            request.returns = true;
        }
    }

    /// A request that might go as a datagram, and waits for nothing just now, goes by connections from now on.
    pub(crate) fn detour(&mut self, key: Key, why: Detour) {
        let Some(request) = self.requests.get_mut(key) else { return };
        if request.by == By::Datagram {
            request.by = By::Connection;
            self.services[request.service].counters.detours[why.index()].add(1);
        }
    }

    /// Datagrams to a place don't arrive, or it doesn't answer them: what is out goes elsewhere, and after a pause others are tried from
    /// other ports. What was `refused` has had no attempt there.
    pub(crate) fn lose_datagrams<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, refused: bool) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let Some(posts) = &mut upstream.posts else { return };
        let serving = &self.services[upstream.service];
        serving.counters.datagrams_failed.add(1);
        posts.unbind_all(cx, &mut self.owners, &serving.counters);
        let kept = upstream.place;
        upstream.rest(cx.now(), kept.map_or(1, |place| serving.service.backends[place].addrs.len()));
        (upstream.answered, upstream.suspect) = (0, false);
        let mut from = 0;
        while let Some(request_key) = self.upstreams.get_mut(key).and_then(|upstream| upstream.pending.pop(&mut from)) {
            if let Some(request) =
                self.requests.get_mut(request_key).filter(|request| refused && request.upstream == key)
                && request.state != State::Waiting
            {
                request.sends = request.sends.saturating_sub(1);
            }
            self.unsend(cx, key, request_key, false);
        }
        if kept.is_none() {
            self.remove_upstream(cx, key, How::Gone);
        }
    }
}

/// A query as it's sent.
struct Datagram {
    bytes: [u8; DATAGRAM_MAX as usize],
    len: usize,
}

impl Datagram {
    const EMPTY: Self = Self { bytes: [0; DATAGRAM_MAX as usize], len: 0 };

    /// Puts bytes behind those that are there. All of them fit.
    fn take(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// The whole, under this id, that asks for no longer an answer than a datagram may be.
    fn finish(&mut self, id: u16, size_at: u16) -> &[u8] {
        self.bytes[..2].copy_from_slice(&id.to_be_bytes());
        let size = usize::from(size_at);
        if size > 0 && self.bytes[size..size + 2] > DATAGRAM_MAX.to_be_bytes()[..] {
            self.bytes[size..size + 2].copy_from_slice(&DATAGRAM_MAX.to_be_bytes());
        }
        &self.bytes[..self.len]
    }
}
