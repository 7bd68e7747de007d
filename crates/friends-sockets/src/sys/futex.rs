//! Sleeping on a word in memory, and waking who sleeps there (futex(2)). The words may be shared between processes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::{Answer, Errno, call, system};

/// The word has 32 bits, and other processes have it too (`FUTEX2_SIZE_U32` without `FUTEX2_PRIVATE`, linux/futex.h).
const SHARED_WORD: u32 = 2;

/// Whether [`sleep_as_called`] is to be had.
static RESTARTS: AtomicBool = AtomicBool::new(false);

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

fn time(time: Duration) -> libc::timespec {
    let seconds = time.as_secs().try_into().unwrap_or(libc::time_t::MAX);
    libc::timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() }
}

fn woken(answer: Answer) -> Woken {
    match answer {
        Err(Errno(libc::ETIMEDOUT)) => Woken::Late,
        Err(Errno(libc::EINTR)) => Woken::Interrupted,
        _ => Woken::Up,
    }
}

/// Sleeps while the word is `value`, at most for `limit`. Every signal's handler ends it, as it ends calls that have a time limit.
pub(crate) fn sleep(word: &AtomicU32, value: u32, limit: Duration) -> Woken {
    let limit = time(limit);
    let (place, limit) = (word.as_ptr().expose_provenance(), (&raw const limit).expose_provenance());
    // SAFETY: the word lives while the call runs, and the limit is a timespec of ours.
    let answer =
        unsafe { system(libc::SYS_futex, [place, super::word(libc::FUTEX_WAIT), value as usize, limit, 0, 0]) };
    woken(answer)
}

/// The same for a call of the program's that has no limit: a signal's handler ends it as it would end that, and doesn't where it has calls go on (`SA_RESTART`,
/// signal(7)). futex_waitv(2), Linux 5.16; to be had where [`are_restarted`] says so.
pub(crate) fn sleep_as_called(word: &AtomicU32, value: u32, limit: Duration) -> Woken {
    let until = time(Duration::from_nanos(call::now()) + limit);
    // struct futex_waitv: the value, the address, flags and nothing.
    let waiter = [u64::from(value), word.as_ptr().expose_provenance() as u64, u64::from(SHARED_WORD)];
    let (waiter, until) = (waiter.as_ptr().expose_provenance(), (&raw const until).expose_provenance());
    let clock = super::word(libc::CLOCK_MONOTONIC);
    // SAFETY: the word lives while the call runs; the waiter and the time are ours.
    woken(unsafe { system(libc::SYS_futex_waitv, [waiter, 1, 0, until, clock, 0]) })
}

/// Finds out whether the kernel has [`sleep_as_called`], before the program runs.
pub(super) fn find() {
    // SAFETY: of no waiters there's nothing to read.
    let answer = unsafe { system(libc::SYS_futex_waitv, [0; 6]) };
    RESTARTS.store(answer == Err(Errno(libc::EINVAL)), Ordering::Relaxed);
}

/// Whether it has. Where not, calls that may be interrupted sleep in the kernel on their socket.
pub(crate) fn are_restarted() -> bool {
    RESTARTS.load(Ordering::Relaxed)
}

/// Wakes at most `count` that sleep on the word.
pub(crate) fn wake(word: &AtomicU32, count: i32) {
    let place = word.as_ptr().expose_provenance();
    // SAFETY: the word lives while the call runs; the call doesn't read it.
    unsafe { system(libc::SYS_futex, [place, super::word(libc::FUTEX_WAKE), super::word(count), 0, 0, 0]) }.ok();
}
