//! The rows of the curve: what is asked of a server, and what is reported of it.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::Stage;
use super::window::Window;
use crate::measure::memory;
use crate::rows::{Column, LOAD_CORE, OTHERS, RETRANSMITS, Sample, column, sample};
use crate::table::Heading;

/// Short connections at a time.
const VISITS: usize = 64;
/// How long all connections may take to get their first answer.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
/// How long they are left alone before memory is looked at: what it's for is connections that are idle.
const LEFT_ALONE: Duration = Duration::from_secs(3);

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages on `conns` connections, one outstanding on each; the server's core is full.
    Ask { conns: usize },
    /// `conns` connections opened, served once, and left alone; the server's core is full.
    Setup { conns: usize },
    /// Short connections; the server's core is full.
    Visit,
    /// Messages on one connection, with the server's core to itself.
    Alone,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask { conns } => write!(f, "request/reply, {conns} connections, saturated"),
            Self::Setup { conns } => write!(f, "set up and serve {conns} connections"),
            Self::Visit => write!(f, "short connections, {VISITS} at a time, saturated"),
            Self::Alone => f.write_str("request/reply, 1 connection, not saturated"),
        }
    }
}

const RATE: Column = column("requests_per_second", "requests/s", 0);
const COST: Column = column("server_cpu_us_per_request", "server CPU µs/request", 2);
const CYCLES: Column = column("cycles_per_request", "server cycles/request", 0);
const PROCESS: Column = column("process_cpu_us_per_request", "of it in its own name", 2);
/// Whether the server was the limit: if not, its costs say more than its rate.
const SERVER_CORE: Column = column("server_core_percent", "server's CPU busy %", 0);
const P50: Column = column("p50_us", "p50 µs", 0);
const P99: Column = column("p99_us", "p99 µs", 0);
const P999: Column = column("p999_us", "p99.9 µs", 0);
const ERRORS: Column = column("errors", "errors", 0);

const ASK: [Column; 11] = [RATE, COST, CYCLES, PROCESS, P50, P99, P999, SERVER_CORE, LOAD_CORE, OTHERS, RETRANSMITS];
const VISIT: [Column; 12] = [
    column("requests_per_second", "connections/s", 0),
    column("server_cpu_us_per_request", "server CPU µs/connection", 2),
    column("cycles_per_request", "server cycles/connection", 0),
    PROCESS,
    P50,
    P99,
    P999,
    ERRORS,
    SERVER_CORE,
    LOAD_CORE,
    OTHERS,
    RETRANSMITS,
];
const SETUP: [Column; 9] = [
    column("served_seconds", "seconds until all are served", 3),
    column("server_cpu_us_per_request", "server CPU µs/connection", 2),
    column("anon_bytes_per_conn", "user memory B/connection", 0),
    column("dirty_bytes_per_conn", "private dirty B/connection", 0),
    column("anon_kib_at_rest", "user memory KiB without any", 0),
    column("slab_bytes_per_conn", "kernel slab B/connection, both ends", 0),
    LOAD_CORE,
    OTHERS,
    RETRANSMITS,
];
const ALONE: [Column; 9] =
    [P50, P99, P999, RATE, COST, CYCLES, column("load_core_percent", "client CPU busy %", 0), OTHERS, RETRANSMITS];

impl Heading for Kind {
    fn columns(&self) -> &'static [Column] {
        match self {
            Self::Ask { .. } => &ASK,
            Self::Setup { .. } => &SETUP,
            Self::Visit => &VISIT,
            Self::Alone => &ALONE,
        }
    }

    fn rounds(&self, rounds: u32) -> u32 {
        rounds
    }
}

impl Kind {
    /// The columns by which servers are compared: what it costs, or how long it takes; then how much came of it.
    pub(crate) const fn judged_by(self) -> &'static [Column] {
        const COSTS: [Column; 2] =
            [column("server_cpu_us_per_request", "CPU", 2), column("requests_per_second", "rate", 2)];
        const TIMES: [Column; 2] = [column("served_seconds", "time", 2), column("server_cpu_us_per_request", "CPU", 2)];
        const LATENCIES: [Column; 2] = [column("p50_us", "p50", 2), column("server_cpu_us_per_request", "CPU", 2)];
        match self {
            Self::Ask { .. } | Self::Visit => &COSTS,
            Self::Setup { .. } => &TIMES,
            Self::Alone => &LATENCIES,
        }
    }

    /// Connections at once.
    pub(crate) const fn conns(self) -> usize {
        match self {
            Self::Ask { conns } | Self::Setup { conns } => conns,
            Self::Visit => VISITS,
            Self::Alone => 1,
        }
    }

    /// Whether the server shares its core with the hog.
    pub(crate) const fn saturated(self) -> bool {
        !matches!(self, Self::Alone)
    }

    /// Measures once.
    pub(crate) fn measure(self, stage: &mut Stage<'_>) -> Result<Sample> {
        match self {
            Self::Ask { conns } => ask(stage, conns),
            Self::Alone => ask(stage, 1),
            Self::Visit => visit(stage),
            Self::Setup { conns } => setup(stage, conns),
        }
    }
}

fn ask(stage: &mut Stage<'_>, conns: usize) -> Result<Sample> {
    let mut client = stage.asker(conns, false)?;
    client.mark_until(|counters| counters.served_ns > 0, SERVED_WITHIN)?;
    stage.warm_up();
    let window = Window::measure(stage, &mut client)?;
    client.finish()?;
    ensure!(window.request_rate > 0.0, "no exchange completed");
    Ok(values(&window))
}

fn visit(stage: &mut Stage<'_>) -> Result<Sample> {
    let mut client = stage.visitor(VISITS)?;
    stage.warm_up();
    let window = Window::measure(stage, &mut client)?;
    client.finish()?;
    ensure!(window.request_rate > 0.0, "no visit completed");
    Ok(values(&window))
}

fn values(window: &Window) -> Sample {
    sample([
        (RATE.key, Some(window.request_rate)),
        (COST.key, Some(window.server_cpu / window.request_rate * 1e6)),
        (CYCLES.key, window.clock.map(|clock| window.server_cpu * clock / window.request_rate)),
        (PROCESS.key, Some(window.process_cpu / window.request_rate * 1e6)),
        (P50.key, Some(window.p50_us)),
        (P99.key, Some(window.p99_us)),
        (P999.key, Some(window.p999_us)),
        (ERRORS.key, Some(window.errors)),
        (SERVER_CORE.key, Some(window.server_core * 100.0)),
        (LOAD_CORE.key, Some(window.load_core * 100.0)),
        (OTHERS.key, Some(window.others_cpu * 100.0)),
        (RETRANSMITS.key, Some(window.retransmits)),
    ])
}

fn setup(stage: &mut Stage<'_>, conns: usize) -> Result<Sample> {
    let group = stage.server.group();
    let memory =
        || anyhow::Ok((memory::group_anon_bytes(group)?, memory::group_dirty_bytes(group)?, memory::slab_bytes()?));
    let (anon_before, dirty_before, slab_before) = memory()?;
    let window = Window::until_served(stage, conns, SERVED_WITHIN)?;
    std::thread::sleep(LEFT_ALONE);
    let (anon, dirty, slab) = memory()?;
    stage.check_alive()?;
    window.client.finish()?;
    let count = conns as f64;
    let growth = |before: u64, after: u64| Some((after as f64 - before as f64) / count);
    Ok(sample([
        ("served_seconds", Some(window.served_seconds)),
        (COST.key, Some(window.server_cpu / count * 1e6)),
        ("anon_bytes_per_conn", growth(anon_before, anon)),
        ("dirty_bytes_per_conn", growth(dirty_before, dirty)),
        ("anon_kib_at_rest", Some(anon_before as f64 / 1024.0)),
        ("slab_bytes_per_conn", growth(slab_before, slab)),
        (LOAD_CORE.key, Some(window.load_core * 100.0)),
        (OTHERS.key, Some(window.others_cpu * 100.0)),
        (RETRANSMITS.key, Some(window.retransmits)),
    ]))
}
