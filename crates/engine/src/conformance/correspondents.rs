//! Sockets for datagrams and the peers that write to them: what they're to do, and whether what came is what was sent.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::datagram_story::DatagramStory;
use super::stage::Stage;
use super::world::{Posting, World};
use crate::datagram::{DatagramCounts, DatagramId, DatagramOptions, Flow};

/// Room for what a case has wait, in bytes; the system may give less.
const ROOM: u32 = 2_000_000;

/// What sockets of cases are bound with.
pub const ROOMY: DatagramOptions = DatagramOptions {
    recv_buffer: Some(ROOM),
    send_buffer: None,
    shared: false,
    coalesce: true,
    peer: None,
    outbox_bytes: 128 * 1024,
};

/// A peer of a stage that talks by datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrespondentId(usize);

/// A datagram, or several in one piece, that a peer is to send.
struct Letter {
    to: SocketAddr,
    bytes: Vec<u8>,
    segment: Option<u16>,
}

/// A datagram that a peer has sent.
struct Posted {
    to: SocketAddr,
    bytes: Vec<u8>,
    /// The program was told of it.
    told: bool,
}

/// What a peer does, and what it has seen.
pub(super) struct Correspondence<C> {
    peer: C,
    at: SocketAddr,
    to_post: VecDeque<Letter>,
    posted: Vec<Posted>,
    /// Those that are too long for it to send.
    too_long: usize,
    /// What came to it, and from where.
    collected: Vec<(SocketAddr, Vec<u8>)>,
    /// How far that was held against what sockets were given.
    compared: usize,
    /// Where order is kept: up to where each socket was told, and up to where each socket's datagrams came.
    told_before: HashMap<DatagramId, usize>,
    came_before: HashMap<DatagramId, usize>,
}

impl<C> Correspondence<C> {
    /// A number that moves when something happens.
    pub(super) fn progress(&self) -> usize {
        self.posted.len() + self.collected.len()
    }

    /// Marks the datagram that a socket was told of; false if there's none such left.
    fn mark_told(&mut self, socket: DatagramId, to: SocketAddr, bytes: &[u8], in_order: bool) -> bool {
        let from = if in_order { self.told_before.get(&socket).copied().unwrap_or(0) } else { 0 };
        let same = |posted: &Posted| !posted.told && posted.to == to && posted.bytes == bytes;
        let Some(at) = self.posted[from..].iter().position(same) else { return false };
        self.posted[from + at].told = true;
        self.told_before.insert(socket, from + at + 1);
        true
    }

    /// Marks the datagram of a socket's that came; false if there's none such left.
    fn mark_arrived(&mut self, socket: DatagramId, story: &mut DatagramStory, in_order: bool) -> bool {
        let (from, bytes) = &self.collected[self.compared];
        if story.at.port() != from.port() {
            return false;
        }
        let bound = Some(story.at.ip()).filter(|ip| !ip.is_unspecified());
        let leaves_by = |local: Option<IpAddr>| bound.or(local).is_none_or(|ip| ip == from.ip());
        let before = if in_order { self.came_before.get(&socket).copied().unwrap_or(0) } else { 0 };
        let found = story.handed[before..].iter().position(|handed| {
            !handed.arrived && handed.flow.peer == self.at && leaves_by(handed.flow.local) && handed.bytes == *bytes
        });
        let Some(at) = found else { return false };
        story.handed[before + at].arrived = true;
        self.came_before.insert(socket, before + at + 1);
        true
    }
}

impl<W: World> Stage<'_, W> {
    // Engine's side.

    /// The core's first address for sockets for datagrams.
    pub fn datagram_home(&self) -> IpAddr {
        self.world.datagram_addrs()[0]
    }

    /// A socket at any free port of the core's first address.
    pub fn bind(&mut self) -> DatagramId {
        let at = SocketAddr::new(self.datagram_home(), 0);
        self.bind_at(at, &ROOMY).expect("there's a free port")
    }

    /// A socket at `at`.
    ///
    /// # Errors
    /// As [`Cx::bind`](crate::Cx::bind).
    pub fn bind_at(&mut self, at: SocketAddr, options: &DatagramOptions) -> io::Result<DatagramId> {
        let (record, cx) = self.parts();
        let socket = cx.bind(at, options)?;
        let bound = cx.datagram_addr(socket).expect("it was bound just now");
        assert!(bound.ip() == at.ip() && (at.port() == 0 || bound.port() == at.port()), "{bound} isn't {at}");
        assert_ne!(bound.port(), 0, "a bound socket has a port");
        record.bound(socket, bound);
        Ok(socket)
    }

    /// Lets a socket go.
    pub fn unbind(&mut self, socket: DatagramId) {
        let (record, cx) = self.parts();
        record.unbound(socket);
        cx.unbind(socket);
    }

    /// Where peers reach a socket: at its address, or the core's first one.
    pub fn reached_at(&mut self, socket: DatagramId) -> SocketAddr {
        let at = self.cx().datagram_addr(socket).expect("it's bound");
        if at.ip().is_unspecified() { SocketAddr::new(self.datagram_home(), at.port()) } else { at }
    }

    /// Sends a datagram for which there's room.
    pub fn send_to(&mut self, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        let (record, cx) = self.parts();
        record.send_to(cx, socket, flow, bytes).expect("there's room");
    }

    /// What became of a socket's datagrams.
    pub fn counts(&mut self, socket: DatagramId) -> DatagramCounts {
        self.cx().datagram_counts(socket)
    }

    // Peers' side.

    /// A peer that talks by datagrams.
    pub fn correspondent(&mut self) -> CorrespondentId {
        let (peer, at) = self.world.correspondent(self.core.parts().1.backend());
        self.correspondents.push(Correspondence {
            peer,
            at,
            to_post: VecDeque::new(),
            posted: Vec::new(),
            too_long: 0,
            collected: Vec::new(),
            compared: 0,
            told_before: HashMap::new(),
            came_before: HashMap::new(),
        });
        CorrespondentId(self.correspondents.len() - 1)
    }

    /// A peer, after it has written to the socket and has had an answer: both hosts know by then where the other is. And its flow.
    pub fn acquainted(&mut self, socket: DatagramId) -> (CorrespondentId, Flow) {
        let peer = self.correspondent();
        let (told, at) = (self.record().told(socket).len(), self.reached_at(socket));
        self.post(peer, at, b"are you there?");
        self.until_told(socket, told + 1);
        let flow = self.record().told(socket)[told].0;
        if !self.record().echoes {
            self.send_to(socket, flow, b"are you there?");
        }
        self.until_collected(peer, 1);
        (peer, flow)
    }

    /// Where the peer is.
    #[must_use]
    pub fn seat_of(&self, peer: CorrespondentId) -> SocketAddr {
        self.correspondents[peer.0].at
    }

    /// The peer sends a datagram, after what it has to send already.
    pub fn post(&mut self, peer: CorrespondentId, to: SocketAddr, bytes: &[u8]) {
        self.correspondents[peer.0].to_post.push_back(Letter { to, bytes: bytes.to_vec(), segment: None });
        self.step_correspondent(peer.0);
    }

    /// The peer sends datagrams of `segment` bytes, of which the last may be shorter: in one piece, where the world can do that.
    pub fn post_as_one(&mut self, peer: CorrespondentId, to: SocketAddr, bytes: &[u8], segment: u16) {
        if self.world.cuts_up() {
            let letter = Letter { to, bytes: bytes.to_vec(), segment: Some(segment) };
            self.correspondents[peer.0].to_post.push_back(letter);
            self.step_correspondent(peer.0);
        } else {
            for piece in bytes.chunks(segment.into()) {
                self.post(peer, to, piece);
            }
        }
    }

    /// How many datagrams the peer has sent, those that were too long for it not counted.
    #[must_use]
    pub fn posted(&self, peer: CorrespondentId) -> usize {
        self.correspondents[peer.0].posted.len()
    }

    /// How many datagrams were too long for the peer to send.
    #[must_use]
    pub fn too_long(&self, peer: CorrespondentId) -> usize {
        self.correspondents[peer.0].too_long
    }

    /// What came to the peer, and from where, in order.
    #[must_use]
    pub fn collected(&self, peer: CorrespondentId) -> &[(SocketAddr, Vec<u8>)] {
        &self.correspondents[peer.0].collected
    }

    /// Takes turns until the socket has told `count` datagrams in all.
    pub fn until_told(&mut self, socket: DatagramId, count: usize) {
        self.until("so many datagrams are told", |stage| stage.record().told(socket).len() >= count);
        assert_eq!(self.record().told(socket).len(), count, "more datagrams than were sent\n{}", self.tell());
    }

    /// Takes turns until `count` datagrams in all have come to the peer.
    pub fn until_collected(&mut self, peer: CorrespondentId, count: usize) {
        self.until("so many datagrams come to the peer", |stage| stage.collected(peer).len() >= count);
        assert_eq!(self.collected(peer).len(), count, "more datagrams than were sent\n{}", self.tell());
    }

    /// Asserts that each datagram that the socket was given is accounted for, and says how many were sent.
    pub fn expect_accounted(&mut self, socket: DatagramId) -> u64 {
        let (handed, counts) = (self.record().handed(socket), self.counts(socket));
        assert_eq!(counts.sent + counts.exhausted + counts.failed, handed as u64, "{counts:?}");
        counts.sent
    }

    // Within.

    /// Lets all peers do what they can. Says whether that was anything.
    pub(super) fn step_correspondents(&mut self) -> bool {
        let mut lively = false;
        for index in 0..self.correspondents.len() {
            lively |= self.step_correspondent(index);
        }
        self.compare_told();
        self.compare_collected();
        lively
    }

    fn step_correspondent(&mut self, index: usize) -> bool {
        let backend = self.core.parts().1.backend();
        let Correspondence { peer, to_post, posted, too_long, collected, .. } = &mut self.correspondents[index];
        let before = (posted.len(), collected.len());
        while let Some(Letter { to, bytes, segment }) = to_post.front() {
            match self.world.post(backend, peer, *to, bytes, *segment) {
                Posting::NotNow => break,
                Posting::TooLong => *too_long += 1,
                Posting::Gone => {
                    let len = segment.map_or(bytes.len(), usize::from).max(1);
                    let pieces = bytes.chunks(len).map(<[u8]>::to_vec);
                    let empty = bytes.is_empty().then(Vec::new);
                    posted.extend(pieces.chain(empty).map(|bytes| Posted { to: *to, bytes, told: false }));
                }
            }
            to_post.pop_front();
        }
        while let Some((len, from)) = self.world.collect(backend, peer, &mut self.buffer) {
            collected.push((from, self.buffer[..len].to_vec()));
        }
        (posted.len(), collected.len()) != before
    }

    /// Holds what the program was told against what peers have sent: to the byte, to where it came, none twice, and in order.
    fn compare_told(&mut self) {
        let in_order = self.world.keeps_order();
        let record = &mut self.core.parts().0.record;
        for (socket, story) in &mut record.sockets {
            for (flow, bytes) in &story.told[story.compared..] {
                let sender = self.correspondents.iter_mut().find(|sender| sender.at == flow.peer);
                let Some(sender) = sender else { panic!("a datagram of {}, which is nobody", flow.peer) };
                let Some(local) = flow.local else { panic!("a datagram that came to no address") };
                let known = sender.mark_told(*socket, SocketAddr::new(local, story.at.port()), bytes, in_order);
                let (len, peer) = (bytes.len(), flow.peer);
                assert!(known, "a datagram of {len} bytes that {peer} didn't send to {local}, or not now");
            }
            story.compared = story.told.len();
        }
    }

    /// Holds what came to peers against what sockets were given: to the byte, from where it was to leave, none twice, and in order.
    fn compare_collected(&mut self) {
        let in_order = self.world.keeps_order();
        let record = &mut self.core.parts().0.record;
        for peer in &mut self.correspondents {
            while let Some((from, bytes)) = peer.collected.get(peer.compared) {
                let (from, len) = (*from, bytes.len());
                let known =
                    record.sockets.iter_mut().any(|(socket, story)| peer.mark_arrived(*socket, story, in_order));
                assert!(
                    known,
                    "a datagram of {len} bytes from {from} that no socket was to send from there, or not now"
                );
                peer.compared += 1;
            }
        }
    }
}
