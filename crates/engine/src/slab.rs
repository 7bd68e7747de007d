//! Slots that are found by a handle with a generation: a handle outlived by its slot finds nothing.

use std::ops::Range;

/// A handle. Inert once what it named is gone, even when the slot has been taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    /// A handle that never names anything.
    pub const NONE: Self = Self { slot: u32::MAX, generation: 0 };

    /// The place of the slot: small and dense, so that it can index a table beside the slab.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// The handle as one word of 61 bits; the three highest are free for the caller's use.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The handle that [`Key::to_bits`] made the word of. Any other word names nothing, or something that lives.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word are taken apart")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[derive(Debug)]
enum Entry<T> {
    Free { next: u32 },
    Full(T),
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Entry<T>,
}

/// A table of at most `capacity` values. The room is reserved when it is made and touched as it fills, so neither inserting nor
/// removing allocates.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
    capacity: usize,
}

const NO_SLOT: u32 = u32::MAX;

/// Generations stay below 2^29: the top bit of a tag is the engine's own, and a program may want to tell eight kinds apart.
const GENERATION_MASK: u32 = u32::MAX >> 3;

impl<T> Slab<T> {
    /// An empty table for at most `capacity` values.
    #[must_use]
    pub fn with_capacity(capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self { slots: Vec::with_capacity(capacity), free: NO_SLOT, len: 0, capacity }
    }

    /// How many values it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds as many as it can.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Puts `value` in; gives it back when full.
    ///
    /// # Errors
    /// The value, when the table is full.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.is_full() {
            return Err(value);
        }
        let slot = if self.free == NO_SLOT {
            self.slots.push(Slot { generation: 0, entry: Entry::Free { next: NO_SLOT } });
            u32::try_from(self.slots.len() - 1).expect("capacity came from a u32")
        } else {
            self.free
        };
        let place = &mut self.slots[slot as usize];
        if let Entry::Free { next } = place.entry {
            self.free = next;
        }
        place.entry = Entry::Full(value);
        self.len += 1;
        Ok(Key { slot, generation: place.generation })
    }

    /// Takes the value named by `key` out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let value = self.lift(key)?;
        self.vacate(key);
        Some(value)
    }

    /// Takes the value out and keeps its place: [`Slab::put_back`] or [`Slab::vacate`] follows. The handle finds nothing meanwhile.
    pub(crate) fn lift(&mut self, key: Key) -> Option<T> {
        let place = self.slots.get_mut(key.slot as usize)?;
        if place.generation != key.generation || matches!(place.entry, Entry::Free { .. }) {
            return None;
        }
        match std::mem::replace(&mut place.entry, Entry::Free { next: NO_SLOT }) {
            Entry::Full(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }

    /// Puts a lifted value back.
    pub(crate) fn put_back(&mut self, key: Key, value: T) {
        self.slots[key.slot as usize].entry = Entry::Full(value);
    }

    /// Gives the place of a lifted value up.
    pub(crate) fn vacate(&mut self, key: Key) {
        let place = &mut self.slots[key.slot as usize];
        place.generation = place.generation.wrapping_add(1) & GENERATION_MASK;
        place.entry = Entry::Free { next: self.free };
        self.free = key.slot;
        self.len -= 1;
    }

    /// The memory in which the value at a place lies, if it was ever used: whoever will look there soon may have it fetched into the
    /// processor's caches.
    #[must_use]
    pub fn memory(&self, slot: u32) -> Option<Range<*const u8>> {
        let place = std::slice::from_ref(self.slots.get(slot as usize)?).as_ptr_range();
        Some(place.start.cast()..place.end.cast())
    }

    /// The value named by `key`.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.slot as usize)? {
            Slot { generation, entry: Entry::Full(value) } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The value named by `key`, to change.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.slot as usize)? {
            Slot { generation, entry: Entry::Full(value) } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Two different values, to change both.
    pub fn pair_mut(&mut self, a: Key, b: Key) -> Option<(&mut T, &mut T)> {
        match self.slots.get_disjoint_mut([a.slot as usize, b.slot as usize]).ok()? {
            [
                Slot { generation: of_a, entry: Entry::Full(value_a) },
                Slot { generation: of_b, entry: Entry::Full(value_b) },
            ] if *of_a == a.generation && *of_b == b.generation => Some((value_a, value_b)),
            _ => None,
        }
    }

    /// The handle of the value in `slot`.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        match self.slots.get(slot as usize)? {
            Slot { generation, entry: Entry::Full(_) } => Some(Key { slot, generation: *generation }),
            Slot { .. } => None,
        }
    }

    /// The handles of all values, in the order of their slots.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        (0..).zip(&self.slots).filter_map(|(slot, place)| match place.entry {
            Entry::Full(_) => Some(Key { slot, generation: place.generation }),
            Entry::Free { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_where_a_value_lies() {
        let mut slab = Slab::with_capacity(2);
        let keys = [1_u64, 2].map(|value| slab.insert(value).unwrap());
        for key in keys {
            let at = std::ptr::from_ref(slab.get(key).unwrap()).cast();
            assert!(slab.memory(key.slot()).unwrap().contains(&at));
        }
        assert_eq!(slab.memory(2), None);
    }

    #[test]
    fn a_handle_outlived_by_its_slot_finds_nothing() {
        let mut slab = Slab::with_capacity(2);
        let a = slab.insert('a').unwrap();
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b').unwrap();
        assert_eq!(a.slot(), b.slot());
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&'b')));
        assert_eq!(slab.remove(a), None);
        assert_eq!(Key::from_bits(b.to_bits()), b);
    }

    #[test]
    fn a_handle_leaves_the_three_highest_bits_of_its_word_free() {
        let mut slab = Slab::with_capacity(1);
        let first = slab.insert('a').unwrap();
        slab.slots[0].generation = GENERATION_MASK;
        let last = slab.key_at(0).unwrap();
        assert_eq!((last.to_bits() >> 61, Key::from_bits(last.to_bits())), (0, last));
        assert_eq!(slab.remove(last), Some('a'));
        assert_eq!(slab.insert('b'), Ok(first), "generations begin anew");
    }

    #[test]
    fn a_full_table_gives_the_value_back_and_never_grows() {
        let mut slab = Slab::with_capacity(2);
        let room = slab.slots.capacity();
        let keys = ['a', 'b'].map(|value| slab.insert(value).unwrap());
        assert_eq!(slab.insert('c'), Err('c'));
        assert_eq!(slab.remove(keys[0]), Some('a'));
        assert!(slab.insert('d').is_ok());
        assert_eq!(slab.slots.capacity(), room);
        assert_eq!(slab.keys().count(), 2);
    }

    #[test]
    fn a_pair_needs_two_live_and_different_handles() {
        let mut slab = Slab::with_capacity(2);
        let [a, b] = ['a', 'b'].map(|value| slab.insert(value).unwrap());
        assert_eq!(slab.pair_mut(b, a), Some((&mut 'b', &mut 'a')));
        assert_eq!(slab.pair_mut(a, a), None);
        slab.remove(b);
        assert_eq!(slab.pair_mut(a, b), None);
        assert_eq!(slab.get(Key::NONE), None);
    }
}
