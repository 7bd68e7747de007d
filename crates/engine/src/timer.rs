//! A hierarchical timing wheel (Varghese and Lauck, 1987, scheme 7): one deadline a slot of the connection table, set and
//! cleared in constant time, without allocation.
//!
//! Five levels of 64 slots; a tick is a millisecond, so level 0 spans 64 ms and the top level twelve days. A deadline sits at
//! the level of the highest digit (base 64) in which it differs from the time reached, and moves down as that digit is reached.

const LEVELS: usize = 5;
const DIGIT_BITS: usize = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// Farthest deadline from the time reached, in milliseconds; later ones are held back to it and fire early. One slot of the top
/// level short of a full round, so that a list that is due is never mistaken for one that is a round ahead.
const HORIZON_MS: u64 = ((SLOTS as u64 - 1) << (DIGIT_BITS * (LEVELS - 1))) - 1;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    previous: u32,
    deadline_ms: u64,
    /// Which list it is in: `level * SLOTS + slot`, or `NONE`.
    list: u32,
}

impl Node {
    const IDLE: Self = Self { next: NONE, previous: NONE, deadline_ms: 0, list: NONE };
}

/// Deadlines by entry, where an entry is a small dense number.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    reached_ms: u64,
}

impl Wheel {
    /// No deadlines; entries are below `capacity`, for which the room is reserved.
    #[must_use]
    pub fn with_capacity(capacity: u32) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity as usize),
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            reached_ms: 0,
        }
    }

    /// Sets the entry's deadline, in place of the one it had. A deadline that has passed fires at the next [`Wheel::expire`].
    pub fn set(&mut self, entry: u32, deadline_ms: u64) {
        self.clear(entry);
        let wanted = entry as usize + 1;
        if self.nodes.len() < wanted {
            self.nodes.resize(wanted, Node::IDLE);
        }
        self.link(entry, deadline_ms.clamp(self.reached_ms, self.reached_ms + HORIZON_MS));
    }

    /// Takes the entry's deadline away, if it has one.
    pub fn clear(&mut self, entry: u32) {
        let Some(node) = self.nodes.get(entry as usize).copied() else { return };
        if node.list == NONE {
            return;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
        if node.previous == NONE {
            self.heads[node.list as usize] = node.next;
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        self.nodes[entry as usize] = Node::IDLE;
        let list = node.list as usize;
        if self.heads[list] == NONE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    /// When [`Wheel::expire`] should next be called: never later than the first deadline, `None` if there is none.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.next_list().map(|(_, at_ms)| at_ms)
    }

    /// Takes one entry whose deadline is at or before `now_ms`; call it until it answers `None`.
    pub fn expire(&mut self, now_ms: u64) -> Option<u32> {
        while let Some((list, at_ms)) = self.next_list() {
            if at_ms > now_ms {
                break;
            }
            self.reached_ms = self.reached_ms.max(at_ms);
            let entry = self.heads[list];
            let deadline_ms = self.nodes[entry as usize].deadline_ms;
            self.clear(entry);
            if deadline_ms <= self.reached_ms {
                return Some(entry);
            }
            self.link(entry, deadline_ms);
        }
        self.reached_ms = self.reached_ms.max(now_ms);
        None
    }

    /// The list that is due first, and when: its deadline at level 0, the moment to look into it above.
    fn next_list(&self) -> Option<(usize, u64)> {
        (0..LEVELS).filter_map(|level| self.next_list_at(level)).min_by_key(|(_, at_ms)| *at_ms)
    }

    fn next_list_at(&self, level: usize) -> Option<(usize, u64)> {
        let occupied = self.occupied[level];
        if occupied == 0 {
            return None;
        }
        let shift = DIGIT_BITS * level;
        let current = (self.reached_ms >> shift) % SLOTS as u64;
        // Slots behind the current one are those of the next round.
        let ahead = u64::from(occupied.rotate_right(u32::try_from(current).expect("below 64")).trailing_zeros());
        let slot = (current + ahead) % SLOTS as u64;
        let start_ms = ((self.reached_ms >> shift) + ahead) << shift;
        let list = level * SLOTS + usize::try_from(slot).expect("below 64");
        Some((list, start_ms.max(self.reached_ms)))
    }

    fn link(&mut self, entry: u32, deadline_ms: u64) {
        let differing = (self.reached_ms ^ deadline_ms) | (SLOTS as u64 - 1);
        let level = (differing.ilog2() as usize / DIGIT_BITS).min(LEVELS - 1);
        let slot = usize::try_from((deadline_ms >> (DIGIT_BITS * level)) % SLOTS as u64).expect("below 64");
        let list = level * SLOTS + slot;
        let head = self.heads[list];
        if head != NONE {
            self.nodes[head as usize].previous = entry;
        }
        let list_number = u32::try_from(list).expect("few lists");
        self.nodes[entry as usize] = Node { next: head, previous: NONE, deadline_ms, list: list_number };
        self.heads[list] = entry;
        self.occupied[level] |= 1 << slot;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Set(u32, u64),
        Clear(u32),
        Pass(u64),
        Sleep,
    }

    fn op() -> impl Strategy<Value = Op> {
        let wait = prop_oneof![0..70_u64, 0..5_000_u64, 0..400_000_u64, 0..HORIZON_MS + 10];
        prop_oneof![
            (0..20_u32, wait.clone()).prop_map(|(entry, wait)| Op::Set(entry, wait)),
            (0..20_u32).prop_map(Op::Clear),
            wait.prop_map(Op::Pass),
            Just(Op::Sleep),
        ]
    }

    fn expired(wheel: &mut Wheel, model: &mut BTreeMap<u32, u64>, now: u64) {
        let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.expire(now)).collect();
        fired.sort_unstable();
        let due: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(entry, _)| *entry).collect();
        assert_eq!(fired, due);
        model.retain(|_, at| *at > now);
    }

    proptest! {
        #[test]
        fn fires_exactly_what_is_due_and_never_oversleeps(ops in prop::collection::vec(op(), 1..80)) {
            let (mut wheel, mut model, mut now) = (Wheel::with_capacity(20), BTreeMap::new(), 0_u64);
            for op in ops {
                match op {
                    Op::Set(entry, wait) => {
                        wheel.set(entry, now + wait);
                        model.insert(entry, now + wait.min(HORIZON_MS));
                    }
                    Op::Clear(entry) => {
                        wheel.clear(entry);
                        model.remove(&entry);
                    }
                    Op::Pass(wait) => {
                        now += wait;
                        expired(&mut wheel, &mut model, now);
                    }
                    Op::Sleep => if let Some(next) = wheel.next_ms() {
                        let first = model.values().min().copied();
                        prop_assert!(first.is_some_and(|first| next <= first), "{next} {first:?}");
                        now = now.max(next);
                        expired(&mut wheel, &mut model, now);
                    } else {
                        prop_assert!(model.is_empty());
                    },
                }
            }
        }
    }

    #[test]
    fn a_far_deadline_wakes_the_loop_a_few_times_only() {
        let mut wheel = Wheel::with_capacity(1);
        wheel.set(0, 3_600_000);
        let (mut wakes, mut fired) = (0, None);
        while fired.is_none() {
            fired = wheel.expire(wheel.next_ms().unwrap());
            wakes += 1;
        }
        assert!(wakes <= LEVELS, "{wakes}");
    }
}
