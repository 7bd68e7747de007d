//! All of the stack but its link: frames and the time go in, frames and events come out.
//!
//! ```text
//!   handle_frame ─► table of connections ─► the connection's own smoltcp set ─► news ──► gather
//!                        │ none                                        │
//!                        ├► TIME-WAIT                                  ▼
//!                        ├► a listener: a half-open connection      dirty ──► settle: segments, timers
//!                        └► a reset
//! ```
//! smoltcp polls every socket of a set for every packet. Here each connection has a set of its own, and only those are polled that
//! had a packet, were written to or read from, or whose timer is due.

mod ahead;
mod bare;
mod check;
mod dial;
mod door;
mod ending;
mod flow;
mod keepalive;
mod mail;
mod opening;
mod packet;
mod port;
mod rest;
mod settling;
mod sockets;
mod table;
mod wait;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use midmile_engine::backend::Ready;
use midmile_engine::{Key, LegOptions, Slab, Time, Wheel};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpRepr, IpVersion};

use crate::config::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, StackConfig};
use crate::gauges::StackGauges;
use crate::link::{ETHERNET_BYTES, Figures, LinkAddress, Transmit};

use crate::random::Random;
use crate::sys::{Arena, Cell};
pub(crate) use ahead::Ahead;
use bare::{Bare, Nowhere};
pub(crate) use dial::HOP_LOOK_EVERY;
use door::Door;
use flow::{Flow, Phase};
use mail::Mail;
pub(crate) use mail::{Posted, Unbound};
use packet::{Segment, Tuple};
use port::{Port, Sent};
use rest::{Body, Turns};
pub(crate) use sockets::{Accepted, Closed};
use table::Table;
use wait::{Answer, Waits};

/// Events that are told at once.
const EVENTS: usize = 1024;
/// Segments that can't be a connection's next are answered once in so many milliseconds (RFC 5961, 7).
const CHALLENGE_EVERY_MS: u32 = 1000;

/// The state of all connections.
pub(crate) struct Net {
    pub(crate) config: StackConfig,
    pub(crate) gauges: StackGauges,
    pub(crate) now: Time,
    figures: Figures,
    iface: Interface,
    /// The address that `iface` has: of the connection that it was last used for.
    aimed: Option<u128>,
    /// For segments of no connection.
    nobody: SocketSet<'static>,
    flows: Slab<Flow>,
    /// Slots of those that segments can be for.
    table: Table,
    keys: [u64; 4],
    waits: Waits,
    mail: Mail,
    doors: Vec<Option<Door>>,
    /// Half-open connections, the oldest in front; some stand there that aren't half-open any more.
    half_open: VecDeque<Key>,
    half_open_len: usize,
    /// Dials whose next hop isn't known.
    resolving: Vec<(Key, Time)>,
    /// Connections that may have something to send, and that have something to tell; each stands there once.
    dirty: VecDeque<Key>,
    news: VecDeque<Key>,
    batch: Vec<Ready>,
    timers: Wheel,
    spare: Vec<Cell>,
    arena: Arena,
    /// Connections at rest, and whether any may.
    resting: usize,
    rests: bool,
    turns: Turns,
    random: Random,
    sink: Box<[u8]>,
}

impl Net {
    /// Without connections. `seed` makes its random numbers the same each time, for tests.
    pub(crate) fn new(config: StackConfig, figures: Figures, seed: Option<u64>) -> Self {
        let mut random = seed.map_or_else(Random::system, Random::Seeded);
        let keys = [(); 4].map(|()| random.next());
        let (flows, half_open) = (config.flows_max, config.half_open_max as usize);
        let sized = |bytes: usize| u32::try_from(bytes).expect("it was checked");
        let (receive, send) = (sized(config.receive_bytes), sized(config.send_bytes));
        let mut net = Self {
            iface: interface(figures, random.next()),
            figures,
            aimed: None,
            nobody: SocketSet::new(Vec::new()),
            flows: Slab::with_capacity(flows),
            table: Table::with_capacity(flows),
            keys,
            waits: Waits::with_capacity(config.waits_max),
            mail: Mail::default(),
            doors: Vec::with_capacity(config.listeners_max as usize),
            half_open: VecDeque::with_capacity(2 * half_open),
            half_open_len: 0,
            resolving: Vec::new(),
            dirty: VecDeque::with_capacity(flows as usize),
            news: VecDeque::with_capacity(flows as usize),
            batch: Vec::with_capacity(EVENTS),
            timers: Wheel::with_capacity(flows),
            spare: Vec::with_capacity(config.spare_max as usize),
            arena: Arena::reserve(flows, receive, send),
            resting: 0,
            rests: false,
            turns: Turns::default(),
            random,
            sink: vec![0; figures.mtu].into_boxed_slice(),
            gauges: StackGauges::default(),
            now: Time::ZERO,
            config,
        };
        net.rests = net.config.rest_after < Duration::MAX && net.can_wake();
        net
    }

    /// Takes a frame that came.
    pub(crate) fn handle_frame<T: Transmit>(&mut self, frame: &[u8], tx: &mut T) {
        self.gauges.frames += 1;
        let unwrapped = if self.figures.address.is_some() { packet::unwrap(frame) } else { Some(([0; 6], frame)) };
        let Some((link, packet)) = unwrapped else {
            self.gauges.malformed += 1;
            return;
        };
        let Some(segment) = packet::parse(packet) else { return self.handle_datagram(link, packet) };
        if !packet::is_whole(packet, &segment.tuple, self.figures.verifies) {
            self.gauges.malformed += 1;
            return;
        }
        let hash = segment.tuple.hash(&self.keys);
        if let Some(key) = self.find(hash, &segment.tuple) {
            self.handle_segment(key, link, packet, &segment, tx);
        } else if segment.tuple.is_between_hosts() && self.is_ours(segment.tuple.local()) {
            self.handle_stray(hash, link, packet, &segment, tx);
        } else {
            self.gauges.strangers += 1;
        }
    }

    /// Packets have so many bytes at most from now on: new connections say so to their peers, and none sends longer ones.
    pub(crate) fn follow_mtu(&mut self, mtu: usize) {
        if mtu == self.figures.mtu {
            return;
        }
        self.figures.mtu = mtu;
        self.sink = vec![0; mtu].into_boxed_slice();
        self.iface = interface(self.figures, self.random.next());
        self.aimed = None;
    }

    fn is_ours(&self, local: SocketAddr) -> bool {
        self.config.addresses.contains(&local.ip())
    }

    fn find(&self, hash: u64, tuple: &Tuple) -> Option<Key> {
        let is_it = |slot| self.flow_at(slot).is_some_and(|(_, flow)| flow.tuple == *tuple);
        self.table.find(hash, is_it).and_then(|slot| self.flows.key_at(slot))
    }

    fn flow_at(&self, slot: u32) -> Option<(Key, &Flow)> {
        let key = self.flows.key_at(slot)?;
        self.flows.get(key).map(|flow| (key, flow))
    }

    /// A segment of a connection that there is.
    fn handle_segment<T: Transmit>(
        &mut self,
        key: Key,
        link: LinkAddress,
        packet: &[u8],
        segment: &Segment,
        tx: &mut T,
    ) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (before, fits) = (flow.state(), flow.fits(segment));
        match flow.phase {
            Phase::Resolving => return,
            // The program is behind with accepting: as on Linux, the peer sends its segment again.
            Phase::HalfOpen(door)
                if !segment.flags.rst() && self.doors[door as usize].as_ref().is_some_and(Door::is_full) =>
            {
                self.gauges.backlog_full += 1;
                return;
            }
            _ => {}
        }
        let anew = segment.flags.opens() && !matches!(before, State::SynSent | State::SynReceived);
        if anew || (flow.rest().is_some() && !fits) {
            return self.handle_misfit(key, segment, tx);
        }
        if flow.rest().is_some() && flow.is_told_nothing_by(segment) {
            // What keepalive asked was answered.
            flow.note_heard(self.now, link);
            return;
        }
        // Whoever guesses wrong is answered where the peer is, not where he is himself.
        let to = if fits { link } else { flow.link };
        let Some(flow) = self.awake(key) else { return };
        let queued = flow.recv_queue();
        self.aim(&segment.tuple);
        let sent = self.ingress(key, to, packet, tx);
        let now = self.now;
        let Some(flow) = self.flows.get_mut(key) else { return };
        note_sent(flow, sent);
        flow.note_owed(now);
        let (after, came) = (flow.state(), flow.recv_queue().saturating_sub(queued));
        let mut behind = false;
        if fits || after != before || came > 0 {
            flow.note_heard(now, link);
            flow.note_came(before, packet, segment, came);
        } else {
            self.gauges.misfits += 1;
            flow.note_misfit(now, segment);
            behind = sent.last.is_some_and(|answer| flow.is_behind(&answer));
        }
        let grew = came > 0;
        let room_came = flow.owes_room && flow.has_room_again();
        flow.owes_room &= !room_came;
        let orphan = flow.phase == Phase::Orphan;
        if behind {
            self.acknowledge_again(key, 0, tx);
        }
        if after != before {
            self.changed(key, before, after, segment, tx);
        }
        if grew && orphan {
            // Bytes for somebody who is gone are answered by a reset (RFC 9293, 3.10.7.1; RFC 1122, 4.2.2.13).
            self.abort(key);
        } else if grew || room_came {
            self.tell(key);
        }
        self.mark(key);
    }

    /// Gives a packet to its connection's socket.
    fn ingress<T: Transmit>(&mut self, key: Key, link: LinkAddress, packet: &[u8], tx: &mut T) -> Sent {
        let now = instant(self.now);
        let mut port = Port {
            packet: Some(packet),
            tx,
            head: head_for(&self.figures, link, packet[0] >> 4 == 4),
            mtu: self.figures.mtu,
            sink: &mut self.sink,
            sent: Sent::default(),
        };
        let iface = &mut self.iface;
        let taken = self
            .flows
            .get_mut(key)
            .and_then(|flow| flow.with_set(|set| iface.poll_ingress_single(now, &mut port, set)));
        if taken.is_none() {
            iface.poll_ingress_single(now, &mut port, &mut self.nobody);
        }
        self.gauges.answers_lost += u64::from(port.sent.lost);
        port.sent
    }

    /// A segment of no connection.
    fn handle_stray<T: Transmit>(
        &mut self,
        hash: u64,
        link: LinkAddress,
        packet: &[u8],
        segment: &Segment,
        tx: &mut T,
    ) {
        let keys = self.keys;
        self.waits.expire(self.now, |tuple| tuple.hash(&keys));
        match self.waits.handle(hash, segment) {
            Some(Answer::Nothing) => return,
            Some(Answer::Acknowledge { seq, ack }) => {
                self.acknowledge(&segment.tuple, link, Bare { seq, ack, window: 0 }, tx);
                return;
            }
            Some(Answer::Anew) | None => {}
        }
        let local = segment.tuple.local();
        if segment.flags.opens()
            && let Some(door) = self.door_for(local)
        {
            self.open(door, hash, link, packet, segment, tx);
            return;
        }
        // An empty set has smoltcp send a reset, where one is due.
        self.aim(&segment.tuple);
        let sent = self.ingress(Key::NONE, link, packet, tx);
        self.gauges.resets += u64::from(sent.last.is_some());
    }

    /// Has the interface begin anew with unpredictable numbers, for a connection that begins: smoltcp draws initial sequence numbers
    /// from a generator whose state can be told from a few of them.
    fn renew(&mut self, tuple: &Tuple) {
        self.iface = interface(self.figures, self.random.next());
        self.aimed = None;
        self.aim(tuple);
    }

    /// Gives the interface the address of the connection that it's used for next: smoltcp takes and sends packets of its own
    /// addresses alone, and has room for few.
    fn aim(&mut self, tuple: &Tuple) {
        if self.aimed == Some(tuple.local_bits()) {
            return;
        }
        let local = tuple.local().ip();
        let prefix = if local.is_ipv4() { 32 } else { 128 };
        self.iface.update_ip_addrs(|addresses| {
            addresses.clear();
            addresses.push(IpCidr::new(IpAddress::from(local), prefix)).expect("there's room for one");
        });
        self.aimed = Some(tuple.local_bits());
    }

    /// Buffers of the sizes that the leg asks for.
    fn cell_for(&mut self, options: &LegOptions) -> Cell {
        let sized = |asked: Option<u32>, usual| {
            let bytes = asked.map_or(usual, |bytes| bytes as usize);
            u32::try_from(bytes.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX)).expect("the largest is a megabyte")
        };
        let receive = sized(options.recv_buffer, self.config.receive_bytes);
        let send = sized(options.send_buffer, self.config.send_bytes);
        self.cell_of(receive, send)
    }

    /// A closed socket, with buffers of these sizes.
    fn cell_of(&mut self, receive: u32, send: u32) -> Cell {
        match self.spare.pop() {
            Some(cell) if cell.has_sizes(receive, send) => return cell,
            Some(other) => self.arena.retire(other),
            None => {}
        }
        self.arena.cell(receive, send)
    }

    /// Keeps a socket for whoever needs one next, or gives its memory back.
    fn put_away(&mut self, body: Body) {
        let Body::Awake(mut cell) = body else { return };
        if self.spare.len() < self.config.spare_max as usize {
            // Whoever takes it begins anew.
            cell.with_tcp(|tcp| tcp.abort());
            self.spare.push(cell);
        } else {
            self.arena.retire(cell);
        }
    }

    fn list(&mut self, key: Key, hash: u64) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.listed = true;
            self.table.insert(hash, key.slot());
        }
    }

    /// No segment is for it any more.
    fn unlist(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key)
            && std::mem::take(&mut flow.listed)
        {
            self.table.remove(flow.tuple.hash(&self.keys), key.slot());
        }
    }

    /// It may have something to send.
    pub(crate) fn mark(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key)
            && !std::mem::replace(&mut flow.dirty, true)
        {
            self.dirty.push_back(key);
        }
    }

    /// It has something to tell.
    fn tell(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key)
            && flow.phase == Phase::Held
            && !std::mem::replace(&mut flow.news, true)
        {
            self.news.push_back(key);
        }
    }
}

/// An interface that hasn't been used yet. The device is asked for its figures alone.
fn interface(figures: Figures, seed: u64) -> Interface {
    let mut config = InterfaceConfig::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut nowhere =
        Port { packet: None, tx: &mut Nowhere, head: None, mtu: figures.mtu, sink: &mut [], sent: Sent::default() };
    Interface::new(config, &mut nowhere, Instant::ZERO)
}

fn is_half_open(flows: &Slab<Flow>, key: Key) -> bool {
    flows.get(key).is_some_and(|flow| matches!(flow.phase, Phase::HalfOpen(_)))
}

/// Sends a packet whose headers below the transport's are `ip`; `fill` writes the rest.
fn send_packet<T: Transmit>(
    figures: &Figures,
    link: LinkAddress,
    ip: &IpRepr,
    tx: &mut T,
    fill: impl FnOnce(&mut [u8], &ChecksumCapabilities),
) {
    let head = head_for(figures, link, ip.version() == IpVersion::Ipv4);
    let before = head.map_or(0, |head| head.len());
    let checksums = ChecksumCapabilities::default();
    tx.send(before + ip.buffer_len(), |frame| {
        let (front, packet) = frame.split_at_mut(before);
        if let Some(head) = head {
            front.copy_from_slice(&head);
        }
        ip.emit(&mut *packet, &checksums);
        fill(&mut packet[ip.header_len()..], &checksums);
    });
}

fn head_for(figures: &Figures, link: LinkAddress, v4: bool) -> Option<[u8; ETHERNET_BYTES]> {
    figures.address.map(|own| packet::wrap(link, own, v4))
}

/// Notes how far a connection has sent.
fn note_sent(flow: &mut Flow, sent: Sent) {
    let Some(segment) = sent.last else { return };
    (flow.acknowledged, flow.window) = (segment.ack, segment.window);
    if segment.flags.syn() {
        // This one isn't scaled (RFC 7323, 2.2), what is sent like it later is.
        flow.window >>= flow.scale();
        flow.first = segment.seq.wrapping_add(1);
    } else if segment.flags.ack() && (segment.payload > 0 || segment.flags.fin()) {
        flow.end_sent |= segment.flags.fin();
        let end = segment.seq.wrapping_add(segment.payload).wrapping_sub(flow.first);
        // Retransmissions end before.
        if end.wrapping_sub(flow.sent).cast_signed() > 0 {
            flow.sent = end;
        }
    }
}

/// smoltcp's moments.
fn instant(at: Time) -> Instant {
    Instant::from_micros(i64::try_from(at.as_nanos() / 1000).unwrap_or(i64::MAX))
}

fn time(at: Instant) -> Time {
    Time::from_nanos(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000))
}
