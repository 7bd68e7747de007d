//! Doorbells over which their reader was killed: taken, and not counted. The kernel knows how many, and the next who takes some asks it.

use super::Reader;
use crate::layout::Flow;
use crate::lock::Lock;
use crate::reason::Broken;
use crate::sync::Ordering;

/// What `swallowing` says: doorbells are being taken from the socket, or from the pipe.
pub(super) const SOCKET: u32 = 1;
pub(crate) const PIPE: u32 = 2;
/// Some may have been, by one who was killed.
const UNSURE_SOCKET: u32 = 4;
pub(crate) const UNSURE_PIPE: u32 = 8;

impl Reader<'_> {
    /// To be said after [`crate::Lock::take_over`] or [`crate::Lock::bury`]. A dead owner that was inside a receive by TCP keeps the
    /// direction there, and needs no mend; what it had copied from the ring and not taken is still there. Doorbells that it was taking
    /// may be gone.
    pub fn taken_over(&self) {
        for (now, unsure) in [(SOCKET, UNSURE_SOCKET), (PIPE, UNSURE_PIPE)] {
            if self.swallowing() & now != 0 {
                self.flow.reader.swallowing.store(self.swallowing() & !now | unsure, Ordering::Release);
            }
        }
    }

    /// Whether doorbells may have been taken from the socket, or from the pipe, that weren't counted. Before any is taken there
    /// [`Reader::has_received`], or [`Reader::pipe_holds`], is to be said.
    #[must_use]
    pub fn is_unsure(&self) -> (bool, bool) {
        let word = self.swallowing();
        (word & UNSURE_SOCKET != 0, word & UNSURE_PIPE != 0)
    }

    /// So many bytes were ever received by TCP, the kernel says; `None`: it has none any more. What is counted now is sure. Answers how many doorbells
    /// were taken and not counted.
    ///
    /// # Errors
    /// [`Broken::Abandoned`]: more than the doorbells is unknown.
    pub fn has_received(&self, received: Option<u64>) -> Result<usize, Broken> {
        let Flow { switch, signals, .. } = self.flow;
        let counted = signals.tcp_read.load(Ordering::Acquire);
        let bells = switch.bells_to.load(Ordering::Acquire).saturating_sub(counted);
        let taken = received.map_or(Some(0), |received| received.checked_sub(counted));
        let taken = taken.filter(|&taken| taken <= bells).ok_or(Broken::Abandoned)?;
        signals.tcp_read.fetch_add(taken, Ordering::Release);
        self.ends(UNSURE_SOCKET);
        usize::try_from(taken).map_err(|_| Broken::Abandoned)
    }

    /// How many doorbells were ever announced for the pipe, all of which have been written to it; `None`: one may be under way, look again. The answer
    /// holds if it's the same after the pipe was looked at.
    #[must_use]
    pub fn pipe_announced(&self) -> Option<u64> {
        let Flow { switch, writer, .. } = self.flow;
        let under_way = Lock::new(&writer.lock).is_held() || writer.pipe_owed.load(Ordering::Acquire) != 0;
        (!under_way).then(|| switch.piped.load(Ordering::Acquire))
    }

    /// The pipe holds so many doorbells of those that were announced. What is counted now is sure.
    ///
    /// # Errors
    /// [`Broken::Abandoned`]: it holds others.
    pub fn pipe_holds(&self, bells: u64, announced: u64) -> Result<(), Broken> {
        let word = &self.flow.signals.pipe_read;
        let read = announced.checked_sub(bells).filter(|&read| read >= word.load(Ordering::Relaxed));
        word.store(read.ok_or(Broken::Abandoned)?, Ordering::Release);
        self.ends(UNSURE_PIPE);
        Ok(())
    }

    /// Doorbells will be taken.
    pub(super) fn begins(&self, what: u32) {
        self.flow.reader.swallowing.store(self.swallowing() | what, Ordering::Relaxed);
    }

    /// They are counted. Who sees that sees the count.
    pub(super) fn ends(&self, what: u32) {
        self.flow.reader.swallowing.store(self.swallowing() & !what, Ordering::Release);
    }

    fn swallowing(&self) -> u32 {
        self.flow.reader.swallowing.load(Ordering::Relaxed)
    }
}
