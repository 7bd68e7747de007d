//! What a process tells a tap: records of what its friends send, each small enough to go into a pipe whole (pipe(7): 4096 bytes).

use core::time::Duration;

use crate::name::Name;

/// Bytes of a record at most.
pub const RECORD_MAX: usize = 4096;
/// Bytes of a stream in a record at most.
pub const RECORD_BYTES_MAX: usize = RECORD_MAX - HEAD;

/// Bytes before those of the stream.
const HEAD: usize = 80;
/// What a record begins with.
const MAGIC: u32 = u32::from_be_bytes(*b"\xf3tap");
/// Kinds of records.
const BYTES: u16 = 0;
const BY_RING: u16 = 1;
const OVER: u16 = 2;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, since 1970.
    pub at: Duration,
    /// The connection; its `own` end is the one that did it.
    pub name: Name,
    /// How many bytes the end had sent before.
    pub place: u64,
    /// What.
    pub what: Told<'a>,
}

/// See [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// It sent these bytes.
    Bytes {
        /// At most [`RECORD_BYTES_MAX`].
        bytes: &'a [u8],
        /// How many it sent in one go, where those begin here; 0 in what goes on.
        message: u32,
        /// By the ring, and not by TCP.
        ring: bool,
    },
    /// It's closed.
    Over,
}

/// What came isn't a record: whoever wrote it doesn't keep to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came isn't a record of a tap's")]
pub struct BadRecord;

impl<'a> Record<'a> {
    /// Writes it; how many bytes. Bytes beyond [`RECORD_BYTES_MAX`] are left out.
    pub fn write(&self, into: &mut [u8; RECORD_MAX]) -> usize {
        let (kind, message, bytes) = match self.what {
            Told::Bytes { bytes, message, ring } => (if ring { BY_RING } else { BYTES }, message, bytes),
            Told::Over => (OVER, 0, &[][..]),
        };
        let bytes = &bytes[..bytes.len().min(RECORD_BYTES_MAX)];
        let length = u16::try_from(bytes.len()).expect("it was cut to less");
        let nanoseconds = u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX);
        let first = u64::from(MAGIC) << 32 | u64::from(kind) << 16 | u64::from(length);
        let [a, b, c, d, e, f] = self.name.to_words();
        let words = [first, nanoseconds, self.place, u64::from(message), a, b, c, d, e, f];
        into.chunks_exact_mut(8).zip(words).for_each(|(place, word)| place.copy_from_slice(&word.to_ne_bytes()));
        into[HEAD..HEAD + bytes.len()].copy_from_slice(bytes);
        HEAD + bytes.len()
    }

    /// Reads the record at the beginning of `bytes`, and how long it is; `None`: more has to come.
    ///
    /// # Errors
    /// [`BadRecord`]: no further byte can mend it.
    pub fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, BadRecord> {
        let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Ok(None) };
        let mut words = [0; HEAD / 8];
        words.iter_mut().zip(head.chunks_exact(8)).for_each(|(word, bytes)| {
            *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        });
        let [first, nanoseconds, place, message, a, b, c, d, e, f] = words;
        let part = |shift: u32| u16::try_from(first >> shift & 0xffff).expect("it was cut to 16 bits");
        let (kind, length) = (part(16), usize::from(part(0)));
        if first >> 32 != u64::from(MAGIC) || length > RECORD_BYTES_MAX || kind > OVER || kind == OVER && length > 0 {
            return Err(BadRecord);
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let message = u32::try_from(message).map_err(|_| BadRecord)?;
        let what = if kind == OVER { Told::Over } else { Told::Bytes { bytes, message, ring: kind == BY_RING } };
        let name = Name::from_words([a, b, c, d, e, f]);
        Ok(Some((Self { at: Duration::from_nanos(nanoseconds), name, place, what }, HEAD + length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::from_words([9, 0, 0xffff_7f00_0001, 0, 0xffff_7f00_0002, 80 << 16 | 40000])
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let long = [7; RECORD_BYTES_MAX + 5];
        for what in [
            Told::Bytes { bytes: b"abc", message: 100_000, ring: true },
            Told::Bytes { bytes: &[], message: 0, ring: false },
            Told::Bytes { bytes: &long[..RECORD_BYTES_MAX], message: 0, ring: false },
            Told::Over,
        ] {
            let record = Record { at: Duration::new(3, 4), name: name(), place: u64::MAX - 1, what };
            let mut bytes = [0; RECORD_MAX];
            let length = record.write(&mut bytes);
            assert_eq!(Record::read(&bytes[..length]), Ok(Some((record, length))));
            assert_eq!(Record::read(&bytes[..length - 1]), Ok(None));
            bytes[4] ^= 1;
            assert_eq!(Record::read(&bytes[..length]), Err(BadRecord));
        }
        let cut = Told::Bytes { bytes: &long, message: 0, ring: false };
        assert_eq!(
            Record { at: Duration::ZERO, name: name(), place: 0, what: cut }.write(&mut [0; RECORD_MAX]),
            RECORD_MAX
        );
    }
}
