//! A listener: a bounded queue of connections that stand and haven't been accepted.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use midmile_engine::backend::Tag;
use midmile_engine::{Key, LegOptions};
use smoltcp::socket::tcp::CongestionControl;

/// Connections that wait in one listener's queue at most.
pub(crate) const BACKLOG_MAX: u32 = 65_535;

/// A listener.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) at: SocketAddr,
    pub(crate) options: LegOptions,
    pub(crate) congestion: CongestionControl,
    pub(crate) backlog: usize,
    pub(crate) queue: VecDeque<Key>,
    pub(crate) tag: Option<Tag>,
}

impl Door {
    pub(crate) fn new(at: SocketAddr, options: &LegOptions, congestion: CongestionControl, backlog: u32) -> Self {
        let backlog = backlog.clamp(1, BACKLOG_MAX) as usize;
        let queue = VecDeque::with_capacity(backlog);
        Self { at, options: options.clone(), congestion, backlog, queue, tag: None }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.backlog
    }

    /// How well it goes with a connection to `local`: 2 by its address, 1 as a wildcard, 0 not at all. `[::]` takes IPv4 as well.
    pub(crate) fn fits(&self, local: SocketAddr) -> u8 {
        if self.at.port() != local.port() {
            return 0;
        }
        match self.at.ip() {
            at if at == local.ip() => 2,
            IpAddr::V6(at) if at.is_unspecified() => 1,
            IpAddr::V4(at) if at.is_unspecified() && local.is_ipv4() => 1,
            _ => 0,
        }
    }
}
