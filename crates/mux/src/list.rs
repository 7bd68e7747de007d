//! Lists of requests, linked through a table beside theirs: joining one, leaving one from anywhere, and nothing allocated.

const NONE: u32 = u32::MAX;

/// The links of all slots. A slot is in one list of these links at most.
#[derive(Debug)]
pub(crate) struct Links {
    /// Before and after each slot.
    of: Vec<[u32; 2]>,
}

/// A list, oldest first.
#[derive(Debug)]
pub(crate) struct List {
    ends: [u32; 2],
    len: usize,
}

impl List {
    pub(crate) const EMPTY: Self = Self { ends: [NONE; 2], len: 0 };

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first slot.
    pub(crate) fn front(&self) -> Option<u32> {
        Some(self.ends[0]).filter(|slot| *slot != NONE)
    }
}

impl Links {
    pub(crate) fn with_capacity(slots: u32) -> Self {
        Self { of: Vec::with_capacity(slots as usize) }
    }

    /// Joins at the end.
    pub(crate) fn push_back(&mut self, list: &mut List, slot: u32) {
        self.join(list, slot, 1);
    }

    /// Joins at the front.
    pub(crate) fn push_front(&mut self, list: &mut List, slot: u32) {
        self.join(list, slot, 0);
    }

    fn join(&mut self, list: &mut List, slot: u32, side: usize) {
        let at = slot as usize;
        if self.of.len() <= at {
            self.of.resize(at + 1, [NONE; 2]);
        }
        let neighbour = std::mem::replace(&mut list.ends[side], slot);
        self.of[at][side] = NONE;
        self.of[at][1 - side] = neighbour;
        if neighbour == NONE {
            list.ends[1 - side] = slot;
        } else {
            self.of[neighbour as usize][side] = slot;
        }
        list.len += 1;
    }

    /// Leaves the list that it's in, which is this one.
    pub(crate) fn remove(&mut self, list: &mut List, slot: u32) {
        let [before, after] = std::mem::replace(&mut self.of[slot as usize], [NONE; 2]);
        for (neighbour, beyond, side) in [(before, after, 1), (after, before, 0)] {
            if neighbour == NONE {
                list.ends[1 - side] = beyond;
            } else {
                self.of[neighbour as usize][side] = beyond;
            }
        }
        list.len -= 1;
    }

    /// The slot after `slot` in its list.
    pub(crate) fn after(&self, slot: u32) -> Option<u32> {
        Some(self.of[slot as usize][1]).filter(|next| *next != NONE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_is_a_queue_that_one_can_leave(steps in prop::collection::vec((0_u32..12, any::<bool>()), 1..100)) {
            let (mut links, mut list, mut model) = (Links::with_capacity(12), List::EMPTY, Vec::<u32>::new());
            for (slot, front) in steps {
                if let Some(place) = model.iter().position(|other| *other == slot) {
                    links.remove(&mut list, slot);
                    model.remove(place);
                } else if front {
                    links.push_front(&mut list, slot);
                    model.insert(0, slot);
                } else {
                    links.push_back(&mut list, slot);
                    model.push(slot);
                }
                let seen: Vec<u32> = std::iter::successors(list.front(), |slot| links.after(*slot)).collect();
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!((list.len(), list.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
