//! poll and epoll.

use std::ffi::c_int;

use libc::{epoll_event, nfds_t, pollfd, sigset_t, size_t, timespec};

use midmile_friends_sockets::bell;
use midmile_friends_sockets::lifecycle;
use midmile_friends_sockets::process;
use midmile_friends_sockets::ready::{self, Limit, Wait};
use midmile_friends_sockets::sys::{call, real};

/// As many descriptors as most processes may have: for no more of them the limit isn't asked for.
const FEW: usize = 1024;

/// Nanoseconds as poll takes them: rounded up, so that it doesn't return before its time; negative: without end.
fn milliseconds(left: Option<u64>) -> c_int {
    left.map_or(-1, |left| c_int::try_from(left.div_ceil(1_000_000)).unwrap_or(c_int::MAX))
}

/// A limit in milliseconds, as nanoseconds; negative: without end.
fn nanoseconds(limit: c_int) -> u64 {
    u64::try_from(limit).map_or(u64::MAX, |limit| limit * 1_000_000)
}

pub(super) fn time(nanoseconds: u64) -> timespec {
    let seconds = libc::time_t::try_from(nanoseconds / 1_000_000_000).unwrap_or(libc::time_t::MAX);
    timespec { tv_sec: seconds, tv_nsec: libc::c_long::try_from(nanoseconds % 1_000_000_000).unwrap_or(0) }
}

/// `None`: it's none that the kernel takes (EINVAL).
///
/// # Safety
/// The pointer is null or to a timespec.
pub(super) unsafe fn limit(time: *const timespec) -> Option<Limit> {
    if time.is_null() {
        return Some(Limit::Never);
    }
    // SAFETY: it isn't null.
    let time = unsafe { *time };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let rest = u64::try_from(time.tv_nsec).ok().filter(|rest| *rest < 1_000_000_000)?;
    Some(Limit::after(seconds.saturating_mul(1_000_000_000).saturating_add(rest)))
}

/// Writes what is left of a limit to where the program has it.
///
/// # Safety
/// There's a timespec.
pub(super) unsafe fn tell_left(limit: Limit, place: *mut timespec) {
    if let Some(left) = limit.left() {
        // SAFETY: the caller's promise.
        unsafe { place.write(time(left)) };
    }
}

/// # Safety
/// As poll(2) asks for.
unsafe fn list<'a>(descriptors: *mut pollfd, count: nfds_t) -> &'a mut [pollfd] {
    let length = usize::try_from(count).unwrap_or(0);
    // More than a process may have descriptors the kernel refuses, and reads none of them.
    let is_refused = length > FEW && !i32::try_from(length - 1).is_ok_and(process::may_have);
    if descriptors.is_null() || length == 0 || is_refused {
        return &mut [];
    }
    // SAFETY: the program's list has so many entries.
    unsafe { std::slice::from_raw_parts_mut(descriptors, length) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn poll(descriptors: *mut pollfd, count: nfds_t, limit: c_int) -> c_int {
    // SAFETY: the program's list has so many entries.
    let all = unsafe { list(descriptors, count) };
    if !ready::concerns(all) {
        // SAFETY: the program's pointer goes on as it came.
        return unsafe { real::poll(descriptors, count, limit) };
    }
    ready::poll(all, Limit::milliseconds(limit), |all, wait| {
        let left = if let Wait::AtMost(left) = wait { left } else { Some(0) };
        // SAFETY: the list is the program's.
        unsafe { real::poll(all.as_mut_ptr(), count, milliseconds(left)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __poll(descriptors: *mut pollfd, count: nfds_t, limit: c_int) -> c_int {
    // SAFETY: the same function.
    unsafe { poll(descriptors, count, limit) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ppoll(
    descriptors: *mut pollfd,
    count: nfds_t,
    time_limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's list has so many entries.
    let all = unsafe { list(descriptors, count) };
    // SAFETY: the program's limit.
    let limit = if ready::concerns(all) { unsafe { limit(time_limit) } } else { None };
    let Some(limit) = limit else {
        // SAFETY: the program's pointers go on as they came.
        return unsafe { real::ppoll(descriptors, count, time_limit, mask) };
    };
    ready::poll(all, limit, |all, wait| {
        let Wait::AtMost(left) = wait else {
            // SAFETY: the list is the program's.
            return unsafe { real::poll(all.as_mut_ptr(), count, 0) };
        };
        let left = left.map(time);
        let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the list and the mask are the program's, the limit is ours.
        unsafe { real::ppoll(all.as_mut_ptr(), count, left, mask) }
    })
}

/// ppoll(2) by its number: `wait` is the very call, which also says what is left of the program's limit. `None` where it's to be made as it came.
///
/// # Safety
/// As ppoll(2) asks for.
pub(super) unsafe fn ppoll_bare(
    descriptors: *mut pollfd,
    count: nfds_t,
    time_limit: *const timespec,
    wait: impl Fn() -> c_int,
) -> Option<c_int> {
    // SAFETY: the program's list has so many entries.
    let all = unsafe { list(descriptors, count) };
    if !ready::concerns(all) {
        return None;
    }
    // SAFETY: the program's limit.
    let limit = unsafe { limit(time_limit) }?;
    Some(ready::poll(all, limit, |all, how| match how {
        // SAFETY: the list is the program's.
        Wait::Look => unsafe { real::poll(all.as_mut_ptr(), count, 0) },
        Wait::AtMost(_) => wait(),
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __poll_chk(descriptors: *mut pollfd, count: nfds_t, limit: c_int, size: size_t) -> c_int {
    super::program::fits(usize::try_from(count).unwrap_or(usize::MAX), size / size_of::<pollfd>());
    // SAFETY: the program's list is as large as it says.
    unsafe { poll(descriptors, count, limit) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __ppoll_chk(
    descriptors: *mut pollfd,
    count: nfds_t,
    limit: *const timespec,
    mask: *const sigset_t,
    size: size_t,
) -> c_int {
    super::program::fits(usize::try_from(count).unwrap_or(usize::MAX), size / size_of::<pollfd>());
    // SAFETY: the program's list is as large as it says.
    unsafe { ppoll(descriptors, count, limit, mask) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    if operation == libc::EPOLL_CTL_ADD {
        lifecycle::renew(fd);
    }
    let leaving = if operation == libc::EPOLL_CTL_DEL { ready::unregistering(epoll, fd) } else { None };
    // SAFETY: the program's pointer goes on as it came.
    let answer = unsafe { real::epoll_ctl(epoll, operation, fd, event) };
    if answer == 0
        && let Some(held) = leaving
    {
        ready::unregistered(&held);
    }
    if answer == 0 && operation != libc::EPOLL_CTL_DEL && !event.is_null() {
        // SAFETY: the program's event, which the kernel has just read.
        let event = unsafe { event.read_unaligned() };
        ready::registered(epoll, fd, operation == libc::EPOLL_CTL_ADD, event);
    }
    answer
}

/// What epoll has told, with what it says of a socket and of its pipe in one.
///
/// # Safety
/// So many events of the program's were written.
unsafe fn merged(events: *mut epoll_event, answer: c_int) -> c_int {
    let Ok(count @ 2..) = usize::try_from(answer) else { return answer };
    if !bell::any() {
        return answer;
    }
    // SAFETY: the kernel has just written so many.
    let all = unsafe { std::slice::from_raw_parts_mut(events, count) };
    c_int::try_from(bell::merge(all)).unwrap_or(answer)
}

/// Tells of one.
///
/// # Safety
/// The program's list has room for it.
unsafe fn found(events: *mut epoll_event, event: epoll_event) -> c_int {
    // SAFETY: there is room.
    unsafe { events.write_unaligned(event) };
    1
}

/// Looks at rings before it waits, at most for `limit` nanoseconds, where that may be worth it; what epoll has told then.
///
/// # Safety
/// `ask` and `wait` write as many events as they say, and the list has room for its count of them.
unsafe fn waited(
    epoll: c_int,
    (events, count): (*mut epoll_event, c_int),
    limit: u64,
    ask: impl FnMut() -> c_int,
    wait: impl Fn() -> c_int,
) -> c_int {
    let answer = if limit == 0 || !bell::any() {
        wait()
    } else {
        if call::may_be_cancelled() {
            call::cancel();
        }
        match ready::spin_epoll(epoll, limit, ask) {
            ready::Spun::Told(answer) => answer,
            // SAFETY: the list has room for `count` of them.
            ready::Spun::Found(event) if count > 0 && !events.is_null() => unsafe { found(events, event) },
            ready::Spun::Wait | ready::Spun::Found(_) => wait(),
        }
    };
    // SAFETY: so many were written.
    unsafe { merged(events, answer) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    limit: c_int,
) -> c_int {
    // SAFETY: the program's pointers go on as they came, here and below.
    let ask = || unsafe { real::epoll_wait(epoll, events, count, 0) };
    // SAFETY: as above.
    let wait = || unsafe { real::epoll_wait(epoll, events, count, limit) };
    // SAFETY: both write no more than `count` events.
    unsafe { waited(epoll, (events, count), nanoseconds(limit), ask, wait) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    limit: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's pointers go on as they came, here and below.
    let wait = || unsafe { real::epoll_pwait(epoll, events, count, limit, mask) };
    if !mask.is_null() {
        // A signal that the mask lets in ends the call also where there are events: the kernel alone knows.
        // SAFETY: so many were written.
        return unsafe { merged(events, wait()) };
    }
    // SAFETY: as above.
    let ask = || unsafe { real::epoll_wait(epoll, events, count, 0) };
    // SAFETY: both write no more than `count` events.
    unsafe { waited(epoll, (events, count), nanoseconds(limit), ask, wait) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    time_limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's pointers go on as they came, here and below.
    let wait = || unsafe { real::epoll_pwait2(epoll, events, count, time_limit, mask) };
    // SAFETY: the program's limit.
    let limit = if mask.is_null() { unsafe { limit(time_limit) } } else { None };
    let Some(limit) = limit else {
        // SAFETY: so many were written.
        return unsafe { merged(events, wait()) };
    };
    // SAFETY: as above.
    let ask = || unsafe { real::epoll_wait(epoll, events, count, 0) };
    // SAFETY: both write no more than `count` events.
    unsafe { waited(epoll, (events, count), limit.left().unwrap_or(u64::MAX), ask, wait) }
}
