//! `trunk`: two gateways with a pool between them, beside one relay: CPU a gigabyte, and short connections a second.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::host::{self, Host};
use crate::lab::{Gro, Lab};
use crate::measure::perf;
use crate::namespace::{self, Namespace};
use crate::peers::{MIDMILE, Peer, TRUNK, TRUNK_APART, trunk};
use crate::rows::{Kind, OTHERS, Sample};
use crate::stage::{Stage, Timing};
use crate::workplace::Workplace;

/// Most CPU a gigabyte, and fewest short connections a second, against one relay.
const CPU_RATIO_MAX: f64 = 2.1;
const CONNECTIONS_RATIO_MIN: f64 = 0.45;
/// How long a gateway may take to tell its figures.
const ADMIN_WAIT: Duration = Duration::from_secs(5);

/// Options of `trunk`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; each measures relay and gateways once.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds that bulk is measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds that short connections are measured.
    #[arg(long, default_value_t = 60.0)]
    hold: f64,
    /// The midmile binary [default: beside this one].
    #[arg(long)]
    midmile: Option<PathBuf>,
}

/// What is compared: a load, the value that counts, and how long.
struct Row {
    kind: Kind,
    key: &'static str,
    title: &'static str,
    seconds: f64,
    /// The two gateways.
    gateways: &'static Peer,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::require_root("trunk")?;
    let host = Host::prepare(options.midmile.clone())?;
    let mut workplace = Workplace::take()?;
    let lab = Lab::build(&mut workplace, Gro::Off).context("build the lab")?;
    println!(
        "client and server on CPU 1; the relay on CPU 0, and both gateways for CPU a GB; the trunk is the loopback device"
    );
    println!(
        "for short connections the gateway near the server is on CPU 1, so that both CPUs are full in either case\n"
    );
    println!("| row | round | relay | gateways | ratio | others %, each | pool misses |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for row in rows(options) {
        compare(&lab, &host, &row, options.rounds)?;
    }
    Ok(())
}

fn rows(options: &Options) -> [Row; 3] {
    let bulk = |conns, title| Row {
        kind: Kind::Bulk { conns },
        key: "proxy_cpu_s_per_gb",
        title,
        seconds: options.seconds,
        gateways: &TRUNK,
    };
    let crr = Kind::Crr { conns: 64 };
    [
        bulk(1, "CPU s a GB, 1 connection"),
        bulk(64, "CPU s a GB, 64 connections"),
        Row {
            kind: crr,
            key: "requests_per_second",
            title: "short connections/s, 64 at a time",
            seconds: options.hold,
            gateways: &TRUNK_APART,
        },
    ]
}

fn compare(lab: &Lab, host: &Host, row: &Row, rounds: u32) -> Result<()> {
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let (relay, _) = measure(lab, host, &MIDMILE, row)?;
        let (gateways, misses) = measure(lab, host, row.gateways, row)?;
        let value = |sample: &Sample| sample.get(row.key).copied().context("a value wasn't measured");
        let (one, two) = (value(&relay)?, value(&gateways)?);
        let others = [&relay, &gateways].map(|sample| sample.get(OTHERS.key).copied().unwrap_or_default());
        ratios.push(two / one);
        println!(
            "| {} | {round} | {one:.3} | {two:.3} | {:.2} | {:.0}, {:.0} | {misses} |",
            row.title,
            two / one,
            others[0],
            others[1]
        );
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).context("no rounds")?;
    let (met, bound) = match row.kind {
        Kind::Crr { .. } => (*median >= CONNECTIONS_RATIO_MIN, format!("{CONNECTIONS_RATIO_MIN} or more")),
        _ => (*median <= CPU_RATIO_MAX, format!("{CPU_RATIO_MAX} or less")),
    };
    let verdict = if met { "met" } else { "MISSED" };
    println!("| {} | median | | | **{median:.2}** | {bound}: {verdict} | |", row.title);
    Ok(())
}

/// One measurement, and the pairs that found the pool empty while there was load.
fn measure(lab: &Lab, host: &Host, peer: &Peer, row: &Row) -> Result<(Sample, u64)> {
    let window = Duration::try_from_secs_f64(row.seconds).context("--seconds, --hold")?;
    let timing = Timing { warm_up: Duration::from_secs(2), window, slow: Duration::ZERO, cycles: perf::countable() };
    let mut stage = Stage::open(lab, peer, host, timing)?;
    // The first exchange may have come before the pool was full.
    stage.warm_up();
    let misses = || if peer.name == TRUNK.name { pool_misses(lab) } else { Ok(0) };
    let before = misses()?;
    let sample = row.kind.measure(&mut stage).with_context(|| peer.name)?;
    Ok((sample, misses()?.saturating_sub(before)))
}

/// Reads the counter of the gateway near the clients, since it started.
fn pool_misses(lab: &Lab) -> Result<u64> {
    let text = inside(&lab.proxy, gateway_figures)?.context("read the gateway's figures")?;
    let lines = text.lines().filter(|line| line.starts_with("midmile_pool_missed_total"));
    let counts: Vec<u64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    ensure!(!counts.is_empty(), "the gateway's figures have no midmile_pool_missed_total");
    Ok(counts.iter().sum())
}

fn gateway_figures() -> Result<String> {
    let mut stream = TcpStream::connect(trunk::ADMIN)?;
    stream.set_read_timeout(Some(ADMIN_WAIT))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Runs `work` on a thread inside a namespace.
fn inside<T: Send + 'static>(netns: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let name = netns.name.clone();
    let thread = thread::spawn(move || namespace::enter(&name).map(|()| work()));
    thread.join().map_err(|_| anyhow!("the thread inside {} panicked", netns.name))?
}
