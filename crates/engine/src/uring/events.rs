//! What a turn tells: one event a connection, however much has completed.

use std::os::fd::{AsFd, AsRawFd};

use super::{Uring, look};
use crate::backend::Ready;
use crate::core::WAKE;
use crate::sys::operation::{Done, Name, What};

/// An event that belongs to no connection.
const NO_SLOT: u32 = u32::MAX;

impl Uring {
    /// Looks for each wake anew, so that nobody has to read the counter.
    pub(super) fn await_wake(&mut self, index: usize) {
        let fd = self.wakers[index].as_fd().as_raw_fd();
        let of = u32::try_from(index).expect("few wakers");
        self.ring.look(fd, look::SOMETHING_TO_READ, true, Name { what: What::Wake, of });
    }

    pub(super) fn woken(&mut self, done: &Done) {
        self.report(Ready { tag: WAKE, readable: true, writable: false, peer_finished: false, failed: false });
        if !done.more {
            self.await_wake(done.name.of as usize);
        }
    }

    pub(super) fn report(&mut self, ready: Ready) {
        self.events.push(ready);
        self.event_of.push(NO_SLOT);
    }

    /// Adds `what` to the connection's one event of this turn.
    pub(super) fn tell(&mut self, index: u32, what: impl FnOnce(&mut Ready)) {
        let slot = &mut self.table[index];
        if !slot.watched || slot.is_over() {
            return;
        }
        let place = slot.event as usize;
        if place < self.told || self.event_of.get(place) != Some(&index) {
            slot.event = u32::try_from(self.events.len()).expect("an event a connection");
            let tag = slot.tag;
            self.events.push(Ready { tag, readable: false, writable: false, peer_finished: false, failed: false });
            self.event_of.push(index);
        }
        what(&mut self.events[slot.event as usize]);
    }

    /// Takes back what the next poll would tell of a connection.
    pub(super) fn retract(&mut self, index: u32) {
        let late = self.event_of.iter().skip(self.told).position(|of| *of == index);
        if let Some(place) = late.map(|place| place + self.told) {
            self.events.remove(place);
            self.event_of.remove(place);
        }
    }
}
