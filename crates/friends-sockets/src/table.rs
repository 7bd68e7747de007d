//! Which descriptors are ends of connections that are, or may become, friends. A descriptor that isn't costs one look here.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::end::End;
use crate::link::{EDGES, ELSEWHERE, Link, WATCHED};
use crate::pool::{self, numbered};
use crate::settings;

/// Descriptors above it stay plain.
const DESCRIPTORS: usize = 1 << 20;

/// No end.
const NONE: u32 = 0;
/// A descriptor of this library, which the program didn't open and can't close.
const OURS: u32 = u32::MAX;
/// No end yet, but already registered for readiness, or for edges of it.
const EXPECTED: u32 = u32::MAX - 1;
const EXPECTED_EDGES: u32 = u32::MAX - 2;

/// An epoll in which ends are registered.
const EPOLL: u32 = u32::MAX - 3;

/// For each descriptor the number of its end, or one of the words above, which lie beyond the last of them.
static TABLE: [AtomicU32; DESCRIPTORS] = [const { AtomicU32::new(NONE) }; DESCRIPTORS];
/// Descriptors at or above it never had an entry.
static REACH: AtomicUsize = AtomicUsize::new(0);

fn entry(fd: i32) -> Option<&'static AtomicU32> {
    TABLE.get(usize::try_from(fd).ok()?)
}

/// The entry of a descriptor that gets one.
fn reached(fd: i32) -> Option<&'static AtomicU32> {
    let place = usize::try_from(fd).ok()?;
    if REACH.load(Ordering::Relaxed) <= place {
        REACH.fetch_max(place + 1, Ordering::Relaxed);
    }
    TABLE.get(place)
}

/// An end that a call uses. It stays while it's held, whatever other threads close.
pub struct Held(&'static End);

impl Deref for Held {
    type Target = End;

    fn deref(&self) -> &End {
        self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// The end that a descriptor is, if it's one.
#[inline]
pub fn find(fd: i32) -> Option<Held> {
    let entry = entry(fd)?;
    let number = entry.load(Ordering::Relaxed);
    hold(entry, number, numbered(number)?)
}

/// Whether a descriptor is an end of which `wanted` says so. That may be over by the time it's heard.
#[inline]
pub(crate) fn is(fd: i32, wanted: impl Fn(&End) -> bool) -> bool {
    entry(fd).and_then(|entry| numbered(entry.load(Ordering::Relaxed))).is_some_and(wanted)
}

/// Whether a descriptor is an end. That may be over by the time it's heard.
#[inline]
pub fn is_end(fd: i32) -> bool {
    is(fd, |_| true)
}

/// The end that a descriptor is, if `wanted` says so of it. One of which it doesn't costs a look, and isn't held.
#[inline]
pub(crate) fn find_if(fd: i32, wanted: impl Fn(&End) -> bool) -> Option<Held> {
    let entry = entry(fd)?;
    let number = entry.load(Ordering::Relaxed);
    let end = numbered(number).filter(|end| wanted(end))?;
    hold(entry, number, end).filter(|held| wanted(held))
}

/// The end that a descriptor is, if its bytes may have to go otherwise than by libc's own call.
#[inline]
pub fn carrying(fd: i32) -> Option<Held> {
    find_if(fd, |end| !end.has_given_up())
}

#[inline]
fn hold(entry: &AtomicU32, number: u32, end: &'static End) -> Option<Held> {
    end.hold();
    let held = Held(end);
    // Closed in between, and perhaps another's by now: that one's call will come. Both sides' stores and looks are in one order.
    (entry.load(Ordering::SeqCst) == number).then_some(held)
}

/// Whether the table has anything to say of the descriptor.
pub fn knows(fd: i32) -> bool {
    entry(fd).is_some_and(|entry| entry.load(Ordering::Relaxed) != NONE)
}

/// Whether the descriptor is still the end with this link: other threads may have closed it while a call slept, and its number may be
/// another's by now.
pub(crate) fn still(fd: i32, link: &Link) -> bool {
    let end = entry(fd).and_then(|entry| numbered(entry.load(Ordering::Relaxed)));
    end.is_some_and(|end| std::ptr::eq(&raw const end.link, link))
}

/// A descriptor that isn't an end yet is registered for readiness; `edges`: for edges of it.
pub(crate) fn expect(fd: i32, edges: bool) {
    // A load first: sockets of other hosts come here at each of their registrations.
    if let Some(entry) = reached(fd)
        && entry.load(Ordering::Relaxed) == NONE
    {
        let word = if edges { EXPECTED_EDGES } else { EXPECTED };
        entry.compare_exchange(NONE, word, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

/// A descriptor's number is another's by now. Not where it's closed: a child of vfork closes its copy, and not its parent's.
pub(crate) fn unexpect(fd: i32) {
    let Some(entry) = entry(fd) else { return };
    let word = entry.load(Ordering::Relaxed);
    if word == EXPECTED || word == EXPECTED_EDGES {
        entry.compare_exchange(word, NONE, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

/// Notes an epoll in which an end is registered.
pub(crate) fn note_epoll(epoll: i32) {
    if let Some(entry) = reached(epoll) {
        let word = entry.load(Ordering::Relaxed);
        // It may itself be registered in another.
        if matches!(word, NONE | EXPECTED | EXPECTED_EDGES) {
            entry.compare_exchange(word, EPOLL, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }
}

/// Whether the descriptor is such an epoll.
pub(crate) fn is_epoll(fd: i32) -> bool {
    entry(fd).is_some_and(|entry| entry.load(Ordering::Relaxed) == EPOLL)
}

/// Forgets such an epoll.
pub(crate) fn forget_epoll(fd: i32) {
    if let Some(entry) = entry(fd) {
        entry.compare_exchange(EPOLL, NONE, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

/// Whether the descriptor is this library's own.
pub fn is_ours(fd: i32) -> bool {
    entry(fd).is_some_and(|entry| entry.load(Ordering::Relaxed) == OURS)
}

/// Notes a descriptor of this library's.
pub(crate) fn hide(fd: i32) {
    if let Some(entry) = reached(fd) {
        entry.store(OURS, Ordering::Relaxed);
    }
}

/// Forgets a descriptor of this library's.
pub(crate) fn unhide(fd: i32) {
    if let Some(entry) = entry(fd) {
        entry.compare_exchange(OURS, NONE, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

/// A new connection on a descriptor that was just opened or connected.
/// `connecting`: when `connect` was called, if this side did.
pub fn begin(fd: i32, connecting: Option<u64>) {
    if is_stdio(fd) || !settings::enabled() {
        return;
    }
    let Some(entry) = reached(fd) else { return };
    let Some(number) = pool::pop() else { return };
    let Some(end) = numbered(number).filter(|end| end.take(connecting)) else { return };
    match entry.swap(number, Ordering::SeqCst) {
        EXPECTED => end.link.mark(WATCHED | ELSEWHERE, true),
        EXPECTED_EDGES => end.link.mark(WATCHED | EDGES | ELSEWHERE, true),
        number => {
            if let Some(stale) = numbered(number) {
                // Another thread began it too.
                stale.forget();
            }
        }
    }
}

/// Takes the entry of a descriptor away before it's closed or replaced; the end it was.
pub(crate) fn remove(fd: i32) -> Option<Held> {
    let held = find(fd)?;
    let entry = entry(fd)?;
    entry.swap(NONE, Ordering::SeqCst);
    Some(held)
}

/// Whether it's standard input, output or errors, which stdio reads and writes past this library.
pub(crate) fn is_stdio(fd: i32) -> bool {
    (0..=libc::STDERR_FILENO).contains(&fd)
}

/// Gives a descriptor the end of another that it now is the same as.
pub(crate) fn same(fd: i32, end: &Held) {
    if let Some(entry) = reached(fd)
        && end.refer()
    {
        entry.store(pool::number(end), Ordering::SeqCst);
    }
}

/// An end's number, from 0; less than there are entries on a board.
pub(crate) fn place(end: &Held) -> u32 {
    pool::number(end) - 1
}

/// All ends that are in use, with one descriptor of each.
pub(crate) fn each_once(mut act: impl FnMut(i32, &Held)) {
    each(|fd, held| {
        // The lowest, if there are several.
        let place = usize::try_from(fd).unwrap_or(0);
        let is_it = |entry: &AtomicU32| entry.load(Ordering::Relaxed) == pool::number(held);
        if held.has_one_descriptor() || !TABLE[..place].iter().any(is_it) {
            act(fd, held);
        }
    });
}

/// Another descriptor of an end than this one.
pub(crate) fn other(fd: i32, end: &Held) -> Option<i32> {
    let mut found = None;
    each(|other, held| {
        if other != fd && std::ptr::eq(held.0, end.0) {
            found = Some(other);
        }
    });
    found
}

/// All descriptors that are ends.
pub(crate) fn each(mut act: impl FnMut(i32, &Held)) {
    for (fd, entry) in (0..).zip(&TABLE[..REACH.load(Ordering::Relaxed).min(DESCRIPTORS)]) {
        let number = entry.load(Ordering::Relaxed);
        if let Some(held) = numbered(number).and_then(|end| hold(entry, number, end)) {
            act(fd, &held);
        }
    }
}

/// Descriptors in a range that are ends, or this library's own.
pub fn within(first: u32, last: u32) -> impl Iterator<Item = i32> {
    let reach = REACH.load(Ordering::Relaxed).min(DESCRIPTORS);
    let (first, last) = (usize::try_from(first).unwrap_or(reach), usize::try_from(last).unwrap_or(reach));
    let known = |place: &usize| TABLE[*place].load(Ordering::Relaxed) != NONE;
    (first.min(reach)..last.saturating_add(1).min(reach)).filter(known).filter_map(|place| i32::try_from(place).ok())
}

/// In a child after fork: no other thread's call is under way.
pub(crate) fn forked() {
    pool::used().iter().for_each(End::forked);
}
