//! Looks: operations that tell what poll(2) would, once. They see what receiving doesn't: plain connections' bytes, and the end of
//! those on which nothing is received.

use super::Uring;
use crate::sys::operation::{Done, Name, What};

/// What a look for something to read waits for; errors and hang-ups always show.
pub(super) const SOMETHING_TO_READ: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
const PEERS_END: u32 = libc::POLLRDHUP as u32;

impl Uring {
    /// Looks once for something to read.
    pub(super) fn look_for_bytes(&mut self, index: u32) {
        let slot = &mut self.table[index];
        slot.armed.set(What::Readable);
        self.ring.look(slot.fd(), SOMETHING_TO_READ, false, Name { what: What::Readable, of: index });
    }

    /// A look found something to read, or the end.
    pub(super) fn readable(&mut self, done: &Done) {
        let index = done.name.of;
        let slot = &mut self.table[index];
        slot.armed.clear(What::Readable);
        if slot.is_over() {
            self.free_if_over(index);
            return;
        }
        if done.result == -libc::ECANCELED {
            return;
        }
        let seen = Events::of(done.result);
        slot.failed |= seen.failed;
        self.tell(index, |ready| {
            ready.readable = true;
            ready.peer_finished |= seen.end;
            ready.failed |= seen.failed;
        });
    }

    /// A look found the peer's end, while nothing is received.
    pub(super) fn hung_up(&mut self, done: &Done) {
        let index = done.name.of;
        let slot = &mut self.table[index];
        slot.armed.clear(What::Hangup);
        if slot.is_over() {
            self.free_if_over(index);
            return;
        }
        if done.result < 0 || slot.failed {
            return;
        }
        if slot.armed.has(What::Recv) {
            // Receiving tells of it, if it's told.
            if !slot.sock().is_tcp() {
                slot.plain = true;
                self.cancel_recv(index);
            }
            return;
        }
        let seen = Events::of(done.result);
        let known = slot.ended && !seen.over;
        (slot.end_seen, slot.failed) = (true, seen.failed);
        if !known {
            self.tell(index, |ready| {
                (ready.readable, ready.peer_finished) = (true, true);
                ready.failed |= seen.failed;
            });
        }
        if !seen.over {
            self.look_at_rest(index);
        }
    }

    /// Notes that nothing is received on `slot` for now: if that's so still at the next turn, its peer's end is looked for.
    pub(super) fn look_at_rest(&mut self, index: u32) {
        if !std::mem::replace(&mut self.table[index].rests, true) {
            self.resting.push(index);
        }
    }

    /// Looks for the end of connections on which nothing is received: those whose queue nobody reads, and those that ended.
    pub(super) fn watch_resting(&mut self) {
        while let Some(index) = self.resting.pop() {
            let slot = &mut self.table[index];
            slot.rests = false;
            let looked_at = [What::Recv, What::Readable, What::Hangup].iter().any(|what| slot.armed.has(*what));
            if !slot.watched || slot.is_over() || slot.failed || slot.connecting || looked_at {
                continue;
            }
            if slot.sock().is_deferred() {
                continue;
            }
            self.look_for_end(index);
        }
    }

    pub(super) fn look_for_end(&mut self, index: u32) {
        let slot = &mut self.table[index];
        slot.armed.set(What::Hangup);
        let events = if slot.ended || slot.end_seen { 0 } else { PEERS_END };
        self.ring.look(slot.fd(), events, false, Name { what: What::Hangup, of: index });
    }
}

/// What a look saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Events {
    pub(super) room: bool,
    /// The peer has finished sending.
    pub(super) end: bool,
    /// Both sides have.
    pub(super) over: bool,
    pub(super) failed: bool,
}

impl Events {
    /// The bits of poll(2), or a negated error number.
    pub(super) fn of(result: i32) -> Self {
        let has = |bits: libc::c_short| result >= 0 && result & i32::from(bits) != 0;
        Self {
            room: has(libc::POLLOUT),
            end: has(libc::POLLRDHUP | libc::POLLHUP),
            over: has(libc::POLLHUP),
            failed: result < 0 || has(libc::POLLERR),
        }
    }
}
