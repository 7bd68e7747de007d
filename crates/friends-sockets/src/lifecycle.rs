//! Descriptors come and go, and with them processes and programs.

use std::net::Ipv6Addr;

use midmile_friends::{Plain, Reader, Writer};

use crate::board;
use crate::end::{End, Way};
use crate::figures::{self, Figure};
use crate::link::{LEFT, Link, SHARED};
use crate::sys::{ask, call, futex, map};
use crate::table::{self, Held};
use crate::{family, far, lock, process, ready, receive, settings, tap};

/// The library begins in this process, before the program.
pub fn begin() {
    settings::read();
    process::begin();
    family::begin();
    if map::is_filtered() {
        // What else is allowed isn't known, and what isn't may be death.
        settings::disable();
    } else if settings::enabled() {
        process::be_reached();
        far::begin();
    }
}

/// The process is about to give up system calls (seccomp(2)). Ours would be its end then: its connections are the kernel's alone from
/// here on, and whatever it opens stays so.
pub fn confining() {
    if !process::owns_tables() {
        return;
    }
    settings::disable();
    table::each(|fd, held| {
        held.link.withdraw();
        plain(fd, held, Plain::Unknown, true);
    });
    table::each(|fd, held| {
        if held.is_plain() {
            lost(fd);
        }
    });
    process::confine();
}

/// The process is about to fork. Whose socket a peer can reach then isn't known any more, so doorbells stand for all that is in a ring.
pub fn forking() {
    let fork = process::forking();
    table::each_once(|fd, held| {
        held.is_shared_by(fork);
        held.link.bell.end_rest();
        if !held.is_friend() {
            held.share();
        } else if let Ok((segment, side)) = held.link.segment() {
            segment.hold(side);
            held.link.mark(SHARED, true);
            let writer = segment.outgoing(side);
            if let Ok(_held) = lock::of_writer(&writer)
                && writer.keep_rung().is_ok()
            {
                held.link.ring(fd, &writer);
            }
        }
    });
}

/// There's no child: it couldn't be made. What was counted for it is taken back, but where another thread forks too.
pub fn unforked() {
    let fork = process::this_fork();
    table::each_once(|_, held| {
        if !held.was_shared_by(fork) {
            return;
        }
        if !held.is_friend() {
            held.unshare();
        } else if let Ok((segment, side)) = held.link.segment() {
            // This process holds it still.
            let _last = segment.release(side);
        }
    });
}

/// This is a child after fork.
pub fn forked() {
    process::begin();
    if settings::enabled() {
        process::be_reached();
    }
    table::forked();
    board::forked();
}

/// The process exits, its threads may still run: the kernel will close what is open.
pub fn exiting() {
    if !process::owns_tables() || !process::first_exit() {
        return;
    }
    table::each_once(|fd, held| {
        if held.is_friend() {
            leave(Some(fd), held);
        } else {
            held.leave_family();
        }
    });
    figures::write();
}

/// A connection was accepted, or `connect`ed, by `connecting` at that time. `peer`: its address, if it was at hand.
#[inline]
pub fn begun(fd: i32, peer: Option<Ipv6Addr>, connecting: Option<u64>) {
    if !settings::enabled() || table::is_stdio(fd) {
        return;
    }
    if far::is_far(fd, peer, connecting) {
        return figures::add(Figure::Far, 1);
    }
    table::begin(fd, connecting);
}

/// A descriptor that is being closed.
pub struct Closing {
    held: Held,
    is_last: bool,
}

/// A descriptor is about to be closed or replaced: takes it out of the table. [`closed`] is to be called after it.
#[inline]
pub fn closing(fd: i32) -> Option<Closing> {
    if table::knows(fd) { closing_known(fd) } else { None }
}

#[inline(never)]
fn closing_known(fd: i32) -> Option<Closing> {
    // A child of vfork closes its copy, and not its parent's.
    if table::is_epoll(fd) && process::owns_tables() {
        table::forget_epoll(fd);
        table::each_once(|_, held| held.link.bell.lose_epoll(fd));
    }
    let held = table::find(fd)?;
    // One that is no friend may be forgotten, be it another process's: it stays plain there.
    if held.is_friend() && !process::owns_tables() {
        return None;
    }
    table::remove(fd);
    let is_last = held.depart();
    if held.is_friend() {
        if is_last {
            if held.link.is_held_once() {
                held.link.bell.hush();
            }
            leave(Some(fd), &held);
        } else if let Some(other) = table::other(fd, &held) {
            held.link.is_at(other);
        }
    }
    Some(Closing { held, is_last })
}

/// The number of a descriptor is another's by now: the end that it was goes, where this library didn't see it closed.
#[inline]
pub fn lost(fd: i32) {
    table::unexpect(fd);
    if table::is_end(fd) {
        lost_end(fd);
    }
}

#[cold]
fn lost_end(fd: i32) {
    if process::owns_tables()
        && let Some(held) = table::remove(fd)
    {
        let is_last = held.depart();
        if held.is_friend() && is_last {
            leave(None, &held);
        }
        closed(&Closing { held, is_last });
    }
}

/// Sees that a descriptor's end, if it has one, is still of this very socket. Of one that libc's own calls serve for good that matters to nobody but
/// the next socket of that number, which may become a friend a little later: it's asked for now and then. Nor is one asked for that an epoll
/// has just shown to be it, for programs that take their sockets out and put them in again.
#[inline]
pub fn renew(fd: i32) {
    if table::is_end(fd) {
        renew_end(fd);
    }
}

#[inline(never)]
fn renew_end(fd: i32) {
    let is_sure = |end: &End| {
        if end.has_given_up() { !end.link.lookout.is_due() } else { end.link.was_shown() }
    };
    if !table::is(fd, is_sure) && table::find(fd).is_some_and(|held| !held.link.identify(fd)) {
        lost_end(fd);
    }
}

/// The descriptor that was [`closing`] is closed.
pub fn closed(closing: &Closing) {
    if closing.is_last {
        closing.held.ends();
    }
}

/// This process leaves a connection. If none of its holders is left, the peer is told as TCP would tell it. `fd`: the socket, if it's
/// still there.
fn leave(fd: Option<i32>, held: &Held) {
    let link = &held.link;
    let Ok((segment, side)) = link.segment() else { return };
    if link.is(LEFT) {
        return left_before(fd, link);
    }
    link.mark(LEFT, true);
    let by_ring = link.is_engaged() && !link.is_plain(Way::In);
    let fd = fd.filter(|fd| by_ring && link.is_of(*fd));
    if !segment.release(side) {
        // Another process holds it too, or was killed and is counted still: then a doorbell left behind would be a reset.
        if let Some(fd) = fd {
            receive::swallow_before_data(fd, link);
        }
        return;
    }
    link.withdraw();
    tap::tell_over(link);
    let (writer, reader) = (segment.outgoing(side), segment.incoming(side));
    finish(&writer);
    abandon(&reader);
    let Some(fd) = fd else { return };
    // A doorbell that comes after the end would be a reset.
    receive::await_writer(&segment.outgoing(side.other()));
    // A connection that is closed with bytes unread is reset (RFC 9293, 3.6.1); doorbells are none.
    if reader.available().is_ok_and(|bytes| bytes > 0) {
        link.linger_was(ask::linger(fd));
        call::set_linger(fd, call::NO_LINGER);
    } else {
        receive::swallow_before_data(fd, link);
    }
}

/// Something that runs at the process's exit closes a connection of which the process has taken leave: what it has read since
/// makes no reset.
fn left_before(fd: Option<i32>, link: &Link) {
    let Some(fd) = fd.filter(|fd| link.is_of(*fd)) else { return };
    if link.reader().is_ok_and(|reader| reader.available() == Ok(0)) {
        receive::swallow_before_data(fd, link);
        if let Some(linger) = link.lingered() {
            call::set_linger(fd, linger);
        }
    }
}

/// The program is about to put a descriptor of its own where one of ours stands: an offer that it was for can't be taken up any more, and a pipe's
/// doorbells come by TCP.
pub fn make_way(fd: i32) {
    table::each(|own, held| {
        held.link.lose_offer(fd);
        if held.link.bell.is_at(fd)
            && let Some(registered) = held.link.bell.lose(&held.link, fd)
        {
            ready::lost_pipe(own, held, registered);
        }
    });
    board::make_way(fd);
    table::unhide(fd);
}

/// Notes that nothing more is written, and wakes the peer's readers.
fn finish(writer: &Writer<'_>) {
    if writer.finish().futex {
        futex::wake(writer.reader_futex(), i32::MAX);
    }
}

/// Notes that nothing more is read, and wakes the peer's writers.
fn abandon(reader: &Reader<'_>) {
    if reader.leave() {
        futex::wake(reader.writer_futex(), i32::MAX);
    }
}

/// `new` is the same as `old` from now on.
pub fn same(old: i32, new: i32) {
    if let Some(held) = table::find(old) {
        if process::owns_tables() {
            table::same(new, &held);
            if held.is_friend() {
                held.link.is_at(new);
            }
            if table::is_stdio(new) {
                plain(new, &held, Plain::Exec, true);
            }
        } else {
            // In a child of vfork, whose copies no table has: they are the next program's.
            plain(old, &held, Plain::Exec, false);
        }
    }
}

/// Someone is to use the descriptor whom the library doesn't see: stdio, or another program.
pub fn give_away(fd: i32, why: Plain) {
    if let Some(held) = table::find(fd) {
        plain(fd, &held, why, true);
    }
}

/// `leaves`: this process won't read what the ring holds.
fn plain(fd: i32, held: &Held, why: Plain, leaves: bool) {
    held.give_up();
    if held.is_friend() {
        held.link.stay_plain(fd, why);
        if leaves && held.link.reader().is_ok_and(|reader| reader.available().is_ok_and(|bytes| bytes > 0)) {
            figures::add(Figure::LeftInRing, 1);
            // Bytes that nobody will read: lost in silence they must not be.
            if why != Plain::Exec || held.link.is_held_once() {
                call::reset(fd);
            }
        }
    }
}

/// Another program is about to run with what descriptors it inherits, those that don't close then, beside this one, which reads on.
pub fn inheriting() {
    inherit(false);
}

fn inherit(leaves: bool) {
    table::each(|fd, held| {
        if !ask::closes_on_exec(fd) {
            plain(fd, held, Plain::Exec, leaves);
        }
    });
}

/// The process is about to become another program. If it fails, [`stayed`] is to be called, and the process goes on.
pub fn executing() {
    // A child of vfork has its parent's memory, and the parent goes on.
    inherit(process::owns_tables());
    if !process::owns_tables() {
        return;
    }
    table::each_once(|fd, held| {
        if !held.is_friend() {
            held.leave_family();
        } else if ask::closes_on_exec(fd) {
            leave(Some(fd), held);
        }
    });
}

/// It didn't become another program.
pub fn stayed() {
    if process::owns_tables() {
        table::each_once(|fd, held| {
            if held.is_friend()
                && ask::closes_on_exec(fd)
                && let Ok((segment, side)) = held.link.segment()
            {
                segment.hold(side);
                held.link.mark(LEFT, false);
                if let Some(linger) = held.link.lingered() {
                    call::set_linger(fd, linger);
                }
            }
        });
    }
}

/// Part of a connection is shut down: before the kernel's call.
pub fn shutting(fd: i32, held: &Held, how: i32) {
    if held.is_friend()
        && how != libc::SHUT_RD
        && let Ok(writer) = held.link.writer()
    {
        // Noted first: a reader that finds the end takes it for a peer's that was killed otherwise.
        finish(&writer);
        // What other threads send from here on is the kernel's to answer, before the end as after it.
        held.link.send_plain(fd, Plain::Left);
    }
}

/// Part of a connection was shut down: who waits is told to look.
pub fn shut(held: &Held, how: i32) {
    if !held.is_friend() {
        return;
    }
    let Ok((segment, side)) = held.link.segment() else { return };
    let (writer, reader) = (segment.outgoing(side), segment.incoming(side));
    if how != libc::SHUT_RD {
        // Doorbells can't follow a FIN; what is in the ring needs none: the end wakes too.
        finish(&writer);
    }
    if how != libc::SHUT_WR {
        abandon(&reader);
        // Our own readers: for them the kernel now says the end.
        let peer = segment.outgoing(side.other());
        futex::wake(peer.reader_futex(), i32::MAX);
    }
}
