//! `relay`: every row, every round, every peer in turn.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::janitor::Janitor;
use crate::launch;
use crate::machine::Machine;
use crate::measure::perf;
use crate::netns::{Gro, LOAD_CPU, Lab};
use crate::peers::{Host, PEERS, Peer};
use crate::quiet::Patience;
use crate::report::Report;
use crate::rows::{Group, Kind, Row};
use crate::stage::{Stage, Timing};
use crate::table::{Outcome, RowResults};
use crate::{targets, turn};

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
    /// Seconds that the run may spend on waiting for other programs to end and on repeating what they disturbed
    /// [default: 120, quick: 0].
    #[arg(long)]
    patience: Option<u64>,
    /// Where to write every measurement.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write the report, besides standard output.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GroChoice {
    On,
    Off,
    Both,
}

/// What a run measures with.
struct Run {
    peers: Vec<&'static Peer>,
    versions: BTreeMap<&'static str, Option<String>>,
    host: Host,
    timing: Timing,
    rounds: u32,
    patience: Patience,
}

/// Looks for the programs now that the lab will need, before minutes of measuring are lost for want of one.
pub(crate) fn require(programs: &[&str]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in programs {
        let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
        ensure!(found, "{program} isn't installed: apt-get install iproute2 ethtool procps util-linux");
    }
    Ok(())
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "relay makes network namespaces: run it as root");
    for gro in options.modes() {
        require(gro.programs())?;
    }
    let mut run = Run::prepare(options)?;
    let machine = Machine::look(run.timing.cycles);
    ensure!(machine.cores() > LOAD_CPU, "relay needs two CPUs: one for the proxy, one for the load");

    let _turn = turn::take()?;
    let mut janitor = Janitor::start()?;
    let dir = std::env::temp_dir().join(format!("midmile-bench-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    janitor.owns_dir(&dir)?;

    let began = Instant::now();
    let mut rows = Vec::new();
    for gro in options.modes() {
        let kinds = options.kinds(gro, run.host.open_files);
        if kinds.is_empty() {
            continue;
        }
        let lab = Lab::build(&mut janitor, &dir, gro).context("build the lab")?;
        for kind in kinds {
            rows.push(run.measure_row(&lab, Row { kind, gro }));
        }
    }

    let settings = format!(
        "{} rounds · windows of {:.1} s · proxy on CPU 0, load on CPU 1 · the run took {} s",
        run.rounds,
        run.timing.window.as_secs_f64(),
        began.elapsed().as_secs()
    );
    let judgements = targets::judge(&rows, &options.subject, options.pair_bound);
    let peers = run.peers.iter().map(|peer| (peer.name, run.version(peer).unwrap_or("not installed").to_owned()));
    let report = Report {
        title: "relay",
        machine,
        peers: peers.collect(),
        subject: options.subject.clone(),
        settings,
        rows,
        judgements,
    };
    options.write(&report)
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
        let wanted = |kind: &Kind| {
            (self.only.is_empty() || self.only.contains(&kind.group())) && (first || kind.group() == Group::Bulk)
        };
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
        let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        for name in self.proxies.iter().chain([&self.subject]) {
            if !known.contains(&name.as_str()) {
                bail!("no proxy is called {name:?}; there are {}", known.join(", "));
            }
        }
        let wanted = |peer: &&Peer| self.proxies.is_empty() || self.proxies.iter().any(|name| name == peer.name);
        Ok(PEERS.into_iter().filter(wanted).collect())
    }

    fn write(&self, report: &Report) -> Result<()> {
        let markdown = report.markdown();
        println!("{markdown}");
        if let Some(path) = &self.markdown {
            fs::write(path, &markdown).with_context(|| format!("write {}", path.display()))?;
        }
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(&report.json())?;
            fs::write(path, json + "\n").with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Run {
    fn prepare(options: &Options) -> Result<Self> {
        let beside = std::env::current_exe()?.parent().context("this program is in no directory")?.to_path_buf();
        let host = Host {
            midmile: options.midmile.clone().unwrap_or_else(|| beside.join("midmile")),
            floor: beside.join("midmile-bench-floor"),
            open_files: launch::raise_open_files()?,
        };
        let peers = options.peers()?;
        let versions: BTreeMap<_, _> = peers.iter().map(|peer| (peer.name, (peer.version)(&host))).collect();
        for (name, _) in versions.iter().filter(|(_, version)| version.is_none()) {
            eprintln!("{name} isn't installed: its cells stay empty");
        }
        let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
        let patience = options.patience.unwrap_or(if options.quick { 0 } else { 120 });
        let patience = Patience::new(Duration::from_secs(patience));
        Ok(Self { peers, versions, host, timing: options.timing()?, rounds, patience })
    }

    fn version(&self, peer: &Peer) -> Option<&str> {
        self.versions.get(peer.name)?.as_deref()
    }

    fn measure_row(&mut self, lab: &Lab, row: Row) -> RowResults {
        let mut results = RowResults::new(row);
        for round in 0..row.kind.rounds(self.rounds) {
            // Every round starts with another peer, so that none is always the first after a pause.
            let mut order = self.peers.clone();
            let first = usize::try_from(round).unwrap_or(0) % order.len().max(1);
            order.rotate_left(first);
            let mut outcomes = BTreeMap::new();
            for peer in order {
                let outcome = self.measure_in_quiet(lab, row, peer);
                eprintln!("{row} · round {} · {}: {}", round + 1, peer.name, outcome.progress(row.kind.columns()));
                outcomes.insert(peer.name, outcome);
            }
            results.rounds.push(outcomes);
        }
        results
    }

    fn measure_in_quiet(&mut self, lab: &Lab, row: Row, peer: &Peer) -> Outcome {
        let mut patience = self.patience;
        let outcome = patience.measure(&format!("{row} · {}", peer.name), || self.measure(lab, row, peer));
        self.patience = patience;
        outcome
    }

    fn measure(&self, lab: &Lab, row: Row, peer: &Peer) -> Outcome {
        if self.version(peer).is_none() {
            return Outcome::Skipped("not installed".to_owned());
        }
        if let Some(why) = (peer.skips)(&row.kind) {
            return Outcome::Skipped(why.to_owned());
        }
        let stage = Stage::open(lab, peer, &self.host, self.timing);
        match stage.and_then(|mut stage| row.kind.measure(&mut stage)) {
            Ok(sample) => Outcome::Measured(sample),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    }
}
