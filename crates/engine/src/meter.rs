//! Bytes counted while they flow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes forwarded in one direction, by how they were moved. One core writes it, with plain loads and stores; any may read it.
#[derive(Debug, Default)]
pub struct Meter {
    copied: AtomicU64,
    spliced: AtomicU64,
}

impl Meter {
    /// Bytes that went through the core's buffer.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied.load(Relaxed)
    }

    /// Bytes that went through a pipe.
    #[must_use]
    pub fn spliced_bytes(&self) -> u64 {
        self.spliced.load(Relaxed)
    }

    pub(crate) fn add_copied(&self, bytes: usize) {
        self.copied.store(self.copied.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
    }

    pub(crate) fn add_spliced(&self, bytes: usize) {
        self.spliced.store(self.spliced.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
    }
}
