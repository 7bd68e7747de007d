//! Chance from a seed: the same seed, the same packets lost.

use std::time::Duration;

/// A generator of numbers (`SplitMix64`: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(crate) struct Seeded {
    state: u64,
}

impl Seeded {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number, each as likely as the others.
    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether something happens that does with this probability.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// A duration from zero to `most`.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.share())
    }

    /// A number from 0 to 1, never 1 itself.
    fn share(&mut self) -> f64 {
        // 32 bits are enough for chances, and go into a float without loss.
        let high = u32::try_from(self.next() >> 32).expect("a 64-bit number has 32 bits above the 32nd");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}
