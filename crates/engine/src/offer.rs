//! Received bytes, offered to the program: lent for the length of an upcall, kept where they weren't used.
//!
//! Bytes are read into the core's buffer and offered from there. What the program leaves over moves to a block, and stands in
//! front of what comes next, so that the program always sees one piece. With no block left the bytes are only peeked at, and
//! what was used is discarded afterwards: a sender that never completes its message then costs no memory here at all.

use crate::backend::{Backend, Progress};
use crate::conn::Reading;
use crate::core::Core;
use crate::cx::Cx;
use crate::handler::{ConnId, Handler};

/// What a read for an offer brought.
struct Fetched {
    /// Bytes left over from before, at the front of the buffer.
    kept: usize,
    /// Bytes behind them that have come now.
    fresh: usize,
    /// The fresh bytes are still in the kernel as well.
    peeked: bool,
}

impl<B: Backend, H: Handler<B>> Core<B, H> {
    /// Offers what was left over and what has come.
    pub(crate) fn offer(&mut self, id: ConnId) {
        let mut buffer = std::mem::take(&mut self.cx.buffer);
        let mut left = self.cx.config.turn_bytes;
        while let Some(fetched) = self.cx.fetch(id, &mut buffer) {
            let Some(conn) = self.cx.conns.get_mut(id) else { break };
            conn.offer_due = false;
            let token = conn.token;
            let offered = &buffer[..fetched.kept + fetched.fresh];
            let used = self.handler.on_data(&mut self.cx, id, token, offered).min(offered.len());
            self.cx.keep_rest(id, offered, used, &fetched);
            left = left.saturating_sub(offered.len());
            if left == 0 {
                self.cx.enqueue(id);
                break;
            }
        }
        self.cx.buffer = buffer;
        let Some(conn) = self.cx.conns.get(id) else { return };
        match (conn.reading, conn.ended, conn.failed) {
            (Reading::Upcall, true, None) => self.tell_end(id),
            (Reading::Upcall, true, Some(_)) | (Reading::Paused, _, Some(_)) => self.fail(id),
            _ => {}
        }
    }
}

impl<B: Backend> Cx<B> {
    /// Fills `buffer` with what is to be offered; `None` if there's nothing to say.
    fn fetch(&mut self, id: ConnId, buffer: &mut [u8]) -> Option<Fetched> {
        let conn = self.conns.get_mut(id)?;
        if conn.reading != Reading::Upcall {
            return None;
        }
        let kept = conn.stash.as_ref().map_or(0, |stash| {
            let bytes = stash.bytes();
            buffer[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        });
        let peeked = kept == 0 && self.blocks.is_empty();
        let room = &mut buffer[kept..];
        let mut fresh = 0;
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
                    conn.readable = bytes == wanted || conn.end_ahead;
                }
                Ok(Progress::Blocked) if conn.failed.is_none() => conn.readable = false,
                Ok(_) => conn.ended = true,
                Err(error) => {
                    conn.fail(error);
                    conn.ended = true;
                }
            }
        }
        (fresh > 0 || (conn.offer_due && kept > 0)).then_some(Fetched { kept, fresh, peeked })
    }

    /// Keeps what of `offered` the program didn't use.
    fn keep_rest(&mut self, id: ConnId, offered: &[u8], used: usize, fetched: &Fetched) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let rest = &offered[used..];
        if fetched.peeked {
            if used > 0
                && let Err(error) = self.backend.discard(&mut conn.socket, used)
            {
                conn.fail(error);
                conn.ended = true;
            }
            // The rest is still in the kernel and makes no event again: an upcall sees it when more comes, or when the program asks;
            // whoever takes it otherwise finds it there.
            if !rest.is_empty() {
                conn.readable = conn.reading != Reading::Upcall || conn.offer_due;
            }
        } else if let Some(mut stash) = conn.stash.take() {
            if rest.is_empty() {
                self.blocks.give_back(stash);
            } else {
                stash.replace(rest);
                conn.stash = Some(stash);
            }
        } else if !rest.is_empty() {
            conn.stash = Some(self.blocks.keep(rest));
        }
    }
}
