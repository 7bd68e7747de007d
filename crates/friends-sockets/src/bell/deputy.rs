//! What speaks for the ring where no doorbell can be had.
//!
//! A socket may be registered with epoll while its ring holds bytes for which no doorbell stands in it, in a way that its pipe can't stand for. A doorbell could only come
//! from the peer's socket, and the kernel may not let this process have that. Then an eventfd of ours, the *deputy*, stands in that epoll beside
//! the socket, for the same events and with the same data. Once the ring is empty it's silent, and the next bytes are rung for in the socket.
//!
//! Its price: a registration with `EPOLLONESHOT` may be told twice, once of each.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLIN, EPOLLONESHOT, EPOLLRDNORM, epoll_event};

use super::NONE;
use crate::sys::{call, map};

/// One end's, if it has one.
pub(super) struct Deputy(pub(super) AtomicI32);

impl Deputy {
    pub(super) const fn new() -> Self {
        Self(AtomicI32::new(NONE))
    }

    fn number(&self) -> Option<i32> {
        Some(self.0.load(Relaxed)).filter(|number| *number != NONE)
    }

    /// A new one, for an end that has none.
    pub(super) fn make(&self) -> Option<map::Owned> {
        if self.number().is_none() { map::event().ok() } else { None }
    }

    /// Tells this epoll that there is something; whether it does.
    pub(super) fn speak(&self, epoll: i32, event: epoll_event) -> bool {
        let Some(number) = self.number() else { return false };
        let kept = (EPOLLIN | EPOLLRDNORM | EPOLLET | EPOLLONESHOT).cast_unsigned();
        let mut event = epoll_event { events: event.events & kept, u64: event.u64 };
        call::write_pipe(number, &1_u64.to_ne_bytes()).is_ok()
            && (call::change_epoll(epoll, EPOLL_CTL_MOD, number, &mut event)
                || call::change_epoll(epoll, EPOLL_CTL_ADD, number, &mut event))
    }

    /// The ring is empty.
    pub(super) fn hush(&self) {
        if let Some(number) = self.number() {
            call::read_pipe(number, &mut [0; 8]).ok();
        }
    }

    /// The socket is taken out of an epoll.
    pub(super) fn leave(&self, epoll: i32) {
        if let Some(number) = self.number() {
            let mut event = epoll_event { events: 0, u64: 0 };
            call::change_epoll(epoll, EPOLL_CTL_DEL, number, &mut event);
        }
    }
}
