//! A plain io_uring loop, as one writes it for speed: one multishot accept, one multishot receive a connection into provided
//! buffers, answers sent from the buffer they came in and all submitted together, completions only where something went wrong.
//! Needs Linux 6.1.

mod sys;

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use self::sys::{Event, Ring};
use crate::frames;
use crate::listening;

/// Answers that may wait for one connection before it's read no further: its peer asks and doesn't listen. What one turn brings may
/// exceed it.
const OWED_BYTES_MAX: usize = 256 << 10;

/// One connection. The vectors stay empty, and without memory, unless messages come in pieces or answers find no room.
#[derive(Default)]
struct Conn {
    /// The beginning of a message.
    rest: Vec<u8>,
    /// Answers that wait for the ones before them.
    owed: Vec<u8>,
    /// Earlier answers, which found no room, are on their way.
    sending: bool,
    /// It's to be received from no more until all is sent.
    paused: bool,
    /// Its receiving has stopped for that.
    resting: bool,
    /// Its receiving has ended.
    ended: bool,
    /// The turn in which answers were submitted last: more in the same turn could pass them.
    submitted_in: u64,
}

struct Server {
    ring: Ring,
    listener: OwnedFd,
    /// By descriptor.
    conns: Vec<Option<Conn>>,
    turn: u64,
    /// Connections that owe answers and have submitted some in this turn.
    later: Vec<usize>,
}

/// Serves for ever.
pub(crate) fn run(at: SocketAddrV4) -> Result<()> {
    let listener = listening::listener(at)?;
    let ring = Ring::new().context("make the ring")?;
    let mut server = Server { ring, listener, conns: Vec::new(), turn: 1, later: Vec::new() };
    server.ring.accept(server.listener.as_fd())?;
    let mut events = Vec::with_capacity(sys::COMPLETIONS_MAX);
    loop {
        server.ring.turn(&mut events, server.later.is_empty()).context("wait for completions")?;
        server.turn += 1;
        let later = std::mem::take(&mut server.later);
        for event in events.drain(..) {
            server.handle(event)?;
        }
        for fd in later {
            server.pay(fd)?;
        }
    }
}

impl Server {
    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Accepted(fd) => {
                if fd >= self.conns.len() {
                    self.conns.resize_with(fd + 1, || None);
                }
                self.conns[fd] = Some(Conn::default());
                self.ring.receive(fd)?;
            }
            Event::AcceptEnded => self.ring.accept(self.listener.as_fd())?,
            Event::Received { fd, buffer, len, ended } => {
                self.received(fd, buffer, len)?;
                if ended {
                    self.receive_again(fd)?;
                }
            }
            Event::NoBuffers(fd) | Event::Paused(fd) => self.receive_again(fd)?,
            Event::Ended(fd) => {
                if let Some(Some(conn)) = self.conns.get_mut(fd) {
                    conn.ended = true;
                    self.pay(fd)?;
                }
            }
            Event::SendStopped { fd, buffer, from, len, failed } => {
                let bytes = self.ring.bytes(buffer)[from..len].to_vec();
                self.ring.give_back(buffer);
                if let Some(Some(conn)) = self.conns.get_mut(fd).filter(|_| !failed) {
                    // What was asked meanwhile waits behind it: it wasn't submitted in the same turn.
                    conn.owed.splice(0..0, bytes);
                    self.pay(fd)?;
                }
            }
            Event::Sent { fd, failed } => {
                if let Some(Some(conn)) = self.conns.get_mut(fd) {
                    conn.sending = false;
                    if failed {
                        conn.owed.clear();
                    }
                    self.pay(fd)?;
                }
            }
        }
        Ok(())
    }

    fn received(&mut self, fd: usize, buffer: u16, len: usize) -> Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(fd) else {
            self.ring.give_back(buffer);
            return Ok(());
        };
        let bytes = &self.ring.bytes(buffer)[..len];
        let idle = conn.owed.is_empty() && !conn.sending && conn.submitted_in < self.turn;
        if idle && conn.rest.is_empty() && frames::whole(bytes) == Ok(len) {
            conn.submitted_in = self.turn;
            return self.ring.send_buffer(fd, buffer, len);
        }
        conn.rest.extend_from_slice(bytes);
        self.ring.give_back(buffer);
        match frames::whole(&conn.rest) {
            Ok(whole) => {
                conn.owed.extend(conn.rest.drain(..whole));
                if conn.owed.len() > OWED_BYTES_MAX && !std::mem::replace(&mut conn.paused, true) {
                    self.ring.pause(fd)?;
                }
                self.pay(fd)
            }
            // The receiving ends by it, and then the connection.
            Err(frames::TooLong) => self.ring.shut(fd),
        }
    }

    /// Receiving has stopped, and goes on now or when all is sent.
    fn receive_again(&mut self, fd: usize) -> Result<()> {
        match self.conns.get_mut(fd) {
            Some(Some(conn)) if conn.paused => {
                conn.resting = true;
                self.pay(fd)
            }
            Some(Some(_)) => self.ring.receive(fd),
            _ => Ok(()),
        }
    }

    /// Sends what is owed, unless something is on its way; closes a connection that has nothing more to do.
    fn pay(&mut self, fd: usize) -> Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(fd) else { return Ok(()) };
        if conn.sending {
            return Ok(());
        }
        if !conn.owed.is_empty() {
            if conn.submitted_in == self.turn {
                self.later.push(fd);
                return Ok(());
            }
            conn.submitted_in = self.turn;
            conn.sending = true;
            return self.ring.send_owned(fd, std::mem::take(&mut conn.owed));
        }
        if conn.ended {
            return self.close(fd);
        }
        if conn.paused && conn.resting {
            (conn.paused, conn.resting) = (false, false);
            return self.ring.receive(fd);
        }
        Ok(())
    }

    fn close(&mut self, fd: usize) -> Result<()> {
        self.conns[fd] = None;
        self.ring.close(fd)
    }
}
