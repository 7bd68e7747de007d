//! Calls that receive.

use std::ffi::{c_int, c_uint, c_void};

use libc::{MSG_PEEK, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

use super::{carrying, heard, is_nowhere, moved, readiness, told, told_or};
use midmile_friends_sockets::befriend;
use midmile_friends_sockets::end::{Stage, Way};
use midmile_friends_sockets::moves;
use midmile_friends_sockets::receive::receive;
use midmile_friends_sockets::sys::user::Buffers;
use midmile_friends_sockets::sys::{Errno, STALE, call, errno, real, set_errno};
use midmile_friends_sockets::table::Held;

/// A receive that libc's own does: counted, where the end may become a friend.
fn counted(fd: c_int, held: &Held, stage: &Stage, consumes: bool, act: impl FnOnce() -> ssize_t) -> ssize_t {
    counted_as(fd, held, stage, act, |answer| if consumes { moved(*answer) } else { 0 })
}

/// The same, of a call whose answer stands for so many `bytes`.
fn counted_as<T>(fd: c_int, held: &Held, stage: &Stage, act: impl FnOnce() -> T, bytes: impl FnOnce(&T) -> usize) -> T {
    let answer = held.asleep(act);
    if *stage == Stage::Counted {
        let count = bytes(&answer);
        held.counted(Way::In, count);
        if count > 0 {
            befriend::consider(fd, held, Way::In);
        }
    }
    answer
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    // SAFETY: the program's buffer goes on as it came.
    let own = || unsafe { real::read(fd, buffer, length) };
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::In) {
        // Of no bytes it's answered without a look at the connection.
        Stage::Friend if length == 0 => own(),
        Stage::Friend if is_nowhere(length) => told(Err(Errno(libc::EFAULT))),
        // SAFETY: the program's buffer is writable, for so many bytes.
        Stage::Friend => told_or(fd, receive(fd, &held, &mut unsafe { Buffers::one(buffer, length) }, 0), own),
        stage => counted(fd, &held, &stage, true, own),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    // SAFETY: the same function.
    unsafe { read(fd, buffer, length) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
unsafe extern "C" fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the program's buffer goes on as it came.
    let own = || unsafe { real::recv(fd, buffer, length, flags) };
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::In) {
        // SAFETY: the program's buffer is writable, for so many bytes.
        Stage::Friend => told_or(fd, receive(fd, &held, &mut unsafe { Buffers::one(buffer, length) }, flags), own),
        stage => counted(fd, &held, &stage, flags & MSG_PEEK == 0, own),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the same function.
    unsafe { recv(fd, buffer, length, flags) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    size: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the program's pointers go on as they came.
    let own = || unsafe { real::recvfrom(fd, buffer, length, flags, address, size) };
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::In) {
        Stage::Friend => {
            // SAFETY: the program's buffer is writable, for so many bytes.
            let answer = told_or(fd, receive(fd, &held, &mut unsafe { Buffers::one(buffer, length) }, flags), own);
            if answer < 0 || address.is_null() || size.is_null() {
                return answer;
            }
            // SAFETY: the program's size can be read and written where there is an address. TCP tells none.
            let room = unsafe { size.replace(0) };
            if room.cast_signed() < 0 {
                // SAFETY: as above.
                unsafe { *size = room };
                return told(Err(Errno(libc::EINVAL)));
            }
            answer
        }
        stage => counted(fd, &held, &stage, flags & MSG_PEEK == 0, own),
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the program's pointers go on as they came.
    let own = || unsafe { real::readv(fd, parts, count) };
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::In) {
        Stage::Friend => {
            let Ok(count) = usize::try_from(count) else { return told(Err(Errno(libc::EINVAL))) };
            // SAFETY: the program's list has so many buffers, which are writable.
            let buffers = unsafe { Buffers::list(parts, count) };
            let Ok(mut buffers) = buffers else { return own() };
            if buffers.left() == 0 {
                return own();
            }
            told_or(fd, receive(fd, &held, &mut buffers, 0), own)
        }
        stage => counted(fd, &held, &stage, true, own),
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's pointers go on as they came.
    let own = || unsafe { real::recvmsg(fd, message, flags) };
    let Some(held) = carrying(fd) else { return own() };
    match held.begin(Way::In) {
        // Errors that wait, and what comes with them, only the kernel has.
        Stage::Friend if flags & libc::MSG_ERRQUEUE != 0 => own(),
        // SAFETY: the program's message is valid.
        Stage::Friend => unsafe { message_of_friend(fd, &held, message, flags, own) },
        stage => counted(fd, &held, &stage, flags & (MSG_PEEK | libc::MSG_ERRQUEUE) == 0, own),
    }
}

/// # Safety
/// As recvmsg(2) asks for.
unsafe fn message_of_friend(
    fd: c_int,
    held: &Held,
    message: *mut msghdr,
    flags: c_int,
    own: impl Fn() -> ssize_t,
) -> ssize_t {
    // SAFETY: the program's message is valid.
    let message = unsafe { &mut *message };
    if message.msg_namelen.cast_signed() < 0 {
        return told(Err(Errno(libc::EINVAL)));
    }
    // SAFETY: its list has so many buffers, which are writable.
    let buffers = unsafe { Buffers::list(message.msg_iov, message.msg_iovlen) };
    let Ok(mut buffers) = buffers else { return own() };
    let answer = receive(fd, held, &mut buffers, flags);
    if answer == Err(STALE) {
        return told_or(fd, answer, own);
    }
    let answer = told(answer);
    if answer >= 0 {
        // Neither an address nor control data: TCP has none unless an option asks for it, and then the end is plain.
        if !message.msg_name.is_null() {
            message.msg_namelen = 0;
        }
        message.msg_controllen = 0;
        message.msg_flags = flags & (libc::MSG_OOB | libc::MSG_CMSG_CLOEXEC);
    }
    answer
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    limit: *mut timespec,
) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    let own = || unsafe { real::recvmmsg(fd, messages, count, flags, limit) };
    let Some(held) = carrying(fd) else { return own() };
    let stage = held.begin(Way::In);
    if stage != Stage::Friend {
        let consumes = flags & MSG_PEEK == 0;
        let bytes = |told: &c_int| {
            let filled = usize::try_from(*told).ok().filter(|filled| consumes && *filled > 0);
            // SAFETY: libc's own has just filled so many.
            let filled = filled.map(|filled| unsafe { std::slice::from_raw_parts(messages, filled) });
            filled.unwrap_or_default().iter().map(|one| one.msg_len as usize).sum()
        };
        return counted_as(fd, &held, &stage, own, bytes);
    }
    // SAFETY: the program's limit.
    let Some(until) = (unsafe { readiness::limit(limit) }) else {
        set_errno(libc::EINVAL);
        return -1;
    };
    let mut flags = flags;
    for index in 0..count {
        // SAFETY: the program's list has so many messages.
        let place = unsafe { messages.add(index as usize) };
        // SAFETY: as above.
        let one = unsafe { &mut *place };
        // SAFETY: the program's message is valid.
        let answer = unsafe { recvmsg(fd, &raw mut one.msg_hdr, flags & !libc::MSG_WAITFORONE) };
        let Ok(length) = c_uint::try_from(answer) else {
            if index == 0 {
                return -1;
            }
            held.keep_error(errno());
            return c_int::try_from(index).unwrap_or(c_int::MAX);
        };
        one.msg_len = length;
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        // SAFETY: there's a timespec if there's a limit. It's looked at between messages alone (recvmmsg(2), under BUGS).
        unsafe { readiness::tell_left(until, limit) };
        if until.left() == Some(0) || one.msg_hdr.msg_flags & libc::MSG_OOB != 0 {
            return c_int::try_from(index + 1).unwrap_or(c_int::MAX);
        }
    }
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __read_chk(fd: c_int, buffer: *mut c_void, length: size_t, size: size_t) -> ssize_t {
    super::program::fits(length, size);
    // SAFETY: the program's buffer is as large as it says.
    unsafe { read(fd, buffer, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __recv_chk(fd: c_int, buffer: *mut c_void, length: size_t, size: size_t, flags: c_int) -> ssize_t {
    super::program::fits(length, size);
    // SAFETY: the program's buffer is as large as it says.
    unsafe { recv(fd, buffer, length, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_size: *mut socklen_t,
) -> ssize_t {
    super::program::fits(length, size);
    // SAFETY: the program's buffer is as large as it says.
    unsafe { recvfrom(fd, buffer, length, flags, address, address_size) }
}

/// Both ends of a splice may be friends: first what comes out of the one, then what goes into the other.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn splice(
    source: c_int,
    from: *mut i64,
    target: c_int,
    to: *mut i64,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: the program's pointers go on as they came.
    let own = || unsafe { real::splice(source, from, target, to, count, flags) };
    if let Some(held) = carrying(source) {
        return match held.begin(Way::In) {
            // Refused.
            Stage::Friend if !call::is_pipe(target) => own(),
            Stage::Friend => {
                let waits = flags & libc::SPLICE_F_NONBLOCK == 0;
                told(moves::into_pipe(source, &held, target, count, waits, || heard(own())))
            }
            stage => counted(source, &held, &stage, true, own),
        };
    }
    super::sending::by_kernel(target, own)
}
