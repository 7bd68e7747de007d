//! fcntl, ioctl and socket options: what they change for a friend, and what they say of it.

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use midmile_friends::Plain;

use crate::link::{EDGES, ELSEWHERE, Link, NONBLOCKING, WATCHED};
use crate::sys::ask;
use crate::table::Held;

/// `TCP_ZEROCOPY_RECEIVE` (linux/tcp.h).
const TCP_ZEROCOPY_RECEIVE: i32 = 35;

/// Options whose effect doesn't depend on how bytes go.
const HARMLESS_SOCKET: [i32; 13] = [
    libc::SO_REUSEADDR,
    libc::SO_REUSEPORT,
    libc::SO_KEEPALIVE,
    libc::SO_LINGER,
    libc::SO_SNDBUF,
    libc::SO_RCVBUF,
    libc::SO_SNDTIMEO,
    libc::SO_PRIORITY,
    libc::SO_OOBINLINE,
    libc::SO_BUSY_POLL,
    libc::SO_INCOMING_CPU,
    libc::SO_DONTROUTE,
    libc::SO_BROADCAST,
];
const HARMLESS_TCP: [i32; 12] = [
    libc::TCP_KEEPIDLE,
    libc::TCP_KEEPINTVL,
    libc::TCP_KEEPCNT,
    libc::TCP_USER_TIMEOUT,
    libc::TCP_QUICKACK,
    libc::TCP_CONGESTION,
    libc::TCP_NOTSENT_LOWAT,
    libc::TCP_LINGER2,
    libc::TCP_SYNCNT,
    libc::TCP_DEFER_ACCEPT,
    libc::TCP_WINDOW_CLAMP,
    libc::TCP_MAXSEG,
];

/// An option is about to be set to an integer, if it's one.
pub fn setting(fd: i32, held: &Held, level: i32, name: i32, value: Option<i32>) {
    if !held.is_friend() {
        // They're asked for when it becomes one.
        return;
    }
    let link = &held.link;
    match (level, name) {
        (SOL_SOCKET, libc::SO_RCVTIMEO) | (IPPROTO_TCP, libc::TCP_NODELAY) | (IPPROTO_IP | IPPROTO_IPV6, _) => {}
        (SOL_SOCKET, libc::SO_RCVLOWAT) if value.is_none_or(|bytes| bytes > 1) => {
            link.receive_plain(fd, Plain::Option);
        }
        (SOL_SOCKET, libc::SO_RCVLOWAT | libc::SO_ZEROCOPY) => {}
        (IPPROTO_TCP, libc::TCP_CORK) if value != Some(0) => link.send_plain(fd, Plain::Option),
        (IPPROTO_TCP, libc::TCP_CORK) => {}
        (SOL_SOCKET, _) if HARMLESS_SOCKET.contains(&name) => {}
        // What is in the ring is the upper layer's, as what is in the socket.
        (IPPROTO_TCP, libc::TCP_ULP) => link.stay_plain(fd, Plain::Unknown),
        (IPPROTO_TCP, _) if HARMLESS_TCP.contains(&name) => {}
        _ => link.stay_plain(fd, Plain::Option),
    }
}

/// An option was set.
pub fn set(fd: i32, held: &Held, level: i32, name: i32, value: Option<i32>) {
    if held.is_friend() {
        match (level, name) {
            (SOL_SOCKET, libc::SO_RCVTIMEO) => held.link.limit_is(ask::limit(fd, libc::SO_RCVTIMEO)),
            (IPPROTO_TCP, libc::TCP_NODELAY) => held.link.nodelay_is(value.is_some_and(|value| value != 0)),
            _ => {}
        }
    }
}

/// An option is about to be asked for.
pub fn asking(fd: i32, held: &Held, level: i32, name: i32) {
    if held.is_friend() && (level, name) == (IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE) {
        held.link.receive_plain(fd, Plain::Zerocopy);
    }
}

/// Puts right what the kernel has said of an option that is a structure, which lacks what went by the rings.
pub fn complete(held: &Held, level: i32, name: i32, value: &mut [u8]) {
    if !held.is_friend() || level != IPPROTO_TCP {
        return;
    }
    let Ok((segment, side)) = held.link.segment() else { return };
    let (out, into) = (segment.tally(side), segment.tally(side.other()));
    match name {
        // struct tcp_zerocopy_receive: length, recv_skip_hint, inq. What is in the ring is for recv.
        TCP_ZEROCOPY_RECEIVE if into.waiting_bytes > 0 => {
            let waiting = u32::try_from(into.waiting_bytes).unwrap_or(u32::MAX).to_ne_bytes();
            for (at, number) in [(8, [0; 4]), (12, waiting), (16, waiting)] {
                if let Some(place) = value.get_mut(at..at + 4) {
                    place.copy_from_slice(&number);
                }
            }
        }
        // struct tcp_info: tcpi_bytes_acked, tcpi_bytes_received.
        libc::TCP_INFO => {
            for (at, tally, held_back) in [(120, out, out.waiting_bytes), (128, into, 0)] {
                if let Some(place) = value.get_mut(at..at + 8)
                    && let Ok(counted) = <[u8; 8]>::try_from(&*place)
                {
                    let ring = tally.ring_bytes.wrapping_sub(held_back).wrapping_sub(tally.bells);
                    place.copy_from_slice(&u64::from_ne_bytes(counted).wrapping_add(ring).to_ne_bytes());
                }
            }
        }
        _ => {}
    }
}

/// What an option is, where the kernel doesn't say what the program has set or has to hear.
pub fn asked(held: &Held, level: i32, name: i32) -> Option<i32> {
    if !held.is_friend() {
        return None;
    }
    match (level, name) {
        (IPPROTO_TCP, libc::TCP_NODELAY) => Some(i32::from(held.link.nodelay())),
        (SOL_SOCKET, libc::SO_ERROR) => held.link.kept_error(),
        _ => None,
    }
}

/// `SIOCOUTQNSD` (linux/sockios.h).
pub const SIOCOUTQNSD: libc::c_ulong = 0x894b;

/// An ioctl is about to be made. One that may have to do with a connection's bytes, and that isn't known, is for the kernel, which then carries them.
pub fn requesting(fd: i32, held: &Held, request: libc::c_ulong) {
    if held.is_friend() && !is_harmless(request) {
        held.link.stay_plain(fd, Plain::Unknown);
    }
}

/// Whether it's about terminals (0x54, which includes lengths of queues), whose signals come, marks (0x89) or interfaces.
fn is_harmless(request: libc::c_ulong) -> bool {
    matches!(request, 0x5400..=0x54ff | 0x8901..=0x8905 | 0x8910..=0x89df)
}

/// The descriptor's flags were set (`F_SETFL`).
pub fn flags_are(held: &Held, flags: i32) {
    nonblocking_is(held, flags & libc::O_NONBLOCK != 0);
    if flags & libc::O_ASYNC != 0 {
        signals(held);
    }
}

/// A signal is asked for when bytes come.
pub fn signals(held: &Held) {
    held.link.mark(ELSEWHERE, true);
    watch(held, true);
}

/// Whether calls sleep was set.
pub fn nonblocking_is(held: &Held, on: bool) {
    if held.is_friend() {
        held.link.mark(NONBLOCKING, on);
    }
}

/// Readiness is looked at from now on, or edges of it. False: there may be something already that no doorbell stands for.
pub fn watch(held: &Held, edges: bool) -> bool {
    let link: &Link = &held.link;
    link.mark(if edges { WATCHED | EDGES } else { WATCHED }, true);
    let Ok(reader) = link.reader() else { return true };
    if !held.is_friend() || !link.is_engaged() {
        // It's said when the end begins to receive by the protocol.
        return true;
    }
    let Ok(_held) = crate::lock::of_reader(&reader) else { return true };
    let quiet = if edges { reader.watch_edges() } else { reader.watch() };
    quiet.unwrap_or(true) || reader.view().is_ok_and(|view| view.bells > 0)
}

/// Bytes that weren't acknowledged (`SIOCOUTQ`), where the kernel counts `counted`: in a stretch of the ring those are doorbells.
pub fn unacknowledged(held: &Held, counted: i32) -> i32 {
    let Ok((segment, side)) = held.link.segment() else { return counted };
    if held.is_friend() && segment.tally(side).ring { 0 } else { counted }
}

/// Bytes that wait to be read (`FIONREAD`), where the kernel counts `counted`.
pub fn unread(held: &Held, counted: i32) -> i32 {
    let Ok(reader) = held.link.reader() else { return counted };
    if !held.is_friend() || !held.link.is_engaged() {
        return counted;
    }
    let Ok(_held) = crate::lock::of_reader(&reader) else { return counted };
    let Ok(view) = reader.view() else { return counted };
    let data = i64::from(counted).saturating_sub_unsigned(view.bells).max(0);
    let data = if view.tcp { data } else { 0 };
    let all = data.saturating_add_unsigned(view.ring as u64);
    i32::try_from(all).unwrap_or(i32::MAX)
}
