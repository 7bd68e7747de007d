//! Doorbells for epoll by a pipe, which costs a fraction of a byte by TCP.
//!
//! A pipe of ours stands in the program's epoll beside our socket, with the same data: so whoever waits there, by whatever call, hears of
//! both. The peer opens its other end by `/proc/PID/fd/FD`, as it opens an offer's memory, and from then on writes to it what would
//! have been a doorbell by TCP. Where that isn't to be had, or the socket is registered in a way that two descriptors can't stand
//! for, doorbells stay TCP's.
//!
//! Both ends open the pipe for reading and writing, so that it never hangs up and no write to it is a SIGPIPE. Opened anew it's a file of
//! its own: what closes ours takes it out of the epoll, whatever the peer holds.

mod deputy;
mod merge;
mod pipe;
mod stand;

pub use merge::merge;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use libc::{EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDNORM, epoll_event};
use midmile_friends::Reader;

use crate::door::Door;
use crate::link::{EDGES, ELSEWHERE, Link};
use crate::sys::map::{self, Owned};
use crate::sys::{AGAIN, call};
use crate::table::{self, Held};
use deputy::Deputy;
use stand::Stand;

/// No descriptor.
const NONE: i32 = -1;
/// Most pipes that this process has opened, its own and its peers'.
pub(crate) const PIPES_MAX: usize = 1 << 12;

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

/// In which epoll an end is registered, for which events, with which data.
pub(crate) type Registered = (i32, epoll_event);

/// How epoll is told of an end.
pub(crate) enum Told {
    /// By the pipe, of what's in the ring too.
    ByPipe,
    /// By TCP's doorbells from now on. Where it was told of by the pipe till now, beside this registration.
    ByTcp(Option<Registered>),
}

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
    /// What speaks for the ring where no doorbell can be had.
    deputy: Deputy,
    /// Who changes one of these is behind it.
    door: Door,
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
            deputy: Deputy::new(),
            door: Door::new(),
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
        self.door.clear();
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
        let Some(_inside) = self.door.enter() else { return };
        if let Some(there) = self.stand.epoll().filter(|there| self.stand.rests_in(*there)) {
            self.stand.leave(self.own.load(Ordering::Relaxed), there);
        }
    }

    /// The program has registered the socket, or changed how.
    pub(crate) fn registered(&self, link: &Link, (epoll, fd): (i32, i32), added: bool, event: epoll_event) -> Told {
        let Some(_inside) = self.door.enter() else { return self.give_up(link, epoll) };
        let known = (self.epoll.load(Ordering::Relaxed), self.fd.load(Ordering::Relaxed));
        let alone = if added { known.0 == NONE } else { known == (epoll, fd) };
        let single = event.events & (EPOLLONESHOT | EPOLLEXCLUSIVE).cast_unsigned() == 0;
        if self.is(NEVER) || !alone || !single {
            return self.give_up(link, epoll);
        }
        let by_pipe = |all: bool| if all && self.is_piped() { Told::ByPipe } else { Told::ByTcp(None) };
        let before = self.event();
        self.fd.store(fd, Ordering::Relaxed);
        self.events.store(event.events, Ordering::Relaxed);
        self.data.store(event.u64, Ordering::Relaxed);
        self.epoll.store(epoll, Ordering::Relaxed);
        let after = self.event();
        if !added && ({ before.events }, { before.u64 }) == ({ after.events }, { after.u64 }) {
            // What it writes is no matter of the pipe's. Edges are told anew, though, to who says the same again.
            let edges = event.events & EPOLLET.cast_unsigned() != 0;
            return by_pipe(!edges || self.follow(link, epoll));
        }
        table::note_epoll(epoll);
        if !self.follow(link, epoll) {
            return self.give_up(link, epoll);
        }
        by_pipe(true)
    }

    /// The program takes the socket out of an epoll: before it does. Whether it's known to stand there.
    pub(crate) fn unregistering(&self, link: &Link, (epoll, fd): (i32, i32)) -> bool {
        let Some(_inside) = self.door.enter() else { return false };
        self.deputy.leave(epoll);
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

    /// Doorbells go by TCP from now on; the registration in `epoll` is the caller's to see to.
    fn give_up(&self, link: &Link, epoll: i32) -> Told {
        self.stage.store(NEVER, Ordering::Release);
        let known = (self.epoll.swap(NONE, Ordering::Relaxed), self.event());
        self.leave_all(Some(epoll));
        if let Ok(reader) = link.reader() {
            reader.unwatch_piped();
        }
        Told::ByTcp((known.0 != NONE && known.0 != epoll).then_some(known))
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
        self.deputy.hush();
        self.epoll.store(NONE, Ordering::Relaxed);
        self.leave_all(None);
    }

    /// Whether a descriptor is one of ours.
    pub(crate) fn is_at(&self, fd: i32) -> bool {
        self.places().iter().any(|place| place.load(Ordering::Relaxed) == fd)
    }

    /// Where the numbers of descriptors stand that epoll tells of, and of those that it doesn't.
    fn places(&self) -> [&AtomicI32; 3] {
        [&self.own, &self.deputy.0, &self.peer]
    }

    /// The program is about to put a descriptor of its own in the place of one of ours. A registration is to be told of otherwise then: in
    /// this epoll, for this.
    pub(crate) fn lose(&self, link: &Link, fd: i32) -> Option<Registered> {
        let registered = (self.epoll.load(Ordering::Relaxed), self.event());
        let lost = self.own.load(Ordering::Relaxed) == fd;
        if lost {
            self.give_up(link, registered.0);
        }
        for place in self.places() {
            if place.compare_exchange(fd, NONE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.is_gone(place);
            }
        }
        (lost && registered.0 != NONE).then_some(registered)
    }

    /// A descriptor of ours that stood there isn't open any more.
    fn is_gone(&self, place: &AtomicI32) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
        if !std::ptr::eq(place, &self.peer) {
            OWN.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// No doorbell can be had for what the ring holds: the deputy tells this epoll of it. Whether it does.
    pub(crate) fn deputize(&self, link: &Link, (epoll, event): Registered) -> bool {
        let Some(_inside) = self.door.enter() else { return false };
        if is_room()
            && let Some(made) = self.deputy.make()
        {
            self.keep(&self.deputy.0, made);
            OWN.fetch_add(1, Ordering::Relaxed);
        }
        let speaks = self.deputy.speak(epoll, event);
        // Another thread may have read it all meanwhile.
        if link.reader().is_ok_and(|reader| reader.available() == Ok(0)) {
            self.deputy.hush();
        }
        speaks
    }

    /// The next step on the way to the pipe, where a ring that epoll tells of was emptied. The reader's lock is held.
    pub(crate) fn tend(&self, link: &Link, reader: &Reader<'_>) {
        let Ok((segment, side)) = link.segment() else { return };
        match self.stage.load(Ordering::Acquire) {
            // What another process that has the end waits for is not to be changed.
            IDLE | OFFERED if link.is(ELSEWHERE) || !link.is_held_once() => {}
            IDLE if self.epoll.load(Ordering::Relaxed) != NONE && is_room() => {
                let Some(_inside) = self.door.enter() else { return };
                if segment.bell(side).is_some() {
                    // Another process's, which the peer rings.
                    return self.stage.store(NEVER, Ordering::Release);
                }
                let epoll = self.epoll.load(Ordering::Relaxed);
                let Ok((file, pipe)) = pipe::make() else { return self.stage.store(NEVER, Ordering::Release) };
                self.keep(&self.own, file);
                OWN.fetch_add(1, Ordering::Relaxed);
                let offered = self.follow(link, epoll) && segment.offer_bell(side, pipe);
                let stage = if offered { OFFERED } else { NEVER };
                // Another thread may have given it up.
                self.stage.compare_exchange(IDLE, stage, Ordering::AcqRel, Ordering::Relaxed).ok();
            }
            OFFERED if segment.is_bell_taken(side) && reader.watch_piped(link.is(EDGES)) == Ok(true) => {
                // Where another thread gave it up meanwhile, TCP's goes on.
                match self.stage.compare_exchange(OFFERED, PIPED, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => enlist(NONE, self.fd.load(Ordering::Relaxed)),
                    Err(_) => reader.unwatch_piped(),
                }
            }
            _ => {}
        }
    }

    /// Closes the pipes. No call uses them any more.
    pub(crate) fn end(&self) {
        for place in self.places() {
            let number = place.swap(NONE, Ordering::Relaxed);
            if number != NONE {
                self.is_gone(place);
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
