//! Looking at a ring before a sleep: whether, and for how long.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::settings::{self, Spin};
use crate::sys::call;

/// How long to look, in nanoseconds, before others are let run between two looks.
const ALONE: u64 = 5_000;
/// Looks between two looks at the clock.
const LOOKS: u32 = 64;

/// How long to look before a sleep where looks have been worth it, in nanoseconds: about twice what to fall asleep and be woken takes, so
/// that both ends of an exchange can come to find each other awake.
const GLANCE: u64 = 50_000;
/// Looks between which others are let run.
const WAYS: u32 = 16;
/// Sleeps without a look before, after one that was in vain; doubled each time.
const DOUBT_MIN: u32 = 4;
const DOUBT_MAX: u32 = 1 << 12;

/// Whether a look before a sleep is worth it. One that was in vain is followed by more and more sleeps without; each that
/// wasn't makes up for one that was.
pub(crate) struct Hope {
    /// Sleeps to go without a look.
    doubts: AtomicU32,
    /// Sleeps without, after the next look that is in vain.
    next: AtomicU32,
}

impl Hope {
    pub(crate) const fn new() -> Self {
        Self { doubts: AtomicU32::new(0), next: AtomicU32::new(DOUBT_MIN) }
    }

    /// Whether to look before this sleep: as the operator says, or where it seems worth it.
    pub(crate) fn is_wanted(&self) -> bool {
        match settings::spin() {
            Spin::Auto => self.is_due(),
            Spin::For(time) => time > 0,
        }
    }

    /// Looks for `something` before a wait of at most `limit` nanoseconds, where it [is wanted](Hope::is_wanted): for as long as the operator
    /// says, or else a short while. `beside`: it's done on this very CPU.
    pub(crate) fn look(&self, limit: u64, beside: bool, something: impl Fn() -> bool) -> bool {
        match settings::spin() {
            Spin::Auto if beside => self.learn(by_giving_way(something)),
            Spin::Auto => self.learn(peer_for(GLANCE.min(limit), something)),
            Spin::For(time) => spin_for(time.min(limit), beside, something),
        }
    }

    /// Lets others run a few times until there's `something`, if that seems worth it: who is waited for may have to run on this very CPU.
    pub(crate) fn give_way(&self, something: impl Fn() -> bool) -> bool {
        self.is_due() && self.learn(by_giving_way(something))
    }

    /// Whether to look before this sleep.
    fn is_due(&self) -> bool {
        let doubts = self.doubts.load(Ordering::Relaxed);
        if doubts > 0 {
            self.doubts.store(doubts - 1, Ordering::Relaxed);
        }
        doubts == 0
    }

    /// Notes what a look came to, and says it again.
    fn learn(&self, found: bool) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        self.doubts.store(if found { 0 } else { next }, Ordering::Relaxed);
        self.next.store(if found { next / 2 } else { next * 2 }.clamp(DOUBT_MIN, DOUBT_MAX), Ordering::Relaxed);
        found
    }
}

/// Looks for `something` a few times in a row.
fn look(mut something: impl FnMut() -> bool) -> bool {
    (0..LOOKS).any(|_| {
        let there = something();
        if !there {
            std::hint::spin_loop();
        }
        there
    })
}

/// Looks for `something` for so many nanoseconds, without letting others run.
fn peer_for(limit: u64, something: impl Fn() -> bool) -> bool {
    let began = call::now();
    loop {
        if look(&something) {
            return true;
        }
        if call::now().saturating_sub(began) > limit {
            return false;
        }
    }
}

/// Lets others run until there's `something`, a few times.
fn by_giving_way(something: impl Fn() -> bool) -> bool {
    (0..WAYS).any(|_| {
        call::give_way();
        something()
    })
}

/// Looks for `something` for so many nanoseconds. `beside`: it's done on this very CPU.
fn spin_for(limit: u64, beside: bool, something: impl Fn() -> bool) -> bool {
    let began = call::now();
    loop {
        if !beside && look(&something) {
            return true;
        }
        let looked = call::now().saturating_sub(began);
        if looked > limit {
            return false;
        }
        if beside || looked > ALONE {
            // Who is waited for may have to run on this very CPU.
            call::give_way();
            if something() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sleeps until the next look.
    fn without(hope: &Hope) -> usize {
        (0..usize::MAX).take_while(|_| !hope.is_wanted()).count()
    }

    #[test]
    fn looks_in_vain_are_fewer_and_fewer_and_one_that_is_not_brings_them_back() {
        let hope = Hope::new();
        for sleeps in [0, 4, 8, 16, 32] {
            assert_eq!(without(&hope), sleeps);
            assert!(!hope.look(0, false, || false));
        }
        assert_eq!(without(&hope), 64);
        assert!(hope.look(0, false, || true));
        assert!(hope.is_wanted() && hope.is_wanted(), "after a look that found something each sleep has one");
        assert!(!hope.look(0, false, || false));
        assert_eq!(without(&hope), 64, "it made up for one in vain");
    }

    #[test]
    fn who_shares_a_cpu_with_the_peer_lets_it_run() {
        let looked = std::cell::Cell::new(0);
        let third = || {
            looked.set(looked.get() + 1);
            looked.get() == 3
        };
        assert!(Hope::new().look(u64::MAX, true, third));
        looked.set(3);
        assert!(!Hope::new().look(u64::MAX, true, third), "it looks without end");
        assert_eq!(looked.get(), 3 + WAYS);
    }
}
