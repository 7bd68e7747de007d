//! Orders from the bench: a newline asks for the counters, end of file ends the process.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Context, Result};

use super::counters::Counters;
use super::latency::Histogram;

/// What standard input said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Answer with one line of counters.
    Report,
    /// The bench is done with this process.
    Quit,
}

/// Reads one order; blocks where standard input isn't readable.
pub(super) fn take() -> Result<Order> {
    let mut byte = [0_u8; 1];
    match rustix::io::read(std::io::stdin(), &mut byte).context("read an order")? {
        0 => Ok(Order::Quit),
        _ => Ok(Order::Report),
    }
}

/// Answers [`Order::Report`].
pub(super) fn answer(counters: &Counters) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", counters.to_json())?;
    out.flush().context("answer the bench")
}

/// Answers [`Order::Report`] with what was counted since `started`, and with the latencies since the last report.
pub(super) fn answer_with(counters: &mut Counters, latency: &mut Histogram, started: Instant) -> Result<()> {
    counters.seconds = started.elapsed().as_secs_f64();
    counters.p50_ns = latency.percentile_ns(50);
    counters.p99_ns = latency.percentile_ns(99);
    counters.p999_ns = latency.per_mille_ns(999);
    answer(counters)?;
    latency.clear();
    Ok(())
}
