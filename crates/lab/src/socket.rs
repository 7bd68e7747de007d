//! TCP sockets whose congestion control is set, never left to the system's default: some kernels default to BBR, which makes any
//! first window slower.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::sys;

/// What the kernel can be asked for.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Cubic where the kernel has it, else its Reno, which each has.
///
/// # Errors
/// The kernel doesn't say.
pub(crate) fn congestion_control() -> Result<&'static str> {
    Ok(if has_congestion_control("cubic")? { "cubic" } else { "reno" })
}

/// Whether the kernel has a congestion control.
///
/// # Errors
/// The kernel doesn't say.
pub(crate) fn has_congestion_control(name: &str) -> Result<bool> {
    let available = fs::read_to_string(AVAILABLE).with_context(|| format!("can't read {AVAILABLE}"))?;
    Ok(available.split_whitespace().any(|available| available == name))
}

/// A listener on all addresses of the calling thread's host.
pub(crate) fn listen(port: u16, congestion: &str) -> Result<TcpListener> {
    let socket = open(congestion, SocketFlags::CLOEXEC)?;
    sockopt::set_socket_reuseaddr(&socket, true).context("can't set SO_REUSEADDR")?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
        .with_context(|| format!("can't bind port {port}"))?;
    sys::set_tcp_option(socket.as_fd(), libc::TCP_FASTOPEN, BACKLOG).context("can't set TCP_FASTOPEN")?;
    rustix::net::listen(&socket, BACKLOG).context("can't listen")?;
    Ok(TcpListener::from(socket))
}

/// A connection from the calling thread's host. With Fast Open (Linux 4.11) it comes back at once when the kernel has a cookie,
/// and the first bytes written go out with the SYN.
pub(crate) fn connect(to: SocketAddrV4, congestion: &str, fast_open: bool, patience: Duration) -> Result<TcpStream> {
    let socket = open(congestion, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    if fast_open {
        sys::set_tcp_option(socket.as_fd(), libc::TCP_FASTOPEN_CONNECT, 1).context("can't set TCP_FASTOPEN_CONNECT")?;
    }
    match rustix::net::connect(&socket, &to) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => wait_connected(&socket, to, patience)?,
        Err(error) => return Err(error).with_context(|| format!("can't connect to {to}")),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).context("can't make a socket blocking")?;
    stream.set_nodelay(true).context("can't set TCP_NODELAY")?;
    stream.set_read_timeout(Some(patience)).context("can't set a timeout")?;
    stream.set_write_timeout(Some(patience)).context("can't set a timeout")?;
    Ok(stream)
}

fn open(congestion: &str, flags: SocketFlags) -> Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .context("can't make a socket")?;
    sockopt::set_tcp_congestion(&socket, congestion)
        .with_context(|| format!("can't set the congestion control {congestion}"))?;
    Ok(socket)
}

fn wait_connected(socket: &OwnedFd, to: SocketAddrV4, patience: Duration) -> Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut watched = [PollFd::new(socket, PollFlags::OUT)];
    if poll(&mut watched, Some(&timeout)).context("can't wait for a connection")? == 0 {
        bail!("no answer from {to} within {patience:?}");
    }
    match sockopt::socket_error(socket).context("can't read a socket's error")? {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::from(error)).with_context(|| format!("can't connect to {to}")),
    }
}
