//! A plain epoll loop, as one writes it in C: one buffer for all, edge-triggered, one `recv` and one `send` a message.
//!
//! A read that doesn't fill the buffer has emptied the socket, so that nobody reads again to find nothing, unless an event has told
//! of the peer's end (`EPOLLRDHUP`). Room to write is asked for only by a connection that has found none.

use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use crate::frames;
use crate::listening;

/// Events taken in one turn.
const EVENTS_MAX: usize = 1024;
/// The one buffer.
const BUFFER_BYTES: usize = 64 << 10;
const LISTENER: u64 = u64::MAX;

/// One connection. The vectors stay empty, and without memory, unless messages come in pieces or answers find no room.
struct Conn {
    fd: OwnedFd,
    /// The beginning of a message.
    rest: Vec<u8>,
    /// Answers that found no room.
    owed: Vec<u8>,
    /// The peer has finished: read on until that shows.
    end_ahead: bool,
}

struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// By descriptor.
    conns: Vec<Option<Conn>>,
    buffer: Vec<u8>,
}

/// Whether a connection goes on.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Ends,
}

/// Serves for ever.
pub(crate) fn run(at: SocketAddrV4) -> Result<()> {
    let listener = listening::listener(at)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC).context("create an epoll")?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut server = Server { epoll, listener, conns: Vec::new(), buffer: vec![0; BUFFER_BYTES] };
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        match epoll::wait(&server.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept_all()?,
                fd => server.handle(usize::try_from(fd)?, event.flags)?,
            }
        }
    }
}

fn interest() -> EventFlags {
    EventFlags::IN | EventFlags::RDHUP | EventFlags::ET
}

impl Server {
    fn accept_all(&mut self) -> Result<()> {
        // What fails here is one connection, or descriptors for a moment.
        while let Ok(fd) = accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            let index = usize::try_from(fd.as_raw_fd())?;
            epoll::add(&self.epoll, &fd, EventData::new_u64(u64::try_from(index)?), interest())?;
            if index >= self.conns.len() {
                self.conns.resize_with(index + 1, || None);
            }
            self.conns[index] = Some(Conn { fd, rest: Vec::new(), owed: Vec::new(), end_ahead: false });
        }
        Ok(())
    }

    fn handle(&mut self, index: usize, flags: EventFlags) -> Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return Ok(()) };
        conn.end_ahead |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut fate = Fate::Stays;
        if !conn.owed.is_empty() && flags.contains(EventFlags::OUT) {
            fate = conn.pay(&self.epoll)?;
        }
        // Nothing is read while answers wait: the kernel's window holds the peer back.
        if fate == Fate::Stays && conn.owed.is_empty() {
            fate = conn.serve(&mut self.buffer, &self.epoll)?;
        }
        if fate == Fate::Ends {
            self.conns[index] = None;
        }
        Ok(())
    }
}

impl Conn {
    /// Reads and answers until the socket is empty.
    fn serve(&mut self, buffer: &mut [u8], epoll: &OwnedFd) -> Result<Fate> {
        loop {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            let room = buffer.len() - kept;
            let read = match recv(&self.fd, &mut buffer[kept..], RecvFlags::empty()) {
                Ok((_, 0)) => return Ok(Fate::Ends),
                Ok((_, read)) => read,
                Err(Errno::AGAIN) => return Ok(Fate::Stays),
                Err(_) => return Ok(Fate::Ends),
            };
            let bytes = &buffer[..kept + read];
            let Ok(whole) = frames::whole(bytes) else { return Ok(Fate::Ends) };
            if kept > 0 || whole < bytes.len() {
                self.rest.clear();
                self.rest.extend_from_slice(&bytes[whole..]);
            }
            if whole > 0 && self.answer(&bytes[..whole], epoll)? == Fate::Ends {
                return Ok(Fate::Ends);
            }
            if (read < room && !self.end_ahead) || !self.owed.is_empty() {
                return Ok(Fate::Stays);
            }
        }
    }

    /// Sends answers, and keeps what finds no room.
    fn answer(&mut self, bytes: &[u8], epoll: &OwnedFd) -> Result<Fate> {
        let sent = match send(&self.fd, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => return Ok(Fate::Ends),
        };
        if sent < bytes.len() {
            self.owed.extend_from_slice(&bytes[sent..]);
            self.watch(epoll, interest() | EventFlags::OUT)?;
        }
        Ok(Fate::Stays)
    }

    /// There is room again.
    fn pay(&mut self, epoll: &OwnedFd) -> Result<Fate> {
        match send(&self.fd, &self.owed, SendFlags::NOSIGNAL) {
            Ok(sent) => self.owed.drain(..sent),
            Err(Errno::AGAIN) => return Ok(Fate::Stays),
            Err(_) => return Ok(Fate::Ends),
        };
        if self.owed.is_empty() {
            self.watch(epoll, interest())?;
        }
        Ok(Fate::Stays)
    }

    fn watch(&self, epoll: &OwnedFd, flags: EventFlags) -> Result<()> {
        let index = u64::try_from(self.fd.as_raw_fd())?;
        epoll::modify(epoll, &self.fd, EventData::new_u64(index), flags).context("change what epoll tells")
    }
}
