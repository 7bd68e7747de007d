//! Connect, request, response, close: short connections, a fixed number at a time.
//!
//! Edge-triggered, so that a connection is registered once: connected and answered are two edges.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::Result;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::control::{self, Order};
use super::counters::Counters;
use super::latency::Histogram;
use super::poller::{ORDERS, Poller};
use super::{MESSAGE_BYTES, Purpose, socket};

struct Visit {
    fd: OwnedFd,
    began_at: Instant,
    asked: bool,
    /// Bytes of the response so far.
    have: usize,
}

/// How far an event took a visit.
enum Progress {
    Waiting,
    Done,
    Failed,
}

/// Visits until the bench is done.
pub(super) fn run(to: SocketAddrV4, conns: usize) -> Result<()> {
    let poller = Poller::new()?;
    let mut visits = Vec::with_capacity(conns);
    for token in 0..conns {
        visits.push(Visit::begin(to, &poller, u64::try_from(token)?)?);
    }
    let started = Instant::now();
    let mut counters = Counters::default();
    let mut latency = Histogram::new();
    let mut events = Poller::events();
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            let token = event.data.u64();
            if token == ORDERS {
                if control::take()? == Order::Quit {
                    return Ok(());
                }
                counters.seconds = started.elapsed().as_secs_f64();
                counters.p50_ns = latency.percentile_ns(50);
                counters.p99_ns = latency.percentile_ns(99);
                control::answer(&counters)?;
                latency.clear();
                continue;
            }
            let visit = &mut visits[usize::try_from(token)?];
            match visit.handle_ready() {
                Progress::Waiting => continue,
                Progress::Done => {
                    counters.requests += 1;
                    latency.record(visit.began_at.elapsed());
                }
                Progress::Failed => counters.errors += 1,
            }
            *visit = Visit::begin(to, &poller, token)?;
        }
    }
}

impl Visit {
    fn begin(to: SocketAddrV4, poller: &Poller, token: u64) -> Result<Self> {
        let began_at = Instant::now();
        let fd = socket::connecting(to)?;
        poller.add(&fd, token, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
        Ok(Self { fd, began_at, asked: false, have: 0 })
    }

    fn handle_ready(&mut self) -> Progress {
        if !self.asked {
            let request = [Purpose::Echo.byte(); MESSAGE_BYTES];
            if send(&self.fd, &request, SendFlags::NOSIGNAL) != Ok(MESSAGE_BYTES) {
                return Progress::Failed;
            }
            self.asked = true;
            return Progress::Waiting;
        }
        let mut response = [0_u8; MESSAGE_BYTES];
        match recv(&self.fd, &mut response[self.have..], RecvFlags::empty()) {
            Ok((_, 0)) => return Progress::Failed,
            Ok((_, received)) => self.have += received,
            Err(Errno::AGAIN) => {}
            Err(_) => return Progress::Failed,
        }
        if self.have == MESSAGE_BYTES { Progress::Done } else { Progress::Waiting }
    }
}
