//! A window of measurement: what happened between two looks at all counters.

use std::time::Duration;

use anyhow::Result;

use super::link::SERVER_CPU;
use super::stage::Stage;
use crate::cpus::LOAD_CPU;
use crate::launch::LoadProcess;
use crate::load::Counters;
use crate::measure::cpus::Cpus;
use crate::measure::{cpu, network, perf};

/// Rates over a window.
pub(crate) struct Window {
    /// Exchanges a second that the client completed.
    pub(crate) request_rate: f64,
    /// The client's failed connections.
    pub(crate) errors: f64,
    /// Median latency in µs.
    pub(crate) p50_us: f64,
    /// 99th percentile in µs.
    pub(crate) p99_us: f64,
    /// 99.9th percentile in µs.
    pub(crate) p999_us: f64,
    /// CPU seconds a second of the server: its process, and the kernel's threads that work on its packets.
    pub(crate) server_cpu: f64,
    /// The process's part of it.
    pub(crate) process_cpu: f64,
    /// Cycles in a second of the server's CPU, where they can be counted.
    pub(crate) clock: Option<f64>,
    /// CPU seconds a second of the server's CPU, the hog's among them; below 1 the server had nothing to do at times.
    pub(crate) server_core: f64,
    /// CPU seconds a second of the client's CPU; near 1 means that the load is the limit.
    pub(crate) load_core: f64,
    /// CPU seconds a second of programs that have nothing to do with the measurement.
    pub(crate) others_cpu: f64,
    /// TCP segments sent again in both namespaces.
    pub(crate) retransmits: f64,
}

/// What it took until every connection was served.
pub(crate) struct Served {
    /// The client, whose connections stay.
    pub(crate) client: LoadProcess,
    /// By the client's clock, from its first connection on.
    pub(crate) served_seconds: f64,
    /// CPU seconds of the server meanwhile.
    pub(crate) server_cpu: f64,
    /// As in [`Window`].
    pub(crate) load_core: f64,
    /// As in [`Window`].
    pub(crate) others_cpu: f64,
    /// As in [`Window`].
    pub(crate) retransmits: f64,
}

/// All counters but the client's own at one time.
struct Totals {
    process: f64,
    kernel: f64,
    retransmits: u64,
    cpus: Cpus,
}

impl Window {
    /// Measures for a while what `client` gets done.
    pub(crate) fn measure(stage: &mut Stage<'_>, client: &mut LoadProcess) -> Result<Self> {
        let (load_before, before) = (client.mark()?, Totals::read(stage, client)?);
        let timing = stage.timing;
        let cycles = perf::core_cycles_per_second(SERVER_CPU, timing.window, timing.cycles);
        let (load, after) = (client.mark()?, Totals::read(stage, client)?);
        stage.check_alive()?;
        Ok(Self {
            clock: cycles.map(|cycles| cycles / after.cpus.busy_since(&before.cpus, SERVER_CPU)),
            ..between(&load_before, &before, &load, &after)
        })
    }

    /// Opens `conns` connections and measures until each was served once.
    pub(crate) fn until_served(stage: &mut Stage<'_>, conns: usize, patience: Duration) -> Result<Served> {
        let before = Totals::of_server(stage)?;
        let mut client = stage.asker(conns, true)?;
        let load = client.mark_until(|counters| counters.served_ns > 0, patience)?;
        let after = Totals::read(stage, &client)?;
        Ok(Served {
            client,
            served_seconds: load.served_ns as f64 / 1e9,
            server_cpu: after.server() - before.server(),
            load_core: after.cpus.busy_since(&before.cpus, LOAD_CPU),
            others_cpu: after.cpus.others_since(&before.cpus),
            retransmits: after.retransmits.saturating_sub(before.retransmits) as f64,
        })
    }
}

fn between(load_before: &Counters, before: &Totals, load: &Counters, after: &Totals) -> Window {
    let cpus = &after.cpus;
    let seconds = cpus.seconds_since(&before.cpus);
    Window {
        request_rate: load.request_rate_since(load_before),
        errors: load.errors_since(load_before),
        p50_us: load.p50_ns as f64 / 1e3,
        p99_us: load.p99_ns as f64 / 1e3,
        p999_us: load.p999_ns as f64 / 1e3,
        server_cpu: (after.server() - before.server()) / seconds,
        process_cpu: (after.process - before.process) / seconds,
        clock: None,
        server_core: cpus.busy_since(&before.cpus, SERVER_CPU),
        load_core: cpus.busy_since(&before.cpus, LOAD_CPU),
        others_cpu: cpus.others_since(&before.cpus),
        retransmits: after.retransmits.saturating_sub(before.retransmits) as f64,
    }
}

impl Totals {
    fn read(stage: &Stage<'_>, client: &LoadProcess) -> Result<Self> {
        let mut totals = Self::of_server(stage)?;
        totals.retransmits += network::retransmitted_segments(client.group())?;
        Ok(totals)
    }

    fn of_server(stage: &Stage<'_>) -> Result<Self> {
        let group = stage.server.group();
        Ok(Self {
            process: cpu::group_seconds(group)?,
            kernel: cpu::threads_seconds(&stage.link.server_threads),
            retransmits: network::retransmitted_segments(group)?,
            cpus: Cpus::read()?,
        })
    }

    fn server(&self) -> f64 {
        self.process + self.kernel
    }
}
