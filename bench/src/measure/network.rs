//! What the network did: lost segments show that a queue overflowed, and explain a p99 of a retransmission time-out.

use std::fs;

use anyhow::{Context, Result};

/// A state of a connection as /proc/net/tcp has it (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// TCP segments sent again in the network namespace of process `pid`, since the namespace exists.
pub(crate) fn retransmitted_segments(pid: u32) -> Result<u64> {
    let snmp = fs::read_to_string(format!("/proc/{pid}/net/snmp")).context("read snmp")?;
    tcp_counter(&snmp, "RetransSegs").context("no RetransSegs in snmp")
}

/// TCP connections that stand with one end at `port`, in the network namespace of process `pid`.
pub(crate) fn connections_at(pid: u32, port: u16) -> Result<usize> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).context("read the table of connections")?;
    let suffix = format!(":{port:04X}");
    let stands = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&suffix)) && fields.nth(1) == Some(ESTABLISHED)
    };
    Ok(table.lines().filter(stands).count())
}

/// A counter of the pair of lines that names, then values, TCP's counters.
fn tcp_counter(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp = "Ip: A\nIp: 1\nTcp: MaxConn RetransSegs\nTcp: -1 42\n";
        assert_eq!(tcp_counter(snmp, "RetransSegs"), Some(42));
    }
}
