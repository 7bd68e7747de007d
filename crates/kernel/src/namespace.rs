//! Network namespaces. All unsafe code of the crate is here.
#![expect(unsafe_code, reason = "a socket option without a safe wrapper")]

use std::io;
use std::mem::size_of_val;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The number of a network namespace, which isn't used again while the host runs (`SO_NETNS_COOKIE`, Linux 5.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookie(pub(crate) u64);

impl Cookie {
    /// That of the calling thread's namespace.
    pub(crate) fn here() -> io::Result<Self> {
        // Any socket can be asked.
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut cookie: u64 = 0;
        let mut bytes = libc::socklen_t::try_from(size_of_val(&cookie)).expect("a cookie is small");
        // SAFETY: the kernel writes at most `bytes` bytes to `cookie`, which has as many, and their number to `bytes`; both outlive
        // the call.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut bytes,
            )
        };
        if answer == 0 { Ok(Self(cookie)) } else { Err(io::Error::last_os_error()) }
    }
}
