//! Datagrams: the kernel backend's sockets and batches, in its epoll instance, at which the ring looks as at any other descriptor.
//!
//! `recvmmsg` and `sendmmsg` already move many datagrams a system call, cut up and put together by the kernel: an operation a datagram
//! would only copy more.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::Uring;
use super::look::SOMETHING_TO_READ;
use crate::backend::{Backend, Tag, Transfer};
use crate::datagram::{Arrival, DatagramBackend, DatagramOptions, Departures, Inbox};
use crate::error::ConnError;
use crate::kernel::{DatagramSocket, Kernel};
use crate::sys::operation::{Name, What};

impl Uring {
    /// Looks once for events of the epoll instance: it's level-triggered, so none is lost between two looks.
    fn await_datagrams(&mut self) {
        let fd = self.plain.as_fd().as_raw_fd();
        self.ring.look(fd, SOMETHING_TO_READ, false, Name { what: What::Datagrams, of: 0 });
    }

    /// Reports what the epoll instance has, and looks at it again.
    pub(super) fn datagrams_came(&mut self) {
        // It fails only on a descriptor that isn't an epoll instance.
        let events = self.plain.poll(Some(Duration::ZERO)).unwrap_or(0);
        for index in 0..events {
            self.report(self.plain.ready(index));
        }
        self.await_datagrams();
    }
}

impl DatagramBackend for Uring {
    type DatagramSocket = DatagramSocket;

    fn bind(&mut self, at: SocketAddr, options: &DatagramOptions) -> io::Result<(DatagramSocket, SocketAddr)> {
        DatagramBackend::bind(&mut self.plain, at, options)
    }

    fn watch_datagrams(&mut self, socket: &mut DatagramSocket, tag: Tag) -> io::Result<()> {
        self.plain.watch_datagrams(socket, tag)?;
        if !std::mem::replace(&mut self.has_datagrams, true) {
            self.await_datagrams();
        }
        Ok(())
    }

    fn recv_datagrams(&mut self, socket: &mut DatagramSocket, inbox: &mut Inbox) -> Result<Arrival, ConnError> {
        self.plain.recv_datagrams(socket, inbox)
    }

    fn send_datagrams(&mut self, socket: &mut DatagramSocket, batch: &Departures<'_>) -> Transfer {
        Kernel::send_datagrams(&mut self.plain, socket, batch)
    }
}
