//! What a measurement costs: cycles, CPU time, memory.
//!
//! CPU time of the proxy comes from /proc/PID/task/*/schedstat and its memory from /proc/PID/status: both are exact and
//! cost the proxy nothing, where `perf stat -p` slows a busy process by a multiple.

pub(crate) mod cpu;
pub(crate) mod cpus;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod perf;

use std::fs;

use anyhow::{Context, Result};

/// The process group among the fields of /proc/PID/stat.
const GROUP: usize = 5;

/// /proc/PID/stat of every process.
fn processes() -> Result<Vec<String>> {
    let mut stats = Vec::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            // A process that ends while we look is none any more.
            stats.extend(fs::read_to_string(entry.path().join("stat")).ok());
        }
    }
    Ok(stats)
}

/// Processes of a process group.
fn group_members(group: u32) -> Result<Vec<u64>> {
    let stats = processes()?;
    let members = stats.iter().filter(|stat| stat_field(stat, GROUP) == Some(u64::from(group)));
    Ok(members.filter_map(|stat| stat.split_whitespace().next()?.parse().ok()).collect())
}

/// Field `number` of /proc/PID/stat as proc(5) counts them, from 4 on; the second is a name and may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The number in a line such as `RssAnon:   1234 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_does_not_shift_fields() {
        assert_eq!(stat_field("7 (a) b) S 1 42 42 0", 5), Some(42));
    }

    #[test]
    fn kilobytes_become_bytes() {
        assert_eq!(kilobytes("VmRSS:\t  8 kB\nRssAnon:\t  2 kB\n", "RssAnon"), Some(2048));
    }
}
