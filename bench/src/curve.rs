//! `curve`: servers on the engine beside others, from one connection to thousands.
//!
//! Every round asks every server in every row, so that a drift of the machine's speed meets all alike.

mod link;
mod peers;
mod plot;
mod report;
mod rows;
mod stage;
mod targets;
mod window;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::janitor::Janitor;
use crate::launch;
use crate::machine::Machine;
use crate::measure::perf;
use crate::netns::LOAD_CPU;
use crate::quiet::Patience;
use crate::relay::require;
use crate::table::{Heading, Outcome, RowResults};
use crate::turn;

use self::link::Link;
use self::peers::{PEERS, Peer};
use self::report::Report;
use self::rows::Kind;
use self::stage::{Stage, Timing};

/// Connections of the request/reply rows.
const CONNECTIONS: [usize; 8] = [1, 32, 64, 256, 1000, 4000, 10_000, 20_000];
const QUICK_CONNECTIONS: [usize; 3] = [1, 64, 1000];
/// From so many on, the time to set them up is measured as well.
const SETUP_FROM: usize = 1000;
/// Descriptors of a process that aren't connections.
const SPARE_FILES: usize = 64;

/// Options of `curve`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A smoke run in under a minute: one round of short windows, at most 1,000 connections.
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 5, quick: 1].
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds a window of measurement lasts [default: 2, quick: 0.3].
    #[arg(long)]
    seconds: Option<f64>,
    /// Connections of the request/reply rows [default: 1,32,64,256,1000,4000,10000,20000, quick: 1,64,1000].
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Rows to measure.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Servers to measure, in any order.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Microseconds of the server's CPU that a hog takes in the saturated rows, so that the server is the limit; 0: none.
    #[arg(long, default_value_t = 640)]
    hog: u64,
    /// Out of so many.
    #[arg(long, default_value_t = 800)]
    hog_every: u64,
    /// Seconds that the run may spend on waiting for other programs to end and on repeating what they disturbed
    /// [default: 120, quick: 0].
    #[arg(long)]
    patience: Option<u64>,
    /// The program that has the servers [default: beside this one].
    #[arg(long)]
    server: Option<PathBuf>,
    /// Where to write every measurement.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write the report, besides standard output.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// A directory to draw the two plots into.
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// What `--only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Request/reply, the server's core full.
    Ask,
    /// Time and memory to set up and serve.
    Setup,
    /// Short connections.
    Visit,
    /// One connection, the server's core not full.
    Alone,
}

/// What a run measures with.
struct Run {
    peers: Vec<&'static Peer>,
    server: PathBuf,
    timing: Timing,
    rounds: u32,
    patience: Patience,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "curve makes network namespaces: run it as root");
    require(&link::PROGRAMS)?;
    let mut run = Run::prepare(options)?;
    let machine = Machine::look(run.timing.cycles);
    ensure!(machine.cores() > LOAD_CPU, "curve needs two CPUs: one for the server, one for the client");
    let open_files = launch::raise_open_files()?;
    let (kinds, limit) = options.kinds(open_files);
    let most = kinds.iter().map(|kind| kind.conns()).max().context("nothing to measure")?;

    let _turn = turn::take()?;
    let mut janitor = Janitor::start()?;
    let dir = std::env::temp_dir().join(format!("midmile-bench-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    janitor.owns_dir(&dir)?;
    // What the bench itself does is done on the client's CPU.
    let mut cpus = CpuSet::new();
    cpus.set(LOAD_CPU);
    sched_setaffinity(None, &cpus).context("pin the bench")?;

    let began = Instant::now();
    let link = Link::build(&mut janitor, &dir, most).context("build the lab")?;
    let rows = run.measure(&link, &kinds);
    let notes = run.notes(began.elapsed(), limit);
    let judgements = targets::judge(&rows, &run.peers);
    let report = Report { machine, peers: run.peers, notes, rows, judgements };
    options.write(&report)
}

impl Options {
    /// The rows, and what to say if there couldn't be as many connections as asked for.
    fn kinds(&self, open_files: u64) -> (Vec<Kind>, Option<String>) {
        let default = if self.quick { &QUICK_CONNECTIONS[..] } else { &CONNECTIONS };
        let wanted = if self.connections.is_empty() { default } else { &self.connections };
        let most = usize::try_from(open_files).unwrap_or(usize::MAX).saturating_sub(SPARE_FILES);
        let mut counts: Vec<usize> = wanted.iter().map(|&conns| conns.clamp(1, most)).collect();
        counts.sort_unstable();
        counts.dedup();
        let limit = wanted.iter().max().filter(|&&conns| conns > most).map(|conns| {
            format!("{conns} connections were wanted; the host lets a process have {open_files} files open, so there are {most}")
        });
        let asks = counts.iter().map(|&conns| Kind::Ask { conns });
        let setups = counts.iter().filter(|&&conns| conns >= SETUP_FROM).map(|&conns| Kind::Setup { conns });
        let all = asks.chain(setups).chain([Kind::Visit, Kind::Alone]);
        let wanted = |kind: &Kind| self.only.is_empty() || self.only.contains(&group(*kind));
        (all.filter(wanted).collect(), limit)
    }

    fn peers(&self) -> Result<Vec<&'static Peer>> {
        let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        for name in &self.servers {
            if !known.contains(&name.as_str()) {
                bail!("no server is called {name:?}; there are {}", known.join(", "));
            }
        }
        let wanted = |peer: &&Peer| self.servers.is_empty() || self.servers.iter().any(|name| name == peer.name);
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
        match &self.plots {
            Some(dir) => plot::write(dir, &report.rows, &report.peers),
            None => Ok(()),
        }
    }
}

fn group(kind: Kind) -> Group {
    match kind {
        Kind::Ask { .. } => Group::Ask,
        Kind::Setup { .. } => Group::Setup,
        Kind::Visit => Group::Visit,
        Kind::Alone => Group::Alone,
    }
}

impl Run {
    fn prepare(options: &Options) -> Result<Self> {
        let beside = std::env::current_exe()?.parent().context("this program is in no directory")?.to_path_buf();
        let server = options.server.clone().unwrap_or_else(|| beside.join("midmile-bench-server"));
        ensure!(server.is_file(), "{} isn't there: cargo build --release -p midmile-bench builds it", server.display());
        ensure!(options.hog < options.hog_every, "--hog is below --hog-every: the server needs the rest");
        let seconds = options.seconds.unwrap_or(if options.quick { 0.3 } else { 2.0 });
        let timing = Timing {
            warm_up: Duration::from_millis(if options.quick { 100 } else { 500 }),
            window: Duration::try_from_secs_f64(seconds).context("--seconds")?,
            cycles: perf::countable(),
            hog_busy_us: options.hog,
            hog_every_us: options.hog_every,
        };
        let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
        let patience =
            Patience::new(Duration::from_secs(options.patience.unwrap_or(if options.quick { 0 } else { 120 })));
        Ok(Self { peers: options.peers()?, server, timing, rounds, patience })
    }

    fn notes(&self, took: Duration, limit: Option<String>) -> Vec<String> {
        let Timing { window, hog_busy_us, hog_every_us, .. } = self.timing;
        let mut notes = vec![
            format!(
                "{} rounds, each of every row and every server in turn; windows of {:.1} s; the run took {} s",
                self.rounds,
                window.as_secs_f64(),
                took.as_secs()
            ),
            format!(
                "saturated: a hog takes {hog_busy_us} of every {hog_every_us} µs of the server's CPU; one outstanding message a \
                 connection, so latencies there are the queue's"
            ),
            "server CPU: the process, the thread of its device's packets (NAPI) and ksoftirqd of its CPU, by schedstat, without the hog"
                .to_owned(),
            "ratios are medians of ratios within a round; a virtual machine's dear system calls flatter what makes few of them"
                .to_owned(),
        ];
        notes.extend(limit);
        notes
    }

    fn measure(&mut self, link: &Link, kinds: &[Kind]) -> Vec<RowResults<Kind>> {
        let mut rows: Vec<RowResults<Kind>> = kinds.iter().map(|&kind| RowResults::new(kind)).collect();
        for round in 0..self.rounds {
            for row in &mut rows {
                // Every round starts with another server, so that none is always the first after a pause.
                let mut order = self.peers.clone();
                let first = usize::try_from(round).unwrap_or(0) % order.len().max(1);
                order.rotate_left(first);
                let mut outcomes = BTreeMap::new();
                for peer in order.into_iter().filter(|peer| (peer.rows)(row.row)) {
                    let outcome = self.measure_in_quiet(link, row.row, peer);
                    eprintln!(
                        "round {} · {} · {}: {}",
                        round + 1,
                        row.row,
                        peer.name,
                        outcome.progress(row.row.columns())
                    );
                    outcomes.insert(peer.name, outcome);
                }
                row.rounds.push(outcomes);
            }
        }
        rows
    }

    fn measure_in_quiet(&mut self, link: &Link, kind: Kind, peer: &Peer) -> Outcome {
        let mut patience = self.patience;
        let outcome = patience.measure(&format!("{kind} · {}", peer.name), || self.measure_once(link, kind, peer));
        self.patience = patience;
        outcome
    }

    fn measure_once(&self, link: &Link, kind: Kind, peer: &Peer) -> Outcome {
        let stage = Stage::open(link, &self.server, peer, kind, self.timing);
        match stage.and_then(|mut stage| kind.measure(&mut stage)) {
            Ok(sample) => Outcome::Measured(sample),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn kinds(line: &str, open_files: u64) -> (Vec<Kind>, Option<String>) {
        Line::parse_from(std::iter::once("curve").chain(line.split_whitespace())).options.kinds(open_files)
    }

    #[test]
    fn a_host_that_allows_fewer_files_has_fewer_connections_and_says_so() {
        let (rows, limit) = kinds("--connections 64,20000,30000", 20_000);
        let most = 20_000 - SPARE_FILES;
        let asks = [Kind::Ask { conns: 64 }, Kind::Ask { conns: most }];
        assert_eq!(rows[..3], [asks[0], asks[1], Kind::Setup { conns: most }]);
        assert!(limit.is_some_and(|limit| limit.contains("30000")));
        assert!(kinds("--connections 64,20000", 131_072).1.is_none());
    }

    #[test]
    fn rows_are_chosen_by_their_kind() {
        assert_eq!(kinds("--only visit,alone", 1024).0, [Kind::Visit, Kind::Alone]);
    }
}
