//! epoll, with standard input for orders.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// The token of standard input.
pub(super) const ORDERS: u64 = u64::MAX;
/// Events taken in one turn.
const EVENTS_MAX: usize = 256;

/// An epoll instance.
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// A poller that already waits for orders.
    pub(super) fn new() -> Result<Self> {
        let poller = Self::deaf()?;
        poller.add(std::io::stdin(), ORDERS, EventFlags::IN)?;
        Ok(poller)
    }

    /// One for a process that takes no orders.
    pub(super) fn deaf() -> Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC).context("create an epoll")? })
    }

    /// A list for [`Self::wait`].
    pub(super) fn events() -> Vec<Event> {
        Vec::with_capacity(EVENTS_MAX)
    }

    /// Waits for `flags` on `fd` under the name `token`.
    pub(super) fn add(&self, fd: impl AsFd, token: u64, flags: EventFlags) -> Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags).context("add to epoll")
    }

    /// Stops waiting for a descriptor that stays open.
    pub(super) fn remove(&self, fd: impl AsFd) -> Result<()> {
        epoll::delete(&self.epoll, fd).context("remove from epoll")
    }

    /// Fills `events`, with none at the end of `timeout`.
    pub(super) fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> Result<()> {
        events.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("wait for events"),
        }
    }
}
