//! The end of a zone's transfer, from arbitrary bytes: messages with two bytes of length in front, a query and then its answers. It may
//! not panic, and:
//! - behind the last answer, or one that can't be followed, nothing follows;
//! - a last answer is an error, has no records, or has the zone's SOA at its end: cut by a byte there, it can't be followed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use midmile_wire::dns::Message;
use midmile_wire::dns::transfer::{Progress, Transfer};

/// The first message, and what is behind it.
fn first(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (message, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    Some((Message::new(message)?, rest))
}

fuzz_target!(|data: &[u8]| {
    let Some((query, mut rest)) = first(data) else { return };
    let Some(mut transfer) = Transfer::of(query) else { return };
    assert!(query.question().is_some_and(|question| question.is_transfer()));
    let mut over = false;
    while let Some((answer, more)) = first(rest) {
        let bytes = &rest[2..rest.len() - more.len()];
        let other = transfer.clone();
        let progress = transfer.see(answer);
        assert!(!over || progress == Progress::Broken);
        over |= progress != Progress::More;
        let counts = &bytes[6..12];
        if progress == Progress::Last && answer.rcode() == 0 && counts[..2] != [0, 0] && counts[2..] == [0; 4] {
            // Whatever is behind the records is nobody's: they end somewhere before.
            let cut = (12..bytes.len()).rev().find_map(|len| {
                let progress = other.clone().see(Message::new(&bytes[..len])?);
                (progress != Progress::Last).then_some(progress)
            });
            assert_eq!(cut, Some(Progress::Broken));
        }
        rest = more;
    }
});
