//! The ring: operations in, completions out. All unsafe code of the server is here.
#![expect(unsafe_code, reason = "io_uring shares memory with the kernel")]

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};
use io_uring::squeue::Entry;
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Operations submitted at once.
const ENTRIES: u32 = 4096;
/// Completions that fit; more are kept by the kernel.
pub(super) const COMPLETIONS_MAX: usize = 16_384;
/// Provided buffers, and their size. They take turns, so that many of them are as many cold cache lines.
const BUFFERS: u16 = 4096;
const BUFFER_BYTES: usize = 512;
/// The one group of them.
const GROUP: u16 = 0;
/// What a call does of the work that waits for it, at most (`IO_LOCAL_TW_DEFAULT_MAX`, since Linux 6.13), and how many calls there are in
/// a row when there may be more.
const BATCH: usize = 20;
const CALLS: usize = 5;

/// What an operation is, in the highest byte of its name; then 24 bits of the buffer, and 32 of the descriptor.
const ACCEPT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND_BUFFER: u64 = 3;
const SEND_OWNED: u64 = 4;
/// Nobody waits for it.
const UNHEARD: u64 = 5;

/// What has come to pass.
pub(super) enum Event {
    /// Someone has connected.
    Accepted(usize),
    /// No more come unless it's asked for again.
    AcceptEnded,
    /// Bytes have come, into a buffer that is the caller's to send or give back.
    Received {
        fd: usize,
        buffer: u16,
        len: usize,
        /// No more come unless it's asked for again.
        ended: bool,
    },
    /// Bytes have come, and there's no buffer for them now.
    NoBuffers(usize),
    /// No more come: it was asked for.
    Paused(usize),
    /// The peer has finished or failed.
    Ended(usize),
    /// Not all of a buffer was sent; it's the caller's again.
    SendStopped { fd: usize, buffer: u16, from: usize, len: usize, failed: bool },
    /// All of what was given away was sent, or it failed.
    Sent { fd: usize, failed: bool },
}

/// An io_uring with provided buffers.
pub(super) struct Ring {
    ring: IoUring,
    /// The ring of provided buffers, and their memory: mapped for the life of the process.
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
    /// How much of each buffer is being sent.
    lens: Vec<u16>,
    /// Buffers that are being sent: the caller's again only if that stops short.
    lent: Vec<u16>,
    stopped: Vec<u16>,
    /// What [`Ring::send_owned`] was given, by descriptor.
    owned: HashMap<usize, Vec<u8>>,
    /// The last turn brought a whole batch: there may be more.
    crowded: bool,
}

impl Ring {
    pub(super) fn new() -> Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(u32::try_from(COMPLETIONS_MAX)?).setup_submit_all();
        builder.setup_defer_taskrun().setup_single_issuer();
        let ring: IoUring = builder.build(ENTRIES).context("io_uring_setup")?;
        ring.submitter().register_ring_fd().context("register the ring")?;
        let entries: *mut BufRingEntry = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(BUFFERS) * BUFFER_BYTES)?;
        // SAFETY: the mapping has room for so many entries, is aligned to a page, and is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0) }
            .context("register buffers")?;
        let lens = vec![0; usize::from(BUFFERS)];
        let (lent, stopped, owned) = (Vec::new(), Vec::new(), HashMap::new());
        let mut ring = Self { ring, entries, memory, tail: 0, lens, lent, stopped, owned, crowded: false };
        (0..BUFFERS).for_each(|buffer| ring.give_back(buffer));
        Ok(ring)
    }

    /// Accepts from now on.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>) -> Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        self.push(&accept.build().user_data(name(ACCEPT, 0, 0)))
    }

    /// Receives from now on.
    pub(super) fn receive(&mut self, fd: usize) -> Result<()> {
        let receive = opcode::RecvMulti::new(Fd(raw(fd)), GROUP).build();
        self.push(&receive.user_data(name(RECEIVE, 0, fd)))
    }

    /// Stops receiving; a multishot operation can't be held back otherwise.
    pub(super) fn pause(&mut self, fd: usize) -> Result<()> {
        let cancel = opcode::AsyncCancel::new(name(RECEIVE, 0, fd)).build();
        self.push(&cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(name(UNHEARD, 0, fd)))
    }

    /// Sends the first `len` bytes of a buffer and gives it back. Nothing is heard of it unless it stops short. At most once a turn
    /// for a connection: a second one could pass the first.
    pub(super) fn send_buffer(&mut self, fd: usize, buffer: u16, len: usize) -> Result<()> {
        self.lens[usize::from(buffer)] = u16::try_from(len)?;
        self.lent.push(buffer);
        // It's over when it has been submitted: what finds no room isn't waited for (MSG_DONTWAIT), and a short send counts as a
        // failure (MSG_WAITALL), which is told in spite of SKIP_SUCCESS.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        let send = opcode::Send::new(Fd(raw(fd)), self.place(buffer), u32::try_from(len)?).flags(flags).build();
        self.push(&send.flags(squeue::Flags::SKIP_SUCCESS).user_data(name(SEND_BUFFER, buffer, fd)))
    }

    /// Sends all of `bytes`, however long that takes. One at a time for a connection.
    pub(super) fn send_owned(&mut self, fd: usize, bytes: Vec<u8>) -> Result<()> {
        // A vector's bytes stay where they are when it moves.
        let (start, len) = (bytes.as_ptr(), u32::try_from(bytes.len())?);
        self.owned.insert(fd, bytes);
        let send = opcode::Send::new(Fd(raw(fd)), start, len).flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build();
        self.push(&send.user_data(name(SEND_OWNED, 0, fd)))
    }

    /// Ends a connection's receiving, which is then told.
    pub(super) fn shut(&mut self, fd: usize) -> Result<()> {
        let shut = opcode::Shutdown::new(Fd(raw(fd)), libc::SHUT_RDWR).build();
        self.push(&shut.flags(squeue::Flags::SKIP_SUCCESS).user_data(name(UNHEARD, 0, fd)))
    }

    /// Closes a connection that neither receives nor sends.
    pub(super) fn close(&mut self, fd: usize) -> Result<()> {
        let close = opcode::Close::new(Fd(raw(fd))).build();
        self.push(&close.flags(squeue::Flags::SKIP_SUCCESS).user_data(name(UNHEARD, 0, fd)))
    }

    /// The bytes of a buffer that is the caller's.
    pub(super) fn bytes(&self, buffer: u16) -> &[u8] {
        // SAFETY: the memory is mapped for good and was zeroed; the kernel writes to this buffer only after it was given back,
        // which takes the ring by an exclusive reference.
        unsafe { std::slice::from_raw_parts(self.place(buffer), BUFFER_BYTES) }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let place = self.place(buffer);
        let index = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the index is below the number of entries.
        let entry = unsafe { self.entries.add(index) };
        // SAFETY: the kernel reads entries below the tail only, and this one is at it.
        let entry = unsafe { &mut *entry };
        entry.set_addr(place as u64);
        entry.set_len(u32::try_from(BUFFER_BYTES).expect("a small number"));
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the pointer is to the first entry of the ring.
        let tail = unsafe { BufRingEntry::tail(self.entries) }.cast_mut();
        // SAFETY: the tail is aligned, mapped for good, and written by this thread alone.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Submits what was asked, and waits until something has come to pass if `wait` says so.
    pub(super) fn turn(&mut self, events: &mut Vec<Event>, wait: bool) -> Result<()> {
        self.enter(wait && !self.crowded)?;
        if self.crowded {
            for calls in 1..CALLS {
                if self.ring.completion().len() < calls * BATCH {
                    break;
                }
                self.enter(false)?;
            }
        }
        self.crowded = self.ring.completion().len() >= BATCH;
        let Self { ring, stopped, owned, lens, .. } = self;
        for completion in ring.completion() {
            if let Some(event) = sort(&completion, events, lens)? {
                match event {
                    Event::SendStopped { buffer, .. } => stopped.push(buffer),
                    Event::Sent { fd, .. } => drop(owned.remove(&fd)),
                    _ => {}
                }
                events.push(event);
            }
        }
        if self.ring.submission().cq_overflow() {
            // A send that stopped short may not have been told yet.
            return Ok(());
        }
        // What was lent has been submitted, so it's over; what wasn't told went well.
        for index in 0..self.lent.len() {
            let buffer = self.lent[index];
            if !self.stopped.contains(&buffer) {
                self.give_back(buffer);
            }
        }
        self.lent.clear();
        self.stopped.clear();
        Ok(())
    }

    fn enter(&mut self, wait: bool) -> Result<()> {
        let queued = u32::try_from(self.ring.submission().len())?;
        // SAFETY: no argument is given, and as many entries as were queued are handed over. Without the flag the kernel wouldn't do what
        // it has deferred.
        let entered = unsafe {
            self.ring.submitter().enter::<libc::sigset_t>(queued, wait.into(), EnterFlags::GETEVENTS.bits(), None)
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(error).context("io_uring_enter"),
        }
    }

    fn place(&self, buffer: u16) -> *mut u8 {
        // SAFETY: there are more buffers than any number of one.
        unsafe { self.memory.add(usize::from(buffer % BUFFERS) * BUFFER_BYTES) }
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        loop {
            // SAFETY: what the operation points to is buffers and vectors that stay until its completion is there; descriptors are
            // closed by the ring alone.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit().context("submit")?;
        }
    }
}

/// What a completion tells.
fn sort(completion: &cqueue::Entry, events: &mut Vec<Event>, lens: &[u16]) -> Result<Option<Event>> {
    let (data, result, flags) = (completion.user_data(), completion.result(), completion.flags());
    let fd = usize::try_from(data & u64::from(u32::MAX))?;
    let buffer = u16::try_from(data >> 32 & u64::from(u16::MAX))?;
    let moved = usize::try_from(result).ok();
    let more = cqueue::more(flags);
    Ok(match data >> 56 {
        ACCEPT => {
            events.extend(moved.map(Event::Accepted));
            (!more).then_some(Event::AcceptEnded)
        }
        RECEIVE => Some(match moved {
            Some(len @ 1..) => {
                let buffer = cqueue::buffer_select(flags).context("bytes without a buffer")?;
                Event::Received { fd, buffer, len, ended: !more }
            }
            None if result == -libc::ENOBUFS => Event::NoBuffers(fd),
            None if result == -libc::ECANCELED => Event::Paused(fd),
            _ => Event::Ended(fd),
        }),
        SEND_BUFFER => {
            let (from, failed) = (moved.unwrap_or(0), moved.is_none() && result != -libc::EAGAIN);
            Some(Event::SendStopped { fd, buffer, from, len: lens[usize::from(buffer)].into(), failed })
        }
        SEND_OWNED => Some(Event::Sent { fd, failed: moved.is_none() }),
        UNHEARD => None,
        other => bail!("an operation of kind {other}"),
    })
}

const fn name(kind: u64, buffer: u16, fd: usize) -> u64 {
    kind << 56 | (buffer as u64) << 32 | fd as u64
}

fn raw(fd: usize) -> RawFd {
    RawFd::try_from(fd).expect("the kernel gave it")
}

/// Zeroed memory for the life of the process.
fn map(bytes: usize) -> Result<*mut u8> {
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let place =
        unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    Ok(place.context("map memory")?.cast())
}
