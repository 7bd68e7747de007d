//! Calls that a signal's handler has left by siglongjmp(3), and that never return. What such a call had is its thread's still, and is had back
//! when the thread calls again.
//!
//! Whether a call was left or only interrupted the stack tells, which grows down: a handler runs below the call that it interrupted, and who calls
//! again after a leap stands above that, or beside it. One that stands lower is taken for a handler until a call comes from further up.

use std::cell::Cell;
use std::hint::black_box;

use crate::link::Link;
use crate::pool;
use crate::sys::call;

/// Below the call that it interrupts a handler has a frame of the kernel's, in which the CPU's registers are: more than a kilobyte. Half of it is
/// for the frames between a call and where it stands by its [`Place`].
const FRAME: usize = 512;

thread_local! {
    /// Where the innermost call of this thread stands that has, or asks for, a lock; 0: none has.
    static INNERMOST: Cell<usize> = const { Cell::new(0) };
    /// Where the innermost call stands that sleeps, and its end's link, by its address; 0: none does.
    static ASLEEP: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Where a call stands on the stack, for as long as it's the innermost.
#[derive(Debug)]
pub(crate) struct Place {
    before: usize,
}

impl Place {
    /// Here.
    #[inline]
    pub(crate) fn take() -> Self {
        Self { before: INNERMOST.replace(here()) }
    }

    /// Of the innermost: whether the one before it was left.
    #[cold]
    pub(crate) fn was_left(&self) -> bool {
        was_left(self.before, INNERMOST.get())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        INNERMOST.set(self.before);
    }
}

/// Whether the call that stood at `before` was left, now that one stands at `place`. Where there was none, or the latter is a handler's on a stack of
/// its own, it wasn't.
fn was_left(before: usize, place: usize) -> bool {
    before != 0 && place + FRAME >= before && !call::is_on_signal_stack()
}

/// A call sleeps that uses an end: if it's left, the end is given back when the thread sleeps again. Until then it isn't freed.
pub(crate) fn asleep<T>(link: &Link, sleep: impl FnOnce() -> T) -> T {
    let place = here();
    let mut before = ASLEEP.replace((place, std::ptr::from_ref(link).addr()));
    if was_left(before.0, place) {
        give_back(0, |link| std::ptr::from_ref(link).addr() == before.1);
        before = (0, 0);
    }
    let answer = sleep();
    ASLEEP.set(before);
    answer
}

/// The end whose link it is isn't used any more by a call that was left, beside so many that do use it.
#[cold]
pub(crate) fn give_back(users: i32, is_its: impl Fn(&Link) -> bool) {
    if let Some(end) = pool::used().iter().find(|end| is_its(&end.link)) {
        end.was_left(users);
    }
}

/// An address in the caller's frame, or just below it.
#[inline]
fn here() -> usize {
    let place = 0_u8;
    black_box(&raw const place).addr()
}
