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

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::choice::{choose, selects};
use crate::comparison::{Comparison, Effort};
use crate::host::{self, Host};
use crate::installed::Installed;
use crate::lab::{Gro, Lab};
use crate::machine::Machine;
use crate::publication::Publication;
use crate::report::Report;
use crate::table::Outcome;
use crate::workplace::Workplace;

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
    /// Seconds that the run may spend on waiting for quiet and on repeating what others disturbed
    /// [default: 120, quick: 0].
    #[arg(long)]
    patience: Option<u64>,
    #[command(flatten)]
    publication: Publication,
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
    host::require_root("mux")?;
    host::require_programs(Gro::Off.programs())?;
    let run = Run::prepare(options)?;
    ensure!(
        run.comparison.peers.iter().any(|peer| peer.name == peers::DIRECT),
        "--proxies has to have {}: added latency is added to it",
        peers::DIRECT
    );
    ensure!(run.installed.lacks(peers::DIRECT).is_none(), "knotd isn't installed: apt-get install knot");
    let machine = Machine::look(false);
    host::require_cpus("mux", &machine, ["the proxy", "the load"])?;

    let mut workplace = Workplace::take_on_load_cpu()?;
    let began = Instant::now();
    let lab = Lab::build(&mut workplace, Gro::Off).context("build the lab")?;
    let kinds = Kind::all(options.quick, run.host.open_files);
    let kinds = kinds.into_iter().filter(|kind| selects(&options.only, kind.group()));
    let rows = run.comparison.rows(kinds, |kind, peer| run.measure(&lab, kind, peer));
    let settings = format!(
        "{} rounds · windows of {:.1} s · proxy on CPU 0; client and name server on CPU 1, where the bench is too · the run took {} s",
        run.comparison.rounds,
        run.timing.window.as_secs_f64(),
        began.elapsed().as_secs()
    );
    let judgements = targets::judge(&rows);
    let peers = run.comparison.peers.iter().map(|peer| (peer.name, run.installed.version(peer.name))).collect();
    let report = Report { title: "mux", machine, peers, subject: SUBJECT.to_owned(), settings, rows, judgements };
    options.publication.publish(&report.markdown(), &report.json())
}

impl Run {
    fn prepare(options: &Options) -> Result<Self> {
        let host = Host::prepare(options.midmile.clone())?;
        let peers = choose("proxy", &PEERS, &options.proxies)?;
        let installed = Installed::new(peers.iter().map(|peer| (peer.name, (peer.version)(&host))));
        let Options { quick, rounds, patience, .. } = *options;
        let seconds = options.seconds.unwrap_or(if quick { 0.5 } else { 2.0 });
        let timing = Timing {
            warm_up: Duration::from_millis(if quick { 200 } else { 500 }),
            window: Duration::try_from_secs_f64(seconds).context("--seconds")?,
        };
        Ok(Self { comparison: Comparison::new(peers, &Effort { quick, rounds, patience }), installed, host, timing })
    }

    fn measure(&self, lab: &Lab, kind: Kind, peer: &Peer) -> Outcome {
        if let Some(why) = self.installed.lacks(peer.name).or_else(|| (peer.skips)(kind)) {
            return Outcome::Skipped(why.to_owned());
        }
        let stage = Stage::open(lab, peer, &self.host, kind, self.timing);
        stage.and_then(|mut stage| kind.measure(&mut stage)).into()
    }
}
