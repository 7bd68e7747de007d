//! Request/response: one request outstanding on each connection.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::client::{self, Client};
use super::poller::Poller;
use super::tally::Tally;
use super::{MESSAGE_BYTES, Purpose, socket};

struct Asker {
    fd: OwnedFd,
    /// Bytes of the response so far.
    have: usize,
    asked_at: Instant,
}

struct Asking {
    poller: Poller,
    askers: Vec<Asker>,
    tally: Tally,
}

/// Asks until the bench is done.
pub(super) fn run(to: SocketAddrV4, conns: usize) -> Result<()> {
    let poller = Poller::new()?;
    let mut askers = Vec::with_capacity(conns);
    for token in 0..conns {
        let fd = socket::connected_nonblocking(to)?;
        socket::reset_on_close(&fd)?;
        poller.add(&fd, u64::try_from(token)?, EventFlags::IN)?;
        askers.push(Asker { fd, have: 0, asked_at: Instant::now() });
    }
    for asker in &mut askers {
        asker.ask()?;
    }
    client::run(&mut Asking { poller, askers, tally: Tally::new() })
}

impl Client for Asking {
    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        self.askers[usize::try_from(token)?].handle_readable(&mut self.tally)
    }
}

impl Asker {
    fn ask(&mut self) -> Result<()> {
        self.asked_at = Instant::now();
        let request = [Purpose::Echo.byte(); MESSAGE_BYTES];
        let sent = send(&self.fd, &request, SendFlags::NOSIGNAL).context("send a request")?;
        ensure!(sent == MESSAGE_BYTES, "a request of {MESSAGE_BYTES} bytes was cut to {sent}");
        Ok(())
    }

    /// Takes what has come of the response; once it's complete, the next request is sent.
    fn handle_readable(&mut self, tally: &mut Tally) -> Result<()> {
        let mut response = [0_u8; MESSAGE_BYTES];
        match recv(&self.fd, &mut response[self.have..], RecvFlags::empty()) {
            Ok((_, 0)) => bail!("the proxy closed a connection"),
            Ok((_, received)) => self.have += received,
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error).context("receive a response"),
        }
        if self.have < MESSAGE_BYTES {
            return Ok(());
        }
        self.have = 0;
        tally.exchanged(self.asked_at);
        self.ask()
    }
}
