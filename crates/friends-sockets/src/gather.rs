//! Gathering: who only receives, in small pieces, leaves the sender alone for a moment before it looks for more.
//!
//! The words that both look at, and the bytes just written, cross from CPU to CPU. A receiver that takes each small piece as it comes has the sender pay
//! for that with each; one that looks again a little later finds many for the same price. It rests longer while it finds
//! little, and less where it finds much; where it finds nothing, it's no stream, and the receiver stops.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::sys::call;

/// Receives in a row that found nothing at first, without a send between them, after which what comes is taken for a stream.
const HEARD_MIN: u8 = 8;
/// In what rests are counted, in nanoseconds; the first and the longest.
const REST_UNIT: u64 = 40;
const REST_FIRST: u8 = 13;
const REST_MAX: u8 = 200;
/// What a rest is to bring, in bytes.
const LITTLE: usize = 16 << 10;
const MUCH: usize = 48 << 10;
/// Looks at the clock are so many pauses apart.
const PAUSES: u32 = 8;

/// How an end gathers what comes in. Two bytes: with more an end takes more room than the look at a descriptor can reckon with cheaply.
pub(crate) struct Gathering {
    /// Receives of little that found nothing at first, since this end last sent.
    heard: AtomicU8,
    /// How long it rests; 0: not.
    rest: AtomicU8,
}

impl Gathering {
    pub(crate) const fn new() -> Self {
        Self { heard: AtomicU8::new(0), rest: AtomicU8::new(0) }
    }

    /// This end sends.
    pub(crate) fn stop(&self) {
        if self.heard.load(Relaxed) > 0 {
            self.heard.store(0, Relaxed);
            self.rest.store(0, Relaxed);
        }
    }

    /// So much was received by one call.
    pub(crate) fn received(&self, count: usize) {
        if count >= LITTLE && self.rest.load(Relaxed) == 0 {
            self.stop();
        }
    }

    /// A receive found nothing: rests, if it's worth it.
    pub(crate) fn rest(&self, available: impl Fn() -> usize) {
        let (heard, rest) = (self.heard.load(Relaxed), self.rest.load(Relaxed));
        if heard < HEARD_MIN {
            return self.heard.store(heard + 1, Relaxed);
        }
        let rest = rest.max(REST_FIRST);
        let began = call::now();
        while call::now().saturating_sub(began) < u64::from(rest) * REST_UNIT {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
        }
        match available() {
            0 => self.stop(),
            1..LITTLE => self.rest.store(rest.saturating_mul(2).min(REST_MAX), Relaxed),
            LITTLE..=MUCH => self.rest.store(rest, Relaxed),
            _ if rest == REST_FIRST => self.stop(),
            _ => self.rest.store(rest / 2, Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives so often nothing at first.
    fn rests(gathering: &Gathering, times: u8, found: usize) -> u8 {
        (0..times).for_each(|_| gathering.rest(|| found));
        gathering.rest.load(Relaxed)
    }

    #[test]
    fn who_receives_little_again_and_again_rests_longer_and_longer() {
        let gathering = Gathering::new();
        assert_eq!(rests(&gathering, HEARD_MIN, 256), 0);
        assert_eq!(rests(&gathering, 1, 256), 2 * REST_FIRST);
        assert_eq!(rests(&gathering, 9, 256), REST_MAX);
        assert_eq!(rests(&gathering, 1, MUCH + 1), REST_MAX / 2);
        assert_eq!(rests(&gathering, 5, LITTLE), REST_MAX / 2);
    }

    #[test]
    fn who_sends_or_finds_nothing_or_receives_much_at_once_rests_no_more() {
        let gathering = Gathering::new();
        let begins = || assert!(rests(&gathering, HEARD_MIN + 1, 256) > 0);
        begins();
        gathering.stop();
        assert_eq!(rests(&gathering, HEARD_MIN, 256), 0, "it has sent");
        assert!(rests(&gathering, 1, 256) > 0);
        assert_eq!(rests(&gathering, 1, 0), 0, "nothing came");
        assert_eq!(rests(&gathering, HEARD_MIN, 256), 0);
        gathering.received(LITTLE);
        assert_eq!(rests(&gathering, HEARD_MIN, 256), 0, "much came by itself");
        begins();
        gathering.received(LITTLE);
        assert!(rests(&gathering, 1, LITTLE) > 0, "what a rest brought stops it");
    }
}
