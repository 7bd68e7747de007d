//! Idle: connections that have exchanged one message and then do nothing.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::control::{self, Order};
use super::counters::Counters;
use super::{MESSAGE_BYTES, Purpose, socket};

/// Opens the connections one after another; answers orders once all are open, and closes them at the end.
pub(super) fn run(to: SocketAddrV4, conns: usize) -> Result<()> {
    let started = Instant::now();
    let mut open = Vec::with_capacity(conns);
    let mut counters = Counters::default();
    for _ in 0..conns {
        let fd = socket::connected(to)?;
        socket::reset_on_close(&fd)?;
        exchange(&fd).with_context(|| format!("connection {} of {conns}", open.len() + 1))?;
        counters.requests += 1;
        open.push(fd);
    }
    while control::take()? == Order::Report {
        counters.seconds = started.elapsed().as_secs_f64();
        control::answer(&counters)?;
    }
    Ok(())
}

/// One request and its response on a blocking socket.
pub(super) fn exchange(fd: &OwnedFd) -> Result<()> {
    let mut message = [Purpose::Echo.byte(); MESSAGE_BYTES];
    let sent = send(fd, &message, SendFlags::NOSIGNAL).context("send")?;
    ensure!(sent == MESSAGE_BYTES, "a request of {MESSAGE_BYTES} bytes was cut to {sent}");
    let (_, received) = recv(fd, &mut message, RecvFlags::WAITALL).context("receive")?;
    ensure!(received == MESSAGE_BYTES, "the connection ended after {received} bytes of a response");
    Ok(())
}
