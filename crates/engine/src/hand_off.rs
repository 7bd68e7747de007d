//! Connections that move to another core, with what was left over of their bytes.
//!
//! A hand-over begins in an upcall and is carried out at the turn's end, when no byte of the connection is on loan any more. The
//! other core sees it as [`Handler::on_hand_off`]; so does this one, where it couldn't go. One that the other core can't take in is lost,
//! and told there as [`Handler::on_hand_off_lost`].

use std::sync::mpsc::TrySendError;

use crate::backend::Backend;
use crate::conn::{Ahead, Conn, Reading};
use crate::core::Core;
use crate::cx::{Cx, MeterId, push_live, timer_of};
use crate::error::ConnError;
use crate::handler::{ConnId, Handler};
use crate::mesh::{CoreId, HandOffError, Letter, Mail};
use crate::slab::Key;
use crate::upcall::Upcall;

impl<B: Backend> Cx<B> {
    /// This core's place in the mesh; `None` for a core that stands alone.
    #[must_use]
    pub fn core(&self) -> Option<CoreId> {
        self.seat.as_ref().map(|seat| seat.core)
    }

    /// Wakes a core of the mesh, this one too: it upcalls [`Handler::on_wake`]. A system call; nothing happens if there's no such core.
    pub fn wake(&self, core: CoreId) {
        if let Some(waker) = self.seat.as_ref().and_then(|seat| seat.wakers.get(usize::from(core.0))) {
            waker.wake();
        }
    }

    /// Gives the connection to another core at the turn's end, with its token and with what was left over. No upcall about it follows
    /// here, but for [`Handler::on_error`] if it fails before it goes; its timer is cleared, and it isn't read until
    /// [`Handler::on_hand_off`] asks for it there. Where it can't go (the backend doesn't let it, the other core's mailbox is
    /// full), that upcall comes here. The handle is another afterwards. Where the other core has no room for it when it arrives, its
    /// peer sees a reset, and the other core is told its token by [`Handler::on_hand_off_lost`].
    ///
    /// What was sent before still goes out, and [`Handler::on_writable`] follows there if it's awaited.
    ///
    /// # Errors
    /// See [`HandOffError`]; nothing has changed then.
    pub fn hand_off(&mut self, id: ConnId, to: CoreId) -> Result<(), HandOffError> {
        let known = self.seat.as_ref().is_some_and(|seat| usize::from(to.0) < seat.outboxes.len());
        if !known {
            return Err(HandOffError::NoCore);
        }
        let conn = self.conns.get_mut(id).ok_or(HandOffError::NotStanding)?;
        if conn.connecting || conn.leaving || conn.failed.is_some() {
            return Err(HandOffError::NotStanding);
        }
        if conn.source != Key::NONE || matches!(conn.reading, Reading::Forward(_)) || conn.pipe_bytes > 0 {
            return Err(HandOffError::Tied);
        }
        conn.reading = Reading::Paused;
        conn.leaving = true;
        self.timers.clear(timer_of(id));
        push_live(&mut self.departures, (id, to), &self.conns, |(id, _)| *id);
        Ok(())
    }

    /// Takes the connection off this core, into a letter. `None`: it stays, as it is.
    fn pack(&mut self, id: ConnId) -> Option<Letter<B::Parcel>> {
        let mut conn = self.conns.lift(id)?;
        if std::mem::replace(&mut conn.ahead, Ahead::None) != Ahead::None {
            self.backend.push(&mut conn.socket);
        }
        match self.backend.detach(conn.socket) {
            Ok(parcel) => {
                self.conns.vacate(id);
                let stash = conn.stash.inspect(|_| self.blocks.lend());
                let Conn { token, claim, ended, end_ahead, end_told, awaits_room, .. } = conn;
                let from = self.seat.as_ref()?.core;
                Some(Letter { from, parcel, token, stash, claim, ended, end_ahead, end_told, awaits_room })
            }
            Err(socket) => {
                conn.socket = socket;
                self.conns.put_back(id, conn);
                None
            }
        }
    }

    /// Takes a connection in that comes with its ticket.
    ///
    /// # Errors
    /// Why it's lost: its peer sees a reset.
    fn unpack(&mut self, letter: Letter<B::Parcel>) -> Result<ConnId, ConnError> {
        let Letter { from, parcel, token, stash, claim, ended, end_ahead, end_told, awaits_room } = letter;
        if stash.is_some() {
            self.blocks.adopt();
            self.give_back_a_block(from);
        }
        let taken_in = self.backend.attach(parcel).and_then(|socket| {
            let conn = Conn::new(socket, token, MeterId::NONE.0, false, self.backend.now());
            let conn = Conn { claim, ended, end_ahead, end_told, awaits_room, ..conn };
            // An event tells if there is room: whoever awaits it hears of it.
            let conn = Conn { writable: !awaits_room, ..conn };
            self.watch_in(conn).map_err(|(conn, error)| {
                self.backend.reset(conn.socket);
                error
            })
        });
        match taken_in {
            Ok(id) => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.stash = stash;
                }
                Ok(id)
            }
            Err(error) => {
                if let Some(stash) = stash {
                    self.blocks.give_back(stash);
                }
                self.give_ticket();
                self.hand_offs_lost += 1;
                Err(error)
            }
        }
    }

    /// Sends a core one of our blocks for the one that came from it; where we have none, ours are one more.
    fn give_back_a_block(&mut self, to: CoreId) {
        if let Some(block) = self.blocks.take_out()
            && let Err(Mail::Block(block)) = self.post(to, Mail::Block(block))
        {
            self.blocks.add(block);
        }
    }

    /// Sends mail to a core; gives it back if there's no room, or nobody.
    fn post(&self, to: CoreId, mail: Mail<B::Parcel>) -> Result<(), Mail<B::Parcel>> {
        let Some(seat) = &self.seat else { return Err(mail) };
        seat.outboxes[usize::from(to.0)]
            .try_send(mail)
            .map_err(|error| match error {
                TrySendError::Full(mail) | TrySendError::Disconnected(mail) => mail,
            })
            .map(|()| seat.wakers[usize::from(to.0)].wake())
    }
}

impl<B: Backend, H: Handler<B>> Core<B, H> {
    /// Sends those off that leave.
    pub(crate) fn see_off(&mut self) {
        // One that comes back may leave again, at the end of the next turn.
        for _ in 0..self.cx.departures.len() {
            let Some((id, to)) = self.cx.departures.pop_front() else { return };
            let stays = Some(to) == self.cx.core();
            let letter = if stays { None } else { self.cx.pack(id) };
            match letter {
                Some(letter) => {
                    if let Err(Mail::Conn(letter)) = self.cx.post(to, Mail::Conn(letter)) {
                        self.take_in(letter);
                    }
                }
                None => self.handed_off(id),
            }
        }
    }

    /// Takes in what other cores have sent.
    pub(crate) fn open_mail(&mut self) {
        for _ in 0..crate::mesh::MAIL_MAX {
            let Some(mail) = self.cx.seat.as_ref().and_then(|seat| seat.inbox.try_recv().ok()) else { return };
            match mail {
                Mail::Block(block) => self.cx.blocks.add(block),
                Mail::Conn(letter) => self.take_in(letter),
            }
        }
        // Whoever filled it up again rang again.
    }

    fn take_in(&mut self, letter: Letter<B::Parcel>) {
        let (from, token) = (letter.from, letter.token);
        match self.cx.unpack(letter) {
            Ok(id) => self.handed_off(id),
            Err(error) => {
                self.upcall(Upcall::HandOffLost, Key::NONE, |handler, cx| {
                    handler.on_hand_off_lost(cx, from, token, error);
                });
            }
        }
    }

    fn handed_off(&mut self, id: ConnId) {
        if let Some(conn) = self.cx.conns.get_mut(id) {
            conn.leaving = false;
            let token = conn.token;
            self.upcall(Upcall::HandOff, id, |handler, cx| handler.on_hand_off(cx, id, token));
        }
    }
}
