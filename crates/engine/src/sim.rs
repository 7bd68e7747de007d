//! A seeded world to run a program in: virtual clock, scripted remotes, faults. Nothing here touches the system.
//!
//! The same seed gives the same run, to the byte and the event. Time stands still while the program works and jumps to the next
//! event when it waits. Remotes (clients and servers) send, read, pause, finish and reset as their [`Script`] and the seed say;
//! between them and the program's sockets stand bounded queues, so that back-pressure is real.
//!
//! What the kernel does and a naive simulation wouldn't is done here too, because programs have tripped over it:
//! - an error is told once, by whichever operation meets it first; afterwards the socket reads as if it had ended in order;
//! - data that came before a reset can still be read;
//! - edges come in any order, several are told as one, and some are told though nothing has changed;
//! - a splice may take fewer bytes than there are; a socket may have less room than its queue;
//! - a cut way tells nobody: what is sent is tried again and again, and no end, no reset and no answer comes; nor does a remote that
//!   has vanished, until `user_timeout` or keepalive find it out;
//! - datagrams are lost, doubled and overtake one another, and come and go in partial batches;
//! - accepting may find no descriptor, a dial may fail at once, later, or never answer.

mod by_hand;
mod datagrams;
mod entry;
mod pipe;
mod remote;
mod rng;
mod silence;
mod way;
mod world;

pub use datagrams::{SimDatagramSocket, Weather};
pub use pipe::SimPipe;
pub use remote::{Remote, RemoteId, Script};
pub use rng::Rng;
pub use world::{DialOutcome, Sim, SimListener, SimSocket};

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::Addr;
use crate::backend::{AcceptError, Backend, Dialled, Progress, Ready, Tag, Transfer};
use crate::error::{ConnError, ListenError};
use crate::options::{LegOptions, Probing};
use crate::path::PathInfo;
use crate::time::Time;
use crate::waker::Waker;
use silence::Liveness;

/// Longest sleep.
const PATIENCE: Duration = Duration::from_secs(10);

impl Backend for Sim {
    type Socket = SimSocket;
    type Listener = SimListener;
    type Pipe = SimPipe;
    /// The world has one core.
    type Parcel = Infallible;

    fn now(&self) -> Time {
        self.now
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        // A program that would wait for ever gets a turn now and then, so that a test can see that it does.
        let until = self.now.after(timeout.unwrap_or(PATIENCE));
        self.gather();
        while self.batch.is_empty() && self.advance(until) {
            self.gather();
        }
        Ok(self.batch.len())
    }

    fn ready(&self, index: usize) -> Ready {
        self.batch[index]
    }

    /// Calls from the thread that runs the world are told in the same run each time; others' when they come.
    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()> {
        self.wakers.push((waker.clone(), 0));
        Ok(())
    }

    fn listen(&mut self, at: &Addr, options: &LegOptions, _backlog: u32) -> Result<(SimListener, Addr), ListenError> {
        self.listener_at(at, options)
    }

    fn watch_listener(&mut self, listener: &SimListener, tag: Tag) -> io::Result<()> {
        if self.refuses_listeners {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.doors[listener.index].tag = Some(tag);
        Ok(())
    }

    fn ignore_listener(&mut self, listener: &SimListener) -> io::Result<()> {
        self.doors[listener.index].tag = None;
        Ok(())
    }

    fn accept(&mut self, listener: &SimListener) -> Result<(SimSocket, Option<Addr>), AcceptError> {
        let index = listener.index;
        if self.doors[index].queue.is_empty() {
            return Err(AcceptError::Empty);
        }
        if self.starves {
            return Err(AcceptError::Exhausted);
        }
        if self.faults && self.rng.one_in(20) {
            return Err(if self.rng.one_in(2) { AcceptError::Exhausted } else { AcceptError::Failed });
        }
        let remote = self.doors[index].queue.pop_front().ok_or(AcceptError::Empty)?;
        self.set_liveness(remote, self.doors[index].liveness);
        // Not always told, so that programs ask.
        let told = remote.0 % 2 == 0;
        Ok((self.socket(remote), told.then(|| remote.addr())))
    }

    fn peer_addr(&self, socket: &SimSocket) -> Addr {
        socket.remote.addr()
    }

    fn dial(&mut self, to: &Addr, _options: &LegOptions) -> Result<(SimSocket, Dialled), ConnError> {
        self.dial_remote(to)
    }

    fn dial_from(
        &mut self,
        to: &Addr,
        source: SocketAddr,
        _options: &LegOptions,
    ) -> Result<(SimSocket, Dialled), ConnError> {
        let (socket, dialled) = self.dial_remote(to)?;
        self.remotes[socket.remote.0].source = Some(source);
        Ok((socket, dialled))
    }

    fn watch(&mut self, socket: &SimSocket, tag: Tag) -> Result<(), ConnError> {
        let refuse = self.faults && self.rng.one_in(200);
        let remote = &mut self.remotes[socket.remote.0];
        if refuse {
            return Err(ConnError::Exhausted);
        }
        remote.tag = Some(tag);
        self.tell(socket.remote);
        Ok(())
    }

    fn recv(&mut self, socket: &mut SimSocket, buf: &mut [u8]) -> Transfer {
        self.read(socket.remote, buf, true)
    }

    fn peek(&mut self, socket: &mut SimSocket, buf: &mut [u8]) -> Transfer {
        self.read(socket.remote, buf, false)
    }

    fn discard(&mut self, socket: &mut SimSocket, len: usize) -> Result<(), ConnError> {
        let inbound = &mut self.remotes[socket.remote.0].inbound;
        assert!(len <= inbound.len(), "more is discarded than was peeked at");
        inbound.drain(..len);
        Ok(())
    }

    fn send(&mut self, socket: &mut SimSocket, bytes: &[u8]) -> Transfer {
        let room = self.room(socket.remote, bytes.len())?;
        let remote = &mut self.remotes[socket.remote.0];
        remote.outbound.extend(&bytes[..room]);
        self.note_sent(socket.remote, room);
        Ok(if room == 0 { Progress::Blocked } else { Progress::Moved(room) })
    }

    /// Mostly the bytes wait, as the kernel's do; a segment that was under way may take them along at once.
    fn send_ahead(&mut self, socket: &mut SimSocket, bytes: &[u8]) -> Transfer {
        let moved = self.send(socket, bytes)?;
        if let Progress::Moved(count) = moved
            && !self.rng.one_in(4)
        {
            self.hold(socket.remote, count);
        }
        Ok(moved)
    }

    fn push(&mut self, socket: &mut SimSocket) {
        self.remotes[socket.remote.0].held = 0;
    }

    fn acknowledge(&mut self, socket: &mut SimSocket) {
        self.remotes[socket.remote.0].acknowledged += 1;
    }

    fn pipe(&mut self, bytes: u32) -> io::Result<SimPipe> {
        if self.faults && self.rng.one_in(10) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(SimPipe::new(bytes as usize))
    }

    fn splice_in(&mut self, socket: &mut SimSocket, pipe: &mut SimPipe, len: usize) -> Transfer {
        assert!(pipe.is_empty(), "a pipe is filled before it is empty");
        let most = len.min(pipe.capacity());
        let most = self.rng.up_to(most).max(1);
        let mut bytes = vec![0; most];
        let answer = self.read(socket.remote, &mut bytes, true)?;
        if let Progress::Moved(moved) = answer {
            pipe.fill(&bytes[..moved]);
        }
        Ok(answer)
    }

    fn splice_out(&mut self, pipe: &mut SimPipe, socket: &mut SimSocket, len: usize) -> Transfer {
        assert!(len <= pipe.len(), "more is taken from a pipe than it holds");
        let room = self.room(socket.remote, len)?;
        let remote = &mut self.remotes[socket.remote.0];
        remote.outbound.extend(pipe.take(room));
        self.note_sent(socket.remote, room);
        Ok(if room == 0 { Progress::Blocked } else { Progress::Moved(room) })
    }

    fn begin(&mut self, _socket: &mut SimSocket) -> Result<(), ConnError> {
        Ok(())
    }

    fn shutdown(&mut self, socket: &mut SimSocket) -> Result<(), ConnError> {
        let remote = &mut self.remotes[socket.remote.0];
        if remote.dead {
            return Err(remote.error.take().unwrap_or(ConnError::Reset));
        }
        remote.finished_towards = true;
        remote.held = 0;
        Ok(())
    }

    fn close(&mut self, _socket: SimSocket) {}

    fn reset(&mut self, socket: SimSocket) {
        let remote = &mut self.remotes[socket.remote.0];
        remote.outbound.clear();
        remote.held = 0;
        remote.saw_reset = true;
    }

    fn detach(&mut self, socket: SimSocket) -> Result<Infallible, SimSocket> {
        Err(socket)
    }

    fn attach(&mut self, parcel: Infallible) -> Result<SimSocket, ConnError> {
        match parcel {}
    }

    fn take_error(&mut self, socket: &mut SimSocket) -> Option<ConnError> {
        self.remotes[socket.remote.0].error.take()
    }

    fn unsent(&self, socket: &SimSocket) -> usize {
        self.remotes[socket.remote.0].outbound.len()
    }

    fn unacknowledged(&self, socket: &SimSocket) -> usize {
        self.remotes[socket.remote.0].outbound.len()
    }

    fn path(&self, socket: &SimSocket) -> Option<PathInfo> {
        Some(self.path_of(socket.remote))
    }

    fn set_keepalive(&mut self, socket: &mut SimSocket, options: &LegOptions) {
        self.set_liveness(socket.remote, Liveness::of(options));
    }

    fn set_probing(&mut self, socket: &mut SimSocket, probing: Option<&Probing>) {
        self.set_probes(socket.remote, probing.copied());
    }

    fn entropy(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| u8::try_from(self.rng.up_to(255)).expect("no more than 255"))
    }

    fn local_addr(&self, socket: &SimSocket) -> Option<Addr> {
        Some(self.remotes[socket.remote.0].meets.clone())
    }
}
