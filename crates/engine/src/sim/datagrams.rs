//! Datagrams in the seeded world: lost, doubled, late and out of order, as its [`Weather`] says.
//!
//! What the program sends to an address at which it has no socket itself is kept for the test to look at; what strangers send comes by
//! [`Sim::post`]. A socket with one peer hears others all the same, so that programs look. Batches are partial both ways, a socket has room for so many on their way, and its queue drops what it can't hold.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::world::{Event, Sim};
use crate::backend::{Progress, Ready, Tag, Transfer};
use crate::datagram::{Arrival, DATAGRAM_BYTES_MAX, DatagramBackend, DatagramOptions, Departures, Flow, Inbox, hears};
use crate::error::ConnError;

/// The first port that is given to those who don't ask for one.
const FIRST_PORT: u16 = 49_152;

/// Bytes of a socket's buffer that a datagram takes, however short it is.
const LETTER_BYTES: usize = 1500;

/// What happens to datagrams on their way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One in so many is lost; 0: none.
    pub lost_one_in: usize,
    /// One in so many comes twice; 0: none.
    pub doubled_one_in: usize,
    /// The longest that one is on its way. Each takes its own time, so they overtake one another.
    pub delay_max: Duration,
    /// Datagrams that a socket's queue holds; what comes beyond is lost. A socket's `recv_buffer` may hold fewer.
    pub queue_max: usize,
    /// Datagrams of a socket that may be on their way; beyond it's full.
    pub room: usize,
    /// Bytes of the longest datagram that a way carries, and that a socket has room for: longer ones can't be sent, and count as
    /// truncated when they come.
    pub bytes_max: usize,
}

impl Default for Weather {
    fn default() -> Self {
        let delay_max = Duration::from_millis(1);
        let bytes_max = DATAGRAM_BYTES_MAX;
        Self { lost_one_in: 0, doubled_one_in: 0, delay_max, queue_max: 1000, room: 100, bytes_max }
    }
}

/// A bound socket. Dropping it closes it.
#[derive(Debug)]
pub struct SimDatagramSocket {
    index: usize,
    open: Rc<Cell<bool>>,
}

impl Drop for SimDatagramSocket {
    fn drop(&mut self) {
        self.open.set(false);
    }
}

/// The world's side of a socket.
#[derive(Debug)]
struct Mailbox {
    at: SocketAddr,
    tag: Option<Tag>,
    queue: VecDeque<(Flow, Vec<u8>)>,
    /// What its own buffer holds.
    queue_max: usize,
    /// What came and found no room.
    overflown: u64,
    open: Rc<Cell<bool>>,
    /// It's told of its datagrams that nobody takes, as a socket with one peer is, and hasn't been of the last.
    has_peer: bool,
    refused: bool,
    /// Datagrams of its own on their way.
    away: usize,
    owes_room: bool,
    /// Edges that the program hasn't heard of.
    came: bool,
    room_came: bool,
}

/// A datagram on its way.
#[derive(Clone, Debug)]
struct Letter {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
    /// The mailbox that it left, unless it comes from outside or is a double.
    sender: Option<usize>,
}

/// All datagrams and their sockets.
#[derive(Debug, Default)]
pub(super) struct Mail {
    weather: Weather,
    mailboxes: Vec<Mailbox>,
    letters: Vec<Option<Letter>>,
    outside: BTreeMap<SocketAddr, Vec<(SocketAddr, Vec<u8>)>>,
    /// Where nobody is bound, and the host says so.
    unbound: BTreeSet<SocketAddr>,
    /// The program's own addresses: those that it bound a socket to, and those that something came to.
    own: Vec<IpAddr>,
}

impl Mail {
    /// Whether the program hasn't heard of everything yet.
    pub(super) fn has_news(&self) -> bool {
        self.mailboxes.iter().any(|mailbox| mailbox.open.get() && (mailbox.came || mailbox.room_came))
    }

    /// Adds the events that are due.
    pub(super) fn gather(&mut self, batch: &mut Vec<Ready>) {
        for mailbox in self.mailboxes.iter_mut().filter(|mailbox| mailbox.open.get()) {
            let Some(tag) = mailbox.tag else { continue };
            let (readable, writable) = (std::mem::take(&mut mailbox.came), std::mem::take(&mut mailbox.room_came));
            if readable || writable {
                batch.push(Ready { tag, readable, writable, peer_finished: false, failed: false });
            }
        }
    }

    /// The open mailbox that what goes `to` comes to.
    fn find(&self, to: SocketAddr) -> Option<usize> {
        self.mailboxes.iter().position(|mailbox| {
            let at = mailbox.at;
            mailbox.open.get() && at.port() == to.port() && hears(at.ip(), to.ip())
        })
    }

    /// Whether somebody is bound who would hear what a socket at `at` hears.
    fn is_taken(&self, at: SocketAddr) -> bool {
        self.mailboxes.iter().filter(|mailbox| mailbox.open.get()).any(|mailbox| {
            let other = mailbox.at;
            other.port() == at.port() && (hears(other.ip(), at.ip()) || hears(at.ip(), other.ip()))
        })
    }

    /// Notes that an address is the program's.
    fn own(&mut self, ip: IpAddr) {
        if !ip.is_unspecified() && !self.own.contains(&ip) {
            self.own.push(ip);
        }
    }

    /// Why a datagram of a socket at `at` can't go.
    fn refuses(&self, at: SocketAddr, flow: Flow, bytes: &[u8]) -> Option<ConnError> {
        if bytes.len() > self.weather.bytes_max {
            return Some(Errno::MSGSIZE.into());
        }
        let strange = at.ip().is_unspecified() && flow.local.is_some_and(|ip| !self.own.contains(&ip));
        strange.then_some(ConnError::Unreachable)
    }
}

impl Sim {
    /// Has datagrams fare like this from now on.
    pub const fn set_weather(&mut self, weather: Weather) {
        self.mail.weather = weather;
    }

    /// A stranger sends a datagram after `wait`, at `from`, to the program's socket at `to`.
    pub fn post(&mut self, wait: Duration, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.send_off(wait, Letter { from, to, bytes, sender: None });
    }

    /// The datagrams that strangers at `at` have got from the program, and from which address, as they came.
    #[must_use]
    pub fn posted(&self, at: SocketAddr) -> &[(SocketAddr, Vec<u8>)] {
        self.mail.outside.get(&at).map_or(&[], Vec::as_slice)
    }

    /// From now on strangers at `at` are there, or aren't: then sockets with that peer hear of it (ICMP, port unreachable), and nothing
    /// is kept.
    pub fn set_bound(&mut self, at: SocketAddr, bound: bool) {
        if bound {
            self.mail.unbound.remove(&at);
        } else {
            self.mail.unbound.insert(at);
        }
    }

    /// How many datagrams were dropped because the queue of the socket at `at` was full.
    #[must_use]
    pub fn overflown(&self, at: SocketAddr) -> u64 {
        self.mail.find(at).map_or(0, |index| self.mail.mailboxes[index].overflown)
    }

    fn send_off(&mut self, wait: Duration, letter: Letter) {
        let Weather { lost_one_in, doubled_one_in, delay_max, .. } = self.mail.weather;
        let lost = lost_one_in > 0 && self.rng.one_in(lost_one_in);
        let doubled = !lost && doubled_one_in > 0 && self.rng.one_in(doubled_one_in);
        if doubled {
            self.put_on_the_way(wait, delay_max, Letter { sender: None, ..letter.clone() });
        }
        // One that is lost still takes its room for a while.
        let letter = if lost { Letter { to: SocketAddr::new(letter.to.ip(), 0), ..letter } } else { letter };
        self.put_on_the_way(wait, delay_max, letter);
    }

    fn put_on_the_way(&mut self, wait: Duration, delay_max: Duration, letter: Letter) {
        let micros = self.rng.up_to(usize::try_from(delay_max.as_micros()).unwrap_or(usize::MAX - 1));
        self.mail.letters.push(Some(letter));
        let letter = self.mail.letters.len() - 1;
        self.schedule(wait + Duration::from_micros(micros as u64), Event::Letter { letter });
    }

    /// A datagram arrives.
    pub(super) fn hand_in(&mut self, letter: usize) {
        let Some(Letter { from, to, bytes, sender }) = self.mail.letters[letter].take() else { return };
        if let Some(mailbox) = sender.map(|sender| &mut self.mail.mailboxes[sender]) {
            mailbox.away -= 1;
            mailbox.room_came |= std::mem::take(&mut mailbox.owes_room);
            if mailbox.has_peer && self.mail.unbound.contains(&to) {
                (mailbox.refused, mailbox.came) = (true, true);
            }
        }
        if to.port() == 0 || self.mail.unbound.contains(&to) {
            return;
        }
        match self.mail.find(to) {
            None => self.mail.outside.entry(to).or_default().push((from, bytes)),
            Some(index) => {
                self.mail.own(to.ip());
                let mailbox = &mut self.mail.mailboxes[index];
                if mailbox.queue.len() < self.mail.weather.queue_max.min(mailbox.queue_max) {
                    mailbox.queue.push_back((Flow { peer: from, local: Some(to.ip()) }, bytes));
                    mailbox.came = true;
                } else {
                    mailbox.overflown += 1;
                }
            }
        }
    }
}

impl DatagramBackend for Sim {
    type DatagramSocket = SimDatagramSocket;

    fn bind(&mut self, at: SocketAddr, options: &DatagramOptions) -> io::Result<(SimDatagramSocket, SocketAddr)> {
        let taken = |port| self.mail.is_taken(SocketAddr::new(at.ip(), port));
        let port = match at.port() {
            0 => (FIRST_PORT..).find(|port| !taken(*port)).ok_or(io::ErrorKind::AddrInUse)?,
            port if taken(port) => return Err(io::ErrorKind::AddrInUse.into()),
            port => port,
        };
        let (at, open) = (SocketAddr::new(at.ip(), port), Rc::new(Cell::new(true)));
        self.mail.own(at.ip());
        self.mail.mailboxes.push(Mailbox {
            at,
            tag: None,
            queue: VecDeque::new(),
            queue_max: options.recv_buffer.map_or(usize::MAX, |bytes| (bytes as usize / LETTER_BYTES).max(1)),
            overflown: 0,
            open: open.clone(),
            has_peer: options.peer.is_some(),
            refused: false,
            away: 0,
            owes_room: false,
            came: false,
            room_came: false,
        });
        Ok((SimDatagramSocket { index: self.mail.mailboxes.len() - 1, open }, at))
    }

    fn watch_datagrams(&mut self, socket: &mut SimDatagramSocket, tag: Tag) -> io::Result<()> {
        if self.faults && self.rng.one_in(200) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let mailbox = &mut self.mail.mailboxes[socket.index];
        mailbox.tag = Some(tag);
        mailbox.came = !mailbox.queue.is_empty();
        Ok(())
    }

    fn recv_datagrams(&mut self, socket: &mut SimDatagramSocket, inbox: &mut Inbox) -> Result<Arrival, ConnError> {
        let mailbox = &mut self.mail.mailboxes[socket.index];
        if std::mem::take(&mut mailbox.refused) {
            mailbox.came = true;
            return Err(ConnError::Refused);
        }
        if self.faults && self.rng.one_in(50) {
            mailbox.came = true;
            return Err(ConnError::Exhausted);
        }
        for _ in 0..self.rng.up_to(mailbox.queue.len()) {
            let Some((flow, bytes)) = mailbox.queue.front() else { break };
            if bytes.len() > self.mail.weather.bytes_max || (self.faults && self.rng.one_in(100)) {
                inbox.note_truncated();
            } else if !inbox.push(*flow, bytes) {
                break;
            }
            mailbox.queue.pop_front();
        }
        // That it's empty may show only when it's asked again.
        let last = mailbox.queue.is_empty() && !self.rng.one_in(4);
        Ok(if last { Arrival::Last } else { Arrival::More })
    }

    fn send_datagrams(&mut self, socket: &mut SimDatagramSocket, batch: &Departures<'_>) -> Transfer {
        if self.faults && self.rng.one_in(50) {
            return Err(if self.rng.one_in(2) { ConnError::Exhausted } else { ConnError::Unreachable });
        }
        let (mail, mailbox) = (&self.mail, &self.mail.mailboxes[socket.index]);
        let (at, room) = (mailbox.at, mail.weather.room.saturating_sub(mailbox.away));
        let refused = |(flow, bytes): (Flow, &[u8])| mail.refuses(at, flow, bytes);
        if let Some(error) = batch.get(0).and_then(refused) {
            return Err(error);
        }
        let most = batch.iter().take_while(|letter| refused(*letter).is_none()).count().min(room);
        if most == 0 {
            self.mail.mailboxes[socket.index].owes_room = true;
            return Ok(Progress::Blocked);
        }
        let count = self.rng.up_to(most).max(1);
        self.mail.mailboxes[socket.index].away += count;
        for (flow, bytes) in batch.iter().take(count) {
            let ip = if at.ip().is_unspecified() { flow.local.unwrap_or(home(flow.peer)) } else { at.ip() };
            let from = SocketAddr::new(ip, at.port());
            let letter = Letter { from, to: flow.peer, bytes: bytes.to_vec(), sender: Some(socket.index) };
            self.send_off(Duration::ZERO, letter);
        }
        Ok(Progress::Moved(count))
    }
}

/// The address that is taken for the way to `peer` where none was asked for.
const fn home(peer: SocketAddr) -> IpAddr {
    if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) }
}
