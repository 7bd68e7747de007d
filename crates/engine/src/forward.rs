//! Leg to leg: how the bytes of one connection reach another.
//!
//! A direction begins by copying through the core's one buffer, which is the fastest way for small exchanges: a `recv`, a
//! `send`, no state in between. A read that fills the buffer turns the direction to bulk: from then on bytes go by `splice`
//! through a pipe leased from the core, without being touched. A few small turns in a row turn it back.
//!
//! ```text
//!            ┌── copy: recv → buffer → send; what didn't go out waits in a block ──┐
//!  source ───┤                                                                     ├──► sink
//!            └── bulk: splice → pipe → splice; what didn't go out waits in the pipe┘
//! ```
//!
//! Nothing is read while anything waits, nor while the sink has no room: so a direction holds at most one block or one pipe,
//! and beyond that the kernel's receive window closes. With no block left, a copying direction peeks, sends, and discards what
//! went out: slower, and still bounded. With no pipe left, a bulk direction copies.

use crate::backend::{Backend, Progress};
use crate::config::Config;
use crate::conn::{Ahead, Conn};
use crate::error::ConnError;
use crate::meter::Meter;
use crate::pool::{BlockPool, Claim, PipePool};
use crate::time::Time;

/// A bulk turn that moved less than this counts as quiet.
const QUIET_BYTES: usize = 16 * 1024;
/// So many quiet turns in a row end bulk.
const QUIET_TURNS: u8 = 4;

/// Bytes of a short segment: fewer are all of a message that has come whole, and don't wait.
const SEGMENT_MIN: usize = 1200;

/// How a turn of a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// It waits for an event.
    Waiting,
    /// It has used up its turn, and there is more.
    Again,
    /// The source's peer has finished sending, and all of it was handed on.
    Ended,
    /// The source has failed, and all that came before was handed on.
    SourceFailed,
    /// The sink has failed.
    SinkFailed,
}

/// How a step within a turn ended.
enum Step {
    /// So many bytes were taken from the source; look again.
    Took(usize),
    Stop(Pumped),
}

/// What a direction borrows from its core for a turn.
pub(crate) struct Mover<'a, B: Backend> {
    pub(crate) backend: &'a mut B,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) blocks: &'a mut BlockPool,
    pub(crate) pipes: &'a mut PipePool<B::Pipe>,
    pub(crate) meter: &'a Meter,
    pub(crate) config: &'a Config,
    pub(crate) now: Time,
}

impl<B: Backend> Mover<'_, B> {
    /// Gives the direction its turn. Adds the bytes taken from the source to `taken`.
    pub(crate) fn pump(&mut self, source: &mut Conn<B>, sink: &mut Conn<B>, taken: &mut usize) -> Pumped {
        let mut left = self.config.turn_bytes;
        let outcome = loop {
            if let Some(stop) = self.flush(source, sink) {
                break stop;
            }
            if source.ended {
                break if source.failed.is_some() { Pumped::SourceFailed } else { Pumped::Ended };
            }
            if !source.readable || !sink.writable {
                break Pumped::Waiting;
            }
            if left == 0 {
                break Pumped::Again;
            }
            let bulk = source.bulk && self.backend.may_splice(&source.socket, &sink.socket) && self.lease(source);
            let step = if bulk { self.splice(source) } else { self.copy(source, sink) };
            match step {
                Step::Took(bytes) => {
                    left = left.saturating_sub(bytes);
                    *taken += bytes;
                }
                Step::Stop(stop) => break stop,
            }
        };
        if source.pipe_bytes == 0
            && let Some(pipe) = source.pipe.take()
        {
            self.pipes.give_back(pipe);
        }
        outcome
    }

    /// Hands on what waits. `None`: nothing waits any more.
    fn flush(&mut self, source: &mut Conn<B>, sink: &mut Conn<B>) -> Option<Pumped> {
        if sink.failed.is_some() {
            return Some(Pumped::SinkFailed);
        }
        if !source.holds_bytes() {
            return None;
        }
        if !sink.writable {
            return Some(Pumped::Waiting);
        }
        let sent = match &source.stash {
            Some(stash) => self.backend.send(&mut sink.socket, stash.bytes()),
            None => {
                let pipe = source.pipe.as_mut().expect("bytes that wait outside a block wait in a pipe");
                self.backend.splice_out(pipe, &mut sink.socket, source.pipe_bytes)
            }
        };
        match sent {
            Ok(Progress::Moved(bytes)) => self.handed_on(source, sink, bytes),
            Ok(Progress::Blocked | Progress::Ended) => {}
            Err(error) => {
                sink.fail(error);
                return Some(Pumped::SinkFailed);
            }
        }
        if source.holds_bytes() {
            sink.writable = false;
            return Some(Pumped::Waiting);
        }
        None
    }

    /// Books bytes that left the block or the pipe.
    fn handed_on(&mut self, source: &mut Conn<B>, sink: &mut Conn<B>, bytes: usize) {
        source.note_handed_on(bytes, self.now);
        sink.active = self.now;
        if let Some(stash) = &mut source.stash {
            stash.consume(bytes);
            self.meter.add_copied(bytes);
            if stash.bytes().is_empty()
                && let Some(empty) = source.stash.take()
            {
                self.blocks.give_back(empty);
            }
        } else {
            source.pipe_bytes -= bytes;
            self.meter.add_spliced(bytes);
        }
    }

    fn lease(&mut self, source: &mut Conn<B>) -> bool {
        if source.pipe.is_none() {
            source.pipe = self.pipes.lease(self.backend);
        }
        source.pipe.is_some()
    }

    fn splice(&mut self, source: &mut Conn<B>) -> Step {
        let Some(pipe) = source.pipe.as_mut() else { return Step::Stop(Pumped::Waiting) };
        match self.backend.splice_in(&mut source.socket, pipe, self.config.pipe_bytes as usize) {
            Ok(Progress::Moved(bytes)) => {
                source.pipe_bytes = bytes;
                source.forwarded = true;
                source.active = self.now;
                source.quiet_turns = if bytes < QUIET_BYTES { source.quiet_turns + 1 } else { 0 };
                source.bulk = source.quiet_turns < QUIET_TURNS;
                Step::Took(bytes)
            }
            other => Self::no_bytes(source, other),
        }
    }

    fn copy(&mut self, source: &mut Conn<B>, sink: &mut Conn<B>) -> Step {
        let may_keep = self.blocks.has(Claim::Common);
        let got = if may_keep {
            self.backend.recv(&mut source.socket, self.buffer)
        } else {
            self.backend.peek(&mut source.socket, self.buffer)
        };
        let bytes = match got {
            Ok(Progress::Moved(bytes)) => bytes,
            other => return Self::no_bytes(source, other),
        };
        source.active = self.now;
        source.forwarded = true;
        if bytes == self.buffer.len() {
            source.bulk = true;
            source.quiet_turns = 0;
        }
        let gathers = gathers(sink, bytes, self.now);
        let send = if gathers { B::send_ahead } else { B::send };
        let sent = match send(self.backend, &mut sink.socket, &self.buffer[..bytes]) {
            Ok(Progress::Moved(sent)) => sent,
            Ok(Progress::Blocked | Progress::Ended) => 0,
            Err(error) => {
                sink.fail(error);
                return Step::Stop(Pumped::SinkFailed);
            }
        };
        source.note_handed_on(sent, self.now);
        self.meter.add_copied(sent);
        sink.writable = sent == bytes;
        if may_keep {
            // A short read emptied the socket, unless its end is still to be read.
            source.readable = bytes == self.buffer.len() || source.end_ahead;
            if sent < bytes {
                source.stash = Some(self.blocks.keep(&self.buffer[sent..bytes]));
            }
        } else if sent > 0
            && let Err(error) = self.backend.discard(&mut source.socket, sent)
        {
            source.fail(error);
            source.ended = true;
        }
        Step::Took(bytes)
    }

    /// What a read that brought nothing says.
    fn no_bytes(source: &mut Conn<B>, answer: Result<Progress, ConnError>) -> Step {
        match answer {
            Ok(Progress::Blocked) if source.failed.is_none() => {
                source.readable = false;
                Step::Stop(Pumped::Waiting)
            }
            Ok(_) => {
                source.ended = true;
                Step::Took(0)
            }
            Err(error) => {
                source.fail(error);
                source.ended = true;
                Step::Took(0)
            }
        }
    }
}

/// Whether `bytes` bytes for the sink wait for more where they don't fill a segment. Behind bytes that were sent ahead, each read of whole
/// segments would otherwise leave a short one over, which costs as much of the peer's window as a long one.
fn gathers<B: Backend>(sink: &mut Conn<B>, bytes: usize, now: Time) -> bool {
    if sink.ahead == Ahead::Waits {
        sink.ahead = if bytes < SEGMENT_MIN { Ahead::None } else { Ahead::Gathers };
    }
    if sink.ahead == Ahead::Gathers {
        sink.active = now;
    }
    sink.ahead == Ahead::Gathers
}
