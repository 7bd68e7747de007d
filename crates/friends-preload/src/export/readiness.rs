//! Calls that wait for readiness.

use std::ffi::c_int;

use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

use midmile_friends_sockets::bell;
use midmile_friends_sockets::lifecycle;
use midmile_friends_sockets::ready::{self, Limit, Set};
use midmile_friends_sockets::sys::real;
use midmile_friends_sockets::table;

/// Words of an `fd_set`.
const WORDS: usize = libc::FD_SETSIZE / 64;

/// Nanoseconds as poll takes them: rounded up, so that it doesn't return before its time; negative: without end.
fn milliseconds(left: Option<u64>) -> c_int {
    left.map_or(-1, |left| c_int::try_from(left.div_ceil(1_000_000)).unwrap_or(c_int::MAX))
}

/// A limit in milliseconds, as nanoseconds; negative: without end.
fn nanoseconds(limit: c_int) -> u64 {
    u64::try_from(limit).map_or(u64::MAX, |limit| limit * 1_000_000)
}

fn time(nanoseconds: u64) -> timespec {
    let seconds = libc::time_t::try_from(nanoseconds / 1_000_000_000).unwrap_or(libc::time_t::MAX);
    timespec { tv_sec: seconds, tv_nsec: libc::c_long::try_from(nanoseconds % 1_000_000_000).unwrap_or(0) }
}

/// # Safety
/// The pointer is null or to a timespec.
unsafe fn limit(time: *const timespec) -> Limit {
    if time.is_null() {
        return Limit::Never;
    }
    // SAFETY: it isn't null.
    let time = unsafe { *time };
    let (seconds, rest) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Limit::after(seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

/// # Safety
/// As poll(2) asks for.
unsafe fn list<'a>(descriptors: *mut pollfd, count: nfds_t) -> &'a mut [pollfd] {
    let count = usize::try_from(count).unwrap_or(0);
    if descriptors.is_null() || count == 0 {
        return &mut [];
    }
    // SAFETY: the program's list has so many entries.
    unsafe { std::slice::from_raw_parts_mut(descriptors, count) }
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
    ready::poll(all, Limit::milliseconds(limit), |all, left| {
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
    if !ready::concerns(all) {
        // SAFETY: the program's pointers go on as they came.
        return unsafe { real::ppoll(descriptors, count, time_limit, mask) };
    }
    // SAFETY: the program's limit.
    let limit = unsafe { limit(time_limit) };
    ready::poll(all, limit, |all, left| {
        let left = left.map(time);
        let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the list and the mask are the program's, the limit is ours.
        unsafe { real::ppoll(all.as_mut_ptr(), count, left, mask) }
    })
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

/// The descriptors that are waited for to receive, if friends are among them.
///
/// # Safety
/// As select(2) asks for.
unsafe fn asked(count: c_int, read: *const fd_set) -> Option<[u64; WORDS]> {
    let words = usize::try_from(count).ok().filter(|count| *count > 0 && *count <= libc::FD_SETSIZE)?.div_ceil(64);
    if read.is_null() {
        return None;
    }
    let mut asked = [0; WORDS];
    // SAFETY: the program's set has a bit for each descriptor below `count`, in whole words.
    let set = unsafe { std::slice::from_raw_parts(read.cast::<u64>(), words) };
    asked[..words].copy_from_slice(set);
    ready::concerns_set(&Set(&mut asked), usize::try_from(count).unwrap_or(0)).then_some(asked)
}

/// As [`asked`], for select as for pselect: `None` where libc's own is to do it. That does it too for more descriptors than a set is declared to have:
/// how large the program's sets are the kernel alone knows.
///
/// # Safety
/// As select(2) asks for.
unsafe fn looked_at(count: c_int, read: *const fd_set) -> Option<[u64; WORDS]> {
    let most = usize::try_from(count).unwrap_or(0);
    if most > libc::FD_SETSIZE && !read.is_null() {
        for fd in table::within(0, count.unsigned_abs() - 1) {
            let place = usize::try_from(fd).unwrap_or(0);
            // SAFETY: the descriptor is open, so that the kernel reads as far; it's below `count`.
            let word = unsafe { read.cast::<u64>().add(place / 64) };
            // SAFETY: as above.
            if unsafe { word.read() } & (1 << (place % 64)) != 0 {
                ready::watched(fd);
            }
        }
        return None;
    }
    // SAFETY: the program's set.
    unsafe { asked(count, read) }
}

/// The three sets of a call of select's.
struct Sets {
    all: [*mut fd_set; 3],
    words: usize,
    asked: [[u64; WORDS]; 3],
}

impl Sets {
    /// # Safety
    /// As select(2) asks for, until the call ends.
    unsafe fn of(all: [*mut fd_set; 3], count: usize) -> Self {
        let mut sets = Self { all, words: count.div_ceil(64), asked: [[0; WORDS]; 3] };
        for (asked, set) in sets.asked.iter_mut().zip(all).filter(|(_, set)| !set.is_null()) {
            // SAFETY: the program's sets have so many words.
            let set = unsafe { std::slice::from_raw_parts(set.cast::<u64>(), sets.words) };
            asked[..sets.words].copy_from_slice(set);
        }
        sets
    }

    /// What the program is told of one.
    fn told(&mut self, index: usize) -> &mut [u64] {
        // SAFETY: as in `of`.
        unsafe { std::slice::from_raw_parts_mut(self.all[index].cast::<u64>(), self.words) }
    }

    /// As the program asked, for another wait.
    fn ask_again(&mut self) {
        for index in 0..self.all.len() {
            if !self.all[index].is_null() {
                let asked = self.asked[index];
                let words = self.words;
                self.told(index).copy_from_slice(&asked[..words]);
            }
        }
    }
}

/// select(2), by `wait`, libc's own.
fn select_friends(count: usize, mut sets: Sets, limit: Limit, wait: impl Fn(Option<u64>) -> c_int) -> c_int {
    loop {
        let mut read = sets.asked[0];
        let ready = ready::prepare_set(&Set(&mut read), count);
        let answer = wait(if ready { Some(0) } else { limit.left() });
        if answer < 0 {
            return answer;
        }
        let told = answer + ready::put_set_right(&Set(&mut read), &mut Set(sets.told(0)), count);
        if told > 0 || limit.left() == Some(0) {
            return told;
        }
        sets.ask_again();
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time_limit: *mut timeval,
) -> c_int {
    // SAFETY: the program's set.
    if unsafe { looked_at(count, read) }.is_none() {
        // SAFETY: the program's pointers go on as they came.
        return unsafe { real::select(count, read, write, except, time_limit) };
    }
    let limit = if time_limit.is_null() {
        Limit::Never
    } else {
        // SAFETY: it isn't null.
        let time = unsafe { *time_limit };
        let (seconds, micros) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_usec).unwrap_or(0));
        Limit::after(seconds.saturating_mul(1_000_000_000).saturating_add(micros.saturating_mul(1000)))
    };
    let number = usize::try_from(count).unwrap_or(0);
    // SAFETY: the program's sets.
    let sets = unsafe { Sets::of([read, write, except], number) };
    let answer = select_friends(number, sets, limit, |left| {
        let left = left.map(time);
        let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the sets are the program's, the limit is ours.
        unsafe { real::pselect(count, read, write, except, left, std::ptr::null()) }
    });
    if let Some(left) = limit.left() {
        // Linux says what is left (select(2)).
        let left = time(left);
        // SAFETY: there is a limit, so it isn't null.
        unsafe { *time_limit = timeval { tv_sec: left.tv_sec, tv_usec: left.tv_nsec / 1000 } };
    }
    answer
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    limit: *mut timeval,
) -> c_int {
    // SAFETY: the same function.
    unsafe { select(count, read, write, except, limit) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time_limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's set.
    if unsafe { looked_at(count, read) }.is_none() {
        // SAFETY: the program's pointers go on as they came.
        return unsafe { real::pselect(count, read, write, except, time_limit, mask) };
    }
    // SAFETY: the program's limit.
    let limit = unsafe { limit(time_limit) };
    let number = usize::try_from(count).unwrap_or(0);
    // SAFETY: the program's sets.
    let sets = unsafe { Sets::of([read, write, except], number) };
    select_friends(number, sets, limit, |left| {
        let left = left.map(time);
        let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the sets and the mask are the program's, the limit is ours.
        unsafe { real::pselect(count, read, write, except, left, mask) }
    })
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

/// Looks at rings before it waits, where that may be worth it; what epoll has told then.
///
/// # Safety
/// `ask` and `wait` write as many events as they say, and the list has room for its count of them.
unsafe fn waited(
    epoll: c_int,
    (events, count): (*mut epoll_event, c_int),
    limit: c_int,
    ask: impl FnMut() -> c_int,
    wait: impl Fn() -> c_int,
) -> c_int {
    let answer = if limit == 0 || !bell::any() {
        wait()
    } else {
        match ready::spin_epoll(epoll, nanoseconds(limit), ask) {
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
    unsafe { waited(epoll, (events, count), limit, ask, wait) }
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
    unsafe { waited(epoll, (events, count), limit, ask, wait) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    let answer = unsafe { real::epoll_pwait2(epoll, events, count, limit, mask) };
    // SAFETY: so many were written.
    unsafe { merged(events, answer) }
}
