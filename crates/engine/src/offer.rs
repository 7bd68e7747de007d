//! Received bytes, offered to the program: lent for the length of an upcall, kept where they weren't used.
//!
//! Bytes are read into the core's buffer and offered from there. What the program leaves over moves to a block; what comes next is
//! read behind it, so that the program always sees one piece. With no block left the bytes are only peeked at, and what was used
//! is discarded afterwards: a sender that never completes its message then costs no memory here at all.

use crate::backend::{Backend, Progress};
use crate::conn::Reading;
use crate::core::Core;
use crate::cx::Cx;
use crate::error::ConnError;
use crate::handler::{ConnId, Frame, Handler};
use crate::pool::Stash;
use crate::upcall::Upcall;

/// What a read for an offer brought.
struct Fetched {
    /// Bytes left over from before and, behind them, what has come now. Without it, all is in the core's buffer.
    kept: Option<Stash>,
    /// Bytes in the core's buffer.
    fresh: usize,
    /// Those are still in the transport as well.
    peeked: bool,
    /// Nothing was behind them when they were read.
    short: bool,
}

impl Fetched {
    fn bytes<'a>(&'a self, buffer: &'a [u8]) -> &'a [u8] {
        self.kept.as_ref().map_or(&buffer[..self.fresh], Stash::bytes)
    }
}

impl<B: Backend, H: Handler<B>> Core<B, H> {
    /// Offers what was left over and what has come.
    pub(crate) fn offer(&mut self, id: ConnId) {
        let mut buffer = std::mem::take(&mut self.cx.buffer);
        let mut left = self.cx.config.turn_bytes;
        while let Some(fetched) = self.cx.fetch(id, &mut buffer) {
            let offered = fetched.bytes(&buffer);
            let len = offered.len();
            let used = self.tell(id, offered, buffer.len());
            self.cx.keep_rest(id, fetched, &buffer, used);
            left = left.saturating_sub(len);
            if left == 0 {
                self.cx.enqueue(id);
                break;
            }
        }
        self.cx.buffer = buffer;
        let Some(conn) = self.cx.conns.get(id) else { return };
        match (conn.reading, conn.ended, conn.failed) {
            (Reading::Upcall | Reading::Messages, true, None) => self.tell_end(id),
            (Reading::Upcall | Reading::Messages, true, Some(_)) | (Reading::Paused, _, Some(_)) => self.fail(id),
            _ => {}
        }
    }

    /// Offers bytes as the program reads them, and says how many it used.
    fn tell(&mut self, id: ConnId, offered: &[u8], len_max: usize) -> usize {
        let Some(conn) = self.cx.conns.get_mut(id) else { return 0 };
        conn.offer_due = false;
        if conn.reading == Reading::Messages {
            return self.tell_messages(id, offered, len_max);
        }
        let token = conn.token;
        let used = self.upcall(Upcall::Data, id, |handler, cx| handler.on_data(cx, id, token, offered));
        used.unwrap_or(0).min(offered.len())
    }

    /// Tells whole messages one by one, as long as the program takes messages.
    fn tell_messages(&mut self, id: ConnId, offered: &[u8], len_max: usize) -> usize {
        let mut used = 0;
        while used < offered.len()
            && let Some(conn) = self.cx.conns.get(id)
            && conn.reading == Reading::Messages
        {
            let (token, rest) = (conn.token, &offered[used..]);
            let frame = self.upcall(Upcall::Frame, id, |handler, _| handler.frame(id, token, rest));
            let Some(frame) = frame else { break };
            let error = match frame {
                Frame::Message(len @ 1..) if len <= rest.len() => {
                    used += len;
                    let message = &rest[..len];
                    self.upcall(Upcall::Message, id, |handler, cx| handler.on_message(cx, id, token, message));
                    continue;
                }
                Frame::Message(0) | Frame::Broken => ConnError::Broken,
                // More than this is never offered.
                Frame::Message(len) if len > len_max => ConnError::TooLong,
                Frame::Message(_) | Frame::More if rest.len() == len_max => ConnError::TooLong,
                Frame::Message(_) | Frame::More => break,
            };
            if let Some(conn) = self.cx.conns.get_mut(id) {
                conn.fail(error);
                conn.ended = true;
            }
            break;
        }
        used
    }
}

impl<B: Backend> Cx<B> {
    /// Reads what is to be offered, behind what was left over or into `buffer`; `None` if there's nothing to say.
    fn fetch(&mut self, id: ConnId, buffer: &mut [u8]) -> Option<Fetched> {
        let conn = self.conns.get_mut(id)?;
        if !conn.reading.is_offer() {
            return None;
        }
        let peeked = conn.stash.is_none() && !self.blocks.has(conn.claim);
        let room = conn.stash.as_mut().map_or(buffer, Stash::room);
        let (mut fresh, mut short) = (0, false);
        if conn.readable && !conn.ended && !room.is_empty() {
            let wanted = room.len();
            let got = if peeked {
                self.backend.peek(&mut conn.socket, room)
            } else {
                self.backend.recv(&mut conn.socket, room)
            };
            match got {
                Ok(Progress::Moved(bytes)) => {
                    fresh = bytes;
                    conn.active = self.backend.now();
                    short = bytes < wanted;
                    conn.readable = !short || conn.end_ahead;
                }
                Ok(Progress::Blocked) if conn.failed.is_none() => conn.readable = false,
                Ok(_) => conn.ended = true,
                Err(error) => {
                    conn.fail(error);
                    conn.ended = true;
                }
            }
        }
        if fresh == 0 && !(conn.offer_due && conn.stash.is_some()) {
            return None;
        }
        let mut kept = conn.stash.take();
        if let Some(stash) = &mut kept {
            stash.grow(fresh);
        }
        Some(Fetched { kept, fresh, peeked, short })
    }

    /// Keeps what the program didn't use of what was offered.
    fn keep_rest(&mut self, id: ConnId, fetched: Fetched, buffer: &[u8], used: usize) {
        let rest = fetched.bytes(buffer).len() - used;
        let conn = self.conns.get_mut(id);
        if let Some(mut stash) = fetched.kept {
            match conn {
                Some(conn) if rest > 0 => {
                    stash.consume(used);
                    conn.stash = Some(stash);
                }
                _ => self.blocks.give_back(stash),
            }
            return;
        }
        let Some(conn) = conn else { return };
        if !fetched.peeked {
            conn.stash = (rest > 0).then(|| self.blocks.keep(&buffer[used..fetched.fresh]));
            return;
        }
        if used > 0
            && let Err(error) = self.backend.discard(&mut conn.socket, used)
        {
            conn.fail(error);
            conn.ended = true;
        }
        // The rest is still in the transport and makes no event again: an upcall sees it when more comes, or when the program asks;
        // whoever takes it otherwise finds it there. The end hides behind it, and so do bytes for which there was no room.
        conn.rest_unread = rest > 0;
        if rest > 0 {
            let last = fetched.short && conn.end_ahead;
            // Not for whoever it's forwarded to by now.
            conn.ended |= last && conn.reading.is_offer();
            conn.readable = last || !conn.reading.is_offer() || conn.offer_due || (used > 0 && !fetched.short);
        }
    }
}
