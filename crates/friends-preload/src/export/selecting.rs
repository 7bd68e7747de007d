//! select and pselect.

use std::ffi::c_int;

use libc::{fd_set, sigset_t, timespec, timeval};

use super::readiness::{limit, time};
use midmile_friends_sockets::ready::{self, Limit, Set, Wait};
use midmile_friends_sockets::sys::real;
use midmile_friends_sockets::table;

/// Words of an `fd_set`.
const WORDS: usize = libc::FD_SETSIZE / 64;

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

/// As [`limit`], of a timeval.
///
/// # Safety
/// The pointer is null or to a timeval.
unsafe fn limit_of_select(time: *const timeval) -> Option<Limit> {
    if time.is_null() {
        return Some(Limit::Never);
    }
    // SAFETY: it isn't null.
    let time = unsafe { *time };
    let (seconds, micros) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_usec).ok()?);
    Some(Limit::after(seconds.saturating_mul(1_000_000_000).saturating_add(micros.saturating_mul(1000))))
}

/// select(2), by `wait`, libc's own.
fn select_friends(count: usize, mut sets: Sets, limit: Limit, wait: impl Fn(Wait) -> c_int) -> c_int {
    loop {
        let mut read = sets.asked[0];
        let ready = ready::prepare_set(&Set(&mut read), count);
        let answer = wait(if ready { Wait::Look } else { Wait::AtMost(limit.left()) });
        if answer < 0 {
            return answer;
        }
        let told = answer + ready::put_set_right(&Set(&mut read), &mut Set(sets.told(0)), count);
        // As poll does.
        if told > 0 || !ready && answer == 0 || limit.left() == Some(0) {
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
    let concerned = unsafe { looked_at(count, read) }.is_some();
    // SAFETY: the program's limit.
    let limit = if concerned { unsafe { limit_of_select(time_limit) } } else { None };
    let Some(limit) = limit else {
        // SAFETY: the program's pointers go on as they came.
        return unsafe { real::select(count, read, write, except, time_limit) };
    };
    let number = usize::try_from(count).unwrap_or(0);
    // SAFETY: the program's sets.
    let sets = unsafe { Sets::of([read, write, except], number) };
    // SAFETY: the program's sets.
    let wait = |left| unsafe { select_for(count, [read, write, except], left, std::ptr::null()) };
    let answer = select_friends(number, sets, limit, |how| match how {
        Wait::Look => wait(Some(0)),
        Wait::AtMost(left) => wait(left),
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
    let concerned = unsafe { looked_at(count, read) }.is_some();
    // SAFETY: the program's limit.
    let limit = if concerned { unsafe { limit(time_limit) } } else { None };
    let Some(limit) = limit else {
        // SAFETY: the program's pointers go on as they came.
        return unsafe { real::pselect(count, read, write, except, time_limit, mask) };
    };
    let number = usize::try_from(count).unwrap_or(0);
    // SAFETY: the program's sets.
    let sets = unsafe { Sets::of([read, write, except], number) };
    select_friends(number, sets, limit, |how| match how {
        // SAFETY: the program's sets.
        Wait::Look => unsafe { select_for(count, [read, write, except], Some(0), std::ptr::null()) },
        // SAFETY: the program's sets and mask.
        Wait::AtMost(left) => unsafe { select_for(count, [read, write, except], left, mask) },
    })
}

/// pselect(2) by its number, as [`ppoll_bare`].
///
/// # Safety
/// As pselect(2) asks for.
pub(super) unsafe fn pselect_bare(
    count: c_int,
    [read, write, except]: [*mut fd_set; 3],
    time_limit: *const timespec,
    wait: impl Fn() -> c_int,
) -> Option<c_int> {
    // SAFETY: the program's set.
    unsafe { looked_at(count, read) }?;
    // SAFETY: the program's limit.
    let limit = unsafe { limit(time_limit) }?;
    let number = usize::try_from(count).unwrap_or(0);
    // SAFETY: the program's sets.
    let sets = unsafe { Sets::of([read, write, except], number) };
    Some(select_friends(number, sets, limit, |how| match how {
        // SAFETY: the program's sets.
        Wait::Look => unsafe { select_for(count, [read, write, except], Some(0), std::ptr::null()) },
        Wait::AtMost(_) => wait(),
    }))
}

/// libc's own pselect, for so many nanoseconds.
///
/// # Safety
/// As pselect(2) asks for.
unsafe fn select_for(
    count: c_int,
    [read, write, except]: [*mut fd_set; 3],
    left: Option<u64>,
    mask: *const sigset_t,
) -> c_int {
    let left = left.map(time);
    let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the sets and the mask are the program's, the limit is ours.
    unsafe { real::pselect(count, read, write, except, left, mask) }
}
