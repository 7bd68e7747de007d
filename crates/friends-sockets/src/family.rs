//! Connections that aren't friends yet and that several processes hold after a fork: none of them knows what the others send, so such
//! a connection waits until one is left. The counts are in memory that the processes share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::map;

/// Connections that are held by several processes at once; beyond them they stay plain.
pub(crate) const CELLS: usize = 1 << 14;

static SHARED: OnceLock<&'static [AtomicU32]> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Makes the shared memory, before any fork.
pub(crate) fn begin() {
    if let Some(cells) = map::shared_words(CELLS) {
        // It's called once, at the library's start.
        SHARED.set(cells).ok();
    }
}

/// A connection's place among the counts; 0: none.
pub(crate) struct Family(AtomicU32);

impl Family {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn cell(&self) -> Option<&'static AtomicU32> {
        SHARED.get()?.get(usize::try_from(self.0.load(Ordering::Relaxed)).ok()?.checked_sub(1)?)
    }

    /// Whether another process has it too.
    pub(crate) fn is_shared(&self) -> bool {
        self.cell().is_some_and(|cell| cell.load(Ordering::Acquire) > 1)
    }

    /// The process is about to fork. False: it can't be counted.
    pub(crate) fn grow(&self) -> bool {
        if let Some(cell) = self.cell() {
            cell.fetch_add(1, Ordering::AcqRel);
            return true;
        }
        let Some(cells) = SHARED.get() else { return false };
        let (first, count) = (NEXT.fetch_add(1, Ordering::Relaxed), u32::try_from(CELLS).expect("a small number"));
        for step in 0..count {
            let index = first.wrapping_add(step) % count;
            let cell = &cells[index as usize];
            // This process and its child.
            if cell.load(Ordering::Relaxed) == 0
                && cell.compare_exchange(0, 2, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                self.0.store(index + 1, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    /// The child that it was counted for couldn't be made.
    pub(crate) fn dwindle(&self) {
        if let Some(cell) = self.cell() {
            cell.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// This process hasn't got it any more.
    pub(crate) fn shrink(&self) {
        if let Some(cell) = self.cell() {
            self.0.store(0, Ordering::Relaxed);
            cell.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
