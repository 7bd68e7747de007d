//! One connection: smoltcp's socket, and what stands around it.

use std::time::Duration;

use midmile_engine::backend::Tag;
use midmile_engine::{ConnError, LegOptions, Time};
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp::{CongestionControl, Socket, State};

use super::keepalive::Keepalive;
use super::packet::{Segment, Tuple};
use super::rest::{Body, Hello, Rest};
use crate::link::LinkAddress;
use crate::sys::Cell;

/// How long a dial's SYN, and how long a SYN's answer, may stay without one: smoltcp sends each again after 1, 3, 7 and 15 s.
const DIAL_PATIENCE: Duration = Duration::from_secs(31);
const HALF_OPEN_PATIENCE: Duration = Duration::from_secs(31);
/// How long a closed connection waits for its peer's end: Linux's `tcp_fin_timeout`.
const FIN_PATIENCE: Duration = Duration::from_mins(1);

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody's yet: its handshake isn't finished. It came to this listener.
    HalfOpen(u32),
    /// In this listener's queue.
    Queued(u32),
    /// A dial whose next hop isn't known yet.
    Resolving,
    /// The program's.
    Held,
    /// Nobody's any more: it ends by itself.
    Orphan,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) body: Body,
    pub(crate) tuple: Tuple,
    /// Its place in the table of connections: gone once no segment can be for it.
    pub(crate) listed: bool,
    pub(crate) phase: Phase,
    /// Where its segments go.
    pub(crate) link: LinkAddress,
    pub(crate) tag: Option<Tag>,
    /// It stands in the queue of those that may have something to send.
    pub(crate) dirty: bool,
    /// It stands in the queue of those that have something to tell.
    pub(crate) news: bool,
    /// Whoever sends found it full, and is to be told of room.
    pub(crate) owes_room: bool,
    /// Its end follows what was sent, once the handshake is finished.
    pub(crate) finishes: bool,
    /// Bytes wait for more, until this time: see `send_ahead`.
    pub(crate) held_until: Option<Time>,
    /// Why it failed; taken once.
    pub(crate) failed: Option<ConnError>,
    /// It has failed, and the reason may have been taken.
    pub(crate) over: bool,
    /// When something last came that could be its peer's, and since when something waits to be acknowledged.
    pub(crate) heard: Time,
    pub(crate) owed_since: Option<Time>,
    /// How long something may stay without an acknowledgement, in milliseconds: up to seven weeks.
    pub(crate) patience_ms: u32,
    pub(crate) keepalive: Keepalive,
    /// When its timer fires, in milliseconds; the wheel has it.
    pub(crate) armed_ms: u64,
    /// The first number of its bytes, how many were taken from the program, and how far they have been sent.
    pub(crate) first: u32,
    pub(crate) taken: u32,
    pub(crate) sent: u32,
    /// Its end has been sent, too.
    pub(crate) end_sent: bool,
    /// The number behind all that came in order, and what the peer said at the beginning.
    pub(crate) received: u32,
    /// The number behind the last byte that came, if it came before others that go in front of it.
    pub(crate) ahead: u32,
    pub(crate) hello: Option<Hello>,
    /// The peer's window, when last heard of, was one to begin with.
    pub(crate) roomy: bool,
    /// The last acknowledgement and window sent, and when a stray segment was last answered by them: the low half of its milliseconds.
    pub(crate) acknowledged: u32,
    pub(crate) window: u16,
    pub(crate) challenged_ms: u32,
}

/// Long before the stack began.
const NEVER_MS: u32 = 1 << 31;
/// No timer.
pub(crate) const UNARMED: u64 = u64::MAX;

impl Flow {
    /// Nobody is asked by keepalive before that is set.
    pub(crate) fn new(
        cell: Cell,
        tuple: Tuple,
        phase: Phase,
        link: LinkAddress,
        now: Time,
        patience: Duration,
    ) -> Self {
        Self {
            body: Body::Awake(cell),
            tuple,
            listed: false,
            phase,
            link,
            tag: None,
            dirty: false,
            news: false,
            owes_room: false,
            finishes: false,
            held_until: None,
            failed: None,
            over: false,
            heard: now,
            owed_since: Some(now),
            patience_ms: millis(patience),
            keepalive: Keepalive::default(),
            armed_ms: UNARMED,
            first: 0,
            taken: 0,
            sent: 0,
            end_sent: false,
            received: 0,
            ahead: 0,
            hello: None,
            roomy: false,
            acknowledged: 0,
            window: 0,
            challenged_ms: NEVER_MS,
        }
    }

    /// Its socket, while it has one.
    pub(crate) fn tcp(&self) -> Option<&Socket<'_>> {
        if let Body::Awake(cell) = &self.body { Some(cell.tcp()) } else { None }
    }

    /// Does something with its socket, while it has one.
    pub(crate) fn with_tcp<R>(&mut self, act: impl for<'a> FnOnce(&mut Socket<'a>) -> R) -> Option<R> {
        if let Body::Awake(cell) = &mut self.body { Some(cell.with_tcp(act)) } else { None }
    }

    /// Does something with the set of its socket, while it has one.
    pub(crate) fn with_set<R>(&mut self, act: impl for<'a> FnOnce(&mut SocketSet<'a>) -> R) -> Option<R> {
        if let Body::Awake(cell) = &mut self.body { Some(cell.with_set(act)) } else { None }
    }

    /// What it rests with, if it does.
    pub(crate) const fn rest(&self) -> Option<&Rest> {
        if let Body::Resting(rest) = &self.body { Some(rest) } else { None }
    }

    /// Its state: one at rest stands.
    pub(crate) fn state(&self) -> State {
        self.tcp().map_or(State::Established, Socket::state)
    }

    /// Bytes to be read.
    pub(crate) fn recv_queue(&self) -> usize {
        self.tcp().map_or(0, Socket::recv_queue)
    }

    /// Bytes that the peer hasn't acknowledged.
    pub(crate) fn send_queue(&self) -> usize {
        self.tcp().map_or(0, Socket::send_queue)
    }

    /// Whether a segment can be the next of a connection that has begun (RFC 9293, 3.10.7.4): it begins or ends in the receive window, and
    /// acknowledges what was sent, or nothing new. For one at rest that is exact. Else the window is taken for as large as the buffer:
    /// what smoltcp refuses may fit, but no stranger's guess.
    pub(crate) fn fits(&self, segment: &Segment) -> bool {
        let (window, waiting, stands) = match &self.body {
            Body::Awake(cell) => {
                let tcp = cell.tcp();
                (tcp.recv_capacity(), tcp.send_queue(), tcp.state() == State::Established)
            }
            Body::Resting(rest) => (rest.receive as usize, 0, true),
        };
        if segment.flags.syn() {
            return false;
        }
        let begins = (segment.seq.wrapping_sub(self.received) as usize) < window;
        if segment.flags.rst() {
            return begins;
        }
        let behind = segment.end().wrapping_sub(self.received) as usize;
        let ends = segment.payload > 0 && (1..=window).contains(&behind);
        let left = self.first.wrapping_add(self.taken).wrapping_sub(segment.ack) as usize;
        let acknowledges = left <= waiting || (!stands && left == u32::MAX as usize);
        segment.flags.ack() && acknowledges && (begins || ends)
    }

    /// Whether a segment that doesn't fit repeats what its peer said before: it lives, though what we said may not reach it. It stands at
    /// most a buffer before what comes next, or in the window, and acknowledges what was sent, however old that is.
    pub(crate) fn repeats(&self, segment: &Segment) -> bool {
        let Some(tcp) = self.tcp() else { return false };
        let (window, sent) = (tcp.recv_capacity(), tcp.send_queue() + tcp.send_capacity());
        let ahead = segment.seq.wrapping_sub(self.received) as usize;
        let behind = self.received.wrapping_sub(segment.seq) as usize;
        // One more, for our end.
        let left = self.first.wrapping_add(self.taken).wrapping_add(1).wrapping_sub(segment.ack) as usize;
        segment.flags.ack() && !segment.flags.syn() && (ahead < window || behind <= window) && left <= sent + 1
    }

    /// Whether a segment that fits tells one at rest nothing but that its peer is there: it's empty, and its window is no small one.
    pub(crate) fn is_told_nothing_by(&self, segment: &Segment) -> bool {
        let roomy = self.hello.is_some_and(|hello| hello.has_window(segment));
        segment.seq == self.received && segment.end() == segment.seq && !segment.flags.rst() && roomy
    }

    /// Bits that a window is shifted by when it's sent, as smoltcp reckons them from the buffer.
    pub(crate) fn scale(&self) -> u32 {
        (usize::BITS - self.tcp().map_or(0, Socket::recv_capacity).leading_zeros()).saturating_sub(16)
    }

    /// Whether smoltcp's answer to a segment that doesn't fit has an old number: while it sends again, that which it does so from. A peer
    /// that has had what is there doesn't take the answer; if it sends again as well, neither would ever hear that all came. SND.NXT is
    /// due (RFC 9293, 3.10.7.4).
    pub(crate) fn is_behind(&self, answer: &Segment) -> bool {
        let behind = self.next().wrapping_sub(answer.seq) as usize;
        let flags = answer.flags;
        // One more, for our end.
        flags.ack() && !flags.rst() && !flags.syn() && (1..=self.send_queue() + 1).contains(&behind)
    }

    /// The number of what it sends next that hasn't been sent before (SND.NXT).
    pub(crate) fn next(&self) -> u32 {
        self.first.wrapping_add(self.sent).wrapping_add(u32::from(self.end_sent))
    }

    /// The handshake isn't finished.
    pub(crate) fn is_connecting(&self) -> bool {
        self.phase == Phase::Resolving || matches!(self.state(), State::SynSent | State::SynReceived)
    }

    /// The peer has finished sending.
    pub(crate) fn has_end(&self) -> bool {
        matches!(self.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait)
            || (self.state() == State::Closed && !self.is_connecting())
    }

    /// Something was sent, or is to be sent, that the peer has to acknowledge.
    pub(crate) fn owes(&self) -> bool {
        let unfinished = matches!(
            self.state(),
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck
        );
        unfinished || self.send_queue() > 0
    }

    /// Notes whether anything waits to be acknowledged.
    pub(crate) fn note_owed(&mut self, now: Time) {
        if !self.owes() {
            self.owed_since = None;
        } else if self.owed_since.is_none() {
            self.owed_since = Some(now);
        }
    }

    /// When it's given up if nothing comes from its peer.
    pub(crate) fn gives_up_at(&self, orphan: Duration) -> Option<Time> {
        if self.over {
            return None;
        }
        if let Some(since) = self.owed_since {
            let unacknowledged = Duration::from_millis(self.patience_ms.into());
            let patience = match (self.phase, self.state()) {
                (Phase::HalfOpen(_), _) => return Some(since.after(HALF_OPEN_PATIENCE)),
                (Phase::Resolving, _) | (_, State::SynSent | State::SynReceived) => DIAL_PATIENCE.min(unacknowledged),
                (Phase::Orphan, _) => orphan.min(unacknowledged),
                _ => unacknowledged,
            };
            return Some(since.max(self.heard).after(patience));
        }
        if self.phase == Phase::Orphan { Some(self.heard.after(FIN_PATIENCE)) } else { self.unanswered_at() }
    }

    /// Bytes taken from the program that haven't been on the wire.
    pub(crate) fn unsent(&self) -> usize {
        let unsent = self.taken.wrapping_sub(self.sent) as usize;
        unsent.min(self.send_queue())
    }

    /// Whether there is room again for somebody who found none: a quarter of the buffer, so that he isn't told of each byte.
    pub(crate) fn has_room_again(&self) -> bool {
        let has_room = |tcp: &Socket<'_>| (tcp.send_capacity() - tcp.send_queue()) * 4 >= tcp.send_capacity();
        self.tcp().is_some_and(|tcp| tcp.may_send() && has_room(tcp))
    }
}

/// Sets what a leg's options say of a socket that isn't open yet.
pub(crate) fn set_options(tcp: &mut Socket<'_>, options: &LegOptions, congestion: CongestionControl) {
    tcp.set_nagle_enabled(!options.nodelay);
    tcp.set_congestion_control(congestion);
}

/// The congestion control of a name; `None` if there is none of it here. Without a name it's Reno's: CUBIC differs on paths with more
/// bytes on their way than a connection has buffers for.
pub(crate) fn congestion(name: Option<&str>) -> Option<CongestionControl> {
    match name {
        None | Some("reno") => Some(CongestionControl::Reno),
        Some("cubic") => Some(CongestionControl::Cubic),
        Some(_) => None,
    }
}

/// A limit's time, or the longest that there is.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/user-stack.md` says what a connection costs at rest, and a socket while it's awake.
    #[test]
    fn a_connection_costs_what_is_told() {
        assert_eq!((size_of::<Flow>(), crate::sys::SOCKET_BYTES), (256, 640));
    }
}
