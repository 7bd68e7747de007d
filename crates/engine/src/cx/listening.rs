//! Listeners, and those who come by them.

use std::io;

use super::{Cx, MeterId};
use crate::addr::Addr;
use crate::backend::{AcceptError, Backend, Tag};
use crate::conn::Conn;
use crate::error::ListenError;
use crate::handler::{ConnId, Incoming, ListenerId};
use crate::options::LegOptions;
use crate::slab::Key;

/// Listeners that a core may have.
pub const LISTENERS_MAX: u32 = 4096;

/// Tags with this bit belong to listeners.
const LISTENER_BIT: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct Listening<L> {
    pub(crate) listener: L,
    /// It isn't watched for a while. Invariant: it stands among those that rest.
    pub(crate) rests: bool,
}

impl ListenerId {
    pub(crate) const fn tag(self) -> Tag {
        Tag(LISTENER_BIT | self.0.to_bits())
    }

    /// The listener that `tag` belongs to. The waker is told apart before.
    pub(crate) const fn from_tag(tag: Tag) -> Option<Self> {
        if tag.0 & LISTENER_BIT == 0 { None } else { Some(Self(Key::from_bits(tag.0 & !LISTENER_BIT))) }
    }
}

impl<B: Backend> Cx<B> {
    /// Accepts from `listener` from now on.
    ///
    /// # Errors
    /// When the backend has no room for it; [`io::ErrorKind::OutOfMemory`] beyond [`LISTENERS_MAX`]. It's closed then.
    pub fn listen(&mut self, listener: B::Listener) -> io::Result<ListenerId> {
        let listening = Listening { listener, rests: false };
        let id = self.listeners.insert(listening).map(ListenerId).map_err(|_| io::ErrorKind::OutOfMemory)?;
        match self.watch_listener(id) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.listeners.remove(id.0);
                Err(error)
            }
        }
    }

    fn watch_listener(&mut self, id: ListenerId) -> io::Result<()> {
        let Some(listening) = self.listeners.get(id.0) else { return Ok(()) };
        self.backend.watch_listener(&listening.listener, id.tag())
    }

    /// Listens on `at`, accepts there from now on, and says where: port 0 is filled in. At most `backlog` connections wait to be
    /// accepted, fewer where the system says so.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen_at(
        &mut self,
        at: &Addr,
        options: &LegOptions,
        backlog: u32,
    ) -> Result<(ListenerId, Addr), ListenError> {
        let (listener, at) = self.backend.listen(at, options, backlog)?;
        Ok((self.listen(listener)?, at))
    }

    /// Stops accepting and closes the listener. Connections still in its queue are reset by the kernel.
    pub fn unlisten(&mut self, id: ListenerId) {
        let Some(gone) = self.listeners.remove(id.0) else { return };
        if gone.rests {
            self.resting.retain(|(_, resting)| *resting != id);
        } else {
            // A backend that accepts ahead of us stops; one that doesn't forgets it with its descriptor anyway.
            self.backend.ignore_listener(&gone.listener).ok();
        }
    }

    /// Lets a listener alone for a while: its event would come back at once, and nothing could be done about it.
    pub(crate) fn rest_listener(&mut self, id: ListenerId) {
        if let Some(listening) = self.listeners.get_mut(id.0)
            && !listening.rests
            && self.backend.ignore_listener(&listening.listener).is_ok()
        {
            listening.rests = true;
            self.rest_on(id);
        }
    }

    fn rest_on(&mut self, id: ListenerId) {
        self.resting.push_back((self.now().after(self.config.accept_rest()), id));
    }

    /// Watches the next listener again that has rested for long enough. `Err` names one for which there's no room yet: it rests again.
    pub(crate) fn rouse_listener(&mut self) -> Option<Result<(), ListenerId>> {
        let (_, id) = *self.resting.front().filter(|(until, _)| *until <= self.now())?;
        self.resting.pop_front();
        if self.watch_listener(id).is_err() {
            self.rest_on(id);
            return Some(Err(id));
        }
        if let Some(listening) = self.listeners.get_mut(id.0) {
            listening.rests = false;
        }
        Some(Ok(()))
    }

    /// Takes one connection out of the accept queue: for a program that is about to close the listener, whose clients have
    /// connected already. `None` when there's none, or nothing to accept it with.
    pub fn take_incoming(&mut self, id: ListenerId) -> Option<Incoming<B::Socket>> {
        let listening = self.listeners.get(id.0)?;
        let mut asked_again = false;
        loop {
            match self.backend.accept(&listening.listener) {
                Ok((socket, peer)) => return Some(Incoming { socket, peer }),
                Err(AcceptError::Failed) => {}
                // A backend that accepts ahead of us says once that those are all which it has told of, and then asks the kernel.
                Err(AcceptError::Empty) if !asked_again => asked_again = true,
                Err(AcceptError::Empty | AcceptError::Exhausted) => return None,
            }
        }
    }

    /// Takes an accepted connection in. Nothing is read until it's asked for.
    ///
    /// # Errors
    /// The connection, when the core is full or the backend can't watch it: refuse it.
    pub fn admit(
        &mut self,
        incoming: Incoming<B::Socket>,
        token: u64,
        meter: MeterId,
    ) -> Result<ConnId, Incoming<B::Socket>> {
        let Incoming { socket, peer } = incoming;
        if !self.take_slot() {
            return Err(Incoming { socket, peer });
        }
        let conn = Conn::new(socket, token, meter.0, false, self.now());
        match self.watch_in(conn) {
            Ok(id) => {
                self.admitted = id;
                Ok(id)
            }
            Err((conn, _)) => {
                self.give_ticket();
                Err(Incoming { socket: conn.socket, peer })
            }
        }
    }

    /// Who connects. Where the transport doesn't tell it with the connection (io_uring), it's asked once: a system call, so a program
    /// that doesn't care shouldn't ask.
    pub fn incoming_peer<'a>(&self, incoming: &'a mut Incoming<B::Socket>) -> &'a Addr {
        incoming.peer.get_or_insert_with(|| self.backend.peer_addr(&incoming.socket))
    }

    /// This end's address of an accepted connection: on a transparent listener, where its client wanted to go.
    #[must_use]
    pub fn incoming_addr(&self, incoming: &Incoming<B::Socket>) -> Option<Addr> {
        self.backend.local_addr(&incoming.socket)
    }

    /// Turns an accepted connection away: its client sees a reset.
    pub fn refuse(&mut self, incoming: Incoming<B::Socket>) {
        self.backend.reset(incoming.socket);
    }
}
