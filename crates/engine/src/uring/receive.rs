//! Receiving: the kernel fills buffers as bytes come, and each connection has a bounded queue of them.
//!
//! ```text
//!              bytes come                            read, all of it
//!   ┌─► armed ────────────► queue of buffers ───────────────────────────┐
//!   │     │ queue full: cancelled     │ unread: the kernel's window     │
//!   │     │ no buffers: it ended      ▼ closes; a look for the peer's   │
//!   │     ▼                         end alone stays                     │
//!   │   plain: read by system calls, told of by looks  ◄────────────────┤
//!   └───────────────────────────────────────────────────────────────────┘  little came: armed again
//! ```
//!
//! A connection that is *plain* needs no buffers, so those without any never wait for another connection to be read. Bulk is
//! plain as well: a read of 64 KiB into its place is cheaper than 32 buffers and a copy, and splice(2) can have the socket.
//!
//! # Order
//! What is queued came before what the kernel has. So the queue is read first, and the kernel directly only while no receive is
//! armed: from arming until the last completion its bytes come by completions alone.

use rustix::io::Errno;

use super::Uring;
use super::row::Row;
use super::socket::{NONE, Slot, Socket};
use crate::backend::{Backend, Progress, Ready, Transfer};
use crate::error::ConnError;
use crate::kernel::{Kernel, Pipe};
use crate::sys::operation::{Done, Name, What};
use crate::sys::ring::Ring;

/// A plain read shorter than this says that little comes: buffers serve again.
const LITTLE_BYTES: usize = 4096;

/// A read that empties so many buffers at once says that much comes: one receive may then fill several.
const MANY_BUFFERS: u16 = 8;

/// Copies what is unread to `buf` and leaves it there.
fn copy_unread(ring: &Ring, next: &[u16], slot: &Slot, buf: &mut [u8]) -> usize {
    let mut copied = 0;
    let mut copy = |bytes: &[u8]| {
        let len = bytes.len().min(buf.len() - copied);
        buf[copied..copied + len].copy_from_slice(&bytes[..len]);
        copied += len;
        copied < buf.len()
    };
    let mut goes_on = slot.carried.as_ref().is_none_or(|carried| copy(carried.unread()));
    let (mut buffer, mut read) = (slot.head, usize::from(slot.read));
    while buffer != NONE && goes_on {
        goes_on = copy(&ring.received(buffer)[read..]);
        read = 0;
        buffer = next[usize::from(buffer)];
    }
    copied
}

impl Uring {
    /// Has `slot` receive into buffers, or by looks where it's better.
    pub(super) fn arm(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if !slot.watched || slot.is_over() || slot.connecting || slot.ended || slot.failed || slot.failure_due {
            return;
        }
        if slot.sock().is_deferred() || slot.armed.has(What::Recv) || slot.armed.has(What::Readable) {
            return;
        }
        if slot.is_drained() && self.ring.offered() < self.low_water {
            slot.plain = true;
        }
        if slot.plain {
            self.look_for_bytes(index);
        } else {
            slot.armed.set(What::Recv);
            self.ring.recv(slot.fd(), index, slot.bundles);
            if !slot.sock().is_tcp() && !slot.armed.has(What::Hangup) {
                // Linux 6.17 asks a Unix-domain socket how much there is after each receive, and the answer leaves the end out: one
                // that came together with the bytes before it would never be received.
                self.look_for_end(index);
            }
        }
    }

    /// Ends `slot`'s receive; its last completion follows.
    pub(super) fn cancel_recv(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if slot.armed.has(What::Recv) && !std::mem::replace(&mut slot.cancelling, true) {
            self.ring.cancel(Name { what: What::Recv, of: index });
        }
    }

    /// Bytes have come, or the receive has ended.
    pub(super) fn received(&mut self, done: &Done) {
        let index = done.name.of;
        self.queue(index, done);
        let slot = &mut self.table[index];
        if done.more {
            if slot.held >= self.config.recv_held_max {
                slot.plain = true;
                self.cancel_recv(index);
            }
            return;
        }
        slot.armed.clear(What::Recv);
        slot.cancelling = false;
        if slot.is_over() {
            self.free_if_over(index);
            return;
        }
        match done.result {
            1.. => self.recv_stopped(index),
            0 => {
                slot.ended = true;
                self.tell_receiver(index, |ready| ready.peer_finished = true);
            }
            failure => self.recv_failed(index, Errno::from_raw_os_error(-failure)),
        }
    }

    fn recv_failed(&mut self, index: u32, errno: Errno) {
        let slot = &mut self.table[index];
        match errno {
            Errno::CANCELED | Errno::INTR | Errno::AGAIN => self.recv_stopped(index),
            Errno::NOBUFS => {
                self.gauges.recv_starved += 1;
                slot.plain = true;
                self.recv_stopped(index);
            }
            errno => {
                slot.error.get_or_insert(errno.into());
                (slot.ended, slot.failed) = (true, true);
                self.tell_receiver(index, |ready| (ready.peer_finished, ready.failed) = (true, true));
            }
        }
    }

    /// Tells of what came with a receive's end, and of a failure that waited for it.
    fn tell_receiver(&mut self, index: u32, what: impl FnOnce(&mut Ready)) {
        let due = std::mem::take(&mut self.table[index].failure_due);
        self.table[index].failed |= due;
        self.tell(index, |ready| {
            ready.readable = true;
            ready.failed |= due;
            what(ready);
        });
        self.look_at_rest(index);
    }

    /// The receive has ended, the stream hasn't.
    pub(super) fn recv_stopped(&mut self, index: u32) {
        let slot = &mut self.table[index];
        if slot.leaving {
            return;
        }
        if slot.failure_due {
            slot.plain = true;
            self.tell_receiver(index, |_| {});
        } else if slot.is_drained() {
            self.arm(index);
        } else {
            self.look_at_rest(index);
        }
    }

    /// Puts what was received into the connection's queue; away, if nobody reads it any more.
    fn queue(&mut self, index: u32, done: &Done) {
        let Some(mut buffer) = done.buffer else { return };
        for left in (0..done.buffers).rev() {
            let following = if left > 0 { self.ring.following(buffer) } else { NONE };
            let slot = &mut self.table[index];
            if slot.is_over() {
                self.ring.give_back(buffer);
            } else {
                let len = self.ring.received(buffer).len();
                slot.queued_bytes += u32::try_from(len).expect("a buffer's length is 16 bits wide");
                // Small pieces that nobody reads are put together, so that they hold no more buffers than large ones.
                if slot.tail == NONE || !self.ring.merge(slot.tail, buffer) {
                    self.next[usize::from(buffer)] = NONE;
                    match slot.tail {
                        NONE => slot.head = buffer,
                        tail => self.next[usize::from(tail)] = buffer,
                    }
                    slot.tail = buffer;
                    slot.held += 1;
                }
            }
            buffer = following;
        }
        if !self.table[index].is_over() {
            self.tell(index, |ready| ready.readable = true);
        }
    }

    /// Drops `len` unread bytes, and gives the buffers back that are empty by that.
    pub(super) fn consume(&mut self, index: u32, len: usize) {
        let slot = &mut self.table[index];
        let mut left = len;
        if let Some(carried) = &mut slot.carried {
            let part = left.min(carried.unread().len());
            carried.consume(part);
            left -= part;
            if carried.unread().is_empty() {
                slot.carried = None;
            }
        }
        slot.queued_bytes -= u32::try_from(left).expect("fewer than are queued");
        while left > 0 {
            let unread = self.ring.received(slot.head).len() - usize::from(slot.read);
            if left < unread {
                slot.read += u16::try_from(left).expect("a buffer's length is 16 bits wide");
                return;
            }
            left -= unread;
            let empty = slot.head;
            slot.head = self.next[usize::from(empty)];
            slot.read = 0;
            slot.held -= 1;
            self.ring.give_back(empty);
        }
        if slot.head == NONE {
            slot.tail = NONE;
        }
    }

    /// Gives all buffers back that a connection holds.
    pub(super) fn drop_queue(&mut self, index: u32) {
        let len = self.table[index].unread();
        self.consume(index, len);
    }

    /// What a read from an empty queue answers; `None` if the kernel is to be asked.
    fn without_queue(&mut self, socket: &Socket) -> Option<Transfer> {
        let slot = &mut self.table[socket.slot()];
        if slot.ended {
            return Some(slot.error.take().map_or(Ok(Progress::Ended), Err));
        }
        if (slot.plain || slot.failed) && !slot.armed.has(What::Recv) {
            return None;
        }
        self.arm(socket.slot());
        Some(Ok(Progress::Blocked))
    }

    pub(super) fn read(&mut self, socket: &Socket, buf: &mut [u8]) -> Transfer {
        let index = socket.slot();
        let copied = self.copy_out(index, buf);
        if copied > 0 {
            let many = self.table[index].held >= MANY_BUFFERS;
            self.consume(index, copied);
            let slot = &mut self.table[index];
            if slot.is_drained() {
                if many && self.bundles && !std::mem::replace(&mut slot.bundles, true) {
                    self.cancel_recv(index);
                }
                self.arm(index);
            }
            return Ok(Progress::Moved(copied));
        }
        if let Some(answer) = self.without_queue(socket) {
            return answer;
        }
        let answer = self.plain_read(index, |plain, sock| plain.recv(sock, buf));
        if let Ok(Progress::Moved(bytes)) = answer
            && bytes < buf.len()
        {
            let slot = &mut self.table[index];
            slot.plain &= bytes >= LITTLE_BYTES;
            self.arm(index);
        }
        answer
    }

    /// Asks the kernel, and sees to it that an event follows where it has nothing.
    fn plain_read(
        &mut self,
        index: u32,
        read: impl FnOnce(&mut Kernel, &mut crate::kernel::Socket) -> Transfer,
    ) -> Transfer {
        let slot = &mut self.table[index];
        let answer = read(&mut self.plain, slot.sock());
        match answer {
            Ok(Progress::Moved(_)) => {}
            Ok(Progress::Blocked) => self.arm(index),
            Ok(Progress::Ended) | Err(_) => {
                slot.ended = true;
                self.look_at_rest(index);
            }
        }
        answer
    }

    /// Copies what is unread, and leaves it.
    pub(super) fn copy_out(&self, index: u32, buf: &mut [u8]) -> usize {
        copy_unread(&self.ring, &self.next, &self.table[index], buf)
    }

    pub(super) fn show(&mut self, socket: &Socket, buf: &mut [u8]) -> Transfer {
        let index = socket.slot();
        let copied = self.copy_out(index, buf);
        if copied > 0 {
            return Ok(Progress::Moved(copied));
        }
        if !self.table[index].failed && self.ring.offered() >= self.low_water {
            // Into buffers with it: a look would tell of the same bytes again and again.
            self.table[index].plain = false;
        }
        if let Some(answer) = self.without_queue(socket) {
            return answer;
        }
        let answer = self.plain_read(index, |plain, sock| plain.peek(sock, buf));
        if let Ok(Progress::Moved(bytes)) = answer
            && bytes < buf.len()
        {
            self.await_buffers(index);
        }
        answer
    }

    /// Has `slot` receive again as soon as there are buffers.
    fn await_buffers(&mut self, index: u32) {
        let slot = &self.table[index];
        if !slot.failed && !slot.ended && slot.row.is_none() {
            self.table.join_row(Row::Starved, index);
        }
    }

    /// Lets those receive again that waited for buffers, in the order in which they came.
    pub(super) fn feed_starved(&mut self) {
        let mut left = self.ring.offered().saturating_sub(self.low_water);
        while left > 0
            && let Some(index) = self.table.first(Row::Starved)
        {
            self.table.leave_row(index);
            self.table[index].plain = false;
            self.arm(index);
            left -= 1;
        }
    }

    pub(super) fn drop_shown(&mut self, socket: &Socket, len: usize) -> Result<(), ConnError> {
        let index = socket.slot();
        let queued = len.min(self.table[index].unread());
        self.consume(index, queued);
        if queued < len {
            // Shown by the kernel.
            self.plain.discard(self.table[index].sock(), len - queued)?;
        }
        let slot = &mut self.table[index];
        if slot.is_drained() {
            self.arm(index);
        } else if !slot.armed.has(What::Recv) && slot.held < self.config.recv_held_max / 2 {
            // The rest of a message is awaited, and this connection is read in pieces.
            if self.ring.offered() < self.low_water {
                self.await_buffers(index);
            } else {
                slot.plain = false;
                self.arm(index);
            }
        }
        Ok(())
    }

    pub(super) fn read_to_pipe(&mut self, socket: &Socket, pipe: &mut Pipe, len: usize) -> Transfer {
        let index = socket.slot();
        let mut moved = 0;
        while moved < len && !self.table[index].is_drained() {
            let slot = &self.table[index];
            let bytes = match &slot.carried {
                Some(carried) => carried.unread(),
                None => &self.ring.received(slot.head)[usize::from(slot.read)..],
            };
            match pipe.fill(&bytes[..bytes.len().min(len - moved)]) {
                Ok(0) => break,
                Ok(bytes) => {
                    moved += bytes;
                    self.consume(index, bytes);
                }
                Err(error) if moved == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.table[index].plain = true;
        if moved > 0 {
            if self.table[index].is_drained() {
                self.cancel_recv(index);
                self.arm(index);
            }
            return Ok(Progress::Moved(moved));
        }
        self.cancel_recv(index);
        if let Some(answer) = self.without_queue(socket) {
            return answer;
        }
        self.plain_read(index, |plain, sock| plain.splice_in(sock, pipe, len))
    }
}
