//! Ports for what is measured: a new one each time, as an old one may have sockets left.

use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where proxies, and servers behind them, listen: below the ports that clients in the lab get.
pub(crate) static PROXIES: Ports = Ports::new(2000..10_000);

/// Ports that are given out one after another, and then again.
pub(crate) struct Ports {
    range: Range<u16>,
    next: AtomicU16,
}

impl Ports {
    /// None is given out yet.
    pub(crate) const fn new(range: Range<u16>) -> Self {
        Self { range, next: AtomicU16::new(0) }
    }

    /// The one that was out of use for longest.
    pub(crate) fn next(&self) -> u16 {
        self.range.start + self.next.fetch_add(1, Ordering::Relaxed) % (self.range.end - self.range.start)
    }
}
