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
