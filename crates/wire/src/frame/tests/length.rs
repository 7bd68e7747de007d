//! Lengths of a fixed number of bytes.

use proptest::prelude::*;

use crate::frame::{FrameError, LengthPrefix, Order, Width};

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
    let width = proptest::sample::select(vec![Width::One, Width::Two, Width::Three, Width::Four, Width::Eight]);
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
