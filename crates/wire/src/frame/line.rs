//! Lines.

use memchr::memchr;

use super::{FrameError, Seen, unfinished, within};

/// A message that ends with a line feed. Where a carriage return stands before it, it is one of the message's bytes, as the line
/// feed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The longest message, in bytes, its end counted.
    pub len_max: usize,
}

impl Line {
    /// As [`super::Framing::measure`].
    pub(super) fn measure(self, bytes: &[u8], seen: &mut Seen) -> Result<Option<usize>, FrameError> {
        let bytes = within(bytes, self.len_max);
        match find_line_feed(bytes, seen.at) {
            Some(place) => Ok(Some(place + 1)),
            None => {
                seen.at = bytes.len();
                unfinished(bytes, self.len_max)
            }
        }
    }
}

/// The place of the first line feed at `from` or behind it.
pub(super) fn find_line_feed(bytes: &[u8], from: usize) -> Option<usize> {
    memchr(b'\n', bytes.get(from..)?).map(|place| from + place)
}
