//! DNS: so many questions outstanding on each connection, every answer checked; all that a turn answers is asked anew in one write.
//!
//! Connections are opened some at a time and ask once; when all were served, each asks as much as it's to have outstanding. Registered
//! once, edge-triggered: that a connection stands and that answers have come are edges.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::client::{self, Client};
use super::poller::Poller;
use super::query::{self, QUERY_BYTES};
use super::socket;
use super::tally::Tally;

/// Connections that are being opened, or wait for their first answer, at once.
const OPENING_MAX: usize = 64;
/// Bytes read by one call.
const RECV_BYTES: usize = 64 << 10;

/// What to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The server.
    pub(super) to: SocketAddrV4,
    /// Connections.
    pub(super) conns: usize,
    /// Questions that wait for their answers, on each.
    pub(super) outstanding: u16,
    /// Each connection asks once and is then left alone.
    pub(super) once: bool,
    /// After so many answers a question about a slow host is asked besides, one that nobody waits for.
    pub(super) slow_every: Option<u64>,
}

/// A question that waits for its answer; its id is its place.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    host: usize,
    waits: bool,
}

struct Asker {
    fd: OwnedFd,
    stands: bool,
    served: bool,
    questions: Vec<Asked>,
    /// Ids above the others, of questions about slow hosts that have been answered.
    spare: Vec<u16>,
    /// The beginning of an answer.
    begun: Vec<u8>,
}

/// What all connections share.
struct Shared {
    tally: Tally,
    received: Vec<u8>,
    /// Questions to be sent.
    asking: Vec<u8>,
    /// Questions so far: each is for another host than the one before.
    asked: usize,
    /// See [`Plan::slow_every`], and how many answers are left until then.
    slow_every: Option<u64>,
    until_slow: u64,
}

struct Asking {
    plan: Plan,
    poller: Poller,
    askers: Vec<Asker>,
    /// Connections that have had their first answer.
    served: usize,
    shared: Shared,
}

/// Asks until the bench is done.
pub(super) fn run(plan: Plan) -> Result<()> {
    client::run(&mut Asking {
        plan,
        poller: Poller::new()?,
        askers: Vec::with_capacity(plan.conns),
        served: 0,
        shared: Shared {
            tally: Tally::new(),
            received: vec![0; RECV_BYTES],
            asking: Vec::with_capacity(usize::from(plan.outstanding) * QUERY_BYTES),
            asked: 0,
            slow_every: plan.slow_every,
            until_slow: plan.slow_every.unwrap_or(0),
        },
    })
}

impl Client for Asking {
    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.shared.tally
    }

    fn prepare(&mut self) -> Result<()> {
        self.open_some()
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        let index = usize::try_from(token)?;
        let all_served = self.served == self.plan.conns;
        let (asker, shared) = (&mut self.askers[index], &mut self.shared);
        if !asker.stands {
            asker.stands = true;
            shared.asking.clear();
            asker.ask(0, shared, false)?;
            return asker.send(shared);
        }
        asker.receive(shared, all_served && !self.plan.once).with_context(|| format!("connection {index}"))?;
        if asker.served || asker.questions.first().is_none_or(|question| question.waits) {
            return Ok(());
        }
        asker.served = true;
        self.served += 1;
        if self.served == self.plan.conns { self.begin() } else { Ok(()) }
    }
}

impl Asking {
    fn open_some(&mut self) -> Result<()> {
        while self.askers.len() < self.plan.conns && self.askers.len() - self.served < OPENING_MAX {
            let index = self.askers.len();
            let fd = socket::connecting(self.plan.to)
                .with_context(|| format!("connection {} of {}", index + 1, self.plan.conns))?;
            socket::reset_on_close(&fd)?;
            rustix::net::sockopt::set_tcp_nodelay(&fd, true).context("set TCP_NODELAY")?;
            self.poller.add(&fd, u64::try_from(index)?, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
            let (questions, spare, begun) = Default::default();
            self.askers.push(Asker { fd, stands: false, served: false, questions, spare, begun });
        }
        Ok(())
    }

    /// All were served once: each asks as much as it's to.
    fn begin(&mut self) -> Result<()> {
        self.shared.tally.all_served()?;
        let askers = if self.plan.once { &mut [] } else { &mut self.askers[..] };
        for asker in askers {
            self.shared.asking.clear();
            for id in 0..self.plan.outstanding {
                asker.ask(id, &mut self.shared, false)?;
            }
            asker.send(&self.shared)?;
        }
        Ok(())
    }
}

impl Asker {
    /// Has a question under this id sent with the next write.
    fn ask(&mut self, id: u16, shared: &mut Shared, slow: bool) -> Result<()> {
        let host = shared.asked % query::HOSTS + if slow { query::HOSTS } else { 0 };
        shared.asked += 1;
        let question = Asked { at: Instant::now(), host, waits: true };
        let place = usize::from(id);
        if place == self.questions.len() {
            self.questions.push(question);
        } else {
            *self.questions.get_mut(place).context("an answer under an id that nobody used")? = question;
        }
        shared.asking.extend(query::query(id, host));
        Ok(())
    }

    fn send(&self, shared: &Shared) -> Result<()> {
        if shared.asking.is_empty() {
            return Ok(());
        }
        let sent = send(&self.fd, &shared.asking, SendFlags::NOSIGNAL).context("send questions")?;
        ensure!(sent == shared.asking.len(), "{} bytes of questions were cut to {sent}", shared.asking.len());
        Ok(())
    }

    /// Takes all answers that have come, and asks in place of each if that's wanted.
    fn receive(&mut self, shared: &mut Shared, again: bool) -> Result<()> {
        shared.asking.clear();
        let mut received = std::mem::take(&mut shared.received);
        let taken = loop {
            match recv(&self.fd, &mut received[..], RecvFlags::empty()) {
                Ok((_, 0)) => bail!("closed by the server"),
                Ok((_, bytes)) => self.take(&received[..bytes], shared, again)?,
                Err(Errno::AGAIN) => break self.send(shared),
                Err(error) => bail!("receive answers: {error}"),
            }
        };
        shared.received = received;
        taken
    }

    fn take(&mut self, received: &[u8], shared: &mut Shared, again: bool) -> Result<()> {
        let mut begun = std::mem::take(&mut self.begun);
        let bytes = if begun.is_empty() {
            received
        } else {
            begun.extend_from_slice(received);
            &begun[..]
        };
        let mut rest = bytes;
        while let Some(length) = query::whole(rest) {
            self.answered(&rest[2..2 + length], shared, again)?;
            rest = &rest[2 + length..];
        }
        self.begun = rest.to_vec();
        Ok(())
    }

    fn answered(&mut self, answer: &[u8], shared: &mut Shared, again: bool) -> Result<()> {
        let id = query::id(answer).context("an answer without an id")?;
        let question = self.questions.get_mut(usize::from(id)).filter(|question| question.waits);
        let question = question.context("an answer to nothing")?;
        query::check(answer, id, question.host)?;
        question.waits = false;
        if question.host >= query::HOSTS {
            shared.tally.counters.requests += 1;
            self.spare.push(id);
            return Ok(());
        }
        shared.tally.exchanged(question.at);
        if !again {
            return Ok(());
        }
        self.ask(id, shared, false)?;
        self.ask_slow(shared)
    }

    /// Asks about a slow host, if it's time to.
    fn ask_slow(&mut self, shared: &mut Shared) -> Result<()> {
        let Some(every) = shared.slow_every else { return Ok(()) };
        shared.until_slow -= 1;
        if shared.until_slow > 0 {
            return Ok(());
        }
        shared.until_slow = every;
        let new = u16::try_from(self.questions.len()).context("no id is left for a slow question")?;
        let id = self.spare.pop().unwrap_or(new);
        self.ask(id, shared, true)
    }
}
