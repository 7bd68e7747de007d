//! A window of measurement: what happened between two looks at all counters.

use std::time::Duration;

use anyhow::Result;

use crate::cpus::{LOAD_CPU, PROXY_CPU};
use crate::launch::LoadProcess;
use crate::load::Counters;
use crate::measure::cpus::Cpus;
use crate::measure::{cpu, network, perf};
use crate::stage::Stage;

/// Rates over a window. "System" is all CPUs together, whoever ran on them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Bytes a second read by the server's sink.
    pub(crate) bytes_rate: f64,
    /// Exchanges a second that the client completed.
    pub(crate) request_rate: f64,
    /// The client's failed connections.
    pub(crate) errors: f64,
    /// Median latency in µs.
    pub(crate) p50_us: f64,
    /// 99th percentile in µs.
    pub(crate) p99_us: f64,
    /// CPU seconds a second of the proxy.
    pub(crate) proxy_cpu: Option<f64>,
    /// CPU seconds a second of programs that have nothing to do with the measurement.
    pub(crate) others_cpu: f64,
    /// CPU seconds a second of the system.
    pub(crate) system_cpu: f64,
    /// CPU seconds a second of the proxy's CPU: the proxy, its share of the kernel's packet work, and whatever else.
    pub(crate) proxy_core: f64,
    /// CPU seconds a second of the CPU that client and server share; near 1 means that the load is the limit.
    pub(crate) load_core: f64,
    /// Cycles a second of the system.
    pub(crate) cycles: Option<f64>,
    /// TCP segments sent again in the three namespaces.
    pub(crate) retransmits: f64,
}

/// All counters at one time.
struct Totals {
    client: Counters,
    server: Counters,
    proxy: Option<f64>,
    cpus: Cpus,
    retransmits: u64,
}

impl Window {
    /// Measures for a while what `client` gets done through the proxy.
    pub(crate) fn measure(stage: &mut Stage<'_>, client: &mut LoadProcess, length: Duration) -> Result<Self> {
        let before = Totals::read(stage, client)?;
        let cycles = perf::cycles_per_second(length, stage.timing.cycles);
        let after = Totals::read(stage, client)?;
        stage.check_alive()?;
        Ok(Self { cycles, ..Self::between(&before, &after) })
    }

    fn between(before: &Totals, after: &Totals) -> Self {
        let (client, cpus) = (&after.client, &after.cpus);
        let seconds = cpus.seconds_since(&before.cpus);
        let proxy = before.proxy.zip(after.proxy);
        Self {
            bytes_rate: after.server.byte_rate_since(&before.server),
            request_rate: client.request_rate_since(&before.client),
            errors: client.errors_since(&before.client),
            p50_us: client.p50_ns as f64 / 1e3,
            p99_us: client.p99_ns as f64 / 1e3,
            proxy_cpu: proxy.map(|(before, after)| (after - before) / seconds),
            others_cpu: cpus.others_since(&before.cpus),
            system_cpu: cpus.all_busy_since(&before.cpus),
            proxy_core: cpus.busy_since(&before.cpus, PROXY_CPU),
            load_core: cpus.busy_since(&before.cpus, LOAD_CPU),
            cycles: None,
            retransmits: after.retransmits.saturating_sub(before.retransmits) as f64,
        }
    }
}

impl Totals {
    fn read(stage: &mut Stage<'_>, client: &mut LoadProcess) -> Result<Self> {
        let mut retransmits =
            network::retransmitted_segments(client.group())? + network::retransmitted_segments(stage.server.group())?;
        if let Some(proxy) = &stage.proxy {
            retransmits += network::retransmitted_segments(proxy.group())?;
        }
        Ok(Self {
            client: client.mark()?,
            server: stage.server.mark()?,
            proxy: stage.proxy.as_ref().map(|proxy| cpu::group_seconds(proxy.group())).transpose()?,
            cpus: Cpus::read()?,
            retransmits,
        })
    }
}
