//! A window of measurement: what happened between two looks at all counters.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::stage::Stage;
use crate::launch::LoadProcess;
use crate::load::Counters;
use crate::measure::{cpu, network};
use crate::netns::{LOAD_CPU, PROXY_CPU};

/// Rates over a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Answers a second.
    pub(crate) rate: f64,
    /// The client's failed connections.
    pub(crate) errors: f64,
    /// Median latency in µs.
    pub(crate) p50_us: f64,
    /// 99th percentile in µs.
    pub(crate) p99_us: f64,
    /// CPU seconds a second of the proxy's process.
    pub(crate) proxy_cpu: Option<f64>,
    /// CPU seconds a second of the proxy's CPU, its packets' among them.
    pub(crate) proxy_core: f64,
    /// CPU seconds a second of the CPU that client and name server share; near 1 they are the limit.
    pub(crate) load_core: f64,
    /// CPU seconds a second of programs that have nothing to do with the measurement.
    pub(crate) others_cpu: f64,
    /// TCP segments sent again in the three namespaces.
    pub(crate) retransmits: f64,
}

/// All counters at one time.
struct Totals {
    client: Counters,
    proxy: Option<f64>,
    others: f64,
    idle: Vec<f64>,
    retransmits: u64,
    at: Instant,
}

impl Window {
    /// Measures for a while what `client` gets answered.
    pub(crate) fn measure(stage: &mut Stage<'_>, client: &mut LoadProcess, length: Duration) -> Result<Self> {
        let before = Totals::read(stage, client)?;
        std::thread::sleep(length);
        let after = Totals::read(stage, client)?;
        stage.check_alive()?;
        let window = Self::between(&before, &after);
        ensure!(window.rate > 0.0, "nothing was answered");
        Ok(window)
    }

    fn between(before: &Totals, after: &Totals) -> Self {
        let seconds = (after.at - before.at).as_secs_f64();
        let busy = |cpu: usize| {
            let idle = after.idle.get(cpu).zip(before.idle.get(cpu)).map_or(f64::NAN, |(after, before)| after - before);
            (1.0 - idle / seconds).clamp(0.0, 1.0)
        };
        let (load, load_before) = (after.client, before.client);
        Self {
            rate: (load.requests - load_before.requests) as f64 / (load.seconds - load_before.seconds),
            errors: (load.errors - load_before.errors) as f64,
            p50_us: load.p50_ns as f64 / 1e3,
            p99_us: load.p99_ns as f64 / 1e3,
            proxy_cpu: before.proxy.zip(after.proxy).map(|(before, after)| (after - before) / seconds),
            proxy_core: busy(PROXY_CPU),
            load_core: busy(LOAD_CPU),
            others_cpu: (after.others - before.others) / seconds,
            retransmits: after.retransmits.saturating_sub(before.retransmits) as f64,
        }
    }
}

impl Totals {
    fn read(stage: &Stage<'_>, client: &mut LoadProcess) -> Result<Self> {
        Ok(Self {
            client: client.mark()?,
            proxy: stage.proxy.as_ref().map(|proxy| cpu::group_seconds(proxy.group())).transpose()?,
            others: cpu::others_seconds()?,
            idle: cpu::idle_seconds()?,
            retransmits: stage.retransmitted_segments()? + network::retransmitted_segments(client.group())?,
            at: Instant::now(),
        })
    }
}
