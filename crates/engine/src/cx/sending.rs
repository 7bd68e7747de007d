//! What a program sends itself.

use std::io::IoSlice;

use super::Cx;
use crate::backend::{Backend, PARTS_MAX, Progress, Transfer};
use crate::conn::Ahead;
use crate::handler::ConnId;
use crate::slab::Key;

impl<B: Backend> Cx<B> {
    /// Sends what there is room for and says how much that was; the rest is the caller's to keep. After an answer shorter than `bytes`
    /// [`on_writable`](crate::Handler::on_writable) follows once there's room, with these exceptions, which all answer 0:
    /// - while another connection is forwarded to this one, for the room is that one's. An `on_writable` that was awaited before may not
    ///   come either: send again once forwarding has ended;
    /// - on one that is still being dialled and takes no first bytes ([`LegOptions::fast_open`](crate::LegOptions::fast_open)):
    ///   [`on_connect`](crate::Handler::on_connect) tells of the first room;
    /// - on a connection that has failed, or fails by this: [`on_error`](crate::Handler::on_error) follows instead, behind what came
    ///   before the failure where that is read or forwarded;
    /// - on one that's gone.
    ///
    /// After [`Cx::shutdown`] nothing can be sent: trying to ends the connection with an error, and in the simulation panics, for it's
    /// the program's mistake.
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        self.send_by(id, bytes.len(), |backend, socket| backend.send(socket, bytes))
    }

    /// As [`Cx::send`], of `parts` one behind another, as if they were one piece: one system call on the kernel.
    pub fn send_vectored(&mut self, id: ConnId, parts: &[IoSlice<'_>]) -> usize {
        let mut all = 0;
        for parts in parts.chunks(PARTS_MAX) {
            let len = parts.iter().map(|part| part.len()).sum();
            if len == 0 {
                continue;
            }
            let sent = self.send_by(id, len, |backend, socket| backend.send_vectored(socket, parts));
            all += sent;
            if sent < len {
                break;
            }
        }
        all
    }

    /// As [`Cx::send`], for bytes that something forwarded follows soon: they go out with it, or by themselves after a fraction of a
    /// second. What follows at once fills segments, so that bytes ahead of them make no short one.
    pub fn send_ahead(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let sent = self.send_by(id, bytes.len(), |backend, socket| backend.send_ahead(socket, bytes));
        if let Some(conn) = self.conns.get_mut(id).filter(|_| sent > 0) {
            conn.ahead = Ahead::Waits;
        }
        sent
    }

    /// Has what was sent ahead go out now.
    pub fn push(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            self.backend.push(&mut conn.socket);
        }
    }

    /// Has the peer's bytes acknowledged now, and not with the next bytes that go there or 40 ms later: for a connection on which more is
    /// awaited and nothing is to be sent. A peer that gathers small pieces (Nagle's algorithm, RFC 9293, 3.7.4) holds them back until then.
    /// On the kernel's sockets that's `TCP_QUICKACK` for this once, a system call; a user-space stack acknowledges in time by itself.
    pub fn acknowledge(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            self.backend.acknowledge(&mut conn.socket);
        }
    }

    fn send_by(&mut self, id: ConnId, len: usize, send: impl FnOnce(&mut B, &mut B::Socket) -> Transfer) -> usize {
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        if conn.source != Key::NONE || conn.failed.is_some() {
            return 0;
        }
        let sent = match conn.writable.then(|| send(&mut self.backend, &mut conn.socket)) {
            Some(Ok(Progress::Moved(sent))) => sent,
            Some(Ok(_)) | None => 0,
            Some(Err(error)) => {
                conn.fail(error);
                self.enqueue(id);
                return 0;
            }
        };
        if sent < len {
            conn.writable = false;
            conn.awaits_room = true;
        }
        sent
    }

    /// Finishes sending: the peer reads the end after what was sent. What comes can still be read. It's the last thing that is sent:
    /// [`Cx::send`] and forwarding to the connection fail from now on, and take the connection with them. A connection of which both
    /// sides have finished stays in use until [`Cx::close`].
    pub fn shutdown(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Err(error) = self.backend.shutdown(&mut conn.socket) {
            conn.fail(error);
            self.enqueue(id);
        }
    }
}
