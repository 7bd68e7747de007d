//! Pipes, descriptors, memory, CPUs.

use std::io;

use rustix::process::{Resource, getrlimit};

use super::system::{System, bytes};
use super::{Finding, State};
use crate::config::{Limits, PAIRS_MAX_DEFAULT, PIPE_BYTES_DEFAULT};
use crate::descriptors::{self, Needs};
use crate::host::Host;

/// Bytes of a page, for `pipe-user-pages-soft`.
fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

/// The capacity that a pipe is asked to have by default.
pub(super) fn pipe_wanted() -> usize {
    usize::try_from(PIPE_BYTES_DEFAULT).unwrap_or(usize::MAX)
}

/// `probed` is the capacity that a pipe got of [`pipe_wanted`].
pub(super) fn pipes(system: &System, probed: io::Result<usize>) -> Finding {
    let want = u64::from(PIPE_BYTES_DEFAULT);
    let got = match probed {
        Ok(got) => u64::try_from(got).unwrap_or(u64::MAX),
        Err(error) => {
            return Finding::new(
                "pipe size",
                State::Fallback,
                format!("tried: {error}"),
                "pipes stay at the kernel's default size",
            );
        }
    };
    let mut found = format!("asked for {}, got {}", bytes(want), bytes(got));
    if let Some(max) = system.number("/proc/sys/fs/pipe-max-size") {
        found.push_str(&format!(", fs.pipe-max-size {}", bytes(max)));
    }
    let pages: Option<u64> = system.number("/proc/sys/fs/pipe-user-pages-soft");
    let bound = pages.filter(|pages| *pages > 0 && !system.may_exceed_limits()).map(|pages| pages * page_bytes());
    let effect = match bound {
        _ if got < want => format!("pipes are smaller than the {} asked for: more system calls a byte", bytes(want)),
        Some(all) => format!(
            "about {} pipes get {}; beyond fs.pipe-user-pages-soft the kernel gives smaller ones (CAP_SYS_RESOURCE lifts it)",
            all / want,
            bytes(want)
        ),
        None => format!("each bulk direction leases a pipe of {}", bytes(want)),
    };
    let state = if got < want || bound.is_some() { State::Fallback } else { State::InUse };
    Finding::new("pipe size", state, found, effect)
}

pub(super) fn descriptors(system: &System) -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let show = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let nr_open: Option<u64> = system.number("/proc/sys/fs/nr_open");
    let mut found = format!("soft limit {}, hard limit {}", show(limit.current), show(limit.maximum));
    if let Some(nr_open) = nr_open {
        found.push_str(&format!(", fs.nr_open {nr_open}"));
    }
    let privileged = system.may_raise_hard_limits();
    let reach = if privileged { nr_open.or(limit.maximum) } else { limit.maximum }.unwrap_or(u64::MAX);
    // One listener on each core, and the loops' own two.
    let standing = 3 * u64::from(Host::probe().cpus);
    let settled = descriptors::settle(Limits::default(), Needs { standing, per_pair: 2 }, |_| reach);
    let how = if privileged { "it may raise both limits itself" } else { "it raises the soft limit itself" };
    match settled {
        Ok(settled) if settled.pairs_max >= PAIRS_MAX_DEFAULT => {
            Finding::new("descriptors", State::InUse, found, format!("{how}: {} pairs fit", settled.pairs_max))
        }
        Ok(settled) => {
            let effect =
                format!("{how}: {} pairs fit; for {PAIRS_MAX_DEFAULT} raise the hard limit", settled.pairs_max);
            Finding::new("descriptors", State::Fallback, found, effect)
        }
        Err(error) => Finding::new("descriptors", State::Absent, found, error),
    }
}

pub(super) fn pair_memory(system: &System) -> Finding {
    let max = |path| system.numbers::<u64>(path).and_then(|numbers| numbers.get(2).copied());
    let (Some(receive), Some(send)) = (max("/proc/sys/net/ipv4/tcp_rmem"), max("/proc/sys/net/ipv4/tcp_wmem")) else {
        return Finding::new(
            "pair memory",
            State::Unknown,
            "tcp_rmem and tcp_wmem are not readable",
            "the kernel sizes buffers",
        );
    };
    let found = format!("tcp_rmem up to {}, tcp_wmem up to {}", bytes(receive), bytes(send));
    let most = 2 * (receive + u64::from(PIPE_BYTES_DEFAULT) + send);
    let effect = format!(
        "a TCP pair holds {} in the kernel at the very most: each way a receive buffer, a pipe, a send buffer; recv_buffer, \
         send_buffer and unsent_max lower it",
        bytes(most)
    );
    Finding::new("pair memory", State::InUse, found, effect)
}

pub(super) fn cpus(system: &System) -> Finding {
    let cpus = Host::probe().cpus;
    let online = system.text("/sys/devices/system/cpu/online");
    let online = online.map_or_else(String::new, |online| format!(", online {online}"));
    let effect = format!("{cpus} loops unless told otherwise, each on a thread pinned to a CPU of its own");
    Finding::new("CPUs", State::InUse, format!("{cpus} in the affinity mask{online}"), effect)
}

pub(super) fn cgroup_cpu(system: &System) -> Finding {
    let feature = "cgroup CPU";
    let v2 = system.cgroup("cpu.max", "", "");
    let quota = v2.or_else(|| {
        let read = |file| system.cgroup("", "cpu", file);
        Some(format!("{} {}", read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?))
    });
    let Some(quota) = quota else {
        return Finding::new(
            feature,
            State::Unknown,
            "no limit is readable",
            "all CPUs of the affinity mask are taken",
        );
    };
    let numbers: Option<Vec<f64>> = quota.split_whitespace().map(|word| word.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[quota, period]) if quota > 0.0 && period > 0.0 => {
            let share = quota / period;
            let effect = if share < f64::from(Host::probe().cpus) {
                "more loops than that are throttled, which costs latency: set cores to the whole CPUs in it"
            } else {
                "enough for a loop on each CPU"
            };
            Finding::new(feature, State::InUse, format!("time for {share:.2} CPUs"), effect)
        }
        _ => Finding::new(feature, State::InUse, "no limit", "all CPUs of the affinity mask are taken"),
    }
}

/// Above this a version-1 limit means none: the kernel shows its largest page-aligned number.
const V1_UNLIMITED: u64 = 1 << 62;

pub(super) fn cgroup_memory(system: &System) -> Finding {
    let feature = "cgroup memory";
    let Some(limit) = system.cgroup("memory.max", "memory", "memory.limit_in_bytes") else {
        return Finding::new(feature, State::Unknown, "no limit is readable", "memory is bounded by pairs_max alone");
    };
    match limit.parse::<u64>() {
        Ok(limit) if limit < V1_UNLIMITED => {
            let effect = "socket buffers count towards it: with many slow receivers lower pairs_max or set unsent_max";
            Finding::new(feature, State::InUse, format!("at most {}", bytes(limit)), effect)
        }
        _ => Finding::new(feature, State::InUse, "no limit", "memory is bounded by pairs_max alone"),
    }
}
