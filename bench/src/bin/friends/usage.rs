//! What processes have used of the CPU.
#![expect(unsafe_code, reason = "getrusage(2), which rustix hasn't")]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// By the children that have ended and were waited for, in the kernel and without.
pub(crate) fn of_children() -> Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to room for what it writes.
    let answer = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    ensure!(answer == 0, io::Error::last_os_error());
    // SAFETY: it was zeroed, and any bytes are a valid one.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| -> Result<Duration> {
        Ok(Duration::from_secs(time.tv_sec.try_into()?) + Duration::from_micros(time.tv_usec.try_into()?))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}

/// By the first thread of a process that runs.
pub(crate) fn on_cpu(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/schedstat");
    let said = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let nanoseconds = said.split(' ').next().with_context(|| format!("{path} says nothing"))?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
