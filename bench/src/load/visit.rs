//! Visit: connect, one question and its answer, close; a fixed number at a time, every answer checked.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::Result;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::control::{self, Order};
use super::counters::Counters;
use super::latency::Histogram;
use super::poller::{ORDERS, Poller};
use super::query::ANSWER_BYTES_MAX;
use super::socket;
use super::speech::{Answer, Speech};

struct Visit {
    fd: OwnedFd,
    number: u64,
    began_at: Instant,
    asked: bool,
    have: usize,
    answer: Answer,
}

/// How far an event took a visit.
enum Progress {
    Waiting,
    Done,
    Failed,
}

/// Visits until the bench is done.
pub(super) fn run(to: SocketAddrV4, conns: usize, speech: Speech) -> Result<()> {
    let poller = Poller::new()?;
    let mut number = 0;
    let mut begin = |token: usize| {
        number += 1;
        Visit::begin(to, &poller, u64::try_from(token)?, number)
    };
    let mut visits = (0..conns).map(&mut begin).collect::<Result<Vec<Visit>>>()?;
    let started = Instant::now();
    let mut counters = Counters::default();
    let mut latency = Histogram::new();
    let mut events = Poller::events();
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            if event.data.u64() == ORDERS {
                if control::take()? == Order::Quit {
                    return Ok(());
                }
                control::answer_with(&mut counters, &mut latency, started)?;
                continue;
            }
            let token = usize::try_from(event.data.u64())?;
            match visits[token].handle_ready(event.data.u64(), speech)? {
                Progress::Waiting => continue,
                Progress::Done => {
                    counters.requests += 1;
                    latency.record(visits[token].began_at.elapsed());
                }
                Progress::Failed => counters.errors += 1,
            }
            visits[token] = begin(token)?;
        }
    }
}

impl Visit {
    fn begin(to: SocketAddrV4, poller: &Poller, token: u64, number: u64) -> Result<Self> {
        let began_at = Instant::now();
        let fd = socket::connecting(to)?;
        poller.add(&fd, token, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
        Ok(Self { fd, number, began_at, asked: false, have: 0, answer: [0; ANSWER_BYTES_MAX] })
    }

    fn handle_ready(&mut self, token: u64, speech: Speech) -> Result<Progress> {
        if !self.asked {
            if speech.ask(&self.fd, token, self.number) != Ok(true) {
                return Ok(Progress::Failed);
            }
            self.asked = true;
            return Ok(Progress::Waiting);
        }
        match recv(&self.fd, &mut self.answer[self.have..], RecvFlags::empty()) {
            Ok((_, 0)) => return Ok(Progress::Failed),
            Ok((_, received)) => self.have += received,
            Err(Errno::AGAIN) => {}
            Err(_) => return Ok(Progress::Failed),
        }
        let answered = speech.is_answer(&self.answer[..self.have], token, self.number)?;
        Ok(if answered { Progress::Done } else { Progress::Waiting })
    }
}
