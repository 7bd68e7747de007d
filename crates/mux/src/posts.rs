//! Posts: the sockets by which datagrams go to one address of a backend.
//!
//! Each has a port that the kernel chose at random, and goes out of use after so many queries: whoever wants to answer in the backend's
//! place has to guess the port and the id, and has no long while to find a port out (RFC 5452, 9.2). One that is out of use stays
//! until what was sent by it has been answered or given up.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use midmile_engine::{Backend, Cx, DatagramId, DatagramOptions, Key};

use crate::counters::Counters;
use crate::window::Window;

/// Sockets in use, to one address, of one core. More make a port harder to guess, and take memory.
pub(crate) const POSTS: usize = 8;
/// Most sockets for datagrams to one backend of one core: as many as are in use, and as many that were and wait for answers.
pub const SOCKETS_MAX: usize = 2 * POSTS;
/// Queries after which a socket goes out of use.
const QUERIES_MAX: u32 = 10_000;
/// What a datagram that is no answer costs, in queries: somebody may be guessing.
const STRAY_COST: u32 = 100;
/// Bytes that a socket holds until the turn's end: a dozen of the longest queries, hundreds of usual ones.
const OUTBOX_BYTES: u32 = 16 * 1024;
/// Bytes of answers that may wait in the kernel, as far as `net.core.rmem_max` lets them.
const RECV_BUFFER: u32 = 1024 * 1024;

/// Unpredictable numbers, taken from the system a few at a time.
#[derive(Debug, Default)]
pub(crate) struct Lots {
    bytes: [u8; 32],
    left: usize,
}

impl Lots {
    pub(crate) fn draw<B: Backend>(&mut self, cx: &mut Cx<B>) -> u16 {
        if self.left < 2 {
            (self.bytes, self.left) = (cx.entropy(), 32);
        }
        self.left -= 2;
        u16::from_be_bytes([self.bytes[self.left], self.bytes[self.left + 1]])
    }
}

/// To which upstream each socket belongs, by the socket's place in the core.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    places: Vec<Option<(DatagramId, Key)>>,
}

impl Owners {
    /// The upstream that a socket belongs to.
    pub(crate) fn of(&self, socket: DatagramId) -> Option<Key> {
        let (known, upstream) = (*self.places.get(socket.slot() as usize)?)?;
        (known == socket).then_some(upstream)
    }

    fn note(&mut self, socket: DatagramId, upstream: Key) {
        let place = socket.slot() as usize;
        if self.places.len() <= place {
            self.places.resize(place + 1, None);
        }
        self.places[place] = Some((socket, upstream));
    }

    fn forget(&mut self, socket: DatagramId) {
        self.places[socket.slot() as usize] = None;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.places.iter().flatten().count()
    }
}

#[derive(Clone, Copy, Debug)]
struct Post {
    socket: DatagramId,
    /// Queries until it goes out of use; 0: it has gone, or goes at the next look.
    left: u32,
}

/// The sockets of an upstream of datagrams.
#[derive(Debug)]
pub(crate) struct Posts {
    /// Where its datagrams go.
    peer: SocketAddr,
    all: [Option<Post>; SOCKETS_MAX],
    /// Places of those in use. Invariant: each is there.
    current: [u8; POSTS],
    count: usize,
    /// One of those in use has no queries left.
    pub(crate) tired: bool,
    /// How many datagrams may be out.
    pub(crate) window: Window,
}

impl Posts {
    /// None yet, to `peer`.
    pub(crate) const fn new(peer: SocketAddr) -> Self {
        Self { peer, all: [None; SOCKETS_MAX], current: [0; POSTS], count: 0, tired: false, window: Window::FIRST }
    }

    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How many are in use.
    pub(crate) const fn in_use(&self) -> usize {
        self.count
    }

    /// All that are bound, with their places.
    pub(crate) fn bound(&self) -> impl Iterator<Item = (u8, DatagramId)> + '_ {
        let places = (0_u8..).zip(&self.all);
        places.filter_map(|(place, post)| Some((place, post.as_ref()?.socket)))
    }

    /// The socket at a place.
    pub(crate) fn at(&self, place: u8) -> Option<DatagramId> {
        self.all.get(usize::from(place))?.as_ref().map(|post| post.socket)
    }

    /// The place of one of those in use, by lot.
    pub(crate) fn choose(&self, lot: u16) -> Option<u8> {
        // Their number divides that of lots when all are there.
        usize::from(lot).checked_rem(self.count).map(|index| self.current[index])
    }

    /// Takes a query, or a stray answer, off what a socket has left.
    pub(crate) fn spend(&mut self, place: u8, stray: bool) {
        if let Some(Some(post)) = self.all.get_mut(usize::from(place)) {
            let before = post.left;
            post.left = before.saturating_sub(if stray { STRAY_COST } else { 1 });
            self.tired |= before > 0 && post.left == 0;
        }
    }

    /// The place of a socket.
    pub(crate) fn place_of(&self, socket: DatagramId) -> Option<u8> {
        self.bound().find(|(_, other)| *other == socket).map(|(place, _)| place)
    }

    /// Binds a socket more, and puts it to use in place of one with no queries left, if there is one. False if none could be had, or there
    /// is no room until an old one has gone.
    pub(crate) fn bind<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        owners: &mut Owners,
        counters: &Counters,
        upstream: Key,
    ) -> bool {
        let Some(free) = self.all.iter().position(Option::is_none) else { return false };
        let at: SocketAddr = match self.peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let (recv_buffer, peer) = (Some(RECV_BUFFER), Some(self.peer));
        let options = DatagramOptions { recv_buffer, peer, outbox_bytes: OUTBOX_BYTES, ..DatagramOptions::default() };
        let Ok(socket) = cx.bind(at, &options) else {
            counters.binds_failed.add(1);
            return false;
        };
        counters.sockets_open.add(1);
        owners.note(socket, upstream);
        self.all[free] = Some(Post { socket, left: QUERIES_MAX });
        let index = self.spent().unwrap_or(self.count);
        self.current[index] = u8::try_from(free).expect("there are few");
        self.count = self.count.max(index + 1);
        true
    }

    /// Which of those in use has no queries left.
    fn spent(&self) -> Option<usize> {
        let is_spent = |place: &u8| self.all[usize::from(*place)].is_some_and(|post| post.left == 0);
        self.current[..self.count].iter().position(is_spent)
    }

    /// Binds others for those with no queries left, and for those that couldn't be had before.
    pub(crate) fn renew<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        owners: &mut Owners,
        counters: &Counters,
        upstream: Key,
    ) {
        self.tired = false;
        while (self.count < POSTS || self.spent().is_some()) && self.bind(cx, owners, counters, upstream) {}
    }

    /// Lets sockets go that are out of use, and by which nothing is out any more.
    pub(crate) fn retire<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        owners: &mut Owners,
        counters: &Counters,
        uses: impl Fn(u8) -> bool,
    ) {
        for place in (0_u8..).take(SOCKETS_MAX) {
            if !self.current[..self.count].contains(&place) && !uses(place) {
                self.unbind(cx, owners, counters, place);
            }
        }
    }

    /// Lets all go.
    pub(crate) fn unbind_all<B: Backend>(&mut self, cx: &mut Cx<B>, owners: &mut Owners, counters: &Counters) {
        self.count = 0;
        for place in (0_u8..).take(SOCKETS_MAX) {
            self.unbind(cx, owners, counters, place);
        }
    }

    fn unbind<B: Backend>(&mut self, cx: &mut Cx<B>, owners: &mut Owners, counters: &Counters, place: u8) {
        if let Some(Post { socket, .. }) = self.all[usize::from(place)].take() {
            counters.sockets_open.sub(1);
            owners.forget(socket);
            cx.unbind(socket);
        }
    }
}
