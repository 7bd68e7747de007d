//! A pool that is drawn on by patterns of arrival, in milliseconds of virtual time.

use std::collections::VecDeque;

use super::*;

/// Made with a round trip of 218 ms: three of them.
const FAR_MS: u64 = 654;
/// Made on one host, under load.
const NEAR_MS: u64 = 12;

/// A pool, kept as `Pool::missing` does.
struct World {
    demand: Demand,
    now: u64,
    making_ms: u64,
    /// What each that is under way adds to that, in hundredths of a millisecond: one processor makes them all.
    crowding: u64,
    bounds: (u32, u32),
    ready: u32,
    /// When each was begun and will be ready.
    under_way: VecDeque<(u64, u64)>,
    missed: u32,
    /// Of those, who still waits.
    waiting: u32,
    most_ready: u32,
    most_under_way: u32,
}

impl World {
    fn new(making_ms: u64, bounds: (u32, u32)) -> Self {
        let under_way = VecDeque::new();
        let (now, demand) = (0, Demand::default());
        let mut world = Self {
            demand,
            now,
            making_ms,
            crowding: 0,
            bounds,
            ready: 0,
            under_way,
            missed: 0,
            waiting: 0,
            most_ready: 0,
            most_under_way: 0,
        };
        world.tend();
        (0..making_ms * 100).for_each(|_| world.pass(0));
        assert_eq!(world.ready, bounds.0);
        world
    }

    fn under_way(&self) -> u32 {
        u32::try_from(self.under_way.len()).unwrap()
    }

    fn tend(&mut self) {
        let wanted = self.demand.wanted(self.bounds.0, self.bounds.1);
        let wanted = (wanted + self.waiting).min(self.bounds.1);
        let missing = wanted.saturating_sub(self.ready + self.under_way());
        let begun = missing.min(self.demand.under_way_max().saturating_sub(self.under_way()));
        for _ in 0..begun {
            let at = self.now + self.making_ms + u64::from(self.under_way()) * self.crowding / 100;
            let before = self.under_way.back().map_or(0, |(_, at)| *at);
            self.under_way.push_back((self.now, at.max(before)));
        }
    }

    /// A millisecond in which so many come. What is made is noticed, and begun, only where nobody is `stopped`.
    fn step(&mut self, come: u32, stopped: bool) {
        self.now += 1;
        while !stopped && self.under_way.front().is_some_and(|(_, at)| *at <= self.now) {
            let (began, _) = self.under_way.pop_front().unwrap();
            self.demand.made(Duration::from_millis(self.now - began));
            if self.waiting > 0 {
                self.waiting -= 1;
            } else {
                self.ready += 1;
            }
        }
        for _ in 0..come {
            self.demand.note();
            if self.ready > 0 {
                self.ready -= 1;
            } else {
                self.missed += 1;
                self.waiting += 1;
            }
        }
        if !stopped {
            if self.now.is_multiple_of(100) {
                self.demand.tick();
                let wanted = self.demand.wanted(self.bounds.0, self.bounds.1);
                self.ready -= Demand::surplus(self.ready, wanted);
            }
            self.tend();
        }
        self.most_ready = self.most_ready.max(self.ready);
        self.most_under_way = self.most_under_way.max(self.under_way());
    }

    fn pass(&mut self, come: u32) {
        self.step(come, false);
    }

    /// Goes on for `ms`; those who come by their millisecond. Answers the misses.
    fn run(&mut self, ms: u64, come: impl Fn(u64) -> u32) -> u32 {
        let before = self.missed;
        (0..ms).for_each(|at| self.pass(come(at)));
        self.missed - before
    }
}

/// Who comes at `at` if `per_second` do on the average, each when they like.
fn by_chance(at: u64, per_second: u32) -> u32 {
    // Each thousandth of the rate comes or doesn't, by a hash of the time.
    (0..per_second / 100)
        .filter(|place| {
            let mixed = (at << 20 | u64::from(*place)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (mixed ^ mixed >> 32).is_multiple_of(10)
        })
        .count()
        .try_into()
        .unwrap()
}

#[test]
fn a_steady_load_misses_nothing_once_the_pool_has_grown() {
    for (making, bounds) in [(FAR_MS, (8, 4096)), (NEAR_MS, (8, 4096)), (NEAR_MS, (512, 4096))] {
        let mut world = World::new(making, bounds);
        world.run(5_000, |at| u32::from(at % 10 == 0) * 10);
        assert_eq!(world.run(60_000, |at| u32::from(at % 10 == 0) * 10), 0, "{making} ms");
        // A thousand a second, for the time of making and the pause, to the next tick; and half as many again.
        let come = (making + 50).div_ceil(100) * 100;
        assert!(u64::from(world.most_ready) <= (come * 3 / 2 + 50).max(u64::from(bounds.0)), "{}", world.most_ready);
    }
}

#[test]
fn a_load_by_chance_misses_nothing_once_the_pool_has_grown() {
    for (making, per_second) in [(FAR_MS, 200), (FAR_MS, 1_000), (NEAR_MS, 1_000), (NEAR_MS, 7_000)] {
        let mut world = World::new(making, (8, 4096));
        world.run(10_000, |at| by_chance(at, per_second));
        assert_eq!(world.run(60_000, |at| by_chance(at + 10_000, per_second)), 0, "{making} ms, {per_second} a second");
    }
}

#[test]
fn bursts_with_rests_between_miss_nothing_after_the_first() {
    // Two hundred within a tenth of a second, each two seconds.
    let bursts = |at: u64| if at % 2_000 < 100 { 2 } else { 0 };
    for making in [FAR_MS, NEAR_MS] {
        let mut world = World::new(making, (8, 4096));
        world.run(2_000, bursts);
        assert_eq!(world.run(58_000, bursts), 0, "{making} ms");
        assert!(world.most_ready <= 302, "{}", world.most_ready);
    }
}

#[test]
fn a_ramp_misses_little() {
    // From none to a thousand a second within half a minute.
    let ramp = |at: u64| u32::from((at * at / 60_000) > (at.saturating_sub(1).pow(2) / 60_000));
    for making in [FAR_MS, NEAR_MS] {
        let mut world = World::new(making, (64, 4096));
        assert_eq!(world.run(30_000, ramp), 0, "{making} ms");
    }
}

#[test]
fn a_pause_of_the_schedulers_misses_nothing() {
    let mut world = World::new(NEAR_MS, (8, 4096));
    world.run(10_000, |_| 7);
    let before = world.missed;
    for _ in 0..50 {
        // What came meanwhile waits, and is served at once afterwards.
        (0..49).for_each(|_| world.step(0, true));
        world.pass(7 * 50);
        world.run(450, |_| 7);
    }
    assert_eq!(world.missed - before, 0);
}

#[test]
fn a_rate_has_as_many_under_way_as_it_needs() {
    // A thousand a second that each take 654 ms to make: 64 at once would make a hundred a second.
    let mut world = World::new(FAR_MS, (8, 4096));
    world.run(30_000, |_| 1);
    assert_eq!(world.run(30_000, |_| 1), 0);
    assert!((654..=1_000).contains(&world.most_under_way), "{}", world.most_under_way);
}

#[test]
fn what_takes_long_because_much_is_under_way_asks_for_no_more() {
    // Three hundred come at once each tenth of a second, and to make that many takes the processor 60 ms.
    let mut world = World::new(2, (512, 4096));
    world.crowding = 20;
    let bursts = |at: u64| if at.is_multiple_of(100) { 300 } else { 0 };
    assert_eq!(world.run(60_000, bursts), 0);
    assert!(world.most_ready <= 512 && world.most_under_way < 200, "{}, {}", world.most_ready, world.most_under_way);
}

#[test]
fn one_that_took_long_among_many_changes_little() {
    let mut demand = Demand::default();
    for _ in 0..20 {
        for _ in 0..300 {
            demand.note();
            demand.made(Duration::from_millis(2));
        }
        demand.made(Duration::from_secs(1));
        demand.tick();
    }
    assert!((450..=460).contains(&demand.wanted(8, 4096)), "{}", demand.wanted(8, 4096));
}

#[test]
fn when_nobody_comes_any_more_the_surplus_goes_slowly_and_the_demand_is_over() {
    let mut world = World::new(NEAR_MS, (8, 4096));
    world.run(10_000, |_| 7);
    assert!(world.ready > 900, "{}", world.ready);
    world.run(2_000, |_| 0);
    assert!(world.ready > 500, "it may come again soon: {}", world.ready);
    world.run(60_000, |_| 0);
    assert!(world.demand.is_over() && world.ready == 8, "{} are left", world.ready);
}

#[test]
fn a_burst_counts_at_once() {
    let mut demand = Demand::default();
    assert_eq!(demand.wanted(8, 512), 8);
    (0..40).for_each(|_| demand.note());
    assert_eq!(demand.wanted(8, 512), 60);
}

#[test]
fn the_bounds_hold() {
    let mut demand = Demand::default();
    (0..1_000_000).for_each(|_| demand.note());
    demand.made(Duration::from_secs(1_000));
    demand.tick();
    assert_eq!(demand.wanted(8, 512), 512);
    assert!(demand.under_way_max() >= 1_000_000);
    assert_eq!(Demand::default().wanted(8, 4), 4);
}
