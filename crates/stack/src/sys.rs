//! Memory shared with the kernel, and system calls without a safe wrapper. All unsafe code of the crate is here and below.
#![expect(unsafe_code, reason = "memory shared with the kernel, and a system call without a safe wrapper")]

use std::ops::Range;

mod cell;
mod device;
mod halves;
mod map;
mod ring;

#[cfg(test)]
pub(crate) use cell::SOCKET_BYTES;
pub(crate) use cell::{Arena, Cell};
pub(crate) use device::{make_tun, receive_queues};
#[cfg(fuzzing)]
pub use halves::fuzz_rings;
pub(crate) use halves::{FRAME_BYTES, Rings, open_rings};
pub use halves::{RxHalf, TxHalf};

/// Bytes of a line of the caches.
const LINE_BYTES: usize = 64;

/// Has the processor fetch memory into its caches while the program goes on. It doesn't matter whose it is, or if it's there. Does nothing on
/// processors for which Rust has no stable way to say so.
#[inline]
pub(crate) fn prefetch(memory: &Range<*const u8>) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..memory.end.addr().saturating_sub(memory.start.addr())).step_by(LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: this processor has the instruction (SSE), which is a hint: it reads nothing, and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.start.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = memory;
}
