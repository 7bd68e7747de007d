//! Which signal handlers the program has: whether a call that one interrupted goes on (`SA_RESTART`, signal(7)).

use std::sync::atomic::{AtomicU64, Ordering};

/// Signals whose handlers let calls go on, and those whose don't, a bit each.
static RESTARTING: AtomicU64 = AtomicU64::new(0);
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// What becomes of a sleep that a handler interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The call fails (EINTR).
    Interrupt,
    /// The call goes on.
    Restart,
    /// It depends on which handler it was.
    Unknown,
}

/// What becomes of a receive or send that was interrupted; `limited`: its socket has a time limit, then it always fails.
pub(crate) fn verdict(limited: bool) -> Verdict {
    let (restarting, interrupting) = (RESTARTING.load(Ordering::Relaxed), INTERRUPTING.load(Ordering::Relaxed));
    match (limited || interrupting != 0, restarting != 0) {
        _ if limited => Verdict::Interrupt,
        (true, false) => Verdict::Interrupt,
        (false, true) => Verdict::Restart,
        _ => Verdict::Unknown,
    }
}

/// The program has set what a signal does.
pub fn noted(signal: i32, handled: bool, restarts: bool) {
    let Ok(place) = u32::try_from(signal - 1) else { return };
    let Some(bit) = 1_u64.checked_shl(place) else { return };
    let set = |word: &AtomicU64, on: bool| {
        if on {
            word.fetch_or(bit, Ordering::Relaxed)
        } else {
            word.fetch_and(!bit, Ordering::Relaxed)
        };
    };
    set(&RESTARTING, handled && restarts);
    set(&INTERRUPTING, handled && !restarts);
}
