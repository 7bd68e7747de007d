//! Waking a core from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the core that watches it ([`Backend::watch_waker`](crate::Backend::watch_waker)): it then upcalls
/// [`Handler::on_wake`](crate::Handler::on_wake). Clones wake the same core.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    fd: OwnedFd,
    /// Wakes so far: the simulation, which waits on no descriptor, looks here.
    rung: AtomicU64,
}

impl Waker {
    /// A waker that wakes nobody yet.
    ///
    /// # Errors
    /// When there's no descriptor left.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Bell { fd, rung: AtomicU64::new(0) })))
    }

    /// Wakes the core. Several calls may be told as one. What the caller wrote before is seen by the upcall.
    pub fn wake(&self) {
        self.0.rung.fetch_add(1, Ordering::Release);
        // It can only fail when the counter is full, and then the core has been told often enough.
        rustix::io::write(&self.0.fd, &1_u64.to_ne_bytes()).ok();
    }

    /// How often it was called.
    pub(crate) fn rung(&self) -> u64 {
        self.0.rung.load(Ordering::Acquire)
    }
}

/// An eventfd(2) that becomes readable when the core is to wake; a backend waits on it edge-triggered, so nobody has to read it.
impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
