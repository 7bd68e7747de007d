//! A length that stands in front, in so many bytes, at a fixed place.
//!
//! ```text
//!   │◄ offset ►│◄ width ►│◄── value + adjust ──►│
//!   │ whatever │  value  │  what it counts      │ the next message …
//!   │◄──────────── the message ────────────────►│
//! ```

use super::FrameError;

/// Bytes of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    One,
    /// 2 bytes.
    Two,
    /// 3 bytes.
    Three,
    /// 4 bytes.
    Four,
    /// 8 bytes.
    Eight,
}

impl Width {
    /// How many they are.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// The order of a length's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The highest first, as in the network.
    Big,
    /// The lowest first.
    Little,
}

/// A message that says its length at a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthPrefix {
    /// Bytes in front of the length.
    pub offset: usize,
    /// Bytes of the length.
    pub width: Width,
    /// Their order.
    pub order: Order,
    /// Added to the length to get the bytes behind it: 0 where it counts those, `-(offset + width)` where it counts all of the
    /// message.
    pub adjust: i64,
    /// The longest message, in bytes, all of it counted.
    pub len_max: usize,
}

impl LengthPrefix {
    /// DNS over TCP: two bytes that count those behind them (RFC 1035, 4.2.2).
    pub const DNS: Self = Self { offset: 0, width: Width::Two, order: Order::Big, adjust: 0, len_max: 2 + 65_535 };

    /// The bytes of the message at the front of `bytes`, all of it counted, once it is whole. Never 0.
    ///
    /// # Errors
    /// As soon as the length has come, when no message has it.
    pub fn measure(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let width = self.width.bytes();
        let Some(field) = bytes.get(self.offset..).and_then(|from| from.get(..width)) else { return Ok(None) };
        let value = field.iter().enumerate().fold(0_i128, |value, (place, byte)| {
            let rank = if self.order == Order::Big { width - 1 - place } else { place };
            value | i128::from(*byte) << (8 * rank)
        });
        // No sum of a few numbers of 64 bits overflows 128.
        let head = self.offset as i128 + width as i128;
        let whole = head + value + i128::from(self.adjust);
        if whole < head {
            return Err(FrameError::TooShort);
        }
        if whole > self.len_max as i128 {
            return Err(FrameError::TooLong);
        }
        let whole = usize::try_from(whole).expect("no more than `len_max`");
        Ok((whole <= bytes.len()).then_some(whole))
    }
}
