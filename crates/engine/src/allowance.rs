//! A bound that cores share, without a lock and almost without meeting.
//!
//! Each core has a magazine: tickets that it has drawn from the common store and not used yet. It takes from there and gives back
//! there, on a cache line of its own; only when the magazine runs empty or over does it go to the store, for a batch. When
//! the store is empty too it takes what lies in the others' magazines. So all tickets can be used by one core, whatever the
//! others did before.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Tickets that a core draws at once, at most.
const BATCH_MAX: u32 = 64;

/// A number on cache lines of its own (two, for processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Magazine(AtomicU32);

/// A number of tickets that cores share: for connections, pairs, or whatever else is bounded for all of them together.
///
/// It only counts; nothing is published by it, so whoever may hold a ticket of another core's says so by other means.
#[derive(Debug)]
pub struct Allowance {
    /// Invariant: what is here, in the magazines and in use is `max` together.
    store: Magazine,
    magazines: Box<[Magazine]>,
    max: u32,
    batch: u32,
}

impl Allowance {
    /// `max` tickets for `cores` cores.
    #[must_use]
    pub fn new(max: u32, cores: u16) -> Self {
        let cores = cores.max(1);
        Self {
            store: Magazine(AtomicU32::new(max)),
            magazines: (0..cores).map(|_| Magazine::default()).collect(),
            max,
            // Most of them stay in the store.
            batch: (max / (8 * u32::from(cores))).clamp(1, BATCH_MAX),
        }
    }

    /// All tickets there are.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// The cores that share them.
    #[must_use]
    pub fn cores(&self) -> u16 {
        u16::try_from(self.magazines.len()).expect("it came from a u16")
    }

    /// Takes a ticket for `core`; false when all are in use. One that another core is giving back just now may be missed.
    ///
    /// # Panics
    /// When there's no such core.
    #[must_use]
    pub fn take(&self, core: u16) -> bool {
        let own = &self.magazines[usize::from(core)];
        own.take(1) || self.draw(own) || self.magazines.iter().any(|other| other.take(1))
    }

    /// Gives a ticket back on `core`, which needn't be the core that took it.
    ///
    /// # Panics
    /// When there's no such core.
    pub fn give(&self, core: u16) {
        let own = &self.magazines[usize::from(core)];
        let before = own.0.fetch_add(1, Relaxed);
        if before >= 2 * self.batch && own.take(self.batch) {
            self.store.0.fetch_add(self.batch, Relaxed);
        }
    }

    /// Tickets that aren't in use, as far as one can tell while others take and give.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.magazines.iter().fold(self.store.0.load(Relaxed), |sum, magazine| sum + magazine.0.load(Relaxed))
    }

    /// Draws a batch from the store, of which one ticket is the caller's.
    #[cold]
    fn draw(&self, own: &Magazine) -> bool {
        let drawn = self.store.0.try_update(Relaxed, Relaxed, |left| (left > 0).then(|| left - left.min(self.batch)));
        let Ok(before) = drawn else { return false };
        own.0.fetch_add(before.min(self.batch) - 1, Relaxed);
        true
    }
}

impl Magazine {
    fn take(&self, count: u32) -> bool {
        self.0.try_update(Relaxed, Relaxed, |here| here.checked_sub(count)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_core_may_have_all_whatever_lies_with_the_others() {
        for (max, cores) in [(1, 4), (7, 3), (1000, 2), (100_000, 16)] {
            let allowance = Allowance::new(max, cores);
            // Each has used some and given them back.
            for core in 0..cores {
                let taken = (0..200).filter(|_| allowance.take(core)).count();
                (0..taken).for_each(|_| allowance.give(core));
            }
            assert_eq!(allowance.left(), max);
            assert!((0..max).all(|_| allowance.take(0)), "{max} among {cores}");
            assert!((0..cores).all(|core| !allowance.take(core)));
            assert_eq!(allowance.left(), 0);
        }
    }

    #[test]
    fn no_core_takes_one_too_many_and_none_is_lost() {
        const CORES: u16 = 4;
        for max in [1, 3, 50, 1000] {
            let allowance = Allowance::new(max, CORES);
            let (in_use, over) = (AtomicU32::new(0), AtomicBool::new(false));
            thread::scope(|scope| {
                for core in 0..CORES {
                    let (allowance, in_use, over) = (&allowance, &in_use, &over);
                    scope.spawn(move || {
                        let mut held = 0_u32;
                        let mut state = u64::from(core) + 1;
                        for _ in 0..40_000 {
                            state =
                                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                            if state >> 63 == 0 && allowance.take(core) {
                                held += 1;
                                if in_use.fetch_add(1, SeqCst) >= max {
                                    over.store(true, Relaxed);
                                }
                            } else if held > 0 {
                                held -= 1;
                                // Before it is given back: whoever gets it then counts it again.
                                in_use.fetch_sub(1, SeqCst);
                                // Some by another than took them, as after a hand-over.
                                allowance.give(if state >> 60 == 15 { (core + 1) % CORES } else { core });
                            }
                        }
                        in_use.fetch_sub(held, SeqCst);
                        (0..held).for_each(|_| allowance.give(core));
                    });
                }
            });
            assert!(!over.into_inner(), "more than {max} were in use");
            assert_eq!(allowance.left(), max);
        }
    }

    proptest! {
        #[test]
        fn it_counts_as_one_number_would(
            max in 0_u32..300,
            cores in 1_u16..5,
            ops in prop::collection::vec((any::<bool>(), 0_u16..5), 0..2000),
        ) {
            let allowance = Allowance::new(max, cores);
            let mut in_use = 0;
            for (takes, core) in ops {
                let core = core % cores;
                if takes {
                    prop_assert_eq!(allowance.take(core), in_use < max);
                    in_use = (in_use + 1).min(max);
                } else if in_use > 0 {
                    allowance.give(core);
                    in_use -= 1;
                }
                prop_assert_eq!(allowance.left(), max - in_use);
            }
        }
    }
}
