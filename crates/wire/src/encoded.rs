//! What an encoder writes: bytes in an array that is long enough for every value.

use std::fmt;
use std::io::Write;

/// Bytes to send, at most `LEN_MAX`: [`Encoded::as_bytes`] is what goes on the wire, in one write.
#[derive(Clone, Copy)]
pub struct Encoded<const LEN_MAX: usize> {
    bytes: [u8; LEN_MAX],
    /// Invariant: `len <= LEN_MAX`.
    len: usize,
}

impl<const LEN_MAX: usize> Encoded<LEN_MAX> {
    /// Length in bytes of the longest that there can be.
    pub const LEN_MAX: usize = LEN_MAX;

    pub(crate) const EMPTY: Self = Self { bytes: [0; LEN_MAX], len: 0 };

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).expect("len is at most LEN_MAX")
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes. There is room: a format's longest value decides on `LEN_MAX`.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end).expect("LEN_MAX is the longest").copy_from_slice(bytes);
        self.len = end;
    }

    /// Adds a text, for which there is room as well.
    pub(crate) fn push_text(&mut self, text: fmt::Arguments<'_>) {
        let mut rest = self.bytes.get_mut(self.len..).expect("len is at most LEN_MAX");
        rest.write_fmt(text).expect("LEN_MAX is the longest");
        self.len = LEN_MAX - rest.len();
    }

    /// Writes over bytes that have been pushed.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        let pushed = self.bytes.get_mut(..self.len).expect("len is at most LEN_MAX");
        pushed.get_mut(at..at + bytes.len()).expect("it has been pushed").copy_from_slice(bytes);
    }
}

impl<const LEN_MAX: usize> AsRef<[u8]> for Encoded<LEN_MAX> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<const LEN_MAX: usize> fmt::Debug for Encoded<LEN_MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded(\"{}\")", self.as_bytes().escape_ascii())
    }
}
