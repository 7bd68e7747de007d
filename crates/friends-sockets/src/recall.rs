//! What only the peer's socket can send to ours, where the peer makes no call: bytes in a ring that nobody will read there, because the
//! socket is given away, once more by TCP; and doorbells for bytes that were in the ring before readiness was looked at.
//!
//! The peer is of the same user, so its socket can be had (pidfd_getfd(2)), where the
//! kernel lets one process debug the other; where it doesn't, the bytes stay in the ring, and doorbells stand for all that is in a ring from the start.

use midmile_friends::{Plain, Segment, Side};

use crate::figures::{self, Figure};
use crate::lock;
use crate::sys::map::{self, Mapping, Owned};
use crate::sys::user::Buffers;
use crate::sys::{ask, call};

/// Turns the direction that comes in at `side` to TCP, and sends what its ring holds by TCP from the peer's socket, if it can.
/// The peer's writing lock is held, so that nothing is sent behind what the ring holds meanwhile. What only ought to go by TCP, and isn't lost in the
/// ring, does so where it surely fits into the socket.
pub(crate) fn recall(fd: i32, segment: &Segment<'_>, side: Side, why: Plain) {
    let (reader, writer) = (segment.incoming(side), segment.outgoing(side.other()));
    if writer.has_sent_behind() || writer.owed() > 0 {
        return;
    }
    let Ok(_held) = lock::of_reader(&reader) else { return };
    let Ok(length @ 1..) = reader.available() else { return };
    let Some(socket) = socket_of_peer(fd, segment, side) else { return };
    if !matches!(why, Plain::Exec | Plain::Passed) && !fits(&socket, length) {
        return;
    }
    let Ok(room) = Mapping::room(length) else { return };
    let sent = room.with(|bytes| {
        let whole = reader.peek(0, bytes) == Ok(length);
        let _owed = writer.back_to_tcp(why);
        writer.begin_tcp();
        let mut buffers = Buffers::of(bytes);
        let sent = if whole { call::send_now(socket.number(), &mut buffers, 0).unwrap_or(0) } else { 0 };
        // Whoever dozes wakes by what comes by TCP.
        let _wake = writer.sent(sent as u64);
        sent
    });
    room.end();
    if sent == length {
        figures::add(Figure::Recalled, sent as u64);
        crate::receive::skip(&reader, sent);
    } else if sent > 0 {
        // Half of them would come twice, or in another order.
        call::reset(fd);
    }
}

/// Whether so many bytes find room in a socket by which nothing has gone of late: the kernel counts no more than as much again for keeping them.
fn fits(socket: &Owned, length: usize) -> bool {
    let buffer = ask::number(socket.number(), libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap_or(0);
    usize::try_from(buffer).is_ok_and(|buffer| length <= buffer / 2)
}

/// Has a doorbell sent to our socket, from the peer's, for what its ring holds: readiness is looked at from now on. False: none can be had.
pub(crate) fn attract(fd: i32, segment: &Segment<'_>, side: Side) -> bool {
    let writer = segment.outgoing(side.other());
    let Ok(_held) = lock::of_writer(&writer) else { return true };
    let Some(socket) = socket_of_peer(fd, segment, side) else { return false };
    let Ok(bells @ 1..) = writer.attract() else { return true };
    if writer.is_unsure().0 {
        // The peer finds out when it rings next.
        return false;
    }
    // As the peer does before it rings, and undone because the peer doesn't know of it.
    let waits = ask::number(socket.number(), libc::IPPROTO_TCP, libc::TCP_NODELAY) == Some(0)
        && ask::set_number(socket.number(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    for _ in 0..bells {
        if call::ring(socket.number()).is_ok() {
            figures::add(Figure::Bells, 1);
            writer.rang(1);
        }
    }
    if waits {
        ask::set_number(socket.number(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 0);
    }
    true
}

/// Whether the peer's socket can be had now, and no other process than the peer has it.
pub(crate) fn is_reachable(fd: i32, segment: &Segment<'_>, side: Side) -> bool {
    segment.holders(side.other()) == 1 && socket_of_peer(fd, segment, side).is_some()
}

/// The peer's socket, if it can be had, and is the other end of ours.
fn socket_of_peer(fd: i32, segment: &Segment<'_>, side: Side) -> Option<Owned> {
    let (process, descriptor) = segment.place(side.other())?;
    let socket = map::descriptor_of(process, descriptor).ok()?;
    let is_other_end = ask::address(socket.number(), ask::End::Own)? == ask::address(fd, ask::End::Peer)?
        && ask::address(socket.number(), ask::End::Peer)? == ask::address(fd, ask::End::Own)?
        && ask::namespace(socket.number())? == ask::namespace(fd)?;
    is_other_end.then_some(socket)
}
