//! What the cache keeps: a log of records in a ring of fixed size, and an index to them. It allocates when it's made, and never again.
//!
//! A record is written at the head. When the head comes round, the oldest records go, so what was written first is lost first; a
//! record that is read in the older half of the ring is written again at the head. So what is lost was neither written nor read for
//! half a ring at least.

use std::hash::{BuildHasher, RandomState};

/// Records begin at multiples of it. It's the length of their header as well, so what is left of a ring always has room for one.
const GRAIN: usize = 32;
/// Smallest memory that makes sense.
pub(crate) const MEMORY_MIN: usize = 64 * 1024;

/// What a record says of itself. Positions are bytes from the ring's beginning.
#[derive(Clone, Copy, Debug)]
struct Header {
    hash: u32,
    key_len: u32,
    value_len: u32,
    /// Bytes from one header to the next.
    total: u32,
    /// In milliseconds; 0: never.
    expires_ms: u64,
    live: bool,
}

/// Why something wasn't kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooBig;

/// The cache's memory.
#[derive(Debug)]
pub(crate) struct Store {
    log: Box<[u8]>,
    /// Where the next record begins, and the oldest; they only grow, and the ring's length divides them into rounds.
    head: usize,
    tail: usize,
    /// A slot is 0, or a record's hash above its position in grains plus one. Linear probing; no more than three quarters are taken.
    index: Box<[u64]>,
    live: usize,
    evicted: u64,
    hasher: RandomState,
    scratch: Vec<u8>,
}

impl Store {
    /// An empty store of `memory` bytes, an eighth of which is the index.
    pub(crate) fn new(memory: usize) -> Self {
        let memory = memory.clamp(MEMORY_MIN, 1 << 36);
        let slots = (memory / 64).next_power_of_two();
        let log = (memory - memory / 8) / GRAIN * GRAIN;
        Self {
            log: vec![0; log].into_boxed_slice(),
            head: 0,
            tail: 0,
            index: vec![0; slots].into_boxed_slice(),
            live: 0,
            evicted: 0,
            hasher: RandomState::new(),
            scratch: Vec::with_capacity(log / 8),
        }
    }

    /// Records that are kept; some may have expired.
    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// Records that went to make room.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.index.fill(0);
        (self.head, self.tail, self.live) = (0, 0, 0);
    }

    /// The value of `key`, and when it expires (0: never).
    pub(crate) fn get(&mut self, key: &[u8], now_ms: u64) -> Option<(&[u8], u64)> {
        let mut at = self.find(key, now_ms)?;
        if self.is_old(at) {
            at = self.renew(at);
        }
        let header = self.header(at);
        Some((self.value(at, header), header.expires_ms))
    }

    /// Keeps `value` under `key`, in place of what was there.
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], expires_ms: u64, now_ms: u64) -> Result<(), TooBig> {
        let total = (GRAIN + key.len() + value.len()).next_multiple_of(GRAIN);
        let sizes = (u32::try_from(key.len()), u32::try_from(value.len()), u32::try_from(total));
        let (Ok(key_len), Ok(value_len), Ok(total_u32)) = sizes else { return Err(TooBig) };
        if total > self.log.len() / 8 {
            return Err(TooBig);
        }
        let hash = self.hash(key);
        if let Some(at) = self.find(key, now_ms) {
            let before = self.header(at);
            if total <= before.total as usize && !self.is_old(at) {
                self.write_header(at, Header { value_len, expires_ms, ..before });
                self.log[at + GRAIN + key.len()..][..value.len()].copy_from_slice(value);
                return Ok(());
            }
            self.forget(at, before);
        }
        let at = self.make_room(total);
        self.write_header(at, Header { hash, key_len, value_len, total: total_u32, expires_ms, live: true });
        self.log[at + GRAIN..][..key.len()].copy_from_slice(key);
        self.log[at + GRAIN + key.len()..][..value.len()].copy_from_slice(value);
        self.enter(hash, at);
        Ok(())
    }

    /// Has `key` expire at another time; false if it isn't there.
    pub(crate) fn expire(&mut self, key: &[u8], expires_ms: u64, now_ms: u64) -> bool {
        let Some(at) = self.find(key, now_ms) else { return false };
        let header = self.header(at);
        self.write_header(at, Header { expires_ms, ..header });
        true
    }

    /// Forgets `key`; false if it wasn't there.
    pub(crate) fn remove(&mut self, key: &[u8], now_ms: u64) -> bool {
        let Some(at) = self.find(key, now_ms) else { return false };
        self.forget(at, self.header(at));
        true
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of the hash serves")]
    fn hash(&self, key: &[u8]) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// Where the record of `key` is. One that has expired is forgotten.
    fn find(&mut self, key: &[u8], now_ms: u64) -> Option<usize> {
        let hash = self.hash(key);
        let mut slot = self.home(hash);
        loop {
            let entry = self.index[slot];
            if entry == 0 {
                return None;
            }
            if hash_of(entry) == hash {
                let (at, header) = (position_of(entry), self.header(position_of(entry)));
                if self.log[at + GRAIN..][..header.key_len as usize] == *key {
                    if header.expires_ms != 0 && header.expires_ms <= now_ms {
                        self.forget(at, header);
                        return None;
                    }
                    return Some(at);
                }
            }
            slot = self.next(slot);
        }
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.index.len() - 1)
    }

    const fn next(&self, slot: usize) -> usize {
        (slot + 1) & (self.index.len() - 1)
    }

    fn enter(&mut self, hash: u32, at: usize) {
        let mut slot = self.home(hash);
        while self.index[slot] != 0 {
            slot = self.next(slot);
        }
        self.index[slot] = u64::from(hash) << 32 | (at / GRAIN + 1) as u64;
        self.live += 1;
    }

    /// Takes the record at `at` out of the index; its place in the ring is free once the tail comes by.
    fn forget(&mut self, at: usize, header: Header) {
        self.write_header(at, Header { live: false, ..header });
        let mut gap = self.home(header.hash);
        while position_of(self.index[gap]) != at {
            gap = self.next(gap);
        }
        // What was pushed along by this one moves back (Knuth, volume 3, section 6.4, algorithm R).
        let mut slot = self.next(gap);
        while self.index[slot] != 0 {
            let home = self.home(hash_of(self.index[slot]));
            let mask = self.index.len() - 1;
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(gap) & mask {
                self.index[gap] = self.index[slot];
                gap = slot;
            }
            slot = self.next(slot);
        }
        self.index[gap] = 0;
        self.live -= 1;
    }

    /// Whether the record at `at` lies in the older half of the ring.
    fn is_old(&self, at: usize) -> bool {
        let len = self.log.len();
        (self.head % len + len - at) % len > len / 2
    }

    /// Writes the record at `at` again, at the head.
    fn renew(&mut self, at: usize) -> usize {
        let header = self.header(at);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(&self.log[at..at + header.total as usize]);
        self.forget(at, header);
        let at = self.make_room(header.total as usize);
        self.log[at..][..scratch.len()].copy_from_slice(&scratch);
        self.scratch = scratch;
        self.enter(header.hash, at);
        at
    }

    /// Takes `total` bytes at the head, for which the oldest records go.
    fn make_room(&mut self, total: usize) -> usize {
        let len = self.log.len();
        let to_end = len - self.head % len;
        let filler = if total > to_end { to_end } else { 0 };
        let full = self.index.len() / 4 * 3;
        while self.head + filler + total - self.tail > len || self.live >= full {
            let (at, header) = (self.tail % len, self.header(self.tail % len));
            if header.live {
                self.forget(at, header);
                self.evicted += 1;
            }
            self.tail += header.total as usize;
        }
        if filler > 0 {
            let total = u32::try_from(filler)
                .expect("a filler is shorter than a record, which is an eighth of the log at most");
            let nothing = Header { hash: 0, key_len: 0, value_len: 0, total, expires_ms: 0, live: false };
            self.write_header(self.head % len, nothing);
            self.head += filler;
        }
        let at = self.head % len;
        self.head += total;
        at
    }

    fn header(&self, at: usize) -> Header {
        let word = |place: usize| {
            let bytes = &self.log[at + 4 * place..][..4];
            u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
        };
        Header {
            hash: word(0),
            key_len: word(1),
            value_len: word(2),
            total: word(3),
            expires_ms: u64::from(word(4)) << 32 | u64::from(word(5)),
            live: word(6) == 1,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a number is taken apart")]
    fn write_header(&mut self, at: usize, header: Header) {
        let Header { hash, key_len, value_len, total, expires_ms, live } = header;
        let (high, low) = ((expires_ms >> 32) as u32, expires_ms as u32);
        let words = [hash, key_len, value_len, total, high, low, u32::from(live), 0];
        for (room, word) in self.log[at..at + GRAIN].chunks_exact_mut(4).zip(words) {
            room.copy_from_slice(&word.to_ne_bytes());
        }
    }

    fn value(&self, at: usize, header: Header) -> &[u8] {
        &self.log[at + GRAIN + header.key_len as usize..][..header.value_len as usize]
    }
}

const fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

/// `usize::MAX` of an empty slot.
#[expect(clippy::cast_possible_truncation, reason = "a number is taken apart")]
const fn position_of(entry: u64) -> usize {
    match entry as u32 {
        0 => usize::MAX,
        grains => (grains as usize - 1) * GRAIN,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_is_kept_is_what_was_set() {
        let mut store = Store::new(MEMORY_MIN);
        let mut known: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let mut state = 1_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = usize::try_from(state >> 33).unwrap();
            let key = format!("key{}", random % 997).into_bytes();
            match random / 1000 % 4 {
                0 => {
                    assert!(store.remove(&key, 0) <= known.contains_key(&key));
                    known.remove(&key);
                }
                1 | 2 => {
                    let value = vec![(random % 251).to_le_bytes()[0]; random / 7 % 300];
                    store.set(&key, &value, 0, 0).unwrap();
                    known.insert(key.clone(), value);
                }
                _ => {}
            }
            // It may have been evicted, and is never another.
            match (store.get(&key, 0), known.get(&key)) {
                (Some((value, _)), Some(expected)) => assert_eq!(value, expected),
                (Some(_), None) => panic!("a removed key is found"),
                (None, Some(_)) => drop(known.remove(&key)),
                (None, None) => {}
            }
        }
        assert!(store.evicted() > 0);
        let found = known.keys().filter(|key| store.find(key, 0).is_some()).count();
        assert_eq!(found, store.len());
    }

    #[test]
    fn what_is_read_stays_and_what_is_not_goes() {
        let mut store = Store::new(MEMORY_MIN);
        store.set(b"read", b"1", 0, 0).unwrap();
        store.set(b"idle", b"1", 0, 0).unwrap();
        for number in 0..10_000_u32 {
            store.set(&number.to_le_bytes(), &[0; 50], 0, 0).unwrap();
            assert!(store.get(b"read", 0).is_some(), "after {number}");
        }
        assert!(store.get(b"idle", 0).is_none());
    }

    #[test]
    fn what_expires_is_gone_and_what_is_too_big_is_refused() {
        let mut store = Store::new(MEMORY_MIN);
        store.set(b"a", b"1", 100, 0).unwrap();
        assert_eq!(store.get(b"a", 99), Some((&b"1"[..], 100)));
        assert_eq!(store.get(b"a", 100), None);
        assert_eq!(store.len(), 0);
        assert_eq!(store.set(b"b", &vec![0; MEMORY_MIN], 0, 0), Err(TooBig));
        store.set(b"b", b"1", 0, 0).unwrap();
        store.clear();
        assert_eq!(store.get(b"b", 0), None);
        assert_eq!(store.len(), 0);
    }
}
