//! What is kept for each thread.

use std::cell::Cell;

use crate::process;
use crate::sys::call;

/// More bytes than a stack has, and half of what 32 bits can tell.
const BELOW: usize = 1 << 31;

/// One thread's. It's found once in a call: to find it costs more than to use it.
#[derive(Debug)]
pub(crate) struct Own {
    /// Its number, and the generation of processes in which it has that; 0: it hasn't been asked for.
    number: Cell<u32>,
    generation: Cell<u32>,
    /// How high the innermost call stands that sleeps, and its end's link, by its address.
    pub(crate) asleep: Cell<Option<(u32, usize)>>,
    /// An address below all of its stack; 0: it wasn't asked for.
    below: Cell<usize>,
    /// The number of its last fork.
    pub(crate) fork: Cell<u32>,
    /// Something is done at its end.
    pub(crate) is_minded: Cell<bool>,
}

thread_local! {
    static OWN: Own = const {
        Own {
            number: Cell::new(0),
            generation: Cell::new(0),
            asleep: Cell::new(None),
            below: Cell::new(0),
            fork: Cell::new(0),
            is_minded: Cell::new(false),
        }
    };
}

/// Does something with this thread's.
#[inline]
pub(crate) fn own<T>(act: impl FnOnce(&Own) -> T) -> T {
    OWN.with(act)
}

impl Own {
    /// The thread's number.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        let known = self.number.get();
        // A child after fork is another thread than its parent's that it was copied from.
        if known != 0 && self.generation.get() == process::generation() { known } else { self.ask() }
    }

    /// An address below all of the thread's stack, as far from the first call that asked for it as no stack is large.
    #[inline]
    pub(crate) fn below_stack(&self) -> usize {
        if self.below.get() == 0 {
            let local = 0_u8;
            self.below.set((&raw const local).addr().wrapping_sub(BELOW));
        }
        self.below.get()
    }

    #[cold]
    fn ask(&self) -> u32 {
        let number = call::thread();
        self.generation.set(process::generation());
        self.number.set(number);
        number
    }
}
