//! Sending: small messages are gathered in blocks, and handed over together with the wait for events.
//!
//! A turn's messages cost one system call for all connections. Each is sent by an operation that never waits and is over when the
//! call returns, so a block is the kernel's only within it (see [`crate::sys::ring`]), success makes no completion, and a connection
//! holds a block only from a send to the end of the turn, or while its socket is full. What is larger than a block, or finds none,
//! goes by a system call of its own, from where it lies.

use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{self, SendAncillaryBuffer, SendFlags};

use super::Uring;
use super::look::Events;
use super::socket::{NONE, Socket};
use crate::backend::{Backend, Progress, Transfer};
use crate::error::ConnError;
use crate::sys::operation::{Done, Name, What};

const ROOM: u32 = libc::POLLOUT as u32;

/// A length within a block.
fn short(len: usize) -> u16 {
    u16::try_from(len).expect("a block's length is 16 bits wide")
}

impl Uring {
    /// Takes what there is room for. `more`: it waits for what comes behind it.
    pub(super) fn write(&mut self, socket: &Socket, bytes: &[u8], more: bool) -> Transfer {
        let index = socket.slot();
        let slot = &mut self.table[index];
        if let Some(error) = slot.error.take() {
            return Err(error);
        }
        if bytes.is_empty() {
            return Ok(Progress::Blocked);
        }
        if slot.end_due {
            return Err(ConnError::Reset);
        }
        if slot.full {
            return Ok(self.add(index, bytes, more));
        }
        let room = usize::from(self.config.send_block_bytes) - usize::from(slot.filled);
        let at_once = slot.sock().is_deferred() || (more && slot.block == NONE);
        if bytes.len() > room || at_once || (slot.block == NONE && self.blocks.is_empty()) {
            return self.write_now(index, bytes, more);
        }
        Ok(self.add(index, bytes, more))
    }

    /// Takes what there is room for of `parts`: into the block if all of them fit it, else by a system call.
    pub(super) fn write_parts(&mut self, socket: &Socket, parts: &[IoSlice<'_>]) -> Transfer {
        let index = socket.slot();
        let slot = &mut self.table[index];
        if let Some(error) = slot.error.take() {
            return Err(error);
        }
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let room = usize::from(self.config.send_block_bytes) - usize::from(slot.filled);
        let has_block = slot.block != NONE || !self.blocks.is_empty();
        if slot.full || slot.sock().is_deferred() || (len <= room && has_block) || !self.flush_now(index)? {
            let mut sent = 0;
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let Progress::Moved(bytes) = self.write(socket, part, false)? else { break };
                sent += bytes;
                if bytes < part.len() {
                    break;
                }
            }
            return Ok(if sent == 0 { Progress::Blocked } else { Progress::Moved(sent) });
        }
        self.after_write(index, false, len, |uring| uring.plain.send_vectored(uring.table[index].sock(), parts))
    }

    /// Puts what there's room for behind what is pending.
    fn add(&mut self, index: u32, bytes: &[u8], more: bool) -> Progress {
        let slot = &mut self.table[index];
        if slot.block == NONE {
            let Some(block) = self.blocks.pop() else {
                slot.wants_room = true;
                return Progress::Blocked;
            };
            (slot.block, slot.from, slot.filled) = (block, 0, 0);
        }
        let free = &mut self.ring.block(slot.block)[usize::from(slot.filled)..];
        let len = bytes.len().min(free.len());
        free[..len].copy_from_slice(&bytes[..len]);
        slot.filled += short(len);
        slot.more = more;
        slot.wants_room |= len < bytes.len();
        if !slot.full && !std::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(index);
        }
        if len == 0 { Progress::Blocked } else { Progress::Moved(len) }
    }

    /// Sends what is pending and `bytes` by a system call, and looks for room if it isn't all.
    fn write_now(&mut self, index: u32, bytes: &[u8], more: bool) -> Transfer {
        let slot = &mut self.table[index];
        let pending = slot.pending();
        if pending == 0 {
            let deferred = slot.sock().is_deferred();
            return self.after_write(index, deferred, bytes.len(), |uring| {
                let sock = uring.table[index].sock();
                if more { uring.plain.send_ahead(sock, bytes) } else { uring.plain.send(sock, bytes) }
            });
        }
        slot.sock().before_send();
        let flags = SendFlags::NOSIGNAL | if more { SendFlags::MORE } else { SendFlags::empty() };
        let block = &self.ring.block(slot.block)[usize::from(slot.from)..usize::from(slot.filled)];
        let pieces = [IoSlice::new(block), IoSlice::new(bytes)];
        let sent = match net::sendmsg(slot.sock().as_fd(), &pieces, &mut SendAncillaryBuffer::default(), flags) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(errno) => {
                self.drop_pending(index);
                return Err(errno.into());
            }
        };
        if sent < pending {
            slot.from += short(sent);
        } else {
            self.drop_pending(index);
        }
        let moved = sent.saturating_sub(pending);
        if sent < pending + bytes.len() {
            self.look_for_room(index);
            self.table[index].wants_room |= !bytes.is_empty();
        }
        Ok(if moved == 0 { Progress::Blocked } else { Progress::Moved(moved) })
    }

    /// Does a write of the kernel's, with nothing pending, and looks for room if it moved less than `len` bytes.
    fn after_write(
        &mut self,
        index: u32,
        deferred: bool,
        len: usize,
        write: impl FnOnce(&mut Self) -> Transfer,
    ) -> Transfer {
        let answer = write(self);
        if let Ok(progress) = answer
            && progress != Progress::Moved(len)
        {
            self.look_for_room(index);
            self.table[index].wants_room = true;
        }
        if deferred {
            // The SYN is on its way.
            self.arm(index);
        }
        answer
    }

    /// Sends what is pending now. `Ok(false)`: some of it is pending still, and room is looked for.
    pub(super) fn flush_now(&mut self, index: u32) -> Result<bool, ConnError> {
        if self.table[index].pending() == 0 {
            return Ok(true);
        }
        self.write_now(index, &[], false)?;
        Ok(self.table[index].pending() == 0)
    }

    pub(super) fn drop_pending(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if slot.block != NONE {
            self.blocks.push(std::mem::replace(&mut slot.block, NONE));
            (slot.from, slot.filled, slot.more) = (0, 0, false);
        }
    }

    /// The socket is full: an event will tell when it isn't.
    fn look_for_room(&mut self, index: u32) {
        let slot = &mut self.table[index];
        slot.full = true;
        if !slot.armed.has(What::Room) && slot.sock.is_some() {
            slot.armed.set(What::Room);
            self.ring.look(slot.fd(), ROOM, false, Name { what: What::Room, of: index });
        }
    }

    /// Looks for a dial's end.
    pub(super) fn await_connection(&mut self, index: u32) {
        self.look_for_room(index);
    }

    /// Queues an operation for each connection with something to send. [`Uring::sort_sent`] follows the call that hands them over.
    pub(super) fn queue_sends(&mut self) {
        while let Some(index) = self.dirty.pop() {
            let slot = &mut self.table[index];
            if !std::mem::take(&mut slot.dirty) || slot.pending() == 0 || slot.full || slot.sock.is_none() {
                continue;
            }
            slot.sock().before_send();
            self.ring.send(slot.fd(), slot.block, slot.from..slot.filled, slot.more, index);
            self.sent.push(index);
        }
    }

    /// Takes the blocks back of all sends that nothing was said about: they have gone.
    pub(super) fn sort_sent(&mut self) {
        while let Some(index) = self.sent.pop() {
            if !self.table[index].full {
                self.drop_pending(index);
            }
        }
    }

    /// A send went in part, or failed.
    pub(super) fn send_came_short(&mut self, done: &Done) {
        let index = done.name.of;
        let slot = &mut self.table[index];
        match done.result {
            0.. => {
                slot.from +=
                    short(usize::try_from(done.result).expect("it isn't negative")).min(slot.filled - slot.from);
                self.look_for_room(index);
            }
            failure => match Errno::from_raw_os_error(-failure) {
                Errno::AGAIN | Errno::INTR | Errno::CANCELED => self.look_for_room(index),
                errno => self.send_failed(index, errno.into()),
            },
        }
    }

    /// What was to be sent can't be: the next transfer says so, and an event does.
    fn send_failed(&mut self, index: u32, error: ConnError) {
        self.drop_pending(index);
        let slot = &mut self.table[index];
        if slot.closing {
            self.lay_down(index);
            return;
        }
        slot.error.get_or_insert(error);
        if slot.armed.has(What::Recv) {
            // What came before the failure is read before it is told.
            slot.failure_due = true;
            self.cancel_recv(index);
        } else {
            slot.failed = true;
            self.tell(index, |ready| (ready.readable, ready.failed) = (true, true));
        }
    }

    /// There is room to write, or a dial has come to stand, or failed.
    pub(super) fn room_came(&mut self, done: &Done) {
        let index = done.name.of;
        let slot = &mut self.table[index];
        slot.armed.clear(What::Room);
        slot.full = false;
        if slot.sock.is_none() {
            self.free_if_over(index);
            return;
        }
        let seen = Events::of(done.result);
        if std::mem::take(&mut slot.connecting) {
            slot.failed = seen.failed;
            self.arm(index);
            self.tell(index, |ready| {
                ready.writable = seen.room;
                ready.readable |= seen.failed;
                ready.peer_finished |= seen.end;
                ready.failed |= seen.failed;
            });
            return;
        }
        match self.flush_now(index) {
            Ok(true) => self.drained(index),
            Ok(false) => {}
            Err(error) => self.send_failed(index, error),
        }
    }

    /// Nothing is pending any more, and there's room.
    fn drained(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if slot.closing {
            self.lay_down(index);
            return;
        }
        if std::mem::take(&mut slot.end_due) {
            // It fails only on a connection that has failed, which receiving finds out.
            self.plain.shutdown(slot.sock()).ok();
        }
        if std::mem::take(&mut slot.wants_room) {
            self.tell(index, |ready| ready.writable = true);
        }
    }

    pub(super) fn write_end(&mut self, socket: &Socket) -> Result<(), ConnError> {
        let index = socket.slot();
        if self.flush_now(index)? {
            return self.plain.shutdown(self.table[index].sock());
        }
        self.table[index].end_due = true;
        Ok(())
    }

    pub(super) fn push_out(&mut self, socket: &Socket) {
        let index = socket.slot();
        self.table[index].more = false;
        if let Err(error) = self.flush_now(index) {
            self.table[index].error.get_or_insert(error);
        }
        self.plain.push(self.table[index].sock());
    }

    pub(super) fn begin_now(&mut self, socket: &Socket) -> Result<(), ConnError> {
        let index = socket.slot();
        let deferred = self.table[index].sock().is_deferred();
        self.plain.begin(self.table[index].sock())?;
        if deferred {
            self.arm(index);
        }
        Ok(())
    }

    pub(super) fn write_pipe(&mut self, pipe: &mut crate::kernel::Pipe, socket: &Socket, len: usize) -> Transfer {
        let index = socket.slot();
        if let Some(error) = self.table[index].error.take() {
            return Err(error);
        }
        if self.table[index].full || !self.flush_now(index)? {
            self.table[index].wants_room = true;
            return Ok(Progress::Blocked);
        }
        let deferred = self.table[index].sock().is_deferred();
        self.after_write(index, deferred, len, |uring| uring.plain.splice_out(pipe, uring.table[index].sock(), len))
    }
}
