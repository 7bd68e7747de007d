//! Bytes counted while they flow.

use crate::counter::Counter;

/// Bytes forwarded in one direction, by how they were moved. One core writes it; any may read it.
#[derive(Debug, Default)]
pub struct Meter {
    copied: Counter,
    spliced: Counter,
}

impl Meter {
    /// Bytes that went through the core's buffer.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied.value()
    }

    /// Bytes that went through a pipe.
    #[must_use]
    pub fn spliced_bytes(&self) -> u64 {
        self.spliced.value()
    }

    pub(crate) fn add_copied(&self, bytes: usize) {
        self.copied.add(bytes as u64);
    }

    pub(crate) fn add_spliced(&self, bytes: usize) {
        self.spliced.add(bytes as u64);
    }
}
