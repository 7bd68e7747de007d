//! Connections, as the ring sees them: a table of slots, and the handles that programs hold.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::row::{Ends, Row};
use crate::backend::Tag;
use crate::error::ConnError;
use crate::kernel;
use crate::sys::operation::What;

/// No buffer, no block, no slot.
pub(super) const NONE: u16 = u16::MAX;
pub(super) const NO_SLOT: u32 = u32::MAX;

/// A connection's handle. Dropping it closes the connection as the kernel does for a program that ended.
#[derive(Debug)]
pub struct Socket {
    slot: u32,
    graves: Arc<Graves>,
}

impl Socket {
    pub(super) const fn slot(&self) -> u32 {
        self.slot
    }

    /// Lets go of the slot, which is the caller's business from now on.
    pub(super) fn release(mut self) -> u32 {
        std::mem::replace(&mut self.slot, NO_SLOT)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.slot != NO_SLOT {
            self.graves.add(self.slot);
        }
    }
}

/// Slots whose handles were dropped; their ring finds them at its next turn.
#[derive(Debug)]
struct Graves {
    /// There's something in `slots`: looked at each turn, which a lock would be too dear for.
    some: AtomicBool,
    slots: Mutex<Vec<u32>>,
}

impl Graves {
    fn add(&self, slot: u32) {
        // Nobody panics while the list is held.
        if let Ok(mut slots) = self.slots.lock() {
            slots.push(slot);
            self.some.store(true, Ordering::Release);
        }
    }

    /// All that were dropped since the last time, for `empty`, into which the next ones go.
    fn take(&self, empty: &mut Vec<u32>) {
        if self.some.swap(false, Ordering::Acquire)
            && let Ok(mut slots) = self.slots.lock()
        {
            std::mem::swap(&mut *slots, empty);
        }
    }
}

/// Operations of a slot that are under way: a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Armed(u8);

impl Armed {
    pub(super) const fn has(self, what: What) -> bool {
        self.0 & 1 << what as u8 != 0
    }

    pub(super) const fn set(&mut self, what: What) {
        self.0 |= 1 << what as u8;
    }

    pub(super) const fn clear(&mut self, what: What) {
        self.0 &= !(1 << what as u8);
    }

    pub(super) const fn none(self) -> bool {
        self.0 == 0
    }
}

/// Bytes that came with a connection from another core.
#[derive(Debug)]
pub(super) struct Carried {
    bytes: Box<[u8]>,
    read: usize,
}

impl Carried {
    /// `None` for no bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Box<Self>> {
        (!bytes.is_empty()).then(|| Box::new(Self { bytes: bytes.into_boxed_slice(), read: 0 }))
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    pub(super) const fn consume(&mut self, len: usize) {
        self.read += len;
    }
}

/// A connection's state. It fits in a cache line and a half (asserted in the tests), and holds no memory while it's idle.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None`: it's closed, and the slot waits for its last completions. Or nobody has it.
    pub(super) sock: Option<kernel::Socket>,
    pub(super) tag: Tag,
    /// A failure that hasn't been told.
    pub(super) error: Option<ConnError>,
    /// Received and unread: a list of buffers, chained by the ring's table. The first has been read up to `read`.
    pub(super) head: u16,
    pub(super) tail: u16,
    pub(super) read: u16,
    pub(super) held: u16,
    pub(super) queued_bytes: u32,
    /// Received on another core, before all that is queued.
    pub(super) carried: Option<Box<Carried>>,
    /// To be sent: `from..filled` of a block, or [`NONE`]. Invariant: a block is held only while that is some.
    pub(super) block: u16,
    pub(super) from: u16,
    pub(super) filled: u16,
    pub(super) armed: Armed,
    /// The place of its event among those of this turn; checked against the event, so that it needn't be reset.
    pub(super) event: u32,
    /// The next free slot; of one in use, the next in its row.
    pub(super) next: u32,
    /// The one before it in its row.
    pub(super) before: u32,
    pub(super) row: Option<Row>,
    /// It reports events.
    pub(super) watched: bool,
    /// It came from another core, and nothing was told of it here.
    pub(super) travelled: bool,
    /// Its dial hasn't come to stand.
    pub(super) connecting: bool,
    /// Its receive is being cancelled.
    pub(super) cancelling: bool,
    /// It's being taken to another core: its receive isn't begun anew when it ends.
    pub(super) leaving: bool,
    /// It's read by system calls once nothing is queued: bulk, or no buffers for it.
    pub(super) plain: bool,
    /// One receive may fill several buffers: much comes, and is read.
    pub(super) bundles: bool,
    /// All that will ever be received is queued.
    pub(super) ended: bool,
    /// It failed: nothing is armed for it any more, and what the kernel still has can be read.
    pub(super) failed: bool,
    /// The failure is told once its receive is over, behind what that brings.
    pub(super) failure_due: bool,
    /// It stands among those on which nothing may be received.
    pub(super) rests: bool,
    /// The peer's end was seen, and told.
    pub(super) end_seen: bool,
    /// The socket was full: room is awaited.
    pub(super) full: bool,
    /// The engine awaits room.
    pub(super) wants_room: bool,
    /// It stands among those with something to send.
    pub(super) dirty: bool,
    /// What was added last waits for what comes behind it (`MSG_MORE`).
    pub(super) more: bool,
    /// The end follows what is to be sent.
    pub(super) end_due: bool,
    /// It's closed, but for what is to be sent.
    pub(super) closing: bool,
}

impl Slot {
    fn new(sock: kernel::Socket, connecting: bool) -> Self {
        Self {
            sock: Some(sock),
            tag: Tag(0),
            error: None,
            head: NONE,
            tail: NONE,
            read: 0,
            held: 0,
            queued_bytes: 0,
            carried: None,
            block: NONE,
            from: 0,
            filled: 0,
            armed: Armed::default(),
            event: u32::MAX,
            next: NO_SLOT,
            before: NO_SLOT,
            row: None,
            watched: false,
            travelled: false,
            connecting,
            cancelling: false,
            leaving: false,
            plain: false,
            bundles: false,
            ended: false,
            failed: false,
            failure_due: false,
            rests: false,
            end_seen: false,
            full: false,
            wants_room: false,
            dirty: false,
            more: false,
            end_due: false,
            closing: false,
        }
    }

    /// The socket of a connection that a handle names.
    ///
    /// # Panics
    /// When it's closed: nobody has a handle then.
    pub(super) fn sock(&mut self) -> &mut kernel::Socket {
        self.sock.as_mut().expect("a handle's socket is open")
    }

    pub(super) fn fd(&self) -> RawFd {
        self.sock.as_ref().map_or(-1, |sock| sock.as_fd().as_raw_fd())
    }

    /// Whether all that was received has been read.
    pub(super) const fn is_drained(&self) -> bool {
        self.head == NONE && self.carried.is_none()
    }

    /// Bytes that were received and not read.
    pub(super) fn unread(&self) -> usize {
        self.queued_bytes as usize + self.carried.as_ref().map_or(0, |carried| carried.unread().len())
    }

    /// Whether nobody reads it any more.
    pub(super) const fn is_over(&self) -> bool {
        self.sock.is_none() || self.closing
    }

    /// Bytes that were taken to be sent and haven't been.
    pub(super) const fn pending(&self) -> usize {
        if self.block == NONE { 0 } else { (self.filled - self.from) as usize }
    }
}

/// All slots. The room is reserved when the table is made and touched as it fills.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    pub(super) rows: [Ends; 2],
    free: u32,
    in_use: usize,
    max: usize,
    graves: Arc<Graves>,
}

impl Table {
    pub(super) fn new(max: u32) -> Self {
        let max = max as usize;
        let graves = Graves { some: AtomicBool::new(false), slots: Mutex::new(Vec::with_capacity(max)) };
        let rows = [Ends::EMPTY; 2];
        Self { slots: Vec::with_capacity(max), rows, free: NO_SLOT, in_use: 0, max, graves: Arc::new(graves) }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.in_use == self.max
    }

    pub(super) const fn in_use(&self) -> usize {
        self.in_use
    }

    /// A slot for `sock`; gives it back when the table is full.
    pub(super) fn insert(&mut self, sock: kernel::Socket, connecting: bool) -> Result<Socket, kernel::Socket> {
        if self.is_full() {
            return Err(sock);
        }
        let slot = Slot::new(sock, connecting);
        let index = if self.free == NO_SLOT {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).expect("their number came from a u32")
        } else {
            let index = self.free;
            let place = &mut self.slots[index as usize];
            // What its number still stands in, it stands in for the new one too: in no list twice.
            let slot = Slot { dirty: place.dirty, rests: place.rests, event: place.event, ..slot };
            self.free = std::mem::replace(place, slot).next;
            index
        };
        self.in_use += 1;
        Ok(Socket { slot: index, graves: self.graves.clone() })
    }

    /// Frees a slot that nobody has a handle of, and of which nothing is under way.
    pub(super) fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.sock.is_none() && slot.armed.none() && slot.head == NONE && slot.block == NONE);
        debug_assert!(slot.row.is_none(), "its row would go on with the free ones");
        slot.next = self.free;
        self.free = index;
        self.in_use -= 1;
    }

    /// Slots whose handles were dropped since the last time, for `empty`.
    pub(super) fn take_dropped(&self, empty: &mut Vec<u32>) {
        self.graves.take(empty);
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }
}

impl std::ops::Index<u32> for Table {
    type Output = Slot;

    fn index(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Table {
    fn index_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_takes_a_cache_line_and_a_half_beside_its_handle() {
        assert!(size_of::<Slot>() <= 96, "{}", size_of::<Slot>());
        assert!(size_of::<Socket>() <= 16);
    }
}
