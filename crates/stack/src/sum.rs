//! Checksums of TCP, and leaving the work on them to whoever sends the packet.
//!
//! A checksum is the inverted ones' complement sum of 16-bit words (RFC 1071) of a segment and of a pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
//! Ones' complement sums may be taken in parts, in any width, and in either byte order (RFC 1071, 2), so whoever knows the addresses puts
//! the pseudo-header's sum where the checksum goes, and the rest can be summed by whoever sends: Linux's `CHECKSUM_PARTIAL`.

/// A checksum that is still to be finished: over a frame from byte `start` on, at `start + at`, where the sum of the pseudo-header stands until
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where what it covers begins.
    pub start: u16,
    /// Where it stands behind that.
    pub at: u16,
}

impl Unfinished {
    /// Finishes it.
    ///
    /// # Panics
    /// When it isn't within the frame.
    pub fn finish(self, frame: &mut [u8]) {
        let covered = &mut frame[usize::from(self.start)..];
        let checksum = !fold(sum(covered));
        let at = usize::from(self.at);
        covered[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// The sum of all words, not folded; a last byte alone has a zero behind it. Less than 16 GiB of them don't overflow.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let wide = |word: &[u8; 4]| u64::from(u32::from_ne_bytes(*word));
    words.iter().map(wide).sum::<u64>() + wide(&last)
}

/// A sum as 16 bits, in the byte order of this processor.
#[expect(clippy::cast_possible_truncation, reason = "it's folded until it fits")]
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 says it, word for word.
    fn plainly(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_rfc(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..3000)) {
            prop_assert_eq!(u16::from_be(fold(sum(&bytes))), plainly(&bytes));
        }

        #[test]
        fn what_is_finished_sums_up(
            mut frame in prop::collection::vec(any::<u8>(), 60..200),
            start in 0..20_u16,
            at in 0..10_u16,
        ) {
            let unfinished = Unfinished { start, at: at * 2 };
            let before = frame.clone();
            unfinished.finish(&mut frame);
            let place = usize::from(start + at * 2);
            prop_assert!(frame[..place] == before[..place] && frame[place + 2..] == before[place + 2..]);
            // With the checksum in place of what stood there, the sum is what stood there, inverted twice.
            let stood = u16::from_be_bytes([before[place], before[place + 1]]);
            let (now, then) = (plainly(&frame[usize::from(start)..]), !stood);
            // Zero has two forms.
            prop_assert!(now == then || (now ^ then) == u16::MAX && (now == 0 || then == 0), "{now:x} {then:x}");
        }
    }
}
