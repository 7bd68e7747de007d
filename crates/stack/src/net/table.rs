//! Finds connections by their ends: open addressing with linear probing, reserved when it's made. What is found is a small number;
//! whether it's the one that was meant, the caller says.

use std::ops::Range;

/// An entry: the upper half of the hash, and the number plus one; zero is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    hash: u32,
    number: u32,
}

/// Numbers by hash. At most half of the places are taken, so a look takes a step or two.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Box<[Entry]>,
    len: usize,
    capacity: usize,
}

impl Table {
    /// For at most `capacity` numbers.
    pub(crate) fn with_capacity(capacity: u32) -> Self {
        let capacity = capacity as usize;
        let places = (capacity * 2).next_power_of_two();
        Self { entries: vec![Entry::default(); places].into_boxed_slice(), len: 0, capacity }
    }

    /// How many numbers it holds.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The number of this hash that `is_it` says is meant.
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (mut place, tag) = self.split(hash);
        loop {
            let entry = self.entries[place];
            let number = entry.number.checked_sub(1)?;
            if entry.hash == tag && is_it(number) {
                return Some(number);
            }
            place = (place + 1) & self.mask();
        }
    }

    /// The memory in which a hash's number is looked for first.
    pub(crate) fn memory(&self, hash: u64) -> Range<*const u8> {
        let (place, _) = self.split(hash);
        let entry = std::slice::from_ref(&self.entries[place]).as_ptr_range();
        entry.start.cast()..entry.end.cast()
    }

    /// Puts a number in, which mustn't be there.
    ///
    /// # Panics
    /// When it's full.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        assert!(self.len < self.capacity, "the table holds as many as there can be");
        let (mut place, tag) = self.split(hash);
        while self.entries[place].number != 0 {
            place = (place + 1) & self.mask();
        }
        self.entries[place] = Entry { hash: tag, number: number + 1 };
        self.len += 1;
    }

    /// Takes a number out, if it's there.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let (mut place, _) = self.split(hash);
        while self.entries[place].number != number + 1 {
            if self.entries[place].number == 0 {
                return;
            }
            place = (place + 1) & self.mask();
        }
        self.len -= 1;
        // Those behind that the gap would hide move up (Knuth, volume 3, 6.4, algorithm R).
        let mut next = place;
        loop {
            next = (next + 1) & self.mask();
            let entry = self.entries[next];
            if entry.number == 0 {
                break;
            }
            let home = self.home(entry.hash);
            if (next.wrapping_sub(home) & self.mask()) >= (next.wrapping_sub(place) & self.mask()) {
                self.entries[place] = entry;
                place = next;
            }
        }
        self.entries[place] = Entry::default();
    }

    fn mask(&self) -> usize {
        self.entries.len() - 1
    }

    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask()
    }

    fn split(&self, hash: u64) -> (usize, u32) {
        let tag = (hash >> 32) as u32;
        (self.home(tag), tag)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_model_holds(ops in prop::collection::vec((any::<bool>(), 0..24_u32), 1..200), spread in 1..9_u64) {
            let (mut table, mut model) = (Table::with_capacity(24), HashMap::new());
            for (insert, number) in ops {
                // Few hashes, so that there are collisions and runs around the end.
                let hash = (u64::from(number) % spread).wrapping_mul(61) << 32;
                if insert && model.insert(number, hash).is_none() {
                    table.insert(hash, number);
                } else if !insert && model.remove(&number).is_some() {
                    table.remove(hash, number);
                }
                prop_assert_eq!(table.len(), model.len());
                for number in 0..24 {
                    let hash = (u64::from(number) % spread).wrapping_mul(61) << 32;
                    let found = table.find(hash, |other| other == number);
                    prop_assert_eq!(found.is_some(), model.contains_key(&number));
                }
            }
        }
    }
}
