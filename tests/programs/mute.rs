//! Servers that don't say a word.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::process::own_loopback;

/// A server that accepts, and never says a word.
pub(crate) fn silent() -> SocketAddr {
    let listener = TcpListener::bind(own_loopback()).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).collect::<Vec<_>>());
    addr
}

/// A server that is full: whoever dials it hears nothing. What is returned keeps it so.
pub(crate) fn full() -> (SocketAddr, OwnedFd, Vec<TcpStream>) {
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    net::bind(&socket, &own_loopback()).unwrap();
    net::listen(&socket, 0).unwrap();
    let addr = net::getsockname(&socket).unwrap().try_into().unwrap();
    // A backlog of none holds one; one more is for a kernel that rounds up.
    let queue = (0..2).map_while(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(500)).ok()).collect();
    (addr, socket, queue)
}
