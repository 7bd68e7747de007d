//! Sockets of smoltcp's, each with its buffers in a slot of one mapping.
//!
//! A slot is laid out as the socket, its send buffer, its receive buffer: what a small message touches first stands together. Slots
//! begin at pages, and what is in them at another line of the first page each time: the same line of all of them would share a few
//! places in the caches. A slot's pages become memory when they are touched, and are given back when its socket is retired.

use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer};

use super::LINE_BYTES;
use super::map::Mapping;

/// Bytes of a page. A larger one would have neighbours lose theirs, so such systems get buffers from the heap.
const PAGE_BYTES: usize = 4096;
/// Lines between the beginnings of neighbouring slots: odd, so that all lines of a page have their turn.
const LINES_APART: usize = 7;
/// Bytes that a socket takes of its slot.
pub(crate) const SOCKET_BYTES: usize = size_of::<SocketStorage<'static>>().next_multiple_of(LINE_BYTES);

const _: () = assert!(align_of::<SocketStorage<'static>>() <= LINE_BYTES);

/// A set of one socket. smoltcp polls sets, and a set of all sockets it would search each time.
#[derive(Debug)]
pub(crate) struct Cell {
    /// Its lifetime isn't the truth: where it's in a slot, it borrows from `home`. So nobody else gets to see it with that lifetime
    /// but by [`Cell::with_set`] and [`Cell::with_tcp`], whose callers must do with any.
    set: SocketSet<'static>,
    handle: SocketHandle,
    home: Option<(Arc<Mapping>, u32)>,
}

impl Cell {
    /// Whether its buffers have these sizes, in bytes.
    pub(crate) fn has_sizes(&self, receive: u32, send: u32) -> bool {
        self.sizes() == (receive, send)
    }

    /// Sizes of its buffers, in bytes: what it receives into and what it sends from.
    pub(crate) fn sizes(&self) -> (u32, u32) {
        let bytes = |count: usize| u32::try_from(count).expect("buffers have a megabyte at most");
        (bytes(self.tcp().recv_capacity()), bytes(self.tcp().send_capacity()))
    }

    pub(crate) fn tcp(&self) -> &Socket<'_> {
        self.set.get(self.handle)
    }

    /// Does something with the socket. What it's given can't leave: it may have any lifetime.
    pub(crate) fn with_tcp<R>(&mut self, act: impl for<'a> FnOnce(&mut Socket<'a>) -> R) -> R {
        act(self.set.get_mut(self.handle))
    }

    /// Does something with the set, as [`Cell::with_tcp`].
    pub(crate) fn with_set<R>(&mut self, act: impl for<'a> FnOnce(&mut SocketSet<'a>) -> R) -> R {
        act(&mut self.set)
    }

    fn new(mut set: SocketSet<'static>, socket: Socket<'static>, home: Option<(Arc<Mapping>, u32)>) -> Self {
        let handle = set.add(socket);
        Self { set, handle, home }
    }

    /// In memory of the heap.
    fn of_heap(receive: u32, send: u32) -> Self {
        let buffer = |bytes: u32| SocketBuffer::new(vec![0; bytes as usize]);
        Self::new(SocketSet::new(vec![SocketStorage::EMPTY]), Socket::new(buffer(receive), buffer(send)), None)
    }

    /// In a slot that nobody else has.
    fn of_slot(map: &Arc<Mapping>, slot: u32, slot_bytes: usize, receive: u32, send: u32) -> Self {
        let (receive, send) = (receive as usize, send as usize);
        let at = place_of(slot, slot_bytes);
        let end = at + SOCKET_BYTES + send + receive;
        assert!(end <= (slot as usize + 1) * slot_bytes && end <= map.len(), "a slot has room for its socket");
        // SAFETY: what the slot holds ends within the mapping, as was just checked.
        let socket = unsafe { map.start().add(at) }.cast::<SocketStorage<'static>>();
        // SAFETY: as above.
        let sending = unsafe { map.start().add(at + SOCKET_BYTES) };
        // SAFETY: as above.
        let receiving = unsafe { map.start().add(at + SOCKET_BYTES + send) };
        // SAFETY: it's aligned, since slots begin at pages and their contents at lines; and nobody else has the slot.
        unsafe { socket.write(SocketStorage::EMPTY) };
        // SAFETY: it was just written, and is borrowed by the set alone, which goes before the mapping does: the cell holds both.
        let storage = unsafe { slice::from_raw_parts_mut(socket.as_ptr(), 1) };
        // SAFETY: bytes of the mapping that only this slot has, and that overlap neither the socket nor the other buffer.
        let sending = unsafe { bytes_at(sending, send) };
        // SAFETY: as above.
        let receiving = unsafe { bytes_at(receiving, receive) };
        let socket = Socket::new(SocketBuffer::new(receiving), SocketBuffer::new(sending));
        Self::new(SocketSet::new(storage), socket, Some((Arc::clone(map), slot)))
    }
}

/// Where in the mapping a slot's contents begin.
fn place_of(slot: u32, slot_bytes: usize) -> usize {
    slot as usize * slot_bytes + slot as usize * LINES_APART * LINE_BYTES % PAGE_BYTES
}

/// # Safety
/// `len` bytes from `start` on are mapped and nobody else's for as long as the slice is used.
unsafe fn bytes_at(start: NonNull<u8>, len: usize) -> &'static mut [u8] {
    // SAFETY: the caller says so, and any byte is a value.
    unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) }
}

/// Where cells come from: a slot for each connection that there may be, of the sizes that most have. Others are the heap's, and so are
/// all where the mapping is refused.
#[derive(Debug)]
pub(crate) struct Arena {
    map: Option<Arc<Mapping>>,
    slot_bytes: usize,
    slots: u32,
    receive: u32,
    send: u32,
    /// Slots below `used` that nobody has.
    free: Vec<u32>,
    used: u32,
}

impl Arena {
    /// Reserves addresses, no memory, for `slots` cells with buffers of these sizes.
    pub(crate) fn reserve(slots: u32, receive: u32, send: u32) -> Self {
        let bytes = SOCKET_BYTES + receive as usize + send as usize + PAGE_BYTES - LINE_BYTES;
        let slot_bytes = bytes.next_multiple_of(PAGE_BYTES);
        let pages_fit = rustix::param::page_size() == PAGE_BYTES;
        let map = slot_bytes.checked_mul(slots as usize).filter(|_| pages_fit);
        let map = map.and_then(|len| Mapping::reserved(len).ok()).map(Arc::new);
        Self { map, slot_bytes, slots, receive, send, free: Vec::with_capacity(slots as usize), used: 0 }
    }

    /// A cell with a closed socket.
    pub(crate) fn cell(&mut self, receive: u32, send: u32) -> Cell {
        let Some(map) = self.map.as_ref().filter(|_| (self.receive, self.send) == (receive, send)) else {
            return Cell::of_heap(receive, send);
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.used < self.slots => {
                self.used += 1;
                self.used - 1
            }
            None => return Cell::of_heap(receive, send),
        };
        Cell::of_slot(map, slot, self.slot_bytes, receive, send)
    }

    /// Where a cell's socket and the beginnings of its buffers lie, which is where smoltcp has small messages; `None` of one that isn't in a
    /// slot.
    pub(crate) fn memory(&self, cell: &Cell) -> Option<[Range<*const u8>; 2]> {
        let (map, slot) = cell.home.as_ref()?;
        let socket = map.start().as_ptr().cast_const().wrapping_add(place_of(*slot, self.slot_bytes));
        let receiving = socket.wrapping_add(SOCKET_BYTES + self.send as usize);
        Some([socket..socket.wrapping_add(SOCKET_BYTES + LINE_BYTES), receiving..receiving.wrapping_add(LINE_BYTES)])
    }

    /// Ends a cell, and gives its memory back.
    pub(crate) fn retire(&mut self, cell: Cell) {
        let Cell { set, home, .. } = cell;
        drop(set);
        if let Some((map, slot)) = home {
            // SAFETY: the set was the only one with references into its slot; the next cell writes a socket before it's read.
            unsafe { map.forget(slot as usize * self.slot_bytes, self.slot_bytes) };
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of a cell's slot that are memory now.
    fn resident(arena: &Arena, slot: u32) -> usize {
        let map = arena.map.as_ref().unwrap();
        map.resident(slot as usize * arena.slot_bytes, arena.slot_bytes)
    }

    fn slot(cell: &Cell) -> u32 {
        cell.home.as_ref().unwrap().1
    }

    #[test]
    fn a_cells_memory_comes_with_its_use_and_goes_with_it() {
        let mut arena = Arena::reserve(4, 16_384, 16_384);
        let cell = arena.cell(16_384, 16_384);
        let at = slot(&cell);
        // Its socket may lie across the end of a page.
        assert!((1..=2).contains(&resident(&arena, at)), "buffers that nobody has touched are no memory");
        arena.retire(cell);
        assert_eq!(resident(&arena, at), 0);
        assert_eq!(slot(&arena.cell(16_384, 16_384)), at, "the slot is used again");
    }

    #[test]
    fn cells_have_what_they_were_asked_for_and_nobody_elses() {
        // Sizes that are no multiple of anything.
        let mut arena = Arena::reserve(70, 1501, 1073);
        let mut cells: Vec<Cell> = (0..72).map(|_| arena.cell(1501, 1073)).collect();
        cells.push(arena.cell(4096, 1073));
        let homes = cells.iter().filter(|cell| cell.home.is_some()).count();
        assert_eq!(homes, 70, "beyond the slots, and of other sizes, they are the heap's");
        for cell in &mut cells {
            assert!(cell.tcp().recv_capacity() >= 1501 && cell.tcp().send_capacity() == 1073);
            assert!(cell.has_sizes(cell.sizes().0, 1073));
        }
        cells.into_iter().for_each(|cell| arena.retire(cell));
        assert_eq!(arena.free.len(), 70);
    }

    #[test]
    fn memory_is_told_where_a_cells_socket_and_buffers_lie() {
        let mut arena = Arena::reserve(4, 1501, 1073);
        let cell = arena.cell(1501, 1073);
        let [socket, receiving] = arena.memory(&cell).unwrap();
        assert!(socket.contains(&std::ptr::from_ref(cell.tcp()).cast()));
        assert_eq!(socket.end.addr() - socket.start.addr(), SOCKET_BYTES + LINE_BYTES);
        assert_eq!(receiving.start.addr() - socket.start.addr(), SOCKET_BYTES + 1073);
        let of_heap = arena.cell(4096, 1073);
        assert_eq!(arena.memory(&of_heap), None);
        [cell, of_heap].into_iter().for_each(|cell| arena.retire(cell));
    }
}
