//! Memory of the proxy and of the kernel.

use std::fs;

use anyhow::{Context, Result};

use super::{group_members, kilobytes};

/// Anonymous resident memory of a process group: heap and stacks, without the program's own pages.
pub(crate) fn group_anon_bytes(group: u32) -> Result<u64> {
    let mut bytes = 0;
    for pid in group_members(group)? {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        bytes += kilobytes(&status, "RssAnon").unwrap_or(0);
    }
    Ok(bytes)
}

/// Memory of a process group that is its own and was written to, by `/proc/PID/smaps_rollup` (Linux 4.14).
pub(crate) fn group_dirty_bytes(group: u32) -> Result<u64> {
    let mut bytes = 0;
    for pid in group_members(group)? {
        let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
            continue;
        };
        bytes += kilobytes(&rollup, "Private_Dirty").unwrap_or(0);
    }
    Ok(bytes)
}

/// The kernel's slab, of the whole system: sockets, pipes, epoll items, file handles.
pub(crate) fn slab_bytes() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    kilobytes(&meminfo, "Slab").context("no Slab in /proc/meminfo")
}

/// TCP sockets in use in the network namespace of process `pid`.
pub(crate) fn tcp_sockets(pid: u32) -> Result<u64> {
    let sockstat = fs::read_to_string(format!("/proc/{pid}/net/sockstat")).context("read sockstat")?;
    let line = sockstat.lines().find(|line| line.starts_with("TCP:")).context("no TCP in sockstat")?;
    let mut words = line.split_whitespace().skip_while(|&word| word != "inuse");
    words.nth(1).and_then(|word| word.parse().ok()).context("no sockets in use in sockstat")
}
