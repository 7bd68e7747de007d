//! How many datagrams may be out to a backend at once: a burst that its socket has no room for would be lost in silence.
//!
//! The window widens while all of it is used and answered, and is halved where a datagram has no answer soon, once for all that were out
//! then: as TCP's does (RFC 5681), by counts in place of bytes.

use midmile_engine::Time;

/// What may be out at first: two cores' fit the buffer that Linux gives a socket (212,992 bytes, 768 of them for a short query).
const FIRST: usize = 128;
/// What may be out at least.
const LEAST: usize = 64;
/// All of a window's answers widen it by one part in so many.
const GROWTH: usize = 8;

/// A window of datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    width: usize,
    /// Answers since it was last widened.
    answers: usize,
    /// When it was last halved: what was sent before doesn't do so again.
    halved: Time,
}

impl Window {
    pub(crate) const FIRST: Self = Self { width: FIRST, answers: 0, halved: Time::ZERO };

    /// Whether one more may go out.
    pub(crate) const fn has_room(&self, out: usize) -> bool {
        out < self.width
    }

    /// An answer has come while so many were out.
    pub(crate) const fn handle_answer(&mut self, out: usize) {
        // What isn't used says nothing of how much is too much.
        self.answers += if out * 2 >= self.width { 1 } else { 0 };
        if self.answers >= self.width {
            (self.width, self.answers) = (self.width + self.width / GROWTH, 0);
        }
    }

    /// What was sent then had no answer soon.
    pub(crate) fn handle_loss(&mut self, sent_at: Time, now: Time) {
        if sent_at >= self.halved {
            (self.width, self.answers, self.halved) = (LEAST.max(self.width / 2), 0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_widens_as_it_is_used_and_is_halved_once_for_a_loss() {
        let at = |nanos| Time::from_nanos(nanos);
        let mut window = Window::FIRST;
        (0..1000).for_each(|_| window.handle_answer(10));
        assert!(window.has_room(127) && !window.has_room(128), "it widened unused");
        (0..128).for_each(|_| window.handle_answer(100));
        assert!(window.has_room(143) && !window.has_room(144));
        window.handle_loss(at(5), at(10));
        window.handle_loss(at(6), at(11));
        assert!(window.has_room(71) && !window.has_room(72), "one loss is counted twice");
        window.handle_loss(at(10), at(20));
        assert!(window.has_room(63) && !window.has_room(64));
    }
}
