//! The two CPUs of a measurement, and who is on which.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The proxy, or the curve's server, and the packets that arrive at it.
pub(crate) const PROXY_CPU: usize = 0;
/// The load, a server that isn't measured, and the packets that arrive at them.
pub(crate) const LOAD_CPU: usize = 1;

/// Keeps a thread on `cpu`, with those that it starts; without one, this thread.
pub(crate) fn pin(thread: Option<Pid>, cpu: usize) -> rustix::io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(thread, &cpus)
}
