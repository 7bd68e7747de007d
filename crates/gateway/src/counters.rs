//! What is counted, one copy a core and route.
//!
//! Each copy has one writer, its core, so an update is a plain load and store, never a locked instruction; readers (the admin
//! server) add up the copies. Bytes are counted as they flow, by the engine, into the two [`Meter`]s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use midmile_engine::{Gauges, Meter};

use crate::reason::{End, PoolLoss, Refusal};

/// Upper bounds of the accept-to-connected histogram, in microseconds; a last bucket takes the rest.
pub const CONNECT_BOUNDS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning core may call it.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away. Only the owning core may call it.
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Makes it `value`. Only the owning core may call it.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters of one route on one core.
#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    /// Pairs opened.
    pub(crate) pairs_opened: Counter,
    /// Pairs open now.
    pub(crate) pairs_open: Counter,
    /// Pairs whose server leg came to stand.
    pub(crate) connected: Counter,
    /// Dials begun again on another backend or address after one failed.
    pub(crate) dial_retries: Counter,
    /// Pairs opened at their client's SYN.
    pub(crate) early_dials: Counter,
    /// Those whose client came.
    pub(crate) early_used: Counter,
    /// SYNs for which no pair was opened: over a limit, or not let in.
    pub(crate) early_declined: Counter,
    /// Pairs ended, by reason.
    pub(crate) ends: [Counter; End::COUNT],
    /// Clients refused, by reason.
    pub(crate) refusals: [Counter; Refusal::COUNT],
    /// Bytes from clients to servers.
    pub(crate) upstream: Arc<Meter>,
    /// Bytes from servers to clients.
    pub(crate) downstream: Arc<Meter>,
    /// Accept-to-connected histogram: counts by bucket, not cumulative.
    pub(crate) connect_buckets: [Counter; CONNECT_BOUNDS_US.len() + 1],
    /// Sum of accept-to-connected times, in microseconds.
    pub(crate) connect_sum_us: Counter,
}

impl RouteCounters {
    /// Counts one accept-to-connected time.
    pub(crate) fn observe_connect(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = CONNECT_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(CONNECT_BOUNDS_US.len());
        self.connect_buckets[bucket].add(1);
        self.connect_sum_us.add(us);
    }
}

/// Counters of the pool to one peer on one core.
#[derive(Debug, Default)]
pub(crate) struct PeerCounters {
    /// Connections that wait ready now.
    pub(crate) ready: Counter,
    /// Connections being made now.
    pub(crate) under_way: Counter,
    /// Pairs that took one.
    pub(crate) taken: Counter,
    /// Pairs that found none ready, and waited.
    pub(crate) missed: Counter,
    /// Dials begun.
    pub(crate) dials: Counter,
    /// Dials and handshakes that failed, by [`PoolLoss`].
    pub(crate) losses: [Counter; PoolLoss::COUNT],
    /// Pairs that were given another connection because theirs failed before a byte had crossed.
    pub(crate) retries: Counter,
    /// A round trip, in microseconds, as handshakes show it.
    pub(crate) rtt_us: Counter,
}

/// Figures of one core, whatever the route.
#[derive(Debug, Default)]
pub(crate) struct CoreCounters {
    /// Pipes that exist now, leased or ready.
    pub(crate) pipes: Counter,
    /// Pipes that hold bytes now.
    pub(crate) pipes_leased: Counter,
    /// Times a bulk direction found no pipe and was copied.
    pub(crate) pipes_missed: Counter,
    /// Turns of the loop.
    pub(crate) turns: Counter,
    /// Pair reports that found the queue to the log full.
    pub(crate) reports_lost: Counter,
}

impl CoreCounters {
    /// Shows what the engine says at the end of a turn. Only the owning core may call it.
    pub(crate) fn publish(&self, gauges: Gauges) {
        self.pipes.set(gauges.pipes as u64);
        self.pipes_leased.set(gauges.pipes_leased as u64);
        self.pipes_missed.set(gauges.pipes_missed);
        self.turns.set(gauges.turns);
    }
}
