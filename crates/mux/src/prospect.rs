//! How long the answers will be that are waited for, as those of late were.

/// Bytes that an answer is taken to have where nothing is known: DNS has no longer ones.
const UNKNOWN: usize = 64 * 1024;
/// An answer is taken to have as many at least where it's for a client that has had none. So a new client has 129 requests under way at
/// most until it has answers, and if all of those are of the longest that's little more than 8 MiB, half of the smallest arena.
const FIRST_LEAST: usize = 8 * 1024;
/// With each shorter answer the longest fades by one part in so many: of a client's own, and of a service's, which are many clients'.
const FADES_OF_CLIENT: usize = 8;
const FADES_OF_SERVICE: usize = 64;

/// Bytes that each of the next answers is taken to have: as many as the longest of late had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prospect {
    expected: usize,
    fades: usize,
}

impl Prospect {
    /// Of a service that has answered nothing.
    pub(crate) const OF_SERVICE: Self = Self { expected: UNKNOWN, fades: FADES_OF_SERVICE };

    /// Of a client that comes to a service with this one, and whose answers may have up to `message_max` bytes.
    pub(crate) fn of_client(self, message_max: u32) -> Self {
        let expected = self.expected.max(FIRST_LEAST).min(message_max as usize);
        Self { expected, fades: FADES_OF_CLIENT }
    }

    /// Notes how long an answer is. Shorter ones than were expected count little by little: long ones may come between them.
    pub(crate) fn note(&mut self, len: usize) {
        self.expected = len.max(self.expected - self.expected / self.fades);
    }

    /// Bytes of so many answers.
    pub(crate) fn of(self, answers: u16) -> usize {
        self.expected.saturating_mul(usize::from(answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_count_at_once_and_short_ones_little_by_little() {
        let mut service = Prospect::OF_SERVICE;
        assert_eq!(service.of_client(1 << 20).of(3), 3 * UNKNOWN);
        assert_eq!(service.of_client(2000).of(3), 6000);
        (0..100).for_each(|_| service.note(100));
        assert!((10_000..16_000).contains(&service.of(1)), "{service:?}");
        (0..400).for_each(|_| service.note(100));
        assert!(service.of(1) < 200, "{service:?}");
        let mut client = service.of_client(1 << 20);
        assert_eq!(client.of(1), FIRST_LEAST);
        client.note(59_000);
        assert_eq!(client.of(2), 118_000);
        client.note(100);
        assert_eq!(client.of(1), 59_000 - 59_000 / 8);
    }
}
