//! Other threads: whether this process has any, by libc's own word for it (`__libc_single_threaded`; glibc 2.32 and later), a barrier on the CPUs that
//! run them, those of other processes too (membarrier(2); Linux 4.16), and what a thread does at its end, however that comes.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{futex, system, word};

/// What another thread's CPU may still have to store, where the kernel won't see to it: it does so within microseconds, though no manual says when.
const DRAINED: Duration = Duration::from_millis(5);
/// libc's variable; null: it isn't known, and there may be other threads.
static WORD: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// One more than the key whose destructor runs at a thread's end; 0: there's none.
static KEY: AtomicU32 = AtomicU32::new(0);

/// Does at the thread's end what was asked for.
unsafe extern "C" fn ended(act: *mut c_void) {
    // SAFETY: the key's values are such functions (`at_end`).
    let act = unsafe { std::mem::transmute::<*mut c_void, fn()>(act) };
    act();
}

/// When this thread ends, also by being cancelled, which runs none of its calls to their end, `act` is called. Allocates nothing: one of the program's
/// first keys has its place in the thread itself.
pub(crate) fn at_end(act: fn()) {
    if let Some(key) = KEY.load(Ordering::Relaxed).checked_sub(1) {
        // SAFETY: the key was made, and is never taken back. A failure leaves what the thread would have done undone.
        unsafe { libc::pthread_setspecific(key, act as *const c_void) };
    }
}

/// Finds libc's variable, and has a key made, before the program runs.
pub(super) fn find() {
    let mut key = 0;
    // SAFETY: the key's place is valid, and the destructor takes what `at_end` keeps.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(ended)) } == 0 {
        KEY.store(key + 1, Ordering::Relaxed);
    }
    // SAFETY: the name is a string with its end, and RTLD_DEFAULT is a handle that this function knows.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    WORD.store(found.cast(), Ordering::Relaxed);
}

/// Whether no other thread runs, or can before the caller starts one. Such a process needs no locked instructions for what is its own alone:
/// a signal's handler leaves counts as it found them, or adds to them between two instructions at worst.
#[inline]
pub(super) fn alone() -> bool {
    let word = WORD.load(Ordering::Relaxed);
    // SAFETY: libc's variable is a byte that is never unmapped, and that is written only where there's one thread, or under libc's lock.
    !word.is_null() && unsafe { AtomicU8::from_ptr(word) }.load(Ordering::Relaxed) != 0
}

/// Adds to a count of this process's own, which only such calls change; what it was.
#[inline]
pub(crate) fn add(count: &AtomicI32, amount: i32) -> i32 {
    if !alone() {
        return count.fetch_add(amount, Ordering::SeqCst);
    }
    let before = count.load(Ordering::Relaxed);
    count.store(before.wrapping_add(amount), Ordering::Relaxed);
    before
}

/// As [`add`], for a figure, which orders nothing.
#[inline]
pub(crate) fn add_figure(figure: &AtomicU64, amount: u64) {
    if alone() {
        figure.store(figure.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    } else {
        figure.fetch_add(amount, Ordering::Relaxed);
    }
}

/// From now on the barriers of others reach this process's threads too. False: the kernel can't, or mayn't.
pub(crate) fn are_reached() -> bool {
    // SAFETY: no pointer is passed.
    unsafe { system(libc::SYS_membarrier, [word(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED), 0, 0, 0, 0, 0]) }
        .is_ok()
}

/// Each CPU that runs a thread of a process that is reached carries out what that has stored and loaded so far. False: by the time that has passed.
pub(crate) fn barrier() -> bool {
    // SAFETY: no pointer is passed.
    let done = unsafe { system(libc::SYS_membarrier, [word(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED), 0, 0, 0, 0, 0]) };
    if done.is_err() {
        // A filter came since this process said that it can.
        futex::sleep(&AtomicU32::new(0), 0, DRAINED);
    }
    done.is_ok()
}
