//! One of the four rings that an AF_XDP socket shares with the kernel (Documentation/networking/af_xdp.rst, "Rings").
//!
//! Each has one producer and one consumer, the kernel being either. Entries between the two counters are the consumer's, all others the
//! producer's.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::xdp::XdpRingOffset;

use super::map::Mapping;

/// `XDP_RING_NEED_WAKEUP` of linux/if_xdp.h.
const NEED_WAKEUP: u32 = 1;

/// A descriptor: `struct xdp_desc` of linux/if_xdp.h.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) options: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16);

/// What entries are: numbers, of which any bits are a value.
pub(super) trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for Descriptor {}

/// A ring.
#[derive(Debug)]
pub(super) struct Ring<T> {
    _map: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    size: u32,
    /// Our own counter, and what we last saw of the kernel's.
    ours: u32,
    theirs: u32,
}

// SAFETY: the pointers lead into the mapping, which goes along; only its owner uses them.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Maps the ring at `page` of the socket, which has `size` entries, a power of two.
    pub(super) fn map(fd: BorrowedFd<'_>, offsets: &XdpRingOffset, size: u32, page: u64) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "a ring that isn't laid out as it should be");
        let at = |offset: u64| usize::try_from(offset).map_err(|_| bad());
        let bytes = size_of::<T>() * size as usize;
        let entries = at(offsets.desc)?;
        let len = entries.checked_add(bytes).ok_or_else(bad)?;
        let map = Mapping::shared(fd, len, page)?;
        let word = |offset: u64| {
            let offset = at(offset)?;
            if offset % align_of::<AtomicU32>() != 0 || offset + size_of::<AtomicU32>() > entries {
                return Err(bad());
            }
            // SAFETY: the offset is within the mapping, as was just checked.
            Ok(unsafe { map.start().add(offset) }.cast::<AtomicU32>())
        };
        let (producer, consumer) = (word(offsets.producer)?, word(offsets.consumer)?);
        let flags = offsets.flags.map(word).transpose()?;
        if entries % align_of::<T>() != 0 || !size.is_power_of_two() {
            return Err(bad());
        }
        // SAFETY: the entries are within the mapping, whose length they end.
        let entries = unsafe { map.start().add(entries) }.cast::<T>();
        Ok(Self { _map: map, producer, consumer, flags, entries, size, ours: 0, theirs: 0 })
    }

    /// Whether the kernel wants to be told of work.
    pub(super) fn needs_wakeup(&self) -> bool {
        let flags = self.flags.map_or(NEED_WAKEUP, |flags| {
            // SAFETY: the word is within the mapping, aligned, and only ever read and written atomically.
            unsafe { flags.as_ref() }.load(Ordering::Relaxed)
        });
        flags & NEED_WAKEUP != 0
    }

    fn load(word: NonNull<AtomicU32>) -> u32 {
        // SAFETY: the word is within the mapping, aligned, and only ever read and written atomically.
        unsafe { word.as_ref() }.load(Ordering::Acquire)
    }

    fn store(word: NonNull<AtomicU32>, value: u32) {
        // SAFETY: the word is within the mapping, aligned, and only ever read and written atomically.
        unsafe { word.as_ref() }.store(value, Ordering::Release);
    }

    fn entry(&self, counter: u32) -> NonNull<T> {
        // SAFETY: the counter is taken modulo the number of entries.
        unsafe { self.entries.add((counter & (self.size - 1)) as usize) }
    }

    /// As the producer: how many entries there's room for.
    pub(super) fn room(&mut self) -> u32 {
        let full = self.ours.wrapping_sub(self.theirs) >= self.size;
        if full {
            self.theirs = Self::load(self.consumer);
        }
        self.size - self.ours.wrapping_sub(self.theirs).min(self.size)
    }

    /// As the producer: entries that the kernel hasn't taken yet.
    pub(super) fn pending(&mut self) -> u32 {
        self.theirs = Self::load(self.consumer);
        self.ours.wrapping_sub(self.theirs)
    }

    /// As the producer: puts an entry in, which the kernel sees once it's published. The caller has asked for room.
    pub(super) fn push(&mut self, value: T) {
        assert!(self.room() > 0, "the caller has asked for room");
        // SAFETY: the entry is within the mapping, aligned, and the producer's: beyond the published ones, and not one round ahead.
        unsafe { self.entry(self.ours).write(value) };
        self.ours = self.ours.wrapping_add(1);
    }

    /// As the producer: lets the kernel see what was put in.
    pub(super) fn publish(&mut self) {
        Self::store(self.producer, self.ours);
    }

    /// As the consumer: how many entries there are.
    pub(super) fn available(&mut self) -> u32 {
        if self.ours == self.theirs {
            self.theirs = Self::load(self.producer);
        }
        self.theirs.wrapping_sub(self.ours)
    }

    /// As the consumer: takes an entry out.
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.available() == 0 {
            return None;
        }
        // SAFETY: the entry is within the mapping, aligned, and the consumer's: the kernel has published it, and any bits are a value.
        let value = unsafe { self.entry(self.ours).read() };
        self.ours = self.ours.wrapping_add(1);
        Some(value)
    }

    /// As the consumer: the entry so many places behind the next one, which stays.
    pub(super) fn peek(&mut self, behind: u32) -> Option<T> {
        if self.theirs.wrapping_sub(self.ours) <= behind {
            self.theirs = Self::load(self.producer);
        }
        // SAFETY: the entry is within the mapping, aligned, and the consumer's: the kernel has published it, and any bits are a value.
        (self.theirs.wrapping_sub(self.ours) > behind)
            .then(|| unsafe { self.entry(self.ours.wrapping_add(behind)).read() })
    }

    /// As the consumer: lets the kernel have the places of what was taken out.
    pub(super) fn release(&mut self) {
        Self::store(self.consumer, self.ours);
    }
}

#[cfg(any(test, fuzzing))]
impl<T: Entry> Ring<T> {
    /// Has both counters begin there, as after so many entries.
    pub(super) fn begin_at(&mut self, counter: u32) {
        (self.ours, self.theirs) = (counter, counter);
        Self::store(self.producer, counter);
        Self::store(self.consumer, counter);
    }
}
