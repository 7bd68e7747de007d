//! CPU time of the proxy and of the whole system.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{GROUP, group_members, processes, stat_field};

/// Clock ticks a second in /proc: fixed by the kernel's ABI (`USER_HZ`) on the architectures we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Fields of /proc/PID/stat, see proc(5).
const PARENT: usize = 4;
const FLAGS: usize = 9;
/// The flag of a kernel thread (include/linux/sched.h).
const PF_KTHREAD: u64 = 0x0020_0000;

/// Seconds that a process group has run: its live threads, and children that its leader has waited for.
pub(crate) fn group_seconds(group: u32) -> Result<f64> {
    let mut ns = 0_u64;
    for pid in group_members(group)? {
        // A child that ends here is counted in the leader's ticks.
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        ns += tasks.flatten().map(|task| ran_ns(&task.path())).sum::<u64>();
    }
    let stat = fs::read_to_string(format!("/proc/{group}/stat")).context("the proxy has ended")?;
    let reaped_ticks = stat_field(&stat, 16).unwrap_or(0) + stat_field(&stat, 17).unwrap_or(0);
    Ok(ns as f64 / 1e9 + reaped_ticks as f64 / TICKS_PER_SECOND)
}

/// Nanoseconds that a thread has run; none if it has ended.
fn ran_ns(task: &Path) -> u64 {
    let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    schedstat.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Seconds that threads of the kernel have run.
pub(crate) fn threads_seconds(threads: &[u32]) -> f64 {
    let ns: u64 = threads.iter().map(|thread| ran_ns(&Path::new("/proc").join(thread.to_string()))).sum();
    ns as f64 / 1e9
}

/// Threads of the kernel whose name is `name`, or begins with it if it ends in a hyphen.
pub(crate) fn kernel_threads(name: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let comm = comm.trim_end();
        if comm == name || (name.ends_with('-') && comm.starts_with(name)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Seconds that each CPU did nothing, since boot. The kernel knows its idle time exactly; what a busy CPU did is
/// sampled by the tick on many kernels, so "busy" is better taken as time that was not idle.
pub(crate) fn idle_seconds() -> Result<Vec<f64>> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    Ok(idle_ticks(&stat).into_iter().map(|ticks| ticks as f64 / TICKS_PER_SECOND).collect())
}

/// Idle, waiting for a disk, or taken by the hypervisor: fields 4, 5 and 8 of each line `cpuN`.
fn idle_ticks(stat: &str) -> Vec<u64> {
    let lines = stat
        .lines()
        .filter(|line| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
    let ticks = |line: &str, field| line.split_whitespace().nth(field)?.parse::<u64>().ok();
    lines.map(|line| [4, 5, 8].iter().filter_map(|&field| ticks(line, field)).sum()).collect()
}

/// Seconds of CPU that went to others, who compete with what is measured: programs outside the bench, and a virtual machine's neighbours,
/// for whom the hypervisor took a CPU away.
pub(crate) fn others_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    Ok(programs_seconds()? + stolen_ticks(&stat) as f64 / TICKS_PER_SECOND)
}

/// Field 8 of the line of all CPUs.
fn stolen_ticks(stat: &str) -> u64 {
    let line = stat.lines().find(|line| line.starts_with("cpu "));
    line.and_then(|line| line.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0)
}

/// Seconds that programs outside the bench have run. The bench is this process's group and the groups of its children; the kernel's
/// threads work for everybody and are left out.
fn programs_seconds() -> Result<f64> {
    let me = u64::from(std::process::id());
    let my_group = stat_field(&fs::read_to_string("/proc/self/stat")?, GROUP);
    let stats = processes()?;
    let mut ours: Vec<u64> = my_group.into_iter().collect();
    ours.extend(
        stats.iter().filter(|stat| stat_field(stat, PARENT) == Some(me)).filter_map(|stat| stat_field(stat, GROUP)),
    );
    let is_other = |stat: &&String| {
        let kernel = stat_field(stat, FLAGS).is_none_or(|flags| flags & PF_KTHREAD != 0);
        !kernel && stat_field(stat, GROUP).is_some_and(|group| !ours.contains(&group))
    };
    let others = stats.iter().filter(is_other);
    // User and system time, and those of children waited for: a compiler that ends moves from one to the other.
    let ticks: u64 = others.flat_map(|stat| (14..=17).filter_map(|field| stat_field(stat, field))).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_cpus_is_left_out() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 40 5 6 7 800 0 0\ncpu1 0 0 0 1 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(idle_ticks(stat), [845, 1]);
        assert_eq!(stolen_ticks(&stat.replace("cpu  9 9 9 9 9 9 9 9", "cpu  9 9 9 9 9 9 9 75")), 75);
    }
}
