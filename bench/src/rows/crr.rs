//! Short connections: connect, 64 bytes there and back, close.

use anyhow::{Result, ensure};

use super::{Column, LOAD_CORE, OTHERS, RETRANSMITS, Sample, column, rr};
use crate::stage::Stage;

pub(super) const COLUMNS: [Column; 11] = [
    column("requests_per_second", "connections/s", 0),
    column("requests_per_core_second", "connections/s per proxy core", 0),
    column("p50_us", "p50 µs", 0),
    column("p99_us", "p99 µs", 0),
    column("errors", "errors", 0),
    column("cycles_per_request", "cycles/connection, system", 0),
    column("system_cpu_us_per_request", "system CPU µs/connection", 1),
    column("proxy_cpu_us_per_request", "proxy CPU µs/connection", 1),
    LOAD_CORE,
    OTHERS,
    RETRANSMITS,
];

pub(super) fn measure(stage: &mut Stage<'_>, conns: usize) -> Result<Sample> {
    let window = super::window(stage, "crr", conns)?;
    ensure!(window.request_rate > 0.0, "no connection completed");
    let mut sample = rr::values(&window);
    sample.insert("errors", window.errors);
    Ok(sample)
}
