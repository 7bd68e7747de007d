//! Sleeping on a word in memory, and waking who sleeps there (futex(2)). The words may be shared between processes.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::{Errno, system};

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Woken, or the word had changed.
    Up,
    /// The time is over.
    Late,
    /// A signal's handler has run.
    Interrupted,
}

/// Sleeps while the word is `value`, at most for `limit`.
pub(crate) fn sleep(word: &AtomicU32, value: u32, limit: Duration) -> Woken {
    let limit = libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    let (place, limit) = (word.as_ptr().expose_provenance(), (&raw const limit).expose_provenance());
    // SAFETY: the word lives while the call runs, and the limit is a timespec of ours.
    let answer =
        unsafe { system(libc::SYS_futex, [place, super::word(libc::FUTEX_WAIT), value as usize, limit, 0, 0]) };
    match answer {
        Err(Errno(libc::ETIMEDOUT)) => Woken::Late,
        Err(Errno(libc::EINTR)) => Woken::Interrupted,
        _ => Woken::Up,
    }
}

/// Wakes at most `count` that sleep on the word.
pub(crate) fn wake(word: &AtomicU32, count: i32) {
    let place = word.as_ptr().expose_provenance();
    // SAFETY: the word lives while the call runs; the call doesn't read it.
    unsafe { system(libc::SYS_futex, [place, super::word(libc::FUTEX_WAKE), super::word(count), 0, 0, 0]) }.ok();
}
