//! When to ask the kernel about a connection: whether its peer was killed, or whether a descriptor is still it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::sys::call;

/// How often at most, in nanoseconds.
const EACH: u64 = 10_000_000;
/// Sends in a row that find the reader awake, after which one in so many asks the clock.
const AWAKE: u32 = 8;

/// When it was asked, and how the sends since then went.
pub(crate) struct Lookout {
    asked: AtomicU64,
    /// Sends since the reader had to be woken.
    awake: AtomicU32,
}

impl Lookout {
    pub(crate) const fn new() -> Self {
        Self { asked: AtomicU64::new(0), awake: AtomicU32::new(0) }
    }

    /// The kernel was asked all there is to know, just now.
    pub(crate) fn begin(&self) {
        self.asked.store(call::about_now(), Relaxed);
        self.woken();
    }

    /// Whether it's time to ask. True once for all threads.
    pub(crate) fn is_due(&self) -> bool {
        let (now, asked) = (call::about_now(), self.asked.load(Relaxed));
        now.wrapping_sub(asked) > EACH && self.asked.compare_exchange(asked, now, Relaxed, Relaxed).is_ok()
    }

    /// The same at a send, and for less: the clock isn't asked at each send of a stream. Where the reader needn't be woken so often in a row it reads all
    /// the time, or sends are so fast that a few more are nothing. One that was killed asleep is woken once, and never again.
    pub(crate) fn is_due_at_send(&self) -> bool {
        let awake = self.awake.load(Relaxed);
        self.awake.store(awake.wrapping_add(1), Relaxed);
        (awake < AWAKE || awake.is_multiple_of(AWAKE)) && self.is_due()
    }

    /// The reader had to be woken.
    pub(crate) fn woken(&self) {
        self.awake.store(0, Relaxed);
    }
}
