//! What processes have used of the CPU.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// By the children that have ended and were waited for, in the kernel and without.
pub(crate) fn of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |time: TimeVal| time.num_microseconds().try_into().map(Duration::from_micros);
    Ok(time(usage.user_time())? + time(usage.system_time())?)
}

/// By the first thread of a process that runs.
pub(crate) fn on_cpu(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/schedstat");
    let said = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let nanoseconds = said.split(' ').next().with_context(|| format!("{path} says nothing"))?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
