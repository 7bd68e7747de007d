//! Latencies in a histogram of fixed size, with buckets narrower than 1 % of their value.

use std::time::Duration;

/// Buckets in each power of two.
const SUB_BUCKETS_LOG2: u32 = 7;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKETS_LOG2;
/// Powers of two above the first exact buckets, up to 2^63 ns.
const OCTAVES: u64 = 57;
const BUCKETS: usize = 7424;
const _: () = assert!(BUCKETS as u64 == SUB_BUCKETS * (OCTAVES + 1));

/// Counts of latencies; recording does not allocate.
pub(super) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
}

impl Histogram {
    /// An empty histogram.
    pub(super) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), total: 0 }
    }

    /// Adds one latency.
    pub(super) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.total += 1;
    }

    /// The latency in nanoseconds that `percent` of all do not exceed, to the width of a bucket.
    pub(super) fn percentile_ns(&self, percent: u64) -> u64 {
        self.per_mille_ns(percent * 10)
    }

    /// The same for thousandths.
    pub(super) fn per_mille_ns(&self, per_mille: u64) -> u64 {
        let wanted = (self.total * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (index, &count) in (0_u64..).zip(&self.counts) {
            seen += count;
            if count > 0 && seen >= wanted {
                return floor_ns(index);
            }
        }
        0
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }
}

/// Values below [`SUB_BUCKETS`] have a bucket each; above, every power of two has [`SUB_BUCKETS`] of them.
fn bucket(ns: u64) -> usize {
    let octave = (ns | (SUB_BUCKETS - 1)).ilog2() + 1 - SUB_BUCKETS_LOG2;
    let index = if octave == 0 { ns } else { u64::from(octave) * SUB_BUCKETS + (ns >> (octave - 1)) - SUB_BUCKETS };
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The smallest value of a bucket.
fn floor_ns(index: u64) -> u64 {
    let octave = index / SUB_BUCKETS;
    if octave == 0 { index } else { (index % SUB_BUCKETS + SUB_BUCKETS) << (octave - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_floor_and_is_narrow() {
        for shift in 0..62 {
            for ns in [1_u64 << shift, (1 << shift) + 1, (3 << shift) / 2, (2 << shift) - 1] {
                let floor = floor_ns(u64::try_from(bucket(ns)).unwrap());
                assert!(floor <= ns && ns - floor <= ns / SUB_BUCKETS, "{ns} in a bucket from {floor}");
            }
        }
    }

    #[test]
    fn percentiles_of_a_ramp() {
        let mut histogram = Histogram::new();
        (1..=100).for_each(|us| histogram.record(Duration::from_micros(us)));
        assert!((49_500..=50_000).contains(&histogram.percentile_ns(50)));
        assert!((98_000..=99_000).contains(&histogram.percentile_ns(99)));
        assert!((99_000..=100_000).contains(&histogram.per_mille_ns(999)));
        histogram.clear();
        assert_eq!(histogram.percentile_ns(99), 0);
    }
}
