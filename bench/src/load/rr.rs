//! Request/response: one request outstanding on each connection.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::control::{self, Order};
use super::counters::Counters;
use super::latency::Histogram;
use super::poller::{ORDERS, Poller};
use super::{MESSAGE_BYTES, Purpose, socket};

struct Asker {
    fd: OwnedFd,
    /// Bytes of the response so far.
    have: usize,
    asked_at: Instant,
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
    let started = Instant::now();
    let mut counters = Counters::default();
    let mut latency = Histogram::new();
    let mut events = Poller::events();
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            match event.data.u64() {
                ORDERS if control::take()? == Order::Quit => return Ok(()),
                ORDERS => {
                    counters.seconds = started.elapsed().as_secs_f64();
                    counters.p50_ns = latency.percentile_ns(50);
                    counters.p99_ns = latency.percentile_ns(99);
                    control::answer(&counters)?;
                    latency.clear();
                }
                token => {
                    if askers[usize::try_from(token)?].handle_readable(&mut latency)? {
                        counters.requests += 1;
                    }
                }
            }
        }
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

    /// True once the response is complete and the next request sent.
    fn handle_readable(&mut self, latency: &mut Histogram) -> Result<bool> {
        let mut response = [0_u8; MESSAGE_BYTES];
        match recv(&self.fd, &mut response[self.have..], RecvFlags::empty()) {
            Ok((_, 0)) => bail!("the proxy closed a connection"),
            Ok((_, received)) => self.have += received,
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error).context("receive a response"),
        }
        if self.have < MESSAGE_BYTES {
            return Ok(false);
        }
        self.have = 0;
        latency.record(self.asked_at.elapsed());
        self.ask()?;
        Ok(true)
    }
}
