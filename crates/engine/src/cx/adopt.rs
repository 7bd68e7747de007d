//! Connections of the program's own making: taken in as they are, and given back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{Cx, MeterId, timer_of};
use crate::backend::Backend;
use crate::conn::{Conn, Reading};
use crate::handler::ConnId;
use crate::kernel::{self, Kernel};
use crate::slab::Key;

/// Why a connection isn't given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// It's gone, has failed, or its dial hasn't come to stand.
    #[error("the connection is gone, or doesn't stand yet")]
    NotStanding,
    /// It's forwarded, or another is forwarded to it.
    #[error("the connection is tied to another by forwarding")]
    Tied,
}

impl Cx<Kernel> {
    /// Takes a connected stream socket in that the program made: TCP or Unix-domain. Nothing is read until it's asked for. The socket
    /// doesn't block any more from then on; its other options stay as they are.
    ///
    /// # Errors
    /// When it's no socket, the core is full (`ENFILE`), or the system refuses; the socket is closed then.
    pub fn adopt(&mut self, fd: impl Into<OwnedFd>, token: u64, meter: MeterId) -> io::Result<ConnId> {
        let socket = kernel::Socket::adopted(fd.into())?;
        if !self.take_slot() {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let conn = Conn::new(socket, token, meter.0, false, self.now());
        self.watch_in(conn).map_err(|_| {
            self.give_ticket();
            io::Error::from_raw_os_error(libc::ENOMEM)
        })
    }

    /// Gives a connection back, with what was received and not used: those bytes come before all that is read from the socket. It
    /// blocks again. No upcall about it follows.
    ///
    /// # Errors
    /// See [`ReleaseError`]; nothing has changed then.
    pub fn release(&mut self, id: ConnId) -> Result<(OwnedFd, Vec<u8>), ReleaseError> {
        let conn = self.conns.get(id).ok_or(ReleaseError::NotStanding)?;
        if conn.connecting || conn.leaving || conn.failed.is_some() {
            return Err(ReleaseError::NotStanding);
        }
        if conn.source != Key::NONE || matches!(conn.reading, Reading::Forward(_)) || conn.pipe_bytes > 0 {
            return Err(ReleaseError::Tied);
        }
        let conn = self.conns.lift(id).ok_or(ReleaseError::NotStanding)?;
        let socket = match self.backend.detach(conn.socket) {
            Ok(socket) => socket,
            Err(socket) => {
                self.conns.put_back(id, Conn { socket, ..conn });
                return Err(ReleaseError::NotStanding);
            }
        };
        self.timers.clear(timer_of(id));
        self.conns.vacate(id);
        self.give_ticket();
        let left_over = conn.stash.map_or_else(Vec::new, |stash| {
            let bytes = stash.bytes().to_vec();
            self.blocks.give_back(stash);
            bytes
        });
        // It's a descriptor that we have had until now, so this doesn't fail.
        rustix::io::ioctl_fionbio(socket.as_fd(), false).ok();
        Ok((socket.into_fd(), left_over))
    }
}
