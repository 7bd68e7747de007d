//! What a connection is to the mux, as its token says.

use midmile_engine::Key;

/// Tokens with this bit are the mux's; with the next one, an upstream's.
const OURS: u64 = 1 << 63;
const UPSTREAM: u64 = 1 << 62;

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A client.
    Client(Key),
    /// A connection to a backend.
    Upstream(Key),
}

impl Token {
    pub(crate) const fn is_ours(bits: u64) -> bool {
        bits & OURS != 0
    }

    pub(crate) const fn to_bits(self) -> u64 {
        match self {
            Self::Client(key) => OURS | key.to_bits(),
            Self::Upstream(key) => OURS | UPSTREAM | key.to_bits(),
        }
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        let key = Key::from_bits(bits & (UPSTREAM - 1));
        if bits & UPSTREAM == 0 { Self::Client(key) } else { Self::Upstream(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_kind_and_its_key() {
        let mut slab = midmile_engine::Slab::with_capacity(1);
        let key = slab.insert(()).unwrap();
        for token in [Token::Client(key), Token::Upstream(key)] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
            assert!(Token::is_ours(token.to_bits()));
        }
        assert!(!Token::is_ours(key.to_bits()));
    }
}
