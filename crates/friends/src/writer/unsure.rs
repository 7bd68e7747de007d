//! Doorbells over which their sender was killed: announced, and sent or not. The kernel knows, and the next who rings asks it.

use super::Writer;
use crate::layout::WriterLines;
use crate::reader::unsure::{PIPE, UNSURE_PIPE};
use crate::reason::Broken;
use crate::sync::{AtomicU32, Ordering};

/// Set beside a count of doorbells that are owed: they may have been sent.
pub(super) const UNSURE: u32 = 1 << 31;

impl Writer<'_> {
    /// To be said after [`crate::Lock::take_over`] or [`crate::Lock::bury`]. What the dead owner had in a send by TCP keeps the direction there, and needs no
    /// mend. Doorbells that it had announced may have been sent.
    pub fn taken_over(&self) {
        let WriterLines { owed, pipe_owed, .. } = &self.flow.writer;
        for word in [owed, pipe_owed].into_iter().filter(|word| count(word) > 0) {
            word.fetch_or(UNSURE, Ordering::Relaxed);
        }
    }

    /// Whether doorbells that are owed by TCP, or by the pipe, may have been sent. Before any is sent [`Writer::has_sent`] and
    /// [`Writer::pipe_holds`] are to be said.
    #[must_use]
    pub fn is_unsure(&self) -> (bool, bool) {
        let WriterLines { owed, pipe_owed, .. } = &self.flow.writer;
        let unsure = |word: &AtomicU32| word.load(Ordering::Relaxed) & UNSURE != 0;
        (unsure(owed), unsure(pipe_owed))
    }

    /// So many bytes were ever sent by TCP, the kernel says. What is owed now is sure.
    ///
    /// # Errors
    /// [`Broken::Abandoned`]: more than the doorbells is unknown.
    pub fn has_sent(&self, sent: u64) -> Result<(), Broken> {
        let missing = self.sent_by_tcp().checked_sub(sent).and_then(|missing| u32::try_from(missing).ok());
        let missing = missing.filter(|&missing| missing <= self.owed()).ok_or(Broken::Abandoned)?;
        self.flow.writer.owed.store(missing, Ordering::Relaxed);
        Ok(())
    }

    /// How many doorbells the reader's pipe holds if all that were announced were written; `None`: it may be taking some, look again. Not its
    /// lock is asked for that: it may have it and wait for the writer's. The answer holds if it's the same after the pipe was looked at.
    #[must_use]
    pub fn pipe_expects(&self) -> Option<u64> {
        let swallowing = self.flow.reader.swallowing.load(Ordering::Acquire) & (PIPE | UNSURE_PIPE) != 0;
        let read = self.flow.signals.pipe_read.load(Ordering::Acquire);
        (!swallowing).then(|| self.flow.switch.piped.load(Ordering::Relaxed).saturating_sub(read))
    }

    /// The reader's pipe holds so many of the doorbells that it should. What is owed now is sure.
    ///
    /// # Errors
    /// [`Broken::Abandoned`]: it isn't a matter of what is owed.
    pub fn pipe_holds(&self, bells: u64, expected: u64) -> Result<(), Broken> {
        let missing = expected.checked_sub(bells).and_then(|missing| u32::try_from(missing).ok());
        let missing = missing.filter(|&missing| missing <= self.pipe_owed()).ok_or(Broken::Abandoned)?;
        self.flow.writer.pipe_owed.store(missing, Ordering::Relaxed);
        Ok(())
    }
}

/// Doorbells that are owed.
pub(super) fn count(word: &AtomicU32) -> u32 {
    word.load(Ordering::Relaxed) & !UNSURE
}
