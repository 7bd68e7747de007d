//! The word by which a direction is switched: an epoch, whether it's the last one, and how many readers are inside.
//!
//! In an even epoch bytes go by TCP, in an odd one by the ring. A reader that receives TCP's bytes adds itself to the count, and can
//! only where the epoch is even; the writer makes the epoch odd only where the count is 0. Both change the one word, so whichever comes
//! second sees the first: no fence, and nothing to take back. An odd epoch has no reader inside.

/// Whether and how to go by the ring, as one look saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate(pub(crate) u64);

/// Set once the direction stays with TCP.
pub(crate) const FINAL: u64 = 1 << 31;
/// Added by a reader that goes inside.
pub(crate) const INSIDE: u64 = 1;
const INSIDE_MASK: u64 = FINAL - 1;
const EPOCH: u64 = 1 << 32;

impl Gate {
    /// Whether bytes go by the ring.
    pub(crate) const fn ring(self) -> bool {
        self.0 & EPOCH != 0
    }

    /// Whether the direction stays with TCP for good.
    pub(crate) const fn last(self) -> bool {
        self.0 & FINAL != 0
    }

    /// Readers inside a receive.
    pub(crate) const fn inside(self) -> u64 {
        self.0 & INSIDE_MASK
    }

    /// How often the direction was switched.
    pub(crate) const fn epoch(self) -> u64 {
        self.0 / EPOCH
    }

    /// The same with nobody inside.
    #[cfg(not(loom))]
    pub(crate) const fn alone(self) -> Self {
        Self(self.0 & !INSIDE_MASK)
    }

    /// The next epoch, with nobody inside.
    pub(crate) const fn switched(self) -> Self {
        Self(self.epoch().wrapping_add(1).wrapping_mul(EPOCH))
    }

    /// One more reader inside; `None` where no more can be counted.
    pub(crate) fn entered(self) -> Option<Self> {
        (self.inside() < INSIDE_MASK).then_some(Self(self.0.wrapping_add(INSIDE)))
    }
}
