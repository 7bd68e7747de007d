//! Fairness: exchanges of 64 bytes on 100 connections while bulk connections run through the same proxy.

use anyhow::{Result, ensure};

use super::{Column, OTHERS, Sample, column};
use crate::stage::Stage;

const RR_CONNS: usize = 100;

pub(super) const COLUMNS: [Column; 5] = [
    column("p99_us", "p99 µs", 0),
    column("p50_us", "p50 µs", 0),
    column("requests_per_second", "requests/s", 0),
    column("bulk_gbytes_per_second", "bulk GB/s beside", 3),
    OTHERS,
];

pub(super) fn measure(stage: &mut Stage<'_>, bulk: usize) -> Result<Sample> {
    let neighbour = stage.client("bulk", bulk, &[])?;
    let window = super::window(stage, "rr", RR_CONNS)?;
    neighbour.finish()?;
    ensure!(window.request_rate > 0.0, "no exchange completed");
    Ok(Sample::from([
        ("p99_us", window.p99_us),
        ("p50_us", window.p50_us),
        ("requests_per_second", window.request_rate),
        ("bulk_gbytes_per_second", window.bytes_rate / 1e9),
        (OTHERS.key, window.others_cpu * 100.0),
    ]))
}
