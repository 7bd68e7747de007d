//! Calls that a signal's handler has left by siglongjmp(3), and that never return. What such a call had is its thread's still, and is had back
//! when the thread calls again.
//!
//! Whether a call was left or only interrupted the stack tells, which grows down: a handler runs below the call that it interrupted, and who calls
//! again after a leap stands above that, or beside it. One that stands lower is taken for a handler until a call comes from further up.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::link::Link;
use crate::pool;
use crate::sys::call;
use crate::sys::own::own;

/// Below the call that it interrupts a handler has a frame of the kernel's, in which the CPU's registers are: more than a kilobyte. Half of it is
/// for the frames between a call and where it says that it stands. In [`STEP`]s.
const FRAME: u64 = 512 / STEP;

/// Bytes of the stack that one step is high, and bits of a height: of programs' addresses Linux gives out 47 or 48 bits unasked.
const STEP: u64 = 64;
const HEIGHT_BITS: u32 = 42;

/// Where a call stands: above [`HEIGHT_BITS`] its thread's number, below how high on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// That of the calling function, in this thread.
    #[inline]
    pub(crate) fn here(thread: u32) -> Self {
        let local = 0_u8;
        let height = black_box(&raw const local).addr() as u64 / STEP;
        Self(u64::from(thread) << HEIGHT_BITS | height & ((1 << HEIGHT_BITS) - 1))
    }

    /// Whether the call that stood there was left, now that one of its thread stands `here`. One on a stack for signals is a handler's.
    fn was_left(self, here: Self) -> bool {
        let same = self.0 >> HEIGHT_BITS == here.0 >> HEIGHT_BITS;
        same && here.0 + FRAME > self.0 && !call::is_on_signal_stack()
    }
}

/// Where the call stands that has a lock, or was the last of this process to ask for it.
pub(crate) struct Stand(AtomicU64);

impl Stand {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn get(&self) -> Place {
        Place(self.0.load(Ordering::Relaxed))
    }

    /// A call that asks for the lock says where it stands, before and again when it has it: a handler may have come in between.
    pub(crate) fn set(&self, place: Place) {
        self.0.store(place.0, Ordering::Relaxed);
    }
}

/// A call sleeps that uses an end: if it's left, the end is given back when the thread sleeps again. Until then it isn't freed.
pub(crate) fn asleep<T>(link: &Link, sleep: impl FnOnce() -> T) -> T {
    let own = own();
    let here = Place::here(own.number());
    let mut before = own.asleep.replace(Some((here, std::ptr::from_ref(link).addr())));
    if let Some((place, left)) = before
        && place.was_left(here)
    {
        give_back(left, 0);
        before = None;
    }
    let answer = sleep();
    own.asleep.set(before);
    answer
}

/// Whether a call of this thread that has a link's lock, and stood where it said `before`, was left, now that another stands `here` that uses the link too. Then
/// the end is given back that it used.
#[cold]
pub(crate) fn is_from_left(link: &Link, before: Place, here: Place) -> bool {
    let left = before.was_left(here);
    if left {
        give_back(std::ptr::from_ref(link).addr(), 1);
    }
    left
}

/// The end whose link has this address isn't used any more by a call that was left, beside so many that do use it.
#[cold]
fn give_back(link: usize, users: i32) {
    if let Some(end) = pool::used().iter().find(|end| std::ptr::from_ref(&end.link).addr() == link) {
        end.was_left(users);
    }
}
