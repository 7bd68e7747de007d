//! One connection: smoltcp's socket, and what stands around it.

use std::time::Duration;

use midmile_engine::backend::Tag;
use midmile_engine::{ConnError, LegOptions, Probing, Time};
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};

use super::packet::Tuple;
use crate::link::LinkAddress;

/// Probes without an answer that end a connection, as on the kernel.
const PROBES: u32 = 3;
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

/// A set of one socket, with the sizes of its buffers. smoltcp polls sets, and a set of all sockets it would search each time.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) set: SocketSet<'static>,
    handle: SocketHandle,
    receive: usize,
    send: usize,
}

impl Cell {
    pub(crate) fn new(receive: usize, send: usize) -> Self {
        let socket = Socket::new(SocketBuffer::new(vec![0; receive]), SocketBuffer::new(vec![0; send]));
        let mut set = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = set.add(socket);
        Self { set, handle, receive, send }
    }

    pub(crate) fn has_sizes(&self, receive: usize, send: usize) -> bool {
        (self.receive, self.send) == (receive, send)
    }

    pub(crate) fn tcp(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    pub(crate) fn tcp_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) cell: Cell,
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
    /// When something last came, and since when something waits to be acknowledged.
    pub(crate) heard: Time,
    pub(crate) owed_since: Option<Time>,
    pub(crate) limits: Limits,
    /// When its timer fires, in milliseconds; the wheel has it.
    pub(crate) armed_ms: u64,
    /// The first number of its bytes, how many were taken from the program, and how far they have been sent.
    pub(crate) first: u32,
    pub(crate) taken: u32,
    pub(crate) sent: u32,
    /// The last acknowledgement and window sent, and when a stray SYN was last challenged.
    pub(crate) acknowledged: u32,
    pub(crate) window: u16,
    pub(crate) challenged: Option<Time>,
}

/// How long it's kept on without a sign of its peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// While something waits to be acknowledged.
    pub(crate) unacknowledged: Duration,
    /// While nothing does, and keepalive asks.
    pub(crate) silent: Option<Duration>,
}

/// No timer.
pub(crate) const UNARMED: u64 = u64::MAX;

impl Flow {
    pub(crate) fn new(cell: Cell, tuple: Tuple, phase: Phase, link: LinkAddress, now: Time, limits: Limits) -> Self {
        Self {
            cell,
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
            limits,
            armed_ms: UNARMED,
            first: 0,
            taken: 0,
            sent: 0,
            acknowledged: 0,
            window: 0,
            challenged: None,
        }
    }

    pub(crate) fn tcp(&self) -> &Socket<'static> {
        self.cell.tcp()
    }

    pub(crate) fn tcp_mut(&mut self) -> &mut Socket<'static> {
        self.cell.tcp_mut()
    }

    pub(crate) fn state(&self) -> State {
        self.tcp().state()
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
        unfinished || self.tcp().send_queue() > 0
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
            let patience = match (self.phase, self.state()) {
                (Phase::HalfOpen(_), _) => return Some(since.after(HALF_OPEN_PATIENCE)),
                (Phase::Resolving, _) | (_, State::SynSent | State::SynReceived) => {
                    DIAL_PATIENCE.min(self.limits.unacknowledged)
                }
                (Phase::Orphan, _) => orphan.min(self.limits.unacknowledged),
                _ => self.limits.unacknowledged,
            };
            return Some(since.max(self.heard).after(patience));
        }
        match (self.phase, self.limits.silent) {
            (Phase::Orphan, _) => Some(self.heard.after(FIN_PATIENCE)),
            (_, silent) => silent.map(|silent| self.heard.after(silent)),
        }
    }

    /// Bytes taken from the program that haven't been on the wire.
    pub(crate) fn unsent(&self) -> usize {
        let unsent = self.taken.wrapping_sub(self.sent) as usize;
        unsent.min(self.tcp().send_queue())
    }

    /// Whether there is room again for somebody who found none: a quarter of the buffer, so that he isn't told of each byte.
    pub(crate) fn has_room_again(&self) -> bool {
        let tcp = self.tcp();
        tcp.may_send() && (tcp.send_capacity() - tcp.send_queue()) * 4 >= tcp.send_capacity()
    }
}

impl Limits {
    pub(crate) fn of(options: &LegOptions, patience: Duration) -> Self {
        Self {
            unacknowledged: options.user_timeout.unwrap_or(patience),
            silent: options.keepalive.map(|idle| idle + idle / PROBES * PROBES),
        }
    }
}

/// Sets what a leg's options say of a socket that isn't open yet.
pub(crate) fn set_options(tcp: &mut Socket<'_>, options: &LegOptions, congestion: CongestionControl) {
    tcp.set_nagle_enabled(!options.nodelay);
    tcp.set_congestion_control(congestion);
    tcp.set_keep_alive(options.keepalive.map(duration));
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

/// When a quiet peer is probed, and when it's given up: smoltcp has one interval for both the first probe and those that follow.
pub(crate) fn set_probing(flow: &mut Flow, probing: Option<&Probing>) {
    flow.limits.silent = probing.map(|probing| probing.after + probing.every * probing.count);
    let tcp = flow.tcp_mut();
    let interval = probing.map(|probing| duration(probing.after.min(probing.every)));
    // A closed socket's timer has nobody to probe.
    if tcp.is_open() {
        tcp.set_keep_alive(interval);
    }
}

/// smoltcp's durations.
pub(crate) fn duration(from: Duration) -> smoltcp::time::Duration {
    smoltcp::time::Duration::from_micros(u64::try_from(from.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/user-stack.md` says what a connection costs beside its buffers.
    #[test]
    fn a_connection_costs_what_is_told() {
        let bytes = size_of::<Flow>() + size_of::<SocketStorage<'_>>();
        assert!(bytes <= 896, "{bytes} bytes");
    }
}
