//! The process itself: its start and end, forks, other programs, stdio.

use std::ffi::{c_char, c_int, c_ulong, c_void};

use midmile_friends::Plain;

use midmile_friends_sockets::lifecycle;
use midmile_friends_sockets::sys::{call, real};

unsafe extern "C" {
    /// Says that a buffer is too small for what was asked, and ends the program.
    fn __chk_fail() -> !;
}

/// What `_FORTIFY_SOURCE` has checked.
pub(super) fn fits(length: usize, size: usize) {
    if length > size {
        // SAFETY: libc's function, without arguments.
        unsafe { __chk_fail() }
    }
}

extern "C" fn begin() {
    real::find_all();
    lifecycle::begin();
    // SAFETY: the functions live as long as the process does: the library is never unloaded.
    unsafe { libc::pthread_atfork(Some(forking), None, Some(forked)) };
    // SAFETY: as above.
    unsafe { libc::atexit(exiting) };
}

unsafe extern "C" fn forking() {
    lifecycle::forking();
}

unsafe extern "C" fn forked() {
    lifecycle::forked();
}

extern "C" fn exiting() {
    lifecycle::exiting();
}

/// What comes before a fork and in its child is the handlers'; whether there's a child they aren't told.
#[unsafe(no_mangle)]
unsafe extern "C" fn fork() -> libc::pid_t {
    // SAFETY: there is no pointer.
    let child = unsafe { real::fork() };
    if child < 0 {
        lifecycle::unforked();
    }
    child
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __fork() -> libc::pid_t {
    // SAFETY: the same function.
    unsafe { fork() }
}

/// Makes a copy of this process by `act`, of which libc's handlers don't hear: 0 is the copy's answer.
pub(super) fn copying<T: Into<i64> + Copy>(act: impl FnOnce() -> T) -> T {
    lifecycle::forking();
    let child = act();
    match child.into() {
        0 => lifecycle::forked(),
        ..0 => lifecycle::unforked(),
        _ => {}
    }
    child
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _Fork() -> libc::pid_t {
    // SAFETY: there is no pointer.
    copying(|| unsafe { real::_Fork() })
}

/// What a child of `clone` begins with, and what it's given.
type Act = extern "C" fn(*mut c_void) -> c_int;
struct Start {
    act: Act,
    argument: *mut c_void,
}

/// A child with memory of its own, in which its parent's stack is too.
extern "C" fn start(start: *mut c_void) -> c_int {
    lifecycle::forked();
    // SAFETY: it's what `clone` has put there.
    let Start { act, argument } = unsafe { start.cast::<Start>().read() };
    act(argument)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clone(
    act: Act,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent: *mut c_void,
    tls: *mut c_void,
    child: *mut c_void,
) -> c_int {
    if flags & libc::CLONE_VM != 0 {
        // SAFETY: the program's arguments go on as they came.
        return unsafe { real::clone(act, stack, flags, argument, parent, tls, child) };
    }
    let start_of = Start { act, argument };
    let given = (&raw const start_of).cast_mut().cast();
    // SAFETY: the child has a copy of what it's given.
    copying(|| unsafe { real::clone(start, stack, flags, given, parent, tls, child) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __clone(
    act: Act,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent: *mut c_void,
    tls: *mut c_void,
    child: *mut c_void,
) -> c_int {
    // SAFETY: the same function.
    unsafe { clone(act, stack, flags, argument, parent, tls, child) }
}

/// A process that ends without its handlers for it, as children after fork do.
#[unsafe(no_mangle)]
unsafe extern "C" fn _exit(status: c_int) -> ! {
    lifecycle::exiting();
    call::exit(status)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _Exit(status: c_int) -> ! {
    lifecycle::exiting();
    call::exit(status)
}

#[used]
// SAFETY: the loader calls what stands here, functions with arguments that this one takes none of.
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    if option == libc::PR_SET_SECCOMP {
        lifecycle::confining();
    }
    // SAFETY: the program's arguments go on as they came.
    unsafe { real::prctl(option, a, b, c, d) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdopen(fd: c_int, mode: *const c_char) -> *mut libc::FILE {
    super::descriptors::given_to_stdio(fd);
    // SAFETY: the program's pointer goes on as it came.
    unsafe { real::fdopen(fd, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _IO_fdopen(fd: c_int, mode: *const c_char) -> *mut libc::FILE {
    // SAFETY: the same function.
    unsafe { fdopen(fd, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn backtrace_symbols_fd(places: *const *mut c_void, count: c_int, fd: c_int) {
    super::descriptors::given_to_stdio(fd);
    // SAFETY: the program's pointer goes on as it came.
    unsafe { real::backtrace_symbols_fd(places, count, fd) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int {
    super::descriptors::given_to_stdio(fd);
    // SAFETY: the program's pointers go on as they came.
    unsafe { real::vdprintf(fd, format, arguments) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, arguments: *mut c_void) -> c_int {
    super::descriptors::given_to_stdio(fd);
    // SAFETY: the program's pointers go on as they came.
    unsafe { real::__vdprintf_chk(fd, flag, format, arguments) }
}

/// Becomes another program by `act`, which comes back only if that fails.
pub(super) fn becoming<T>(act: impl FnOnce() -> T) -> T {
    lifecycle::executing();
    let answer = act();
    lifecycle::stayed();
    answer
}

type Texts = *const *const c_char;

#[unsafe(no_mangle)]
unsafe extern "C" fn execve(path: *const c_char, arguments: Texts, environment: Texts) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    becoming(|| unsafe { real::execve(path, arguments, environment) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execv(path: *const c_char, arguments: Texts) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    becoming(|| unsafe { real::execv(path, arguments) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvp(path: *const c_char, arguments: Texts) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    becoming(|| unsafe { real::execvp(path, arguments) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvpe(path: *const c_char, arguments: Texts, environment: Texts) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    becoming(|| unsafe { real::execvpe(path, arguments, environment) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fexecve(fd: c_int, arguments: Texts, environment: Texts) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    becoming(|| unsafe { real::fexecve(fd, arguments, environment) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execveat(
    at: c_int,
    path: *const c_char,
    arguments: Texts,
    environment: Texts,
    flags: c_int,
) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    becoming(|| unsafe { real::execveat(at, path, arguments, environment, flags) })
}

type Opaque = *const c_void;

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn(
    process: *mut libc::pid_t,
    path: *const c_char,
    actions: Opaque,
    attributes: Opaque,
    arguments: Texts,
    environment: Texts,
) -> c_int {
    lifecycle::inheriting();
    // SAFETY: the program's pointers go on as they came.
    unsafe { real::posix_spawn(process, path, actions, attributes, arguments, environment) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawnp(
    process: *mut libc::pid_t,
    path: *const c_char,
    actions: Opaque,
    attributes: Opaque,
    arguments: Texts,
    environment: Texts,
) -> c_int {
    lifecycle::inheriting();
    // SAFETY: the program's pointers go on as they came.
    unsafe { real::posix_spawnp(process, path, actions, attributes, arguments, environment) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn system(command: *const c_char) -> c_int {
    lifecycle::inheriting();
    // SAFETY: the program's pointer goes on as it came.
    unsafe { real::system(command) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    lifecycle::inheriting();
    // SAFETY: the program's pointers go on as they came.
    unsafe { real::popen(command, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _IO_popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    // SAFETY: the same function.
    unsafe { popen(command, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn_file_actions_adddup2(actions: *mut c_void, fd: c_int, onto: c_int) -> c_int {
    lifecycle::give_away(fd, Plain::Exec);
    // SAFETY: the program's pointer goes on as it came.
    unsafe { real::posix_spawn_file_actions_adddup2(actions, fd, onto) }
}
