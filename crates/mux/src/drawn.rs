//! Ids that nobody can guess (RFC 5452, 4.5): drawn at random among those that are free.

use midmile_engine::Key;

/// Requests that may be out under drawn ids: half of all ids, so that a drawn one is mostly free and never easy to guess.
const OUT_MAX: u16 = 32_768;
/// How often an id is drawn again at most: that all of them are in use is one chance in millions.
const DRAWS_MAX: usize = 20;
/// Ids there are.
const IDS: usize = 65_536;

/// A request that is out.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// [`Key::NONE`]: the entry is free.
    request: Key,
    id: u16,
    /// The place of the socket by which it went.
    post: u8,
    /// It was seen to be of no use at the last look.
    stale: bool,
}

const FREE: Entry = Entry { request: Key::NONE, id: 0, post: 0, stale: false };

/// Requests by their ids, and by which socket each went.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// For each id one more than the place of its entry; 0: it's free.
    places: Box<[u16]>,
    entries: Box<[Entry]>,
    /// Places of free entries.
    free: Vec<u16>,
    max: usize,
}

impl Drawn {
    /// None out, and no more than `max`, or [`OUT_MAX`], ever.
    pub(crate) fn new(max: u16) -> Self {
        let max = max.min(OUT_MAX);
        Self {
            places: vec![0; IDS].into(),
            entries: vec![FREE; usize::from(max)].into(),
            free: (0..max).rev().collect(),
            max: usize::from(max),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// Takes on another bound; what is out stays.
    pub(crate) fn resize(&mut self, bound: u16) {
        let (there, bound) = (u16::try_from(self.entries.len()).expect("there are no more ids"), bound.min(OUT_MAX));
        self.max = usize::from(bound);
        if there < bound {
            let mut all = std::mem::take(&mut self.entries).into_vec();
            all.resize(self.max, FREE);
            self.entries = all.into();
            self.free.extend((there..bound).rev());
        }
    }

    /// Takes a request in that goes by a socket, under an id that `draw` gives; it's asked until one is free. `None` when full.
    pub(crate) fn insert(&mut self, request: Key, post: u8, mut draw: impl FnMut() -> u16) -> Option<u16> {
        if self.is_full() {
            return None;
        }
        let place = self.free.pop()?;
        // At most half are in use, so it's two draws on the average at worst. A source that gives one id for ever mustn't hold us up.
        let mut id = draw();
        for _ in 0..DRAWS_MAX {
            if self.places[usize::from(id)] == 0 {
                break;
            }
            id = draw();
        }
        while self.places[usize::from(id)] != 0 {
            id = id.wrapping_add(1);
        }
        self.places[usize::from(id)] = place + 1;
        self.entries[usize::from(place)] = Entry { request, id, post, stale: false };
        Some(id)
    }

    fn place(&self, id: u16) -> Option<usize> {
        usize::from(self.places[usize::from(id)]).checked_sub(1)
    }

    /// The request under an id.
    pub(crate) fn at(&self, id: u16) -> Option<Key> {
        self.place(id).map(|place| self.entries[place].request)
    }

    /// The socket by which what is out under an id went.
    pub(crate) fn post(&self, id: u16) -> Option<u8> {
        self.place(id).map(|place| self.entries[place].post)
    }

    /// Lets that under an id go. It's there.
    pub(crate) fn remove(&mut self, id: u16) {
        let place = std::mem::take(&mut self.places[usize::from(id)]) - 1;
        self.entries[usize::from(place)] = FREE;
        self.free.push(place);
    }

    /// Any of them from a place on, taken out; `None` when none is left.
    pub(crate) fn pop(&mut self, from: &mut usize) -> Option<Key> {
        loop {
            let Entry { request, id, .. } = *self.entries.get(*from)?;
            *from += 1;
            if request != Key::NONE {
                self.remove(id);
                return Some(request);
            }
        }
    }

    /// Lets those go that `is_live` denies: at once, or where an answer may still come, at the second look.
    pub(crate) fn sweep(&mut self, at_once: bool, is_live: impl Fn(Key) -> bool) {
        for place in 0..self.entries.len() {
            let entry = &mut self.entries[place];
            if entry.request != Key::NONE
                && !is_live(entry.request)
                && (std::mem::replace(&mut entry.stale, true) || at_once)
            {
                let id = entry.id;
                self.remove(id);
            }
        }
    }

    /// The places of the sockets by which they went, of each.
    pub(crate) fn posts(&self) -> impl Iterator<Item = u8> + '_ {
        self.entries.iter().filter(|entry| entry.request != Key::NONE).map(|entry| entry.post)
    }

    /// All of them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.entries.iter().map(|entry| entry.request).filter(|request| *request != Key::NONE)
    }

    /// Asserts that each request is found by its id. Ids that nothing is out under aren't looked at: there are too many.
    pub(crate) fn check(&self) {
        assert_eq!(self.keys().count(), self.len(), "a drawn id is lost, or is in use twice");
        for entry in self.entries.iter().filter(|entry| entry.request != Key::NONE) {
            assert_eq!(self.at(entry.id), Some(entry.request), "a request isn't found by its id");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use midmile_engine::Slab;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_that_is_out_is_drawn_again() {
        let mut slab = Slab::with_capacity(4);
        let keys: Vec<Key> = (0..4).map(|at| slab.insert(at).unwrap()).collect();
        let mut drawn = Drawn::new(3);
        let mut draws = [7, 7, 7, 65_535, 7, 0].into_iter();
        let mut insert = |key: Key| drawn.insert(key, 2, || draws.next().unwrap());
        assert_eq!([0, 1, 2].map(|at| insert(keys[at])), [Some(7), Some(65_535), Some(0)]);
        assert_eq!(insert(keys[3]), None, "it's full");
        assert_eq!((drawn.at(7), drawn.post(7), drawn.at(8)), (Some(keys[0]), Some(2), None));
        assert_eq!(drawn.posts().collect::<Vec<_>>(), [2; 3]);
    }

    #[test]
    fn a_bound_can_be_another_while_some_are_out() {
        let mut slab = Slab::with_capacity(8);
        let mut drawn = Drawn::new(1);
        let mut insert = |drawn: &mut Drawn, id| drawn.insert(slab.insert(()).unwrap(), 0, || id);
        assert_eq!([insert(&mut drawn, 5), insert(&mut drawn, 6)], [Some(5), None]);
        drawn.resize(3);
        assert_eq!([insert(&mut drawn, 6), insert(&mut drawn, 7), insert(&mut drawn, 8)], [Some(6), Some(7), None]);
        drawn.resize(1);
        drawn.remove(6);
        assert_eq!((insert(&mut drawn, 9), drawn.len()), (None, 2));
        drawn.check();
    }

    #[test]
    fn a_source_that_repeats_itself_ends_all_the_same() {
        let mut slab = Slab::with_capacity(4);
        let mut drawn = Drawn::new(4);
        let ids = [(); 4].map(|()| drawn.insert(slab.insert(()).unwrap(), 0, || u16::MAX));
        assert_eq!(ids, [Some(u16::MAX), Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn what_is_of_no_use_goes_at_the_second_look() {
        let mut slab = Slab::with_capacity(2);
        let keys: Vec<Key> = (0..2).map(|at| slab.insert(at).unwrap()).collect();
        let mut drawn = Drawn::new(2);
        let mut next = 0;
        keys.iter().for_each(|key| {
            assert!(
                drawn
                    .insert(*key, 0, || {
                        next += 1;
                        next
                    })
                    .is_some()
            )
        });
        drawn.sweep(false, |key| key == keys[0]);
        assert_eq!(drawn.len(), 2);
        drawn.sweep(false, |key| key == keys[0]);
        assert_eq!(drawn.keys().collect::<Vec<_>>(), [keys[0]]);
        drawn.sweep(true, |_| false);
        assert_eq!(drawn.len(), 0);
    }

    proptest! {
        #[test]
        fn ids_are_a_map(steps in prop::collection::vec((0_u16..20, any::<bool>()), 1..200)) {
            let mut slab = Slab::with_capacity(1000);
            let (mut drawn, mut model) = (Drawn::new(8), BTreeMap::new());
            for (id, inserts) in steps {
                if inserts && !model.contains_key(&id) {
                    let key = slab.insert(()).unwrap();
                    prop_assert_eq!(drawn.insert(key, 0, || id), (model.len() < 8).then_some(id));
                    if model.len() < 8 {
                        model.insert(id, key);
                    }
                } else if !inserts && model.remove(&id).is_some() {
                    drawn.remove(id);
                }
                drawn.check();
                prop_assert_eq!(drawn.len(), model.len());
                prop_assert_eq!(drawn.is_full(), model.len() == 8);
                prop_assert!((0..20).all(|id| drawn.at(id) == model.get(&id).copied()));
            }
            let (mut from, mut left) = (0, Vec::new());
            while let Some(key) = drawn.pop(&mut from) {
                left.push(key);
            }
            prop_assert_eq!((left.len(), drawn.len()), (model.len(), 0));
            prop_assert!(drawn.places.iter().all(|place| *place == 0), "an id is lost");
            prop_assert!(left.iter().all(|key| model.values().any(|other| other == key)));
        }
    }
}
