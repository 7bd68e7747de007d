//! The floor: a bare splice loop, the least that a relay in user space can do for a byte.
//!
//! One thread, edge-triggered epoll, a 1 MiB pipe for each direction that has bytes in flight, half-closes forwarded.
//! No limits, no time-outs, no accounting: not a relay to run, a number to compare with.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

const PIPE_BYTES: usize = 1 << 20;
/// Fills of a pipe in one turn, so that one pair can't keep the others waiting.
const TURNS: u32 = 16;
const LISTENER: u64 = u64::MAX;

/// Read end, write end.
type Pipe = (OwnedFd, OwnedFd);

/// One direction of a pair, named by the leg that it reads.
#[derive(Default)]
struct Flow {
    pipe: Option<Pipe>,
    held: usize,
    ended: bool,
    shut: bool,
}

struct Pair {
    legs: [OwnedFd; 2],
    readable: [bool; 2],
    writable: [bool; 2],
    flows: [Flow; 2],
}

struct Floor {
    epoll: OwnedFd,
    listener: OwnedFd,
    target: SocketAddrV4,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    pipes: Vec<Pipe>,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut address = || args.next().context("usage: midmile-bench-floor LISTEN TARGET")?.parse().context("an address");
    let (listen, target): (SocketAddrV4, SocketAddrV4) = (address()?, address()?);
    let listener = stream()?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::bind(&listener, &listen)?;
    rustix::net::listen(&listener, 4096)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    Floor { epoll, listener, target, pairs: Vec::new(), free: Vec::new(), pipes: Vec::new() }.relay()
}

fn stream() -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

fn new_pipe() -> Result<Pipe, Errno> {
    let pipe = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&pipe.1, PIPE_BYTES)?;
    Ok(pipe)
}

impl Floor {
    fn relay(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        // A pair's place is given away after the batch: a later event of the batch may still name it.
        let mut ended = Vec::new();
        loop {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                if token == LISTENER {
                    self.accept_all()?;
                } else if self.handle(token, flags).is_err() {
                    let index = usize::try_from(token / 2)?;
                    self.pairs[index] = None;
                    ended.push(index);
                }
            }
            self.free.append(&mut ended);
        }
    }

    fn accept_all(&mut self) -> Result<()> {
        while let Ok(client) = accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            let server = stream()?;
            for leg in [&client, &server] {
                sockopt::set_tcp_nodelay(leg, true)?;
            }
            match rustix::net::connect(&server, &self.target) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(_) => continue,
            }
            let index = self.free.pop().unwrap_or(self.pairs.len());
            let pair =
                Pair { legs: [client, server], readable: [false; 2], writable: [false; 2], flows: Default::default() };
            for (side, leg) in (0..).zip(&pair.legs) {
                epoll::add(&self.epoll, leg, EventData::new_u64(u64::try_from(index)? * 2 + side), interest())?;
            }
            match self.pairs.get_mut(index) {
                Some(slot) => *slot = Some(pair),
                None => self.pairs.push(Some(pair)),
            }
        }
        Ok(())
    }

    /// Moves what an event allows; an error or the end of both flows ends the pair.
    fn handle(&mut self, token: u64, flags: EventFlags) -> Result<(), Errno> {
        let side = usize::from(token % 2 == 1);
        let Some(pair) = usize::try_from(token / 2).ok().and_then(|index| self.pairs.get_mut(index)?.as_mut()) else {
            return Ok(());
        };
        if flags.contains(EventFlags::ERR) {
            return Err(Errno::CONNRESET);
        }
        pair.readable[side] |= flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP);
        pair.writable[side] |= flags.contains(EventFlags::OUT);
        for from in [side, 1 - side] {
            if !pair.pump(from, &mut self.pipes)? {
                // Out of turns: have epoll tell us again, behind the others.
                let again = EventData::new_u64(token / 2 * 2 + u64::from(from == 1));
                epoll::modify(&self.epoll, &pair.legs[from], again, interest())?;
            }
        }
        if pair.flows.iter().all(|flow| flow.shut) { Err(Errno::PIPE) } else { Ok(()) }
    }
}

fn interest() -> EventFlags {
    EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET
}

impl Pair {
    /// Moves bytes from leg `from` to the other until one of them blocks; false if it stopped for lack of turns.
    fn pump(&mut self, from: usize, pipes: &mut Vec<Pipe>) -> Result<bool, Errno> {
        let to = 1 - from;
        let flow = &mut self.flows[from];
        let mut turns = 0;
        while self.writable[to] && !flow.shut && turns < TURNS {
            let pipe = match flow.pipe.take() {
                Some(pipe) => pipe,
                None => pipes.pop().map_or_else(new_pipe, Ok)?,
            };
            let pipe = flow.pipe.insert(pipe);
            if flow.held > 0 {
                match splice(&pipe.0, None, &self.legs[to], None, flow.held, SpliceFlags::NONBLOCK) {
                    Ok(moved) => flow.held -= moved,
                    Err(Errno::AGAIN) => self.writable[to] = false,
                    Err(error) => return Err(error),
                }
            } else if flow.ended {
                flow.shut = true;
                rustix::net::shutdown(&self.legs[to], Shutdown::Write)?;
            } else if self.readable[from] {
                turns += 1;
                match splice(&self.legs[from], None, &pipe.1, None, PIPE_BYTES, SpliceFlags::NONBLOCK) {
                    Ok(0) => flow.ended = true,
                    Ok(moved) => flow.held = moved,
                    Err(Errno::AGAIN) => self.readable[from] = false,
                    Err(error) => return Err(error),
                }
            } else {
                break;
            }
        }
        if flow.held == 0 {
            pipes.extend(flow.pipe.take());
        }
        Ok(turns < TURNS)
    }
}
