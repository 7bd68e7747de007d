//! A small seeded generator: SplitMix64 (Steele, Lea and Flood, 2014). Not for secrets.

/// Numbers that only the seed decides, or a tape and then the seed.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    /// What is left of the tape, last number first.
    tape: Vec<u16>,
}

impl Rng {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed, tape: Vec::new() }
    }

    /// A sequence that begins with a number for each two bytes of `tape`: a fuzzer changes one decision by changing one of them.
    #[must_use]
    pub fn from_tape(tape: &[u8]) -> Self {
        let numbers = tape.chunks_exact(2).rev().map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        Self { state: tape.len() as u64, tape: numbers.collect() }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        if let Some(number) = self.tape.pop() {
            return mix(u64::from(number));
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// A number from 0 to `most`, both included.
    pub fn up_to(&mut self, most: usize) -> usize {
        let span = most as u64 + 1;
        usize::try_from(self.number() % span).expect("not above `most`")
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.up_to(n - 1) == 0
    }
}

const fn mix(bits: u64) -> u64 {
    let mixed = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
