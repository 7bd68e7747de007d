//! How an end that sends much writes it to the ring: into its processor's caches, as ever, or past them.
//!
//! What one CPU has just written, another reads from its caches or from memory, and which is faster is the machine's: where the CPUs share a cache the
//! first, where they don't the second, by a factor of two. So a stream is timed one way and now and then, for a moment, the other.
//! `docs/experiments/ring-writes.md` has the figures.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::sys::call;

/// Bytes of a send that is worth it.
pub(crate) const LARGE: usize = 4 << 10;

/// Bytes that are timed together.
const EPOCH: u64 = 4 << 20;
/// What takes longer, in nanoseconds, is no stream, and says nothing of either way.
const EPOCH_TIME: u64 = 10_000_000;
/// Epochs of a trial.
const TRIAL: u32 = 2;
/// Epochs before the first trial, before one after the other way was taken, and at most, after many in vain.
const FIRST: u32 = 4;
const AGAIN: u32 = 128;
const SELDOM: u32 = 1 << 10;

/// One end's.
pub(crate) struct Copying {
    is_past: AtomicBool,
    is_trial: AtomicBool,
    /// Bytes of this epoch, and when it began, by the clock in nanoseconds.
    bytes: AtomicU64,
    began: AtomicU64,
    /// Bytes a millisecond: the most of an epoch of the way that is taken, and of the one on trial.
    kept: AtomicU64,
    tried: AtomicU64,
    /// Epochs until the next trial or its end; and before the trial after one that is in vain.
    left: AtomicU32,
    next: AtomicU32,
}

impl Copying {
    pub(crate) const fn new() -> Self {
        Self {
            is_past: AtomicBool::new(false),
            is_trial: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            began: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            tried: AtomicU64::new(0),
            left: AtomicU32::new(FIRST),
            next: AtomicU32::new(AGAIN),
        }
    }

    /// Of another connection.
    pub(crate) fn begin(&self) {
        [&self.is_past, &self.is_trial].iter().for_each(|word| word.store(false, Relaxed));
        [&self.bytes, &self.began, &self.kept, &self.tried].iter().for_each(|word| word.store(0, Relaxed));
        self.left.store(FIRST, Relaxed);
        self.next.store(AGAIN, Relaxed);
    }

    /// Whether large sends go past the caches.
    pub(crate) fn is_past(&self) -> bool {
        self.is_past.load(Relaxed)
    }

    /// So much of a large send was put into the ring.
    pub(crate) fn put(&self, count: usize) {
        let bytes = self.bytes.load(Relaxed) + count as u64;
        if bytes < EPOCH {
            return self.bytes.store(bytes, Relaxed);
        }
        self.epoch(bytes, call::now());
    }

    /// So much was put by now since the epoch began.
    #[cold]
    fn epoch(&self, bytes: u64, now: u64) {
        let took = now.saturating_sub(self.began.load(Relaxed)).max(1);
        self.bytes.store(0, Relaxed);
        self.began.store(now, Relaxed);
        if took > EPOCH_TIME {
            return;
        }
        let best = if self.is_trial.load(Relaxed) { &self.tried } else { &self.kept };
        best.fetch_max(bytes * 1_000_000 / took, Relaxed);
        match self.left.load(Relaxed) {
            0 | 1 if self.is_trial.load(Relaxed) => self.decide(),
            0 | 1 => self.turn(true, TRIAL),
            left => self.left.store(left - 1, Relaxed),
        }
    }

    /// The other way from here on, for so many epochs.
    fn turn(&self, is_trial: bool, epochs: u32) {
        self.is_past.fetch_not(Relaxed);
        self.is_trial.store(is_trial, Relaxed);
        self.tried.store(0, Relaxed);
        self.left.store(epochs, Relaxed);
    }

    /// A trial is over: it's taken if it was faster by a quarter.
    fn decide(&self) {
        let (tried, kept) = (self.tried.load(Relaxed), self.kept.swap(0, Relaxed));
        if tried > kept + kept / 4 {
            self.is_trial.store(false, Relaxed);
            self.next.store(AGAIN, Relaxed);
            return self.left.store(AGAIN, Relaxed);
        }
        let next = self.next.load(Relaxed);
        self.turn(false, next);
        self.next.store((next * 2).min(SELDOM), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epochs of a stream that takes so long for one, in nanoseconds, by the caches and past them; how many went past.
    fn stream(copying: &Copying, now: &mut u64, epochs: u32, times: [u64; 2]) -> usize {
        let mut past = 0;
        for _ in 0..epochs {
            past += usize::from(copying.is_past());
            *now += times[usize::from(copying.is_past())];
            copying.epoch(EPOCH, *now);
        }
        past
    }

    #[test]
    fn the_faster_way_is_taken_and_the_other_tried_seldom() {
        let (copying, mut now) = (Copying::new(), 1_000_000_000);
        let past = stream(&copying, &mut now, 1000, [500_000, 250_000]);
        assert!(copying.is_past() && past > 980, "{past}");
        // The reader comes to the same CPU.
        let past = stream(&copying, &mut now, 4000, [200_000, 400_000]);
        assert!(!copying.is_past() && past < 2500, "{past}");
        let past = stream(&copying, &mut now, 100_000, [200_000, 400_000]);
        assert!(past < 220, "{past} of trials in vain");
    }

    #[test]
    fn what_is_no_stream_is_not_tried() {
        let (copying, mut now) = (Copying::new(), 1_000_000_000);
        assert_eq!(stream(&copying, &mut now, 1000, [20_000_000, 1]), 0);
        copying.begin();
        // Nor is what is faster by little.
        let past = stream(&copying, &mut now, 1000, [500_000, 450_000]);
        assert!(!copying.is_past() && past < 12, "{past}");
    }
}
