//! Ask: framed messages, one outstanding on each connection, every answer checked.
//!
//! Connections are opened some at a time, so that no backlog overflows, and each asks as soon as it stands. It asks again when all
//! were served once: else a server that takes one connection a turn would take them ever more slowly. Registered once, edge-triggered:
//! that a connection stands and that an answer has come are edges.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::client::{self, Client};
use super::framed::{FRAMED_BYTES, check, message};
use super::poller::Poller;
use super::socket;
use super::tally::Tally;

/// Connections that are being opened, or wait for their first answer, at once.
const OPENING_MAX: usize = 256;
/// Connections that come from one address: its ports are fewer than 65,536.
pub(crate) const CONNS_PER_SOURCE: usize = 50_000;

/// What to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The server.
    pub(super) to: SocketAddrV4,
    /// Connections.
    pub(super) conns: usize,
    /// The first address to come from; the next [`CONNS_PER_SOURCE`] connections come from the next one. `None`: the kernel's choice.
    pub(super) source: Option<Ipv4Addr>,
    /// Each connection asks once and is then left alone.
    pub(super) once: bool,
}

struct Asker {
    fd: OwnedFd,
    stands: bool,
    sequence: u64,
    asked_at: Instant,
    have: usize,
    answer: [u8; FRAMED_BYTES],
}

struct Asking {
    plan: Plan,
    poller: Poller,
    askers: Vec<Asker>,
    /// Connections that have had their first answer.
    served: usize,
    tally: Tally,
}

/// Asks until the bench is done.
pub(super) fn run(plan: Plan) -> Result<()> {
    let (poller, askers) = (Poller::new()?, Vec::with_capacity(plan.conns));
    client::run(&mut Asking { plan, poller, askers, served: 0, tally: Tally::new() })
}

impl Client for Asking {
    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn prepare(&mut self) -> Result<()> {
        self.open_some()
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        let asker = &mut self.askers[usize::try_from(token)?];
        if !asker.stands {
            asker.stands = true;
            return asker.ask(token);
        }
        if !asker.answered(token)? {
            return Ok(());
        }
        self.tally.exchanged(asker.asked_at);
        if asker.sequence > 1 {
            return asker.ask(token);
        }
        self.served += 1;
        if self.served < self.plan.conns {
            return Ok(());
        }
        self.tally.all_served()?;
        let again = if self.plan.once { &mut [] } else { &mut self.askers[..] };
        (0..).zip(again).try_for_each(|(token, asker)| asker.ask(token))
    }
}

impl Asking {
    fn open_some(&mut self) -> Result<()> {
        while self.askers.len() < self.plan.conns && self.askers.len() - self.served < OPENING_MAX {
            let index = self.askers.len();
            let fd = match self.plan.source.filter(|_| index >= CONNS_PER_SOURCE) {
                None => socket::connecting(self.plan.to),
                Some(first) => {
                    let source = u32::from(first) + u32::try_from(index / CONNS_PER_SOURCE)?;
                    socket::connecting_from(source.into(), self.plan.to)
                }
            }
            .with_context(|| format!("connection {} of {}", index + 1, self.plan.conns))?;
            socket::reset_on_close(&fd)?;
            self.poller.add(&fd, u64::try_from(index)?, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
            let asked_at = Instant::now();
            self.askers.push(Asker { fd, stands: false, sequence: 0, asked_at, have: 0, answer: [0; FRAMED_BYTES] });
        }
        Ok(())
    }
}

impl Asker {
    fn ask(&mut self, conn: u64) -> Result<()> {
        self.asked_at = Instant::now();
        let question = message(conn, self.sequence);
        self.have = 0;
        let sent = send(&self.fd, &question, SendFlags::NOSIGNAL).context("send a question")?;
        ensure!(sent == FRAMED_BYTES, "a question of {FRAMED_BYTES} bytes was cut to {sent}");
        Ok(())
    }

    /// Whether the answer is complete; if so, the next question is due.
    fn answered(&mut self, conn: u64) -> Result<bool> {
        match recv(&self.fd, &mut self.answer[self.have..], RecvFlags::empty()) {
            Ok((_, 0)) => bail!("the server closed connection {conn}"),
            Ok((_, received)) => self.have += received,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error).context("receive an answer"),
        }
        if self.have < FRAMED_BYTES {
            return Ok(false);
        }
        check(&self.answer, conn, self.sequence)?;
        self.sequence += 1;
        Ok(true)
    }
}
