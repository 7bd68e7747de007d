//! Bulk: sends on every connection as fast as it's taken.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::control::{self, Order};
use super::counters::Counters;
use super::poller::{ORDERS, Poller};
use super::{Purpose, socket};

/// Bytes offered by one call. `sendfile` from memory would save the copy and cost more: it makes fragments of 4 KiB,
/// which client, proxy and server then handle one by one, where `send` makes fragments of 32 KiB.
const CHUNK_BYTES: usize = 128 << 10;

/// Sends until the bench is done.
pub(super) fn run(to: SocketAddrV4, conns: usize, purpose: Purpose) -> Result<()> {
    // Only the first byte of a connection matters, so that all may be the same.
    let chunk = vec![purpose.byte(); CHUNK_BYTES];
    let poller = Poller::new()?;
    let mut flows = Vec::with_capacity(conns);
    for token in 0..conns {
        let fd = socket::connected_nonblocking(to)?;
        socket::reset_on_close(&fd)?;
        poller.add(&fd, u64::try_from(token)?, EventFlags::OUT)?;
        flows.push(fd);
    }
    let started = Instant::now();
    let mut counters = Counters::default();
    let mut events = Poller::events();
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            match event.data.u64() {
                ORDERS if control::take()? == Order::Quit => return Ok(()),
                ORDERS => {
                    counters.seconds = started.elapsed().as_secs_f64();
                    control::answer(&counters)?;
                }
                token => {
                    counters.bytes += send_some(&flows[usize::try_from(token)?], &chunk)?;
                }
            }
        }
    }
}

/// Offers one chunk.
fn send_some(fd: &OwnedFd, chunk: &[u8]) -> Result<u64> {
    match send(fd, chunk, SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(u64::try_from(sent)?),
        Err(Errno::AGAIN) => Ok(0),
        Err(error) => Err(error).context("send"),
    }
}
