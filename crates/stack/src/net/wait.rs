//! TIME-WAIT (RFC 9293, 3.6.1) without a socket: what it takes to acknowledge a peer's last FIN again, and no more.
//!
//! - A segment with anything to acknowledge is answered as the socket would have answered it.
//! - A reset is ignored: it would let old segments into a later connection (RFC 1337, fix 1).
//! - A SYN whose number is beyond the last one received begins a new connection at once (RFC 9293, 3.6.1, which RFC 6191 refines for
//!   peers with timestamps; we send none).
//!
//! DEVIATION: beyond the bound the oldest is forgotten early, as Linux does (`tcp_max_tw_buckets`).

use std::time::Duration;

use midmile_engine::Time;

use super::packet::{Segment, Tuple};
use super::table::Table;

/// How long: Linux's `TCP_TIMEWAIT_LEN`.
const LENGTH: Duration = Duration::from_mins(1);

/// A connection that is over.
#[derive(Clone, Copy, Debug)]
struct Wait {
    tuple: Tuple,
    /// Our next number, and the peer's.
    seq: u32,
    ack: u32,
    until: Time,
}

/// What is to be done with a segment of a connection that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An acknowledgement with these numbers.
    Acknowledge {
        /// Its sequence number.
        seq: u32,
        /// What it acknowledges.
        ack: u32,
    },
    /// Nothing.
    Nothing,
    /// It begins a new connection; the old one is forgotten.
    Anew,
}

/// Connections in TIME-WAIT, in the order in which they end: a ring.
#[derive(Debug)]
pub(crate) struct Waits {
    ring: Vec<Option<Wait>>,
    table: Table,
    /// Where the oldest stands, and how many places after it are in use, freed ones among them.
    oldest: usize,
    used: usize,
}

impl Waits {
    pub(crate) fn with_capacity(capacity: u32) -> Self {
        Self { ring: vec![None; capacity as usize], table: Table::with_capacity(capacity), oldest: 0, used: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether this connection is among them.
    pub(crate) fn has(&self, hash: u64, tuple: &Tuple) -> bool {
        self.table.find(hash, |place| self.ring[place as usize].is_some_and(|wait| wait.tuple == *tuple)).is_some()
    }

    /// Remembers a connection whose ends have both been acknowledged. Answers whether an older one was forgotten for it.
    pub(crate) fn insert(&mut self, now: Time, hash: impl Fn(&Tuple) -> u64, tuple: Tuple, seq: u32, ack: u32) -> bool {
        let full = self.used == self.ring.len();
        let forgotten = full && self.ring[self.oldest].is_some();
        if full {
            self.drop_oldest(&hash);
        }
        let place = (self.oldest + self.used) % self.ring.len();
        self.ring[place] = Some(Wait { tuple, seq, ack, until: now.after(LENGTH) });
        self.table.insert(hash(&tuple), number(place));
        self.used += 1;
        forgotten
    }

    /// Forgets what has waited for long enough.
    pub(crate) fn expire(&mut self, now: Time, hash: impl Fn(&Tuple) -> u64) {
        while self.used > 0 && self.ring[self.oldest].is_none_or(|wait| wait.until <= now) {
            self.drop_oldest(&hash);
        }
    }

    /// What becomes of a segment; `None` if it's of none of them.
    pub(crate) fn handle(&mut self, hash: u64, segment: &Segment) -> Option<Answer> {
        let is_it = |place: u32| self.ring[place as usize].is_some_and(|wait| wait.tuple == segment.tuple);
        let place = self.table.find(hash, is_it)?;
        let wait = self.ring[place as usize]?;
        if segment.flags.rst() {
            return Some(Answer::Nothing);
        }
        if segment.flags.opens() && segment.seq.wrapping_sub(wait.ack).cast_signed() > 0 {
            self.ring[place as usize] = None;
            self.table.remove(hash, place);
            return Some(Answer::Anew);
        }
        // A bare acknowledgement of everything needs none itself.
        if segment.end() == segment.seq && segment.seq == wait.ack {
            return Some(Answer::Nothing);
        }
        Some(Answer::Acknowledge { seq: wait.seq, ack: wait.ack })
    }

    fn drop_oldest(&mut self, hash: impl Fn(&Tuple) -> u64) {
        if let Some(wait) = self.ring[self.oldest].take() {
            self.table.remove(hash(&wait.tuple), number(self.oldest));
        }
        self.oldest = (self.oldest + 1) % self.ring.len();
        self.used -= 1;
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("the capacity came from a u32")
}
