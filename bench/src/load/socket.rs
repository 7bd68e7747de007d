//! Sockets of the load clients.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// Attempts of a refused connect: a backlog may overflow for a moment.
const ATTEMPTS: u32 = 200;

/// Connects and waits until connected; the socket is blocking.
pub(super) fn connected(to: SocketAddrV4) -> Result<OwnedFd> {
    let mut attempt = 0;
    loop {
        let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context("open a socket")?;
        sockopt::set_tcp_nodelay(&fd, true).context("set TCP_NODELAY")?;
        match connect(&fd, &to) {
            Ok(()) => return Ok(fd),
            Err(Errno::CONNREFUSED | Errno::CONNRESET) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error).with_context(|| format!("connect to {to}")),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connects and waits until connected; the socket then doesn't block.
pub(super) fn connected_nonblocking(to: SocketAddrV4) -> Result<OwnedFd> {
    let fd = connected(to)?;
    fcntl_setfl(&fd, OFlags::NONBLOCK).context("make a socket non-blocking")?;
    Ok(fd)
}

/// Begins to connect.
pub(super) fn connecting(to: SocketAddrV4) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("open a socket")?;
    match connect(&fd, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error).with_context(|| format!("connect to {to}")),
    }
}

/// Begins to connect from an address of this host.
pub(super) fn connecting_from(source: Ipv4Addr, to: SocketAddrV4) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("open a socket")?;
    bind(&fd, &SocketAddrV4::new(source, 0)).with_context(|| format!("bind to {source}"))?;
    match connect(&fd, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error).with_context(|| format!("connect to {to} from {source}")),
    }
}

/// Has closing reset the connection: bytes still queued are not wanted in the next measurement.
pub(super) fn reset_on_close(fd: &OwnedFd) -> Result<()> {
    sockopt::set_socket_linger(fd, Some(Duration::ZERO)).context("set SO_LINGER")
}
