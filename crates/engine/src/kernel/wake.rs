//! Waking a core from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the core that watches it ([`Kernel::watch_waker`](super::Kernel::watch_waker)). Clones wake the same core.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A waker that wakes nobody yet.
    ///
    /// # Errors
    /// When there's no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Wakes the core. Several calls may be told as one.
    pub fn wake(&self) {
        // It can only fail when the counter is full, and then the core has been told often enough.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
