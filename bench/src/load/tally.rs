//! The tally of a load process: what it has counted and measured since it began.

use std::time::Instant;

use anyhow::Result;

use super::control;
use super::counters::Counters;
use super::latency::Histogram;

/// Counters, latencies since the last report, and the time.
pub(super) struct Tally {
    /// Seconds and latencies are filled in by a report.
    pub(super) counters: Counters,
    latency: Histogram,
    started: Instant,
}

impl Tally {
    /// Begins.
    pub(super) fn new() -> Self {
        Self { counters: Counters::default(), latency: Histogram::new(), started: Instant::now() }
    }

    /// An exchange is complete.
    pub(super) fn exchanged(&mut self, asked_at: Instant) {
        self.counters.requests += 1;
        self.latency.record(asked_at.elapsed());
    }

    /// Every connection has had its first answer; their latencies are not those of the load to come.
    pub(super) fn all_served(&mut self) -> Result<()> {
        self.counters.served_ns = u64::try_from(self.started.elapsed().as_nanos())?;
        self.latency.clear();
        Ok(())
    }

    /// Answers [`control::Order::Report`].
    pub(super) fn report(&mut self) -> Result<()> {
        self.counters.seconds = self.started.elapsed().as_secs_f64();
        self.counters.p50_ns = self.latency.percentile_ns(50);
        self.counters.p99_ns = self.latency.percentile_ns(99);
        self.counters.p999_ns = self.latency.per_mille_ns(999);
        control::answer(&self.counters)?;
        self.latency.clear();
        Ok(())
    }
}
