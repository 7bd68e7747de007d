//! A window of measurement: what happened between two looks at all counters.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::launch::LoadProcess;
use crate::load::Counters;
use crate::measure::{cpu, network, perf};
use crate::netns::{LOAD_CPU, PROXY_CPU};
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
    others: f64,
    idle: Vec<f64>,
    retransmits: u64,
    at: Instant,
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
        let seconds = (after.at - before.at).as_secs_f64();
        let client_seconds = after.client.seconds - before.client.seconds;
        let server_seconds = after.server.seconds - before.server.seconds;
        let proxy = before.proxy.zip(after.proxy);
        let idle = before.idle.iter().zip(&after.idle);
        let busy: Vec<f64> = idle.map(|(before, after)| (1.0 - (after - before) / seconds).clamp(0.0, 1.0)).collect();
        Self {
            bytes_rate: since(before.server.bytes, after.server.bytes) / server_seconds,
            request_rate: since(before.client.requests, after.client.requests) / client_seconds,
            errors: since(before.client.errors, after.client.errors),
            p50_us: after.client.p50_ns as f64 / 1e3,
            p99_us: after.client.p99_ns as f64 / 1e3,
            proxy_cpu: proxy.map(|(before, after)| (after - before) / seconds),
            others_cpu: (after.others - before.others) / seconds,
            system_cpu: busy.iter().sum(),
            proxy_core: busy.get(PROXY_CPU).copied().unwrap_or(f64::NAN),
            load_core: busy.get(LOAD_CPU).copied().unwrap_or(f64::NAN),
            cycles: None,
            retransmits: since(before.retransmits, after.retransmits),
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
            others: cpu::others_seconds()?,
            idle: cpu::idle_seconds()?,
            retransmits,
            at: Instant::now(),
        })
    }
}

fn since(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64
}
