//! `mux`: DNS over TCP through midmile's multiplexor, through dnsdist, and without a proxy.
//!
//! ```text
//!  CPU 1: load client ══ proxy :CPU 0 ══ CPU 1: Knot          the lab of `relay`: three network namespaces
//! ```
//! Every round asks every peer in every row, so that a drift of the machine's speed meets all alike.

mod backend;
mod peers;
mod rows;
mod stage;
mod targets;
mod window;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::janitor::Janitor;
use crate::launch;
use crate::machine::Machine;
use crate::netns::{Gro, LOAD_CPU, Lab};
use crate::peers::Host;
use crate::quiet::Patience;
use crate::relay::require;
use crate::report::Report;
use crate::table::{Heading, Outcome, RowResults};
use crate::turn;

use self::peers::{PEERS, Peer, SUBJECT};
use self::rows::{Group, Kind};
use self::stage::{Stage, Timing};

/// Options of `mux`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A smoke run: one round of short windows, 2,000 connections.
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 5, quick: 1].
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds a window of measurement lasts [default: 2, quick: 0.5].
    #[arg(long)]
    seconds: Option<f64>,
    /// Rows to measure.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Peers to measure, in any order.
    #[arg(long, value_delimiter = ',')]
    proxies: Vec<String>,
    /// The midmile binary [default: beside this one].
    #[arg(long)]
    midmile: Option<PathBuf>,
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

/// What a run measures with.
struct Run {
    peers: Vec<&'static Peer>,
    versions: BTreeMap<&'static str, Option<String>>,
    host: Host,
    timing: Timing,
    rounds: u32,
    patience: Patience,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "mux makes network namespaces: run it as root");
    require(Gro::Off.programs())?;
    let mut run = Run::prepare(options)?;
    ensure!(
        run.versions.contains_key(peers::DIRECT),
        "--proxies has to have {}: added latency is added to it",
        peers::DIRECT
    );
    ensure!(run.version(peers::DIRECT).is_some(), "knotd isn't installed: apt-get install knot");
    let machine = Machine::look(false);
    ensure!(machine.cores() > LOAD_CPU, "mux needs two CPUs: one for the proxy, one for the load");

    let _turn = turn::take()?;
    let mut janitor = Janitor::start()?;
    let dir = std::env::temp_dir().join(format!("midmile-bench-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    janitor.owns_dir(&dir)?;
    // What the bench itself does is done on the load's CPU.
    let mut cpus = CpuSet::new();
    cpus.set(LOAD_CPU);
    sched_setaffinity(None, &cpus).context("pin the bench")?;

    let began = Instant::now();
    let lab = Lab::build(&mut janitor, &dir, Gro::Off).context("build the lab")?;
    let kinds = Kind::all(options.quick, run.host.open_files);
    let wanted = |kind: &Kind| options.only.is_empty() || options.only.contains(&kind.group());
    let rows = run.measure(&lab, kinds.into_iter().filter(wanted));
    let settings = format!(
        "{} rounds · windows of {:.1} s · proxy on CPU 0; client and name server on CPU 1, where the bench is too · the run took {} s",
        run.rounds,
        run.timing.window.as_secs_f64(),
        began.elapsed().as_secs()
    );
    let judgements = targets::judge(&rows);
    let peers = run.peers.iter().map(|peer| (peer.name, run.version(peer.name).unwrap_or("not installed").to_owned()));
    let peers = peers.collect();
    options.write(&Report { title: "mux", machine, peers, subject: SUBJECT.to_owned(), settings, rows, judgements })
}

impl Options {
    fn peers(&self) -> Result<Vec<&'static Peer>> {
        let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        for name in &self.proxies {
            if !known.contains(&name.as_str()) {
                bail!("no proxy is called {name:?}; there are {}", known.join(", "));
            }
        }
        let wanted = |peer: &&Peer| self.proxies.is_empty() || self.proxies.iter().any(|name| name == peer.name);
        Ok(PEERS.into_iter().filter(wanted).collect())
    }

    fn write(&self, report: &Report<Kind>) -> Result<()> {
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
        let seconds = options.seconds.unwrap_or(if options.quick { 0.5 } else { 2.0 });
        let timing = Timing {
            warm_up: Duration::from_millis(if options.quick { 200 } else { 500 }),
            window: Duration::try_from_secs_f64(seconds).context("--seconds")?,
        };
        let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
        let patience = Duration::from_secs(options.patience.unwrap_or(if options.quick { 0 } else { 120 }));
        Ok(Self { peers, versions, host, timing, rounds, patience: Patience::new(patience) })
    }

    fn version(&self, peer: &str) -> Option<&str> {
        self.versions.get(peer)?.as_deref()
    }

    fn measure(&mut self, lab: &Lab, kinds: impl Iterator<Item = Kind>) -> Vec<RowResults<Kind>> {
        let mut rows: Vec<RowResults<Kind>> = kinds.map(RowResults::new).collect();
        for round in 0..self.rounds {
            for results in rows.iter_mut().filter(|results| round < results.row.rounds(self.rounds)) {
                // Every round starts with another peer, so that none is always the first after a pause.
                let mut order = self.peers.clone();
                let first = usize::try_from(round).unwrap_or(0) % order.len().max(1);
                order.rotate_left(first);
                let kind = results.row;
                let mut outcomes = BTreeMap::new();
                for peer in order {
                    let mut patience = self.patience;
                    let what = format!("{kind} · {}", peer.name);
                    let outcome = patience.measure(&what, || self.measure_once(lab, kind, peer));
                    self.patience = patience;
                    eprintln!("round {} · {what}: {}", round + 1, outcome.progress(kind.columns()));
                    outcomes.insert(peer.name, outcome);
                }
                results.rounds.push(outcomes);
            }
        }
        rows
    }

    fn measure_once(&self, lab: &Lab, kind: Kind, peer: &Peer) -> Outcome {
        if self.version(peer.name).is_none() {
            return Outcome::Skipped("not installed".to_owned());
        }
        if let Some(why) = (peer.skips)(kind) {
            return Outcome::Skipped(why.to_owned());
        }
        let stage = Stage::open(lab, peer, &self.host, kind, self.timing);
        match stage.and_then(|mut stage| kind.measure(&mut stage)) {
            Ok(sample) => Outcome::Measured(sample),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    }
}
