//! The socket that all servers on the kernel's TCP listen on.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 8192;

/// A listening socket that doesn't block. Accepted connections inherit `TCP_NODELAY` from it (tcp(7)): it costs them no call.
pub(crate) fn listener(at: SocketAddrV4) -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("open a socket")?;
    sockopt::set_socket_reuseaddr(&fd, true).context("set SO_REUSEADDR")?;
    sockopt::set_tcp_nodelay(&fd, true).context("set TCP_NODELAY")?;
    bind(&fd, &at).with_context(|| format!("bind to {at}"))?;
    listen(&fd, BACKLOG).with_context(|| format!("listen on {at}"))?;
    Ok(fd)
}
