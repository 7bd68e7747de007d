//! The stack's datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use midmile_engine::ConnError;
use midmile_engine::backend::{Progress, Tag, Transfer};
use midmile_engine::datagram::{Arrival, DatagramBackend, DatagramOptions, Departures, Inbox};
use rustix::io::Errno;

use super::Stack;
use crate::link::{Hop, Link, Transmit};
use crate::net::{Posted, Unbound};

/// A bound socket. Dropping it closes it.
#[derive(Debug)]
pub struct DatagramSocket {
    index: usize,
    open: Arc<AtomicBool>,
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Release);
    }
}

impl<D: Link> DatagramBackend for Stack<D> {
    type DatagramSocket = DatagramSocket;

    fn bind(&mut self, at: SocketAddr, options: &DatagramOptions) -> io::Result<(DatagramSocket, SocketAddr)> {
        let open = Arc::new(AtomicBool::new(true));
        let at = SocketAddr::new(at.ip().to_canonical(), at.port());
        match self.net.bind(at, options.recv_buffer, open.clone()) {
            Ok((index, at)) => Ok((DatagramSocket { index, open }, at)),
            Err(Unbound::InUse) => Err(io::ErrorKind::AddrInUse.into()),
            Err(Unbound::NotGiven) => {
                let why = format!("{at} isn't among the addresses and ports that the stack was given for datagrams");
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
            Err(Unbound::TooMany) => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    fn watch_datagrams(&mut self, socket: &mut DatagramSocket, tag: Tag) -> io::Result<()> {
        self.net.watch_mailbox(socket.index, tag);
        Ok(())
    }

    fn recv_datagrams(&mut self, socket: &mut DatagramSocket, inbox: &mut Inbox) -> Result<Arrival, ConnError> {
        Ok(self.net.recv_datagrams(socket.index, inbox))
    }

    /// A datagram to a neighbour whose address isn't known yet is lost, and has it asked for.
    fn send_datagrams(&mut self, socket: &mut DatagramSocket, batch: &Departures<'_>) -> Transfer {
        let mut count = 0;
        let mut stopped = Ok(Progress::Blocked);
        for (flow, bytes) in batch.iter() {
            let to = flow.peer.ip().to_canonical();
            let (hop, source) = match self.net.neighbour(to) {
                Some(link) if flow.local.is_some() => (Ok(link), None),
                known => match self.link.next_hop(to) {
                    Ok(Hop { source, link }) => (known.or(link).ok_or(ConnError::Unreachable), Some(source)),
                    Err(error) => (Err(error), None),
                },
            };
            let (_, mut tx) = self.link.halves();
            let posted = match hop {
                Ok(link) => {
                    if source.is_some() {
                        self.net.learn(to, link);
                    }
                    self.net.post(socket.index, flow, bytes, link, source, &mut tx)
                }
                Err(_) => Posted::Unreachable,
            };
            stopped = match posted {
                Posted::Gone => {
                    count += 1;
                    continue;
                }
                Posted::Full => Ok(Progress::Blocked),
                Posted::TooLong => Err(Errno::MSGSIZE.into()),
                Posted::Unreachable => Err(ConnError::Unreachable),
            };
            break;
        }
        if count == 0 {
            return stopped;
        }
        self.link.halves().1.flush();
        Ok(Progress::Moved(count))
    }
}
