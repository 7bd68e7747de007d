//! What the reader needs once a piece was put, and what it costs to know.
//!
//! Who puts bytes and who is about to sleep do the same: each stores and then looks at the other's word, and one of them has to see the other. For
//! that both need a fence in between. The writer's costs it a wait at each piece, until all it has copied is in the cache; the reader's costs it
//! nothing, since it goes to sleep. So a writer that has put many pieces in a row and woken nobody leaves its own out from then on. It's *calm*, and says
//! so in the segment; a reader that says that it's to be woken then has the kernel put a barrier on all CPUs that run one who may write
//! (membarrier(2), Linux 4.16), as who [recalls](crate::Lock::recall) a lock does. With the first wake that ends.
//!
//! A writer that becomes calm says so before a last fence: so a reader that doesn't see it is seen by that very look. And where `attention` isn't 0 the
//! writer has a fence after all and looks again, since what it does then, as to see whether a doorbell still stands, is of the same kind.

use super::{Wake, Writer};
use crate::layout::Flow;
use crate::sync::{Ordering, borrower_barrier, fence};

/// Pieces in a row that woke nobody, after which the writer is calm. Each saves some nanoseconds; a barrier costs its reader some microseconds, and every
/// CPU that runs a friend an interrupt: with so many pieces before, what was saved is more on a host of some tens of CPUs too.
const CALM_AFTER: u32 = if cfg!(loom) { 1 } else { 1 << 12 };

impl Writer<'_> {
    /// What the reader needs now that a piece was put, if it needs anything. Either the reader, about to sleep, sees its bytes, or its wish to be woken is seen here.
    #[inline]
    pub(super) fn look_at_reader(&self) -> Option<Wake> {
        let Flow { switch, signals, .. } = self.flow;
        if switch.calm.load(Ordering::Relaxed) != 0 {
            borrower_barrier();
        } else {
            self.grow_calm();
            fence(Ordering::SeqCst);
        }
        if signals.attention.load(Ordering::Relaxed) == 0 { None } else { self.attend() }
    }

    /// Counts a piece for which the writer has a fence, and does without from the next on.
    fn grow_calm(&self) {
        let Flow { switch, writer, .. } = self.flow;
        let pieces = writer.calm_pieces.load(Ordering::Relaxed);
        if pieces < CALM_AFTER {
            writer.calm_pieces.store(pieces + 1, Ordering::Relaxed);
        } else if writer.lock.all_may_recall() {
            switch.calm.store(1, Ordering::Relaxed);
        }
    }

    /// The reader has said that it's to be woken, now or long ago.
    #[cold]
    fn attend(&self) -> Option<Wake> {
        let Flow { switch, signals, writer, .. } = self.flow;
        fence(Ordering::SeqCst);
        let wake = self.rouse(signals.attention.load(Ordering::Relaxed));
        if wake == Wake::default() {
            return None;
        }
        writer.calm_pieces.store(0, Ordering::Relaxed);
        if switch.calm.load(Ordering::Relaxed) != 0 {
            switch.calm.store(0, Ordering::Relaxed);
        }
        Some(wake)
    }
}
