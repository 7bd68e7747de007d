//! The atomics that the protocol is written with: the processor's, or loom's where its models are checked.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Between a store and a load that only the compiler mustn't exchange: who looks from the other side has every CPU make up for it.
#[cfg(not(loom))]
pub(crate) fn borrower_barrier() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Loom knows no barrier on other threads' part: here either side has its own.
#[cfg(loom)]
pub(crate) fn borrower_barrier() {
    fence(Ordering::SeqCst);
}
