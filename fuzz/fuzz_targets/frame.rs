//! The framer by a length in front, against arbitrary shapes and bytes. It may not panic, a message is never empty nor longer
//! than what has come or what is allowed, and the answer at a prefix is kept by every longer one.

#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use midmile_wire::frame::{LengthPrefix, Order, Width};

fuzz_target!(|data: &[u8]| {
    let mut given = Unstructured::new(data);
    let Ok((offset, width, big, adjust, len_max)) = <(usize, u8, bool, i64, usize)>::arbitrary(&mut given) else {
        return;
    };
    let width = [Width::One, Width::Two, Width::Four, Width::Three, Width::Eight][usize::from(width % 5)];
    let order = if big { Order::Big } else { Order::Little };
    // Small numbers are as likely as large ones.
    let small = adjust % 2 == 0;
    let prefix =
        LengthPrefix { offset: if small { offset % 16 } else { offset }, width, order, adjust: adjust % 512, len_max };
    let bytes = given.take_rest();
    let mut decided = None;
    for end in 0..=bytes.len() {
        let answer = prefix.measure(&bytes[..end]);
        if let Ok(Some(len)) = answer {
            assert!((1..=end.min(len_max)).contains(&len), "{len} of {end}");
        }
        match decided {
            Some(before) => assert_eq!(answer, before, "another answer at {end}"),
            None if answer != Ok(None) => decided = Some(answer),
            None => {}
        }
    }
});
