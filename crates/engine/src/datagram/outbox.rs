//! Datagrams that are to go out, in the order in which the program sent them.

use super::{DATAGRAM_BYTES_MAX, Flow};

/// Datagrams that an outbox holds, whatever their length.
const ENTRIES_MAX: usize = 512;
/// Datagrams that go down in one piece (`UDP_MAX_SEGMENTS` of linux/udp.h, before Linux 6.9 made it 128).
const SEGMENTS_MAX: usize = 64;

/// Where a datagram lies. Invariant: each begins where the one before ended.
#[derive(Clone, Copy, Debug)]
struct Entry {
    flow: Flow,
    start: u32,
    len: u32,
}

/// What a socket has to send. All of its room is made with it.
#[derive(Debug)]
pub(crate) struct Outbox {
    bytes: Box<[u8]>,
    entries: Vec<Entry>,
    /// Entries at the front that have gone.
    gone: usize,
}

impl Outbox {
    pub(crate) fn new(bytes: u32) -> Self {
        Self { bytes: vec![0; bytes as usize].into_boxed_slice(), entries: Vec::with_capacity(ENTRIES_MAX), gone: 0 }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The longest datagram that fits when nothing else is in it.
    pub(crate) const fn longest(&self) -> usize {
        if self.bytes.len() < DATAGRAM_BYTES_MAX { self.bytes.len() } else { DATAGRAM_BYTES_MAX }
    }

    /// Copies a datagram in; false if there's no room.
    pub(crate) fn push(&mut self, flow: Flow, bytes: &[u8]) -> bool {
        if (self.entries.len() == ENTRIES_MAX || self.end() + bytes.len() > self.bytes.len()) && self.gone > 0 {
            self.close_up();
        }
        let start = self.end();
        let Some(room) = self.bytes.get_mut(start..start + bytes.len()) else { return false };
        let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(bytes.len())) else { return false };
        if self.entries.len() == ENTRIES_MAX {
            return false;
        }
        room.copy_from_slice(bytes);
        self.entries.push(Entry { flow, start, len });
        true
    }

    /// What is to go out.
    pub(crate) fn departures(&self) -> Departures<'_> {
        Departures { bytes: &self.bytes, entries: &self.entries[self.gone..] }
    }

    /// Drops the first `count`.
    pub(crate) fn spend(&mut self, count: usize) {
        self.gone += count;
        debug_assert!(self.gone <= self.entries.len(), "more went out than there was");
        if self.gone >= self.entries.len() {
            self.entries.clear();
            self.gone = 0;
        }
    }

    fn end(&self) -> usize {
        self.entries.last().map_or(0, |last| last.start as usize + last.len as usize)
    }

    /// Moves what is left to the front.
    fn close_up(&mut self) {
        let (first, end) = (self.entries[self.gone].start, self.end());
        self.bytes.copy_within(first as usize..end, 0);
        self.entries.drain(..self.gone);
        self.gone = 0;
        for entry in &mut self.entries {
            entry.start -= first;
        }
    }
}

/// Datagrams that are to go out, first come first.
#[derive(Clone, Copy, Debug)]
pub struct Departures<'a> {
    bytes: &'a [u8],
    entries: &'a [Entry],
}

impl<'a> Departures<'a> {
    /// How many there are; at least one when a backend is given them.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The datagram at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(Flow, &'a [u8])> {
        let entry = self.entries.get(index)?;
        Some((entry.flow, &self.bytes[entry.start as usize..][..entry.len as usize]))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Flow, &'a [u8])> {
        let bytes = self.bytes;
        self.entries.iter().map(move |entry| (entry.flow, &bytes[entry.start as usize..][..entry.len as usize]))
    }

    /// How many datagrams from `index` on could go down as one piece that is cut up into their length, and that piece: of one flow, as
    /// long as the first, of which the last may be shorter. One, if the first is longer than `segment_bytes_max`.
    pub(crate) fn piece(&self, index: usize, segment_bytes_max: usize) -> Option<(usize, &'a [u8])> {
        let rest = self.entries.get(index..)?;
        let first = rest.first()?;
        let (mut count, mut total) = (1, first.len as usize);
        if total > 0 && total <= segment_bytes_max {
            for next in &rest[1..] {
                let len = next.len as usize;
                if next.flow != first.flow
                    || next.len == 0
                    || next.len > first.len
                    || total + len > DATAGRAM_BYTES_MAX
                    || count == SEGMENTS_MAX
                {
                    break;
                }
                count += 1;
                total += len;
                if next.len < first.len {
                    break;
                }
            }
        }
        Some((count, &self.bytes[first.start as usize..][..total]))
    }
}
