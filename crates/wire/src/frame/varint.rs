//! A length of one to four bytes, as MQTT's.

use super::FrameError;

/// Most bytes of such a length.
const WIDTH_MAX: usize = 4;

/// A message whose length stands in one to four bytes of seven bits each, the lowest first; the eighth bit says that one more follows.
/// It counts the bytes behind it (MQTT 5.0, 1.5.5 and 2.1.4; MQTT 3.1.1, 2.2.3).
///
/// A length may use more bytes than it needs: a reader gets the same number (MQTT 5.0 forbids it to writers, [MQTT-1.5.5-1]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VarintPrefix {
    /// Bytes in front of the length; MQTT has 1.
    pub offset: usize,
    /// The longest message, in bytes, all of it counted. The longest that can be said behind `offset` bytes has 268,435,459 more.
    pub len_max: usize,
}

impl VarintPrefix {
    /// The bytes of the message at the front of `bytes`, all of it counted, once it is whole. Never 0.
    ///
    /// # Errors
    /// As soon as the length has come, when no message has it.
    pub fn measure(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let mut value = 0;
        for (place, &byte) in bytes.get(self.offset..).unwrap_or_default().iter().take(WIDTH_MAX).enumerate() {
            value |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                // A slice holds `offset + place` bytes, so that these sums, of less than 2^63 and 2^28, don't overflow.
                let whole = self.offset + place + 1 + value;
                return if whole > self.len_max {
                    Err(FrameError::TooLong)
                } else {
                    Ok((whole <= bytes.len()).then_some(whole))
                };
            }
            if place + 1 == WIDTH_MAX {
                return Err(FrameError::LongVarint);
            }
        }
        Ok(None)
    }
}
