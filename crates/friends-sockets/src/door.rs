//! A door that one thread at a time goes through, for some instructions or a call that doesn't sleep.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::call;
use crate::thread::{Own, own};

/// How long another thread is waited for, in nanoseconds: one that a signal's handler took away from inside never comes out.
const PATIENCE: u64 = 1_000_000_000;

/// Who is inside: a thread's number; 0: nobody.
pub(crate) struct Door(AtomicU32);

/// The door, open again for others when dropped.
pub(crate) struct Inside<'a>(&'a AtomicU32);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Door {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Goes through. `None`: this very thread is inside, interrupted by the signal whose handler calls; or another doesn't come out.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let own = own(Own::number);
        let free = self.0.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if free { Some(Inside(&self.0)) } else { self.wait(own) }
    }

    #[cold]
    fn wait(&self, own: u32) -> Option<Inside<'_>> {
        let began = call::now();
        while call::now().wrapping_sub(began) < PATIENCE {
            match self.0.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Inside(&self.0)),
                Err(other) if other == own => return None,
                Err(_) => call::give_way(),
            }
        }
        None
    }

    /// Whoever was inside isn't there: in a child after fork, or for another use.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    #[test]
    fn one_thread_at_a_time_is_inside_and_none_twice() {
        const TIMES: u32 = 20_000;
        let (door, count) = (Door::new(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..TIMES {
                        let _inside = door.enter().expect("the others come out");
                        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 3 * TIMES);
        let inside = door.enter();
        assert!(inside.is_some() && door.enter().is_none());
        drop(inside);
        assert!(door.enter().is_some());
    }
}
