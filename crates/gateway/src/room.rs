//! Room for pairs: bounds that the cores share, so that one of them may use all of it.

use std::sync::Arc;

use midmile_engine::{Allowance, Key, Slab};

use crate::pair::Pair;

/// A core's part in a bound that all share.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    allowance: Arc<Allowance>,
    core: u16,
}

impl Room {
    pub(crate) const fn new(allowance: Arc<Allowance>, core: u16) -> Self {
        Self { allowance, core }
    }

    /// Whether there's none left, as far as one can tell while other cores take and give.
    pub(crate) fn is_full(&self) -> bool {
        self.allowance.left() == 0
    }

    #[must_use]
    pub(crate) fn take(&self) -> bool {
        self.allowance.take(self.core)
    }

    pub(crate) fn give(&self) {
        self.allowance.give(self.core);
    }

    /// All that there is, for all cores.
    pub(crate) fn max(&self) -> u32 {
        self.allowance.max()
    }
}

/// The pairs of a core, within the bound on those of the process.
#[derive(Debug)]
pub(crate) struct Pairs {
    table: Slab<Pair>,
    /// Invariant: one taken for each pair in the table, and for each client whose messages are carried.
    room: Room,
}

impl Pairs {
    /// No pairs; the room for as many as the process may have is reserved, and touched as it fills.
    pub(crate) fn new(room: Room) -> Self {
        Self { table: Slab::with_capacity(room.max()), room }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.room.is_full()
    }

    /// As many as the process may have.
    pub(crate) fn max(&self) -> u32 {
        self.room.max()
    }

    /// Puts a pair in. `None` when the process holds as many as it may.
    pub(crate) fn insert(&mut self, pair: Pair) -> Option<Key> {
        self.reserve().then(|| self.insert_reserved(pair))
    }

    /// Takes room for a pair, which [`Pairs::insert_reserved`] uses, or for a client whose messages are carried, which has no pair.
    #[must_use]
    pub(crate) fn reserve(&self) -> bool {
        self.room.take()
    }

    /// Puts a pair in for which room was taken.
    ///
    /// # Panics
    /// When there was none.
    pub(crate) fn insert_reserved(&mut self, pair: Pair) -> Key {
        self.table.insert(pair).expect("the table has room for as many as the bound lets in")
    }

    /// Gives room back that was taken for a pair.
    pub(crate) fn unreserve(&self) {
        self.room.give();
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Pair> {
        let pair = self.table.remove(key)?;
        self.room.give();
        Some(pair)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Pair> {
        self.table.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Pair> {
        self.table.get_mut(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.table.keys()
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) const fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use midmile_engine::{Addr, Time};

    use super::*;
    use crate::pair::State;

    #[test]
    fn one_core_may_hold_all_pairs_of_the_process() {
        let allowance = Arc::new(Allowance::new(10, 2));
        let mut cores = [0, 1].map(|core| Pairs::new(Room::new(allowance.clone(), core)));
        let pair = || Pair::new(Key::NONE, Addr::Inet(([127, 0, 0, 1], 1).into()), State::Dialling, Time::ZERO);
        // What the one has used before doesn't stay with it.
        for key in (0..10).map(|_| cores[0].insert(pair()).unwrap()).collect::<Vec<_>>() {
            cores[0].remove(key).unwrap();
        }
        let keys: Vec<Key> = (0..10).map(|_| cores[1].insert(pair()).unwrap()).collect();
        assert!(cores.iter().all(Pairs::is_full));
        assert!(cores.iter_mut().all(|core| core.insert(pair()).is_none()));
        assert!(cores[1].remove(keys[0]).is_some() && cores[1].remove(keys[0]).is_none());
        assert!(cores[0].insert(pair()).is_some() && cores[0].is_full());
    }
}
