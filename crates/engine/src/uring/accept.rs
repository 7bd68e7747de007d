//! Listeners: connections are accepted by the kernel as they come, and wait here in a bounded queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, SocketFlags};

use super::Uring;
use super::socket::Socket;
use crate::addr::Addr;
use crate::backend::{AcceptError, Ready, Tag};
use crate::kernel::{self, Listener};
use crate::sys::operation::{Done, Name, What};

/// A listener's place in the ring.
#[derive(Debug)]
pub(super) struct Door {
    /// Which listener it is, for as long as that exists.
    socket: Weak<OwnedFd>,
    tag: Tag,
    /// Accepted by the kernel and by nobody else yet. There's room for as many as completions fit their queue: what one turn brings
    /// may exceed `accepted_max`.
    waiting: VecDeque<OwnedFd>,
    /// Its accept is under way.
    armed: bool,
    cancelling: bool,
    /// It reports.
    watched: bool,
    /// An event has told of it, and the end of the queue hasn't been met since.
    told: bool,
    /// Why its accept ended, if it didn't by us.
    refused: Option<AcceptError>,
}

impl Door {
    fn is_gone(&self) -> bool {
        self.socket.strong_count() == 0
    }

    /// Whether an accept finds something.
    fn has_news(&self) -> bool {
        !self.waiting.is_empty() || self.refused.is_some()
    }
}

const fn name(index: usize) -> Name {
    #[expect(clippy::cast_possible_truncation, reason = "few listeners")]
    Name { what: What::Accept, of: index as u32 }
}

/// What an error of accept(2) means.
fn refusal(errno: Errno) -> AcceptError {
    match errno {
        Errno::AGAIN => AcceptError::Empty,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => AcceptError::Exhausted,
        _ => AcceptError::Failed,
    }
}

impl Uring {
    fn door_of(&self, listener: &Listener) -> Option<usize> {
        let socket = Arc::as_ptr(listener.shared());
        self.doors.iter().position(|door| door.socket.as_ptr() == socket && !door.is_gone())
    }

    pub(super) fn open_door(&mut self, listener: &Listener, tag: Tag) -> io::Result<()> {
        let index = self.door_of(listener).unwrap_or_else(|| {
            let door = Door {
                socket: Arc::downgrade(listener.shared()),
                tag,
                waiting: VecDeque::with_capacity(self.config.accepted_max.max(self.config.completions as usize)),
                armed: false,
                cancelling: false,
                watched: false,
                told: false,
                refused: None,
            };
            // A place is free again once its last completion is in.
            match self.doors.iter().position(|door| door.is_gone() && !door.armed) {
                Some(index) => {
                    self.doors[index] = door;
                    index
                }
                None => {
                    self.doors.push(door);
                    self.doors.len() - 1
                }
            }
        });
        let door = &mut self.doors[index];
        (door.tag, door.watched, door.refused) = (tag, true, None);
        self.arm_door(index);
        Ok(())
    }

    pub(super) fn shut_door(&mut self, listener: &Listener) -> io::Result<()> {
        let index = self.door_of(listener).filter(|index| self.doors[*index].watched);
        let index = index.ok_or(io::ErrorKind::NotFound)?;
        self.doors[index].watched = false;
        self.cancel_door(index);
        // Its accept keeps the socket open, at which others would queue up that nobody meets.
        self.ring.enter(Some(Duration::ZERO))
    }

    fn arm_door(&mut self, index: usize) {
        let door = &mut self.doors[index];
        let room = door.waiting.len() <= self.config.accepted_max / 2;
        if door.watched
            && !door.armed
            && door.refused.is_none()
            && room
            && let Some(socket) = door.socket.upgrade()
        {
            door.armed = true;
            self.ring.accept(socket.as_raw_fd(), name(index).of);
        }
    }

    fn cancel_door(&mut self, index: usize) {
        let door = &mut self.doors[index];
        if door.armed && !std::mem::replace(&mut door.cancelling, true) {
            self.ring.cancel(name(index));
        }
    }

    /// A connection has come, or the accept has ended.
    pub(super) fn accepted(&mut self, done: Done) {
        let index = done.name.of as usize;
        let door = &mut self.doors[index];
        door.armed = done.more;
        if let Some(fd) = done.accepted {
            door.waiting.push_back(fd);
            if door.waiting.len() >= self.config.accepted_max {
                self.cancel_door(index);
            }
        } else if done.result < 0 && !std::mem::take(&mut door.cancelling) {
            let why = refusal(Errno::from_raw_os_error(-done.result));
            door.refused = (why != AcceptError::Empty).then_some(why);
        }
        let door = &mut self.doors[index];
        door.cancelling &= door.armed;
        self.arm_door(index);
    }

    /// Reports listeners at which something waits, and puts those away that were dropped: their clients are reset.
    pub(super) fn report_doors(&mut self) {
        for index in 0..self.doors.len() {
            let door = &mut self.doors[index];
            if door.is_gone() {
                door.waiting.clear();
                self.cancel_door(index);
            } else if door.watched && door.has_news() {
                door.told = true;
                let tag = door.tag;
                self.report(Ready { tag, readable: true, writable: false, peer_finished: false, failed: false });
            }
        }
    }

    /// Whether a listener will report without anything new.
    pub(super) fn doors_have_news(&self) -> bool {
        self.doors.iter().any(|door| door.watched && door.has_news() && !door.is_gone())
    }

    pub(super) fn take_in(&mut self, listener: &Listener) -> Result<(Socket, Option<Addr>), AcceptError> {
        if self.table.is_full() {
            return Err(AcceptError::Exhausted);
        }
        let fd = match self.door_of(listener) {
            Some(index) => self.next_at(index, listener)?,
            None => accept_now(listener)?,
        };
        let sock = kernel::Socket::accepted(fd, listener);
        let socket = self.table.insert(sock, false).map_err(|_| AcceptError::Exhausted)?;
        // An accept that goes on tells nobody's address; asking is a system call.
        Ok((socket, None))
    }

    fn next_at(&mut self, index: usize, listener: &Listener) -> Result<OwnedFd, AcceptError> {
        let door = &mut self.doors[index];
        if let Some(fd) = door.waiting.pop_front() {
            self.arm_door(index);
            return Ok(fd);
        }
        if let Some(why) = door.refused.take() {
            // Out of descriptors, it rests until it's watched again.
            if why != AcceptError::Exhausted {
                self.arm_door(index);
            }
            return Err(why);
        }
        if std::mem::take(&mut door.told) {
            return Err(AcceptError::Empty);
        }
        // Nothing told of any: whoever asks nevertheless is about to close the listener, and wants those the kernel still has.
        accept_now(listener)
    }
}

fn accept_now(listener: &Listener) -> Result<OwnedFd, AcceptError> {
    net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).map_err(refusal)
}
