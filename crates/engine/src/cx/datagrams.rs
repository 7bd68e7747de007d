//! Sockets for datagrams: bound, sent by, let go.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::Cx;
use crate::backend::{Backend, Progress};
use crate::datagram::{
    Arrival, DATAGRAM_SOCKETS_MAX, DatagramBackend, DatagramCounts, DatagramId, DatagramOptions, Flow, Inbox, Outbox,
    SendToError,
};
use crate::error::ConnError;
use crate::slab::Slab;

/// A bound socket, as the engine sees it.
pub(crate) struct Bound<B: DatagramBackend> {
    socket: B::DatagramSocket,
    at: SocketAddr,
    outbox: Outbox,
    counts: DatagramCounts,
    /// Something may wait to be read.
    pub(crate) readable: bool,
    /// The last read failed.
    read_failed: bool,
    /// It has one peer, so that a failure is about that one.
    has_peer: bool,
    /// What the program hasn't been told of yet. Invariant: the socket stands in the queue of those that are read.
    trouble: Option<ConnError>,
    pub(crate) writable: bool,
    /// The program awaits `on_datagrams_writable`.
    pub(crate) awaits_room: bool,
    /// It stands in the queue of those that are read.
    queued: bool,
    /// It stands among those that are sent by at the turn's end.
    gathers: bool,
}

impl<B: DatagramBackend> Bound<B> {
    /// Keeps a failure for the program, if it's about the socket's peer. Memory that runs out is about nobody.
    fn note_trouble(&mut self, error: ConnError) {
        if self.has_peer && error != ConnError::Exhausted {
            self.trouble = Some(error);
        }
    }
}

/// All sockets for datagrams of a core.
pub(crate) struct Datagrams<B: DatagramBackend> {
    pub(crate) sockets: Slab<Bound<B>>,
    /// Made with the first socket; away while its batch is told.
    pub(crate) inbox: Option<Box<Inbox>>,
    /// Sockets that may have something to read. Each stands in it at most once per generation, as in the connections' queue.
    pub(crate) queue: VecDeque<DatagramId>,
    /// Sockets by which something was sent in this turn.
    gathering: Vec<DatagramId>,
}

impl<B: DatagramBackend> Datagrams<B> {
    pub(crate) fn new() -> Self {
        Self {
            sockets: Slab::with_capacity(DATAGRAM_SOCKETS_MAX),
            inbox: None,
            queue: VecDeque::with_capacity(DATAGRAM_SOCKETS_MAX as usize),
            gathering: Vec::with_capacity(DATAGRAM_SOCKETS_MAX as usize),
        }
    }

    /// Asserts, between turns, that no socket is forgotten.
    pub(crate) fn check(&self) {
        for bound in self.sockets.keys().filter_map(|key| self.sockets.get(key)) {
            assert!(bound.queued || !bound.readable, "datagrams wait, and nobody will read them");
            assert!(bound.queued || bound.trouble.is_none(), "a failure waits, and nobody will tell it");
            assert!(bound.gathers || !bound.writable || bound.outbox.is_empty(), "an outbox won't be sent");
        }
    }

    /// Whether the next turn has something to read, or to send: what was sent between two turns leaves at the end of the next.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.gathering.is_empty()
    }

    /// Has the socket read in its turn.
    pub(crate) fn enqueue(&mut self, id: DatagramId) {
        if let Some(bound) = self.sockets.get_mut(id.0)
            && !std::mem::replace(&mut bound.queued, true)
        {
            self.queue.push_back(id);
        }
    }

    /// The next socket that may have something to read.
    pub(crate) fn dequeue(&mut self) -> Option<DatagramId> {
        let id = self.queue.pop_front()?;
        if let Some(bound) = self.sockets.get_mut(id.0) {
            bound.queued = false;
        }
        Some(id)
    }
}

impl<B: Backend> Cx<B> {
    /// Binds a socket for datagrams to `at`; port 0 is any that is free ([`Cx::datagram_addr`] says which). What comes to it is told by
    /// [`Handler::on_datagram`](crate::Handler::on_datagram). Allocates the socket's outbox, and with the first socket the core's inbox.
    ///
    /// # Errors
    /// The system's: [`io::ErrorKind::AddrInUse`] where somebody else is bound there, [`io::ErrorKind::OutOfMemory`] beyond
    /// [`DATAGRAM_SOCKETS_MAX`](crate::datagram::DATAGRAM_SOCKETS_MAX).
    pub fn bind(&mut self, at: SocketAddr, options: &DatagramOptions) -> io::Result<DatagramId> {
        if self.datagrams.sockets.is_full() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if self.datagrams.inbox.is_none() && self.datagrams.sockets.is_empty() {
            self.datagrams.inbox = Some(Box::default());
        }
        let (socket, at) = self.backend.bind(at, options)?;
        let bound = Bound {
            socket,
            at,
            outbox: Outbox::new(options.outbox_bytes),
            counts: DatagramCounts::default(),
            readable: false,
            read_failed: false,
            has_peer: options.peer.is_some(),
            trouble: None,
            writable: true,
            awaits_room: false,
            queued: false,
            gathers: false,
        };
        let id = self.datagrams.sockets.insert(bound).map(DatagramId).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let bound = self.datagrams.sockets.get_mut(id.0).expect("it was put in just now");
        if let Err(error) = self.backend.watch_datagrams(&mut bound.socket, id.tag()) {
            self.datagrams.sockets.remove(id.0);
            return Err(error);
        }
        Ok(id)
    }

    /// Lets a socket go. What was sent by it goes out first, as far as there's room; what there's no room for is gone, and counted
    /// nowhere, for its counts go with the socket. A program that minds has it wait: [`Cx::datagram_counts`] tells when
    /// [`sent`](DatagramCounts::sent) and what was dropped are as many as it has sent. No upcall follows.
    pub fn unbind(&mut self, id: DatagramId) {
        self.flush(id);
        self.datagrams.sockets.remove(id.0);
    }

    /// Sends `bytes` as one datagram: it's copied, and goes out at the end of the turn, or before if many are sent;
    /// what is sent between two turns, at the end of the next, which doesn't wait for an event.
    ///
    /// # Errors
    /// See [`SendToError`]. What can't be sent later on is counted: [`Cx::datagram_counts`].
    pub fn send_to(&mut self, id: DatagramId, flow: Flow, bytes: &[u8]) -> Result<(), SendToError> {
        let bound = self.datagrams.sockets.get_mut(id.0).ok_or(SendToError::Gone)?;
        if bytes.len() > bound.outbox.longest() {
            return Err(SendToError::TooLong);
        }
        if !bound.outbox.push(flow, bytes) {
            self.flush(id);
            let bound = self.datagrams.sockets.get_mut(id.0).ok_or(SendToError::Gone)?;
            if !bound.outbox.push(flow, bytes) {
                bound.counts.refused += 1;
                bound.awaits_room = true;
                return Err(SendToError::Full);
            }
        }
        if let Some(bound) = self.datagrams.sockets.get_mut(id.0)
            && !std::mem::replace(&mut bound.gathers, true)
        {
            self.datagrams.gathering.push(id);
        }
        Ok(())
    }

    /// Where a socket is bound.
    #[must_use]
    pub fn datagram_addr(&self, id: DatagramId) -> Option<SocketAddr> {
        self.datagrams.sockets.get(id.0).map(|bound| bound.at)
    }

    /// What became of a socket's datagrams so far; zeros once it's gone.
    #[must_use]
    pub fn datagram_counts(&self, id: DatagramId) -> DatagramCounts {
        self.datagrams.sockets.get(id.0).map(|bound| bound.counts).unwrap_or_default()
    }

    /// Sends what was gathered in this turn.
    pub(crate) fn flush_gathered(&mut self) {
        while let Some(id) = self.datagrams.gathering.pop() {
            if let Some(bound) = self.datagrams.sockets.get_mut(id.0) {
                bound.gathers = false;
                self.flush(id);
            }
        }
    }

    /// Sends what the outbox holds and there's room for.
    pub(crate) fn flush(&mut self, id: DatagramId) {
        let Some(bound) = self.datagrams.sockets.get_mut(id.0) else { return };
        while bound.writable && !bound.outbox.is_empty() {
            match self.backend.send_datagrams(&mut bound.socket, &bound.outbox.departures()) {
                Ok(Progress::Moved(count)) => {
                    bound.outbox.spend(count);
                    bound.counts.sent += count as u64;
                }
                Ok(Progress::Blocked | Progress::Ended) => bound.writable = false,
                Err(error) => {
                    bound.outbox.spend(1);
                    match error {
                        ConnError::Exhausted => bound.counts.exhausted += 1,
                        _ => bound.counts.failed += 1,
                    }
                    bound.note_trouble(error);
                }
            }
        }
        if bound.trouble.is_some() {
            self.datagrams.enqueue(id);
        }
    }

    /// What failed of a socket since it was last asked.
    pub(crate) fn take_datagram_trouble(&mut self, id: DatagramId) -> Option<ConnError> {
        self.datagrams.sockets.get_mut(id.0)?.trouble.take()
    }

    /// Fetches a batch for the socket; `None` if there's nothing to fetch.
    pub(crate) fn fetch_datagrams(&mut self, id: DatagramId, inbox: &mut Inbox) -> Option<()> {
        let bound = self.datagrams.sockets.get_mut(id.0).filter(|bound| bound.readable)?;
        inbox.clear();
        match self.backend.recv_datagrams(&mut bound.socket, inbox) {
            Ok(arrival) => {
                bound.readable = arrival == Arrival::More;
                bound.read_failed = false;
            }
            // An error is told once, and what waits is behind it. One that stays waits for an event.
            Err(error) => {
                bound.note_trouble(error);
                bound.counts.failed_reads += 1;
                bound.readable = !std::mem::replace(&mut bound.read_failed, true);
            }
        }
        bound.counts.received += inbox.len() as u64;
        bound.counts.truncated += inbox.truncated();
        Some(())
    }
}
