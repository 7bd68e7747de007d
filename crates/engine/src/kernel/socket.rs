//! A connection's socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use midmile_friends_sockets::own;
use rustix::net::{AddressFamily, sockopt};

use super::listener::{self, Listener};

/// When `TCP_NODELAY` is set on a dialled connection: before the second write, for the first one never waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nodelay {
    AtFirstSend,
    AtSecondSend,
    Settled,
}

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unix,
    Tcp,
    /// TCP that asks to be its peer's friend; `dialled`: by us.
    Friend {
        dialled: bool,
    },
}

impl Kind {
    /// The kind of a socket that does or doesn't ask for a friend.
    pub(super) const fn of(tcp: bool, friend: bool, dialled: bool) -> Self {
        match (tcp, friend) {
            (false, _) => Self::Unix,
            (true, false) => Self::Tcp,
            (true, true) => Self::Friend { dialled },
        }
    }
}

/// A connected or connecting socket.
#[derive(Debug)]
pub struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    pub(super) nodelay: Nodelay,
    /// The kernel keeps the SYN back until something is sent.
    pub(super) deferred: bool,
    /// Unless it's closed by us, its peer sees a reset: an end would be taken for the whole of what was to come if this process
    /// died (`SO_LINGER` with no time).
    pub(super) abrupt: bool,
}

impl Socket {
    /// A connection that a listener gave, which has lent it its `SO_LINGER`.
    pub(crate) const fn accepted(fd: OwnedFd, listener: &Listener) -> Self {
        let kind = Kind::of(listener.is_tcp(), listener.is_friend(), false);
        Self { fd, kind, nodelay: Nodelay::Settled, deferred: false, abrupt: listener.is_abrupt() }
    }

    /// A connected socket of the program's own, which doesn't block any more.
    pub(crate) fn adopted(fd: OwnedFd) -> io::Result<Self> {
        let kind = Kind::of(sockopt::socket_domain(&fd)? != AddressFamily::UNIX, false, false);
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, kind, nodelay: Nodelay::Settled, deferred: false, abrupt: false })
    }

    /// Whether it's TCP, or else a Unix-domain socket.
    pub(crate) const fn is_tcp(&self) -> bool {
        !matches!(self.kind, Kind::Unix)
    }

    /// Whether it asks to be its peer's friend.
    pub(crate) const fn is_friend(&self) -> bool {
        matches!(self.kind, Kind::Friend { .. })
    }

    /// Whether the kernel keeps the SYN back until something is sent.
    pub(crate) const fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// The descriptor as it is, for a close of which the peer sees what it would if this process ended.
    pub(crate) fn into_fd(self) -> OwnedFd {
        if self.is_friend() {
            own::give_away(self.fd.as_raw_fd());
        }
        self.fd
    }

    /// The descriptor, for a close that sends what waits, and then the end.
    pub(crate) fn for_close(self) -> OwnedFd {
        if self.abrupt {
            // If it fails, the peer sees a reset.
            sockopt::set_socket_linger(&self.fd, None).ok();
        }
        self.fd
    }

    /// The descriptor, for a close that the peer sees as a reset.
    pub(crate) fn for_reset(self) -> OwnedFd {
        if self.is_tcp() && !self.abrupt {
            // If it fails, the peer sees an end.
            listener::set_abrupt(&self.fd).ok();
        }
        self.fd
    }

    /// Sets `TCP_NODELAY` when it begins to matter. With nothing unacknowledged, Nagle's algorithm (RFC 1122, 4.2.3.4) sends at
    /// once, so a connection that answers one request never pays for the option.
    pub(crate) fn before_send(&mut self) {
        self.deferred = false;
        match self.nodelay {
            Nodelay::Settled => {}
            Nodelay::AtFirstSend => self.nodelay = Nodelay::AtSecondSend,
            Nodelay::AtSecondSend => {
                self.nodelay = Nodelay::Settled;
                // It fails only on a connection that has failed, and that shows at the send.
                sockopt::set_tcp_nodelay(&self.fd, true).ok();
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
