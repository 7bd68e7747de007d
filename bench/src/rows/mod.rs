//! The rows of the comparison: one file a kind of load.

mod bulk;
mod crr;
mod fair;
mod idle;
mod rr;
mod slow;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use crate::lab::Gro;
use crate::stage::Stage;
use crate::window::Window;

/// One measurement's values by column key.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// A column of a row's table.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its key in samples and JSON.
    pub(crate) key: &'static str,
    /// Its heading, with the unit.
    pub(crate) title: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
}

/// A column.
pub(crate) const fn column(key: &'static str, title: &'static str, digits: usize) -> Column {
    Column { key, title, digits }
}

/// Whether to trust a measurement: what other programs, and a virtual machine's neighbours, took meanwhile, in per cent of one CPU.
pub(crate) const OTHERS: Column = column("others_percent", "others %", 0);
/// Whether the load was the limit: then rates say little, and costs have to be compared.
pub(crate) const LOAD_CORE: Column = column("load_core_percent", "load CPU busy %", 0);
/// Whether to trust a measurement: segments are lost where a queue overflowed.
pub(crate) const RETRANSMITS: Column = column("retransmits", "retransmits", 0);

/// What `--only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// One-way throughput.
    Bulk,
    /// Request/response.
    Rr,
    /// Latency beside bulk.
    Fair,
    /// Memory of idle pairs.
    Idle,
    /// A reader slower than the sender.
    Slow,
    /// Short connections.
    Crr,
}

/// What is loaded how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One-way throughput of `conns` connections.
    Bulk { conns: usize },
    /// 64-byte exchanges on `conns` connections.
    Rr { conns: usize },
    /// 64-byte exchanges on 100 connections beside `bulk` bulk connections.
    Fair { bulk: usize },
    /// Memory of `pairs` idle pairs.
    Idle { pairs: usize },
    /// A slow reader, and its neighbour.
    Slow,
    /// Connect, exchange, close, `conns` at a time.
    Crr { conns: usize },
}

/// A row: a kind of load and how segments travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The load.
    pub(crate) kind: Kind,
    /// The links.
    pub(crate) gro: Gro,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gro = self.gro;
        match self.kind {
            Kind::Bulk { conns } => write!(f, "bulk, {conns} conn, {gro}"),
            Kind::Rr { conns } => write!(f, "rr 64 B, {conns} conn, {gro}"),
            Kind::Fair { bulk } => write!(f, "fair: rr 64 B, 100 conn, beside {bulk} bulk, {gro}"),
            Kind::Idle { pairs } => write!(f, "idle, {pairs} pairs, {gro}"),
            Kind::Slow => write!(f, "slow: reader at 1 MB/s, {gro}"),
            Kind::Crr { conns } => write!(f, "crr 64 B, {conns} at a time, {gro}"),
        }
    }
}

impl Kind {
    /// Every row, in this order: crr last, it leaves TIME_WAIT sockets behind.
    pub(crate) fn all(quick: bool, open_files: u64) -> Vec<Self> {
        let wanted = if quick { 2_000 } else { 10_000 };
        // Two sockets a pair, and a fifth of all for what a proxy keeps in reserve.
        let pairs = usize::try_from(open_files / 5 * 2).map_or(wanted, |most| wanted.min(most));
        vec![
            Self::Bulk { conns: 1 },
            Self::Bulk { conns: 64 },
            Self::Rr { conns: 1 },
            Self::Rr { conns: 64 },
            Self::Rr { conns: 1_000 },
            Self::Fair { bulk: 1 },
            Self::Fair { bulk: 8 },
            Self::Idle { pairs },
            Self::Slow,
            Self::Crr { conns: 64 },
        ]
    }

    /// The name that selects it.
    pub(crate) fn group(self) -> Group {
        match self {
            Self::Bulk { .. } => Group::Bulk,
            Self::Rr { .. } => Group::Rr,
            Self::Fair { .. } => Group::Fair,
            Self::Idle { .. } => Group::Idle,
            Self::Slow => Group::Slow,
            Self::Crr { .. } => Group::Crr,
        }
    }

    /// Memory and bounds repeat exactly and take long: one round is enough.
    pub(crate) fn rounds(self, rounds: u32) -> u32 {
        match self {
            Self::Idle { .. } | Self::Slow => 1,
            _ => rounds,
        }
    }

    /// The columns; the first is the one whose ratio is shown.
    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Bulk { .. } => &bulk::COLUMNS,
            Self::Rr { .. } => &rr::COLUMNS,
            Self::Fair { .. } => &fair::COLUMNS,
            Self::Idle { .. } => &idle::COLUMNS,
            Self::Slow => &slow::COLUMNS,
            Self::Crr { .. } => &crr::COLUMNS,
        }
    }

    /// Measures once.
    pub(crate) fn measure(self, stage: &mut Stage<'_>) -> Result<Sample> {
        match self {
            Self::Bulk { conns } => bulk::measure(stage, conns),
            Self::Rr { conns } => rr::measure(stage, conns),
            Self::Fair { bulk } => fair::measure(stage, bulk),
            Self::Idle { pairs } => idle::measure(stage, pairs),
            Self::Slow => slow::measure(stage),
            Self::Crr { conns } => crr::measure(stage, conns),
        }
    }
}

/// Has one kind of client load the proxy, and measures a window once it's warm.
fn window(stage: &mut Stage<'_>, client: &str, conns: usize) -> Result<Window> {
    let mut client = stage.client(client, conns, &[])?;
    stage.warm_up();
    let window = Window::measure(stage, &mut client, stage.timing.window)?;
    client.finish()?;
    Ok(window)
}

/// Keeps the values that are known.
pub(crate) fn sample<const N: usize>(values: [(&'static str, Option<f64>); N]) -> Sample {
    values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}
