//! The gateways that a connection still has to go through.

use std::fmt;

use super::super::Name;

/// The names of the gateways behind the one that is told, in order; none if it is the last and dials the destination.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// Invariant: placeholders behind `len`, so that paths compare by their names.
    names: [Name; Self::LEN_MAX],
    /// Invariant: `len <= LEN_MAX`.
    len: usize,
}

impl Path {
    /// How many names there can be.
    pub const LEN_MAX: usize = 8;

    /// No gateway.
    pub const EMPTY: Self = Self { names: [Name::PLACEHOLDER; Self::LEN_MAX], len: 0 };

    /// Adds a gateway at the end.
    ///
    /// # Errors
    /// [`PathFull`] if [`LEN_MAX`](Self::LEN_MAX) are there.
    pub fn push(&mut self, name: Name) -> Result<(), PathFull> {
        *self.names.get_mut(self.len).ok_or(PathFull)? = name;
        self.len += 1;
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> &[Name] {
        self.names.get(..self.len).expect("len is at most LEN_MAX")
    }

    /// The gateway to go to next, and the path to tell it. `None` if there is none left.
    pub fn next(&self) -> Option<(Name, Self)> {
        let (&next, behind) = self.names().split_first()?;
        let mut rest = Self::EMPTY;
        for (place, &name) in rest.names.iter_mut().zip(behind) {
            *place = name;
        }
        rest.len = behind.len();
        Some((next, rest))
    }

    /// Length of the longest value on the wire, in bytes.
    pub(super) const VALUE_LEN_MAX: usize = Self::LEN_MAX * (1 + Name::LEN_MAX);

    /// The value on the wire: each name with its length in front.
    pub(super) fn write(&self, mut push: impl FnMut(&[u8])) {
        for name in self.names() {
            push(&[name.len()]);
            push(name.as_bytes());
        }
    }

    /// The path that a value on the wire is. The empty path has none.
    pub(super) fn read(mut value: &[u8]) -> Option<Self> {
        let mut path = Self::EMPTY;
        while let Some((&len, rest)) = value.split_first() {
            let (name, rest) = rest.split_at_checked(usize::from(len))?;
            path.push(Name::from_bytes(name)?).ok()?;
            value = rest;
        }
        (path.len > 0).then_some(path)
    }
}

impl Default for Path {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A [`Path`] has no room for another name. The user who asked for it takes a shorter way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a path goes through at most 8 gateways behind the next one")]
pub struct PathFull;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn value(path: &Path) -> Vec<u8> {
        let mut value = Vec::new();
        path.write(|bytes| value.extend(bytes));
        value
    }

    #[test]
    fn each_gateway_takes_itself_off() {
        let mut path = Path::EMPTY;
        for text in ["a", "b", "c"] {
            path.push(name(text)).unwrap();
        }
        let mut seen = Vec::new();
        while let Some((next, rest)) = path.next() {
            assert_eq!(Path::read(&value(&path)), Some(path));
            seen.push(next.to_string());
            path = rest;
        }
        assert_eq!((seen.join(" ").as_str(), path), ("a b c", Path::EMPTY));
    }

    #[test]
    fn it_has_room_for_eight() {
        let mut path = Path::EMPTY;
        let longest = name(&"z".repeat(64));
        for _ in 0..8 {
            path.push(longest).unwrap();
        }
        assert_eq!(path.push(longest), Err(PathFull));
        assert_eq!(value(&path).len(), Path::VALUE_LEN_MAX);
        assert_eq!(Path::read(&value(&path)), Some(path));
        assert_eq!(Path::read(&[&value(&path)[..], b"\x01a"].concat()), None);
    }

    #[test]
    fn values_that_are_no_path_are_refused() {
        for value in [
            &b""[..],
            b"\0",
            b"\x01",
            b"\x02a",
            b"\x01A",
            b"\x01a\0",
            b"\x01a\x02b",
            &[&[65], &[b'a'; 65][..]].concat(),
        ] {
            assert_eq!(Path::read(value), None, "{value:?}");
        }
    }
}
