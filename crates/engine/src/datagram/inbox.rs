//! A batch of datagrams that have come.

use super::Flow;

/// Pieces that are fetched at once: a datagram each, or several of one flow that came together.
pub const SLOTS: usize = 16;
/// Room for a piece: the longest datagram over either IP, or all that the system puts together.
pub(crate) const SLOT_BYTES: usize = 64 * 1024;
/// Datagrams in a piece, at most (`UDP_GRO_CNT_MAX` of net/ipv4/udp_offload.c).
const SEGMENTS_MAX: usize = 64;

/// Where a datagram lies in the buffer.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    flow: Flow,
    start: u32,
    len: u32,
}

/// What lies in an inbox's buffer.
#[derive(Debug)]
pub(crate) struct Arrivals {
    arrived: Vec<Arrived>,
    truncated: u64,
}

impl Arrivals {
    /// Notes what lies at `start`: a datagram, or several of `segment` bytes each, of which the last may be shorter. What there's no
    /// room to note counts as truncated.
    pub(crate) fn note(&mut self, flow: Flow, start: usize, len: usize, segment: Option<usize>) {
        let segment = segment.filter(|segment| *segment > 0).unwrap_or(len);
        let end = start + len;
        let mut start = start;
        loop {
            let len = segment.min(end - start);
            self.note_one(flow, start, len);
            start += len;
            if start >= end {
                return;
            }
        }
    }

    fn note_one(&mut self, flow: Flow, start: usize, len: usize) {
        match (u32::try_from(start), u32::try_from(len)) {
            (Ok(start), Ok(len)) if self.arrived.len() < SLOTS * SEGMENTS_MAX => {
                self.arrived.push(Arrived { flow, start, len });
            }
            _ => self.truncated += 1,
        }
    }

    /// Counts a datagram that was longer than its slot.
    pub(crate) const fn note_truncated(&mut self) {
        self.truncated += 1;
    }
}

/// A batch of datagrams that have come, as a backend fills it. One a core, made once.
#[derive(Debug)]
pub struct Inbox {
    buffer: Box<[u8]>,
    arrivals: Arrivals,
    /// Bytes of `buffer` that [`Inbox::push`] has filled.
    filled: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            buffer: vec![0; SLOTS * SLOT_BYTES].into_boxed_slice(),
            arrivals: Arrivals { arrived: Vec::with_capacity(SLOTS * SEGMENTS_MAX), truncated: 0 },
            filled: 0,
        }
    }
}

impl Inbox {
    /// Copies a datagram in; false, and nothing is kept, if there's no room for it in this batch.
    pub fn push(&mut self, flow: Flow, bytes: &[u8]) -> bool {
        let Some(room) = self.buffer[self.filled..].get_mut(..bytes.len()) else { return false };
        if self.arrivals.arrived.len() == SLOTS * SEGMENTS_MAX {
            return false;
        }
        room.copy_from_slice(bytes);
        self.arrivals.note_one(flow, self.filled, bytes.len());
        self.filled += bytes.len();
        true
    }

    /// Counts a datagram that was too long for the backend, and is gone.
    pub const fn note_truncated(&mut self) {
        self.arrivals.note_truncated();
    }

    /// How many datagrams there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.arrivals.arrived.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The datagram at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(Flow, &[u8])> {
        let Arrived { flow, start, len } = *self.arrivals.arrived.get(index)?;
        Some((flow, &self.buffer[start as usize..][..len as usize]))
    }

    /// Datagrams of this batch that were dropped because they were too long.
    pub(crate) const fn truncated(&self) -> u64 {
        self.arrivals.truncated
    }

    pub(crate) fn clear(&mut self) {
        self.arrivals.arrived.clear();
        self.arrivals.truncated = 0;
        self.filled = 0;
    }

    /// The buffer, which is [`SLOTS`] times [`SLOT_BYTES`] long, and what is noted of it: for a backend that reads in place.
    pub(crate) const fn parts_mut(&mut self) -> (&mut [u8], &mut Arrivals) {
        (&mut self.buffer, &mut self.arrivals)
    }
}
