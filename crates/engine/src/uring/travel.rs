//! Connections that change their core.
//!
//! What a receive has brought already goes along, in front of what comes on the other core; bytes that can't be sent at once keep a
//! connection where it is.

use super::Uring;
use super::socket::{Carried, Socket};
use crate::error::ConnError;
use crate::kernel;
use crate::sys::operation::{Name, What};

/// A connection on its way from one core to another. Dropped, it is closed as by a program that ended.
#[derive(Debug)]
pub struct Parcel {
    sock: kernel::Socket,
    received: Option<Box<Carried>>,
    error: Option<ConnError>,
    connecting: bool,
    ended: bool,
}

impl Uring {
    pub(super) fn pack(&mut self, socket: Socket) -> Result<Parcel, Socket> {
        let index = socket.slot();
        let slot = &self.table[index];
        // A connection that is failing is better told of here.
        if slot.failure_due || slot.end_due || !matches!(self.flush_now(index), Ok(true)) {
            return Err(socket);
        }
        if self.table[index].armed.has(What::Recv) {
            self.table[index].leaving = true;
            let cancelled = self.ring.cancel_now(Name { what: What::Recv, of: index });
            // Others' events wait for the next turn.
            self.reap();
            let slot = &mut self.table[index];
            slot.leaving = false;
            let goes_on = slot.armed.has(What::Recv);
            if goes_on || slot.failure_due || cancelled.is_err() {
                if !goes_on && !slot.ended {
                    self.recv_stopped(index);
                }
                return Err(socket);
            }
        }
        self.retract(index);
        let mut received = vec![0; self.table[index].unread()];
        self.copy_out(index, &mut received);
        let slot = &mut self.table[index];
        let (error, connecting, ended) = (slot.error.take(), slot.connecting, slot.ended);
        self.drop_queue(index);
        self.cancel_all(index);
        let index = socket.release();
        self.table.leave_row(index);
        let sock = self.table[index].sock.take().expect("a handle's socket is open");
        self.free_if_over(index);
        Ok(Parcel { sock, received: Carried::new(received), error, connecting, ended })
    }

    pub(super) fn unpack(&mut self, parcel: Parcel) -> Result<Socket, ConnError> {
        let Parcel { sock, received, error, connecting, ended } = parcel;
        let socket = self.table.insert(sock, connecting).map_err(|sock| {
            drop(sock.for_reset());
            ConnError::Exhausted
        })?;
        let slot = &mut self.table[socket.slot()];
        slot.failed = error.is_some();
        (slot.carried, slot.error, slot.ended, slot.travelled) = (received, error, ended, true);
        Ok(socket)
    }

    /// Tells how a connection stands that has come from another core.
    pub(super) fn tell_arrival(&mut self, index: u32) {
        let slot = &self.table[index];
        let (readable, ended, failed) = (!slot.is_drained() || slot.ended, slot.ended, slot.failed);
        self.tell(index, |ready| {
            (ready.readable, ready.peer_finished, ready.failed) = (readable || failed, ended, failed);
            ready.writable = true;
        });
    }
}
