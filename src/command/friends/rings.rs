//! Ring friends, as `midmile friends status` tells of them: processes, and the connections that their boards have in common.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::net::{SocketAddr, SocketAddrV6};

use bytesize::ByteSize;
use midmile_friends::{EntryTold, Figure, Name, Plain, Wish};
use serde::Serialize;

use super::boards::{Board, Use};
use crate::exit::Failure;

/// All ring friends that may be looked at.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rings {
    processes: Vec<Process>,
    connections: Vec<Connection>,
}

/// A process that has, or had, or may get friends.
#[derive(Debug, Serialize)]
struct Process {
    pid: u32,
    command: String,
    /// Whether the operator has switched friends off for it.
    off: bool,
    /// As with `--log`; those that are 0 are left out.
    figures: BTreeMap<&'static str, u64>,
}

/// A connection whose ends share a segment.
#[derive(Debug, Serialize)]
struct Connection {
    /// One where the other's process can't be looked into; more where processes that were forked share one.
    ends: Vec<End>,
}

/// An end, and what it sends.
#[derive(Debug, Serialize)]
struct End {
    from: SocketAddr,
    to: SocketAddr,
    pid: u32,
    command: String,
    /// By which way bytes go now: `ring` or `tcp`.
    way: &'static str,
    /// Whether they go by TCP for good.
    last: bool,
    ring_bytes: u64,
    tcp_bytes: u64,
    /// Switches from TCP to the ring.
    switches: u64,
    bells: u64,
    wakes: u64,
    /// Switches back, by reason; those that never were are left out.
    returns: BTreeMap<&'static str, u64>,
}

impl Rings {
    /// Looks into all processes.
    pub(super) fn look() -> Result<Self, Failure> {
        let boards = Board::all(Use::Look).map_err(|error| Failure::Run(format!("can't look into /proc: {error}")))?;
        let mut processes = Vec::new();
        let mut ends: BTreeMap<_, Vec<End>> = BTreeMap::new();
        for board in boards {
            // One that ends meanwhile is left out.
            let Ok(entries) = board.entries() else { continue };
            let process = Process::of(&board);
            for entry in entries.into_iter().filter(|entry| entry.attached) {
                ends.entry(key(entry.name)).or_default().push(End::of(&process, &entry));
            }
            processes.push(process);
        }
        let connections = ends.into_values().map(|ends| Connection { ends }).collect();
        Ok(Self { processes, connections })
    }
}

/// The same for both ends.
fn key(name: Name) -> (u64, SocketAddrV6, SocketAddrV6) {
    (name.namespace, name.own.min(name.peer), name.own.max(name.peer))
}

impl Process {
    fn of(board: &Board) -> Self {
        let command = fs::read_to_string(format!("/proc/{}/comm", board.pid)).unwrap_or_default();
        let figures = Figure::ALL.iter().map(|&figure| (figure.name(), board.head.figure(figure)));
        Self {
            pid: board.pid,
            command: command.trim_end().to_owned(),
            off: board.head.wish == Wish::Off,
            figures: figures.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl End {
    fn of(process: &Process, entry: &EntryTold) -> Self {
        let address = |end: SocketAddrV6| SocketAddr::new(end.ip().to_canonical(), end.port());
        let returns = Plain::ALL.iter().map(|&why| (why.name(), entry.returns(why)));
        Self {
            from: address(entry.name.own),
            to: address(entry.name.peer),
            pid: process.pid,
            command: process.command.clone(),
            way: if entry.ring { "ring" } else { "tcp" },
            last: entry.last,
            ring_bytes: entry.ring_bytes,
            tcp_bytes: entry.tcp_bytes,
            switches: entry.switches,
            bells: entry.bells,
            wakes: entry.wakes,
            returns: returns.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl fmt::Display for Rings {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.processes.is_empty() {
            return writeln!(to, "no process has ring friends");
        }
        for Process { pid, command, off, figures } in &self.processes {
            let off = if *off { ": off" } else { "" };
            writeln!(to, "ring friends of {command:?} ({pid}){off}")?;
            figures.iter().try_for_each(|(figure, count)| writeln!(to, "  {figure}: {count}"))?;
        }
        for end in self.connections.iter().flat_map(|connection| &connection.ends) {
            let bytes = |count| ByteSize::b(count).display().iec();
            let stays = if end.last { ", for good" } else { "" };
            let mut line = format!(
                "{} -> {}, sent by {:?} ({}): by {}{stays}; {} by the ring, {} by TCP, {} doorbells, {} wakes",
                end.from,
                end.to,
                end.command,
                end.pid,
                end.way,
                bytes(end.ring_bytes),
                bytes(end.tcp_bytes),
                end.bells,
                end.wakes,
            );
            for (why, count) in &end.returns {
                write!(line, ", {why}: {count}")?;
            }
            writeln!(to, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_both_ends_and_why_bytes_went_by_tcp() {
        let (from, to) = ("127.0.0.1:6379".parse().expect("an address"), "127.0.0.1:5000".parse().expect("an address"));
        let end = End {
            from,
            to,
            pid: 7,
            command: "a\u{1b}b".to_owned(),
            way: "tcp",
            last: true,
            ring_bytes: 2048,
            tcp_bytes: 7,
            switches: 1,
            bells: 3,
            wakes: 4,
            returns: BTreeMap::from([("off", 1)]),
        };
        let figures = BTreeMap::from([("offered", 2)]);
        let process = Process { pid: 7, command: "a".to_owned(), off: true, figures };
        let rings = Rings { processes: vec![process], connections: vec![Connection { ends: vec![end] }] };
        let said = rings.to_string();
        // A process gives itself its name: it mustn't reach the terminal as it is.
        let line = "127.0.0.1:6379 -> 127.0.0.1:5000, sent by \"a\\u{1b}b\" (7): by tcp, for good; 2.0 KiB by the ring, 7 B by TCP, \
                    3 doorbells, 4 wakes, off: 1";
        assert!(said.contains(line) && said.contains("\"a\" (7): off\n  offered: 2\n"), "{said}");
    }
}
