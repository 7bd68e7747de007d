//! An end of a TCP connection in this process: how far it has come on the way to being a friend.
//!
//! ```text
//!            take                offer, attach
//!   FREE ──────────► COUNTED ──────────────────► FRIEND
//!                       │                           │
//!                       └──► PLAIN                  │     the last descriptor is closed
//!                              └───────────────┬────┘
//!                                            GONE ──► FREE once no call holds it
//! ```
//!
//! A counted end's bytes go by libc's own calls and are counted, so that both ends can say where in the stream they are when they share
//! memory. A plain end is left alone for good.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use crate::door::Door;
use crate::family::Family;
use crate::leap;
use crate::link::Link;
use crate::pool;
use crate::sys::threads;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const COUNTED: u32 = 2;
const FRIEND: u32 = 3;
const PLAIN: u32 = 4;
const GONE: u32 = 5;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the peer.
    Out,
    /// From the peer.
    In,
}

/// How a call on an end is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Stage {
    /// By libc's own; it has been noted as begun, and [`End::counted`] says what it came to.
    Counted,
    /// By the protocol.
    Friend,
    /// By libc's own.
    Plain,
}

/// What is counted of one way. Who changes it is behind the door, or alone with the end: so none of it takes a locked instruction.
struct Tally {
    bytes: AtomicU64,
    calls: AtomicU32,
    /// Calls that haven't returned.
    under_way: AtomicU32,
}

impl Tally {
    const fn new() -> Self {
        Self { bytes: AtomicU64::new(0), calls: AtomicU32::new(0), under_way: AtomicU32::new(0) }
    }

    /// A call begins.
    fn begin(&self) {
        self.under_way.store(self.under_way.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// It has returned.
    fn end(&self, bytes: usize) {
        self.bytes.store(self.bytes.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
        self.calls.store(self.calls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // In a child after fork its beginning may have been forgotten.
        self.under_way.store(self.under_way.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

/// One end. All of it is atomics: calls of many threads look at it.
pub struct End {
    stage: AtomicU32,
    /// Calls that use it.
    held: AtomicI32,
    /// Descriptors that are it.
    descriptors: AtomicU32,
    /// Who changes stage and tallies is behind it.
    door: Door,
    out: Tally,
    into: Tally,
    /// This side called `connect`.
    connected: AtomicBool,
    /// It has been looked for an offer because of how much went by.
    looked: AtomicBool,
    /// When `connect` was called, by the monotonic clock in nanoseconds; 0 for an accepted connection.
    began: AtomicU64,
    /// The last fork for whose child it was counted.
    fork: AtomicU32,
    family: Family,
    pub(crate) link: Link,
}

impl End {
    pub(crate) const fn new() -> Self {
        Self {
            stage: AtomicU32::new(FREE),
            held: AtomicI32::new(0),
            descriptors: AtomicU32::new(0),
            door: Door::new(),
            out: Tally::new(),
            into: Tally::new(),
            connected: AtomicBool::new(false),
            looked: AtomicBool::new(false),
            began: AtomicU64::new(0),
            fork: AtomicU32::new(0),
            family: Family::new(),
            link: Link::new(),
        }
    }

    /// Takes a free end for a new connection; `connecting`: when `connect` was called, if this side did.
    pub(crate) fn take(&self, connecting: Option<u64>) -> bool {
        if self.stage.load(Ordering::Relaxed) != FREE
            || self.stage.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        for tally in [&self.out, &self.into] {
            tally.bytes.store(0, Ordering::Relaxed);
            tally.calls.store(0, Ordering::Relaxed);
            tally.under_way.store(0, Ordering::Relaxed);
        }
        self.door.clear();
        self.connected.store(connecting.is_some(), Ordering::Relaxed);
        self.looked.store(false, Ordering::Relaxed);
        self.fork.store(0, Ordering::Relaxed);
        self.began.store(connecting.unwrap_or(0), Ordering::Relaxed);
        self.descriptors.store(1, Ordering::Relaxed);
        self.stage.store(COUNTED, Ordering::Release);
        true
    }

    pub(crate) fn hold(&self) {
        threads::add(&self.held, 1);
    }

    pub(crate) fn let_go(&self) {
        if threads::add(&self.held, -1) == 1 {
            self.free();
        }
    }

    /// A call that uses it was left, and never lets it go. A child after fork has no such.
    pub(crate) fn was_left(&self) {
        if self.held.load(Ordering::Relaxed) > 0 {
            self.let_go();
        }
    }

    /// Sleeps in a call that uses this end. If that is left by siglongjmp(3), the end is given back when the thread sleeps again.
    #[inline]
    pub fn asleep<T>(&self, sleep: impl FnOnce() -> T) -> T {
        leap::asleep(&self.link, sleep)
    }

    /// Keeps an error that a call found after it had received something, for the next to tell; one that passes is found again.
    pub fn keep_error(&self, error: i32) {
        if error != libc::EAGAIN && error != libc::EINTR {
            self.link.keep_error(error);
        }
    }

    /// One more descriptor is this end. False: it has none any more.
    pub(crate) fn refer(&self) -> bool {
        let more = |count: u32| (count > 0).then_some(count + 1);
        self.descriptors.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    /// A descriptor isn't this end in a moment. Whether it was the last: then [`End::ends`] is to be called.
    pub(crate) fn depart(&self) -> bool {
        self.descriptors.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// No descriptor is this end.
    pub(crate) fn ends(&self) {
        self.stage.store(GONE, Ordering::SeqCst);
        if self.held.load(Ordering::SeqCst) == 0 {
            self.free();
        }
    }

    /// A descriptor isn't this end any more.
    pub(crate) fn forget(&self) {
        if self.depart() {
            self.ends();
        }
    }

    /// No call uses it: where it's gone, another connection may have it.
    #[inline]
    fn free(&self) {
        if self.stage.load(Ordering::SeqCst) == GONE {
            self.bury();
        }
    }

    #[cold]
    fn bury(&self) {
        if self.stage.compare_exchange(GONE, TAKEN, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            self.family.shrink();
            self.link.end();
            self.stage.store(FREE, Ordering::Release);
            pool::push(self);
        }
    }

    /// In a child after fork, which no other thread's calls came to.
    pub(crate) fn forked(&self) {
        self.held.store(0, Ordering::Relaxed);
        self.door.clear();
        self.link.bell.forked();
        for tally in [&self.out, &self.into] {
            tally.under_way.store(0, Ordering::Relaxed);
        }
    }

    /// The process is about to fork: its child will hold the end too, which isn't a friend.
    pub(crate) fn share(&self) {
        if self.is_counted() && !self.family.grow() {
            self.give_up();
        }
    }

    /// It's counted for the child of this fork.
    pub(crate) fn is_shared_by(&self, fork: u32) {
        self.fork.store(fork, Ordering::Relaxed);
    }

    /// Whether it was, and for none since.
    pub(crate) fn was_shared_by(&self, fork: u32) -> bool {
        self.fork.load(Ordering::Relaxed) == fork
    }

    /// There's no such child after all.
    pub(crate) fn unshare(&self) {
        self.family.dwindle();
    }

    /// Whether one descriptor alone is this end.
    pub(crate) fn has_one_descriptor(&self) -> bool {
        self.descriptors.load(Ordering::Relaxed) == 1
    }

    /// Whether another process has it too, and it's not a friend.
    pub(crate) fn is_shared(&self) -> bool {
        self.family.is_shared()
    }

    /// The process ends or becomes another program, which hasn't got it.
    pub(crate) fn leave_family(&self) {
        self.family.shrink();
    }

    /// When `connect` was called; 0 for an accepted connection.
    pub(crate) fn began(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }

    /// True once.
    pub(crate) fn first_look(&self) -> bool {
        !self.looked.swap(true, Ordering::Relaxed)
    }

    /// Whether calls are under way.
    pub(crate) fn is_busy(&self) -> bool {
        [&self.out, &self.into].iter().any(|tally| tally.under_way.load(Ordering::Relaxed) != 0)
    }

    fn tally(&self, way: Way) -> &Tally {
        match way {
            Way::Out => &self.out,
            Way::In => &self.into,
        }
    }

    pub(crate) fn is_friend(&self) -> bool {
        self.stage.load(Ordering::Acquire) == FRIEND
    }

    /// Whether it was found that it can't become a friend.
    pub(crate) fn has_given_up(&self) -> bool {
        self.stage.load(Ordering::Acquire) == PLAIN
    }

    /// Whether libc's own calls do all, for good.
    pub fn is_plain(&self) -> bool {
        match self.stage.load(Ordering::Acquire) {
            FRIEND => self.link.is_plain(Way::Out) && self.link.is_plain(Way::In),
            stage => stage == PLAIN,
        }
    }

    /// Begins a call that may move bytes.
    pub fn begin(&self, way: Way) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            FRIEND if self.link.is_plain(way) => return Stage::Plain,
            FRIEND if way == Way::Out || self.link.is_engaged() => return Stage::Friend,
            FRIEND | COUNTED => {}
            _ => return Stage::Plain,
        }
        let Some(_inside) = self.door.enter() else {
            self.give_up();
            return Stage::Plain;
        };
        match self.stage.load(Ordering::Relaxed) {
            COUNTED => {}
            FRIEND if way == Way::Out || self.engaged() => return Stage::Friend,
            // Receives that began before it was a friend are still under way: this one is as they are.
            FRIEND => {}
            _ => return Stage::Plain,
        }
        self.tally(way).begin();
        Stage::Counted
    }

    /// Receives by the protocol from now on, if none is under way that doesn't. Who calls is behind the door.
    fn engaged(&self) -> bool {
        if !self.link.is_engaged() && self.into.under_way.load(Ordering::Relaxed) == 0 {
            self.link.engage(self.into.bytes.load(Ordering::Relaxed));
        }
        self.link.is_engaged()
    }

    /// Ends a call that was counted: `bytes` went by. The end may have become a friend meanwhile.
    pub fn counted(&self, way: Way, bytes: usize) {
        let Some(_inside) = self.door.enter() else { return self.give_up() };
        self.tally(way).end(bytes);
        if way == Way::In && self.stage.load(Ordering::Relaxed) == FRIEND {
            self.engaged();
        }
    }

    /// Calls and bytes that were counted one way.
    pub(crate) fn tallied(&self, way: Way) -> (u32, u64) {
        let tally = self.tally(way);
        (tally.calls.load(Ordering::Relaxed), tally.bytes.load(Ordering::Relaxed))
    }

    /// Adds bytes that went by the protocol, while nobody has taken the offer up.
    pub(crate) fn waited(&self, way: Way, bytes: usize) {
        self.tally(way).bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn has_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether it may still become a friend.
    pub(crate) fn is_counted(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == COUNTED
    }

    /// It stays plain. A friend doesn't become plain this way.
    pub(crate) fn give_up(&self) {
        self.stage.compare_exchange(COUNTED, PLAIN, Ordering::AcqRel, Ordering::Relaxed).ok();
    }

    /// Makes it a friend, if no send is under way: `begin` gets the bytes sent and received, and how many receives are under way.
    pub(crate) fn befriend(&self, begin: impl FnOnce(u64, u64, u32)) -> bool {
        let Some(_inside) = self.door.enter() else { return false };
        if self.out.under_way.load(Ordering::Relaxed) != 0 || !self.is_counted() {
            return false;
        }
        let bytes = |tally: &Tally| tally.bytes.load(Ordering::Relaxed);
        begin(bytes(&self.out), bytes(&self.into), self.into.under_way.load(Ordering::Relaxed));
        // A handler that interrupted here sent or received uncounted, and gave up.
        self.stage.compare_exchange(COUNTED, FRIEND, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
