//! Bytes on their way from one connection to another.

use std::collections::VecDeque;

/// A pipe.
#[derive(Debug)]
pub struct SimPipe {
    bytes: VecDeque<u8>,
    capacity: usize,
}

impl SimPipe {
    pub(super) const fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity }
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    pub(super) fn take(&mut self, count: usize) -> impl Iterator<Item = u8> + '_ {
        self.bytes.drain(..count)
    }
}
