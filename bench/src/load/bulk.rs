//! Bulk: sends on every connection as fast as it's taken.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::client::{self, Client};
use super::poller::Poller;
use super::tally::Tally;
use super::{Purpose, socket};

/// Bytes offered by one call. `sendfile` from memory would save the copy and cost more: it makes fragments of 4 KiB,
/// which client, proxy and server then handle one by one, where `send` makes fragments of 32 KiB.
const CHUNK_BYTES: usize = 128 << 10;

struct Bulk {
    poller: Poller,
    flows: Vec<OwnedFd>,
    /// Only the first byte of a connection matters, so that all may be the same.
    chunk: Vec<u8>,
    tally: Tally,
}

/// Sends until the bench is done.
pub(super) fn run(to: SocketAddrV4, conns: usize, purpose: Purpose) -> Result<()> {
    let poller = Poller::new()?;
    let mut flows = Vec::with_capacity(conns);
    for token in 0..conns {
        let fd = socket::connected_nonblocking(to)?;
        socket::reset_on_close(&fd)?;
        poller.add(&fd, u64::try_from(token)?, EventFlags::OUT)?;
        flows.push(fd);
    }
    client::run(&mut Bulk { poller, flows, chunk: vec![purpose.byte(); CHUNK_BYTES], tally: Tally::new() })
}

impl Client for Bulk {
    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        self.tally.counters.bytes += send_some(&self.flows[usize::try_from(token)?], &self.chunk)?;
        Ok(())
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
