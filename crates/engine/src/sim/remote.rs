//! The far end of a simulated connection: a client, or a server that was dialled.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::silence::Liveness;
use crate::addr::Addr;
use crate::backend::Tag;
use crate::error::ConnError;
use crate::time::Time;

/// A remote, by its place in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteId(pub(super) usize);

/// What a remote does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Bytes it sends before anything else.
    pub preamble: Vec<u8>,
    /// Bytes that it sends after that, each a function of the remote and its place.
    pub sends: usize,
    /// The most that it sends at once.
    pub send_step: usize,
    /// The most that it reads at once; 0: it never reads.
    pub read_step: usize,
    /// Between two of its steps.
    pub pace: Duration,
    /// Finishes sending when it has sent all. Otherwise it falls silent.
    pub finishes: bool,
    /// Finishes only when it has read the end of the other side.
    pub finishes_last: bool,
    /// Resets when it has sent so many bytes.
    pub resets_at: Option<usize>,
    /// Bytes that may wait between it and the program, each way.
    pub window: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            preamble: Vec::new(),
            sends: 0,
            send_step: 100,
            read_step: 100,
            pace: Duration::from_millis(1),
            finishes: true,
            finishes_last: false,
            resets_at: None,
            window: 1000,
        }
    }
}

/// The far end of a connection, and the two queues between it and the program's socket.
pub struct Remote {
    pub(super) script: Script,
    pub(super) tag: Option<Tag>,
    /// The other end, where both are the program's.
    pub(super) twin: Option<RemoteId>,
    /// Its end has been passed on to the twin, after all bytes.
    pub(super) passed_on: bool,
    pub(super) meets: Addr,
    /// Whose address the program dialled from, if not its own.
    pub(super) source: Option<SocketAddr>,
    /// From the remote to the program.
    pub(super) inbound: VecDeque<u8>,
    /// From the program to the remote.
    pub(super) outbound: VecDeque<u8>,
    /// Bytes at its end that wait for more. Invariant: none once the program has finished or closed.
    pub(super) held: usize,
    pub(super) sent: Vec<u8>,
    pub(super) received: Vec<u8>,
    /// Bytes that its socket has taken from the program.
    pub(super) handed_over: u64,
    /// How often the program had its bytes acknowledged at once.
    pub(super) acknowledged: u64,
    /// When it last took some, and when the program's kernel last heard of the other end, where that is the program's too.
    pub(super) sent_at: Time,
    pub(super) heard: Time,
    pub(super) connected: bool,
    /// The remote has finished sending.
    pub(super) finished: bool,
    /// The program has finished sending towards it.
    pub(super) finished_towards: bool,
    /// The connection has failed, as the program sees it.
    pub(super) dead: bool,
    /// The failure, until somebody has been told.
    pub(super) error: Option<ConnError>,
    /// The program still holds its socket.
    pub(super) open: Rc<Cell<bool>>,
    pub(super) saw_end: bool,
    pub(super) saw_reset: bool,
    pub(super) was_reset_by_itself: bool,
    /// The program found no room and waits to hear of some.
    pub(super) owes_room: bool,
    /// A step of it is in the world's calendar.
    pub(super) scheduled: bool,
    /// A test acts for it: its script says only how much may wait.
    pub(super) by_hand: bool,
    /// It has closed its socket: bytes for it are answered by a reset.
    pub(super) left: bool,
    /// Since when it answers nothing, if it doesn't; and since when there's something that it should have answered.
    pub(super) vanished: Option<Time>,
    pub(super) unanswered: Time,
    pub(super) liveness: Liveness,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("script", &self.script)
            .field("sent", &self.sent.len())
            .field("received", &self.received.len())
            .field("waiting", &(self.inbound.len(), self.outbound.len()))
            .field("connected", &self.connected)
            .field("finished", &self.finished)
            .field("reset", &self.was_reset_by_itself)
            .field("saw", &(self.saw_end, self.saw_reset))
            .finish_non_exhaustive()
    }
}

impl RemoteId {
    /// As whom the program sees it when it comes as a client.
    ///
    /// # Panics
    /// Never: the port is small.
    #[must_use]
    pub fn addr(self) -> Addr {
        Addr::Inet(([10, 0, 0, 1], u16::try_from(self.0 % 60_000).expect("far below 65,536")).into())
    }
}

impl Remote {
    /// Whose address the program dialled from, if not its own.
    #[must_use]
    pub const fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    pub(super) fn new(script: Script, meets: Addr, connected: bool) -> Self {
        Self {
            script,
            tag: None,
            twin: None,
            passed_on: false,
            meets,
            source: None,
            inbound: VecDeque::new(),
            outbound: VecDeque::new(),
            held: 0,
            sent: Vec::new(),
            received: Vec::new(),
            handed_over: 0,
            acknowledged: 0,
            sent_at: Time::ZERO,
            heard: Time::ZERO,
            connected,
            finished: false,
            finished_towards: false,
            dead: false,
            error: None,
            open: Rc::new(Cell::new(true)),
            saw_end: false,
            saw_reset: false,
            was_reset_by_itself: false,
            owes_room: false,
            scheduled: false,
            by_hand: false,
            left: false,
            vanished: None,
            unanswered: Time::ZERO,
            liveness: Liveness::default(),
        }
    }

    /// All that it has sent so far.
    #[must_use]
    pub fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// All that it has received so far.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// How often the program had its bytes acknowledged at once ([`Cx::acknowledge`](crate::Cx::acknowledge)).
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// It has finished sending.
    #[must_use]
    pub const fn has_finished(&self) -> bool {
        self.finished
    }

    /// It has read the other side's end.
    #[must_use]
    pub const fn saw_end(&self) -> bool {
        self.saw_end
    }

    /// The program has reset it.
    #[must_use]
    pub const fn saw_reset(&self) -> bool {
        self.saw_reset
    }

    /// It has reset the connection itself.
    #[must_use]
    pub const fn has_reset(&self) -> bool {
        self.was_reset_by_itself
    }

    /// The connection was established.
    #[must_use]
    pub const fn was_connected(&self) -> bool {
        self.connected
    }

    /// What it does.
    #[must_use]
    pub const fn script(&self) -> &Script {
        &self.script
    }

    /// Nothing will happen at its end any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        if self.twin.is_some() {
            return self.passed_on;
        }
        self.saw_reset || self.was_reset_by_itself || (self.saw_end && (self.finished || !self.open.get()))
    }

    /// Bytes of the program's that may arrive.
    pub(super) fn on_the_wire(&self) -> usize {
        if self.open.get() { self.outbound.len().saturating_sub(self.held) } else { self.outbound.len() }
    }

    /// Takes what the program sent and looks for its end.
    pub(super) fn read(&mut self, step: usize) -> bool {
        let taken = step.min(self.on_the_wire());
        self.received.extend(self.outbound.drain(..taken));
        if self.outbound.is_empty() && (self.finished_towards || !self.open.get()) && self.script.read_step > 0 {
            self.saw_end = !self.saw_reset;
        }
        taken > 0
    }

    /// The program has closed its socket. Bytes that it left unread, or that come now, are answered by a reset, and what it had
    /// sent before is lost then (RFC 9293, 3.10.4; RFC 2525, 2.17). A connection that was dropped before it was admitted is reset, as the
    /// kernel's listeners have it.
    pub(super) fn meet_nobody(&mut self) -> bool {
        let more = !self.finished && self.sent.len() < self.script.preamble.len() + self.script.sends;
        if !self.inbound.is_empty() || more || self.tag.is_none() {
            self.saw_reset = !self.saw_end;
            self.outbound.clear();
        }
        self.finished = true;
        false
    }

    /// Sends up to `step` bytes, or does what comes after the last. Answers whether the program will notice.
    pub(super) fn send(&mut self, id: RemoteId, step: usize) -> bool {
        if self.finished || self.dead {
            return false;
        }
        let total = self.script.preamble.len() + self.script.sends;
        let until = self.script.resets_at.map_or(total, |at| at.min(total));
        let room = self.script.window.saturating_sub(self.inbound.len());
        let count = step.min(room).min(until - self.sent.len());
        for _ in 0..count {
            let place = self.sent.len();
            let byte = self.script.preamble.get(place).copied().unwrap_or_else(|| content(id, place));
            self.sent.push(byte);
            self.inbound.push_back(byte);
        }
        if self.sent.len() < until {
            return count > 0;
        }
        if self.script.resets_at.is_some_and(|at| at <= self.sent.len()) {
            self.dead = true;
            self.was_reset_by_itself = true;
            self.error = Some(ConnError::Reset);
            return true;
        }
        if self.script.finishes && (!self.script.finishes_last || self.saw_end) {
            self.finished = true;
            return true;
        }
        count > 0
    }
}

/// The byte that a remote sends at a place of its stream.
fn content(id: RemoteId, place: usize) -> u8 {
    let mixed = (place as u64 ^ (id.0 as u64) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[1]
}
