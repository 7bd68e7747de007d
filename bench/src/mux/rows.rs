//! The rows: what is asked through a proxy, and what is reported of it.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::backend::SLOW_MS;
use super::stage::Stage;
use super::window::Window;
use crate::launch::LoadProcess;
use crate::measure::memory;
use crate::rows::{Column, LOAD_CORE, OTHERS, RETRANSMITS, Sample, column, sample};
use crate::table::Heading;

/// Connections and questions outstanding on each.
const PIPELINED: (usize, u16) = (4, 100);
const MANY: usize = 1000;
/// Short connections at a time: Knot's backlog has room for about ten.
const VISITS: usize = 8;
/// The good clients beside slow senders, with one question outstanding each.
const GOOD: usize = 16;
/// Milliseconds between two bytes of a slow sender, and those within which all are opened.
const EVERY_MS: u64 = 3000;
const OVER_MS: u64 = 10_000;
/// How long all connections may take to be served once.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
/// Time for deferred frees before memory is read.
const SETTLE: Duration = Duration::from_millis(500);
/// One answer in a hundred is slow.
const QUICK_TO_ONE_SLOW: u64 = 99;
/// A client's patience where it isn't what is measured, and where it is.
const FOREVER: Duration = Duration::from_secs(3600);
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One question at a time on one connection.
    Alone,
    /// Few connections with many questions outstanding.
    Pipelined,
    /// Many connections with one question outstanding each.
    Many,
    /// So many connections that asked once, and do nothing.
    Idle { conns: usize },
    /// Some good clients beside so many that never finish a message.
    Slow { senders: usize },
    /// Some clients, once without slow answers and once with some among theirs.
    Laggard,
    /// A connection for each question.
    Visit,
}

/// What `--only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// One question at a time.
    Alone,
    /// 4 connections with 100 questions outstanding.
    Pipelined,
    /// 1,000 connections.
    Many,
    /// Memory and connections to the backend of idle clients.
    Idle,
    /// Good clients beside slow senders.
    Slow,
    /// One slow answer in a hundred.
    Laggard,
    /// A connection for each question.
    Visit,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => f.write_str("1 connection, 1 question outstanding"),
            Self::Pipelined => write!(f, "{} connections, {} questions outstanding on each", PIPELINED.0, PIPELINED.1),
            Self::Many => write!(f, "{MANY} connections, 1 question outstanding on each"),
            Self::Idle { conns } => write!(f, "{conns} idle connections"),
            Self::Slow { senders } => write!(f, "{GOOD} good clients beside {senders} slow senders"),
            Self::Laggard => write!(f, "{GOOD} clients, one answer in {} late by {SLOW_MS} ms", QUICK_TO_ONE_SLOW + 1),
            Self::Visit => write!(f, "a connection for each question, {VISITS} at a time"),
        }
    }
}

/// Answers a second of the proxy's own CPU time, and of the time that its CPU wasn't idle.
pub(crate) const PER_CPU: Column = column("queries_per_cpu_second", "queries/s per proxy CPU s", 0);
pub(crate) const PER_CORE: Column = column("queries_per_core_second", "queries/s per proxy core", 0);
pub(crate) const P50: Column = column("p50_us", "p50 µs", 0);
pub(crate) const RATIO: Column = column("conns_per_backend_conn", "clients : backend connections", 0);
pub(crate) const SLOW_P99: Column = column("p99_ratio", "p99, with ÷ without", 2);
const ANON: Column = column("anon_bytes_per_conn", "user memory B/connection", 0);
const RATE: Column = column("queries_per_second", "queries/s", 0);
const CPU: Column = column("proxy_cpu_us_per_query", "proxy CPU µs/query", 2);
const P99: Column = column("p99_us", "p99 µs", 0);
const P99_WITH: Column = column("p99_with_us", "p99 µs with", 0);
const P99_WITHOUT: Column = column("p99_without_us", "p99 µs without", 0);
const BACKEND: Column = column("backend_conns", "backend connections", 0);
const ERRORS: Column = column("errors", "errors", 0);

const ASK: [Column; 11] = [PER_CPU, PER_CORE, RATE, CPU, P50, P99, BACKEND, ERRORS, LOAD_CORE, OTHERS, RETRANSMITS];
const ALONE: [Column; 8] = [P50, P99, RATE, PER_CPU, CPU, LOAD_CORE, OTHERS, RETRANSMITS];
const IDLE: [Column; 4] =
    [ANON, RATIO, BACKEND, column("slab_bytes_per_conn", "kernel slab B/connection, client + proxy", 0)];
const SLOW: [Column; 7] = [
    SLOW_P99,
    P99_WITH,
    P99_WITHOUT,
    column("anon_bytes_per_conn", "user memory B/sender", 0),
    column("cuts_per_second", "senders cut/s", 0),
    BACKEND,
    OTHERS,
];

const LAGGARD: [Column; 6] =
    [SLOW_P99, P99_WITH, P99_WITHOUT, column("queries_with_per_second", "queries/s with", 0), BACKEND, OTHERS];

impl Heading for Kind {
    fn columns(&self) -> &'static [Column] {
        match self {
            Self::Alone => &ALONE,
            Self::Pipelined | Self::Many | Self::Visit => &ASK,
            Self::Idle { .. } => &IDLE,
            Self::Slow { .. } => &SLOW,
            Self::Laggard => &LAGGARD,
        }
    }

    /// Memory repeats exactly and takes long: one round is enough.
    fn rounds(&self, rounds: u32) -> u32 {
        if let Self::Idle { .. } = self { 1 } else { rounds }
    }
}

impl Kind {
    /// Every row, in this order: short connections last, they leave TIME_WAIT sockets behind.
    pub(crate) fn all(quick: bool, open_files: u64) -> [Self; 7] {
        let wanted = if quick { 2000 } else { 10_000 };
        // A fifth of all for what a proxy keeps in reserve.
        let conns = usize::try_from(open_files / 5 * 4).map_or(wanted, |most| wanted.min(most));
        let (idle, slow) = (Self::Idle { conns }, Self::Slow { senders: conns });
        [Self::Alone, Self::Pipelined, Self::Many, idle, slow, Self::Laggard, Self::Visit]
    }

    /// The name that selects it.
    pub(crate) const fn group(self) -> Group {
        match self {
            Self::Alone => Group::Alone,
            Self::Pipelined => Group::Pipelined,
            Self::Many => Group::Many,
            Self::Idle { .. } => Group::Idle,
            Self::Slow { .. } => Group::Slow,
            Self::Laggard => Group::Laggard,
            Self::Visit => Group::Visit,
        }
    }

    /// How long a proxy waits for a client.
    pub(crate) const fn patience(self) -> Duration {
        if let Self::Slow { .. } = self { MESSAGE_WITHIN } else { FOREVER }
    }

    /// Measures once.
    pub(crate) fn measure(self, stage: &mut Stage<'_>) -> Result<Sample> {
        match self {
            Self::Alone => ask(stage, (1, 1)),
            Self::Pipelined => ask(stage, PIPELINED),
            Self::Many => ask(stage, (MANY, 1)),
            Self::Idle { conns } => idle(stage, conns),
            Self::Slow { senders } => slow(stage, senders),
            Self::Laggard => laggard(stage),
            Self::Visit => {
                let client = stage.client("visit", &["--dns", "--conns", &VISITS.to_string()])?;
                load(stage, client)
            }
        }
    }
}

/// A client that has questions outstanding, once all of its connections were served.
fn asker(stage: &mut Stage<'_>, (conns, outstanding): (usize, u16), more: &[&str]) -> Result<LoadProcess> {
    let (conns, outstanding) = (conns.to_string(), outstanding.to_string());
    let args = [&["--conns", &conns, "--outstanding", &outstanding], more].concat();
    let mut client = stage.client("dns", &args)?;
    client.mark_until(|counters| counters.served_ns > 0, SERVED_WITHIN)?;
    Ok(client)
}

fn ask(stage: &mut Stage<'_>, shape: (usize, u16)) -> Result<Sample> {
    let client = asker(stage, shape, &[])?;
    load(stage, client)
}

fn load(stage: &mut Stage<'_>, mut client: LoadProcess) -> Result<Sample> {
    stage.warm_up();
    let window = Window::measure(stage, &mut client, stage.timing.window)?;
    let backend = stage.backend_connections()?;
    client.finish()?;
    let proxied = stage.proxy.is_some();
    Ok(sample([
        (PER_CPU.key, window.proxy_cpu.map(|cpu| window.rate / cpu)),
        (PER_CORE.key, proxied.then_some(window.rate / window.proxy_core)),
        (RATE.key, Some(window.rate)),
        (CPU.key, window.proxy_cpu.map(|cpu| cpu / window.rate * 1e6)),
        (P50.key, Some(window.p50_us)),
        (P99.key, Some(window.p99_us)),
        (BACKEND.key, Some(backend as f64)),
        (ERRORS.key, Some(window.errors)),
        (LOAD_CORE.key, Some(window.load_core * 100.0)),
        (OTHERS.key, Some(window.others_cpu * 100.0)),
        (RETRANSMITS.key, Some(window.retransmits)),
    ]))
}

fn anon(stage: &Stage<'_>) -> Result<Option<f64>> {
    let bytes = stage.proxy.as_ref().map(|proxy| memory::group_anon_bytes(proxy.group())).transpose()?;
    Ok(bytes.map(|bytes| bytes as f64))
}

fn idle(stage: &mut Stage<'_>, conns: usize) -> Result<Sample> {
    std::thread::sleep(SETTLE);
    let (anon_before, slab_before) = (anon(stage)?, memory::slab_bytes()? as f64);
    let client = asker(stage, (conns, 1), &["--once"])?;
    std::thread::sleep(SETTLE);
    let (anon_after, slab_after) = (anon(stage)?, memory::slab_bytes()? as f64);
    let backend = stage.backend_connections()? as f64;
    stage.check_alive()?;
    client.finish()?;
    let count = conns as f64;
    Ok(sample([
        (ANON.key, anon_before.zip(anon_after).map(|(before, after)| (after - before) / count)),
        ("slab_bytes_per_conn", Some((slab_after - slab_before) / count)),
        (BACKEND.key, Some(backend)),
        (RATIO.key, Some(count / backend)),
    ]))
}

/// The host drifts within seconds, so "without" is the mean of before and after.
fn slow(stage: &mut Stage<'_>, senders: usize) -> Result<Sample> {
    let mut good = asker(stage, (GOOD, 1), &[])?;
    stage.warm_up();
    let window = stage.timing.window;
    let before = Window::measure(stage, &mut good, window)?;
    let anon_before = anon(stage)?;
    let [senders_arg, over, every] = [u64::try_from(senders)?, OVER_MS, EVERY_MS].map(|number| number.to_string());
    let args = ["--conns", &senders_arg, "--over-ms", &over, "--every-ms", &every];
    let mut slow = stage.client("trickle", &args)?;
    // Until all have begun a message, and the first were cut, have seen that, and are back.
    std::thread::sleep(MESSAGE_WITHIN + Duration::from_millis(2 * EVERY_MS));
    let cut_before = slow.mark()?;
    let with = Window::measure(stage, &mut good, window)?;
    let cut = slow.mark()?;
    let (anon_after, backend) = (anon(stage)?, stage.backend_connections()?);
    slow.finish()?;
    stage.warm_up();
    let after = Window::measure(stage, &mut good, window)?;
    good.finish()?;
    let without = f64::midpoint(before.p99_us, after.p99_us);
    let cuts = (cut.errors - cut_before.errors) as f64 / (cut.seconds - cut_before.seconds);
    Ok(sample([
        (SLOW_P99.key, Some(with.p99_us / without)),
        (P99_WITH.key, Some(with.p99_us)),
        (P99_WITHOUT.key, Some(without)),
        (ANON.key, anon_before.zip(anon_after).map(|(before, after)| (after - before) / senders as f64)),
        ("cuts_per_second", Some(cuts)),
        (BACKEND.key, Some(backend as f64)),
        (OTHERS.key, Some(with.others_cpu * 100.0)),
    ]))
}

/// The quick answers' p99 with slow ones among them and without; as above, "without" is the mean of before and after. The slow
/// questions are asked besides as many quick ones as before, so that the load stays.
fn laggard(stage: &mut Stage<'_>) -> Result<Sample> {
    let every = QUICK_TO_ONE_SLOW.to_string();
    let mut windows = Vec::new();
    let mut backend = 0;
    for more in [&[][..], &["--slow-every", &every], &[]] {
        let mut client = asker(stage, (GOOD, 1), more)?;
        stage.warm_up();
        windows.push(Window::measure(stage, &mut client, stage.timing.window)?);
        backend = stage.backend_connections()?;
        client.finish()?;
    }
    let without = f64::midpoint(windows[0].p99_us, windows[2].p99_us);
    let with = &windows[1];
    Ok(sample([
        (SLOW_P99.key, Some(with.p99_us / without)),
        (P99_WITH.key, Some(with.p99_us)),
        (P99_WITHOUT.key, Some(without)),
        ("queries_with_per_second", Some(with.rate)),
        (BACKEND.key, Some(backend as f64)),
        (OTHERS.key, Some(with.others_cpu * 100.0)),
    ]))
}
