//! Memory that the kernel touches while an operation is under way: pages of their own, at a place that never changes.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Pages of our own.
pub(super) struct Region {
    pub(super) base: NonNull<u8>,
    len: usize,
}

impl Region {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let len = len.max(1);
        // SAFETY: no address is asked for, so nothing that exists is replaced.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { base, len })
    }

    /// Where `range` begins; it is checked to lie within.
    pub(super) fn at(&self, range: &Range<usize>) -> NonNull<u8> {
        assert!(range.start <= range.end && range.end <= self.len, "outside of the ring's memory");
        // SAFETY: it was checked that the place lies within the pages.
        unsafe { self.base.add(range.start) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the pages are the region's own, and whoever could touch them is gone: see the words on ownership in [`super::ring`].
        let answer = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(answer.is_ok(), "{answer:?}");
    }
}
