//! The kernel's UDP: batches by `recvmmsg` and `sendmmsg`, pieces put together and cut up late (`UDP_GRO`, `UDP_SEGMENT`).
//!
//! A socket is watched for datagrams that come, edge-triggered. Room to write isn't watched, for each datagram that leaves would be an
//! event: it's asked for when the socket was found full, until it isn't.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Kernel, listener};
use crate::backend::{Progress, Tag, Transfer};
use crate::datagram::{Arrival, DatagramBackend, DatagramOptions, Departures, Flow, Inbox, SLOT_BYTES, SLOTS};
use crate::error::ConnError;
use crate::sys::datagram::{self as sys, Goes};
use crate::sys::set_int;

/// A bound socket.
#[derive(Debug)]
pub struct DatagramSocket {
    fd: OwnedFd,
    v6: bool,
    tag: Option<Tag>,
    /// Room to write is watched for.
    awaits_room: bool,
    /// The longest datagram of which several go down as one piece: shorter once the way to a peer turned out to have a smaller MTU, 0
    /// where pieces can't be cut up.
    segment_bytes_max: usize,
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl DatagramSocket {
    /// Binds a socket to `at`.
    pub(crate) fn bind(at: SocketAddr, options: &DatagramOptions) -> io::Result<(Self, SocketAddr)> {
        let v6 = at.is_ipv6();
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let fd = net::socket_with(family, SocketType::DGRAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        listener::set_buffers(&fd, options.recv_buffer, options.send_buffer)?;
        if options.shared {
            sockopt::set_socket_reuseport(&fd, true)?;
        }
        let (level, name) =
            if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
        set_int(fd.as_fd(), level, name, 1)?;
        let mut segment_bytes_max = 0;
        if options.coalesce {
            // Where the kernel can't, datagrams come and go one by one.
            set_int(fd.as_fd(), libc::SOL_UDP, sys::GRO, 1).ok();
            if try_segment(fd.as_fd()).is_ok() {
                segment_bytes_max = usize::from(u16::MAX);
            }
        }
        net::bind(&fd, &at)?;
        if let Some(peer) = options.peer {
            net::connect(&fd, &peer)?;
        }
        let at = SocketAddr::try_from(net::getsockname(&fd)?)?;
        Ok((Self { fd, v6, tag: None, awaits_room: false, segment_bytes_max }, at))
    }

    /// Fetches a batch into the empty `inbox`.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> Result<Arrival, ConnError> {
        let (buffer, arrivals) = inbox.parts_mut();
        let answer = sys::receive(self.fd.as_fd(), buffer, SLOT_BYTES, |slot, came| {
            if came.truncated {
                arrivals.note_truncated();
            } else if let Some(peer) = came.peer {
                arrivals.note(Flow { peer, local: came.local }, slot * SLOT_BYTES, came.len, came.segment);
            }
        });
        match answer {
            Ok(SLOTS) => Ok(Arrival::More),
            Ok(_) => Ok(Arrival::Last),
            Err(error) => match errno_of(&error) {
                Errno::AGAIN => Ok(Arrival::Last),
                errno => Err(errno.into()),
            },
        }
    }

    /// Sends the first of `batch`.
    pub(crate) fn send(&mut self, batch: &Departures<'_>) -> Transfer {
        loop {
            let mut counts = [0; SLOTS];
            let nothing = Goes { flow: batch.get(0).ok_or(ConnError::Unreachable)?.0, bytes: &[], segment: None };
            let mut pieces = [nothing; SLOTS];
            let (mut used, mut next) = (0, 0);
            while used < SLOTS
                && let Some((count, bytes)) = batch.piece(next, self.segment_bytes_max)
                && let Some((flow, first)) = batch.get(next)
            {
                let segment = u16::try_from(first.len()).ok().filter(|_| count > 1);
                pieces[used] = Goes { flow, bytes, segment };
                counts[used] = count;
                used += 1;
                next += count;
            }
            match sys::send(self.fd.as_fd(), self.v6, &pieces[..used]) {
                Ok(sent) => return Ok(Progress::Moved(counts[..sent].iter().sum())),
                Err(error) => match errno_of(&error) {
                    Errno::AGAIN => return Ok(Progress::Blocked),
                    errno if counts[0] > 1 && self.gives_up_on(pieces[0].segment, errno) => {}
                    errno => return Err(errno.into()),
                },
            }
        }
    }

    /// Whether a piece failed because it was one: its datagrams may go one by one.
    fn gives_up_on(&mut self, segment: Option<u16>, errno: Errno) -> bool {
        self.segment_bytes_max = match errno {
            // Longer than the way's MTU, which a single datagram may be: it's fragmented.
            Errno::MSGSIZE | Errno::INVAL => usize::from(segment.unwrap_or(0)).saturating_sub(1),
            // A device that doesn't compute checksums.
            Errno::IO | Errno::OPNOTSUPP => 0,
            _ => return false,
        };
        true
    }
}

/// Asks whether pieces are cut up here, for [`crate::probe`] too: zero cuts nothing.
fn try_segment(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::SOL_UDP, sys::SEGMENT, 0)
}

/// Tries what speeds datagrams up, for [`crate::probe`].
pub(crate) fn try_coalescing() -> io::Result<()> {
    let fd = net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_int(fd.as_fd(), libc::SOL_UDP, sys::GRO, 1)?;
    try_segment(fd.as_fd())
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

impl Kernel {
    /// Watches for room as well, or not any more.
    fn watch_room(&self, socket: &mut DatagramSocket, awaits_room: bool) {
        if let Some(tag) = socket.tag.filter(|_| socket.awaits_room != awaits_room) {
            let room = if awaits_room { EventFlags::OUT } else { EventFlags::empty() };
            let flags = EventFlags::IN | EventFlags::ET | room;
            // It fails for want of memory at most. Then it's tried at the next send, which a datagram that comes may bring about.
            if epoll::modify(&self.epoll, &socket.fd, EventData::new_u64(tag.0), flags).is_ok() {
                socket.awaits_room = awaits_room;
            }
        }
    }
}

impl DatagramBackend for Kernel {
    type DatagramSocket = DatagramSocket;

    fn bind(&mut self, at: SocketAddr, options: &DatagramOptions) -> io::Result<(DatagramSocket, SocketAddr)> {
        DatagramSocket::bind(at, options)
    }

    fn watch_datagrams(&mut self, socket: &mut DatagramSocket, tag: Tag) -> io::Result<()> {
        epoll::add(&self.epoll, &socket.fd, EventData::new_u64(tag.0), EventFlags::IN | EventFlags::ET)?;
        socket.tag = Some(tag);
        Ok(())
    }

    fn recv_datagrams(&mut self, socket: &mut DatagramSocket, inbox: &mut Inbox) -> Result<Arrival, ConnError> {
        socket.receive(inbox)
    }

    fn send_datagrams(&mut self, socket: &mut DatagramSocket, batch: &Departures<'_>) -> Transfer {
        let answer = socket.send(batch)?;
        self.watch_room(socket, answer == Progress::Blocked);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::datagram::Outbox;

    /// What one call takes of 60 equal datagrams.
    fn sent_at_once(socket: &mut DatagramSocket, to: SocketAddr) -> usize {
        let mut outbox = Outbox::new(60 * 100);
        while outbox.push(Flow::to(to), &[7; 100]) {}
        match socket.send(&outbox.departures()) {
            Ok(Progress::Moved(count)) => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn equal_datagrams_go_down_as_one_piece_where_that_is_allowed() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        for (coalesce, expected) in [(true, 60), (false, SLOTS)] {
            let options = DatagramOptions { coalesce, ..DatagramOptions::default() };
            let (mut socket, _) = DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
            assert_eq!(sent_at_once(&mut socket, to), expected);
            for _ in 0..expected {
                assert_eq!(receiver.recv(&mut [0; 200]).unwrap(), 100);
            }
        }
    }

    #[test]
    fn a_piece_that_comes_to_a_socket_which_allows_it_is_read_at_once() {
        let all = DatagramOptions::default();
        let (mut near, _) = DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), &all).unwrap();
        let (far, at) = DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), &all).unwrap();
        assert_eq!(sent_at_once(&mut near, at), 60);
        let mut inbox = Inbox::default();
        assert_eq!(far.receive(&mut inbox), Ok(Arrival::Last));
        assert_eq!(inbox.len(), 60);
        assert!((0..60).all(|index| inbox.get(index).is_some_and(|(_, bytes)| bytes == [7; 100])));
    }

    #[test]
    fn a_socket_with_a_peer_hears_nobody_else_and_of_its_absence() {
        let (peer, stranger) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let options = DatagramOptions { peer: Some(peer.local_addr().unwrap()), ..DatagramOptions::default() };
        let (mut socket, at) = DatagramSocket::bind("0.0.0.0:0".parse().unwrap(), &options).unwrap();
        stranger.send_to(b"stray", at).unwrap();
        peer.send_to(b"good", at).unwrap();
        let mut inbox = Inbox::default();
        assert_eq!(socket.receive(&mut inbox), Ok(Arrival::Last));
        assert_eq!((inbox.len(), inbox.get(0).unwrap().1), (1, &b"good"[..]));
        drop(peer);
        let mut outbox = Outbox::new(100);
        assert!(outbox.push(Flow::to(options.peer.unwrap()), b"anybody?"));
        assert_eq!(socket.send(&outbox.departures()), Ok(Progress::Moved(1)));
        assert_eq!(socket.receive(&mut inbox), Err(ConnError::Refused));
    }

    #[test]
    fn a_way_too_narrow_for_the_segments_of_a_piece_is_remembered() {
        let (mut socket, _) =
            DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), &DatagramOptions::default()).unwrap();
        assert!(!socket.gives_up_on(Some(1400), Errno::NETUNREACH));
        assert!(socket.gives_up_on(Some(1400), Errno::MSGSIZE));
        assert_eq!(socket.segment_bytes_max, 1399);
        assert!(socket.gives_up_on(Some(1000), Errno::IO));
        assert_eq!(socket.segment_bytes_max, 0);
    }
}
