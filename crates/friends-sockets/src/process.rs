//! Which threads live; and which process this is: a child after fork has copies of everything here, one after vfork shares it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use crate::path;
use crate::sys::{call, map, threads};
use crate::thread::own;

static NUMBER: AtomicI32 = AtomicI32::new(0);
static GENERATION: AtomicU32 = AtomicU32::new(1);
static EXITING: AtomicBool = AtomicBool::new(false);
static REACHED: AtomicBool = AtomicBool::new(false);
/// The program lets the kernel kill it for system calls that it doesn't list: this library makes none of its own any more.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Notes this process: at the library's start, and in a child after fork.
pub(crate) fn begin() {
    if CONFINED.load(Ordering::Relaxed) {
        return;
    }
    NUMBER.store(call::process(), Ordering::Relaxed);
    GENERATION.fetch_add(1, Ordering::Relaxed);
    EXITING.store(false, Ordering::Relaxed);
}

/// Whether a thread lives, anywhere that we can see. One that was killed and that nobody has waited for doesn't (proc(5): states Z and X).
pub(crate) fn lives(thread: u32) -> bool {
    let mut text = [0; 128];
    let stat = || map::open(path::stat_of(thread).text(), libc::O_RDONLY, 0);
    call::is_there(thread) && {
        let length = stat().and_then(|file| map::read(&file, &mut text)).unwrap_or(0);
        // The state follows the name, which stands in brackets and may have some itself.
        let name_ends = text[..length].iter().rposition(|byte| *byte == b')');
        !name_ends.and_then(|end| text.get(end + 2)).is_some_and(|state| matches!(state, b'Z' | b'X'))
    }
}

/// Whether this process may have a descriptor of this number (`RLIMIT_NOFILE`).
pub fn may_have(fd: i32) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd < map::descriptors_max())
}

/// This thread is about to fork: a number for that.
pub(crate) fn forking() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    let fork = FORKS.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    own(|own| own.fork.set(fork));
    fork
}

/// The number of this thread's last fork.
pub(crate) fn this_fork() -> u32 {
    own(|own| own.fork.get())
}

/// Has the kernel's barriers reach this process, without which none of its threads is lent a lock: at the library's start, and in a child after
/// fork, as long as there's one thread, for which that costs little.
pub(crate) fn be_reached() {
    REACHED.store(threads::are_reached(), Ordering::Relaxed);
}

/// Whether they do.
pub(crate) fn is_reached() -> bool {
    REACHED.load(Ordering::Relaxed)
}

/// From now on this library makes no system call that the program didn't ask for.
pub(crate) fn confine() {
    CONFINED.store(true, Ordering::Relaxed);
}

/// True once in a process.
pub(crate) fn first_exit() -> bool {
    !EXITING.swap(true, Ordering::Relaxed)
}

/// A number that a child has anew.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Whether this memory is the caller's own. It isn't in a child of vfork, or of a clone that libc doesn't know of: what such a
/// child closes stays open in its parent, whose tables these are. Costs a system call.
pub fn owns_tables() -> bool {
    !CONFINED.load(Ordering::Relaxed) && call::process() == NUMBER.load(Ordering::Relaxed)
}
