//! Idle: memory of pairs that have exchanged one message each.

use std::time::Duration;

use anyhow::Result;

use super::{Column, Sample, column, sample};
use crate::measure::memory;
use crate::stage::Stage;

/// Time for deferred frees before the kernel's memory is read.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) const COLUMNS: [Column; 4] = [
    column("anon_bytes_per_pair", "user memory B/pair", 0),
    column("slab_bytes_per_pair", "kernel slab B/pair, client + proxy + server", 0),
    column("sockets_per_pair", "sockets/pair in the proxy's namespace", 2),
    column("pairs_per_second", "opened pairs/s", 0),
];

pub(super) fn measure(stage: &mut Stage<'_>, pairs: usize) -> Result<Sample> {
    std::thread::sleep(SETTLE);
    let before = Memory::of(stage)?;
    let mut client = stage.client("idle", pairs, &[])?;
    let opened = client.mark()?;
    std::thread::sleep(SETTLE);
    let after = Memory::of(stage)?;
    client.finish()?;
    let pairs = u32::try_from(pairs).map(f64::from)?;
    let per_pair = |before: Option<u64>, after: Option<u64>| {
        before.zip(after).map(|(before, after)| (after as f64 - before as f64) / pairs)
    };
    Ok(sample([
        ("anon_bytes_per_pair", per_pair(before.anon, after.anon)),
        ("slab_bytes_per_pair", per_pair(Some(before.slab), Some(after.slab))),
        ("sockets_per_pair", per_pair(before.sockets, after.sockets)),
        ("pairs_per_second", Some(pairs / opened.seconds)),
    ]))
}

struct Memory {
    anon: Option<u64>,
    slab: u64,
    sockets: Option<u64>,
}

impl Memory {
    fn of(stage: &Stage<'_>) -> Result<Self> {
        let group = stage.proxy.as_ref().map(crate::launch::Process::group);
        Ok(Self {
            anon: group.map(memory::group_anon_bytes).transpose()?,
            slab: memory::slab_bytes()?,
            sockets: group.map(memory::tcp_sockets).transpose()?,
        })
    }
}
