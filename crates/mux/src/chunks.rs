//! An arena of chunks, for bytes that wait: kept requests, and what is to be sent.

use std::io::IoSlice;

use midmile_engine::{Backend, ConnId, Cx};

/// Bytes in a chunk; with its link it's eight cache lines. Most requests fit in one.
pub(crate) const CHUNK_BYTES: usize = 508;
const NONE: u32 = u32::MAX;
/// Parts given to the engine at once: 32 KiB.
const PARTS: usize = 64;

#[derive(Debug)]
#[repr(align(64))]
struct Chunk {
    next: u32,
    bytes: [u8; CHUNK_BYTES],
}

/// The arena of a core. Its room is reserved at once and touched as it's used.
#[derive(Debug)]
pub(crate) struct Chunks {
    chunks: Vec<Chunk>,
    free: u32,
    max: usize,
    /// Invariant: those in all chains together.
    used: usize,
}

/// Bytes in a row of chunks. Whoever owns it gives it back ([`Chunks::release`]).
#[derive(Debug)]
pub(crate) struct Chain {
    head: u32,
    tail: u32,
    /// Where its bytes begin in the first chunk, and end in the last.
    start: usize,
    end: usize,
    /// Invariant: 0 if, and only if, it has no chunk.
    len: usize,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { head: NONE, tail: NONE, start: 0, end: CHUNK_BYTES, len: 0 };

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its chunks.
    pub(crate) const fn chunks(&self) -> usize {
        (self.start + self.len).div_ceil(CHUNK_BYTES)
    }
}

fn index(chunk: u32) -> usize {
    chunk as usize
}

impl Chunks {
    pub(crate) fn new(max: u32) -> Self {
        Self { chunks: Vec::with_capacity(index(max)), free: NONE, max: index(max), used: 0 }
    }

    /// Chunks in use.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Whether more than half of them are.
    pub(crate) const fn is_half_used(&self) -> bool {
        self.used > self.max / 2
    }

    /// Puts `parts` behind the chain's bytes: all of them, or none and false if there aren't chunks enough.
    #[must_use]
    pub(crate) fn append(&mut self, chain: &mut Chain, parts: &[&[u8]]) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        let fits = self.has_room(chain, len);
        if fits {
            for part in parts {
                self.put(chain, part);
            }
        }
        fits
    }

    /// Puts `head` and then the bytes of `from` behind its first `skip` at the end of `to`: all of them, or none and false.
    #[must_use]
    pub(crate) fn append_chain(&mut self, to: &mut Chain, head: &[u8], from: &Chain, skip: usize) -> bool {
        if !self.has_room(to, head.len() + from.len.saturating_sub(skip)) {
            return false;
        }
        self.put(to, head);
        let (mut at, mut skip, mut buffer) = (from.head, skip, [0; CHUNK_BYTES]);
        while at != NONE {
            let chunk = &self.chunks[index(at)];
            let bytes = &chunk.bytes[Self::span(from, at)];
            let kept = &bytes[skip.min(bytes.len())..];
            skip -= bytes.len() - kept.len();
            at = if at == from.tail { NONE } else { chunk.next };
            let copy = &mut buffer[..kept.len()];
            copy.copy_from_slice(kept);
            self.put(to, copy);
        }
        true
    }

    /// Tells the bytes of a chain behind its first `skip`, piece by piece.
    pub(crate) fn copy_from(&self, from: &Chain, mut skip: usize, mut tell: impl FnMut(&[u8])) {
        let mut at = from.head;
        while at != NONE {
            let chunk = &self.chunks[index(at)];
            let bytes = &chunk.bytes[Self::span(from, at)];
            let kept = &bytes[skip.min(bytes.len())..];
            skip -= bytes.len() - kept.len();
            tell(kept);
            at = if at == from.tail { NONE } else { chunk.next };
        }
    }

    fn has_room(&self, chain: &Chain, len: usize) -> bool {
        let more = len.saturating_sub(CHUNK_BYTES - chain.end);
        more.div_ceil(CHUNK_BYTES) <= self.max - self.used
    }

    fn put(&mut self, chain: &mut Chain, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if chain.end == CHUNK_BYTES {
                let chunk = self.take();
                if chain.tail == NONE {
                    (chain.head, chain.start) = (chunk, 0);
                } else {
                    self.chunks[index(chain.tail)].next = chunk;
                }
                (chain.tail, chain.end) = (chunk, 0);
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - chain.end));
            self.chunks[index(chain.tail)].bytes[chain.end..][..now.len()].copy_from_slice(now);
            chain.end += now.len();
            chain.len += now.len();
            bytes = later;
        }
    }

    fn take(&mut self) -> u32 {
        self.used += 1;
        if self.free == NONE {
            let chunk = u32::try_from(self.chunks.len()).expect("their most came from a u32");
            self.chunks.push(Chunk { next: NONE, bytes: [0; CHUNK_BYTES] });
            return chunk;
        }
        let chunk = self.free;
        self.free = std::mem::replace(&mut self.chunks[index(chunk)].next, NONE);
        chunk
    }

    /// Where the chain's bytes are in one of its chunks.
    const fn span(chain: &Chain, chunk: u32) -> std::ops::Range<usize> {
        let start = if chunk == chain.head { chain.start } else { 0 };
        let end = if chunk == chain.tail { chain.end } else { CHUNK_BYTES };
        start..end
    }

    /// The first bytes of a chain, as many as stand in one piece: all, if they're no more than [`CHUNK_BYTES`] and none was dropped.
    pub(crate) fn first(&self, chain: &Chain) -> &[u8] {
        if chain.is_empty() { &[] } else { &self.chunks[index(chain.head)].bytes[Self::span(chain, chain.head)] }
    }

    /// Drops the first `len` bytes.
    pub(crate) fn consume(&mut self, chain: &mut Chain, mut len: usize) {
        chain.len -= len;
        while len > 0 {
            let span = Self::span(chain, chain.head);
            let taken = len.min(span.len());
            chain.start += taken;
            len -= taken;
            if taken == span.len() {
                self.drop_head(chain);
            }
        }
    }

    fn drop_head(&mut self, chain: &mut Chain) {
        let chunk = chain.head;
        if chunk == chain.tail {
            *chain = Chain::EMPTY;
        } else {
            (chain.head, chain.start) = (self.chunks[index(chunk)].next, 0);
        }
        self.chunks[index(chunk)].next = std::mem::replace(&mut self.free, chunk);
        self.used -= 1;
    }

    /// Gives all chunks of a chain back.
    pub(crate) fn release(&mut self, chain: &mut Chain) {
        while chain.head != NONE {
            self.drop_head(chain);
        }
    }

    /// Sends what there's room for, and drops that from the chain. Says how much it was.
    pub(crate) fn send<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, chain: &mut Chain) -> usize {
        let mut all = 0;
        while !chain.is_empty() {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let (mut count, mut len, mut at) = (0, 0, chain.head);
            while count < PARTS && at != NONE {
                let chunk = &self.chunks[index(at)];
                let bytes = &chunk.bytes[Self::span(chain, at)];
                parts[count] = IoSlice::new(bytes);
                (count, len) = (count + 1, len + bytes.len());
                at = if at == chain.tail { NONE } else { chunk.next };
            }
            let sent = cx.send_vectored(conn, &parts[..count]);
            self.consume(chain, sent);
            all += sent;
            if sent < len {
                break;
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(chunks: &Chunks, chain: &Chain) -> Vec<u8> {
        let (mut all, mut at) = (Vec::new(), chain.head);
        while at != NONE {
            all.extend(&chunks.chunks[index(at)].bytes[Chunks::span(chain, at)]);
            at = if at == chain.tail { NONE } else { chunks.chunks[index(at)].next };
        }
        all
    }

    #[test]
    fn what_does_not_fit_is_not_begun() {
        let mut chunks = Chunks::new(2);
        let (mut a, mut b) = (Chain::EMPTY, Chain::EMPTY);
        assert!(chunks.append(&mut a, &[&[1; CHUNK_BYTES + 1]]));
        assert!(!chunks.append(&mut b, &[&[2]]) && b.is_empty());
        assert!(!chunks.append(&mut a, &[&[2; CHUNK_BYTES]]) && a.len() == CHUNK_BYTES + 1);
        assert!(chunks.append(&mut a, &[&[2; CHUNK_BYTES - 1]]));
        chunks.release(&mut a);
        assert!(chunks.append(&mut b, &[&[2; 2 * CHUNK_BYTES]]));
    }

    proptest! {
        #[test]
        fn chains_are_queues_of_bytes(steps in prop::collection::vec((0_usize..1300, 0_usize..1300, 0_usize..6), 1..40)) {
            let mut chunks = Chunks::new(200);
            let (mut chain, mut model, mut next) = (Chain::EMPTY, Vec::new(), 0_u8);
            for (put, taken, skip) in steps {
                let more: Vec<u8> = (0..put).map(|_| { next = next.wrapping_add(1); next }).collect();
                let (left, right) = more.split_at(put / 3);
                if chunks.append(&mut chain, &[left, right]) {
                    model.extend(more);
                }
                let taken = taken.min(model.len());
                chunks.consume(&mut chain, taken);
                model.drain(..taken);
                prop_assert_eq!(&bytes(&chunks, &chain), &model);
                prop_assert!(model.starts_with(chunks.first(&chain)));
                let mut copy = Chain::EMPTY;
                if chunks.append_chain(&mut copy, b"head", &chain, skip) {
                    let expected = [b"head", &model[skip.min(model.len())..]].concat();
                    prop_assert_eq!(bytes(&chunks, &copy), expected);
                }
                chunks.release(&mut copy);
                let mut told: Vec<u8> = Vec::new();
                chunks.copy_from(&chain, skip, |bytes| told.extend(bytes));
                prop_assert_eq!(&told, &model[skip.min(model.len())..]);
                prop_assert_eq!(chain.is_empty(), chunks.used() == 0);
            }
            chunks.release(&mut chain);
            prop_assert_eq!(chunks.used(), 0);
        }
    }
}
