//! Calls that send.

use std::ffi::{c_int, c_uint, c_void};

use libc::{iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t};
use midmile_friends::Plain;

use super::{carrying, heard, is_nowhere, moved, told, told_or};
use midmile_friends_sockets::end::{Stage, Way};
use midmile_friends_sockets::send::send as send_to_friend;
use midmile_friends_sockets::sys::user::Buffers;
use midmile_friends_sockets::sys::{Errno, control, real};
use midmile_friends_sockets::table::Held;
use midmile_friends_sockets::{befriend, lifecycle, moves};

/// A send that libc's own does: counted, where the end may become a friend.
fn counted(fd: c_int, held: &Held, stage: &Stage, act: impl FnOnce() -> ssize_t) -> ssize_t {
    let answer = held.asleep(act);
    if *stage == Stage::Counted {
        held.counted(Way::Out, moved(answer));
        if answer > 0 {
            befriend::consider(fd, held, Way::Out);
        }
    }
    answer
}

/// A send of one buffer; `own`: libc's.
///
/// # Safety
/// The buffer is readable, for so many bytes, until the call ends.
unsafe fn send_one(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    own: impl Fn() -> ssize_t,
) -> ssize_t {
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::Out) {
        Stage::Friend if length == 0 => own(),
        Stage::Friend if is_nowhere(length) => told(Err(Errno(libc::EFAULT))),
        Stage::Friend => {
            // SAFETY: the caller's promise is the one that is asked for.
            let mut buffers = unsafe { Buffers::one(buffer, length) };
            told_or(fd, send_to_friend(fd, &held, &mut buffers, flags), own)
        }
        stage => counted(fd, &held, &stage, own),
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the program's buffer goes on as it came.
    let own = || unsafe { real::write(fd, buffer, length) };
    // SAFETY: the program's buffer is readable, for so many bytes.
    unsafe { send_one(fd, buffer, length, 0, own) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the same function.
    unsafe { write(fd, buffer, length) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
unsafe extern "C" fn send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the program's buffer goes on as it came.
    let own = || unsafe { real::send(fd, buffer, length, flags) };
    // SAFETY: the program's buffer is readable, for so many bytes.
    unsafe { send_one(fd, buffer, length, flags, own) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the same function.
    unsafe { send(fd, buffer, length, flags) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    size: socklen_t,
) -> ssize_t {
    // SAFETY: the program's pointers go on as they came.
    let own = || unsafe { real::sendto(fd, buffer, length, flags, address, size) };
    // TCP takes no notice of an address where it's connected, unless it's longer than any.
    if !address.is_null() && size as usize > size_of::<libc::sockaddr_storage>() {
        return own();
    }
    // SAFETY: the program's buffer is readable, for so many bytes.
    unsafe { send_one(fd, buffer, length, flags, own) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the program's pointers go on as they came.
    let own = || unsafe { real::writev(fd, parts, count) };
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::Out) {
        Stage::Friend => {
            let Ok(count) = usize::try_from(count) else { return told(Err(Errno(libc::EINVAL))) };
            // SAFETY: the program's list has so many buffers, which are readable.
            let buffers = unsafe { Buffers::list(parts, count) };
            let Ok(mut buffers) = buffers else { return own() };
            told_or(fd, send_to_friend(fd, &held, &mut buffers, 0), own)
        }
        stage => counted(fd, &held, &stage, own),
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's message goes on as it came.
    let own = || unsafe { real::sendmsg(fd, message, flags) };
    // A Unix-domain socket that was accepted has an entry too.
    // SAFETY: the program's message is valid.
    unsafe { pass(message) };
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::Out) {
        Stage::Friend => {
            // SAFETY: the program's message is valid.
            let whole = unsafe { &*message };
            if whole.msg_namelen.cast_signed() < 0 {
                return told(Err(Errno(libc::EINVAL)));
            }
            if whole.msg_controllen > 0 {
                // Marks and timestamps of a send are the kernel's.
                return told(moves::out(fd, &held, flags & libc::MSG_DONTWAIT == 0, || heard(held.asleep(own))));
            }
            // SAFETY: its list has so many buffers, which are readable.
            let buffers = unsafe { Buffers::list(whole.msg_iov, whole.msg_iovlen) };
            let Ok(mut buffers) = buffers else { return own() };
            told_or(fd, send_to_friend(fd, &held, &mut buffers, flags), own)
        }
        stage => counted(fd, &held, &stage, own),
    }
}

/// Ends that a message passes to another process are plain from now on.
///
/// # Safety
/// As sendmsg(2) asks for.
unsafe fn pass(message: *const msghdr) {
    if message.is_null() {
        return;
    }
    // SAFETY: the program's message is valid.
    if unsafe { (*message).msg_controllen } > 0 {
        // SAFETY: as above.
        unsafe { control::each_passed(message, |fd| lifecycle::give_away(fd, Plain::Passed)) };
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    if carrying(fd).is_none() {
        for index in 0..count {
            // SAFETY: the program's list has so many messages.
            let place = unsafe { messages.add(index as usize) };
            // SAFETY: as above.
            let one = unsafe { &*place };
            // SAFETY: the program's message is valid.
            unsafe { pass(&raw const one.msg_hdr) };
        }
        // SAFETY: the program's pointers go on as they came.
        return unsafe { real::sendmmsg(fd, messages, count, flags) };
    }
    // The kernel takes no more at once.
    let count = count.min(1024);
    for index in 0..count {
        // SAFETY: the program's list has so many messages.
        let place = unsafe { messages.add(index as usize) };
        // SAFETY: as above.
        let one = unsafe { &mut *place };
        // SAFETY: the program's message is valid.
        let answer = unsafe { sendmsg(fd, &raw const one.msg_hdr, flags) };
        let Ok(length) = c_uint::try_from(answer) else {
            return if index > 0 { c_int::try_from(index).unwrap_or(c_int::MAX) } else { -1 };
        };
        one.msg_len = length;
        // SAFETY: the message's list has so many buffers.
        let whole = unsafe { Buffers::list(one.msg_hdr.msg_iov, one.msg_hdr.msg_iovlen) };
        // What remains of a message that was cut short comes before the next.
        if whole.is_ok_and(|buffers| buffers.left() > length as usize) {
            return c_int::try_from(index + 1).unwrap_or(c_int::MAX);
        }
    }
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    // SAFETY: the same function.
    unsafe { sendmmsg(fd, messages, count, flags) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendfile(out: c_int, source: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the program's pointer goes on as it came.
    by_kernel(out, || unsafe { real::sendfile(out, source, offset, count) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile64(out: c_int, source: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the same function, where offsets have 64 bits.
    unsafe { sendfile(out, source, offset, count) }
}

/// Bytes that the kernel moves into a socket.
pub(super) fn by_kernel(fd: c_int, act: impl FnOnce() -> ssize_t) -> ssize_t {
    let Some(held) = carrying(fd) else { return act() };
    match held.begin(Way::Out) {
        Stage::Friend => told(moves::out(fd, &held, true, || heard(held.asleep(act)))),
        stage => counted(fd, &held, &stage, act),
    }
}
