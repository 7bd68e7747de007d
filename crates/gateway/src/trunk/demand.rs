//! How many connections of a pool should wait ready: as many as come while one is made, and half as many again.

use std::time::Duration;

/// How often the rate is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Takes a tick are kept in 1/256.
const UNIT: u64 = 256;
/// What the newest tick counts for, of 1: a quarter.
const NEWEST_SHARE: u64 = 4;
/// Round trips that make a connection: the TCP handshake and the two of the proof.
const ROUND_TRIPS: u32 = 3;
/// Time that it takes beside the round trips.
const SLACK: Duration = Duration::from_millis(20);

/// The rate at which a pool is drawn on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    /// Taken since the last tick.
    taken: u64,
    /// Takes a tick, smoothed, in units of 1/256.
    smoothed: u64,
}

impl Demand {
    /// One was asked for.
    pub(crate) const fn note(&mut self) {
        self.taken += 1;
    }

    /// A tick has passed.
    pub(crate) const fn tick(&mut self) {
        self.smoothed = self.smoothed - self.smoothed / NEWEST_SHARE + self.taken * UNIT / NEWEST_SHARE;
        self.taken = 0;
    }

    /// Nobody has come for a while.
    pub(crate) const fn is_over(&self) -> bool {
        self.taken == 0 && self.smoothed < NEWEST_SHARE
    }

    /// Connections that should wait ready where a round trip takes `rtt`: between `min` and `max`. A burst counts at once, not
    /// only from the next tick on.
    pub(crate) fn wanted(&self, rtt: Duration, min: u32, max: u32) -> u32 {
        let per_tick = self.smoothed.max(self.taken * UNIT);
        let making = (rtt * ROUND_TRIPS + SLACK).as_micros();
        let come = u128::from(per_tick) * making / (u128::from(UNIT) * TICK.as_micros());
        u32::try_from(come * 3 / 2).unwrap_or(u32::MAX).clamp(min.min(max), max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(218);

    #[test]
    fn a_steady_rate_is_met_with_half_as_many_again() {
        let mut demand = Demand::default();
        for _ in 0..50 {
            (0..10).for_each(|_| demand.note());
            demand.tick();
        }
        // A hundred a second, for the 0.674 s that one takes to make: 67.
        let wanted = demand.wanted(RTT, 8, 512);
        assert!((95..=105).contains(&wanted), "{wanted}");
    }

    #[test]
    fn a_burst_counts_at_once_and_is_forgotten() {
        let mut demand = Demand::default();
        assert_eq!(demand.wanted(RTT, 8, 512), 8);
        (0..40).for_each(|_| demand.note());
        assert!(demand.wanted(RTT, 8, 512) > 300);
        let mut ticks = 0;
        while !demand.is_over() {
            demand.tick();
            ticks += 1;
        }
        assert!(ticks < 40, "{ticks}");
        assert_eq!(demand.wanted(RTT, 8, 512), 8);
    }

    #[test]
    fn the_bounds_hold() {
        let mut demand = Demand::default();
        (0..1_000_000).for_each(|_| demand.note());
        assert_eq!(demand.wanted(Duration::from_secs(1), 8, 512), 512);
        assert_eq!(Demand::default().wanted(RTT, 8, 4), 4);
    }
}
