//! Where an end's pipe stands: in which epoll, and for what.
//!
//! One that nobody waits for may *rest* there, silent, instead of being taken out: a program that takes its sockets out of an epoll and puts them
//! in again for each request would pay for two more system calls each time.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, epoll_event};

use super::NONE;
use crate::sys::call;

/// For how long a rest is taken for one in the very epoll where it began, in nanoseconds: a number may be closed where this library doesn't see it.
const REST: u64 = 10_000_000;

/// One pipe's place. Changed by who may change the registration.
pub(super) struct Stand {
    /// The epoll that it was put into last; NONE: it stands in none.
    epoll: AtomicI32,
    events: AtomicU32,
    data: AtomicU64,
    /// Whether it rests, and since when, by the coarse clock.
    rests: AtomicBool,
    since: AtomicU64,
}

impl Stand {
    pub(super) const fn new() -> Self {
        Self {
            epoll: AtomicI32::new(NONE),
            events: AtomicU32::new(0),
            data: AtomicU64::new(0),
            rests: AtomicBool::new(false),
            since: AtomicU64::new(0),
        }
    }

    /// The epoll that it stands in, as far as is known.
    pub(super) fn epoll(&self) -> Option<i32> {
        Some(self.epoll.load(Relaxed)).filter(|epoll| *epoll != NONE)
    }

    /// Whether it tells as long as there's something, and not of edges.
    pub(super) fn is_level(&self) -> bool {
        self.events.load(Relaxed) & EPOLLET.cast_unsigned() == 0
    }

    /// Whether it rests in this epoll.
    pub(super) fn rests_in(&self, epoll: i32) -> bool {
        self.rests() && self.epoll.load(Relaxed) == epoll
    }

    fn rests(&self) -> bool {
        self.rests.load(Relaxed)
    }

    /// It rests where it stands, from now on.
    pub(super) fn rest(&self) {
        self.since.store(call::about_now(), Relaxed);
        self.rests.store(true, Relaxed);
    }

    /// Whether nothing is to be done for it to stand so: it rests so, since a moment ago.
    fn stands_so(&self, epoll: i32, event: epoll_event) -> bool {
        self.rests_in(epoll)
            && (self.events.load(Relaxed), self.data.load(Relaxed)) == (event.events, event.u64)
            && call::about_now().wrapping_sub(self.since.load(Relaxed)) < REST
    }

    /// Puts it into an epoll, for this event; whether it stands there now.
    pub(super) fn put(&self, pipe: i32, epoll: i32, mut event: epoll_event) -> bool {
        let before = self.epoll();
        if let Some(before) = before.filter(|before| *before != epoll) {
            // Where it fails that epoll is gone.
            self.leave(pipe, before);
        }
        let done = self.stands_so(epoll, event)
            // Where it stood may be an epoll that was closed.
            || before == Some(epoll) && call::change_epoll(epoll, EPOLL_CTL_MOD, pipe, &mut event)
            || call::change_epoll(epoll, EPOLL_CTL_ADD, pipe, &mut event);
        if done {
            self.epoll.store(epoll, Relaxed);
            self.events.store(event.events, Relaxed);
            self.data.store(event.u64, Relaxed);
            self.rests.store(false, Relaxed);
        }
        done
    }

    /// Takes it out of an epoll, by whatever number; whether it stands nowhere now.
    pub(super) fn leave(&self, pipe: i32, epoll: i32) -> bool {
        let mut event = epoll_event { events: 0, u64: 0 };
        let gone = self.epoll().is_none() || call::change_epoll(epoll, EPOLL_CTL_DEL, pipe, &mut event);
        if gone {
            self.forget();
        }
        gone
    }

    /// It stands nowhere any more.
    pub(super) fn forget(&self) {
        self.epoll.store(NONE, Relaxed);
        self.rests.store(false, Relaxed);
    }
}
