//! Where one message of a stream ends: framing by a length that stands in front.
//!
//! ```text
//!   │◄ offset ►│◄ width ►│◄── value + adjust ──►│
//!   │ whatever │  value  │  what it counts      │ the next message …
//!   │◄──────────── the message ────────────────►│
//! ```

/// Bytes of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    One,
    /// 2 bytes.
    Two,
    /// 4 bytes.
    Four,
}

impl Width {
    const fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
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

/// Why a message can't be one. The stream has no beginning of a message any more: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Its length is more than the protocol's users agreed on.
    #[error("a message is longer than allowed")]
    TooLong,
    /// Its length is so small that it ends before the length itself does.
    #[error("a message ends before its own length field")]
    TooShort,
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
        // No sum of a length of 32 bits and two numbers of 64 overflows 128.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dns_counts_what_is_behind_its_two_bytes() {
        for (bytes, whole) in [(&b""[..], None), (b"\0", None), (b"\0\x02a", None), (b"\0\x02abc", Some(4))] {
            assert_eq!(LengthPrefix::DNS.measure(bytes), Ok(whole), "{bytes:?}");
        }
        assert_eq!(LengthPrefix::DNS.measure(&[0, 0]), Ok(Some(2)));
    }

    #[test]
    fn a_length_may_count_the_whole_message_and_stand_within_it() {
        let whole = LengthPrefix { offset: 1, width: Width::Four, order: Order::Little, adjust: -5, len_max: 8 };
        assert_eq!(whole.measure(&[9, 7, 0, 0, 0, 1, 2, 3]), Ok(Some(7)));
        assert_eq!(whole.measure(&[9, 5, 0, 0, 0]), Ok(Some(5)));
        assert_eq!(whole.measure(&[9, 4, 0, 0, 0]), Err(FrameError::TooShort));
        assert_eq!(whole.measure(&[9, 9, 0, 0, 0]), Err(FrameError::TooLong));
        assert_eq!(whole.measure(&[9, 9, 0, 0]), Ok(None));
    }

    pub(super) fn prefix() -> impl Strategy<Value = LengthPrefix> {
        let width = prop_oneof![Just(Width::One), Just(Width::Two), Just(Width::Four)];
        let order = prop_oneof![Just(Order::Big), Just(Order::Little)];
        let adjust = prop_oneof![-20_i64..20, Just(i64::MIN), Just(i64::MAX)];
        let len_max = prop_oneof![0_usize..400, Just(usize::MAX)];
        (prop_oneof![0_usize..12, Just(usize::MAX)], width, order, adjust, len_max)
            .prop_map(|(offset, width, order, adjust, len_max)| LengthPrefix { offset, width, order, adjust, len_max })
    }

    proptest! {
        #[test]
        fn the_answer_at_a_prefix_is_kept_by_every_longer_one(
            prefix in prefix(),
            bytes in prop::collection::vec(prop_oneof![3 => 0_u8..20, 1 => any::<u8>()], 0..300),
        ) {
            let mut decided = None;
            for end in 0..=bytes.len() {
                let answer = prefix.measure(&bytes[..end]);
                if let Some(before) = decided {
                    prop_assert_eq!(answer, before);
                } else if answer != Ok(None) {
                    prop_assert!(answer != Ok(Some(0)), "a message without a byte");
                    prop_assert!(answer.is_err() || answer == Ok(Some(end)) || end == prefix.offset + prefix.width.bytes());
                    decided = Some(answer);
                }
            }
        }
    }
}
