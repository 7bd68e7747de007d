//! Sending and receiving on the program's sockets. `*_now` never sleeps, isn't a cancellation point and raises no signal, so it may be
//! called with a lock held; `*_sleeping` is libc's own and does all that.

use std::os::raw::c_int;

use libc::{MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, msghdr};

use super::user::Buffers;
use super::{AGAIN, Answer, Errno, checked, errno, real, set_errno, system, threads, word};
use crate::thread::{Own, own};

fn header() -> msghdr {
    // SAFETY: all of its fields may be zero: no address, no buffers, no control data.
    unsafe { std::mem::zeroed() }
}

fn call(number: libc::c_long, fd: c_int, message: &mut msghdr, flags: c_int) -> Answer {
    let message = std::ptr::from_mut(message).expose_provenance();
    // SAFETY: sendmsg or recvmsg of a message whose buffers the caller keeps valid while this runs.
    unsafe { system(number, [word(fd), message, word(flags), 0, 0, 0]) }
}

/// Sends what it can at once, without a signal where the connection is over (EPIPE).
pub(crate) fn send_now(fd: c_int, buffers: &mut Buffers<'_>, flags: c_int) -> Answer {
    let (mut parts, count) = buffers.batch();
    let mut message = header();
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = count;
    let sent = call(libc::SYS_sendmsg, fd, &mut message, flags | MSG_DONTWAIT | MSG_NOSIGNAL)?;
    buffers.advance(sent);
    Ok(sent)
}

/// Sends and sleeps for as long as the socket and the flags say. Whether the kernel took all that it was given beside how much that is:
/// less is the answer to the program's call (a signal, a time limit).
pub(crate) fn send_sleeping(fd: c_int, buffers: &mut Buffers<'_>, flags: c_int) -> Result<(usize, bool), Errno> {
    let given = buffers.batched();
    let (mut parts, count) = buffers.batch();
    let mut message = header();
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = count;
    // SAFETY: the message's buffers are the program's, valid while this runs.
    let sent = checked(unsafe { real::sendmsg(fd, &raw const message, flags) })?;
    buffers.advance(sent);
    Ok((sent, sent == given))
}

/// Receives what is there.
pub(crate) fn receive_now(fd: c_int, buffers: &mut Buffers<'_>, flags: c_int) -> Answer {
    let (mut parts, count) = buffers.batch();
    let mut message = header();
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = count;
    let received = call(libc::SYS_recvmsg, fd, &mut message, flags | MSG_DONTWAIT)?;
    buffers.advance(received);
    Ok(received)
}

/// Receives as libc's own does, with all that the flags say.
pub(crate) fn receive_sleeping(fd: c_int, buffers: &mut Buffers<'_>, flags: c_int) -> Answer {
    let (mut parts, count) = buffers.batch();
    let mut message = header();
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = count;
    // SAFETY: the message's buffers are the program's, valid while this runs.
    let received = checked(unsafe { real::recvmsg(fd, &raw mut message, flags) })?;
    buffers.advance(received);
    Ok(received)
}

/// Sleeps until a receive would have something: data, doorbells, the end or an error. Nothing is consumed. As long, and as
/// interruptible, as the program's own receive would be.
pub(crate) fn wait_sleeping(fd: c_int) -> Answer {
    let mut byte = 0_u8;
    // SAFETY: the buffer is one byte, as is said.
    checked(unsafe { real::recv(fd, (&raw mut byte).cast(), 1, MSG_PEEK) })
}

/// Shuts part of a connection down (shutdown(2)).
pub(crate) fn shut(fd: c_int, how: c_int) -> Result<(), Errno> {
    // SAFETY: no pointer is passed.
    unsafe { system(libc::SYS_shutdown, [word(fd), word(how), 0, 0, 0, 0]) }.map(drop)
}

/// Takes what is there out of the socket, at most as much as `into` holds; or only looks at it.
pub(crate) fn draw(fd: c_int, into: &mut [u8], look: bool) -> Answer {
    let (start, flags) = (into.as_mut_ptr().expose_provenance(), MSG_DONTWAIT | if look { MSG_PEEK } else { 0 });
    // SAFETY: the buffer is of the length that is said; there's no place for an address.
    unsafe { system(libc::SYS_recvfrom, [word(fd), start, into.len(), word(flags), 0, 0]) }
}

/// Writes to a pipe what it takes at once.
pub(crate) fn write_now(pipe: c_int, bytes: &[u8]) -> Answer {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // At the pipe's own place.
    let (part, here) = ((&raw const part).expose_provenance(), usize::MAX);
    // SAFETY: the pointer is to one buffer, of the length that is said, which is only read.
    unsafe { system(libc::SYS_pwritev2, [word(pipe), part, 1, here, here, word(libc::RWF_NOWAIT)]) }
}

/// How long a doorbell waits for room in the socket, in nanoseconds. What fills it was received, and the peer's kernel says so within a fifth
/// of that, whatever the peer does (RFC 9293, 3.8.6.3).
const ROOM_PATIENCE_NS: u32 = 200_000_000;

/// Sends a doorbell, a byte of value 0, to who has received all that was sent before. EAGAIN where the socket's buffer stays full.
pub(crate) fn ring(fd: c_int) -> Result<(), Errno> {
    match ring_now(fd) {
        Err(AGAIN) => {
            look_for(fd, libc::POLLOUT, ROOM_PATIENCE_NS);
            ring_now(fd)
        }
        answer => answer,
    }
}

fn ring_now(fd: c_int) -> Result<(), Errno> {
    let bell = 0_u8;
    let (place, flags) = ((&raw const bell).expose_provenance(), MSG_DONTWAIT | MSG_NOSIGNAL);
    // SAFETY: the buffer is one byte, as is said; there's no address.
    unsafe { system(libc::SYS_sendto, [word(fd), place, 1, word(flags), 0, 0]) }.map(drop)
}

/// Resets a connection: the peer gets a reset, and this end's next calls say so.
pub(crate) fn reset(fd: c_int) {
    let kept = errno();
    // An address of no family disconnects (connect(2)); TCP does it by a reset.
    let nowhere = [0_u8; 16];
    // SAFETY: the pointer is to as many bytes as are said.
    unsafe { (real::syscall())(libc::SYS_connect, fd, nowhere.as_ptr(), nowhere.len()) };
    set_errno(kept);
}

/// The connection ends by a reset when it's closed.
pub(crate) const NO_LINGER: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// Says how the connection ends when it's closed (`SO_LINGER`).
pub(crate) fn set_linger(fd: c_int, linger: libc::linger) {
    let kept = errno();
    let (level, name, size) = (libc::SOL_SOCKET, libc::SO_LINGER, size_of::<libc::linger>());
    // SAFETY: the pointer is to a linger of ours, of the length that is said.
    unsafe { (real::syscall())(libc::SYS_setsockopt, fd, level, name, &raw const linger, size) };
    set_errno(kept);
}

/// The signal that a write to a connection that is over gives the thread.
pub(crate) fn raise_sigpipe() {
    let (process, thread) = (process(), own(Own::number));
    // SAFETY: no pointer is passed; the thread is the calling one.
    unsafe { (real::syscall())(libc::SYS_tgkill, process, thread, libc::SIGPIPE) };
}

/// This thread's number, asked of the kernel each time: [`Own::number`] knows it.
pub(crate) fn thread() -> u32 {
    // SAFETY: the call has no arguments.
    let number = unsafe { (real::syscall())(libc::SYS_gettid) };
    u32::try_from(number).expect("a thread's number is positive")
}

/// Whether this thread runs a signal's handler on a stack of its own (sigaltstack(2)).
pub(crate) fn is_on_signal_stack() -> bool {
    let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: nothing is set, and what is told is put into a stack_t of ours.
    let answer = unsafe { (real::syscall())(libc::SYS_sigaltstack, 0_usize, &raw mut stack) };
    answer == 0 && stack.ss_flags & libc::SS_ONSTACK != 0
}

/// Whether there's a thread of this number, anywhere that we can see: it lives, or was killed and nobody has waited for its process.
pub(crate) fn is_there(thread: u32) -> bool {
    let Ok(number) = i32::try_from(thread) else { return false };
    // SAFETY: no pointer is passed; signal 0 is none.
    let answer = unsafe { system(libc::SYS_tkill, [word(number), 0, 0, 0, 0, 0]) };
    answer != Err(Errno(libc::ESRCH))
}

/// Whether another thread may cancel this one (pthread_cancel(3)).
#[inline]
pub fn may_be_cancelled() -> bool {
    !threads::alone()
}

/// Where this thread may be cancelled, as calls that may sleep are. Nothing is to be held here.
#[inline]
pub fn cancel() {
    // SAFETY: the function has no arguments. Where it doesn't return, frames of this library's have nothing to do.
    unsafe { pthread_testcancel() };
}

unsafe extern "C" {
    fn pthread_testcancel();
}

/// This process's number, asked of the kernel each time.
pub(crate) fn process() -> i32 {
    // SAFETY: the call has no arguments.
    unsafe { libc::getpid() }
}

/// Ends the process, all its threads, at once.
pub fn exit(status: c_int) -> ! {
    loop {
        // SAFETY: no pointer is passed.
        unsafe { (real::syscall())(libc::SYS_exit_group, status) };
    }
}

/// The CPU that this thread runs on.
pub(crate) fn cpu() -> u32 {
    // SAFETY: the call has no arguments.
    u32::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(u32::MAX)
}

/// Lets others run.
pub(crate) fn give_way() {
    // SAFETY: the call has no arguments.
    unsafe { libc::sched_yield() };
}

/// Whether a descriptor is a pipe's (`F_GETPIPE_SZ`).
pub fn is_pipe(fd: c_int) -> bool {
    // SAFETY: no pointer is passed.
    unsafe { system(libc::SYS_fcntl, [word(fd), word(libc::F_GETPIPE_SZ), 0, 0, 0, 0]) }.is_ok()
}

/// Whether a descriptor is open.
pub fn is_open(fd: c_int) -> bool {
    let kept = errno();
    // SAFETY: no pointer is passed.
    let answer = unsafe { (real::syscall())(libc::SYS_fcntl, fd, libc::F_GETFD, 0) };
    set_errno(kept);
    answer >= 0
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// The same to a few milliseconds, at less cost.
pub fn about_now() -> u64 {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since 1970.
pub(crate) fn since_1970() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { real::clock_gettime(which, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Waits at most `milliseconds` (−1: for ever) for `events` of one descriptor. Libc's own: interruptible, a cancellation point.
pub(crate) fn wait_for(fd: c_int, events: i16, milliseconds: c_int) -> Result<i16, Errno> {
    let mut one = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: the pointer is to one pollfd of ours.
    let answer = unsafe { real::poll(&raw mut one, 1, milliseconds) };
    checked(isize::try_from(answer).expect("an int fits"))?;
    Ok(one.revents)
}

/// What of `events` a descriptor has at once.
pub(crate) fn look_at(fd: c_int, events: i16) -> i16 {
    look_for(fd, events, 0)
}

/// What of `events` a descriptor has within so many nanoseconds, below a second.
pub(crate) fn look_for(fd: c_int, events: i16, nanoseconds: u32) -> i16 {
    let kept = errno();
    let mut one = libc::pollfd { fd, events, revents: 0 };
    let none = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds.into() };
    // SAFETY: the pointers are to a pollfd and a timespec of ours; there is no mask.
    unsafe { (real::syscall())(libc::SYS_ppoll, &raw mut one, 1, &raw const none, 0_usize, 0_usize) };
    set_errno(kept);
    one.revents
}

/// Changes what an epoll waits for; whether it did.
pub(crate) fn change_epoll(epoll: c_int, operation: c_int, fd: c_int, event: &mut libc::epoll_event) -> bool {
    let event = std::ptr::from_mut(event).expose_provenance();
    // SAFETY: the pointer is to an event of the caller's.
    unsafe { system(libc::SYS_epoll_ctl, [word(epoll), word(operation), word(fd), event, 0, 0]) }.is_ok()
}

/// Reads from a pipe that doesn't wait.
pub(crate) fn read_pipe(pipe: c_int, into: &mut [u8]) -> Answer {
    // SAFETY: the buffer is of the length that is said.
    unsafe { system(libc::SYS_read, [word(pipe), into.as_mut_ptr().expose_provenance(), into.len(), 0, 0, 0]) }
}

/// Writes to a pipe that doesn't wait.
pub(crate) fn write_pipe(pipe: c_int, bytes: &[u8]) -> Answer {
    // SAFETY: the buffer is of the length that is said, and only read.
    unsafe { system(libc::SYS_write, [word(pipe), bytes.as_ptr().expose_provenance(), bytes.len(), 0, 0, 0]) }
}
