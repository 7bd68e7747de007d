//! What is counted, one copy a core and route.
//!
//! Each copy has one writer, its core, so an update is a plain load and store, never a locked instruction; readers (the admin
//! server) add up the copies. Bytes are counted as they flow, by the engine, into the two [`Meter`]s.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use midmile_engine::{Counter, Gauges, Meter, PathInfo};

use crate::reason::{End, PoolLoss, Refusal};

/// Upper bounds of the histograms of times, in microseconds; a last bucket takes the rest.
pub const TIME_BOUNDS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// A counter for each reason, at its place.
#[derive(Debug)]
pub(crate) struct ByReason<const N: usize>([Counter; N]);

impl<const N: usize> Default for ByReason<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> Deref for ByReason<N> {
    type Target = [Counter; N];

    fn deref(&self) -> &[Counter; N] {
        &self.0
    }
}

/// A histogram of times.
#[derive(Debug, Default)]
pub(crate) struct TimeCounters {
    /// Counts by bucket of [`TIME_BOUNDS_US`], not cumulative.
    pub(crate) buckets: [Counter; TIME_BOUNDS_US.len() + 1],
    /// Sum of the times, in microseconds.
    pub(crate) sum_us: Counter,
}

impl TimeCounters {
    /// Counts one time. Only the owning core may call it.
    pub(crate) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = TIME_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(TIME_BOUNDS_US.len());
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
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
    /// Those that ended before their client came, for whatever reason.
    pub(crate) early_wasted: Counter,
    /// SYNs for which no pair was opened: over a limit, or not let in.
    pub(crate) early_declined: Counter,
    /// Pairs ended, by reason.
    pub(crate) ends: ByReason<{ End::COUNT }>,
    /// Clients refused, by reason.
    pub(crate) refusals: ByReason<{ Refusal::COUNT }>,
    /// Bytes from clients to servers.
    pub(crate) upstream: Arc<Meter>,
    /// Bytes from servers to clients.
    pub(crate) downstream: Arc<Meter>,
    /// What is carried, where messages are.
    pub(crate) mux: Arc<midmile_mux::Counters>,
    /// From a client's acceptance to its established server leg.
    pub(crate) connect: TimeCounters,
    /// From a client's acceptance to the first byte from its server that was handed on.
    pub(crate) first_byte: TimeCounters,
}

/// How the way to a peer is, by the trunk connections of one core. The peer's end has figures of its own: what is sent again, and
/// how fast bytes are delivered, is known to the sender alone.
#[derive(Debug, Default)]
pub(crate) struct PathCounters {
    /// The round trip, smoothed over connections, in microseconds; 0 before the first.
    pub(crate) rtt_us: Counter,
    /// Segments with data sent on connections whose pair has ended, retransmissions among them.
    pub(crate) sent_segments: Counter,
    /// Those that were sent again.
    pub(crate) retransmitted_segments: Counter,
    /// The last delivery rate, in bytes a second; 0 before the first.
    pub(crate) delivery_rate: Counter,
    /// The best one.
    pub(crate) delivery_rate_best: Counter,
}

impl PathCounters {
    /// Takes in the figures of a connection that goes on. Only the owning core may call it.
    pub(crate) fn observe(&self, path: &PathInfo) {
        let rtt_us = u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX);
        let before = self.rtt_us.value();
        if rtt_us > 0 {
            self.rtt_us.set(if before == 0 { rtt_us } else { before - before / 8 + rtt_us / 8 });
        }
        // What was measured while there was nothing more to send says only that the way carries at least so much.
        if path.delivery_rate > 0 && (!path.delivery_rate_limited || path.delivery_rate > self.delivery_rate.value()) {
            self.delivery_rate.set(path.delivery_rate);
        }
        self.delivery_rate_best.set(self.delivery_rate_best.value().max(path.delivery_rate));
    }

    /// Takes in the figures of a connection that ends: its segments are counted once. Only the owning core may call it.
    pub(crate) fn observe_end(&self, path: &PathInfo) {
        self.observe(path);
        self.sent_segments.add(path.sent_segments);
        self.retransmitted_segments.add(path.retransmitted_segments);
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
    pub(crate) losses: ByReason<{ PoolLoss::COUNT }>,
    /// Pairs that were given another connection because theirs failed before a byte had crossed.
    pub(crate) retries: Counter,
    /// A round trip, in microseconds, as handshakes show it.
    pub(crate) rtt_us: Counter,
    /// How the way there is, once connections have shown it: those of the pool, and those that come from the peer.
    pub(crate) path: PathCounters,
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
    /// Upcalls in which the relay panicked.
    pub(crate) panics: Counter,
    /// Times that it didn't come back from an upcall for long; the watchdog counts them, and nobody else.
    pub(crate) stalls: Counter,
    /// Pair reports that found the queue to the log full.
    pub(crate) reports_lost: Counter,
    /// Orders that were carried out.
    obeyed: AtomicU64,
}

impl CoreCounters {
    /// Counts an order that was carried out: whoever sees it counted sees what came of it in the other counters. Only the owning
    /// core may call it.
    pub(crate) fn obeyed_one(&self) {
        self.obeyed.store(self.obeyed.load(Relaxed).wrapping_add(1), Release);
    }

    /// Orders that were carried out.
    pub(crate) fn obeyed(&self) -> u64 {
        self.obeyed.load(Acquire)
    }

    /// Shows what the engine says at the end of a turn. Only the owning core may call it.
    pub(crate) fn publish(&self, gauges: Gauges) {
        self.pipes.set(gauges.pipes as u64);
        self.pipes_leased.set(gauges.pipes_leased as u64);
        self.pipes_missed.set(gauges.pipes_missed);
        self.turns.set(gauges.turns);
        self.panics.set(gauges.panics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(rtt_ms: u64, delivery_rate: u64, delivery_rate_limited: bool) -> PathInfo {
        let rtt = Duration::from_millis(rtt_ms);
        PathInfo {
            rtt,
            sent_segments: 100,
            retransmitted_segments: 2,
            delivery_rate,
            delivery_rate_limited,
            ..PathInfo::default()
        }
    }

    #[test]
    fn segments_count_once_and_the_round_trip_follows_slowly() {
        let counters = PathCounters::default();
        counters.observe(&path(200, 0, false));
        assert_eq!((counters.rtt_us.value(), counters.sent_segments.value()), (200_000, 0));
        counters.observe_end(&path(280, 0, false));
        counters.observe_end(&path(0, 0, false));
        assert_eq!(counters.rtt_us.value(), 210_000);
        assert_eq!((counters.sent_segments.value(), counters.retransmitted_segments.value()), (200, 4));
    }

    #[test]
    fn a_rate_of_a_sender_without_more_counts_only_upwards() {
        let counters = PathCounters::default();
        let shown = |rate, limited| {
            counters.observe(&path(1, rate, limited));
            (counters.delivery_rate.value(), counters.delivery_rate_best.value())
        };
        assert_eq!(shown(500, true), (500, 500));
        assert_eq!(shown(100, true), (500, 500));
        assert_eq!(shown(300, false), (300, 500));
        assert_eq!(shown(0, false), (300, 500));
        assert_eq!(shown(900, true), (900, 900));
    }

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let times = TimeCounters::default();
        for us in [0, 50, 51, 5_000_000, 5_000_001] {
            times.observe(Duration::from_micros(us));
        }
        let counts = times.buckets.each_ref().map(Counter::value);
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 1, 1, 1));
        assert_eq!(times.sum_us.value(), 10_000_102);
    }
}
