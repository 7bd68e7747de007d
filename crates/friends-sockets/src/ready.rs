//! Readiness: poll, select and epoll on friends.
//!
//! While a watched ring holds something a doorbell stands in the socket, so the kernel's own answer is nearly right: only what was in the
//! ring before it was watched, and doorbells that came when the ring was empty again, have to be put right here.

use std::sync::atomic::{AtomicU32, Ordering};

use libc::{EPOLLET, EPOLLIN, EPOLLRDNORM, POLLIN, POLLRDNORM, epoll_event, pollfd};
use midmile_friends::Step;

use crate::bell::{Registered, Told};
use crate::end::End;
use crate::figures::{self, Figure};
use crate::link::{EDGES, ELSEWHERE, WATCHED};
use crate::looks::Hope;
use crate::sys::call;
use crate::table::{self, Held};
use crate::{bell, lock, options, recall, receive};

/// What a look at a friend's socket says of its receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The ring holds something.
    Ready,
    /// The kernel knows.
    Kernel,
}

/// Looks whether the ring holds something; if it doesn't, takes doorbells away that say it does.
fn look(fd: i32, held: &Held) -> Look {
    let link = &held.link;
    let Ok(reader) = link.reader() else { return Look::Kernel };
    let Ok(_held) = lock::of_reader(&reader) else { return Look::Kernel };
    loop {
        match reader.step() {
            Ok(Step::Ring(_)) => return Look::Ready,
            Ok(Step::Bells(count)) => {
                if !receive::await_bells(fd, link, &reader, count).is_ok_and(|taken| taken > 0) {
                    return Look::Kernel;
                }
            }
            Ok(Step::Tcp) => {
                reader.leave_tcp(0);
                return Look::Kernel;
            }
            _ => return Look::Kernel,
        }
    }
}

/// Whether an end receives by the protocol.
fn receives(end: &End) -> bool {
    end.is_friend() && end.link.is_engaged()
}

/// The end that a descriptor is, if it receives by the protocol.
#[inline]
fn friend(fd: i32) -> Option<Held> {
    table::find_if(fd, receives)
}

/// Before a wait for a friend's bytes: true if there are some.
fn prepare(fd: i32, held: &Held) -> bool {
    if !held.link.is(ELSEWHERE) {
        held.link.mark(ELSEWHERE, true);
    }
    !options::watch(held, false) || look(fd, held) == Look::Ready
}

/// Whether the kernel, which says that a friend has something to receive, is right.
fn is_true(fd: i32, held: &Held) -> bool {
    look(fd, held) == Look::Ready || call::look_at(fd, POLLIN) != 0
}

/// How long a wait may still take.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// It waits for ever.
    Never,
    /// By the monotonic clock, in nanoseconds.
    At(u64),
}

impl Limit {
    /// From a count of milliseconds; negative: without end.
    pub fn milliseconds(count: i32) -> Self {
        u64::try_from(count).map_or(Self::Never, |count| Self::after(count * 1_000_000))
    }

    /// From now on, in nanoseconds.
    pub fn after(nanoseconds: u64) -> Self {
        Self::At(call::now().saturating_add(nanoseconds))
    }

    /// What is left, in nanoseconds; `None`: for ever.
    pub fn left(self) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::At(end) => Some(end.saturating_sub(call::now())),
        }
    }
}

/// What a descriptor is waited for.
const RECEIVING: i16 = POLLIN | POLLRDNORM;

/// Whether poll has to do with friends.
pub fn concerns(descriptors: &[pollfd]) -> bool {
    descriptors.iter().any(|one| one.events & RECEIVING != 0 && table::is(one.fd, receives))
}

/// How libc's own is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all, and with the signals as they are: there's something already.
    Look,
    /// For so many nanoseconds; `None`: for ever.
    AtMost(Option<u64>),
}

/// poll(2), by `wait`, libc's own.
pub fn poll(descriptors: &mut [pollfd], limit: Limit, wait: impl Fn(&mut [pollfd], Wait) -> i32) -> i32 {
    loop {
        let friends = |descriptors: &[pollfd]| {
            descriptors
                .iter()
                .any(|one| one.events & RECEIVING != 0 && friend(one.fd).is_some_and(|held| prepare(one.fd, &held)))
        };
        let ready = friends(descriptors) || spin(descriptors, limit);
        let answer = wait(descriptors, if ready { Wait::Look } else { Wait::AtMost(limit.left()) });
        if answer < 0 {
            return answer;
        }
        let count = descriptors.iter_mut().fold(0, |count, one| count + i32::from(put_right(one)));
        // What is left is libc's own to measure: the program's clock may stand still.
        if count > 0 || !ready && answer == 0 || limit.left() == Some(0) {
            return count;
        }
    }
}

/// Looks at the rings before a sleep.
fn spin(descriptors: &[pollfd], limit: Limit) -> bool {
    static POLL: Hope = Hope::new();
    let limit = limit.left().unwrap_or(u64::MAX);
    let something = || descriptors.iter().filter(|one| one.events & RECEIVING != 0).any(|one| holds(one.fd));
    let is_beside = |one: &pollfd| friend(one.fd).is_some_and(|held| held.link.is_beside_peer());
    limit > 0 && POLL.is_wanted() && POLL.look(limit, descriptors.iter().any(is_beside), something)
}

/// Whether a friend's ring holds something.
fn holds(fd: i32) -> bool {
    friend(fd).is_some_and(|held| held.link.reader().is_ok_and(|reader| reader.available() != Ok(0)))
}

/// What a look at the rings of an epoll's friends came to.
pub enum Spun {
    /// The kernel is to be asked, and may wait.
    Wait,
    /// It was asked, and has told so many.
    Told(i32),
    /// One has something to receive.
    Found(epoll_event),
}

/// Before epoll_wait sleeps, where [some friend may be told of by a pipe](bell::any), at most for `limit` nanoseconds: looks at the rings of its friends. `ask` is
/// libc's own, which doesn't wait. What is found is so for the kernel too, since a doorbell stands in the pipe.
#[inline(never)]
pub fn spin_epoll(epoll: i32, limit: u64, ask: impl FnOnce() -> i32) -> Spun {
    /// Looks in a row that found something, for which the kernel isn't asked before.
    static FOUND: AtomicU32 = AtomicU32::new(0);
    const IN_A_ROW: u32 = 8;
    /// For each epoll, though some may share one.
    static HOPES: [Hope; 16] = [const { Hope::new() }; 16];
    let hope = &HOPES[epoll.cast_unsigned() as usize % HOPES.len()];
    if !hope.is_wanted() {
        return Spun::Wait;
    }
    let ends = bell::in_epoll(epoll);
    if ends.iter().all(Option::is_none) || ends.iter().flatten().any(is_rung) {
        return Spun::Wait;
    }
    let found = FOUND.load(Ordering::Relaxed);
    if found.is_multiple_of(IN_A_ROW) || ends.iter().flatten().any(|held| held.link.bell.would_tell().1) {
        let told = ask();
        if told != 0 {
            return Spun::Told(told);
        }
    }
    let beside = ends.iter().flatten().any(|held| held.link.is_beside_peer());
    let rung = hope.look(limit, beside, || ends.iter().flatten().any(is_rung));
    FOUND.store(if rung { found.wrapping_add(1) } else { 0 }, Ordering::Relaxed);
    let event = ends.iter().flatten().find(|held| is_rung(held)).and_then(|held| held.link.bell.would_tell().0);
    event.map_or(Spun::Wait, Spun::Found)
}

/// Whether a doorbell stands in an end's pipe: announced, and the peer is done with it.
fn is_rung(held: &Held) -> bool {
    let Ok((segment, side)) = held.link.segment() else { return true };
    segment.incoming(side).piped() > 0 && !segment.outgoing(side.other()).lock().is_held()
}

/// Puts right what the kernel said of one descriptor; whether something is left to say.
fn put_right(one: &mut pollfd) -> bool {
    if one.events & RECEIVING != 0
        && one.revents & libc::POLLNVAL == 0
        && let Some(held) = friend(one.fd)
    {
        let said = one.revents & RECEIVING != 0;
        if said && !is_true(one.fd, &held) {
            one.revents &= !RECEIVING;
        } else if !said && look(one.fd, &held) == Look::Ready {
            one.revents |= one.events & RECEIVING;
        }
    }
    one.revents != 0
}

/// A set of descriptors of select's.
pub struct Set<'a>(pub &'a mut [u64]);

impl Set<'_> {
    fn has(&self, fd: usize) -> bool {
        self.0[fd / 64] & (1 << (fd % 64)) != 0
    }

    fn put(&mut self, fd: usize, on: bool) {
        if on {
            self.0[fd / 64] |= 1 << (fd % 64);
        } else {
            self.0[fd / 64] &= !(1 << (fd % 64));
        }
    }
}

fn number(fd: usize) -> i32 {
    i32::try_from(fd).unwrap_or(-1)
}

/// Whether select has to do with friends.
pub fn concerns_set(read: &Set<'_>, count: usize) -> bool {
    (0..count).any(|fd| read.has(fd) && table::is(number(fd), receives))
}

/// Before select sleeps: whether a friend of the set has something to receive.
pub fn prepare_set(read: &Set<'_>, count: usize) -> bool {
    let mut ready = false;
    for fd in (0..count).filter(|fd| read.has(*fd)) {
        ready |= friend(number(fd)).is_some_and(|held| prepare(number(fd), &held));
    }
    ready
}

/// Puts right what the kernel said of the friends in a set; by how many the count changes.
pub fn put_set_right(asked: &Set<'_>, said: &mut Set<'_>, count: usize) -> i32 {
    let mut change = 0;
    for fd in (0..count).filter(|fd| asked.has(*fd)) {
        let Some(held) = friend(number(fd)) else { continue };
        let right = if said.has(fd) { is_true(number(fd), &held) } else { look(number(fd), &held) == Look::Ready };
        if right != said.has(fd) {
            said.put(fd, right);
            change += if right { 1 } else { -1 };
        }
    }
    change
}

/// A descriptor was registered with epoll for these events, or its registration was changed. From here on the kernel says its readiness.
#[inline]
pub fn registered(epoll: i32, fd: i32, added: bool, event: epoll_event) {
    let is_input = event.events & (EPOLLIN | EPOLLRDNORM).cast_unsigned() != 0;
    let edges = event.events & EPOLLET.cast_unsigned() != 0;
    if table::is_end(fd) {
        registered_end((epoll, fd), added, event, (is_input, edges));
    } else if is_input {
        table::expect(fd, edges);
    }
}

#[inline(never)]
fn registered_end((epoll, fd): (i32, i32), added: bool, event: epoll_event, (is_input, edges): (bool, bool)) {
    let Some(held) = table::carrying(fd) else { return };
    let told = held.link.bell.registered(&held.link, (epoll, fd), added, event);
    if !is_input && !held.link.is(WATCHED) {
        return;
    }
    match told {
        Told::ByPipe if is_edged(&held, edges) => {}
        Told::ByPipe => watch_in(fd, &held, edges, [Some((epoll, event)), None]),
        Told::ByTcp(other) => watch_in(fd, &held, edges, [other, Some((epoll, event))]),
    }
}

/// From now on doorbells in the socket tell these epolls.
fn watch_in(fd: i32, held: &Held, edges: bool, registered: [Option<Registered>; 2]) {
    if !watch_all(fd, held, edges) {
        for one in registered.into_iter().flatten() {
            if !held.link.bell.deputize(&held.link, one) {
                figures::add(Figure::Unrung, 1);
            }
        }
    }
}

/// The pipe that told an epoll is no more.
pub(crate) fn lost_pipe(fd: i32, held: &Held, registered: Registered) {
    let edges = registered.1.events & EPOLLET.cast_unsigned() != 0;
    watch_in(fd, held, edges, [Some(registered), None]);
}

/// Readiness to receive is waited for by a call that isn't looked at.
pub fn watched(fd: i32) {
    if let Some(held) = table::carrying(fd) {
        held.link.mark(ELSEWHERE, true);
        if !watch_all(fd, &held, false) {
            figures::add(Figure::Unrung, 1);
        }
    }
}

/// From now on a doorbell stands for what the ring holds. False: none can be had for what it holds already.
fn watch_all(fd: i32, held: &Held, edges: bool) -> bool {
    options::watch(held, edges);
    if is_unrung(fd, held)
        && let Ok((segment, side)) = held.link.segment()
    {
        return recall::attract(fd, &segment, side);
    }
    true
}

/// As [`registered`], for one who receives till nothing is left and only then waits: he needs an edge where bytes come into an empty ring, not
/// one for each piece.
pub(crate) fn registered_by_drainer(epoll: i32, fd: i32, event: epoll_event) {
    let Some(held) = table::find(fd) else { return };
    if let Told::ByTcp(other) = held.link.bell.registered(&held.link, (epoll, fd), true, event) {
        watch_in(fd, &held, false, [other, Some((epoll, event))]);
    }
}

/// From now on each piece is told: what was received need not be all.
pub(crate) fn tell_each_piece(held: &Held) {
    if held.link.is(EDGES) || held.link.bell.is_piped() && is_edged(held, true) {
        return;
    }
    options::watch(held, true);
}

/// Has the pipe tell edges too, if they are waited for; whether nothing stands in the way.
fn is_edged(held: &Held, edges: bool) -> bool {
    let Ok(reader) = held.link.reader() else { return false };
    if edges && !held.link.is(EDGES) {
        held.link.mark(EDGES, true);
        let Ok(_held) = lock::of_reader(&reader) else { return false };
        reader.pipe_edges();
    }
    true
}

/// A descriptor is about to be taken out of an epoll; the end that it is, if it's known to stand there: see [`unregistered`].
#[inline]
pub fn unregistering(epoll: i32, fd: i32) -> Option<Held> {
    if table::is_end(fd) { unregistering_end(epoll, fd) } else { None }
}

#[inline(never)]
fn unregistering_end(epoll: i32, fd: i32) -> Option<Held> {
    table::carrying(fd).filter(|held| held.link.bell.unregistering(&held.link, (epoll, fd)))
}

/// The kernel has taken out what was [`unregistering`]: so the socket is still the one that was put in, since closing it would have done that.
pub fn unregistered(held: &Held) {
    held.link.is_shown();
}

/// Whether a friend's ring holds something that no doorbell stands for.
fn is_unrung(fd: i32, held: &Held) -> bool {
    if !held.is_friend() || !held.link.is_engaged() || !holds(fd) {
        return false;
    }
    let Ok(reader) = held.link.reader() else { return false };
    let Ok(_held) = lock::of_reader(&reader) else { return false };
    reader.view().is_ok_and(|view| view.ring > 0 && view.bells == 0)
}
