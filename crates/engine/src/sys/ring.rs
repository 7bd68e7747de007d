//! An io_uring with the memory that its operations use: what is received into, and what is sent from.
//!
//! # Who owns which memory
//! - **Receive buffers** belong to the kernel from [`Ring::give_back`] until a completion names them ([`Ring::next_done`]), and to
//!   the engine from then on. `lent` holds how many bytes of each are the engine's, 0 while it's the kernel's; only these can be
//!   read, so a slice of memory that the kernel may write can't be had.
//! - **Send blocks** are read by the kernel only within a system call of ours. A send never waits: `MSG_DONTWAIT` makes a request
//!   fail that would otherwise wait for room (`REQ_F_NOWAIT` of io_uring/net.c), so it's over, one way or the other, when the call
//!   that submits it returns. [`Ring::block`] refuses while one is queued.
//! - **Neither is given back** to the system while a receive is armed. Dropping the ring cancels all operations and reaps their
//!   completions; if the kernel refused that, the memory would be leaked.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, Napi, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode};

use super::operation::{Done, Name, What};
use super::region::Region;

/// The one group of receive buffers.
const GROUP: u16 = 0;
/// Added to each buffer's place: a round stride would put all beginnings into one set of the processor's cache.
const COLOUR: usize = 64;
/// Attempts to hand a full queue over before the ring counts as broken. The kernel refuses only when it's out of memory.
const ATTEMPTS: u32 = 10_000;
/// What a call does of the work that waits for it, at most, where one completion is wanted or none (`IO_LOCAL_TW_DEFAULT_MAX`, since Linux
/// 6.13).
const BATCH: u32 = 20;
/// Calls in a row when that was too little. More would cost more: what the kernel and a program touch of so many connections fits the core's
/// cache until their answers are sent; of 512 it doesn't. One call that wants as many would have to be given no time to wait for them, and
/// where fewer come the kernel arms a timer for that: 2 µs and more on a virtual machine.
const CALLS: u32 = 5;

/// How big a ring and its memory are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
    /// A power of two, 32,768 at most.
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: u16,
    pub(crate) blocks: u16,
    pub(crate) block_bytes: u16,
}

/// A ring, and its memory.
pub(crate) struct Ring {
    uring: ManuallyDrop<IoUring>,
    /// The queue in which the kernel finds receive buffers.
    offers: ManuallyDrop<Region>,
    buffers: ManuallyDrop<Region>,
    blocks: ManuallyDrop<Region>,
    sizes: Sizes,
    /// Bytes of each buffer that are the engine's to read; 0: the buffer is the kernel's.
    lent: Box<[u16]>,
    /// Which buffer stands at which place of `offers`, and at which place each buffer stands: bundles take several in this order.
    order: Box<[u16]>,
    place: Box<[u16]>,
    /// Where the next buffer is offered; counts on and wraps.
    tail: u16,
    /// Buffers that are the kernel's.
    offered: u16,
    /// Receives whose last completion hasn't been reaped.
    receiving: usize,
    /// Sends that were queued and not handed over yet.
    sends: usize,
    /// Completions since the last call. Those of one operation in a row count as one: bulk makes no crowd.
    reaped: u32,
    reaped_last: Name,
}

impl Ring {
    /// A ring of the calling thread's, which alone may use it (`IORING_SETUP_SINGLE_ISSUER`): it isn't [`Send`].
    pub(crate) fn new(sizes: Sizes) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_cqsize(sizes.completions)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .dontfork()
            .build(sizes.submissions)?;
        let count = usize::from(sizes.buffers);
        let offers = Region::new(count * size_of::<BufRingEntry>())?;
        // SAFETY: the region is as long as so many entries, begins on a page, and lives longer than the ring.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(offers.base.as_ptr() as u64, sizes.buffers, GROUP, 0)
        }?;
        let mut ring = Self {
            uring: ManuallyDrop::new(uring),
            offers: ManuallyDrop::new(offers),
            buffers: ManuallyDrop::new(Region::new(count * (usize::from(sizes.buffer_bytes) + COLOUR))?),
            blocks: ManuallyDrop::new(Region::new(
                usize::from(sizes.blocks) * (usize::from(sizes.block_bytes) + COLOUR),
            )?),
            sizes,
            lent: vec![0; count].into_boxed_slice(),
            order: vec![0; count].into_boxed_slice(),
            place: vec![0; count].into_boxed_slice(),
            tail: 0,
            offered: 0,
            receiving: 0,
            sends: 0,
            reaped: 0,
            reaped_last: Name::NOTHING,
        };
        for buffer in 0..sizes.buffers {
            ring.offer(buffer);
        }
        // Saves looking the descriptor up at each call; does without where the task has no room for it.
        ring.uring.submitter().register_ring_fd().ok();
        Ok(ring)
    }

    /// The first operation that the ring needs and the kernel lacks, by its name.
    pub(crate) fn missing(&self) -> io::Result<Option<&'static str>> {
        let needed = [
            (opcode::RecvMulti::CODE, "RECV"),
            (opcode::Send::CODE, "SEND"),
            (opcode::AcceptMulti::CODE, "ACCEPT"),
            (opcode::PollAdd::CODE, "POLL_ADD"),
            (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
            (opcode::Close::CODE, "CLOSE"),
        ];
        let mut probe = Probe::new();
        self.uring.submitter().register_probe(&mut probe)?;
        Ok(needed.iter().find(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name))
    }

    /// Whether one receive can take several buffers (Linux 6.10).
    pub(crate) fn has_bundles(&self) -> bool {
        self.uring.params().is_feature_recvsend_bundle()
    }

    /// Has waiting spin on the device's queue for so long (Linux 6.9, and a device with a NAPI id).
    pub(crate) fn busy_poll(&self, time: Duration) -> io::Result<()> {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.uring.submitter().register_napi(&mut Napi::new().set_busy_poll_timeout(micros).set_prefer_busy_poll(true))
    }

    /// Receives into buffers until it's cancelled or fails.
    pub(crate) fn recv(&mut self, fd: RawFd, of: u32, bundles: bool) {
        let entry = if bundles {
            opcode::RecvMultiBundle::new(Fd(fd), GROUP).build()
        } else {
            opcode::RecvMulti::new(Fd(fd), GROUP).build()
        };
        self.receiving += 1;
        self.push(entry.user_data(Name { what: What::Recv, of }.to_bits()));
    }

    /// Sends `range` of `block` with the next call, and doesn't wait: a completion comes only if not all of it went.
    pub(crate) fn send(&mut self, fd: RawFd, block: u16, range: Range<u16>, more: bool, of: u32) {
        let len = range.end - range.start;
        assert!(range.end <= self.sizes.block_bytes);
        let begin = self.block_begin(block) + usize::from(range.start);
        let memory = self.blocks.at(&(begin..begin + usize::from(len)));
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL | if more { libc::MSG_MORE } else { 0 };
        let entry = opcode::Send::new(Fd(fd), memory.as_ptr(), len.into()).flags(flags).build();
        self.sends += 1;
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(Name { what: What::Send, of }.to_bits()));
    }

    /// Looks for `events` of poll(2): once, or each time anew.
    pub(crate) fn look(&mut self, fd: RawFd, events: u32, again: bool, name: Name) {
        self.push(opcode::PollAdd::new(Fd(fd), events).multi(again).build().user_data(name.to_bits()));
    }

    /// Accepts until it's cancelled or fails.
    pub(crate) fn accept(&mut self, fd: RawFd, of: u32) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let entry = opcode::AcceptMulti::new(Fd(fd)).flags(flags).build();
        self.push(entry.user_data(Name { what: What::Accept, of }.to_bits()));
    }

    /// Cancels the operation of that name; its last completion follows if it was under way.
    pub(crate) fn cancel(&mut self, name: Name) {
        let entry = opcode::AsyncCancel::new(name.to_bits()).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(Name::NOTHING.to_bits()));
    }

    /// Closes the descriptor with the next call.
    pub(crate) fn close(&mut self, fd: OwnedFd) {
        let entry = opcode::Close::new(Fd(fd.into_raw_fd())).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(Name::NOTHING.to_bits()));
    }

    fn push(&mut self, entry: Entry) {
        for _ in 0..ATTEMPTS {
            // SAFETY: an entry names descriptors, for which any number is sound, and memory of blocks alone, which lives until the
            // call that hands the entry over has returned.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full. A failure shows as one that stays full.
            self.offer_all();
            if self.uring.submit().is_ok() && self.uring.submission().is_empty() {
                self.sends = 0;
            }
        }
        panic!("the kernel takes no operations from a full queue");
    }

    /// Hands over what was queued; then waits for a completion, at most for `patience` (`None`: for ever). Interrupted, or with the
    /// time run out, it returns as well; and it doesn't wait if the last turn brought a whole batch, for there may be more.
    pub(crate) fn enter(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.offer_all();
        let crowded = std::mem::take(&mut self.reaped) >= BATCH;
        self.hand_over(if crowded { Some(Duration::ZERO) } else { patience })?;
        if crowded {
            for calls in 1..CALLS {
                if self.uring.completion().len() < (calls * BATCH) as usize {
                    break;
                }
                self.hand_over(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    /// Calls until all that was queued is the kernel's.
    fn hand_over(&mut self, mut wait: Option<Duration>) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            match self.enter_once(wait) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                    _ => return Err(error),
                },
            }
            if self.uring.submission().is_empty() {
                self.sends = 0;
                return Ok(());
            }
            // Out of memory for the moment: what is left is handed over before anything else.
            wait = Some(Duration::ZERO);
        }
        Err(io::ErrorKind::OutOfMemory.into())
    }

    fn enter_once(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        match wait {
            None => self.uring.submit_and_wait(1),
            Some(Duration::ZERO) => {
                let queued = u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX);
                // SAFETY: no argument is given, and as many entries as were queued are handed over. Without this flag the kernel
                // wouldn't do what it has deferred.
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, EnterFlags::GETEVENTS.bits(), None) }
            }
            Some(wait) => {
                let time = Timespec::from(wait);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        }
    }

    /// Whether the kernel keeps completions for which its queue had no room.
    pub(crate) fn has_overflown(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// The next completion that has come.
    pub(crate) fn next_done(&mut self) -> Option<Done> {
        let entry = self.uring.completion().next()?;
        let name = Name::from_bits(entry.user_data());
        self.reaped += u32::from(std::mem::replace(&mut self.reaped_last, name) != name);
        let more = cqueue::more(entry.flags());
        if name.what == What::Recv && !more {
            self.receiving -= 1;
        }
        let mut done = Done { name, result: entry.result(), more, buffer: None, buffers: 0, accepted: None };
        if name.what == What::Accept && done.result >= 0 {
            // SAFETY: the kernel made the descriptor for this completion, which is reaped once.
            done.accepted = Some(unsafe { OwnedFd::from_raw_fd(done.result) });
        }
        if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            match usize::try_from(done.result) {
                Ok(bytes @ 1..) => {
                    done.buffer = Some(buffer);
                    done.buffers = self.take(buffer, bytes);
                }
                // It was taken for nothing.
                _ => {
                    self.offered -= 1;
                    self.offer(buffer);
                }
            }
        }
        Some(done)
    }

    /// Notes that `bytes` were received into buffers, of which `first` is the first, and says how many they fill.
    fn take(&mut self, first: u16, bytes: usize) -> u16 {
        let (mut left, mut taken, mut buffer) = (bytes, 0, first);
        while left > 0 {
            let part = left.min(self.sizes.buffer_bytes.into());
            self.lent[usize::from(buffer)] = u16::try_from(part).expect("a buffer's length is 16 bits wide");
            left -= part;
            taken += 1;
            buffer = self.following(buffer);
        }
        self.offered -= taken;
        taken
    }

    /// The buffer that was offered after `buffer`.
    pub(crate) fn following(&self, buffer: u16) -> u16 {
        let next = usize::from(self.place[usize::from(buffer)]) + 1;
        self.order[next % self.order.len()]
    }

    /// The bytes that were received into `buffer`.
    pub(crate) fn received(&self, buffer: u16) -> &[u8] {
        let len = usize::from(self.lent[usize::from(buffer)]);
        let begin = self.buffer_begin(buffer);
        let memory = self.buffers.at(&(begin..begin + len));
        // SAFETY: the range lies within the pages; a completion has named the buffer, and it hasn't been offered again since, so
        // the kernel writes nothing here while the ring is borrowed.
        unsafe { std::slice::from_raw_parts(memory.as_ptr(), len) }
    }

    /// Moves the bytes of `from` behind those of `to` and gives `from` back, if there's room for them.
    pub(crate) fn merge(&mut self, to: u16, from: u16) -> bool {
        assert_ne!(to, from);
        let (kept, len) = (self.lent[usize::from(to)], self.lent[usize::from(from)]);
        if kept == 0 || len == 0 || self.sizes.buffer_bytes - kept < len {
            return false;
        }
        let (kept, len) = (usize::from(kept), usize::from(len));
        let (target, source) = (self.buffer_begin(to) + kept, self.buffer_begin(from));
        let target = self.buffers.at(&(target..target + len));
        let source = self.buffers.at(&(source..source + len));
        // SAFETY: both ranges lie within the pages, in buffers that are the engine's and differ.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), target.as_ptr(), len) };
        self.lent[usize::from(to)] += u16::try_from(len).expect("it fits the buffer");
        self.give_back(from);
        true
    }

    /// Lets the kernel receive into `buffer` again.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        assert!(self.lent[usize::from(buffer)] > 0, "a buffer is given back that is the kernel's");
        self.offer(buffer);
    }

    /// Buffers that the kernel can receive into.
    pub(crate) const fn offered(&self) -> u16 {
        self.offered
    }

    fn offer(&mut self, buffer: u16) {
        let index = usize::from(self.tail) % self.order.len();
        self.lent[usize::from(buffer)] = 0;
        self.order[index] = buffer;
        self.place[usize::from(buffer)] = u16::try_from(index).expect("as many places as buffers");
        self.tail = self.tail.wrapping_add(1);
        self.offered += 1;
        let begin = self.buffer_begin(buffer);
        let memory = self.buffers.at(&(begin..begin + usize::from(self.sizes.buffer_bytes)));
        let entry = index * size_of::<BufRingEntry>();
        let entry = self.offers.at(&(entry..entry + size_of::<BufRingEntry>())).cast::<BufRingEntry>();
        // SAFETY: the entry lies within the pages, is aligned as they are, and any bytes are one; the kernel only reads it, and not
        // before the tail has moved behind it.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(memory.as_ptr() as u64);
        entry.set_len(self.sizes.buffer_bytes.into());
        entry.set_bid(buffer);
    }

    /// Shows the kernel all buffers that were offered.
    fn offer_all(&mut self) {
        // SAFETY: the pointer is that of the first entry, which the kernel made room for the tail in.
        let tail = unsafe { BufRingEntry::tail(self.offers.base.as_ptr().cast()) };
        // SAFETY: the field is within the pages, aligned, and only ever accessed atomically by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// A block, to be filled.
    pub(crate) fn block(&mut self, block: u16) -> &mut [u8] {
        assert_eq!(self.sends, 0, "a block is touched while a send is queued");
        let (begin, len) = (self.block_begin(block), usize::from(self.sizes.block_bytes));
        let memory = self.blocks.at(&(begin..begin + len));
        // SAFETY: the range lies within the pages; the kernel reads blocks only within calls of ours, and the ring is borrowed for
        // as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) }
    }

    fn buffer_begin(&self, buffer: u16) -> usize {
        assert!(buffer < self.sizes.buffers);
        usize::from(buffer) * (usize::from(self.sizes.buffer_bytes) + COLOUR)
    }

    fn block_begin(&self, block: u16) -> usize {
        assert!(block < self.sizes.blocks);
        usize::from(block) * (usize::from(self.sizes.block_bytes) + COLOUR)
    }

    /// Cancels an operation and waits until it's over. Its last completion is reaped as ever.
    pub(crate) fn cancel_now(&mut self, name: Name) -> io::Result<()> {
        // It must have been handed over to be found.
        self.enter(Some(Duration::ZERO))?;
        match self.uring.submitter().register_sync_cancel(None, CancelBuilder::user_data(name.to_bits())) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => self.enter(Some(Duration::ZERO)),
        }
    }

    /// Ends all operations; `false` if some may go on.
    fn quiesce(&mut self) -> bool {
        // Descriptors may wait in it to be closed.
        if self.enter(Some(Duration::ZERO)).is_err() {
            return self.receiving == 0;
        }
        // What finds nothing to cancel has nothing to wait for.
        self.uring.submitter().register_sync_cancel(Some(Timespec::new().sec(1)), CancelBuilder::any()).ok();
        for _ in 0..ATTEMPTS {
            while self.next_done().is_some() {}
            if self.receiving == 0 {
                return true;
            }
            if self.enter(Some(Duration::ZERO)).is_err() {
                return false;
            }
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let quiet = self.quiesce();
        // SAFETY: it is dropped here alone, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        if quiet {
            for region in [&mut self.offers, &mut self.buffers, &mut self.blocks] {
                // SAFETY: each is dropped here alone, and not used after; no operation is under way that could touch it.
                unsafe { ManuallyDrop::drop(region) };
            }
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.uring.as_raw_fd()).field("sizes", &self.sizes).finish_non_exhaustive()
    }
}
