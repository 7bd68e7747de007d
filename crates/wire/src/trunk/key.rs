//! The secret that two gateways share, and the numbers that make each handshake another one.

use std::fmt;
use std::str::FromStr;

/// Length of a [`Key`] in bytes.
const LEN: usize = 32;

/// The secret that two gateways share, of 32 bytes: who has it, is the peer.
///
/// Parsed from 64 hexadecimal digits of either case; take the line end of a file off first. It is printed by nothing.
/// Two keys are compared in constant time.
#[derive(Clone, Copy)]
pub struct Key([u8; LEN]);

impl Key {
    /// The key that everybody knows, for trunks that are `plain`: the messages are the same, and prove nothing.
    ///
    /// No text parses to it, so that it can't come from a configuration by mistake. Only for loopback.
    pub const PLAIN: Self = Self([0; LEN]);

    /// A key of these bytes: 32 of a random generator fit for secrets, and not a password.
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if let Some(at) = text.chars().position(|character| !character.is_ascii_hexdigit()) {
            return Err(KeyError::Digit { place: at + 1 });
        }
        let mut key = [0; LEN];
        if text.len() != 2 * LEN {
            return Err(KeyError::Length { digits: text.len() });
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digits.iter().fold(0, |byte, &digit| byte << 4 | value(digit));
        }
        if Self(key) == Self::PLAIN { Err(KeyError::Zero) } else { Ok(Self(key)) }
    }
}

/// What a hexadecimal digit stands for; it is known to be one.
const fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // `Hash` compares in constant time.
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a text is no [`Key`]. It says nothing of what stands there. The user who typed it mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 64 digits.
    #[error("a key has 64 hexadecimal digits, as `openssl rand -hex 32` prints them; this one has {digits}")]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// A character that is no hexadecimal digit.
    #[error("character {place} of the key is no hexadecimal digit; `openssl rand -hex 32` prints a key")]
    Digit {
        /// The place of the first, counted from 1.
        place: usize,
    },
    /// All digits are zero: [`Key::PLAIN`].
    #[error("the key is all zeros, which everybody knows; `openssl rand -hex 32` prints one that nobody knows")]
    Zero,
}

/// A number that is used once: 32 bytes, fresh from the system's random generator for each handshake.
///
/// It makes a recorded handshake useless. It isn't secret. A nonce that comes twice lets the proof that was given for
/// it be used a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; Self::LEN]);

impl Nonce {
    /// Length in bytes.
    pub const LEN: usize = 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00112233445566778899aAbBcCdDeEfF0123456789abcdef0123456789ABCDEF";

    #[test]
    fn digits_of_either_case_are_a_key() {
        let key: Key = TEXT.parse().unwrap();
        assert_eq!(key.as_bytes()[..17], [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255, 1]);
        assert_eq!(key.as_bytes()[31], 0xef);
        assert_eq!(key, TEXT.to_lowercase().parse().unwrap());
        assert_ne!(key, Key::PLAIN);
        assert_ne!(key, Key::from_bytes([1; 32]));
    }

    #[test]
    fn what_is_no_key_is_told_without_telling_it() {
        let zeros = "0".repeat(64);
        let long = format!("{TEXT}0");
        let newline = format!("{TEXT}\n");
        for (text, error) in [
            ("", KeyError::Length { digits: 0 }),
            (&TEXT[1..], KeyError::Length { digits: 63 }),
            (&long, KeyError::Length { digits: 65 }),
            (&newline, KeyError::Digit { place: 65 }),
            ("xyzw", KeyError::Digit { place: 1 }),
            ("0é", KeyError::Digit { place: 2 }),
            (&zeros, KeyError::Zero),
        ] {
            assert_eq!(text.parse::<Key>(), Err(error));
            let said = format!("{error} {error:?}");
            assert!(text.len() < 4 || !said.contains(&text[..4]) || text == zeros, "{said}");
        }
    }

    #[test]
    fn debug_hides_it() {
        assert_eq!(format!("{:?}", TEXT.parse::<Key>().unwrap()), "Key(..)");
    }
}
