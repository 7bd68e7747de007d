//! Which process this is: a child after fork has copies of everything here, one after vfork shares it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use crate::sys::{call, threads};

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
