//! libc's names. Each function looks whether its descriptor is an end, and does what the program asked by the modules beside this one,
//! or by libc's own function. Nothing is decided here.
//!
//! What a connection to another host calls stands together in the library, in `.text.hot`, which linkers put in one place: spread over as many pages as functions it costs a connection
//! for one exchange half as much again (`docs/experiments/friends-bounds.md`).
#![expect(unsafe_code, reason = "functions that C calls, with the program's pointers")]

mod bare;
mod descriptors;
mod program;
mod readiness;
mod receiving;
mod selecting;
mod sending;
mod variadic;

use std::ffi::c_int;

use midmile_friends_sockets::lifecycle;
use midmile_friends_sockets::sys::{Answer, STALE, call, set_errno};
use midmile_friends_sockets::table::{self, Held};

/// The end that a descriptor is, for a call of libc's that is a cancellation point, if its bytes may have to go otherwise than by that.
#[inline]
fn carrying(fd: c_int) -> Option<Held> {
    if call::may_be_cancelled() && table::is_end(fd) {
        call::cancel();
    }
    table::carrying(fd)
}

/// What a call of libc's answers.
fn told(answer: Answer) -> libc::ssize_t {
    match answer {
        Ok(count) => libc::ssize_t::try_from(count).unwrap_or(libc::ssize_t::MAX),
        Err(error) => {
            set_errno(error.0);
            -1
        }
    }
}

/// What a call on a friend answers; where its descriptor's number turned out to be another's, `own`, libc's function, does it.
fn told_or(fd: c_int, answer: Answer, own: impl FnOnce() -> libc::ssize_t) -> libc::ssize_t {
    if answer == Err(STALE) {
        lifecycle::lost(fd);
        return own();
    }
    told(answer)
}

/// Whether no buffer has so many bytes, as of a length that was a failed call's −1.
fn is_nowhere(length: usize) -> bool {
    isize::try_from(length).is_err()
}

/// How many bytes an answer of libc's stands for.
fn moved(answer: libc::ssize_t) -> usize {
    usize::try_from(answer).unwrap_or(0)
}

/// An answer of libc's, for those that count in `usize`.
fn heard(answer: libc::ssize_t) -> Answer {
    usize::try_from(answer).map_err(|_| midmile_friends_sockets::sys::Errno(midmile_friends_sockets::sys::errno()))
}
