//! A window of measurement: what happened between two looks at all counters.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::Stage;
use crate::cpus::{LOAD_CPU, PROXY_CPU};
use crate::launch::LoadProcess;
use crate::load::Counters;
use crate::measure::cpus::Cpus;
use crate::measure::{cpu, network};

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
    retransmits: u64,
    cpus: Cpus,
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
        let (client, cpus) = (&after.client, &after.cpus);
        let seconds = cpus.seconds_since(&before.cpus);
        Self {
            rate: client.request_rate_since(&before.client),
            errors: client.errors_since(&before.client),
            p50_us: client.p50_ns as f64 / 1e3,
            p99_us: client.p99_ns as f64 / 1e3,
            proxy_cpu: before.proxy.zip(after.proxy).map(|(before, after)| (after - before) / seconds),
            proxy_core: cpus.busy_since(&before.cpus, PROXY_CPU),
            load_core: cpus.busy_since(&before.cpus, LOAD_CPU),
            others_cpu: cpus.others_since(&before.cpus),
            retransmits: after.retransmits.saturating_sub(before.retransmits) as f64,
        }
    }
}

impl Totals {
    fn read(stage: &Stage<'_>, client: &mut LoadProcess) -> Result<Self> {
        Ok(Self {
            client: client.mark()?,
            proxy: stage.proxy.as_ref().map(|proxy| cpu::group_seconds(proxy.group())).transpose()?,
            retransmits: stage.retransmitted_segments()? + network::retransmitted_segments(client.group())?,
            cpus: Cpus::read()?,
        })
    }
}
