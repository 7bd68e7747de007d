//! Request/response: exchanges of 64 bytes, one outstanding a connection.

use anyhow::{Result, ensure};

use super::{Column, LOAD_CORE, OTHERS, RETRANSMITS, Sample, column, sample};
use crate::stage::Stage;
use crate::window::Window;

pub(super) const COLUMNS: [Column; 10] = [
    column("requests_per_second", "requests/s", 0),
    column("requests_per_core_second", "requests/s per proxy core", 0),
    column("p50_us", "p50 µs", 0),
    column("p99_us", "p99 µs", 0),
    column("cycles_per_request", "cycles/request, system", 0),
    column("system_cpu_us_per_request", "system CPU µs/request", 2),
    column("proxy_cpu_us_per_request", "proxy CPU µs/request", 2),
    LOAD_CORE,
    OTHERS,
    RETRANSMITS,
];

pub(super) fn measure(stage: &mut Stage<'_>, conns: usize) -> Result<Sample> {
    let window = super::window(stage, "rr", conns)?;
    ensure!(window.request_rate > 0.0, "no exchange completed");
    Ok(values(&window))
}

/// A window's values as exchanges.
pub(super) fn values(window: &Window) -> Sample {
    let rate = window.request_rate;
    sample([
        ("requests_per_second", Some(rate)),
        ("requests_per_core_second", Some(rate / window.proxy_core)),
        ("p50_us", Some(window.p50_us)),
        ("p99_us", Some(window.p99_us)),
        ("cycles_per_request", window.cycles.map(|cycles| cycles / rate)),
        ("system_cpu_us_per_request", Some(window.system_cpu / rate * 1e6)),
        ("proxy_cpu_us_per_request", window.proxy_cpu.map(|cpu| cpu / rate * 1e6)),
        ("load_core_percent", Some(window.load_core * 100.0)),
        (OTHERS.key, Some(window.others_cpu * 100.0)),
        ("retransmits", Some(window.retransmits)),
    ])
}
