//! Calls that a signal's handler has left by siglongjmp(3), and that never return. What such a call had is its thread's still, and is had back
//! when the thread calls again. So it is with a call in which its thread was cancelled (pthread_cancel(3)), at the thread's end.
//!
//! Whether a call was left or only interrupted the stack tells, which grows down: a handler runs below the call that it interrupted, and who calls
//! again after a leap stands above that, or beside it. One that stands lower is taken for a handler until a call comes from further up.

use std::hint::black_box;

use crate::link::Link;
use crate::pool;
use crate::sys::{call, threads};
use crate::thread::{Own, own};

/// Below the call that it interrupts a handler has a frame of the kernel's, in which the CPU's registers are: more than a kilobyte. Half of it is
/// for the frames between a call and where it says that it stands.
const FRAME: u32 = 512;

/// How high a call of this thread stands: above all its stack's end, and not by its address, since a peer sees it.
#[inline]
pub(crate) fn height(own: &Own) -> u32 {
    let local = 0_u8;
    let above = black_box(&raw const local).addr().wrapping_sub(own.below_stack());
    #[expect(clippy::cast_possible_truncation, reason = "no stack has more than two gigabytes")]
    return above as u32;
}

/// Whether the call of this thread that stands as high as `before` was left, now that one stands so high. Where there's none, or the latter is a
/// handler's on a stack of its own, it wasn't.
pub(crate) fn was_left(before: Option<u32>, now: u32) -> bool {
    before.is_some_and(|before| now > before.saturating_sub(FRAME)) && !call::is_on_signal_stack()
}

/// A call sleeps that uses an end: if it's left, the end is given back when the thread sleeps again. Until then it isn't freed.
pub(crate) fn asleep<T>(link: &Link, sleep: impl FnOnce() -> T) -> T {
    let (here, mut before) = own(|own| {
        if !own.is_minded.replace(true) {
            threads::at_end(ended);
        }
        let here = height(own);
        (here, own.asleep.replace(Some((here, std::ptr::from_ref(link).addr()))))
    });
    if let Some((height, left)) = before
        && was_left(Some(height), here)
    {
        give_back(left);
        before = None;
    }
    let answer = sleep();
    own(|own| own.asleep.set(before));
    answer
}

/// The thread ends. Where it was cancelled, a call of its own was asleep, and never returns.
fn ended() {
    if let Some((_, left)) = own(|own| own.asleep.take()) {
        give_back(left);
    }
}

/// The end whose link has this address isn't used any more by a call that was left.
#[cold]
fn give_back(link: usize) {
    if let Some(end) = pool::used().iter().find(|end| std::ptr::from_ref(&end.link).addr() == link) {
        end.was_left();
    }
}
