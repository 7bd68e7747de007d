//! Clients by where they're from, counted for all cores together without a lock.
//!
//! It is a count-min sketch (Cormode and Muthukrishnan, 2005): a hash whose key nobody else knows gives each origin a counter in each of
//! four rows. Others may share one of them, so a counter is never too low; and that all four are too high, and somebody is refused for others' sake,
//! takes strangers at the bound in each: with 1,000 addresses at the bound it happens to one address in 100,000.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::client::Origin;

const ROWS: usize = 4;
/// Bits of a hash that choose a row's counter.
const ROW_BITS: u32 = 14;

/// The clients of a service by their addresses, for all cores that serve it. Takes 256 KiB once a bound is set.
#[derive(Debug, Default)]
pub struct Census {
    hasher: RandomState,
    counters: OnceLock<Box<[AtomicU32]>>,
}

impl Census {
    /// Counts one in, unless `bound` are there. Of several who come at the same instant for the last place, all may be refused; never are too many
    /// let in.
    pub(crate) fn enter(&self, origin: Origin, bound: u32) -> bool {
        let counters = self.of(origin);
        for counter in counters {
            counter.fetch_add(1, SeqCst);
        }
        // Looked at only now: whoever is the last to have added sees all the others in each row.
        let there = counters.iter().map(|counter| counter.load(SeqCst)).min().expect("rows");
        if there > bound {
            self.leave(origin);
        }
        there <= bound
    }

    /// Counts one out that had been let in.
    pub(crate) fn leave(&self, origin: Origin) {
        for counter in self.of(origin) {
            counter.fetch_sub(1, SeqCst);
        }
    }

    fn of(&self, origin: Origin) -> [&AtomicU32; ROWS] {
        let counters = self.counters.get_or_init(|| (0..ROWS << ROW_BITS).map(|_| AtomicU32::new(0)).collect());
        let hash = self.hasher.hash_one(origin);
        let mut places = hash;
        std::array::from_fn(|row| {
            let place = places & ((1 << ROW_BITS) - 1);
            places >>= ROW_BITS;
            &counters[row << ROW_BITS | usize::try_from(place).expect("few bits")]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread;

    use midmile_engine::Addr;

    use super::*;

    fn origin(host: u32) -> Origin {
        Origin::of(&Addr::Inet((std::net::Ipv4Addr::from_bits(host), 53).into())).expect("an address")
    }

    #[test]
    fn each_address_has_its_own_bound() {
        let census = Census::default();
        for host in 0..1000 {
            assert!(census.enter(origin(host), 2) && census.enter(origin(host), 2));
        }
        assert!((0..1000).all(|host| !census.enter(origin(host), 2)), "one more than the bound");
        (0..1000).for_each(|host| census.leave(origin(host)));
        assert!((0..1000).all(|host| census.enter(origin(host), 2)), "those who left made no room");
    }

    #[test]
    fn whoever_was_refused_takes_no_room() {
        let census = Census::default();
        assert!(census.enter(origin(1), 1) && !census.enter(origin(1), 1) && !census.enter(origin(1), 1));
        census.leave(origin(1));
        assert!(census.enter(origin(1), 1));
    }

    #[test]
    fn cores_never_let_in_too_many_together() {
        const BOUND: u32 = 3;
        let (census, there) = (Census::default(), AtomicU32::new(0));
        let entered = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if census.enter(origin(7), BOUND) {
                            assert!(there.fetch_add(1, SeqCst) < BOUND, "too many are there");
                            entered.fetch_add(1, Relaxed);
                            there.fetch_sub(1, SeqCst);
                            census.leave(origin(7));
                        }
                    }
                });
            }
        });
        assert!(entered.load(Relaxed) > 0);
        assert!(census.of(origin(7)).iter().all(|counter| counter.load(Relaxed) == 0), "somebody is still counted");
    }
}
