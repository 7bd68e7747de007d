//! Datagrams: bound sockets' queues, and who is reached by which neighbour.
//!
//! smoltcp has no part in it but its formats. A datagram goes in one packet or not at all: fragments are the kernel's on their way in,
//! and what is longer than the link carries isn't sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use midmile_engine::backend::{Ready, Tag};
use midmile_engine::datagram::{Arrival, Inbox, hears};
use midmile_engine::{Flow, Time};
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, UdpPacket, UdpRepr};

use super::bare::HOPS;
use super::packet::{self, Datagram};
use super::{Net, send_packet};
use crate::link::{LinkAddress, Transmit};

/// Sockets at once.
pub(crate) const MAILBOXES_MAX: usize = 64;
/// Packets that a socket's queue holds: at least, and where nothing is asked for.
const QUEUE_MIN: usize = 16;
const QUEUE_USUAL: usize = 512;
const QUEUE_MAX: usize = 16_384;
/// Bytes of a UDP header (RFC 768).
const UDP_BYTES: usize = 8;
/// Neighbours that are remembered, a power of two.
const NEIGHBOURS: usize = 1024;
/// How long: as the kernel does it, at least (`base_reachable_time_ms`).
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(15);

/// A socket: where it's bound, and what has come and hasn't been read.
#[derive(Debug)]
pub(crate) struct Mailbox {
    at: SocketAddr,
    tag: Option<Tag>,
    /// False once the program has dropped it.
    open: Arc<AtomicBool>,
    /// Rooms for a packet's payload each, of which `len` from `first` on are in use: a ring.
    bytes: Box<[u8]>,
    letters: Box<[Letter]>,
    first: usize,
    len: usize,
    /// Something came, and nobody has been told.
    came: bool,
    owes_room: bool,
}

/// What is in a room.
#[derive(Clone, Copy, Debug)]
struct Letter {
    flow: Flow,
    len: usize,
}

/// Who reaches an address, from what came from there.
#[derive(Clone, Copy, Debug)]
struct Neighbour {
    ip: IpAddr,
    link: LinkAddress,
    heard: Time,
}

/// All sockets for datagrams.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    mailboxes: Vec<Mailbox>,
    /// Each address has one place; made with the first socket.
    neighbours: Box<[Option<Neighbour>]>,
}

/// Why a socket can't be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unbound {
    InUse,
    /// An address or a port that the stack wasn't given.
    NotGiven,
    TooMany,
}

/// What became of a datagram that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    Gone,
    /// The link has no room.
    Full,
    /// It's longer than the link carries.
    TooLong,
    /// There's no such way.
    Unreachable,
}

impl Mailbox {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn room(&self) -> usize {
        self.bytes.len() / self.letters.len()
    }

    /// Whether what came to `local` is its.
    fn hears(&self, local: SocketAddr) -> bool {
        self.at.port() == local.port() && hears(self.at.ip(), local.ip()) && self.is_open()
    }

    /// Whether it would hear what a socket at `at` would.
    fn is_in_the_way_of(&self, at: SocketAddr) -> bool {
        self.hears(at) || (self.at.port() == at.port() && hears(at.ip(), self.at.ip()) && self.is_open())
    }

    /// Keeps a datagram; false where there's no room.
    fn put(&mut self, flow: Flow, payload: &[u8]) -> bool {
        let (room, place) = (self.room(), (self.first + self.len) % self.letters.len());
        if self.len == self.letters.len() || payload.len() > room {
            return false;
        }
        self.bytes[place * room..][..payload.len()].copy_from_slice(payload);
        self.letters[place] = Letter { flow, len: payload.len() };
        self.len += 1;
        self.came = true;
        true
    }
}

impl Net {
    /// Binds a socket, for as long as `open` says, with room for about `recv_bytes`.
    pub(crate) fn bind(
        &mut self,
        at: SocketAddr,
        recv_bytes: Option<u32>,
        open: Arc<AtomicBool>,
    ) -> Result<(usize, SocketAddr), Unbound> {
        let is_given = |port: u16| self.config.datagram_ports.iter().any(|ports| ports.contains(&port));
        let is_free = |port: u16| {
            let at = SocketAddr::new(at.ip(), port);
            !self.mail.mailboxes.iter().any(|mailbox| mailbox.is_in_the_way_of(at))
        };
        if !at.ip().is_unspecified() && !self.config.addresses.contains(&at.ip()) {
            return Err(Unbound::NotGiven);
        }
        let port = match at.port() {
            0 => self.config.datagram_ports.iter().cloned().flatten().find(|port| *port != 0 && is_free(*port)),
            port if is_given(port) && is_free(port) => Some(port),
            port if is_given(port) => return Err(Unbound::InUse),
            _ => None,
        };
        let at = SocketAddr::new(at.ip(), port.ok_or(Unbound::NotGiven)?);
        let room = self.figures.mtu;
        let count = recv_bytes.map_or(QUEUE_USUAL, |bytes| bytes as usize / room).clamp(QUEUE_MIN, QUEUE_MAX);
        let nothing = Letter { flow: Flow::to(at), len: 0 };
        let mailbox = Mailbox {
            at,
            tag: None,
            open,
            bytes: vec![0; count * room].into_boxed_slice(),
            letters: vec![nothing; count].into_boxed_slice(),
            first: 0,
            len: 0,
            came: false,
            owes_room: false,
        };
        if self.mail.neighbours.is_empty() {
            self.mail.neighbours = vec![None; NEIGHBOURS].into_boxed_slice();
        }
        let mailboxes = &mut self.mail.mailboxes;
        if let Some(place) = mailboxes.iter().position(|mailbox| !mailbox.is_open()) {
            mailboxes[place] = mailbox;
            return Ok((place, at));
        }
        if mailboxes.len() == MAILBOXES_MAX {
            return Err(Unbound::TooMany);
        }
        mailboxes.push(mailbox);
        Ok((mailboxes.len() - 1, at))
    }

    pub(crate) fn watch_mailbox(&mut self, index: usize, tag: Tag) {
        let mailbox = &mut self.mail.mailboxes[index];
        mailbox.tag = Some(tag);
        mailbox.came = mailbox.len > 0;
    }

    /// Takes a packet that is no segment.
    pub(super) fn handle_datagram(&mut self, link: LinkAddress, packet: &[u8]) {
        let Some(Datagram { peer, local, payload }) = packet::parse_datagram(packet, self.figures.verifies) else {
            self.gauges.malformed += 1;
            return;
        };
        let ours = self.is_ours(local) && packet::Tuple::new(peer, local).is_between_hosts();
        let found = self.mail.mailboxes.iter_mut().find(|mailbox| ours && mailbox.hears(local));
        let Some(mailbox) = found else {
            self.gauges.strangers += 1;
            return;
        };
        if !mailbox.put(Flow { peer, local: Some(local.ip()) }, payload) {
            self.gauges.datagrams_full += 1;
        }
        self.learn(peer.ip(), link);
    }

    /// Moves what came into `inbox`.
    pub(crate) fn recv_datagrams(&mut self, index: usize, inbox: &mut Inbox) -> Arrival {
        let mailbox = &mut self.mail.mailboxes[index];
        let room = mailbox.room();
        while mailbox.len > 0 {
            let Letter { flow, len } = mailbox.letters[mailbox.first];
            if !inbox.push(flow, &mailbox.bytes[mailbox.first * room..][..len]) {
                return Arrival::More;
            }
            mailbox.first = (mailbox.first + 1) % mailbox.letters.len();
            mailbox.len -= 1;
        }
        Arrival::Last
    }

    /// The neighbour by whom `to` is reached, if it's known.
    pub(crate) fn neighbour(&self, to: IpAddr) -> Option<LinkAddress> {
        let known = self.mail.neighbours.get(place_of(to))?.as_ref()?;
        (known.ip == to && self.now.since(known.heard) < REMEMBERED).then_some(known.link)
    }

    /// Remembers who reaches an address.
    pub(crate) fn learn(&mut self, ip: IpAddr, link: LinkAddress) {
        if let Some(place) = self.mail.neighbours.get_mut(place_of(ip)) {
            *place = Some(Neighbour { ip, link, heard: self.now });
        }
    }

    /// Sends a datagram by the neighbour `link`, from the flow's address or from `source`.
    pub(crate) fn post<T: Transmit>(
        &mut self,
        index: usize,
        flow: Flow,
        payload: &[u8],
        link: LinkAddress,
        source: Option<IpAddr>,
        tx: &mut T,
    ) -> Posted {
        let at = self.mail.mailboxes[index].at;
        let to = SocketAddr::new(flow.peer.ip().to_canonical(), flow.peer.port());
        let bound = Some(at.ip()).filter(|ip| !ip.is_unspecified());
        let Some(from) = bound.or(flow.local.map(|ip| ip.to_canonical())).or(source) else {
            return Posted::Unreachable;
        };
        let between = packet::Tuple::new(to, SocketAddr::new(from, at.port()));
        if from.is_ipv4() != to.is_ipv4() || !self.config.addresses.contains(&from) || !between.is_between_hosts() {
            return Posted::Unreachable;
        }
        if !tx.has_room() {
            self.mail.mailboxes[index].owes_room = true;
            return Posted::Full;
        }
        let (source, destination) = (IpAddress::from(from), IpAddress::from(to.ip()));
        let ip = IpRepr::new(source, destination, IpProtocol::Udp, UDP_BYTES + payload.len(), HOPS);
        if ip.buffer_len() > self.figures.mtu {
            return Posted::TooLong;
        }
        let udp = UdpRepr { src_port: at.port(), dst_port: to.port() };
        send_packet(&self.figures, link, &ip, tx, |room, checksums| {
            let fill = |room: &mut [u8]| room.copy_from_slice(payload);
            udp.emit(&mut UdpPacket::new_unchecked(room), &source, &destination, payload.len(), fill, checksums);
        });
        Posted::Gone
    }

    /// Whether a program awaits room for datagrams.
    pub(crate) fn awaits_mail_room(&self) -> bool {
        self.mail.mailboxes.iter().any(|mailbox| mailbox.owes_room && mailbox.is_open())
    }

    /// Whether something of a mailbox is to be told.
    pub(crate) fn has_mail(&self) -> bool {
        self.mail.mailboxes.iter().any(|mailbox| mailbox.came && mailbox.tag.is_some() && mailbox.is_open())
    }

    /// Tells of what came, and of room if there's some; says of how many mailboxes.
    pub(crate) fn gather_mail(&mut self, has_room: bool) -> usize {
        let mut count = 0;
        for index in 0..self.mail.mailboxes.len() {
            let mailbox = &mut self.mail.mailboxes[index];
            let Some(tag) = mailbox.tag.filter(|_| mailbox.is_open()) else { continue };
            let readable = std::mem::take(&mut mailbox.came);
            let writable = has_room && std::mem::take(&mut mailbox.owes_room);
            if readable || writable {
                count += 1;
                self.add_event(Ready { tag, readable, writable, peer_finished: false, failed: false });
            }
        }
        count
    }
}

/// An address's place among the neighbours. Whoever makes two collide costs them a look at the kernel's tables, no more.
fn place_of(ip: IpAddr) -> usize {
    let bits = match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let folded = bits ^ bits >> 64 ^ bits >> 32;
    usize::try_from((folded ^ folded >> 10) & (NEIGHBOURS as u128 - 1)).expect("the mask is small")
}
