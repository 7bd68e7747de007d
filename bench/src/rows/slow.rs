//! Slow: a sender without limit, a reader at 1 MB/s, and a neighbour pair through the same proxy.

use anyhow::Result;

use super::{Column, OTHERS, Sample, column, sample};
use crate::measure::memory;
use crate::stage::Stage;
use crate::window::Window;

pub(super) const COLUMNS: [Column; 5] = [
    column("in_flight_mib", "in flight MiB", 2),
    column("anon_growth_kib", "proxy memory growth KiB", 0),
    column("neighbour_ratio", "neighbour's throughput, with ÷ without", 2),
    column("neighbour_gbytes_per_second", "neighbour GB/s", 3),
    OTHERS,
];

pub(super) fn measure(stage: &mut Stage<'_>) -> Result<Sample> {
    let timing = stage.timing;
    let mut neighbour = stage.client("bulk", 1, &[])?;
    stage.warm_up();
    let before = Window::measure(stage, &mut neighbour, timing.window)?;
    let anon_before = anon(stage)?;

    let mut slow = stage.client("bulk", 1, &["--purpose", "slow"])?;
    std::thread::sleep(timing.slow * 2 / 3);
    let with = Window::measure(stage, &mut neighbour, timing.slow / 3)?;
    let (sent, read) = (slow.mark()?.bytes, stage.server.mark()?.slow_bytes);
    let anon_after = anon(stage)?;
    slow.finish()?;

    // The host drifts within seconds, so "without" is the mean of before and after.
    stage.warm_up();
    let after = Window::measure(stage, &mut neighbour, timing.window)?;
    neighbour.finish()?;
    let without = (before.bytes_rate + after.bytes_rate) / 2.0;
    let growth = anon_before.zip(anon_after).map(|(before, after)| (after as f64 - before as f64) / 1024.0);
    Ok(sample([
        ("in_flight_mib", Some((sent as f64 - read as f64) / f64::from(1 << 20))),
        ("anon_growth_kib", growth),
        ("neighbour_ratio", Some(with.bytes_rate / without)),
        ("neighbour_gbytes_per_second", Some(with.bytes_rate / 1e9)),
        (OTHERS.key, Some(with.others_cpu * 100.0)),
    ]))
}

fn anon(stage: &Stage<'_>) -> Result<Option<u64>> {
    stage.proxy.as_ref().map(|proxy| memory::group_anon_bytes(proxy.group())).transpose()
}
