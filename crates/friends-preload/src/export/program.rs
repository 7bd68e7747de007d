//! The process itself: its start and end, forks, other programs, signal handlers, stdio.

use std::ffi::{c_char, c_int, c_ulong, c_void};

use midmile_friends::Plain;

use midmile_friends_sockets::sys::{call, real};
use midmile_friends_sockets::{lifecycle, signals};

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
unsafe extern "C" fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    // SAFETY: the program's pointers go on as they came.
    let answer = unsafe { real::sigaction(signal, new, old) };
    if answer == 0 && !new.is_null() {
        // SAFETY: it isn't null, and the kernel has just read it.
        let new = unsafe { &*new };
        note(signal, new.sa_sigaction, new.sa_flags & libc::SA_RESTART != 0);
    }
    answer
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    // SAFETY: the same function.
    unsafe { sigaction(signal, new, old) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t {
    // SAFETY: the program's handler goes on as it came.
    let old = unsafe { real::signal(signal, handler) };
    if old != libc::SIG_ERR {
        note(signal, handler, true);
    }
    old
}

fn note(signal: c_int, handler: libc::sighandler_t, restarts: bool) {
    signals::noted(signal, handler != libc::SIG_DFL && handler != libc::SIG_IGN, restarts);
}

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
