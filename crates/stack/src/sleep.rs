//! Waiting for a device or a waker, and the clock.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use midmile_engine::{Time, Waker};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// A clock that begins when it's made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Timespec,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: clock_gettime(ClockId::Monotonic) }
    }

    pub(crate) fn now(&self) -> Time {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec - self.start.tv_sec).unwrap_or(0);
        // Either may be the larger within its second, so the difference is taken in wrapping arithmetic.
        Time::from_nanos((seconds * 1_000_000_000).wrapping_add_signed(now.tv_nsec - self.start.tv_nsec))
    }
}

/// Those who may end the wait for a device.
#[derive(Debug)]
pub(crate) struct Sleep {
    /// Wakers, edge-triggered, so that nobody has to read their counters.
    wakers: OwnedFd,
    /// Kept, for a wake that came before the last other clone was dropped would be lost with its descriptor.
    kept: Vec<Waker>,
}

impl Sleep {
    pub(crate) fn new() -> io::Result<Self> {
        let wakers = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { wakers, kept: Vec::new() })
    }

    pub(crate) fn watch(&mut self, waker: &Waker) -> io::Result<()> {
        epoll::add(&self.wakers, waker, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        self.kept.push(waker.clone());
        Ok(())
    }

    /// Sleeps until `device` is readable, a waker wakes or `timeout` has passed; answers whether a waker did.
    pub(crate) fn until(&mut self, device: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        let mut watched = [PollFd::new(&device, PollFlags::IN), PollFd::new(&self.wakers, PollFlags::IN)];
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        if watched[1].revents().is_empty() {
            return Ok(false);
        }
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 8];
        let count = epoll::wait(&self.wakers, &mut events[..], Some(&Timespec::default()))?;
        Ok(count > 0)
    }
}
