//! What leaves: gathered in a turn, flushed at its end; and whether a client is read on.

use std::io::IoSlice;

use midmile_engine::{Backend, ConnId, Cx, Key};

use crate::client::PARTING_WAIT;
use crate::mux::Mux;
use crate::reason::End;
use crate::token::Token;
use crate::transfer::CLIENT_TRANSFERS_MAX;
use crate::upstream::Stand;

/// Bytes that are gathered before they leave without waiting for the turn's end.
const GATHER_MAX: usize = 64 * 1024;
/// A client that is owed more isn't read, and an upstream that is gets no more requests.
pub(crate) const OWED_MAX: usize = 64 * 1024;
/// A client isn't read either while it may be owed more, once what it has outstanding is answered.
pub(crate) const PROSPECT_MAX: usize = 1024 * 1024;
/// A client isn't read either while its requests have more bytes: some hundred such clients fit the smallest arena.
pub(crate) const KEPT_MAX: usize = 128 * 1024;
/// A client that is owed more, because its answers were longer than those before, ends if half of all chunks are in use. Others just wait
/// until it takes them.
const OWED_LIMIT: usize = 2 * 1024 * 1024;
/// Parts of an answer.
const PARTS_MAX: usize = 7;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// In order: what was sent still arrives.
    Close,
    /// At once.
    Reset,
    /// It has ended by itself.
    Gone,
}

impl How {
    pub(crate) fn end<B: Backend>(self, cx: &mut Cx<B>, conn: ConnId) {
        match self {
            Self::Close => cx.close(conn),
            Self::Reset => cx.reset(conn),
            Self::Gone => {}
        }
    }
}

impl Mux {
    /// Has a client looked at and flushed at the turn's end.
    pub(crate) fn queue_client(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key)
            && !std::mem::replace(&mut client.queued, true)
        {
            self.dirty.push(Token::Client(key));
        }
    }

    /// The same of an upstream.
    pub(crate) fn queue_upstream(&mut self, key: Key) {
        if let Some(upstream) = self.upstreams.get_mut(key)
            && !std::mem::replace(&mut upstream.queued, true)
        {
            self.dirty.push(Token::Upstream(key));
        }
    }

    pub(crate) fn flush_all<B: Backend>(&mut self, cx: &mut Cx<B>) {
        while let Some(token) = self.dirty.pop() {
            match token {
                Token::Client(key) => {
                    if let Some(client) = self.clients.get_mut(key) {
                        client.queued = false;
                        match client.ending {
                            // What it sent last has been dropped by now.
                            Some(end) if client.parting => self.end_client(cx, key, end, How::Close),
                            _ => self.flush_client(cx, key),
                        }
                    }
                }
                Token::Upstream(key) => {
                    if let Some(upstream) = self.upstreams.get_mut(key) {
                        upstream.queued = false;
                        self.flush_upstream(cx, key);
                    }
                }
            }
        }
    }

    /// Sends a client an answer, with what else is sent together. A client that can't be owed more ends.
    pub(crate) fn deliver<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, parts: &[&[u8]]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.active = cx.now();
        let len = parts.iter().map(|part| part.len()).sum();
        client.prospect.note(len);
        self.services[client.service].prospect.note(len);
        if client.out.is_empty() {
            client.took = client.active;
        }
        let mut kept = client.out.len() < GATHER_MAX && self.chunks.append(&mut client.out, parts);
        if !kept {
            if self.chunks.send(cx, client.conn, &mut client.out) > 0 {
                client.took = client.active;
            }
            kept = self.chunks.append(&mut client.out, parts);
        }
        if !kept && client.out.is_empty() {
            // There's no chunk left for what waits, so this may not wait.
            let mut slices = [IoSlice::new(&[]); PARTS_MAX];
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
            }
            kept = cx.send_vectored(client.conn, &slices[..parts.len()]) == len;
        }
        if kept && (client.out.len() <= OWED_LIMIT || !self.chunks.is_half_used()) {
            self.queue_client(key);
        } else {
            self.end_client(cx, key, End::AnswersUnread, How::Reset);
        }
    }

    pub(crate) fn flush_client<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.out.is_empty() && self.chunks.send(cx, client.conn, &mut client.out) > 0 {
            client.took = cx.now();
        }
        self.settle(cx, key);
    }

    /// Ends a client that was to end once it had its answers, if it has; otherwise reads it or not, as its bounds say.
    pub(crate) fn settle<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let bound = self.services[client.service].service.bounds.outstanding_per_client;
        if let Some(end) = client.ending {
            if client.outstanding == 0 && client.out.is_empty() && !client.parting {
                self.part(cx, key, end);
            }
        } else if client.reading && client.out.len() > OWED_MAX {
            client.stop_reading();
            cx.pause(client.conn);
        } else if !client.reading
            && !client.starved
            && client.outstanding <= bound / 2
            && client.transfers <= CLIENT_TRANSFERS_MAX / 2
            && client.out.len() <= OWED_MAX
            && client.may_be_owed() <= PROSPECT_MAX / 2
            && client.kept <= KEPT_MAX / 2
        {
            client.reading = true;
            cx.read_messages(client.conn);
        }
    }

    /// A client has all its answers, and ends: at once if all it sent was read, otherwise once that has been dropped.
    fn part<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, end: End) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if end == End::Finished {
            return self.end_client(cx, key, end, How::Close);
        }
        (client.parting, client.took, client.timer_at) = (true, cx.now(), cx.now().after(PARTING_WAIT));
        cx.shutdown(client.conn);
        cx.set_timer(client.conn, PARTING_WAIT);
        cx.read_messages(client.conn);
    }

    pub(crate) fn flush_upstream<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        if upstream.stand != Stand::Open {
            return;
        }
        let (leaves, last) = (upstream.place.is_none(), upstream.pending.len() == 0);
        if self.chunks.send(cx, upstream.conn, &mut upstream.out) > 0 {
            upstream.told.by_bytes();
        } else if upstream.pending.live() > 0 {
            self.tell(cx, key);
        }
        if leaves && last {
            self.dismiss(cx, key);
        }
    }

    /// Adds to what an upstream is sent at the turn's end, or lets that leave at once if it's much.
    pub(crate) fn gathered<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        if upstream.out.len() >= GATHER_MAX && self.chunks.send(cx, upstream.conn, &mut upstream.out) > 0 {
            upstream.told.by_bytes();
        }
        self.queue_upstream(key);
    }
}
