//! For a program that calls this crate itself: its sockets of its choice become friends where their peers ask for it too.
//!
//! ```text
//!   begin ──► watched ──► receive, send, shut ──► closing ──► the program closes
//! ```
//!
//! Sockets are TCP's, connected or connecting, don't wait in their calls, and stand in an epoll, edge-triggered or not. From [`watched`] to
//! [`closing`] nothing is sent to them or received from them but by these functions; other calls (options, names, lengths of queues) go to
//! the kernel as ever. That bytes have come into an empty ring is told by the same epoll with the same data, as an event of its own: so who is
//! told receives till less comes than there's room for, or EAGAIN, before waiting again.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{MSG_DONTWAIT, MSG_PEEK, SHUT_WR, epoll_event};
pub use midmile_friends::Figure;
use midmile_friends::Plain;

use crate::end::{Stage, Way};
use crate::figures;
use crate::sys::user::Buffers;
use crate::sys::{AGAIN, Answer, Errno, STALE, call, map, real};
use crate::table::{self, Held};
use crate::{
    befriend, bell, family, lifecycle, options, process, ready, receive as receiving, send as sending, settings,
};

/// Bytes of a connection, both ways, after which nobody is waited for who might still ask for a friend: 64 receives of 64 KiB.
const PATIENCE: u64 = 4 << 20;

/// Most descriptors that friends of this process take beside their sockets: pipes, offers, and the board. Fewer, where the process may have few.
pub const DESCRIPTORS_MAX: u64 = (bell::PIPES_MAX + befriend::OFFERS_MAX + 1) as u64;

/// Why no socket of this process becomes a friend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The directory's path is too long, or doesn't begin at the root.
    Directory,
    /// The process runs under a system call filter: a call of ours could be its end.
    Filtered,
}

/// From now on sockets may become friends of those that meet in `directory`, which is the user's alone. Once in a process is enough; where it's
/// called again, the first directory stays.
///
/// # Errors
/// See [`Refused`]; sockets stay plain then.
pub fn begin(directory: &Path) -> Result<(), Refused> {
    if settings::enabled() {
        return Ok(());
    }
    if map::is_filtered() {
        return Err(Refused::Filtered);
    }
    real::find_all();
    process::begin();
    process::be_reached();
    family::begin();
    if settings::meet_in(directory.as_os_str().as_bytes()) { Ok(()) } else { Err(Refused::Directory) }
}

/// A socket was added to an epoll, for these events, with this data. `dialled`: this side called `connect`.
pub fn watched(epoll: i32, fd: i32, events: u32, data: u64, dialled: bool) {
    lifecycle::renew(fd);
    if table::find(fd).is_none() {
        table::begin(fd, dialled.then(call::about_now));
    }
    ready::registered_by_drainer(epoll, fd, epoll_event { events, u64: data });
}

/// A socket was taken out of an epoll; it may be [`watched`] by another.
pub fn unwatched(epoll: i32, fd: i32) {
    ready::unregistering(epoll, fd);
}

/// Receives what is there, or only looks at it.
///
/// # Errors
/// As recv(2) with `MSG_DONTWAIT`.
pub fn receive(fd: i32, into: &mut [u8], look: bool) -> Answer {
    let Some(held) = table::find(fd) else { return call::draw(fd, into, look) };
    match held.begin(Way::In) {
        Stage::Friend => {
            let flags = MSG_DONTWAIT | if look { MSG_PEEK } else { 0 };
            if look {
                // It may be taken in part, and waited for more.
                ready::tell_each_piece(&held);
            }
            match receive_all(fd, &held, into, flags) {
                Err(STALE) => {
                    lifecycle::lost(fd);
                    call::draw(fd, into, look)
                }
                answer => waited(&held, Way::In, answer),
            }
        }
        Stage::Plain => call::draw(fd, into, look),
        Stage::Counted => {
            let answer = call::draw(fd, into, look);
            counted(fd, &held, Way::In, if look { Ok(0) } else { answer });
            answer
        }
    }
}

/// Receives till the room is full or the ring is empty: a doorbell that stands for what came meanwhile makes no other edge.
fn receive_all(fd: i32, held: &Held, into: &mut [u8], flags: i32) -> Answer {
    let mut got = receiving::receive(fd, held, &mut Buffers::room(into), flags)?;
    let more = || held.link.reader().is_ok_and(|reader| reader.available().is_ok_and(|bytes| bytes > 0));
    while flags & MSG_PEEK == 0 && got > 0 && got < into.len() && more() {
        match receiving::receive(fd, held, &mut Buffers::room(&mut into[got..]), flags) {
            Ok(0) | Err(AGAIN) => break,
            Ok(bytes) => got += bytes,
            Err(error) => {
                // For the next call: these bytes came before it.
                held.link.keep_error(error.0);
                break;
            }
        }
    }
    Ok(got)
}

/// Sends what there's room for. `more`: as `MSG_MORE`, by TCP.
///
/// # Errors
/// As sendmsg(2) with `MSG_DONTWAIT` and `MSG_NOSIGNAL`.
pub fn send(fd: i32, parts: &[std::io::IoSlice<'_>], more: bool) -> Answer {
    let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    let mut buffers = Buffers::slices(parts)?;
    let Some(held) = table::find(fd) else { return call::send_now(fd, &mut buffers, flags) };
    match held.begin(Way::Out) {
        Stage::Friend if buffers.left() > 0 => match sending::send(fd, &held, &mut buffers, flags | MSG_DONTWAIT) {
            Err(STALE) => {
                lifecycle::lost(fd);
                call::send_now(fd, &mut Buffers::slices(parts)?, flags)
            }
            answer => waited(&held, Way::Out, answer),
        },
        Stage::Friend | Stage::Plain => call::send_now(fd, &mut buffers, flags),
        Stage::Counted => {
            let answer = call::send_now(fd, &mut buffers, flags);
            counted(fd, &held, Way::Out, answer);
            answer
        }
    }
}

/// A transfer by the kernel was counted; the end may become a friend now.
fn counted(fd: i32, held: &Held, way: Way, answer: Answer) {
    let moved = answer.unwrap_or(0);
    held.counted(way, moved);
    if moved > 0 {
        befriend::consider(fd, held, way);
    }
}

/// Adds what a transfer moved to what the connection has moved before its peer took the offer up.
fn waited(held: &Held, way: Way, answer: Answer) -> Answer {
    if let Ok(moved) = answer
        && !held.link.is_attached()
    {
        held.waited(way, moved);
    }
    answer
}

/// Finishes sending.
///
/// # Errors
/// As shutdown(2).
pub fn shut(fd: i32) -> Result<(), Errno> {
    let held = table::find(fd);
    if let Some(held) = &held {
        lifecycle::shutting(fd, held, SHUT_WR);
    }
    call::shut(fd, SHUT_WR)?;
    if let Some(held) = &held {
        lifecycle::shut(held, SHUT_WR);
    }
    Ok(())
}

/// A socket is about to be closed, or isn't this crate's any more: what waits for its peer stays to be read.
pub fn closing(fd: i32) {
    table::unexpect(fd);
    if let Some(held) = lifecycle::closing(fd) {
        lifecycle::closed(&held);
    }
}

/// A socket is about to be used by others, who know nothing of friends: it's plain from here on.
pub fn give_away(fd: i32) {
    lifecycle::give_away(fd, Plain::Passed);
}

/// Whether bytes this way are the kernel's alone, for good, so that it may move them itself (splice). It's so decided where nobody has asked for
/// a friend for long.
#[must_use]
pub fn is_plain(fd: i32, way: Way) -> bool {
    let Some(held) = table::find(fd) else { return true };
    let long = || held.tallied(Way::Out).1 + held.tallied(Way::In).1 >= PATIENCE;
    if held.is_counted() && long() {
        held.give_up();
    } else if held.is_friend() && !held.link.is_attached() && long() {
        held.link.expire(fd);
    }
    if held.is_friend() { held.link.is_plain(way) } else { held.is_plain() }
}

/// An error that the kernel has told of a socket and won't tell again.
#[must_use]
pub fn error(fd: i32) -> Option<i32> {
    options::asked(&table::find(fd)?, libc::SOL_SOCKET, libc::SO_ERROR)
}

/// Bytes sent that stand in a ring, unread.
#[must_use]
pub fn unread(fd: i32) -> usize {
    let Some(held) = table::find(fd).filter(|held| held.is_friend()) else { return 0 };
    held.link.writer().ok().and_then(|writer| writer.unread().ok()).unwrap_or(0)
}

/// What this process did, by the names that `midmile friends status` has for it.
pub fn figures() -> impl Iterator<Item = (Figure, u64)> {
    Figure::ALL.iter().map(|&figure| (figure, figures::count(figure)))
}
