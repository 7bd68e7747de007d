//! The load server: a sink, an echo and a slow reader behind one port.
//!
//! It spares itself what it can, since it shares a CPU with the client: no `TCP_NODELAY`, for one, because a response is
//! never sent while another is unacknowledged.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, recv, send, socket_with,
    sockopt,
};

use super::control::{self, Order};
use super::counters::Counters;
use super::poller::{ORDERS, Poller};
use super::tally::Tally;
use super::{MESSAGE_BYTES, Purpose};

/// What all slow connections together are read at.
pub(crate) const SLOW_BYTES_PER_SECOND: u64 = 1_000_000;
/// How often slow connections are read.
const SLOW_TICK: Duration = Duration::from_millis(20);
/// A slow reader's receive buffer as asked for; the kernel doubles it.
const SLOW_RECV_BUFFER: usize = 128 << 10;
/// Bytes discarded by one call. With `MSG_TRUNC` TCP doesn't copy, so the buffer's pages are never touched.
const DISCARD_BYTES: usize = 4 << 20;
const LISTENER: u64 = u64::MAX - 1;
const BACKLOG: i32 = 4096;

struct Conn {
    fd: OwnedFd,
    purpose: Option<Purpose>,
    /// Bytes of an incomplete message.
    have: usize,
}

struct Server {
    poller: Poller,
    listener: OwnedFd,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    slow: Vec<OwnedFd>,
    slow_read_at: Instant,
    tally: Tally,
    scratch: Vec<u8>,
}

/// Whether a connection stays.
#[derive(PartialEq, Eq)]
enum Fate {
    Keep,
    Slow,
    Close,
}

/// A listener with room for all who come at once.
pub(super) fn listening(address: SocketAddrV4) -> Result<OwnedFd> {
    let listener =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    bind(&listener, &address).with_context(|| format!("bind {address}"))?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Serves until the bench is done.
pub(super) fn run(address: SocketAddrV4) -> Result<()> {
    let listener = listening(address)?;
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER, EventFlags::IN)?;
    let mut server = Server {
        poller,
        listener,
        conns: Vec::new(),
        free: Vec::new(),
        slow: Vec::new(),
        slow_read_at: Instant::now(),
        tally: Tally::new(),
        scratch: vec![0; DISCARD_BYTES],
    };
    server.serve()
}

impl Server {
    fn serve(&mut self) -> Result<()> {
        let mut events = Poller::events();
        loop {
            let tick = (!self.slow.is_empty()).then_some(SLOW_TICK);
            self.poller.wait(&mut events, tick)?;
            self.read_slowly();
            for event in &events {
                match event.data.u64() {
                    ORDERS if control::take()? == Order::Quit => return Ok(()),
                    ORDERS => self.tally.report()?,
                    LISTENER => self.accept_all()?,
                    index => self.handle(usize::try_from(index)?)?,
                }
            }
        }
    }

    fn accept_all(&mut self) -> Result<()> {
        loop {
            let fd = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED) => continue,
                Err(error) => return Err(error).context("accept"),
            };
            let index = self.free.pop().unwrap_or(self.conns.len());
            self.poller.add(&fd, u64::try_from(index)?, EventFlags::IN)?;
            let conn = Some(Conn { fd, purpose: None, have: 0 });
            match self.conns.get_mut(index) {
                Some(slot) => *slot = conn,
                None => self.conns.push(conn),
            }
        }
    }

    fn handle(&mut self, index: usize) -> Result<()> {
        let Some(slot) = self.conns.get_mut(index) else {
            return Ok(());
        };
        let Some(conn) = slot else { return Ok(()) };
        let fate = conn.receive(&mut self.scratch, &mut self.tally.counters);
        if fate == Fate::Keep {
            return Ok(());
        }
        if let Some(conn) = slot.take()
            && fate == Fate::Slow
        {
            self.poller.remove(&conn.fd)?;
            sockopt::set_socket_recv_buffer_size(&conn.fd, SLOW_RECV_BUFFER)?;
            self.slow_read_at = Instant::now();
            self.slow.push(conn.fd);
        }
        self.free.push(index);
        Ok(())
    }

    /// Reads what the rate allows since the last time, shared out evenly.
    fn read_slowly(&mut self) {
        let conns = u64::try_from(self.slow.len()).unwrap_or(u64::MAX);
        if conns == 0 || self.slow_read_at.elapsed() < SLOW_TICK {
            return;
        }
        let elapsed_us = u64::try_from(self.slow_read_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.slow_read_at = Instant::now();
        let quota = elapsed_us.saturating_mul(SLOW_BYTES_PER_SECOND) / 1_000_000 / conns;
        let quota = usize::try_from(quota).unwrap_or(DISCARD_BYTES).clamp(1, DISCARD_BYTES);
        let Self { slow, scratch, tally, .. } = self;
        slow.retain(|fd| match recv(fd, &mut scratch[..quota], RecvFlags::TRUNC) {
            Ok((_, 0)) => false,
            Ok((_, n)) => {
                tally.counters.slow_bytes += as_u64(n);
                true
            }
            Err(error) => error == Errno::AGAIN,
        });
    }
}

impl Conn {
    fn receive(&mut self, scratch: &mut [u8], counters: &mut Counters) -> Fate {
        let (room, flags) = match self.purpose {
            Some(Purpose::Sink) => (scratch.len(), RecvFlags::TRUNC),
            _ => (MESSAGE_BYTES - self.have, RecvFlags::empty()),
        };
        let received = match recv(&self.fd, &mut scratch[..room], flags) {
            Ok((_, 0)) => return Fate::Close,
            Ok((_, n)) => n,
            Err(Errno::AGAIN) => return Fate::Keep,
            Err(_) => {
                counters.errors += 1;
                return Fate::Close;
            }
        };
        if self.purpose.is_none() {
            self.purpose = Purpose::of(scratch[0]);
        }
        match self.purpose {
            Some(Purpose::Sink) => counters.bytes += as_u64(received),
            Some(Purpose::Echo) => return self.echo(received, &scratch[..MESSAGE_BYTES], counters),
            Some(Purpose::Slow) => {
                counters.slow_bytes += as_u64(received);
                return Fate::Slow;
            }
            None => {
                counters.errors += 1;
                return Fate::Close;
            }
        }
        Fate::Keep
    }

    fn echo(&mut self, received: usize, response: &[u8], counters: &mut Counters) -> Fate {
        self.have += received;
        if self.have == MESSAGE_BYTES {
            self.have = 0;
            counters.requests += 1;
            // One response is outstanding at most, so it always fits the socket's buffer.
            if send(&self.fd, response, SendFlags::NOSIGNAL) != Ok(MESSAGE_BYTES) {
                counters.errors += 1;
                return Fate::Close;
            }
        }
        Fate::Keep
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
