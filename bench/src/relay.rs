//! `relay`: every row, every round, every peer in turn.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::choice::{choose, require_known, selects};
use crate::comparison::{Comparison, Effort};
use crate::host::{self, Host};
use crate::installed::Installed;
use crate::lab::{Gro, Lab};
use crate::machine::Machine;
use crate::measure::perf;
use crate::peers::{PEERS, Peer};
use crate::publication::Publication;
use crate::report::Report;
use crate::rows::{Group, Kind, Row};
use crate::stage::{Stage, Timing};
use crate::table::Outcome;
use crate::targets;
use crate::workplace::Workplace;

/// Options of `relay`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A smoke run in under three minutes: one round of short windows, without GRO, 2,000 idle pairs.
    #[arg(long)]
    quick: bool,
    /// Rounds of the throughput and latency rows [default: 5, quick: 1].
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds a window of measurement lasts [default: 1.2, quick: 0.6].
    #[arg(long)]
    seconds: Option<f64>,
    /// Rows to measure.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Peers to measure, in any order.
    #[arg(long, value_delimiter = ',')]
    proxies: Vec<String>,
    /// Segments on the links: `off` as veth carries them (TSO), `on` as a wire does (GRO merges them), `both` measures
    /// bulk twice and the rest with TSO [default: both, quick: off].
    #[arg(long, value_enum)]
    gro: Option<GroChoice>,
    /// The peer that is compared to the others and held to the targets.
    #[arg(long, default_value = "midmile")]
    subject: String,
    /// The midmile binary [default: beside this one].
    #[arg(long)]
    midmile: Option<PathBuf>,
    /// Bytes in flight that the slow row allows, in MiB: the kernel's TCP buffers and a pipe.
    #[arg(long, default_value_t = 16.0)]
    pair_bound: f64,
    /// Seconds that the run may spend on waiting for quiet and on repeating what others disturbed
    /// [default: 120, quick: 0].
    #[arg(long)]
    patience: Option<u64>,
    #[command(flatten)]
    publication: Publication,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GroChoice {
    On,
    Off,
    Both,
}

/// What a run measures with.
struct Run {
    comparison: Comparison<Peer>,
    installed: Installed,
    host: Host,
    timing: Timing,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::require_root("relay")?;
    for gro in options.modes() {
        host::require_programs(gro.programs())?;
    }
    let run = Run::prepare(options)?;
    let machine = Machine::look(run.timing.cycles);
    host::require_cpus("relay", &machine, ["the proxy", "the load"])?;

    let mut workplace = Workplace::take()?;
    let began = Instant::now();
    let mut rows = Vec::new();
    for gro in options.modes() {
        let kinds = options.kinds(gro, run.host.open_files);
        if kinds.is_empty() {
            continue;
        }
        let lab = Lab::build(&mut workplace, gro).context("build the lab")?;
        let rows_of_lab = kinds.into_iter().map(|kind| Row { kind, gro });
        rows.extend(rows_of_lab.map(|row| run.comparison.row(row, |row, peer| run.measure(&lab, row, peer))));
    }

    let settings = format!(
        "{} rounds · windows of {:.1} s · proxy on CPU 0, load on CPU 1 · the run took {} s",
        run.comparison.rounds,
        run.timing.window.as_secs_f64(),
        began.elapsed().as_secs()
    );
    let judgements = targets::judge(&rows, &options.subject, options.pair_bound);
    let peers = run.comparison.peers.iter().map(|peer| (peer.name, run.installed.version(peer.name))).collect();
    let subject = options.subject.clone();
    let report = Report { title: "relay", machine, peers, subject, settings, rows, judgements };
    options.publication.publish(&report.markdown(), &report.json())
}

impl Options {
    fn modes(&self) -> Vec<Gro> {
        let default = if self.quick { GroChoice::Off } else { GroChoice::Both };
        match self.gro.unwrap_or(default) {
            GroChoice::Off => vec![Gro::Off],
            GroChoice::On => vec![Gro::On],
            GroChoice::Both => vec![Gro::Off, Gro::On],
        }
    }

    /// Rows of a mode: what isn't bulk is measured in the first mode alone.
    fn kinds(&self, gro: Gro, open_files: u64) -> Vec<Kind> {
        let first = self.modes().first() == Some(&gro);
        let wanted = |kind: &Kind| selects(&self.only, kind.group()) && (first || kind.group() == Group::Bulk);
        Kind::all(self.quick, open_files).into_iter().filter(wanted).collect()
    }

    fn timing(&self) -> Result<Timing> {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.6 } else { 1.2 });
        Ok(Timing {
            warm_up: Duration::from_millis(if self.quick { 200 } else { 500 }),
            window: Duration::try_from_secs_f64(seconds).context("--seconds")?,
            slow: Duration::from_secs(if self.quick { 3 } else { 15 }),
            cycles: perf::countable(),
        })
    }

    fn peers(&self) -> Result<Vec<&'static Peer>> {
        require_known("proxy", &PEERS, &self.subject)?;
        choose("proxy", &PEERS, &self.proxies)
    }
}

impl Run {
    fn prepare(options: &Options) -> Result<Self> {
        let host = Host::prepare(options.midmile.clone())?;
        let peers = options.peers()?;
        let installed = Installed::new(peers.iter().map(|peer| (peer.name, (peer.version)(&host))));
        let Options { quick, rounds, patience, .. } = *options;
        let comparison = Comparison::new(peers, &Effort { quick, rounds, patience });
        Ok(Self { comparison, installed, host, timing: options.timing()? })
    }

    fn measure(&self, lab: &Lab, row: Row, peer: &Peer) -> Outcome {
        if let Some(why) = self.installed.lacks(peer.name).or_else(|| (peer.skips)(&row.kind)) {
            return Outcome::Skipped(why.to_owned());
        }
        let stage = Stage::open(lab, peer, &self.host, self.timing);
        stage.and_then(|mut stage| row.kind.measure(&mut stage)).into()
    }
}
