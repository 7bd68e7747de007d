//! Connections at rest: those that have been silent for a while keep a few numbers, and no socket.
//!
//! smoltcp's socket and its buffers are most of what a connection costs, and there's no way to take the buffers from it. But all that
//! an idle connection is can be told in some bytes: both ends' next numbers, and what the peer said of itself at the beginning. So its
//! socket goes back to the pool. When a segment comes, or the program wants something, a fresh socket is brought to the same place: it
//! dials, with the first number that makes its next one right, and is given the answer that the peer would give. None of that is on the
//! wire.
//!
//! What it forgets is what a sender should forget that hasn't sent for longer than a retransmission timeout: the congestion window
//! (RFC 5681, 4.1), and measured round trips.

use std::time::Duration;

use midmile_engine::{ConnError, Key, Time};
use smoltcp::iface::PollResult;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::{CongestionControl, State};
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet};
use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::bare::HOPS;
use super::flow::{Flow, Phase};
use super::packet::{Segment, Tuple};
use super::port::{Port, Sent};
use super::{Net, instant, interface};
use crate::link::Transmit;
use crate::sys::Cell;

/// Connections that begin to rest in one millisecond: giving a socket's memory back takes a system call, and those that came together
/// are silent together.
const RESTS: u32 = 64;
/// A peer whose window is smaller has its socket kept: it's what a woken one takes for the window until it hears more. smoltcp begins
/// with half as much on its way.
const WINDOW_MIN: u16 = 4096;
/// Bytes of the longest answer to a SYN that is made here: an IPv6 header, a TCP header, and the options that smoltcp writes.
const ANSWER_BYTES: usize = 40 + 60;

/// What the peer said of itself when the connection began (RFC 9293, 3.7.1; RFC 7323, 2; RFC 2018, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
}

impl Hello {
    /// Reads a packet with a SYN, which smoltcp has taken.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let (from, to, payload): (IpAddress, IpAddress, &[u8]) = if packet.first()? >> 4 == 4 {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            (ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
        } else {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            (ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
        };
        let tcp = TcpPacket::new_checked(payload).ok()?;
        let tcp = TcpRepr::parse(&tcp, &from, &to, &ChecksumCapabilities::ignored()).ok()?;
        Some(Self { mss: tcp.max_seg_size, scale: tcp.window_scale, sack: tcp.sack_permitted })
    }

    /// Whether the peer takes as much as a woken socket sends before it hears of a window.
    pub(crate) fn has_window(&self, segment: &Segment) -> bool {
        u32::from(segment.window) << self.scale.unwrap_or(0) >= u32::from(WINDOW_MIN)
    }

    /// Writes the peer's answer to a SYN whose number was `seq`; its own was `peer_seq`. How long it is.
    fn answer(&self, tuple: &Tuple, seq: u32, peer_seq: u32, packet: &mut [u8; ANSWER_BYTES]) -> usize {
        let number = |number: u32| TcpSeqNumber(number.cast_signed());
        let (from, to) = (tuple.peer(), tuple.local());
        let tcp = TcpRepr {
            src_port: from.port(),
            dst_port: to.port(),
            control: TcpControl::Syn,
            seq_number: number(peer_seq),
            ack_number: Some(number(seq.wrapping_add(1))),
            window_len: WINDOW_MIN,
            window_scale: self.scale,
            max_seg_size: self.mss,
            sack_permitted: self.sack,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (from, to) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), HOPS);
        let (checksums, len) = (ChecksumCapabilities::default(), ip.buffer_len());
        ip.emit(&mut packet[..], &checksums);
        tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..len]), &from, &to, &checksums);
        len
    }
}

/// What is left of a connection's socket while it rests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    pub(super) receive: u32,
    send: u32,
    nagle: bool,
    congestion: CongestionControl,
}

/// Who begins to rest when: so many a millisecond, the others later.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those of this millisecond, and those of the last one that somebody was told to wait for.
    now: Turn,
    later: Turn,
}

/// A millisecond, and how many have their turn in it.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    at_ms: u64,
    count: u32,
}

impl Turns {
    /// Takes a turn now, or says in which millisecond to come again.
    fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        if self.now.at_ms < now_ms {
            self.now = Turn { at_ms: now_ms, count: 0 };
        }
        if self.now.count < RESTS {
            self.now.count += 1;
            return Ok(());
        }
        if self.later.at_ms <= now_ms {
            self.later = Turn { at_ms: now_ms + 1, count: 0 };
        } else if self.later.count == RESTS {
            self.later = Turn { at_ms: self.later.at_ms + 1, count: 0 };
        }
        self.later.count += 1;
        Err(self.later.at_ms)
    }
}

/// A connection's socket.
#[derive(Debug)]
pub(crate) enum Body {
    /// It's there.
    Awake(Cell),
    /// It's made again when it's needed.
    Resting(Rest),
}

impl Flow {
    /// Whether nothing is on its way or waits: all that came was read and acknowledged, all that was sent has arrived.
    fn is_quiet(&self) -> bool {
        self.phase == Phase::Held
            && self.roomy
            && !(self.over || self.finishes || self.dirty || self.news || self.owes_room)
            && self.acknowledged == self.received
            && !self.has_hole()
            && self.sent == self.taken
            && self.held_until.is_none()
            && self
                .tcp()
                .is_some_and(|tcp| tcp.state() == State::Established && tcp.recv_queue() == 0 && tcp.send_queue() == 0)
    }

    /// A segment that begins the connection came from the peer.
    pub(super) fn meet(&mut self, packet: &[u8], segment: &Segment) {
        self.hello = Hello::of(packet);
        self.received = segment.seq.wrapping_add(1);
        self.ahead = self.received;
    }

    /// A segment came, which brought `came` bytes in order; before, the connection was in the state `before`.
    pub(super) fn note_came(&mut self, before: State, packet: &[u8], segment: &Segment, came: usize) {
        if segment.flags.syn() {
            if before == State::SynSent && self.state() != before {
                self.meet(packet, segment);
                // Its window is never scaled (RFC 7323, 2.2).
                self.roomy = segment.window >= WINDOW_MIN;
            }
            return;
        }
        self.received = self.received.wrapping_add(u32::try_from(came).expect("a buffer is smaller"));
        if segment.payload > 0 {
            self.note_hole(segment);
        }
        self.roomy = self.hello.is_some_and(|hello| hello.has_window(segment));
    }

    /// A segment came that doesn't fit. What repeats the peer's words is a sign of it; and its window counts if that is large: the news
    /// of it may have been lost, and at rest a window is taken for no larger.
    pub(super) fn note_misfit(&mut self, now: Time, segment: &Segment) {
        if self.repeats(segment) {
            self.note_heard(now, self.link);
            self.roomy |= self.hello.is_some_and(|hello| hello.has_window(segment));
        }
    }

    /// Notes how far what came reaches: bytes behind a hole have been acknowledged (RFC 2018), so they mustn't be forgotten.
    fn note_hole(&mut self, segment: &Segment) {
        let end = segment.seq.wrapping_add(segment.payload);
        if !self.has_hole() {
            self.ahead = self.received;
        }
        if end.wrapping_sub(self.ahead).cast_signed() > 0 {
            self.ahead = end;
        }
    }

    /// Something came before what goes in front of it.
    const fn has_hole(&self) -> bool {
        self.ahead.wrapping_sub(self.received).cast_signed() > 0
    }

    /// When it may rest, if nothing happens.
    pub(super) fn rests_at(&self, after: Duration) -> Option<Time> {
        self.is_quiet().then(|| self.heard.after(after))
    }
}

impl Net {
    /// Has a connection rest that has been silent for long enough, or says when it may: others are in front.
    pub(super) fn rest_in_turn(&mut self, key: Key) -> Option<Time> {
        match self.turns.take(self.now.as_millis()) {
            Ok(()) => {
                self.rest(key);
                None
            }
            Err(at_ms) => Some(Time::from_nanos(at_ms.saturating_mul(1_000_000))),
        }
    }

    /// Takes the socket of a connection.
    fn rest(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Body::Awake(cell) = &flow.body else { return };
        let ((receive, send), tcp) = (cell.sizes(), cell.tcp());
        let rest = Rest { receive, send, nagle: tcp.nagle_enabled(), congestion: tcp.congestion_control() };
        let body = std::mem::replace(&mut flow.body, Body::Resting(rest));
        self.resting += 1;
        self.put_away(body);
    }

    /// A connection to do something with: its socket is there.
    pub(super) fn awake(&mut self, key: Key) -> Option<&mut Flow> {
        if self.flows.get(key)?.rest().is_some() {
            self.wake(key);
            // If nothing comes of it, it's to rest again.
            self.mark(key);
        }
        self.flows.get_mut(key)
    }

    /// Makes the socket of a connection at rest.
    pub(super) fn wake(&mut self, key: Key) {
        let Some(flow) = self.flows.get(key) else { return };
        let (Some(rest), Some(hello)) = (flow.rest().copied(), flow.hello) else { return };
        let (tuple, next, received) = (flow.tuple, flow.first.wrapping_add(flow.taken), flow.received);
        let mut cell = self.cell_of(rest.receive, rest.send);
        cell.with_tcp(|tcp| {
            tcp.set_nagle_enabled(rest.nagle);
            tcp.set_congestion_control(rest.congestion);
        });
        let stands = self.revive(&mut cell, &tuple, hello, next, received);
        self.resting -= 1;
        if let Some(flow) = self.flows.get_mut(key) {
            flow.body = Body::Awake(cell);
        }
        if !stands {
            self.ended(key, Some(ConnError::Reset));
        }
    }

    /// Brings a closed socket to where a connection stands: its next number is `next`, the peer's `received`. Answers whether it's there.
    fn revive(&mut self, cell: &mut Cell, tuple: &Tuple, hello: Hello, next: u32, received: u32) -> bool {
        self.iface = interface(self.figures, seed_for(next.wrapping_sub(1)));
        self.aimed = None;
        self.aim(tuple);
        let (local, peer) = (tuple.local(), tuple.peer());
        let remote = IpEndpoint { addr: peer.ip().into(), port: peer.port() };
        let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        let iface = &mut self.iface;
        if cell.with_tcp(|tcp| tcp.connect(iface.context(), remote, endpoint)).is_err() {
            return false;
        }
        let mut answer = [0; ANSWER_BYTES];
        let len = hello.answer(tuple, next.wrapping_sub(1), received.wrapping_sub(1), &mut answer);
        let mtu = self.figures.mtu;
        let mut away = Away(&mut self.sink);
        let packet = Some(&answer[..len]);
        let mut port = Port { packet, tx: &mut away, head: None, mtu, sink: &mut [], sent: Sent::default() };
        let now = instant(self.now);
        cell.with_set(|set| {
            iface.poll_ingress_single(now, &mut port, set);
            // The handshake's last segment, which the peer has had long ago.
            while iface.poll_egress(now, &mut port, set) != PollResult::None {}
        });
        let numbers = port.sent.last.map(|last| (last.seq, last.ack));
        cell.tcp().state() == State::Established && numbers == Some((next, received))
    }

    /// Whether smoltcp's sockets can be brought to where a connection stands: it draws its first numbers as it's expected to.
    pub(super) fn can_wake(&mut self) -> bool {
        let peer = ([192, 0, 2, 1], 1).into();
        let hello = Hello { mss: Some(1460), scale: Some(7), sack: true };
        [(1, 1), (0, u32::MAX), (0x8000_0000, 0x7fff_ffff)].into_iter().all(|(next, received)| {
            let mut cell = self.cell_of(BYTES, BYTES);
            let stands = self.revive(&mut cell, &Tuple::new(peer, ([192, 0, 2, 2], 2).into()), hello, next, received);
            self.arena.retire(cell);
            stands
        })
    }
}

/// Buffers of a socket that is only tried.
const BYTES: u32 = 2048;

/// A link that takes everything, and to nobody.
struct Away<'a>(&'a mut [u8]);

impl Transmit for Away<'_> {
    fn has_room(&mut self) -> bool {
        true
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        fill(&mut self.0[..len])
    }

    fn flush(&mut self) {}
}

/// The seed with which smoltcp's interface draws `number` as its first initial sequence number. Its generator (sPCG32, O'Neill 2014) is
/// a step `s * M + A` from which some bits are told, and M has an inverse; the first step is for the numbers of IPv4 fragments.
#[expect(clippy::cast_possible_truncation, reason = "as the generator does it")]
fn seed_for(number: u32) -> u64 {
    const M: u64 = 0xbb2e_fcec_3c39_611d;
    const A: u64 = 0x7590_ef39;
    const INVERSE: u64 = inverse(M);
    const fn inverse(of: u64) -> u64 {
        // Newton's method: each step doubles the bits that are right, and any odd number has three of them.
        let mut inverse = of;
        let mut step = 0;
        while step < 5 {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(of.wrapping_mul(inverse)));
            step += 1;
        }
        inverse
    }
    let before = |state: u64| state.wrapping_sub(A).wrapping_mul(INVERSE);
    // With the three highest bits set, those from 22 on are told.
    let state = 7 << 61 | u64::from(number) << 22;
    // smoltcp draws again for a fragment's number of zero; the lowest bits are free to avoid that.
    let mut steps = (0..1 << 22).map(|low| before(state | low));
    let first = steps.find(|state| {
        let told = (state >> (29 - (state >> 61))) as u32;
        (told ^ told >> 16) & 0xffff != 0
    });
    before(first.unwrap_or(0))
}

#[cfg(test)]
mod tests;
