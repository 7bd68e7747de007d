//! What is counted, for a status to show.

use crate::gate::Gate;
use crate::layout::Flow;
use crate::reason::Plain;
use crate::sync::{AtomicU64, Ordering};

/// A direction's counters, as one look saw them. A hostile peer may have written any numbers: they are for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Bytes put into the ring, ever.
    pub ring_bytes: u64,
    /// Bytes in the ring, not taken yet.
    pub waiting_bytes: u64,
    /// Bytes of data sent by TCP.
    pub tcp_bytes: u64,
    /// Switches from TCP to the ring.
    pub switches: u64,
    /// Doorbells.
    pub bells: u64,
    /// Futex wakes of the reader.
    pub wakes: u64,
    /// Whether bytes go by the ring now.
    pub ring: bool,
    /// Whether the direction stays with TCP for good.
    pub last: bool,
    returns: [u64; Plain::ALL.len()],
}

impl Tally {
    pub(crate) fn of(flow: &Flow) -> Self {
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let gate = Gate(read(&flow.switch.gate));
        let (head, bells) = (read(&flow.put.head), read(&flow.writer.bells));
        let mut returns = [0; Plain::ALL.len()];
        for (count, word) in returns.iter_mut().zip(&flow.writer.returns) {
            *count = read(word);
        }
        Self {
            ring_bytes: head,
            waiting_bytes: head.wrapping_sub(read(&flow.taken.tail)),
            tcp_bytes: read(&flow.writer.tcp_sent).wrapping_sub(bells),
            switches: gate.epoch().div_ceil(2),
            bells,
            wakes: read(&flow.writer.wakes),
            ring: gate.ring(),
            last: gate.last(),
            returns,
        }
    }

    /// How often the direction went back to TCP, or was told to stay there, for this reason.
    #[must_use]
    pub fn returns(&self, why: Plain) -> u64 {
        self.returns[why.index()]
    }
}

/// Adds to a counter that only the holder of a lock writes.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
