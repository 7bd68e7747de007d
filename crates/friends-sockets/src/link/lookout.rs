//! When to ask the kernel about a connection: whether its peer was killed, or whether a descriptor is still it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::sys::call;

/// How often at most, in nanoseconds.
const EACH: u64 = 10_000_000;
/// Sends whose time is taken together.
const BATCH: u32 = 8;

/// When it was asked, and how the sends go.
pub(crate) struct Lookout {
    asked: AtomicU64,
    sends: AtomicU32,
    /// When the last batch of sends was over.
    counted: AtomicU64,
    /// A batch took less than [`EACH`], and the reader hadn't to be woken since.
    fast: AtomicBool,
}

impl Lookout {
    pub(crate) const fn new() -> Self {
        let (asked, counted) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { asked, sends: AtomicU32::new(0), counted, fast: AtomicBool::new(false) }
    }

    /// The kernel was asked all there is to know, just now.
    pub(crate) fn begin(&self) {
        self.asked.store(call::about_now(), Relaxed);
        self.fast.store(false, Relaxed);
    }

    /// Whether it's time to ask. True once for all threads.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due_at(call::about_now())
    }

    /// The same at a send, and for less: while sends are fast the clock is asked once for a batch of them.
    pub(crate) fn is_due_at_send(&self) -> bool {
        self.is_due_by(call::about_now)
    }

    fn is_due_by(&self, clock: impl FnOnce() -> u64) -> bool {
        let sends = self.sends.load(Relaxed).wrapping_add(1);
        self.sends.store(sends, Relaxed);
        let is_last = sends.is_multiple_of(BATCH);
        if !is_last && self.fast.load(Relaxed) {
            return false;
        }
        let now = clock();
        if is_last {
            self.fast.store(now.wrapping_sub(self.counted.load(Relaxed)) < EACH, Relaxed);
            self.counted.store(now, Relaxed);
        }
        self.is_due_at(now)
    }

    /// The reader had to be woken: this is no stream any more.
    pub(crate) fn woken(&self) {
        self.fast.store(false, Relaxed);
    }

    fn is_due_at(&self, now: u64) -> bool {
        let asked = self.asked.load(Relaxed);
        now.wrapping_sub(asked) > EACH && self.asked.compare_exchange(asked, now, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often the clock was asked for so many sends, each so long after the one before, from `now` on; and when it was last due.
    fn asked(lookout: &Lookout, now: &Cell<u64>, sends: u32, step: u64) -> (u32, u64) {
        let (mut asked, mut due) = (0, 0);
        for _ in 0..sends {
            now.set(now.get() + step);
            let clock = || {
                asked += 1;
                now.get()
            };
            if lookout.is_due_by(clock) {
                due = now.get();
            }
        }
        (asked, due)
    }

    #[test]
    fn the_clock_is_asked_once_for_a_batch_of_fast_sends_and_at_each_slow_one() {
        let (lookout, now) = (Lookout::new(), Cell::new(EACH));
        assert_eq!(asked(&lookout, &now, 100 * BATCH, 2 * EACH), (100 * BATCH, now.get()), "each is due");
        asked(&lookout, &now, 2 * BATCH, 100);
        let (fast, _) = asked(&lookout, &now, 100 * BATCH, 100);
        assert_eq!(fast, 100);
        lookout.woken();
        assert_eq!(asked(&lookout, &now, BATCH - 1, 100).0, BATCH - 1, "the reader slept");
        asked(&lookout, &now, 2 * BATCH, 100);
        // Slow again: one batch is over before that is seen.
        assert!(asked(&lookout, &now, 2 * BATCH, EACH).0 >= BATCH);
        assert_eq!(asked(&lookout, &now, BATCH, 2 * EACH), (BATCH, now.get()));
    }
}
