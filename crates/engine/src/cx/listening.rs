//! Listeners, and those who come by them.

use super::{Cx, Listening, MeterId};
use crate::addr::Addr;
use crate::backend::{AcceptError, Backend};
use crate::conn::Conn;
use crate::error::ListenError;
use crate::handler::{ConnId, Incoming, ListenerId};
use crate::options::LegOptions;

impl<B: Backend> Cx<B> {
    /// Accepts from `listener` from now on.
    ///
    /// # Errors
    /// When the backend has no room for it.
    pub fn listen(&mut self, listener: B::Listener) -> std::io::Result<ListenerId> {
        let free = self.listeners.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.listeners.push(None);
            self.listeners.len() - 1
        });
        let id = ListenerId(u32::try_from(index).expect("few listeners"));
        self.backend.watch_listener(&listener, id.tag())?;
        self.listeners[index] = Some(Listening { listener, rests_until: None });
        Ok(id)
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
        let Some(gone) = self.listeners.get_mut(id.0 as usize).and_then(Option::take) else { return };
        if gone.rests_until.is_some() {
            self.resting -= 1;
        } else {
            // A backend that accepts ahead of us stops; one that doesn't forgets it with its descriptor anyway.
            self.backend.ignore_listener(&gone.listener).ok();
        }
    }

    /// Takes one connection out of the accept queue: for a program that is about to close the listener, whose clients have
    /// connected already. `None` when there's none, or nothing to accept it with.
    pub fn take_incoming(&mut self, id: ListenerId) -> Option<Incoming<B::Socket>> {
        let listening = self.listeners.get(id.0 as usize)?.as_ref()?;
        loop {
            match self.backend.accept(&listening.listener) {
                Ok((socket, peer)) => return Some(Incoming { socket, peer }),
                Err(AcceptError::Failed) => {}
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
