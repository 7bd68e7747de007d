//! A barrier on the CPUs that run other threads, of other processes too (membarrier(2); Linux 4.16).

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::{futex, system, word};

/// What such a thread's CPU may still have to store, where the kernel won't see to it: it does so within microseconds, though no manual says when.
const DRAINED: Duration = Duration::from_millis(5);

/// From now on the barriers of others reach this process's threads too. False: the kernel can't, or mayn't.
pub(crate) fn reaches_us() -> bool {
    // SAFETY: no pointer is passed.
    unsafe { system(libc::SYS_membarrier, [word(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED), 0, 0, 0, 0, 0]) }
        .is_ok()
}

/// Each CPU that runs a thread of a process that is reached carries out what that has stored and loaded so far.
pub(crate) fn on_all_cpus() {
    // SAFETY: no pointer is passed.
    let done = unsafe { system(libc::SYS_membarrier, [word(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED), 0, 0, 0, 0, 0]) };
    if done.is_err() {
        // A filter came since this process said that it can.
        futex::sleep(&AtomicU32::new(0), 0, DRAINED);
    }
}
