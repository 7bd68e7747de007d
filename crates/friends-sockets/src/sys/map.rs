//! Files and shared memory: segments (memfds with seals), and the small files by which the two ends find each other.
//!
//! No call here allocates or goes through an exported function of this library.

use std::ffi::CStr;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use midmile_friends::{BadSegment, Segment};

use super::{Answer, Errno, errno, set_errno, system, threads, word};

/// What a segment has to be sealed against: else a peer could take memory away beneath us (SIGBUS).
const SEALS: c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Our descriptors stand at this number or above, out of the way of programs that count on the lowest ones.
const HIGH: c_int = 700;

fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> Answer {
    // SAFETY: the callers of this function pass what the call of this number asks for.
    unsafe { system(number, [a, b, c, d, e, 0]) }
}

/// A descriptor of ours; closed when dropped.
#[derive(Debug)]
pub(crate) struct Owned(c_int);

impl Owned {
    pub(crate) fn number(&self) -> c_int {
        self.0
    }

    /// Keeps it open; who has the number closes it.
    pub(crate) fn keep(self) -> c_int {
        let number = self.0;
        std::mem::forget(self);
        number
    }

    /// Takes over a number that [`Owned::keep`] gave.
    pub(crate) fn again(number: c_int) -> Self {
        Self(number)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        call(libc::SYS_close, word(self.0), 0, 0, 0, 0).ok();
    }
}

/// A descriptor or flags as an argument: the kernel looks at the low 32 bits.
fn descriptor(answer: Answer) -> Result<Owned, Errno> {
    answer.map(|number| Owned(c_int::try_from(number).expect("a descriptor is small")))
}

/// Opens a file. `path` is absolute.
pub(crate) fn open(path: &CStr, flags: c_int, mode: u32) -> Result<Owned, Errno> {
    let flags = flags | libc::O_CLOEXEC;
    let place = path.as_ptr() as usize;
    descriptor(call(libc::SYS_openat, word(libc::AT_FDCWD), place, word(flags), mode as usize, 0))
}

/// Reads from the start of a file; how much.
pub(crate) fn read(file: &Owned, into: &mut [u8]) -> Answer {
    call(libc::SYS_read, word(file.0), into.as_mut_ptr() as usize, into.len(), 0, 0)
}

/// Writes to a file; how much.
pub(crate) fn write(file: &Owned, bytes: &[u8]) -> Answer {
    call(libc::SYS_write, word(file.0), bytes.as_ptr() as usize, bytes.len(), 0, 0)
}

/// Gives a file a second name, which nothing has yet (EEXIST).
pub(crate) fn link(from: &CStr, to: &CStr) -> Result<(), Errno> {
    let here = word(libc::AT_FDCWD);
    call(libc::SYS_linkat, here, from.as_ptr() as usize, here, to.as_ptr() as usize, 0).map(drop)
}

/// Removes a file's name.
pub(crate) fn unlink(path: &CStr) -> Result<(), Errno> {
    call(libc::SYS_unlinkat, word(libc::AT_FDCWD), path.as_ptr() as usize, 0, 0, 0).map(drop)
}

/// Random bytes.
pub(crate) fn random() -> Result<u64, Errno> {
    let mut bytes = [0_u8; 8];
    let flags = libc::GRND_NONBLOCK as usize;
    match call(libc::SYS_getrandom, bytes.as_mut_ptr() as usize, bytes.len(), flags, 0, 0)? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(super::AGAIN),
    }
}

/// What a file is.
pub(crate) struct Kind {
    pub(crate) owner: u32,
    pub(crate) mode: u32,
    pub(crate) size: usize,
}

fn status(file: &Owned) -> Result<libc::stat, Errno> {
    // SAFETY: all bytes of a stat may be zero.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call(libc::SYS_fstat, word(file.0), &raw mut stat as usize, 0, 0, 0)?;
    Ok(stat)
}

/// Asks what a file is.
pub(crate) fn kind(file: &Owned) -> Result<Kind, Errno> {
    let stat = status(file)?;
    Ok(Kind { owner: stat.st_uid, mode: stat.st_mode, size: usize::try_from(stat.st_size).unwrap_or(0) })
}

/// The user that files are made as.
pub(crate) fn user() -> u32 {
    // SAFETY: the call has no arguments.
    unsafe { libc::geteuid() }
}

/// Whether this process lives.
pub(crate) fn process_lives(process: i32) -> bool {
    call(libc::SYS_kill, word(process), 0, 0, 0, 0) != Err(Errno(libc::ESRCH))
}

/// Which file a file is: its device and inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity(pub(crate) [u64; 2]);

/// Asks which file a file is.
pub(crate) fn identity(file: &Owned) -> Result<Identity, Errno> {
    let stat = status(file)?;
    Ok(Identity([stat.st_dev, stat.st_ino]))
}

/// Makes memory to share, under a name to be seen in `/proc`: `length` bytes of zeros, which no one can shrink.
pub(crate) fn make(name: &CStr, length: usize) -> Result<Owned, Errno> {
    if !may_be_as_long_as(length) {
        return Err(Errno(libc::EFBIG));
    }
    let flags = (libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) as usize;
    let low = descriptor(call(libc::SYS_memfd_create, name.as_ptr() as usize, flags, 0, 0, 0))?;
    let file = elsewhere(low.0)?;
    call(libc::SYS_ftruncate, word(file.0), length, 0, 0, 0)?;
    call(libc::SYS_fcntl, word(file.0), word(libc::F_ADD_SEALS), word(SEALS), 0, 0)?;
    Ok(file)
}

/// The same file under another number, out of the program's way.
pub(crate) fn elsewhere(number: c_int) -> Result<Owned, Errno> {
    descriptor(call(libc::SYS_fcntl, word(number), word(libc::F_DUPFD_CLOEXEC), word(HIGH), 0, 0))
}

/// A pipe: where to read, where to write.
pub(crate) fn pipe() -> Result<(Owned, Owned), Errno> {
    let mut ends = [-1; 2];
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    call(libc::SYS_pipe2, ends.as_mut_ptr() as usize, word(flags), 0, 0, 0)?;
    Ok((Owned(ends[0]), Owned(ends[1])))
}

/// A counter that can be waited for and doesn't wait (eventfd(2)), out of the program's way.
pub(crate) fn event() -> Result<Owned, Errno> {
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
    let low = descriptor(call(libc::SYS_eventfd2, 0, word(flags), 0, 0, 0))?;
    elsewhere(low.0)
}

/// Whether the file has `length` bytes, and will for as long as it lives.
pub(crate) fn is_sealed(file: &Owned, length: usize) -> bool {
    let seals = call(libc::SYS_fcntl, word(file.0), word(libc::F_GET_SEALS), 0, 0, 0);
    let sealed = seals.is_ok_and(|seals| seals & word(SEALS) == word(SEALS) && seals & word(libc::F_SEAL_WRITE) == 0);
    sealed && kind(file).is_ok_and(|kind| kind.size == length)
}

/// Whether the process may make some system calls only (seccomp(2)), or it can't be told. Read where the loader has just read too: asking by
/// prctl(2) could be forbidden.
pub(crate) fn is_filtered() -> bool {
    let mut text = [0; 8192];
    let Ok(file) = open(c"/proc/self/status", libc::O_RDONLY, 0) else { return true };
    let length = read(&file, &mut text).unwrap_or(0);
    !text[..length].split(|byte| *byte == b'\n').any(|line| line == b"Seccomp:\t0")
}

/// Whether a file may have so many bytes (`RLIMIT_FSIZE`). To try is a signal, SIGXFSZ.
pub(crate) fn may_be_as_long_as(bytes: usize) -> bool {
    limit(libc::RLIMIT_FSIZE) >= bytes
}

/// How many descriptors this process may have (`RLIMIT_NOFILE`, the soft limit).
pub(crate) fn descriptors_max() -> usize {
    limit(libc::RLIMIT_NOFILE)
}

/// A soft limit of this process's.
fn limit(which: libc::__rlimit_resource_t) -> usize {
    let kept = errno();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a limit of ours.
    unsafe { libc::getrlimit(which, &raw mut limit) };
    set_errno(kept);
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// Words of zeros that this process shares with the children that it will have. They stay for good.
pub(crate) fn shared_words(count: usize) -> Option<&'static [AtomicU32]> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let length = count * size_of::<AtomicU32>();
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: so many words are mapped there, aligned to a page, for good; any bits are valid atomics.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<AtomicU32>(), count) })
}

/// A copy of another process's descriptor (pidfd_getfd(2), Linux 5.6).
pub(crate) fn descriptor_of(process: u32, number: u32) -> Result<Owned, Errno> {
    let there = descriptor(call(libc::SYS_pidfd_open, process as usize, 0, 0, 0, 0))?;
    descriptor(call(libc::SYS_pidfd_getfd, word(there.0), number as usize, 0, 0, 0))
}

static MAPPINGS: AtomicU32 = AtomicU32::new(0);

/// How many mappings there are.
pub(crate) fn mappings() -> u32 {
    MAPPINGS.load(Ordering::Relaxed)
}

/// Memory shared with another process. It stays mapped until [`Mapping::end`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// Address of the first byte.
    pub(crate) start: usize,
    /// In bytes.
    pub(crate) length: usize,
}

impl Mapping {
    /// Maps the whole of a sealed file.
    pub(crate) fn of(file: &Owned, length: usize) -> Result<Self, Errno> {
        let kept = errno();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours; the file is open.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file.0, 0) };
        let failed = Errno(errno());
        set_errno(kept);
        Self::mapped(start, length, failed)
    }

    /// Memory of this process's own.
    pub(crate) fn room(length: usize) -> Result<Self, Errno> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
        Self::mapped(start, length, Errno(errno()))
    }

    fn mapped(start: *mut libc::c_void, length: usize, failed: Errno) -> Result<Self, Errno> {
        if start == libc::MAP_FAILED {
            return Err(failed);
        }
        MAPPINGS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { start: start as usize, length })
    }

    /// Uses memory that [`Mapping::room`] gave.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut [u8]) -> T) -> T {
        // SAFETY: it's mapped for reading and writing, of this length, and nobody else knows of it.
        act(unsafe { std::slice::from_raw_parts_mut(self.start as *mut u8, self.length) })
    }

    /// The bytes, which another process may write to. The lifetime is the caller's to bound: [`Mapping::end`] comes after it.
    fn shared<'m>(&self) -> &'m [AtomicU8] {
        if self.start == 0 {
            // An end that has no segment yet.
            return &[];
        }
        // SAFETY: the memory is mapped, sealed against shrinking, and used by segments alone; ends unmap only when no call holds them,
        // and segments live no longer than calls.
        unsafe { std::slice::from_raw_parts(self.start as *const AtomicU8, self.length) }
    }

    /// Makes a segment in memory that is new.
    pub(crate) fn create(&self, capacity: usize, nonce: [u64; 2]) -> Result<(), BadSegment> {
        Segment::create(self.shared(), capacity, nonce).map(drop)
    }

    /// The segment in it, whose lifetime is the caller's to bound in the same way.
    pub(crate) fn segment<'m>(&self, nonce: [u64; 2]) -> Result<Segment<'m>, BadSegment> {
        Segment::open(self.shared(), nonce).map(|segment| segment.with_barrier(threads::barrier))
    }

    /// As [`Mapping::segment`], once that has answered.
    pub(crate) fn segment_again<'m>(&self) -> Result<Segment<'m>, BadSegment> {
        Segment::again(self.shared()).map(|segment| segment.with_barrier(threads::barrier))
    }

    /// Gives the memory back, when no call holds the end that it belongs to.
    pub(crate) fn end(self) {
        let kept = errno();
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: it's a mapping of this length, and nobody uses it (`End::free`).
        unsafe { libc::munmap(self.start as *mut libc::c_void, self.length) };
        set_errno(kept);
    }
}
