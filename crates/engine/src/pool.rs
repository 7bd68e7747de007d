//! What directions lease from their core while bytes wait: pipes for bulk, blocks for a copied rest.
//!
//! Both are bounded. A direction that finds no pipe is copied; one that finds no block reads without taking (see
//! [`crate::forward`]). So an empty pool costs speed, never bytes and never memory.

use crate::backend::Backend;

/// Pipes of one core: made when first needed, kept for the next, never more than `max`.
#[derive(Debug)]
pub(crate) struct PipePool<P> {
    ready: Vec<P>,
    max: usize,
    existing: usize,
    bytes: u32,
    /// Leases refused since the start.
    pub(crate) missed: u64,
}

impl<P> PipePool<P> {
    pub(crate) fn new(max: u32, bytes: u32) -> Self {
        let max = max as usize;
        Self { ready: Vec::with_capacity(max), max, existing: 0, bytes, missed: 0 }
    }

    /// Leases an empty pipe.
    pub(crate) fn lease<B: Backend<Pipe = P>>(&mut self, backend: &mut B) -> Option<P> {
        if let Some(pipe) = self.ready.pop() {
            return Some(pipe);
        }
        let made = if self.existing < self.max { backend.pipe(self.bytes).ok() } else { None };
        match made {
            Some(_) => self.existing += 1,
            None => self.missed += 1,
        }
        made
    }

    /// Takes back a pipe that is empty.
    pub(crate) fn give_back(&mut self, pipe: P) {
        self.ready.push(pipe);
    }

    /// Forgets a pipe that was dropped with bytes in it.
    pub(crate) const fn forget(&mut self) {
        self.existing -= 1;
    }

    /// Pipes that exist, leased or ready.
    pub(crate) const fn existing(&self) -> usize {
        self.existing
    }

    /// Pipes that are leased.
    pub(crate) const fn leased(&self) -> usize {
        self.existing - self.ready.len()
    }
}

/// Bytes that were read and couldn't be handed on yet.
#[derive(Debug)]
pub(crate) struct Stash {
    block: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Stash {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    /// Holds `rest` instead.
    pub(crate) fn replace(&mut self, rest: &[u8]) {
        self.block[..rest.len()].copy_from_slice(rest);
        (self.start, self.end) = (0, rest.len());
    }

    /// Where bytes that come next go: behind those it holds, with more than half of the block if they are fewer.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        // What is moved was read since the last move, so each byte is moved once at most on the average.
        if self.start > 0 && (self.start >= self.end - self.start || self.end == self.block.len()) {
            self.block.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.block[self.end..]
    }

    /// Holds `len` bytes more, which were put into its room.
    pub(crate) fn grow(&mut self, len: usize) {
        self.end += len;
        debug_assert!(self.end <= self.block.len(), "more than there was room for");
    }

    /// Drops the first `len` bytes.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start += len;
        debug_assert!(self.start <= self.end, "more consumed than there was");
    }
}

/// Who asks for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A direction to another connection, or one that reads what a stranger sends, who came to us: the last blocks aren't for it.
    Common,
    /// One that reads from whom we dialled: it may have any.
    Dialled,
}

/// Blocks of one core, all made at the start.
#[derive(Debug)]
pub(crate) struct BlockPool {
    ready: Vec<Box<[u8]>>,
    count: usize,
    /// So many are for [`Claim::Dialled`] alone.
    reserved: usize,
}

impl BlockPool {
    pub(crate) fn new(count: usize, bytes: usize) -> Self {
        Self { ready: (0..count).map(|_| vec![0; bytes].into_boxed_slice()).collect(), count, reserved: count / 4 }
    }

    /// Whether there is a block for whoever asks so.
    pub(crate) const fn has(&self, claim: Claim) -> bool {
        let reserved = match claim {
            Claim::Common => self.reserved,
            Claim::Dialled => 0,
        };
        self.ready.len() > reserved
    }

    /// Blocks that are leased.
    pub(crate) const fn leased(&self) -> usize {
        self.count - self.ready.len()
    }

    /// Keeps `rest` in a block.
    ///
    /// # Panics
    /// If there is none: the caller looks before it reads.
    pub(crate) fn keep(&mut self, rest: &[u8]) -> Stash {
        let block = self.ready.pop().expect("the caller saw a block before it read");
        let mut stash = Stash { block, start: 0, end: 0 };
        stash.replace(rest);
        stash
    }

    pub(crate) fn give_back(&mut self, stash: Stash) {
        self.ready.push(stash.block);
    }

    /// Forgets a leased block, which another core has now.
    pub(crate) const fn lend(&mut self) {
        self.count -= 1;
    }

    /// Counts a leased block that came from another core.
    pub(crate) const fn adopt(&mut self) {
        self.count += 1;
    }

    /// Takes an empty block out for good.
    pub(crate) fn take_out(&mut self) -> Option<Box<[u8]>> {
        let block = self.ready.pop()?;
        self.count -= 1;
        Some(block)
    }

    /// Puts an empty block in for good.
    pub(crate) fn add(&mut self, block: Box<[u8]>) {
        self.ready.push(block);
        self.count += 1;
    }
}
