//! Bulk: bytes a second from client to server, and what they cost.

use anyhow::{Result, ensure};

use super::{Column, LOAD_CORE, OTHERS, RETRANSMITS, Sample, column, sample};
use crate::stage::Stage;

pub(super) const COLUMNS: [Column; 8] = [
    column("gbytes_per_second", "GB/s", 3),
    column("gbytes_per_core_second", "GB/s per proxy core", 3),
    column("cycles_per_byte", "cycles/B, system", 2),
    column("system_cpu_s_per_gb", "system CPU s/GB", 3),
    column("proxy_cpu_s_per_gb", "proxy CPU s/GB", 3),
    LOAD_CORE,
    OTHERS,
    RETRANSMITS,
];

pub(super) fn measure(stage: &mut Stage<'_>, conns: usize) -> Result<Sample> {
    let window = super::window(stage, "bulk", conns)?;
    let rate = window.bytes_rate;
    ensure!(rate > 0.0, "no byte arrived");
    Ok(sample([
        ("gbytes_per_second", Some(rate / 1e9)),
        ("gbytes_per_core_second", Some(rate / 1e9 / window.proxy_core)),
        ("cycles_per_byte", window.cycles.map(|cycles| cycles / rate)),
        ("system_cpu_s_per_gb", Some(window.system_cpu / rate * 1e9)),
        ("proxy_cpu_s_per_gb", window.proxy_cpu.map(|cpu| cpu / rate * 1e9)),
        ("load_core_percent", Some(window.load_core * 100.0)),
        (OTHERS.key, Some(window.others_cpu * 100.0)),
        ("retransmits", Some(window.retransmits)),
    ]))
}
