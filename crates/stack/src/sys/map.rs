//! Mappings.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// Memory of this process and perhaps the kernel's, until it's dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it's a range of addresses; whoever reads and writes there says why he may.
unsafe impl Send for Mapping {}
// SAFETY: as above; it has no method that reads or writes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory of our own, in large pages where the system has them: each frame has a page of its own otherwise, and the next
    /// one that comes is always the one that was touched the longest time ago.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no mapping of another's is touched.
        let start = unsafe { mmap_anonymous(null_mut(), len, protection, MapFlags::PRIVATE) }?;
        // SAFETY: the range was just mapped, and the advice changes nothing but what pages it's made of. Refused, they are small.
        unsafe { madvise(start, len, Advice::LinuxHugepage) }.ok();
        Self::of(start.cast(), len)
    }

    /// Addresses without memory, which comes with their use, a small page at a time: large ones couldn't be given back singly.
    pub(super) fn reserved(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address, so no mapping of another's is touched.
        let start = unsafe { mmap_anonymous(null_mut(), len, protection, flags) }?;
        // SAFETY: the range was just mapped, and the advice changes nothing but what pages it's made of. A kernel that refuses has none.
        unsafe { madvise(start, len, Advice::LinuxNoHugepage) }.ok();
        Self::of(start.cast(), len)
    }

    /// Gives the memory of `len` bytes at `offset` back: they are zero when they are touched again.
    ///
    /// # Panics
    /// When they aren't within the mapping.
    ///
    /// # Safety
    /// Nobody has a reference there, and whoever gets one next takes zeros for a value.
    pub(super) unsafe fn forget(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "within the mapping");
        // SAFETY: the range is within the mapping, as was just checked.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: as above; the caller says that nobody has a reference there. Refused, it stays as it is.
        unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxDontNeed) }.ok();
    }

    /// A ring of an AF_XDP socket's.
    pub(super) fn shared(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses the address, so no mapping of another's is touched.
        let start = unsafe { mmap(null_mut(), len, protection, flags, fd, offset) }?;
        Self::of(start.cast(), len)
    }

    fn of(start: *mut u8, len: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { start, len })
    }

    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped, and whoever has a pointer into it holds the mapping.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        unmapped.expect("the range is the one that was mapped");
    }
}

#[cfg(test)]
impl Mapping {
    /// Pages of `len` bytes at `offset` that are memory now, by mincore(2).
    pub(super) fn resident(&self, offset: usize, len: usize) -> usize {
        assert!(offset + len <= self.len);
        let mut pages = vec![0_u8; len.div_ceil(4096)];
        // SAFETY: the range is within the mapping, as was just checked.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: the range is mapped, and there's a byte for each of its pages.
        let looked = unsafe { libc::mincore(start.as_ptr().cast(), len, pages.as_mut_ptr()) };
        assert_eq!(looked, 0);
        pages.iter().filter(|page| **page & 1 != 0).count()
    }
}
