//! Calls that make, change and end descriptors.

use std::ffi::{c_int, c_uint, c_ulong, c_void};

use libc::{sockaddr, socklen_t};
use midmile_friends::Plain;

use midmile_friends_sockets::sys::{call, real, set_errno, user};
use midmile_friends_sockets::{lifecycle, options, process, table};

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: there is no pointer.
    let fd = unsafe { real::socket(family, kind, protocol) };
    lifecycle::lost(fd);
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __socket(family: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the same function.
    unsafe { socket(family, kind, protocol) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    let began = call::about_now();
    // What was connected before is over: TCP disconnects, or refuses.
    // SAFETY: the program's address, of the length that it says.
    let family = if length >= 2 { unsafe { (*address).sa_family } } else { 0 };
    let inet = c_int::from(family) == libc::AF_INET || c_int::from(family) == libc::AF_INET6;
    lifecycle::renew(fd);
    if !inet && let Some(held) = lifecycle::closing(fd) {
        lifecycle::closed(&held);
    }
    // SAFETY: the program's pointer goes on as it came.
    let answer = unsafe { real::connect(fd, address, length) };
    let begun = answer == 0
        || midmile_friends_sockets::sys::errno() == libc::EINPROGRESS
        || midmile_friends_sockets::sys::errno() == libc::EINTR;
    if inet && begun && table::find(fd).is_none() {
        // SAFETY: as above.
        let peer = usize::try_from(length).ok().and_then(|length| unsafe { user::address(address, length) });
        lifecycle::begun(fd, peer, Some(began));
    }
    answer
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the same function.
    unsafe { connect(fd, address, length) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the program's length, if it wants the address.
    let room = unsafe { room(address, length) };
    // SAFETY: the program's pointers go on as they came.
    let accepted = unsafe { real::accept(fd, address, length) };
    // SAFETY: the kernel has written there what there was room for.
    unsafe { begun(accepted, address, length, room) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the program's length, if it wants the address.
    let room = unsafe { room(address, length) };
    // SAFETY: the program's pointers go on as they came.
    let accepted = unsafe { real::accept4(fd, address, length, flags) };
    // SAFETY: the kernel has written there what there was room for.
    unsafe { begun(accepted, address, length, room) }
}

/// How much room the program has for a peer's address.
///
/// # Safety
/// The length can be read, if the program wants the address.
unsafe fn room(address: *const sockaddr, length: *const socklen_t) -> socklen_t {
    if address.is_null() || length.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { *length }
}

/// A connection was accepted, unless `fd` is none. Where its peer's address isn't told, what kind it is, is asked when it has carried something.
///
/// # Safety
/// Where there was room, address and length are what the kernel has written.
unsafe fn begun(fd: c_int, address: *const sockaddr, length: *const socklen_t, room: socklen_t) -> c_int {
    if fd < 0 {
        return fd;
    }
    lifecycle::lost(fd);
    // SAFETY: the caller's promise.
    let told = if room == 0 { 0 } else { unsafe { *length }.min(room) };
    // SAFETY: as above: so many bytes were written.
    let peer = usize::try_from(told).ok().and_then(|told| unsafe { user::address(address, told) });
    lifecycle::begun(fd, peer, None);
    fd
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    let held = table::find(fd);
    if let Some(held) = &held {
        lifecycle::shutting(fd, held, how);
    }
    // SAFETY: there is no pointer.
    let answer = unsafe { real::shutdown(fd, how) };
    if answer == 0
        && let Some(held) = &held
    {
        lifecycle::shut(held, how);
    }
    answer
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    if table::is_ours(fd) {
        // As far as the program knows, it isn't open.
        set_errno(libc::EBADF);
        return -1;
    }
    // SAFETY: there is no pointer.
    ended(fd, || unsafe { real::close(fd) })
}

/// A descriptor is closed by `act`.
pub(super) fn ended<T>(fd: c_int, act: impl FnOnce() -> T) -> T {
    let held = lifecycle::closing(fd);
    let answer = act();
    if let Some(held) = held {
        lifecycle::closed(&held);
    }
    answer
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __close(fd: c_int) -> c_int {
    // SAFETY: the same function.
    unsafe { close(fd) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if flags != 0 || first > last {
        // Marked, not closed; or in a table of descriptors that the thread will have alone; or refused.
        // SAFETY: there is no pointer.
        return unsafe { real::close_range(first, last, flags) };
    }
    let mut from = first;
    // A child of vfork closes its copies: its parent's ends stay in the table.
    let owned = process::owns_tables();
    for fd in table::within(first, last) {
        let (Ok(number), false) = (c_uint::try_from(fd), table::is_ours(fd)) else {
            let ours = fd.cast_unsigned();
            if ours > from {
                // SAFETY: there is no pointer.
                unsafe { real::close_range(from, ours - 1, 0) };
            }
            from = ours + 1;
            continue;
        };
        if owned && number >= from {
            // SAFETY: there is no pointer. What it says of one of many isn't asked for.
            unsafe { close(fd) };
        }
    }
    // SAFETY: there is no pointer.
    if from <= last { unsafe { real::close_range(from, last, 0) } } else { 0 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: there is no pointer.
    unsafe { close_range(c_uint::try_from(first).unwrap_or(0), c_uint::MAX, 0) };
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: there is no pointer.
    copied(fd, unsafe { real::dup(fd) })
}

fn copied(fd: c_int, copy: c_int) -> c_int {
    if copy >= 0 {
        lifecycle::same(fd, copy);
    }
    copy
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup2(fd: c_int, onto: c_int) -> c_int {
    // SAFETY: there is no pointer.
    replaced(fd, onto, || unsafe { real::dup2(fd, onto) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __dup2(fd: c_int, onto: c_int) -> c_int {
    // SAFETY: the same function.
    unsafe { dup2(fd, onto) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup3(fd: c_int, onto: c_int, flags: c_int) -> c_int {
    if flags & !libc::O_CLOEXEC != 0 {
        // Refused.
        // SAFETY: there is no pointer.
        return unsafe { real::dup3(fd, onto, flags) };
    }
    // SAFETY: there is no pointer.
    replaced(fd, onto, || unsafe { real::dup3(fd, onto, flags) })
}

/// A descriptor replaces another, which is closed by that.
fn replaced(fd: c_int, onto: c_int, act: impl FnOnce() -> c_int) -> c_int {
    if fd == onto || table::knows(onto) && !(call::is_open(fd) && process::may_have(onto)) {
        return act();
    }
    if table::is_ours(onto) {
        lifecycle::make_way(onto);
    }
    let held = lifecycle::closing(onto);
    let answer = act();
    if let Some(held) = held {
        lifecycle::closed(&held);
    }
    copied(fd, answer)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the program's argument goes on as it came.
    let answer = unsafe { real::fcntl(fd, command, argument) };
    if answer < 0 {
        return answer;
    }
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => lifecycle::same(fd, answer),
        libc::F_SETFL => {
            if let Some(held) = table::find(fd) {
                options::flags_are(&held, c_int::try_from(argument & 0x7fff_ffff).unwrap_or(0));
            }
        }
        _ => {}
    }
    answer
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the same function, where offsets have 64 bits.
    unsafe { fcntl(fd, command, argument) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the same function.
    unsafe { fcntl(fd, command, argument) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    let held = table::find(fd);
    if let Some(held) = &held {
        options::requesting(fd, held, request);
    }
    // SAFETY: the program's argument goes on as it came.
    let answer = unsafe { real::ioctl(fd, request, argument) };
    if answer < 0 {
        return answer;
    }
    let Some(held) = held else { return answer };
    let value = argument as *mut c_int;
    match request {
        libc::FIONBIO | libc::FIOASYNC | libc::FIONREAD | libc::TIOCOUTQ | SIOCATMARK | options::SIOCOUTQNSD => {}
        _ => return answer,
    }
    // SAFETY: these requests have a pointer to an integer, and the kernel has just used it.
    let number = unsafe { value.read_unaligned() };
    let told = match request {
        libc::FIONBIO => {
            options::nonblocking_is(&held, number != 0);
            return answer;
        }
        libc::FIOASYNC => {
            if number != 0 {
                options::signals(&held);
            }
            return answer;
        }
        libc::FIONREAD => options::unread(&held, number),
        libc::TIOCOUTQ | options::SIOCOUTQNSD => options::unacknowledged(&held, number),
        // What is in the ring comes before the mark.
        _ if options::unread(&held, 0) > 0 => 0,
        _ => number,
    };
    // SAFETY: as above.
    unsafe { value.write_unaligned(told) };
    answer
}

/// Whether the next byte is the one that was urgent (linux/sockios.h).
const SIOCATMARK: c_ulong = 0x8905;

#[unsafe(no_mangle)]
unsafe extern "C" fn sockatmark(fd: c_int) -> c_int {
    let mut is_at: c_int = 0;
    // SAFETY: the request writes an integer, of ours.
    let answer = unsafe { ioctl(fd, SIOCATMARK, (&raw mut is_at).expose_provenance()) };
    if answer < 0 { answer } else { is_at }
}

/// An option's value, if it's an integer.
///
/// # Safety
/// As setsockopt(2) asks for.
unsafe fn integer(value: *const c_void, length: socklen_t) -> Option<c_int> {
    if value.is_null() || (length as usize) < size_of::<c_int>() {
        return None;
    }
    // SAFETY: there are so many bytes.
    Some(unsafe { value.cast::<c_int>().read_unaligned() })
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot")]
pub(super) unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let Some(held) = table::find(fd) else {
        // SAFETY: the program's pointer goes on as it came.
        return unsafe { real::setsockopt(fd, level, name, value, length) };
    };
    // SAFETY: the program's value has this length.
    let number = unsafe { integer(value, length) };
    options::setting(fd, &held, level, name, number);
    // SAFETY: the program's pointer goes on as it came.
    let answer = unsafe { real::setsockopt(fd, level, name, value, length) };
    if answer == 0 {
        options::set(fd, &held, level, name, number);
    }
    answer
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    let held = table::find(fd);
    if let Some(held) = &held {
        options::asking(fd, held, level, name);
    }
    // SAFETY: the program's pointers go on as they came.
    let answer = unsafe { real::getsockopt(fd, level, name, value, length) };
    if answer == 0
        && let Some(held) = &held
    {
        // SAFETY: the kernel has just written the length, and so many bytes of the value.
        let length = unsafe { *length } as usize;
        // SAFETY: as above.
        let value = unsafe { std::slice::from_raw_parts_mut(value.cast::<u8>(), length) };
        match options::asked(held, level, name) {
            Some(number) if length == size_of::<c_int>() => value.copy_from_slice(&number.to_ne_bytes()),
            _ => options::complete(held, level, name, value),
        }
    }
    answer
}

/// What stdio reads and writes goes past this library.
pub(super) fn given_to_stdio(fd: c_int) {
    lifecycle::give_away(fd, Plain::Unknown);
    // Stdio closes it by itself.
    if table::find(fd).is_some_and(|held| held.is_plain()) {
        lifecycle::lost(fd);
    }
}
