//! Ends of connections, and what holds between those that are left.
//!
//! A closed connection whose block couldn't be sent at once *lingers*: it has no handle any more, and its slot stays in use until the
//! peer has taken the rest, or has had [`UringConfig::linger_max`](super::UringConfig::linger_max) to do so.

use super::row::Row;
use super::{Uring, socket};
use crate::backend::{Backend, Tag};
use crate::kernel;
use crate::sys::operation::{Name, What};
use crate::time::Time;

impl Uring {
    /// Ends all that is under way for a connection.
    pub(super) fn cancel_all(&mut self, index: u32) {
        self.cancel_recv(index);
        for what in [What::Readable, What::Room, What::Hangup] {
            if self.table[index].armed.has(what) {
                self.ring.cancel(Name { what, of: index });
            }
        }
    }

    /// Closes a connection's socket by whatever `descriptor` makes of it. The slot is free once the last completion is in.
    pub(super) fn close_by(&mut self, index: u32, descriptor: impl FnOnce(kernel::Socket) -> std::os::fd::OwnedFd) {
        self.table.leave_row(index);
        self.drop_queue(index);
        self.drop_pending(index);
        self.cancel_all(index);
        if let Some(sock) = self.table[index].sock.take() {
            self.ring.close(descriptor(sock));
            self.free_if_over(index);
        }
    }

    /// Closes a connection of which all was sent.
    pub(super) fn lay_down(&mut self, index: u32) {
        self.close_by(index, kernel::Socket::for_close);
    }

    pub(super) fn free_if_over(&mut self, index: u32) {
        let slot = &self.table[index];
        if slot.sock.is_none() && slot.armed.none() {
            self.table.remove(index);
        }
    }

    /// Closes a connection once what it has to send has gone.
    pub(super) fn end_in_order(&mut self, index: u32) {
        if let Ok(false) = self.flush_now(index) {
            let until = self.plain.now().after(self.config.linger_max);
            let slot = &mut self.table[index];
            (slot.closing, slot.tag) = (true, Tag(until.as_nanos()));
            self.table.join_row(Row::Lingering, index);
            self.cancel_recv(index);
        } else {
            // All has gone, or nothing can go any more.
            self.lay_down(index);
        }
    }

    /// Until when a connection that lingers may: all linger equally long, so they are in order.
    pub(super) fn lingers_until(&self, index: u32) -> Time {
        Time::from_nanos(self.table[index].tag.0)
    }

    /// Ends closed connections whose peers take nothing.
    pub(super) fn end_lingering(&mut self) {
        let now = self.plain.now();
        while let Some(index) = self.table.first(Row::Lingering)
            && self.lingers_until(index) <= now
        {
            self.close_by(index, kernel::Socket::for_reset);
        }
    }

    /// Closes connections whose handles were dropped.
    pub(super) fn end_dropped(&mut self) {
        let mut dropped = std::mem::take(&mut self.dropped);
        self.table.take_dropped(&mut dropped);
        for index in dropped.drain(..) {
            self.close_by(index, kernel::Socket::into_fd);
        }
        self.dropped = dropped;
    }

    /// Asserts the invariants between connections, buffers, blocks and rows, between polls.
    ///
    /// # Panics
    /// When one of them doesn't hold.
    pub fn check(&mut self) {
        let (mut buffers, mut blocks) = (0, 0);
        for slot in self.table.iter_mut() {
            buffers += usize::from(slot.held);
            blocks += usize::from(slot.block != socket::NONE);
            assert_eq!(slot.held == 0, slot.head == socket::NONE, "a queue's length and its head differ");
            assert_eq!(slot.queued_bytes == 0, slot.head == socket::NONE, "a buffer is held without bytes");
            assert_eq!(slot.pending() == 0, slot.block == socket::NONE, "a block is held without bytes");
            let lingers = slot.closing && slot.sock.is_some();
            assert_eq!(slot.row == Some(Row::Lingering), lingers, "a closed connection is forgotten, or kept");
            assert!(slot.sock.is_some() || slot.row.is_none(), "a slot that nobody has stands in a row");
        }
        assert_eq!(buffers + usize::from(self.ring.offered()), self.next.len(), "a buffer has leaked");
        assert_eq!(blocks + self.blocks.len(), usize::from(self.config.send_blocks), "a block has leaked");
        self.table.check_rows();
        let many = self.config.sockets_max as usize;
        assert!(self.dirty.len().max(self.resting.len()) <= many, "a connection stands in a list twice");
        assert!(self.events.len() <= super::events::max(&self.config), "more events than there can be");
    }
}

impl Drop for Uring {
    /// What closed connections still have to send is given to their sockets, as far as those have room.
    fn drop(&mut self) {
        while let Some(index) = self.table.first(Row::Lingering) {
            // It can't be told to anybody.
            self.flush_now(index).ok();
            self.lay_down(index);
        }
    }
}
