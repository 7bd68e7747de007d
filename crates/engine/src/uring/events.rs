//! What a turn tells: one event a connection, however much has completed.

use std::os::fd::{AsFd, AsRawFd};

use super::socket::NO_SLOT;
use super::{Uring, UringConfig, look};
use crate::backend::Ready;
use crate::core::WAKE;
use crate::cx::LISTENERS_MAX;
use crate::datagram::DATAGRAM_SOCKETS_MAX;
use crate::sys::operation::{Done, Name, What};

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("an event a connection")
}

/// Events that there can be at once: one of each that may report, and a wake, told by the last poll; and as many that came since.
pub(super) const fn max(config: &UringConfig) -> usize {
    2 * (config.sockets_max as usize + LISTENERS_MAX as usize + DATAGRAM_SOCKETS_MAX as usize + 1)
}

impl Uring {
    /// Looks for each wake anew, so that nobody has to read the counter.
    pub(super) fn await_wake(&mut self, index: usize) {
        let fd = self.wakers[index].as_fd().as_raw_fd();
        let of = u32::try_from(index).expect("few wakers");
        self.ring.look(fd, look::SOMETHING_TO_READ, true, Name { what: What::Wake, of });
    }

    pub(super) fn woken(&mut self, done: &Done) {
        if !std::mem::replace(&mut self.woken, true) {
            self.report(Ready { tag: WAKE, readable: true, writable: false, peer_finished: false, failed: false });
        }
        if !done.more {
            self.await_wake(done.name.of as usize);
        }
    }

    pub(super) fn report(&mut self, ready: Ready) {
        self.events.push(ready);
        // It belongs to no connection.
        self.event_of.push(NO_SLOT);
    }

    /// Adds `what` to the connection's one event of this turn.
    pub(super) fn tell(&mut self, index: u32, what: impl FnOnce(&mut Ready)) {
        let slot = &mut self.table[index];
        if !slot.watched || slot.is_over() {
            return;
        }
        let nothing = Ready { tag: slot.tag, readable: false, writable: false, peer_finished: false, failed: false };
        let place = slot.event as usize;
        if place < self.told || self.event_of.get(place) != Some(&index) {
            slot.event = number(self.events.len());
            self.events.push(nothing);
            self.event_of.push(index);
        } else if self.events[place].tag != slot.tag {
            // Of the connection that had the slot before.
            self.events[place] = nothing;
        }
        what(&mut self.events[slot.event as usize]);
    }

    /// Takes back what the next poll would tell of a connection.
    pub(super) fn retract(&mut self, index: u32) {
        let place = self.table[index].event as usize;
        if place < self.told || self.event_of.get(place) != Some(&index) {
            return;
        }
        self.events.swap_remove(place);
        self.event_of.swap_remove(place);
        self.note_place(place);
    }

    /// Makes room for the events of the next poll. What has come since the last one stays.
    pub(super) fn forget_told(&mut self) {
        self.events.drain(..self.told);
        self.event_of.drain(..self.told);
        self.told = 0;
        for place in 0..self.event_of.len() {
            self.note_place(place);
        }
    }

    /// Tells a connection where its event is.
    fn note_place(&mut self, place: usize) {
        if let Some(index) = self.event_of.get(place).copied().filter(|index| *index != NO_SLOT) {
            self.table[index].event = number(place);
        }
    }
}
