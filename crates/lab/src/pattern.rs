//! The bytes that are sent: each place in a stream has its own, so that one that is lost, doubled or moved is noticed.

/// Bytes until the pattern begins anew: a prime, so that it never falls in step with buffers and segments.
const PERIOD: usize = 65_521;

/// The pattern, twice over: any stretch of up to one period is a slice of it.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    pub(crate) fn new() -> Self {
        let mut seeded = crate::seed::Seeded::new(0x6d69_646d_696c_6521);
        let mut bytes: Vec<u8> = (0..PERIOD).map(|_| seeded.next().to_le_bytes()[7]).collect();
        bytes.extend_from_within(..);
        Self { bytes }
    }

    /// The bytes from `offset` on: a period of them, or `most` if that is less.
    pub(crate) fn at(&self, offset: u64, most: u64) -> &[u8] {
        let period = u64::try_from(PERIOD).expect("the period is small");
        let begin = usize::try_from(offset % period).expect("it is less than the period");
        let length = usize::try_from(most.min(period)).expect("it is at most the period");
        &self.bytes[begin..begin + length]
    }

    /// Whether `bytes` are what stands at `offset`.
    pub(crate) fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut at = offset;
        bytes.chunks(PERIOD).all(|chunk| {
            let length = u64::try_from(chunk.len()).expect("a chunk is small");
            let good = self.at(at, length) == chunk;
            at += length;
            good
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_out_of_place_is_noticed() {
        let pattern = Pattern::new();
        let mut stream: Vec<u8> = Vec::new();
        while stream.len() < 200_000 {
            stream.extend_from_slice(pattern.at(u64::try_from(stream.len()).unwrap(), 1448));
        }
        assert!(pattern.holds(0, &stream));
        assert!(pattern.holds(1000, &stream[1000..]));
        assert!(!pattern.holds(1001, &stream[1000..]));
        stream[150_000] ^= 1;
        assert!(!pattern.holds(0, &stream));
    }
}
