//! A lock that processes share: the decisions. To sleep, to wake and to have other CPUs' stores seen is the caller's.
//!
//! The word holds the owner's thread id, so that one who waits can find out that the owner was killed, and [`Lock::take_over`].
//!
//! # Lending
//! A thread that takes the lock again and again, with nobody in between, has it *lent*. From then on it takes it by a store and gives it back by
//! another: no locked instruction, of which each waits until all that was stored before is in the cache.
//!
//! ```text
//!          LENT_AFTER takes in a row           another takes the word          the barrier            nobody inside
//!   NOBODY ─────────────────────────► thread ──────────────────────► RECALLING ───────────► RECALLED ───────────────► the other's
//! ```
//!
//! Who else wants it takes the word as ever, and then [recalls](Lock::recall) the lock before anything else. Borrower and recaller each store and then
//! look at the other's word; between the two the borrower has no fence. Its place is taken by a barrier on all CPUs that run one who may borrow
//! (membarrier(2), Linux 4.16), which the recaller asks the kernel for: a borrower either is seen inside, or sees that the lock was
//! recalled, and comes by the word. A lock is lent only where both ends [have said](crate::Segment::may_recall) that they can have that barrier, and only
//! once: it's an end of many threads that recalls, and soon would again.

use core::num::NonZeroU32;

use crate::sync::{AtomicU32, AtomicU64, Ordering, borrower_barrier};

const WAITERS: u32 = 1 << 31;
const OWNER_MASK: u32 = (1 << 30) - 1;

/// Takes in a row, by one thread, after which it's lent the lock.
const LENT_AFTER: u32 = 32;
/// What [`LockWords::lent`] says beside a thread: not lent yet; recalled, and borrowers may not have seen it; recalled.
const NOBODY: u32 = 0;
const RECALLING: u32 = 1 << 30;
const RECALLED: u32 = 1 << 31;
/// Both sides, each of which is a bit.
const BOTH: u32 = 3;

/// What a lock consists of.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct LockWords {
    /// The owner's thread, and whether others sleep; 0: nobody's, or the borrower's.
    word: AtomicU32,
    /// To whom it's lent.
    lent: AtomicU32,
    /// The borrower's thread while it has the lock.
    inside: AtomicU32,
    /// Sides that can recall.
    able: AtomicU32,
    /// Who took it last by the word, and how often in a row.
    last: AtomicU32,
    row: AtomicU32,
    /// Where the call stands that has it or was the last to ask for it: [`Place`].
    place: AtomicU64,
}

impl LockWords {
    /// A side, by its number, can recall.
    pub(crate) fn may_recall(&self, side: usize) {
        self.able.fetch_or(1 << side, Ordering::Relaxed);
    }

    /// One of them can't any more.
    pub(crate) fn recalls_no_more(&self) {
        self.able.store(0, Ordering::Relaxed);
    }

    /// Whether both sides can.
    pub(crate) fn all_may_recall(&self) -> bool {
        self.able.load(Ordering::Relaxed) == BOTH
    }
}

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

/// How the lock was taken, and is to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lock that isn't given back stays taken"]
pub enum Taken {
    /// By the word.
    Owned,
    /// By the thread that it's lent to.
    Borrowed,
    /// By the word, but it's lent to another, who may have it too: [`Lock::recall`] before anything else.
    Lent,
}

/// Where a call stands that has a lock or asks for it, as it has said. It means something to its own thread alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// A call of this thread; higher is further up its stack.
    #[must_use]
    pub fn new(owner: Owner, height: u32) -> Self {
        Self(u64::from(owner.thread()) << 32 | u64::from(height))
    }

    /// How high a call of this thread stands; `None`: it's another's.
    #[must_use]
    pub fn height(self, owner: Owner) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        (self.0 >> 32 == u64::from(owner.thread())).then_some(self.0 as u32)
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

/// One lock, which may be lent to a thread: then that one takes it without a locked instruction, until another [recalls](Lock::recall) it.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'m> {
    words: &'m LockWords,
}

impl<'m> Lock<'m> {
    pub(crate) fn new(words: &'m LockWords) -> Self {
        Self { words }
    }

    /// Takes the lock. `waited`: the caller has slept for it, so others may sleep too, and the one who unlocks is to wake them.
    ///
    /// # Errors
    /// [`Held`]: someone has it. Spin a little, then [`Lock::wait`].
    pub fn try_lock(self, owner: Owner, waited: bool) -> Result<Taken, Held> {
        let LockWords { word, lent, inside, .. } = self.words;
        let own = owner.thread();
        // A handler that interrupted the borrower: whoever recalls waits for that one, and would wait in vain for both.
        if inside.load(Ordering::Relaxed) == own {
            return Err(Held { word: own });
        }
        if lent.load(Ordering::Relaxed) == own {
            inside.store(own, Ordering::Relaxed);
            borrower_barrier();
            if lent.load(Ordering::Relaxed) == own {
                return Ok(Taken::Borrowed);
            }
            inside.store(0, Ordering::Release);
        }
        let mine = own | if waited { WAITERS } else { 0 };
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        word.compare_exchange(0, mine, success, failure).map_err(|word| Held { word })?;
        Ok(self.standing(owner))
    }

    /// What it is to have the word.
    fn standing(self, owner: Owner) -> Taken {
        match self.words.lent.load(Ordering::Relaxed) {
            NOBODY => self.count(owner),
            RECALLED if self.words.inside.load(Ordering::Acquire) == 0 => {}
            _ => return Taken::Lent,
        }
        Taken::Owned
    }

    /// Counts one more take by the word, and lends the lock where one thread has taken it often. It has the word.
    fn count(self, owner: Owner) {
        let LockWords { lent, last, row, .. } = self.words;
        let times = row.load(Ordering::Relaxed);
        if last.load(Ordering::Relaxed) != owner.thread() {
            last.store(owner.thread(), Ordering::Relaxed);
            row.store(0, Ordering::Relaxed);
        } else if times < LENT_AFTER {
            row.store(times + 1, Ordering::Relaxed);
        } else if self.words.all_may_recall() {
            lent.store(owner.thread(), Ordering::Relaxed);
        }
    }

    /// Has the lock back from the thread that it's lent to. The caller has the word ([`Taken::Lent`]). `barrier` has each CPU that runs a thread which
    /// may borrow carry out its stores and loads so far, those of other processes too. `None`: the lock is the caller's, as [`Taken::Owned`]. Else the
    /// borrower is inside still: look again with [`Lock::borrower`] till it isn't, or till it's dead and [`Lock::bury`]ed.
    #[must_use]
    pub fn recall(self, barrier: impl FnOnce()) -> Option<Held> {
        let lent = &self.words.lent;
        if lent.load(Ordering::Relaxed) != RECALLED {
            lent.store(RECALLING, Ordering::Relaxed);
            barrier();
            lent.store(RECALLED, Ordering::Relaxed);
        }
        self.borrower()
    }

    /// The borrower that's inside, after a recall.
    #[must_use]
    pub fn borrower(self) -> Option<Held> {
        let word = self.words.inside.load(Ordering::Acquire);
        (word != 0).then_some(Held { word })
    }

    /// Takes the lock from a borrower that the caller, who has the word, has found to be dead; then as after [`Lock::take_over`].
    pub fn bury(self) {
        self.words.inside.store(0, Ordering::Relaxed);
    }

    /// Says that the caller will sleep until `held` is unlocked: on this word, while it has the value that is returned. `None`: it has
    /// changed hands, try again. Sleep for a bounded time: the owner may be killed.
    #[must_use]
    pub fn wait(self, held: Held) -> Option<u32> {
        let word = &self.words.word;
        let told = held.word | WAITERS;
        if held.word == told {
            return (word.load(Ordering::Relaxed) == told).then_some(told);
        }
        let relaxed = Ordering::Relaxed;
        word.compare_exchange(held.word, told, relaxed, relaxed).ok().map(|_| told)
    }

    /// Gives the lock back as it was taken. True: wake one who sleeps on the word.
    #[must_use]
    pub fn unlock(self, taken: Taken) -> bool {
        if taken == Taken::Borrowed {
            // Who recalls looks again by itself.
            self.words.inside.store(0, Ordering::Release);
            return false;
        }
        self.words.word.swap(0, Ordering::Release) & WAITERS != 0
    }

    /// Takes the lock from an owner that the caller has found to be dead; `None`: it has changed hands. The caller says
    /// [`crate::Writer::taken_over`] or [`crate::Reader::taken_over`] before anything else but a recall.
    #[must_use]
    pub fn take_over(self, held: Held, owner: Owner) -> Option<Taken> {
        let mine = owner.thread() | WAITERS;
        let taken = self.words.word.compare_exchange(held.word, mine, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| self.standing(owner))
    }

    /// Where the call stands that has the lock or was the last to ask for it.
    #[must_use]
    pub fn place(self) -> Place {
        Place(self.words.place.load(Ordering::Relaxed))
    }

    /// Says where the caller stands, or puts back what it found. Whoever asks for the lock says so before, and again when it has it: a
    /// handler may have come in between.
    pub fn set_place(self, place: Place) {
        self.words.place.store(place.0, Ordering::Relaxed);
    }

    /// Takes the lock back from a call of the owner's own thread that was left, and never gives it back; as after [`Lock::take_over`], but that the caller has
    /// said so of what the lock is for before. `None`: it was recalled meanwhile, or was on the way to be; try again.
    #[must_use]
    pub fn take_back(self, held: Held, owner: Owner) -> Option<Taken> {
        let LockWords { lent, inside, .. } = self.words;
        if inside.load(Ordering::Relaxed) != owner.thread() {
            return self.take_over(held, owner);
        }
        if lent.load(Ordering::Relaxed) == owner.thread() {
            return Some(Taken::Borrowed);
        }
        inside.store(0, Ordering::Release);
        None
    }

    /// Says of a lock that isn't given back that nobody has it: who asks for it is told thread 0, and needn't wait for that. The owner, should
    /// it come back after all, frees it.
    pub fn forsake(self, held: Held) {
        // Where it has changed hands there's nothing to say.
        let relaxed = Ordering::Relaxed;
        self.words.word.compare_exchange(held.word, WAITERS, relaxed, relaxed).map_or_else(drop, drop);
    }

    /// Whether someone has it. The answer is old when it's given: for who looks whether what another does has ended, and knows by another word that
    /// it has begun.
    #[must_use]
    pub fn is_held(self) -> bool {
        self.words.word.load(Ordering::Acquire) != 0 || self.words.inside.load(Ordering::Acquire) != 0
    }

    /// The word to sleep on.
    #[must_use]
    pub fn futex(self) -> &'m AtomicU32 {
        &self.words.word
    }
}
