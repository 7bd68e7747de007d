//! A name server of the load's own: it answers each question at once, but for those about slow hosts, which wait for a while.
//!
//! No answer waits for another: those that wait stand in a queue, and leave when their time has come. It takes no orders, and is killed.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

use super::poller::Poller;
use super::{query, server};

/// Bytes read by one call.
const RECV_BYTES: usize = 64 << 10;
const LISTENER: u64 = u64::MAX - 1;
/// Finer than this nobody looks at the clock.
const TICK: Duration = Duration::from_millis(1);

struct Conn {
    fd: OwnedFd,
    /// The beginning of a question.
    begun: Vec<u8>,
}

/// An answer that waits.
struct Late {
    due: Instant,
    conn: usize,
    answer: Vec<u8>,
}

struct NameServer {
    delay: Duration,
    poller: Poller,
    listener: OwnedFd,
    /// None is taken again: those that went are few, and an answer that waits may be for one of them.
    conns: Vec<Option<Conn>>,
    late: VecDeque<Late>,
    received: Vec<u8>,
}

/// Answers until it's killed; slow hosts' questions after `delay`.
pub(super) fn run(address: SocketAddrV4, delay: Duration) -> Result<()> {
    let listener = server::listening(address)?;
    let poller = Poller::deaf()?;
    poller.add(&listener, LISTENER, EventFlags::IN)?;
    let received = vec![0; RECV_BYTES];
    let mut server = NameServer { delay, poller, listener, conns: Vec::new(), late: VecDeque::new(), received };
    let mut events = Poller::events();
    loop {
        let wait = server.late.front().map(|late| late.due.saturating_duration_since(Instant::now()).max(TICK));
        server.poller.wait(&mut events, wait)?;
        server.send_late()?;
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept_all()?,
                index => server.handle(usize::try_from(index)?)?,
            }
        }
    }
}

impl NameServer {
    fn accept_all(&mut self) -> Result<()> {
        loop {
            match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => {
                    sockopt::set_tcp_nodelay(&fd, true).context("set TCP_NODELAY")?;
                    self.poller.add(&fd, u64::try_from(self.conns.len())?, EventFlags::IN)?;
                    self.conns.push(Some(Conn { fd, begun: Vec::new() }));
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED) => {}
                Err(error) => return Err(error).context("accept"),
            }
        }
    }

    fn handle(&mut self, index: usize) -> Result<()> {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        let received = match recv(&conn.fd, &mut self.received[..], RecvFlags::empty()) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => {
                self.conns[index] = None;
                return Ok(());
            }
            Ok((_, received)) => received,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error).context("receive questions"),
        };
        conn.begun.extend_from_slice(&self.received[..received]);
        let (mut answers, mut taken) = (Vec::new(), 0);
        while let Some(length) = query::whole(&conn.begun[taken..]) {
            let question = &conn.begun[taken + 2..taken + 2 + length];
            let answer = query::answer(question)?;
            if query::is_slow(question) {
                self.late.push_back(Late { due: Instant::now() + self.delay, conn: index, answer });
            } else {
                answers.extend(answer);
            }
            taken += 2 + length;
        }
        conn.begun.drain(..taken);
        self.send(index, &answers)
    }

    fn send_late(&mut self) -> Result<()> {
        while let Some(late) = self.late.pop_front_if(|late| late.due <= Instant::now()) {
            self.send(late.conn, &late.answer)?;
        }
        Ok(())
    }

    /// Sends to a connection, if it's still there.
    fn send(&mut self, index: usize, answers: &[u8]) -> Result<()> {
        let Some(conn) = self.conns[index].as_ref().filter(|_| !answers.is_empty()) else { return Ok(()) };
        match send(&conn.fd, answers, SendFlags::NOSIGNAL) {
            Ok(sent) => ensure!(sent == answers.len(), "{} bytes of answers were cut to {sent}", answers.len()),
            Err(Errno::CONNRESET | Errno::PIPE) => self.conns[index] = None,
            Err(error) => return Err(error).context("send answers"),
        }
        Ok(())
    }
}
