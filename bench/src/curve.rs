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

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::choice::{choose, selects};
use crate::comparison::{Comparison, Effort};
use crate::host;
use crate::launch;
use crate::machine::Machine;
use crate::measure::perf;
use crate::publication::Publication;
use crate::table::Outcome;
use crate::workplace::Workplace;

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
    /// Seconds that the run may spend on waiting for quiet and on repeating what others disturbed
    /// [default: 120, quick: 0].
    #[arg(long)]
    patience: Option<u64>,
    /// The program that has the servers [default: beside this one].
    #[arg(long)]
    server: Option<PathBuf>,
    #[command(flatten)]
    publication: Publication,
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
    comparison: Comparison<Peer>,
    server: PathBuf,
    timing: Timing,
}

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::require_root("curve")?;
    host::require_programs(&link::PROGRAMS)?;
    let run = Run::prepare(options)?;
    let machine = Machine::look(run.timing.cycles);
    host::require_cpus("curve", &machine, ["the server", "the client"])?;
    let open_files = launch::raise_open_files()?;
    let (kinds, limit) = options.kinds(open_files);
    let most = kinds.iter().map(|kind| kind.conns()).max().context("nothing to measure")?;

    let mut workplace = Workplace::take_on_load_cpu()?;
    let began = Instant::now();
    let link = Link::build(&mut workplace, most).context("build the lab")?;
    let rows = run.comparison.rows(kinds, |kind, peer| run.measure(&link, kind, peer));
    let notes = run.notes(began.elapsed(), limit);
    let peers = run.comparison.peers;
    let judgements = targets::judge(&rows, &peers);
    let report = Report { machine, peers, notes, rows, judgements };
    options.publication.publish(&report.markdown(), &report.json())?;
    match &options.plots {
        Some(dir) => plot::write(dir, &report.rows, &report.peers),
        None => Ok(()),
    }
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
        (all.filter(|kind| selects(&self.only, group(*kind))).collect(), limit)
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
        let server = options.server.clone().map_or_else(|| host::beside("midmile-bench-server"), Ok)?;
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
        let Options { quick, rounds, patience, .. } = *options;
        let peers = choose("server", &PEERS, &options.servers)?;
        Ok(Self { comparison: Comparison::new(peers, &Effort { quick, rounds, patience }), server, timing })
    }

    fn notes(&self, took: Duration, limit: Option<String>) -> Vec<String> {
        let Timing { window, hog_busy_us, hog_every_us, .. } = self.timing;
        let mut notes = vec![
            format!(
                "{} rounds, each of every row and every server in turn; windows of {:.1} s; the run took {} s",
                self.comparison.rounds,
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

    fn measure(&self, link: &Link, kind: Kind, peer: &Peer) -> Outcome {
        let stage = Stage::open(link, &self.server, peer, kind, self.timing);
        stage.and_then(|mut stage| kind.measure(&mut stage)).into()
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
