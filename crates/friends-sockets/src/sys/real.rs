//! libc's own functions, which the exported ones stand in front of. They are found by name, once each.
//!
//! A sleeping call of the program's ends in one of these, never in a bare system call: libc's are cancellation points, and restart or
//! don't as the program's signal handlers say.

#![expect(non_snake_case, reason = "named like the functions")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{
    epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t, off_t, pollfd, sigset_t, size_t, sockaddr, socklen_t, ssize_t,
    timespec, timeval,
};

/// Where libc has `name`. Looked for at the library's start, so that a signal handler finds all of them.
#[inline]
fn address(known: &AtomicUsize, name: &CStr) -> usize {
    match known.load(Ordering::Relaxed) {
        0 => look_up(known, name),
        found => found,
    }
}

#[cold]
fn look_up(known: &AtomicUsize, name: &CStr) -> usize {
    // SAFETY: the name is a string with its end, and RTLD_NEXT is a handle that this function knows.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
    // A program that calls it was linked with a libc that has it.
    assert!(found != 0, "libc has the function that was called");
    known.store(found, Ordering::Relaxed);
    found
}

/// libc's functions that print to a descriptor. What arguments they get is their callers' matter.
const PRINTING: [&CStr; 2] = [c"dprintf", c"__dprintf_chk"];
static PRINT: [AtomicUsize; PRINTING.len()] = [const { AtomicUsize::new(0) }; PRINTING.len()];

/// Where libc has `dprintf` (0), or `__dprintf_chk` (1).
pub fn printing(number: usize) -> usize {
    address(&PRINT[number], PRINTING[number])
}

/// libc's `syscall`: what this library asks of the kernel itself doesn't come back to it.
pub fn syscall() -> unsafe extern "C" fn(c_long, ...) -> c_long {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    let address = address(&KNOWN, c"syscall");
    // SAFETY: the address is that of libc's function of this name, which has this type.
    unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(c_long, ...) -> c_long>(address) }
}

macro_rules! real {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(
            #[doc = concat!("libc's `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// What libc asks of its callers holds.
            pub unsafe fn $name($($argument: $kind),*) -> $answer {
                let address = address(&known::$name, name_of(concat!(stringify!($name), "\0")));
                // SAFETY: the address is that of libc's function of this name, which has this type.
                let function = unsafe {
                    std::mem::transmute::<usize, unsafe extern "C" fn($($kind),*) -> $answer>(address)
                };
                // SAFETY: the caller holds what libc asks for.
                unsafe { function($($argument),*) }
            }
        )*

        #[expect(non_upper_case_globals, reason = "named like the functions")]
        mod known {
            use std::sync::atomic::AtomicUsize;
            $(pub(super) static $name: AtomicUsize = AtomicUsize::new(0);)*
        }

        /// Finds those functions that this libc has, before the program runs.
        pub fn find_all() {
            $(find(&known::$name, name_of(concat!(stringify!($name), "\0")));)*
            PRINT.iter().zip(PRINTING).for_each(|(known, name)| find(known, name));
            super::threads::find();
            super::futex::find();
        }
    };
}

fn name_of(name: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(name.as_bytes()).expect("the macro ends it")
}

fn find(known: &AtomicUsize, name: &CStr) {
    // SAFETY: as in `address`.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
    known.store(found, Ordering::Relaxed);
}

real! {
    socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
    accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int;
    accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int;
    shutdown(fd: c_int, how: c_int) -> c_int;
    close(fd: c_int) -> c_int;
    close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    dup(fd: c_int) -> c_int;
    dup2(fd: c_int, onto: c_int) -> c_int;
    dup3(fd: c_int, onto: c_int, flags: c_int) -> c_int;

    read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t;
    readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t;
    recvfrom(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int, address: *mut sockaddr, size: *mut socklen_t) -> ssize_t;
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, limit: *mut timespec) -> c_int;
    write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t;
    writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t;
    sendto(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int, address: *const sockaddr, size: socklen_t) -> ssize_t;
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    sendfile(out: c_int, source: c_int, offset: *mut off_t, count: size_t) -> ssize_t;
    splice(source: c_int, from: *mut i64, target: c_int, to: *mut i64, count: size_t, flags: c_uint) -> ssize_t;

    poll(descriptors: *mut pollfd, count: nfds_t, milliseconds: c_int) -> c_int;
    ppoll(descriptors: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t) -> c_int;
    select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, limit: *mut timeval) -> c_int;
    pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, limit: *const timespec, mask: *const sigset_t) -> c_int;
    epoll_wait(epoll: c_int, events: *mut epoll_event, count: c_int, milliseconds: c_int) -> c_int;
    epoll_pwait(epoll: c_int, events: *mut epoll_event, count: c_int, milliseconds: c_int, mask: *const sigset_t) -> c_int;
    epoll_pwait2(epoll: c_int, events: *mut epoll_event, count: c_int, limit: *const timespec, mask: *const sigset_t) -> c_int;
    epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int;

    fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int;
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int;
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int;
    clock_gettime(clock: libc::clockid_t, time: *mut timespec) -> c_int;
    backtrace_symbols_fd(places: *const *mut c_void, count: c_int, fd: c_int) -> ();
    prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
    fdopen(fd: c_int, mode: *const c_char) -> *mut libc::FILE;
    vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int;
    __vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, arguments: *mut c_void) -> c_int;

    fork() -> libc::pid_t;
    _Fork() -> libc::pid_t;
    clone(act: extern "C" fn(*mut c_void) -> c_int, stack: *mut c_void, flags: c_int, argument: *mut c_void, parent: *mut c_void, tls: *mut c_void, child: *mut c_void) -> c_int;
    execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int;
    execv(path: *const c_char, arguments: *const *const c_char) -> c_int;
    execvp(path: *const c_char, arguments: *const *const c_char) -> c_int;
    execvpe(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int;
    fexecve(fd: c_int, arguments: *const *const c_char, environment: *const *const c_char) -> c_int;
    execveat(at: c_int, path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char, flags: c_int) -> c_int;
    posix_spawn(process: *mut libc::pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: *const *const c_char, environment: *const *const c_char) -> c_int;
    posix_spawnp(process: *mut libc::pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: *const *const c_char, environment: *const *const c_char) -> c_int;
    system(command: *const c_char) -> c_int;
    popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE;
    posix_spawn_file_actions_adddup2(actions: *mut c_void, fd: c_int, onto: c_int) -> c_int;
}
