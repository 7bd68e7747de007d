//! A friend's segment, and what this process knows of the socket beside it.

mod lookout;
mod offer;
mod plain;
mod posted;
pub(crate) mod unsure;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lookout::Lookout;
use midmile_friends::{Broken, Reader, Segment, Side, Wake, Writer};

use crate::bell::Bell;
use crate::copying::Copying;
use crate::end::Way;
use crate::figures::{self, Figure};
use crate::gather::Gathering;
use crate::lock;
use crate::looks::Hope;
use crate::recall;
use crate::sleep::CatchUp;
use crate::sys::map::{Mapping, Owned};
use crate::sys::{AGAIN, Errno, STALE, ask, call, futex};
use crate::table;

/// No descriptor.
const NONE: i32 = -1;

/// Calls on the socket don't sleep.
pub(crate) const NONBLOCKING: u32 = 1;
/// The socket's readiness is looked at by means that this library doesn't see.
pub(crate) const WATCHED: u32 = 2;
/// Each arrival has to be told: edge-triggered readiness, SIGIO.
pub(crate) const EDGES: u32 = 16;
/// What this end receives, or sends, is with TCP for good, and nothing else is outstanding: libc's own calls do.
const RECEIVES_PLAIN: u32 = 32;
const SENDS_PLAIN: u32 = 64;
/// The program has set `TCP_NODELAY`.
const NODELAY_WANTED: u32 = 4;
/// It's set.
const NODELAY_SET: u32 = 8;

/// The program was told that the peer has reset the connection, or was killed.
pub(crate) const KILLED: u32 = 256;
/// Whether the peer's socket can be had for a doorbell isn't known: till then doorbells stand for all that is in the ring.
const UNREACHED: u32 = 128;

/// A receive was interrupted in its sleep by the futex: the next one sleeps in the kernel.
pub(crate) const ROUSED: u32 = 2048;

/// Other processes have had the socket too since what its calls do was asked of the kernel: whether they wait is the open file's.
pub(crate) const SHARED: u32 = 4096;

/// This process has taken leave of the connection.
pub(crate) const LEFT: u32 = 8192;

/// Readiness was looked at otherwise than by an epoll of which the [bell](Bell) knows: doorbells go by TCP.
pub(crate) const ELSEWHERE: u32 = 1024;

/// How long what the kernel has shown is taken for true, in nanoseconds.
const SHOWN: u64 = 10_000_000;

/// One end's part. All of it is atomics: calls of many threads look at it.
pub(crate) struct Link {
    /// Which socket it is (`SO_COOKIE`); 0: not known. Asked for when something is kept of the socket that mustn't be another's: that it's
    /// registered with epoll, or a friend. Before that what another socket's bytes come to are counts that aren't the kernel's.
    cookie: AtomicU64,
    /// When the kernel last showed that a descriptor is it, without being asked for that; 0: it didn't.
    shown: AtomicU64,
    start: AtomicUsize,
    length: AtomicUsize,
    attached: AtomicBool,
    /// Whether this end receives by the protocol.
    engaged: AtomicBool,
    /// What the connection is called: one that is over tells no addresses any more.
    name: [AtomicU64; 6],
    /// The number of its entry on the board, and one; 0: none.
    entry: AtomicU32,
    /// The segment's descriptor, as long as the peer may need it.
    offered: AtomicI32,
    /// Sends since it was offered, while nobody has taken it up.
    unanswered: AtomicU32,
    marks: AtomicU32,
    /// `SO_RCVTIMEO` in microseconds; 0: none.
    limit: AtomicU64,
    /// An error that the kernel has told and the program hasn't heard.
    error: AtomicI32,
    pub(crate) gathering: Gathering,
    pub(crate) copying: Copying,
    pub(crate) lookout: Lookout,
    /// `SO_LINGER` before the program was to become another: seconds, or one of those below.
    linger: AtomicI32,
    /// Whether looking before sleeping has been worth it.
    pub(crate) receiving: Hope,
    pub(crate) sending: Hope,
    pub(crate) catching_up: CatchUp,
    /// Doorbells of what comes in, for epoll, and of what goes out.
    pub(crate) bell: Bell,
}

/// `SO_LINGER` wasn't changed, or wasn't set.
const LINGER_KEPT: i32 = -2;
const LINGER_UNSET: i32 = -1;

impl Link {
    pub(crate) const fn new() -> Self {
        Self {
            cookie: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            attached: AtomicBool::new(false),
            engaged: AtomicBool::new(false),
            name: [const { AtomicU64::new(0) }; 6],
            entry: AtomicU32::new(0),
            offered: AtomicI32::new(NONE),
            unanswered: AtomicU32::new(0),
            marks: AtomicU32::new(0),
            limit: AtomicU64::new(0),
            error: AtomicI32::new(0),
            gathering: Gathering::new(),
            copying: Copying::new(),
            lookout: Lookout::new(),
            linger: AtomicI32::new(LINGER_KEPT),
            receiving: Hope::new(),
            sending: Hope::new(),
            catching_up: CatchUp::new(),
            bell: Bell::new(),
        }
    }

    /// Notes which socket it is, where that isn't known yet; whether a descriptor is it. Costs a system call.
    pub(crate) fn identify(&self, fd: i32) -> bool {
        if self.cookie.load(Ordering::Relaxed) != 0 {
            return self.is_of(fd);
        }
        self.cookie.store(ask::cookie(fd).unwrap_or(0), Ordering::Relaxed);
        true
    }

    /// Whether a descriptor is this very socket. Numbers may be closed where this library doesn't see it. Costs a system call.
    pub(crate) fn is_of(&self, fd: i32) -> bool {
        let cookie = self.cookie.load(Ordering::Relaxed);
        cookie == 0 || ask::cookie(fd) == Some(cookie)
    }

    /// The kernel has just done something to a descriptor that it does only to this very socket.
    pub(crate) fn is_shown(&self) {
        self.shown.store(call::about_now(), Ordering::Relaxed);
    }

    /// Whether it did so a moment ago.
    pub(crate) fn was_shown(&self) -> bool {
        call::about_now().wrapping_sub(self.shown.load(Ordering::Relaxed)) < SHOWN
    }

    /// An error that the kernel has told: [`STALE`] where it's of another file or socket, which has the number by now.
    pub(crate) fn seen(&self, fd: i32, error: Errno) -> Errno {
        let strange = matches!(error.0, libc::ENOTSOCK | libc::ENOTCONN | libc::EDESTADDRREQ);
        if strange && table::still(fd, self) && !self.is_of(fd) { STALE } else { error }
    }

    /// Takes a segment; what the socket is like is asked of the kernel. `offer`: the segment's descriptor, for the peer.
    pub(crate) fn begin(&self, fd: i32, mapping: Mapping, side: Side, offer: Option<Owned>) {
        self.start.store(mapping.start, Ordering::Relaxed);
        self.length.store(mapping.length, Ordering::Relaxed);
        self.attached.store(side == Side::Attached, Ordering::Relaxed);
        self.engaged.store(false, Ordering::Relaxed);
        self.error.store(0, Ordering::Relaxed);
        self.lookout.begin();
        self.copying.begin();
        self.linger.store(LINGER_KEPT, Ordering::Relaxed);
        self.limit_is(ask::limit(fd, libc::SO_RCVTIMEO));
        let flags = ask::flags(fd);
        let mut marks = UNREACHED;
        if flags & libc::O_NONBLOCK != 0 {
            marks |= NONBLOCKING;
        }
        if flags & libc::O_ASYNC != 0 {
            marks |= WATCHED | EDGES;
        }
        if ask::number(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY) == Some(1) {
            marks |= NODELAY_WANTED | NODELAY_SET;
        }
        // What was seen of the descriptor before stays: it may be registered for readiness.
        self.marks.fetch_and(WATCHED | EDGES | ELSEWHERE, Ordering::Relaxed);
        self.marks.fetch_or(marks, Ordering::Relaxed);
        let offered = offer.map_or(NONE, |file| {
            table::hide(file.number());
            file.keep()
        });
        self.offered.store(offered, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
        self.is_at(fd);
    }

    /// Says where the peer may find the socket: under this descriptor.
    pub(crate) fn is_at(&self, fd: i32) {
        if let (Ok((segment, side)), Ok(process), Ok(fd)) =
            (self.segment(), u32::try_from(call::process()), u32::try_from(fd))
        {
            segment.placed(side, process, fd);
        }
    }

    /// The segment and which side of it this is. It may be used as long as the end is held.
    pub(crate) fn segment(&self) -> Result<(Segment<'_>, Side), Broken> {
        let start = self.start.load(Ordering::Relaxed);
        let mapping = Mapping { start, length: self.length.load(Ordering::Relaxed) };
        let segment = mapping.segment_again().map_err(|_| Broken::Positions)?;
        let side = if self.attached.load(Ordering::Relaxed) { Side::Attached } else { Side::Offering };
        Ok((segment, side))
    }

    /// Whether the peer last waited on the CPU on which this end is about to.
    pub(crate) fn is_beside_peer(&self) -> bool {
        self.segment().is_ok_and(|(segment, side)| segment.waits_on(side, call::cpu()))
    }

    pub(crate) fn writer(&self) -> Result<Writer<'_>, Broken> {
        self.segment().map(|(segment, side)| segment.outgoing(side))
    }

    pub(crate) fn reader(&self) -> Result<Reader<'_>, Broken> {
        self.segment().map(|(segment, side)| segment.incoming(side))
    }

    pub(crate) fn is(&self, mark: u32) -> bool {
        self.marks.load(Ordering::Relaxed) & mark != 0
    }

    pub(crate) fn mark(&self, mark: u32, on: bool) {
        if on {
            self.marks.fetch_or(mark, Ordering::Relaxed);
        } else {
            self.marks.fetch_and(!mark, Ordering::Relaxed);
        }
    }

    /// How long a receive may wait; `None`: for ever.
    pub(crate) fn limit(&self) -> Option<Duration> {
        let micros = self.limit.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    pub(crate) fn limit_is(&self, limit: Option<Duration>) {
        let micros = limit.map_or(0, |limit| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1));
        self.limit.store(micros, Ordering::Relaxed);
    }

    /// Keeps how the connection would end, which is about to be changed.
    pub(crate) fn linger_was(&self, linger: Option<libc::linger>) {
        let seconds = linger.filter(|linger| linger.l_onoff != 0).map_or(LINGER_UNSET, |linger| linger.l_linger);
        self.linger.store(seconds, Ordering::Relaxed);
    }

    /// What was kept, once.
    pub(crate) fn lingered(&self) -> Option<libc::linger> {
        match self.linger.swap(LINGER_KEPT, Ordering::Relaxed) {
            LINGER_KEPT => None,
            LINGER_UNSET => Some(libc::linger { l_onoff: 0, l_linger: 0 }),
            seconds => Some(libc::linger { l_onoff: 1, l_linger: seconds }),
        }
    }

    /// Keeps an error that the kernel won't tell again.
    pub(crate) fn keep_error(&self, error: i32) {
        self.error.compare_exchange(0, error, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// The error that was kept, once.
    pub(crate) fn kept_error(&self) -> Option<i32> {
        if self.error.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.error.swap(0, Ordering::Relaxed)).filter(|error| *error != 0)
    }

    /// Whether this process alone holds the end.
    pub(crate) fn is_held_once(&self) -> bool {
        self.segment().is_ok_and(|(segment, side)| segment.holders(side) <= 1)
    }

    /// Whether bytes that way are the kernel's alone, for good.
    pub(crate) fn is_plain(&self, way: Way) -> bool {
        self.is(if way == Way::In { RECEIVES_PLAIN } else { SENDS_PLAIN }) && self.error.load(Ordering::Relaxed) == 0
    }

    /// Looks whether bytes that way have become the kernel's alone. The way's lock is held.
    pub(crate) fn settle(&self, fd: i32, way: Way) {
        let Ok((segment, side)) = self.segment() else { return };
        if way == Way::In && segment.incoming(side).is_plain() == Ok(true) {
            self.bell.hush();
            self.mark(RECEIVES_PLAIN, true);
        }
        if way == Way::Out && segment.tally(side).last && segment.outgoing(side).owed() == 0 {
            self.unhurry(fd);
            self.mark(SENDS_PLAIN, true);
        }
    }

    /// Whether an error was kept.
    pub(crate) fn has_error(&self) -> bool {
        self.error.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn is_engaged(&self) -> bool {
        self.engaged.load(Ordering::Acquire)
    }

    /// No receive is under way that began before: from now on this end receives by the protocol.
    pub(crate) fn engage(&self, received: u64) {
        let Ok(reader) = self.reader() else { return };
        reader.engage(received);
        // The ring is empty: nothing can have been missed.
        if self.is(EDGES) {
            reader.watch_edges().ok();
        } else if self.is(WATCHED | NONBLOCKING | UNREACHED) {
            reader.watch().ok();
        }
        self.engaged.store(true, Ordering::Release);
    }

    /// A receive that waits: no doorbells are needed for it, if one can be had where readiness is asked for later. Looked at once, when
    /// both ends share the segment.
    pub(crate) fn settle_bells(&self, fd: i32) {
        if !self.is(UNREACHED) || self.is(NONBLOCKING | WATCHED) {
            return;
        }
        self.mark(UNREACHED, false);
        let (Ok((segment, side)), Ok(reader)) = (self.segment(), self.reader()) else { return };
        if !recall::is_reachable(fd, &segment, side) {
            return;
        }
        let Ok(_held) = lock::of_reader(&reader) else { return };
        if !self.is(NONBLOCKING | WATCHED) && self.is_held_once() {
            reader.unwatch();
            // A peer that forked meanwhile asked for them to stay.
            if segment.holders(side.other()) > 1 {
                reader.watch().ok();
            }
        }
    }

    /// Gives the memory back. No call uses it any more.
    pub(crate) fn end(&self) {
        self.close_offer();
        self.unpost();
        self.bell.end();
        let start = self.start.swap(0, Ordering::Relaxed);
        let mapping = Mapping { start, length: self.length.swap(0, Ordering::Relaxed) };
        self.marks.store(0, Ordering::Relaxed);
        self.cookie.store(0, Ordering::Relaxed);
        self.shown.store(0, Ordering::Relaxed);
        self.engaged.store(false, Ordering::Relaxed);
        if start != 0 {
            mapping.end();
        }
    }

    /// Doorbells must not wait for an acknowledgement of the one before (RFC 896).
    fn hurry(&self, fd: i32) {
        if !self.is(NODELAY_SET) && ask::set_number(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1) {
            self.mark(NODELAY_SET, true);
        }
    }

    /// The program's own bytes wait as it has said.
    pub(crate) fn unhurry(&self, fd: i32) {
        if self.is(NODELAY_SET)
            && !self.is(NODELAY_WANTED)
            && ask::set_number(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 0)
        {
            self.mark(NODELAY_SET, false);
        }
    }

    /// The program has set `TCP_NODELAY` itself.
    pub(crate) fn nodelay_is(&self, on: bool) {
        self.mark(NODELAY_WANTED | NODELAY_SET, on);
    }

    /// What the program is told of `TCP_NODELAY`.
    pub(crate) fn nodelay(&self) -> bool {
        self.is(NODELAY_WANTED)
    }

    /// Does what the writer asks for its reader. The caller holds the writer's lock.
    #[inline]
    pub(crate) fn rouse(&self, fd: i32, writer: &Writer<'_>, wake: Wake) {
        if wake != Wake::default() {
            self.lookout.woken();
            self.rouse_now(fd, writer, wake);
        }
    }

    fn rouse_now(&self, fd: i32, writer: &Writer<'_>, mut wake: Wake) {
        if writer.is_unsure() != (false, false) {
            if !self.find_out(fd, writer) {
                return;
            }
            // What it rang for is maybe taken, and for the rest nobody rang.
            let again = writer.wake_again();
            wake = Wake { futex: wake.futex || again.futex, ..again };
        }
        if wake.futex {
            figures::add(Figure::Wakes, 1);
            futex::wake(writer.reader_futex(), i32::MAX);
        }
        if wake.bells > 0 {
            self.ring(fd, writer);
            self.bell.meet(self);
        }
        if wake.pipe {
            match self.bell.ring(self) {
                Ok(_) => writer.pipe_rang(),
                Err(AGAIN) => writer.pipe_missed(),
                Err(_) => {
                    writer.pipe_missed();
                    // A doorbell by TCP instead, from here on.
                    if writer.keep_rung().is_ok() {
                        self.ring(fd, writer);
                    }
                }
            }
        }
    }

    /// Sends doorbells that are owed; whether all of them went. The caller holds the writer's lock.
    pub(crate) fn ring(&self, fd: i32, writer: &Writer<'_>) -> bool {
        if writer.is_unsure().0 && !self.find_out(fd, writer) {
            return false;
        }
        let owed = writer.owed();
        if owed > 0 {
            self.hurry(fd);
        }
        for _ in 0..owed {
            match call::ring(fd) {
                Ok(()) => {
                    figures::add(Figure::Bells, 1);
                    writer.rang(1);
                }
                Err(crate::sys::AGAIN) => return false,
                Err(error) => {
                    // The connection is over. It was told to us, not to the program.
                    self.keep_error(error.0);
                    return false;
                }
            }
        }
        true
    }

    /// The connection can't go on: it's reset, as one whose bytes were lost.
    pub(crate) fn reset(&self, fd: i32, _why: Broken) -> Errno {
        if !table::still(fd, self) {
            return Errno(libc::EBADF);
        }
        if !self.is_of(fd) {
            return STALE;
        }
        figures::add(Figure::Broken, 1);
        // The kernel says what is left to say: nothing is asked of the segment any more.
        self.mark(SENDS_PLAIN | RECEIVES_PLAIN, true);
        call::reset(fd);
        Errno(libc::ECONNRESET)
    }
}
