//! epoll by libc's functions, as programs call them: rustix would make the system calls itself, which a preload library doesn't see.
#![expect(unsafe_code, reason = "libc's functions, which the preload library stands in front of")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One socket that is waited for.
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// Waits for the socket to be readable, level-triggered.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: there is no pointer.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        let (add, fd) = (libc::EPOLL_CTL_ADD, socket.as_raw_fd());
        // SAFETY: the pointer is to an event of ours; both descriptors are open.
        let answer = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, fd, &raw mut event) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(epoll)) }
    }

    /// Waits until it is.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the pointer is to room for one event.
        let answer = unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, -1) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
