//! Visit: connect, one question and its answer, close; a fixed number at a time, every answer checked.
//!
//! Edge-triggered, so that a connection is registered once: connected and answered are two edges.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::Result;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::client::{self, Client};
use super::poller::Poller;
use super::query::ANSWER_BYTES_MAX;
use super::socket;
use super::speech::{Answer, Speech};
use super::tally::Tally;

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

struct Visiting {
    to: SocketAddrV4,
    speech: Speech,
    poller: Poller,
    visits: Vec<Visit>,
    /// Visits so far.
    number: u64,
    tally: Tally,
}

/// Visits until the bench is done.
pub(super) fn run(to: SocketAddrV4, conns: usize, speech: Speech) -> Result<()> {
    let (poller, visits) = (Poller::new()?, Vec::with_capacity(conns));
    let mut visiting = Visiting { to, speech, poller, visits, number: 0, tally: Tally::new() };
    for token in 0..u64::try_from(conns)? {
        let visit = visiting.begin(token)?;
        visiting.visits.push(visit);
    }
    client::run(&mut visiting)
}

impl Visiting {
    fn begin(&mut self, token: u64) -> Result<Visit> {
        self.number += 1;
        let began_at = Instant::now();
        let fd = socket::connecting(self.to)?;
        self.poller.add(&fd, token, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
        Ok(Visit { fd, number: self.number, began_at, asked: false, have: 0, answer: [0; ANSWER_BYTES_MAX] })
    }
}

impl Client for Visiting {
    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        let index = usize::try_from(token)?;
        let visit = &mut self.visits[index];
        match visit.handle_ready(token, self.speech)? {
            Progress::Waiting => return Ok(()),
            Progress::Done => self.tally.exchanged(visit.began_at),
            Progress::Failed => self.tally.counters.errors += 1,
        }
        self.visits[index] = self.begin(token)?;
        Ok(())
    }
}

impl Visit {
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
