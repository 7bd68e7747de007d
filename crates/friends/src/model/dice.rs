//! What a seed or a fuzzer's tape decides.

/// Decisions: the tape's bytes first, then those that the seed makes.
#[derive(Debug)]
pub(crate) struct Dice<'t> {
    tape: &'t [u8],
    state: u32,
}

impl<'t> Dice<'t> {
    pub(crate) fn new(seed: u32, tape: &'t [u8]) -> Self {
        Self { tape, state: seed.wrapping_mul(0x9E37_79B9) | 1 }
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if let Some((&byte, rest)) = self.tape.split_first() {
            self.tape = rest;
            return usize::from(byte) * 7 % bound;
        }
        // Marsaglia's xorshift (2003).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        usize::try_from(self.state >> 3).expect("29 bits") % bound
    }

    /// A number from 1 to `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        1 + self.below(most)
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
