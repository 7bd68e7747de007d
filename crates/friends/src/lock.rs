//! A lock that processes share: the decisions. To sleep and to wake is the caller's.
//!
//! The word holds the owner's thread id, so that one who waits can find out that the owner was killed, and [`Lock::take_over`].

use core::num::NonZeroU32;

use crate::sync::{AtomicU32, Ordering};

const WAITERS: u32 = 1 << 31;
const OWNER_MASK: u32 = (1 << 30) - 1;

/// Who locks: a thread id of the kernel's, below 2^30. Threads of different pid namespaces mustn't share a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(NonZeroU32);

impl Owner {
    /// The thread with this id; `None` for 0 and for what no thread id is.
    #[must_use]
    pub fn new(thread: u32) -> Option<Self> {
        NonZeroU32::new(thread).filter(|id| id.get() <= OWNER_MASK).map(Self)
    }

    /// The thread id.
    #[must_use]
    pub fn thread(self) -> u32 {
        self.0.get()
    }
}

/// Someone has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    word: u32,
}

impl Held {
    /// Whose lock it is. It may be the asking thread's own, where a signal handler interrupted it; 0 where a peer scribbled.
    #[must_use]
    pub fn thread(self) -> u32 {
        self.word & OWNER_MASK
    }
}

/// One lock word.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'m> {
    word: &'m AtomicU32,
}

impl<'m> Lock<'m> {
    pub(crate) fn new(word: &'m AtomicU32) -> Self {
        Self { word }
    }

    /// Takes the lock. `waited`: the caller has slept for it, so others may sleep too, and the one who unlocks is to wake them.
    ///
    /// # Errors
    /// [`Held`]: someone has it. Spin a little, then [`Lock::wait`].
    pub fn try_lock(self, owner: Owner, waited: bool) -> Result<(), Held> {
        let mine = owner.thread() | if waited { WAITERS } else { 0 };
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        self.word.compare_exchange(0, mine, success, failure).map(drop).map_err(|word| Held { word })
    }

    /// Says that the caller will sleep until `held` is unlocked: on this word, while it has the value that is returned. `None`: it has
    /// changed hands, try again. Sleep for a bounded time: the owner may be killed.
    #[must_use]
    pub fn wait(self, held: Held) -> Option<u32> {
        let told = held.word | WAITERS;
        if held.word == told {
            return (self.word.load(Ordering::Relaxed) == told).then_some(told);
        }
        let relaxed = Ordering::Relaxed;
        self.word.compare_exchange(held.word, told, relaxed, relaxed).ok().map(|_| told)
    }

    /// Gives the lock back. True: wake one who sleeps on the word.
    #[must_use]
    pub fn unlock(self) -> bool {
        self.word.swap(0, Ordering::Release) & WAITERS != 0
    }

    /// Takes the lock from an owner that the caller has found to be dead. True: it's the caller's now; it asks
    /// [`crate::Writer::taken_over`] or [`crate::Reader::taken_over`] before anything else.
    #[must_use]
    pub fn take_over(self, held: Held, owner: Owner) -> bool {
        let mine = owner.thread() | WAITERS;
        self.word.compare_exchange(held.word, mine, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Says of a lock that isn't given back that nobody has it: who asks for it is told thread 0, and needn't wait for that. The owner, should
    /// it come back after all, frees it.
    pub fn forsake(self, held: Held) {
        // Where it has changed hands there's nothing to say.
        let relaxed = Ordering::Relaxed;
        self.word.compare_exchange(held.word, WAITERS, relaxed, relaxed).map_or_else(drop, drop);
    }

    /// Whether someone has it. The answer is old when it's given: for who looks whether what another does has ended.
    #[must_use]
    pub fn is_held(self) -> bool {
        self.word.load(Ordering::Acquire) != 0
    }

    /// The word to sleep on.
    #[must_use]
    pub fn futex(self) -> &'m AtomicU32 {
        self.word
    }
}
