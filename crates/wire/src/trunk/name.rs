//! What a gateway is called.

use std::fmt;
use std::str::FromStr;

/// The name of a gateway: 1 to 64 of `a-z`, `0-9`, `.` and `-`.
///
/// Both sides of a trunk prove their names to each other, and a path is made of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Invariant: zeros behind `len`, so that names compare by their bytes.
    bytes: [u8; Self::LEN_MAX],
    /// Invariant: `1 <= len <= LEN_MAX`.
    len: u8,
}

impl Name {
    /// Length of the longest name, in bytes.
    pub const LEN_MAX: usize = 64;

    /// What stands in places of an array that hold no name yet.
    pub(super) const PLACEHOLDER: Self = {
        let mut bytes = [0; Self::LEN_MAX];
        bytes[0] = b'-';
        Self { bytes, len: 1 }
    };

    /// The name that these bytes are; `None` if they are none.
    pub(super) fn from_bytes(name: &[u8]) -> Option<Self> {
        if name.is_empty() || !name.iter().all(|&byte| is_allowed(byte)) {
            return None;
        }
        let mut bytes = [0; Self::LEN_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { bytes, len: u8::try_from(name.len()).ok()? })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a name is ASCII")
    }

    /// The name, a byte a character.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).expect("len is at most LEN_MAX")
    }

    /// Length in bytes: 1 to [`LEN_MAX`](Self::LEN_MAX).
    pub(super) const fn len(&self) -> u8 {
        self.len
    }
}

/// Whether the byte may stand in a name.
pub(super) const fn is_allowed(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-')
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let refused = text.chars().zip(1..).find(|&(character, _)| !u8::try_from(character).is_ok_and(is_allowed));
        if let Some((character, place)) = refused {
            return Err(NameError::Character { character, place });
        }
        Self::from_bytes(text.as_bytes()).ok_or(NameError::TooLong { len: text.len() })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// Why a text is no [`Name`]. The user who typed it mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no character in it.
    #[error("a gateway's name is empty; it takes 1 to 64 of a-z, 0-9, \".\" and \"-\"")]
    Empty,
    /// It is longer than [`Name::LEN_MAX`].
    #[error("a gateway's name has {len} characters; it may have 64")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A character that no name has.
    #[error("a gateway's name has {character:?} as character {place}; use a-z, 0-9, \".\" and \"-\" alone")]
    Character {
        /// The first of them.
        character: char,
        /// Its place, counted from 1.
        place: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_comes_back_as_it_was() {
        for text in ["a", "oregon", "eu-west-1.example", "0", "-", "..", &"z".repeat(64)] {
            let name: Name = text.parse().unwrap();
            assert_eq!((name.as_str(), name.to_string().as_str()), (text, text));
            assert_eq!(Name::from_bytes(text.as_bytes()), Some(name));
        }
        assert_eq!(format!("{:>4}|", "a".parse::<Name>().unwrap()), "   a|");
    }

    #[test]
    fn what_is_not_allowed_is_told_with_its_place() {
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("a".repeat(65).parse::<Name>(), Err(NameError::TooLong { len: 65 }));
        for (text, character, place) in
            [("Oregon", 'O', 1), ("a b", ' ', 2), ("mün", 'ü', 2), ("a_", '_', 2), ("a\0", '\0', 2), ("ā", 'ā', 1)]
        {
            let error = text.parse::<Name>().unwrap_err();
            assert_eq!(error, NameError::Character { character, place });
            assert!(error.to_string().contains(&format!("{character:?} as character {place};")), "{error}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_text() {
        let mut names: Vec<Name> = ["b", "a.", "a", "aa", "a-"].iter().map(|text| text.parse().unwrap()).collect();
        names.sort();
        assert_eq!(names.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "a-", "a.", "aa", "b"]);
    }
}
