//! Doorbells for epoll by a pipe, which costs a fraction of a byte by TCP.
//!
//! A pipe of ours stands in the program's epoll beside our socket, with the same data: so whoever waits there, by whatever call, hears of
//! both. The peer opens its other end by `/proc/PID/fd/FD`, as it opens an offer's memory, and from then on writes to it what would
//! have been a doorbell by TCP. Where that isn't to be had, or the socket is registered in a way that two descriptors can't stand
//! for, doorbells stay TCP's.
//!
//! Both ends open the pipe for reading and writing, so that it never hangs up and no write to it is a SIGPIPE. Opened anew it's a file of
//! its own: what closes ours takes it out of the epoll, whatever the peer holds.

mod merge;
mod stand;

pub use merge::merge;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use libc::{EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDNORM, POLLIN, epoll_event};
use midmile_friends::{Broken, Reader};

use crate::figures::{self, Figure};
use crate::link::{EDGES, ELSEWHERE, Link, unsure};
use crate::meeting;
use crate::sys::map::{self, Owned};
use crate::sys::{AGAIN, Answer, Errno, ask, call};
use crate::table::{self, Held};
use stand::Stand;

/// No descriptor.
const NONE: i32 = -1;
/// Most pipes that this process has opened, its own and its peers'.
pub(crate) const PIPES_MAX: usize = 1 << 12;
/// Doorbells that are taken at once: fewer than any pipe holds.
const BELLS: usize = 64;
/// How long a doorbell is waited for that was announced, in nanoseconds.
const PATIENCE_NS: u32 = 20_000_000;
/// Looks for another thread to be done with a registration.
const LOOKS: u32 = 10_000;

/// How far the pipe has come.
const IDLE: u32 = 0;
/// It stands in the epoll, and the peer may open it.
const OFFERED: u32 = 1;
/// Doorbells go by it.
const PIPED: u32 = 2;
/// The socket is registered in a way that needs TCP's, or has been.
const NEVER: u32 = 3;

/// Pipes that are open; those of them that are our own.
static PIPES: AtomicUsize = AtomicUsize::new(0);
static OWN: AtomicUsize = AtomicUsize::new(0);

/// One end's pipe and its peer's, and where the socket is registered. All of it is atomics: calls of many threads look at it.
pub(crate) struct Bell {
    stage: AtomicU32,
    /// Our pipe.
    own: AtomicI32,
    /// The peer's, where it waits for what we send.
    peer: AtomicI32,
    /// The epoll in which our socket is registered, by this descriptor, for these events, with this data.
    epoll: AtomicI32,
    fd: AtomicI32,
    events: AtomicU32,
    data: AtomicU64,
    /// Where our pipe stands.
    stand: Stand,
    /// The writer was told that nobody looks at the pipe.
    silenced: AtomicBool,
    /// A thread changes one of these.
    busy: AtomicU32,
}

/// Who may change a registration; given back when dropped.
struct Busy<'a>(&'a AtomicU32);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Whether a process may open one more.
fn is_room() -> bool {
    PIPES.load(Ordering::Relaxed) < PIPES_MAX.min(map::descriptors_max() / 16)
}

/// Whether epoll may tell of a socket twice, once by its pipe.
pub fn any() -> bool {
    OWN.load(Ordering::Relaxed) > 0
}

/// Descriptors of ends whose doorbells come by pipes, for who looks at them; with more of them nobody does.
const LOOKED_AT: usize = 16;
static PIPED_ENDS: [AtomicI32; LOOKED_AT] = [const { AtomicI32::new(NONE) }; LOOKED_AT];

/// The ends in an epoll whose doorbells come by pipes, at least some of them.
pub(crate) fn in_epoll(epoll: i32) -> [Option<Held>; LOOKED_AT] {
    PIPED_ENDS.each_ref().map(|place| {
        let fd = place.load(Ordering::Relaxed);
        let found = if fd == NONE { None } else { table::find(fd) };
        found.filter(|held| held.link.bell.is_piped() && held.link.bell.epoll.load(Ordering::Relaxed) == epoll)
    })
}

/// Puts `new` where `old` stands.
fn enlist(old: i32, new: i32) {
    let relaxed = Ordering::Relaxed;
    PIPED_ENDS.iter().any(|place| place.compare_exchange(old, new, relaxed, relaxed).is_ok());
}

impl Bell {
    pub(crate) const fn new() -> Self {
        Self {
            stage: AtomicU32::new(IDLE),
            own: AtomicI32::new(NONE),
            peer: AtomicI32::new(NONE),
            epoll: AtomicI32::new(NONE),
            fd: AtomicI32::new(NONE),
            events: AtomicU32::new(0),
            data: AtomicU64::new(0),
            stand: Stand::new(),
            silenced: AtomicBool::new(false),
            busy: AtomicU32::new(0),
        }
    }

    fn is(&self, stage: u32) -> bool {
        self.stage.load(Ordering::Acquire) == stage
    }

    /// Whether doorbells for epoll go by the pipe.
    pub(crate) fn is_piped(&self) -> bool {
        self.is(PIPED)
    }

    /// Whether they may, as far as this end knows.
    pub(crate) fn may_be(&self) -> bool {
        !self.is(NEVER)
            && self.epoll.load(Ordering::Relaxed) != NONE
            && (self.own.load(Ordering::Relaxed) != NONE || is_room())
    }

    /// In a child after fork, to which no other thread came.
    pub(crate) fn forked(&self) {
        self.busy.store(0, Ordering::Relaxed);
    }

    /// `None` where another thread doesn't come to an end, or a handler has interrupted this one here.
    fn enter(&self) -> Option<Busy<'_>> {
        for _ in 0..LOOKS {
            if self.busy.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(Busy(&self.busy));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// What the pipe is registered for.
    fn event(&self) -> epoll_event {
        let kept = (EPOLLIN | EPOLLRDNORM | EPOLLET).cast_unsigned();
        epoll_event { events: self.events.load(Ordering::Relaxed) & kept, u64: self.data.load(Ordering::Relaxed) }
    }

    /// What epoll says of the end where a doorbell stands in its pipe; `None` where only the kernel knows. Whether it waits to write beside.
    pub(crate) fn would_tell(&self) -> (Option<epoll_event>, bool) {
        let mut event = self.event();
        let level = event.events & EPOLLET.cast_unsigned() == 0;
        event.events &= (EPOLLIN | EPOLLRDNORM).cast_unsigned();
        let writes = self.events.load(Ordering::Relaxed) & EPOLLOUT.cast_unsigned() != 0;
        ((level && event.events != 0).then_some(event), writes)
    }

    /// Does to the pipe what was done to the socket: it stands in the epoll where reading is waited for, and else rests there or is taken out.
    fn follow(&self, link: &Link, epoll: i32) -> bool {
        let (own, event) = (self.own.load(Ordering::Relaxed), self.event());
        if own == NONE {
            return true;
        }
        if event.events & (EPOLLIN | EPOLLRDNORM).cast_unsigned() != 0 {
            return self.stand.put(own, epoll, event) && self.resume(link, own);
        }
        match self.stand.epoll() {
            Some(there) => there == epoll && self.rest(link, epoll) || self.stand.leave(own, there),
            None => true,
        }
    }

    /// Lets the pipe rest where it stands, if it's sure to say nothing there till [`Bell::resume`]: a wait that this library doesn't see would
    /// tell of a socket with data that the program may have given up. Whether it does.
    fn rest(&self, link: &Link, epoll: i32) -> bool {
        if self.stand.rests_in(epoll) {
            return true;
        }
        let Ok(reader) = link.reader() else { return false };
        let stands = self.is_piped() && self.stand.epoll() == Some(epoll) && self.stand.is_level();
        // Another process may wait for the same pipe.
        if !stands || reader.piped() > 0 || !link.is_held_once() {
            return false;
        }
        self.silenced.store(true, Ordering::Relaxed);
        let silent = reader.rest_pipe();
        if silent {
            self.stand.rest();
        }
        silent
    }

    /// The pipe is waited for again; whether it says what there is.
    fn resume(&self, link: &Link, own: i32) -> bool {
        if !self.silenced.swap(false, Ordering::Relaxed) {
            return true;
        }
        let Ok(reader) = link.reader() else { return false };
        match reader.resume_pipe() {
            Ok(true) => match call::write_pipe(own, &[0]) {
                Ok(_) => true,
                Err(error) => {
                    reader.pipe_missed();
                    // A full one says enough.
                    error == AGAIN
                }
            },
            answer => answer.is_ok(),
        }
    }

    /// Takes the pipe out where it rests: soon its epoll can't be reached, or isn't this process's alone.
    pub(crate) fn end_rest(&self) {
        let Some(_busy) = self.enter() else { return };
        if let Some(there) = self.stand.epoll().filter(|there| self.stand.rests_in(*there)) {
            self.stand.leave(self.own.load(Ordering::Relaxed), there);
        }
    }

    /// The program has registered the socket, or changed how. True: the pipe tells of what's in the ring.
    pub(crate) fn registered(&self, link: &Link, (epoll, fd): (i32, i32), added: bool, event: epoll_event) -> bool {
        let Some(_busy) = self.enter() else { return self.give_up(link, epoll) };
        let known = (self.epoll.load(Ordering::Relaxed), self.fd.load(Ordering::Relaxed));
        let alone = if added { known.0 == NONE } else { known == (epoll, fd) };
        let single = event.events & (EPOLLONESHOT | EPOLLEXCLUSIVE).cast_unsigned() == 0;
        if self.is(NEVER) || !alone || !single {
            return self.give_up(link, epoll);
        }
        let before = self.event();
        self.fd.store(fd, Ordering::Relaxed);
        self.events.store(event.events, Ordering::Relaxed);
        self.data.store(event.u64, Ordering::Relaxed);
        self.epoll.store(epoll, Ordering::Relaxed);
        let after = self.event();
        if !added && ({ before.events }, { before.u64 }) == ({ after.events }, { after.u64 }) {
            // What it writes is no matter of the pipe's. Edges are told anew, though, to who says the same again.
            let edges = event.events & EPOLLET.cast_unsigned() != 0;
            return self.is_piped() && (!edges || self.follow(link, epoll));
        }
        table::note_epoll(epoll);
        if !self.follow(link, epoll) {
            return self.give_up(link, epoll);
        }
        self.is_piped()
    }

    /// The program takes the socket out of an epoll: before it does. Whether it's known to stand there.
    pub(crate) fn unregistering(&self, link: &Link, (epoll, fd): (i32, i32)) -> bool {
        let Some(_busy) = self.enter() else { return false };
        if self.fd.load(Ordering::Relaxed) != fd {
            return false;
        }
        let known = self.epoll.load(Ordering::Relaxed) == epoll;
        let own = self.own.load(Ordering::Relaxed);
        // An epoll may have several numbers: whether it's this one, it says itself.
        let left = own != NONE && (known && self.rest(link, epoll) || self.stand.leave(own, epoll));
        if left || known {
            self.epoll.store(NONE, Ordering::Relaxed);
        }
        known
    }

    /// Doorbells go by TCP from now on. Answers false.
    fn give_up(&self, link: &Link, epoll: i32) -> bool {
        self.stage.store(NEVER, Ordering::Release);
        self.epoll.store(NONE, Ordering::Relaxed);
        self.leave_all(Some(epoll));
        if let Ok(reader) = link.reader() {
            reader.unwatch_piped();
        }
        false
    }

    /// Takes the pipe out of the epoll that it stands in, and of `other`.
    fn leave_all(&self, other: Option<i32>) {
        let own = self.own.load(Ordering::Relaxed);
        for place in [other, self.stand.epoll()].into_iter().flatten().filter(|_| own != NONE) {
            self.stand.leave(own, place);
        }
    }

    /// A descriptor that is an epoll is about to be closed.
    pub(crate) fn lose_epoll(&self, epoll: i32) {
        if self.stand.rests_in(epoll) {
            self.end_rest();
        }
        self.epoll.compare_exchange(epoll, NONE, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// The socket is about to be closed, by the last process and descriptor that have it: nobody is to hear of it any more.
    pub(crate) fn hush(&self) {
        self.epoll.store(NONE, Ordering::Relaxed);
        self.leave_all(None);
    }

    /// Whether a descriptor is one of the pipes.
    pub(crate) fn is_at(&self, fd: i32) -> bool {
        [&self.own, &self.peer].iter().any(|place| place.load(Ordering::Relaxed) == fd)
    }

    /// The program has put a descriptor of its own in the place of one of the pipes.
    pub(crate) fn lose(&self, fd: i32) {
        for place in [&self.own, &self.peer] {
            if place.compare_exchange(fd, NONE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                PIPES.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if self.own.load(Ordering::Relaxed) == NONE {
            self.stand.forget();
        }
        self.stage.store(NEVER, Ordering::Release);
    }

    /// The next step on the way to the pipe, where a ring that epoll tells of was emptied. The reader's lock is held.
    pub(crate) fn tend(&self, link: &Link, reader: &Reader<'_>) {
        let Ok((segment, side)) = link.segment() else { return };
        match self.stage.load(Ordering::Acquire) {
            IDLE if self.epoll.load(Ordering::Relaxed) != NONE && !link.is(ELSEWHERE) && is_room() => {
                let Some(_busy) = self.enter() else { return };
                if segment.bell(side).is_some() {
                    // Another process's, which the peer rings.
                    return self.stage.store(NEVER, Ordering::Release);
                }
                let epoll = self.epoll.load(Ordering::Relaxed);
                let Ok(pipe) =
                    map::pipe().and_then(|(read, _write)| meeting::open_pipe(call::process(), read.number()))
                else {
                    return self.stage.store(NEVER, Ordering::Release);
                };
                let number = self.keep(&self.own, pipe);
                OWN.fetch_add(1, Ordering::Relaxed);
                let offered = self.follow(link, epoll) && segment.offer_bell(side, call::process(), number);
                let stage = if offered { OFFERED } else { NEVER };
                // Another thread may have given it up.
                self.stage.compare_exchange(IDLE, stage, Ordering::AcqRel, Ordering::Relaxed).ok();
            }
            OFFERED
                if segment.is_bell_taken(side)
                    && !link.is(ELSEWHERE)
                    && reader.watch_piped(link.is(EDGES)) == Ok(true) =>
            {
                // Where another thread gave it up meanwhile, TCP's goes on.
                match self.stage.compare_exchange(OFFERED, PIPED, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => enlist(NONE, self.fd.load(Ordering::Relaxed)),
                    Err(_) => reader.unwatch_piped(),
                }
            }
            _ => {}
        }
    }

    fn keep(&self, place: &AtomicI32, pipe: Owned) -> i32 {
        PIPES.fetch_add(1, Ordering::Relaxed);
        table::hide(pipe.number());
        let number = pipe.keep();
        place.store(number, Ordering::Release);
        number
    }

    /// Opens the peer's pipe, if it has offered one. The writer's lock is held.
    pub(crate) fn meet(&self, link: &Link) {
        if let Ok((segment, side)) = link.segment()
            && segment.bell(side.other()).is_some()
            && !segment.is_bell_answered(side.other())
            && is_room()
        {
            let taken = self.open(link).is_ok();
            segment.answer_bell(side.other(), taken);
        }
    }

    /// The peer's pipe, opened anew where this process hasn't got it.
    fn open(&self, link: &Link) -> Result<i32, Errno> {
        let peer = self.peer.load(Ordering::Relaxed);
        if peer != NONE {
            return Ok(peer);
        }
        let none = Errno(libc::ENOENT);
        let (segment, side) = link.segment().map_err(|_| none)?;
        let (process, descriptor) = segment.bell(side.other()).ok_or(none)?;
        Ok(self.keep(&self.peer, meeting::open_pipe(process, descriptor)?))
    }

    /// Doorbells that stand in the peer's pipe, if that is to be had. The writer's lock is held.
    pub(crate) fn peers_holds(&self, link: &Link) -> Option<u64> {
        self.open(link).ok().and_then(ask::unread)
    }

    /// Rings the peer. The writer's lock is held.
    pub(crate) fn ring(&self, link: &Link) -> Answer {
        let rung = call::write_pipe(self.open(link)?, &[0])?;
        figures::add(Figure::PipeBells, 1);
        Ok(rung)
    }

    /// Takes what stands in the pipe, where the ring is empty; whether it is. The reader's lock is held.
    pub(crate) fn swallow(&self, reader: &Reader<'_>) -> Result<bool, Broken> {
        let own = self.own.load(Ordering::Relaxed);
        unsure::taken_from_pipe(own, reader)?;
        if reader.piped() == 0 {
            return Ok(true);
        }
        let count = usize::try_from(reader.let_go_piped()?).unwrap_or(usize::MAX);
        if count == 0 {
            return Ok(false);
        }
        let mut bells = [0; BELLS];
        let part = count.min(BELLS);
        let mut taken = call::read_pipe(own, &mut bells[..part]).unwrap_or(0);
        if taken < part && own != NONE {
            // Announced, and about to be written: one that came later would tell of nothing.
            call::look_for(own, POLLIN, PATIENCE_NS);
            taken += call::read_pipe(own, &mut bells[..part - taken]).unwrap_or(0);
        }
        reader.pipe_taken(taken as u64);
        Ok(true)
    }

    /// Closes the pipes. No call uses them any more.
    pub(crate) fn end(&self) {
        for (place, count) in [(&self.own, 1), (&self.peer, 0)] {
            let number = place.swap(NONE, Ordering::Relaxed);
            if number != NONE {
                PIPES.fetch_sub(1, Ordering::Relaxed);
                OWN.fetch_sub(count, Ordering::Relaxed);
                table::unhide(number);
                drop(Owned::again(number));
            }
        }
        if self.is_piped() {
            enlist(self.fd.load(Ordering::Relaxed), NONE);
        }
        self.epoll.store(NONE, Ordering::Relaxed);
        self.stand.forget();
        self.silenced.store(false, Ordering::Relaxed);
        self.stage.store(IDLE, Ordering::Release);
    }
}
