//! Peers that talk by datagrams and are the kernel's sockets.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketType, sockopt};

use super::sockets::Sockets;
use super::world::Posting;
use crate::sys::datagram::SEGMENT;
use crate::sys::set_int;

/// What peers' sockets may hold, in bytes; the system may give less.
const HELD_BYTES: usize = 2_000_000;

/// A peer that talks by datagrams.
#[derive(Debug)]
pub struct SocketCorrespondent {
    fd: OwnedFd,
}

impl Sockets {
    /// See [`World::correspondent`](super::World::correspondent).
    ///
    /// # Panics
    /// When the kernel gives no such socket.
    #[must_use]
    pub fn correspondent(&self) -> (SocketCorrespondent, SocketAddr) {
        let (fd, at) = self.bound(SocketType::DGRAM);
        sockopt::set_socket_recv_buffer_size(&fd, HELD_BYTES).expect("a socket takes SO_RCVBUF");
        (SocketCorrespondent { fd }, at.inet().expect("peers that talk by datagrams have IP addresses"))
    }

    /// See [`World::post`](super::World::post).
    ///
    /// # Panics
    /// When the kernel knows no way to `to`.
    pub fn post(from: &SocketCorrespondent, to: SocketAddr, bytes: &[u8], segment: Option<u16>) -> Posting {
        if let Some(segment) = segment {
            set_int(from.fd.as_fd(), libc::SOL_UDP, SEGMENT, segment.into()).expect("a socket takes UDP_SEGMENT");
        }
        let sent = net::sendto(&from.fd, bytes, SendFlags::empty(), &to);
        if segment.is_some() {
            set_int(from.fd.as_fd(), libc::SOL_UDP, SEGMENT, 0).expect("a socket takes UDP_SEGMENT");
        }
        match sent {
            Ok(_) => Posting::Gone,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Posting::NotNow,
            Err(Errno::MSGSIZE) => Posting::TooLong,
            Err(errno) => panic!("a peer can't write to {to}: {errno}"),
        }
    }

    /// See [`World::collect`](super::World::collect).
    pub fn collect(peer: &SocketCorrespondent, buf: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let (len, _, from) = net::recvfrom(&peer.fd, buf, RecvFlags::empty()).ok()?;
        Some((len, SocketAddr::try_from(from?).ok()?))
    }

    /// See [`World::vacant`](super::World::vacant): somebody was bound there.
    #[must_use]
    pub fn vacant(&self) -> SocketAddr {
        self.correspondent().1
    }

    /// Datagrams that the kernel dropped because the socket at `at` had no room for them: the last column of /proc/net/udp
    /// (`udp4_seq_show` of net/ipv4/udp.c).
    ///
    /// # Panics
    /// When the kernel doesn't tell.
    #[must_use]
    pub fn dropped(at: SocketAddr) -> u64 {
        let name = if at.is_ipv4() { "udp" } else { "udp6" };
        let table = fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect("the kernel tells its sockets");
        let port = format!(":{:04X}", at.port());
        let ours = |line: &&str| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port));
        let drops = |line: &str| line.split_whitespace().last().and_then(|drops| drops.parse::<u64>().ok());
        table.lines().filter(ours).filter_map(drops).sum()
    }
}
