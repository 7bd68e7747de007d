//! Numbers that nobody can foretell: initial sequence numbers and ports come from them (RFC 9293, 3.4.1; RFC 6056).

use rustix::rand::{GetRandomFlags, getrandom};

/// getrandom(2) gives so many bytes without a break.
const STORE: usize = 256;

/// A source of numbers.
#[derive(Debug)]
pub(crate) enum Random {
    /// The kernel's, many at a time.
    System { store: Box<[u8; STORE]>, left: usize },
    /// The same ones each time, for tests.
    Seeded(u64),
}

impl Random {
    pub(crate) fn system() -> Self {
        Self::System { store: Box::new([0; STORE]), left: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        match self {
            Self::System { store, left } => {
                if *left == 0 {
                    // So few bytes come whole and at once from an initialised generator (getrandom(2)), and it's long initialised.
                    getrandom(store.as_mut_slice(), GetRandomFlags::empty()).expect("the kernel has random numbers");
                    *left = STORE / 8;
                }
                *left -= 1;
                let drawn = &mut store[8 * *left..][..8];
                let number = drawn.try_into().map(u64::from_ne_bytes).expect("eight bytes");
                // What was given out is nowhere but there.
                drawn.fill(0);
                number
            }
            // SplitMix64 (Steele, Lea and Flood, 2014).
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut word = *state;
                word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
                word ^ word >> 31
            }
        }
    }

    /// A number below `bound`, each about as likely.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let wide = (u128::from(self.next()) * u128::from(bound)) >> 64;
        u32::try_from(wide).expect("it's below the bound")
    }
}
