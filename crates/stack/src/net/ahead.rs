//! Fetching what the next segments will touch.
//!
//! Each segment is some other connection's, and what is kept of that one (its place in the table, what stands around its socket, the socket) was
//! touched so long ago that it's in no cache: each of the three is found by the one before, and to wait for them takes longer than
//! all the rest. So a few frames ahead of the one that is handled they are asked for, one after the other.

use super::rest::Body;
use super::{Net, packet};
use crate::link::Receive;
use crate::sys::prefetch;

/// How many frames ahead a segment's place in the table is asked for, then its connection, then its socket.
const PLACE: u32 = 4;
const FLOW: u32 = 3;
const SOCKET: u32 = 2;

/// So few connections stay in a core's cache by themselves.
const FEW: usize = 256;
/// Where the hashes of the next segments are remembered; a power of two above [`PLACE`].
const HASHES: usize = 8;

/// What is known of the next frames of a run.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    hashes: [Option<u64>; HASHES],
    /// The frame that is handled next, and how many have been looked at.
    now: u32,
    looked: u32,
}

impl Ahead {
    /// Moves on by a frame, which is taken next. Tells `seen` the hashes of frames that it sees for the first time, and answers those of
    /// the frames that are [`FLOW`] and [`SOCKET`] ahead.
    fn advance<R: Receive>(
        &mut self,
        rx: &mut R,
        hash_of: impl Fn(&[u8]) -> Option<u64>,
        seen: impl Fn(u64),
    ) -> [Option<u64>; 2] {
        let now = self.now;
        self.now += 1;
        // The next one itself is handled before anything could come of it.
        self.looked = self.looked.max(now + 1);
        while self.looked <= now + PLACE {
            let Some(frame) = rx.peek(self.looked - now) else { break };
            let hash = hash_of(frame);
            self.hashes[self.looked as usize % HASHES] = hash;
            self.looked += 1;
            hash.into_iter().for_each(&seen);
        }
        [FLOW, SOCKET]
            .map(|places| now + places)
            .map(|frame| if frame < self.looked { self.hashes[frame as usize % HASHES] } else { None })
    }
}

impl Net {
    /// Looks at the frames behind the next one, before that is taken.
    pub(crate) fn look_ahead<R: Receive>(&self, rx: &mut R, ahead: &mut Ahead) {
        if self.flows.len() <= FEW {
            return;
        }
        let [flow, socket] = ahead.advance(rx, |frame| self.hash_of(frame), |hash| prefetch(&self.table.memory(hash)));
        if let Some(hash) = flow {
            self.fetch_flow(hash);
        }
        if let Some(hash) = socket {
            self.fetch_socket(hash);
        }
    }

    fn hash_of(&self, frame: &[u8]) -> Option<u64> {
        let packet = if self.figures.address.is_some() { packet::unwrap(frame)?.1 } else { frame };
        Some(packet::parse(packet)?.tuple.hash(&self.keys))
    }

    fn fetch_flow(&self, hash: u64) {
        if let Some(memory) = self.table.find(hash, |_| true).and_then(|slot| self.flows.memory(slot)) {
            prefetch(&memory);
        }
    }

    fn fetch_socket(&self, hash: u64) {
        let flow = self.table.find(hash, |_| true).and_then(|slot| self.flow_at(slot));
        if let Some((_, flow)) = flow
            && let Body::Awake(cell) = &flow.body
            && let Some(memory) = self.arena.memory(cell)
        {
            memory.iter().for_each(prefetch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    /// Frames of a byte each.
    struct Frames(VecDeque<[u8; 1]>, [u8; 1]);

    impl Receive for Frames {
        fn next_frame(&mut self) -> Option<&[u8]> {
            self.1 = self.0.pop_front()?;
            Some(&self.1)
        }

        fn peek(&mut self, behind: u32) -> Option<&[u8]> {
            self.0.get(behind as usize).map(|frame| &frame[..])
        }
    }

    /// Each frame's hash is its number.
    fn advance(ahead: &mut Ahead, rx: &mut Frames, seen: &RefCell<Vec<u64>>) -> [Option<u64>; 2] {
        ahead.advance(rx, |frame| Some(frame[0].into()), |hash| seen.borrow_mut().push(hash))
    }

    #[test]
    fn each_frame_is_seen_once_and_fetched_in_time() {
        let mut rx = Frames((0..20).map(|number| [number]).collect(), [0]);
        let (mut ahead, seen) = (Ahead::default(), RefCell::default());
        for now in 0..20_u64 {
            let there = |places: u32| Some(now + u64::from(places)).filter(|frame| *frame < 20);
            assert_eq!(advance(&mut ahead, &mut rx, &seen), [there(FLOW), there(SOCKET)]);
            assert_eq!(rx.next_frame().map(|frame| u64::from(frame[0])), Some(now));
        }
        assert_eq!(seen.into_inner(), (1..20).collect::<Vec<_>>());
    }

    #[test]
    fn frames_that_come_late_are_never_taken_for_others() {
        let mut rx = Frames(VecDeque::new(), [0]);
        let (mut ahead, seen) = (Ahead::default(), RefCell::default());
        let mut coming = 0;
        for (now, come) in (0..40_u64).zip([1, 2, 5, 0].into_iter().cycle()) {
            for _ in 0..come {
                rx.0.push_back([coming]);
                coming += 1;
            }
            for (hash, places) in advance(&mut ahead, &mut rx, &seen).into_iter().zip([FLOW, SOCKET]) {
                assert!(hash.is_none_or(|hash| hash == now + u64::from(places)), "{hash:?} at {now}");
            }
            assert_eq!(rx.next_frame().map(|frame| u64::from(frame[0])), Some(now));
        }
        let seen = seen.into_inner();
        assert!(seen.is_sorted() && seen.len() > 30, "{seen:?}");
    }
}
