//! What needs unsafe code beneath the rest: libc's own functions, system calls, the program's buffers, shared memory.
#![expect(
    unsafe_code,
    reason = "system calls, libc's functions by their names, and memory that the program or a peer owns"
)]

pub(crate) mod ask;
pub(crate) mod board;
pub mod call;
pub mod control;
pub(crate) mod futex;
pub(crate) mod map;
pub mod real;
pub(crate) mod threads;
pub mod user;

/// A system call's error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What a call of the program's came to: a count, or an error number.
pub type Answer = Result<usize, Errno>;

pub(crate) const AGAIN: Errno = Errno(libc::EAGAIN);
/// The descriptor's number is another's by now, closed where this library doesn't see it: libc's own call is to answer.
pub const STALE: Errno = Errno(-1);
pub(crate) const INTERRUPTED: Errno = Errno(libc::EINTR);

/// The thread's `errno`.
pub fn errno() -> i32 {
    // SAFETY: the function has no conditions; it answers the address of this thread's own variable.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the address is this thread's `errno`, which lives as long as the thread does.
    unsafe { *place }
}

/// Sets the thread's `errno`.
pub fn set_errno(number: i32) {
    // SAFETY: the function has no conditions; it answers the address of this thread's own variable.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the address is this thread's `errno`, which lives as long as the thread does and which no one else writes.
    unsafe { *place = number }
}

/// What a call said that answers −1 and sets `errno`.
fn checked(answer: isize) -> Answer {
    usize::try_from(answer).map_err(|_| Errno(errno()))
}

/// Makes a system call past whatever stands in front of it. The program's `errno` stays as it is.
///
/// # Safety
/// The arguments are what the call of this number asks for.
unsafe fn system(number: libc::c_long, [a, b, c, d, e, f]: [usize; 6]) -> Answer {
    let kept = errno();
    // SAFETY: the caller's promise is the one that is asked for.
    let answer = unsafe { (real::syscall())(number, a, b, c, d, e, f) };
    let answer = checked(isize::try_from(answer).expect("a long is as wide"));
    set_errno(kept);
    answer
}

/// An integer as an argument of a system call.
fn word(number: libc::c_int) -> usize {
    usize::try_from(number.cast_unsigned()).expect("a word has 32 bits or more")
}
