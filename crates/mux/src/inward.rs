//! Clients: their messages come in, their time runs out, they end.

use midmile_engine::{Backend, ConnId, Cx, Frame, Key};
use midmile_wire::dns::{self, Message};
use midmile_wire::frame::FrameError;

use crate::chunks::Chain;
use crate::client::Client;
use crate::detour::{By, Detour};
use crate::measure::measure;
use crate::mux::{Ended, Mux};
use crate::reason::End;
use crate::request::{Asked, Request, State};
use crate::sending::{How, KEPT_MAX, PROSPECT_MAX};
use crate::service::{Matching, ServiceId};
use crate::serving::Serving;
use crate::transfer::CLIENT_TRANSFERS_MAX;

/// What of a request matters for its way; nothing of those that have no id.
#[derive(Clone, Copy, Debug)]
struct Traits {
    asked: Asked,
    repeatable: bool,
    by: By,
    size_at: u16,
}

impl Mux {
    pub(crate) fn frame_request(&mut self, key: Key, bytes: &[u8]) -> Frame {
        let Some(client) = self.clients.get_mut(key) else { return Frame::More };
        if client.ending.is_some() {
            // Whatever comes is dropped.
            return Frame::Message(bytes.len());
        }
        let serving = &self.services[client.service];
        let service = &serving.service;
        match measure(&service.framing, service.bounds.message_max as usize, bytes, &mut client.seen) {
            Ok(Some(len)) => {
                (client.partial, client.begun) = (false, None);
                return Frame::Message(len);
            }
            Ok(None) => {}
            Err(error) => {
                serving.counters.requests_misframed[error.index()].add(1);
                let too_long = error == FrameError::TooLong;
                client.ending = Some(if too_long { End::MessageTooLong } else { End::MessageBroken });
                return Frame::Message(bytes.len());
            }
        }
        if !std::mem::replace(&mut client.partial, true) && !std::mem::replace(&mut client.noted, true) {
            self.noted.push(key);
        }
        Frame::More
    }

    /// Sets timers for messages that have begun: `frame` only looks.
    pub(crate) fn look_at_noted<B: Backend>(&mut self, cx: &mut Cx<B>) {
        let now = cx.now();
        while let Some(key) = self.noted.pop() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.noted = false;
            if client.partial && client.begun.is_none() {
                client.begun = Some(now);
                let wait = self.services[client.service].service.bounds.message_timeout;
                let due = now.after(wait);
                if due < client.timer_at {
                    client.timer_at = due;
                    cx.set_timer(client.conn, wait);
                }
            }
        }
    }

    /// A client's whole message.
    pub(crate) fn request_came<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(end) = client.ending {
            match (client.parting, client.finished) {
                (true, true) => self.queue_client(key),
                (true, false) => {}
                // Its framing is lost.
                (false, _) => self.end_after_answers(cx, key, end),
            }
            return;
        }
        client.active = cx.now();
        let serving = &self.services[client.service];
        serving.counters.requests.add(1);
        serving.counters.request_bytes.add(bytes.len() as u64);
        let mut traits = Traits { asked: Asked::default(), repeatable: false, by: By::Connection, size_at: 0 };
        if serving.service.matching == Matching::Id {
            let query = match query_in(bytes) {
                Ok(query) => query,
                // Its framing stands, but it speaks something else: nothing that we could say would be an answer.
                Err(end) => return self.end_after_answers(cx, key, end),
            };
            if query.opcode() == dns::OPCODE_DSO {
                serving.counters.declined.add(1);
                let refusal = dns::Refusal::of(query, dns::RCODE_NOTIMP);
                self.deliver(cx, key, &[refusal.framed()]);
                return;
            }
            if let Err(why) = query.well_formed() {
                // Some backends close on it, and everybody's requests with it.
                serving.counters.malformed[why.index()].add(1);
                let refusal = dns::Refusal::of(query, dns::RCODE_FORMERR);
                self.deliver(cx, key, &[refusal.framed()]);
                return;
            }
            let transfer = query.question().is_some_and(|question| question.is_transfer());
            let (by, size_at) = match way_of(serving, query, bytes.len() - 2) {
                _ if transfer => (By::Own, 0),
                way => way,
            };
            let keepalive = query.additional().is_some_and(|said| said.keepalive);
            let asked = Asked { id: query.id(), keepalive };
            traits = Traits { asked, repeatable: query.opcode() != dns::OPCODE_UPDATE, by, size_at };
        }
        match self.keep(cx, key, bytes, traits) {
            Some(request) => self.assign(cx, request, bytes),
            None => self.turn_away(cx, key, bytes),
        }
    }

    /// Gives a request a slot; `None` if there is none, or no room for its bytes. Stops reading a client that has as many as it may
    /// have, or while others have to be answered first.
    fn keep<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8], traits: Traits) -> Option<Key> {
        let mut kept = Chain::EMPTY;
        if self.requests.is_full() || !self.chunks.append(&mut kept, &[bytes]) {
            return None;
        }
        let client = self.clients.get_mut(key).expect("the caller has found it");
        let now = cx.now();
        let request = Request {
            client: key,
            service: client.service,
            bytes: kept,
            state: State::Waiting,
            upstream: Key::NONE,
            place: None,
            asked: traits.asked,
            by: traits.by,
            size_at: traits.size_at,
            posted_id: 0,
            returns: false,
            sends: 0,
            silences: 0,
            losses: 0,
            rests_until: now,
            repeatable: traits.repeatable,
            following: None,
            answered: false,
            since: now,
            sent_at: now,
        };
        let request = self.requests.insert(request).expect("it isn't full");
        let serving = &mut self.services[client.service];
        self.ages.push_back(&mut serving.age, request.slot());
        serving.counters.requests_open.add(1);
        client.outstanding += 1;
        client.kept += bytes.len();
        let transfer = traits.by == By::Own;
        client.transfers += u16::from(transfer);
        let held = transfer && client.transfers >= CLIENT_TRANSFERS_MAX;
        if held {
            serving.counters.transfers_held.add(1);
        }
        if held
            || client.may_be_owed() > PROSPECT_MAX
            || client.kept > KEPT_MAX
            || client.outstanding >= serving.service.bounds.outstanding_per_client
        {
            client.stop_reading();
            cx.pause(client.conn);
        } else if self.requests.len() >= self.requests_max && !client.starved {
            client.stop_reading();
            client.starved = true;
            cx.pause(client.conn);
            if self.starved.len() == self.starved.capacity() {
                // Half of them at least have ended since.
                self.starved.retain(|key| self.clients.get(*key).is_some());
            }
            self.starved.push_back(key);
        }
        Some(request)
    }

    /// There's no room for a request at all.
    fn turn_away<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) {
        let Some(client) = self.clients.get(key) else { return };
        self.services[client.service].counters.requests_max.add(1);
        match query_in(bytes).ok().filter(|_| self.services[client.service].service.matching == Matching::Id) {
            Some(query) => {
                let refusal = dns::Refusal::of(query, dns::RCODE_SERVFAIL);
                self.deliver(cx, key, &[refusal.framed()]);
            }
            None => self.end_client(cx, key, End::Unanswered, How::Reset),
        }
    }

    pub(crate) fn client_finished<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.finished = true;
        if client.parting {
            return self.queue_client(key);
        }
        let cut_short = client.partial || cx.left_over(conn) > 0;
        self.end_after_answers(cx, key, if cut_short { End::MessageCut } else { End::Finished });
    }

    /// No more is read of a client; it ends once it has the answers to what was.
    pub(crate) fn end_after_answers<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, end: End) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.ending.get_or_insert(end);
        client.stop_reading();
        cx.pause(client.conn);
        self.queue_client(key);
    }

    /// A client's timer has run out.
    pub(crate) fn client_due<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let now = cx.now();
        let bounds = &self.services[client.service].service.bounds;
        let (due, end) = client.due(bounds, now);
        match end {
            Some(End::MessageTimeout) if due <= now && client.ending.is_none() => {
                // What it asked before is answered yet: answers have a time of their own.
                self.end_after_answers(cx, key, End::MessageTimeout);
                self.client_due(cx, key);
            }
            Some(end) if due <= now => {
                let how = if end == End::AnswersUnread { How::Reset } else { How::Close };
                self.end_client(cx, key, end, how);
            }
            _ => {
                // A message may have longer than answers have that begin to wait meanwhile.
                client.timer_at = due.min(now.after(bounds.idle_timeout));
                cx.set_timer(client.conn, client.timer_at.since(now));
            }
        }
    }

    /// Goes on reading clients for whose requests there's room again, the longest waiting first.
    pub(crate) fn feed_starved<B: Backend>(&mut self, cx: &mut Cx<B>) {
        let mut room = self.requests_max.saturating_sub(self.requests.len());
        while room > 0
            && let Some(key) = self.starved.pop_front()
        {
            if let Some(client) = self.clients.get_mut(key) {
                client.starved = false;
                room -= 1;
                self.settle(cx, key);
            }
        }
    }

    /// Ends a client. Its requests that wait go; those on upstreams stay until they're answered, or their time is up.
    pub(crate) fn end_client<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, end: End, how: How) {
        self.drop_waiting(key);
        let Some(Client { conn, service, owner, mut out, origin, .. }) = self.clients.remove(key) else { return };
        how.end(cx, conn);
        self.chunks.release(&mut out);
        let serving = &mut self.services[service];
        serving.farewell(origin);
        serving.counters.ends[end.index()].add(1);
        self.ended.push_back(Ended { owner, service: ServiceId(service), end });
    }
}

/// How a query may go, and where in it is said how long a datagram may be; counted, where it can't go as one though it might have.
fn way_of(serving: &Serving, query: Message<'_>, len: usize) -> (By, u16) {
    if !serving.has_datagrams {
        return (By::Connection, 0);
    }
    match Detour::unless_plain(query, len) {
        Ok(size_at) => (By::Datagram, size_at),
        Err(why) => {
            serving.counters.detours[why.index()].add(1);
            (By::Connection, 0)
        }
    }
}

/// The query in a request of DNS; an end by its name where there's none.
fn query_in(bytes: &[u8]) -> Result<Message<'_>, End> {
    let message = bytes.get(2..).unwrap_or_default();
    match Message::new(message) {
        Some(query) if query.is_response() => Err(End::NotAQuery),
        Some(query) => Ok(query),
        None if message.is_empty() => Err(End::MessageEmpty),
        None => Err(End::MessageShort),
    }
}
