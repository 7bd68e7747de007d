//! How an end becomes a friend: it offers a segment, or attaches to what its peer has offered.
//!
//! Before that the kernel is asked what it counted. Where its counts and ours differ, bytes went by that the library hasn't seen (by a
//! system call of the program's own, io_uring, or stdio), and the connection stays plain.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use midmile_friends::{CAPACITY_DEFAULT, Name, Plain, Segment, Side, State, segment_bytes};

use crate::board;
use crate::end::{End, Way};
use crate::figures::{self, Figure};
use crate::lifecycle;
use crate::link::WATCHED;
use crate::meeting::{self, Offer};
use crate::process;
use crate::settings;
use crate::sys::map::{self, Mapping, Owned};
use crate::sys::{Errno, ask, call};
use crate::table::{self, Held};

/// Bytes that a receive has to have seen between two looks for an offer grow by doubling, from as many calls as an offer takes.
const LOOKS_MAX: u32 = 1 << 14;
/// Tries to see the kernel's counts standing still.
const TRIES: u32 = 4;

/// `TCP_INQ` (linux/tcp.h): receives tell how much is left.
const TCP_INQ: i32 = 36;

/// `SO_TIMESTAMP_NEW`, `SO_TIMESTAMPNS_NEW`, `SO_TIMESTAMPING_NEW` (asm-generic/socket.h).
const SO_TIMESTAMPS_NEW: [i32; 3] = [63, 64, 65];

/// A connection whose readiness is looked at, whose doorbells can't go by a pipe, and that moves fewer bytes a call in the mean, stays with TCP as
/// long as that is so: its doorbell would cost what the bytes cost (docs/friends-run.md has the measurement).
const SMALL: u64 = 8192;

/// Offers that nobody has taken up, at least and at most.
const OFFERS_MIN: usize = 16;
pub(crate) const OFFERS_MAX: usize = 256;

/// Segments of a process at once: 512 KiB of memory each, in the end.
const SEGMENTS_MAX: u32 = 1024;

/// How far along the kernel's counts and ours are.
#[derive(Debug, PartialEq, Eq)]
enum Counts {
    Agree,
    /// Something is under way; another time.
    Moving,
    Differ,
}

/// After a call that moved bytes: whether the end should become a friend now, and if so tries it.
pub fn consider(fd: i32, held: &Held, way: Way) {
    let (calls, bytes) = held.tallied(way);
    let after = settings::after();
    // At the first call that reaches the number, then at its doubles.
    let due = calls >= after && (calls / after).is_power_of_two() && calls.is_multiple_of(after);
    let much = bytes >= settings::BYTES && held.first_look();
    if !(due || much) {
        return;
    }
    if way == Way::In && calls > LOOKS_MAX {
        // Nobody has offered for so long: nobody will.
        return held.give_up();
    }
    if held.link.is(WATCHED) && !held.link.bell.may_be() && mean(held) < SMALL {
        return;
    }
    attempt(fd, held, way == Way::Out);
}

/// Bytes of a call that moved some, in the mean.
fn mean(held: &Held) -> u64 {
    let ((sends, out), (receives, into)) = (held.tallied(Way::Out), held.tallied(Way::In));
    (out + into) / u64::from(sends + receives).max(1)
}

fn attempt(fd: i32, held: &Held, may_offer: bool) {
    if settings::enabled() && !board::allows() {
        // It may be allowed later.
        return;
    }
    if !held.link.identify(fd) {
        return lifecycle::lost(fd);
    }
    if !settings::enabled() || ask::number(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) != Some(libc::IPPROTO_TCP) {
        return held.give_up();
    }
    let Some(name) = meeting::name_of(fd) else { return held.give_up() };
    if held.is_shared() || map::mappings() >= SEGMENTS_MAX {
        return;
    }
    match meeting::look_up(&name) {
        Some(offer) if !fits(held, &offer) => meeting::remove(&name),
        Some(offer) if ready(fd, held) => attach(fd, held, &name, &offer),
        Some(_) => {}
        None if may_offer && ready(fd, held) => offer(fd, held, &name),
        None => {}
    }
}

/// Whether an offer can be of this connection, and not of one before it between the same ports.
fn fits(held: &End, offer: &Offer) -> bool {
    offer.time >= held.began() && map::process_lives(offer.process)
}

/// Whether nothing about the socket forbids it. What forbids it for good is noted.
fn ready(fd: i32, held: &End) -> bool {
    if has_options(fd) {
        figures::add(Figure::Options, 1);
        held.give_up();
        return false;
    }
    match counts(fd, held) {
        Counts::Agree => true,
        Counts::Moving => false,
        Counts::Differ => {
            figures::add(Figure::Unseen, 1);
            held.give_up();
            false
        }
    }
}

/// Options that only the kernel can honour.
fn has_options(fd: i32) -> bool {
    let on = |level: i32, name: i32| ask::number(fd, level, name).is_some_and(|value| value != 0);
    ask::number(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT).is_some_and(|value| value > 1)
        || ask::number(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF).is_some_and(|place| place >= 0)
        || SO_TIMESTAMPS_NEW.iter().any(|name| on(libc::SOL_SOCKET, *name))
        || on(libc::SOL_SOCKET, libc::SO_TIMESTAMP)
        || on(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)
        || on(libc::SOL_SOCKET, libc::SO_TIMESTAMPING)
        || ask::number(fd, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE).is_some_and(|rate| rate != -1)
        || on(libc::IPPROTO_TCP, TCP_INQ)
        || on(libc::IPPROTO_TCP, libc::TCP_CORK)
        || ask::has_upper_layer(fd)
}

fn counts(fd: i32, held: &End) -> Counts {
    for _ in 0..TRIES {
        let (out, into) = (held.tallied(Way::Out).1, held.tallied(Way::In).1);
        let (Some(before), Some(unread), Some(unacknowledged), Some(after)) =
            (ask::counted(fd), ask::unread(fd), ask::unacknowledged(fd), ask::counted(fd))
        else {
            return Counts::Differ;
        };
        let still = held.tallied(Way::Out).1 == out && held.tallied(Way::In).1 == into;
        if before != after || !still {
            continue;
        }
        if !before.is_established() {
            return Counts::Moving;
        }
        // The SYN of the side that connects was acknowledged too.
        let sent = before.acknowledged + unacknowledged;
        if sent == out + u64::from(held.has_connected()) && before.received == into + unread {
            return Counts::Agree;
        }
        if !held.is_busy() {
            return Counts::Differ;
        }
    }
    Counts::Moving
}

/// Makes the end a friend of this segment. The caller undoes what it did where this fails.
fn take(
    fd: i32,
    held: &Held,
    name: &Name,
    (mapping, nonce): (Mapping, [u64; 2]),
    side: Side,
    offer: Option<Owned>,
) -> bool {
    let Ok(segment) = mapping.segment(nonce) else { return false };
    held.befriend(|sent, received, receiving| {
        held.link.begin(fd, mapping, side, offer);
        held.link.is_called(table::place(held), *name);
        segment.hold(side);
        if process::is_reached() {
            segment.may_recall(side);
        }
        segment.outgoing(side).begin(sent);
        if receiving == 0 {
            held.link.engage(received);
        }
    })
}

fn attach(fd: i32, held: &Held, name: &Name, offer: &Offer) {
    let opened = open(offer);
    let Ok((mapping, segment)) = opened else {
        figures::add(Figure::Refused, 1);
        // Gone already, as after a crash; or not to be had, as of a process that changed its user.
        return if opened.err() == Some(Errno(libc::ENOENT)) { meeting::remove(name) } else { held.give_up() };
    };
    if !take(fd, held, name, (mapping, offer.nonce), Side::Attached, None) {
        return mapping.end();
    }
    if segment.advance(State::Offered, State::Attached) {
        meeting::remove(name);
        held.link.share();
        figures::add(Figure::Attached, 1);
        figures::add(Figure::Friends, 1);
    } else {
        // Taken back meanwhile: the peer closes.
        held.link.stay_plain(fd, Plain::Left);
    }
}

fn open(offer: &Offer) -> Result<(Mapping, Segment<'static>), Errno> {
    let refused = Errno(libc::EPERM);
    let length = segment_bytes(offer.capacity).map_err(|_| refused)?;
    let file = meeting::open(offer, length)?;
    let mapping = Mapping::of(&file, length)?;
    match mapping.segment(offer.nonce) {
        Ok(segment) if segment.state() == Some(State::Offered) => Ok((mapping, segment)),
        _ => {
            mapping.end();
            Err(refused)
        }
    }
}

fn offer(fd: i32, held: &Held, name: &Name) {
    // Without memory, descriptors or a directory it stays as it is, and is tried again after twice as many calls.
    let Ok((file, mapping, nonce)) = make() else { return };
    let offer = Offer {
        process: call::process(),
        descriptor: file.number(),
        nonce,
        capacity: CAPACITY_DEFAULT,
        time: call::now(),
    };
    if meeting::publish(name, &offer).is_err() {
        // The peer was faster; it's found by the next look.
        return mapping.end();
    }
    if take(fd, held, name, (mapping, nonce), Side::Offering, Some(file)) {
        figures::add(Figure::Offered, 1);
        return bound(fd);
    }
    meeting::remove(name);
    mapping.end();
}

/// Keeps the offers that nobody has taken up, each of which keeps a descriptor, below a share of the process's descriptors: the oldest
/// makes way for this one.
fn bound(fd: i32) {
    static OFFERS: [AtomicI32; OFFERS_MAX] = [const { AtomicI32::new(0) }; OFFERS_MAX];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let count = (map::descriptors_max() / 16).clamp(OFFERS_MIN, OFFERS_MAX);
    // Zero is none.
    let oldest = OFFERS[NEXT.fetch_add(1, Ordering::Relaxed) % count].swap(fd + 1, Ordering::Relaxed) - 1;
    if oldest != fd
        && let Some(held) = table::find(oldest).filter(|held| held.is_friend())
    {
        held.link.expire(oldest);
    }
}

fn make() -> Result<(Owned, Mapping, [u64; 2]), Errno> {
    let bad = |_| Errno(libc::EINVAL);
    let length = segment_bytes(CAPACITY_DEFAULT).map_err(bad)?;
    let file = map::make(c"midmile-friends", length)?;
    let nonce = [map::random()?, map::random()?];
    let mapping = Mapping::of(&file, length)?;
    match mapping.create(CAPACITY_DEFAULT, nonce) {
        Ok(()) => Ok((file, mapping, nonce)),
        Err(_) => {
            mapping.end();
            Err(Errno(libc::EINVAL))
        }
    }
}
