//! One connection, as the engine sees it.

use crate::backend::Backend;
use crate::error::ConnError;
use crate::pool::{Claim, Stash};
use crate::slab::Key;
use crate::time::Time;

/// What happens to the bytes that a connection receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// They stay in the kernel, whose window is the back-pressure.
    Paused,
    /// They're offered to the program.
    Upcall,
    /// They're offered to the program as whole messages.
    Messages,
    /// They go to another connection.
    Forward(Key),
}

/// Whether bytes were sent ahead of what is forwarded to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    None,
    /// They wait in the kernel for the first forwarded ones.
    Waits,
    /// The first forwarded ones are coming: what doesn't fill a segment waits for more, for a moment.
    Gathers,
}

/// State of a connection. It fits in three cache lines (asserted in the tests): user-space memory a leg.
#[derive(Debug)]
pub(crate) struct Conn<B: Backend> {
    pub(crate) socket: B::Socket,
    /// The program's.
    pub(crate) token: u64,
    pub(crate) reading: Reading,
    /// Who forwards to this connection, or [`Key::NONE`]. Invariant: `source.reading == Forward(this)`.
    pub(crate) source: Key,
    /// When bytes last came or went.
    pub(crate) active: Time,
    /// Bytes received and forwarded; those that the program used aren't among them.
    pub(crate) handed_on: u64,
    /// When the first of them was; [`Time::ZERO`] before.
    pub(crate) first_handed_on: Time,
    /// Read and not handed on yet. Invariant: at most one of `stash` and `pipe_bytes > 0`.
    pub(crate) stash: Option<Stash>,
    pub(crate) pipe: Option<B::Pipe>,
    /// Bytes in `pipe`; 0 without one.
    pub(crate) pipe_bytes: usize,
    pub(crate) failed: Option<ConnError>,
    pub(crate) ahead: Ahead,
    /// Where the bytes received are counted.
    pub(crate) meter: u16,
    /// Bulk turns in a row that moved little.
    pub(crate) quiet_turns: u8,
    /// Some of what was received was taken to be forwarded.
    pub(crate) forwarded: bool,
    /// This direction is moved by splice.
    pub(crate) bulk: bool,
    pub(crate) connecting: bool,
    /// As whose it asks for a block when what it receives is offered.
    pub(crate) claim: Claim,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// An event said that the peer has finished sending, or the connection failed: read on until the end shows.
    pub(crate) end_ahead: bool,
    /// All was read, up to the end.
    pub(crate) ended: bool,
    /// `on_peer_close` was called.
    pub(crate) end_told: bool,
    /// What was left over is to be offered again, though nothing new has come.
    pub(crate) offer_due: bool,
    /// What was left over was only peeked at: it waits in the transport, and makes no event again.
    pub(crate) rest_unread: bool,
    /// The program awaits `on_writable`.
    pub(crate) awaits_room: bool,
    /// It stands in the run queue.
    pub(crate) queued: bool,
    /// It stands among those that something is done for later.
    pub(crate) deferred: bool,
    /// It goes to another core at the turn's end. Invariant: it stands among the departures, and isn't read.
    pub(crate) leaving: bool,
}

impl Reading {
    /// Whether upcalls offer them.
    pub(crate) const fn is_offer(self) -> bool {
        matches!(self, Self::Upcall | Self::Messages)
    }
}

impl<B: Backend> Conn<B> {
    pub(crate) fn new(socket: B::Socket, token: u64, meter: u16, connecting: bool, now: Time) -> Self {
        Self {
            socket,
            token,
            reading: Reading::Paused,
            source: Key::NONE,
            active: now,
            handed_on: 0,
            first_handed_on: Time::ZERO,
            ahead: Ahead::None,
            stash: None,
            pipe: None,
            pipe_bytes: 0,
            failed: None,
            meter,
            quiet_turns: 0,
            forwarded: false,
            bulk: false,
            connecting,
            claim: if connecting { Claim::Dialled } else { Claim::Common },
            readable: false,
            writable: !connecting,
            end_ahead: false,
            ended: false,
            end_told: false,
            offer_due: false,
            rest_unread: false,
            awaits_room: false,
            queued: false,
            deferred: false,
            leaving: false,
        }
    }

    /// Remembers the first failure: later ones only follow from it.
    pub(crate) fn fail(&mut self, error: ConnError) {
        self.failed.get_or_insert(error);
        self.readable = true;
        self.end_ahead = true;
    }

    /// Books bytes of this connection that were handed on.
    pub(crate) const fn note_handed_on(&mut self, bytes: usize, now: Time) {
        if self.handed_on == 0 && bytes > 0 {
            self.first_handed_on = now;
        }
        self.handed_on += bytes as u64;
    }

    /// Whether bytes were read here that haven't been handed on.
    pub(crate) const fn holds_bytes(&self) -> bool {
        self.stash.is_some() || self.pipe_bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::kernel::Kernel;
    use crate::options::LegOptions;
    use crate::sim::{DialOutcome, Script, Sim};

    #[test]
    fn the_first_bytes_handed_on_are_remembered() {
        let mut sim = Sim::new(1, false);
        let at = Addr::Inet(([127, 0, 0, 1], 1).into());
        sim.server(&at, vec![DialOutcome::AtOnce(Script::default())]);
        let (socket, _) = sim.dial(&at, &LegOptions::default()).unwrap();
        let mut conn = Conn::<Sim>::new(socket, 0, 0, false, Time::ZERO);
        for (bytes, at) in [(0, 1), (5, 2), (5, 3)] {
            conn.note_handed_on(bytes, Time::from_nanos(at));
        }
        assert_eq!((conn.handed_on, conn.first_handed_on), (10, Time::from_nanos(2)));
    }

    #[test]
    fn a_leg_takes_three_cache_lines_at_most() {
        assert!(size_of::<Conn<Kernel>>() <= 192, "{}", size_of::<Conn<Kernel>>());
    }
}
