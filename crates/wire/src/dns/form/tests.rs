use proptest::prelude::*;

use super::super::tests::{OPT, TSIG, nearly, query};
use super::*;

fn looked_at(bytes: &[u8]) -> Result<(), Malformed> {
    Message::new(bytes).unwrap().well_formed()
}

/// A query with these bytes changed.
fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = query(1, &[]);
    changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
    bytes
}

/// A query with one record more, of this name.
fn with_name(name: &[u8]) -> Vec<u8> {
    query(1, &[&[name, &[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 127, 0, 0, 1]].concat()])
}

#[test]
fn good_requests_are_well_formed() {
    for records in [&[][..], &[OPT], &[OPT, TSIG]] {
        assert_eq!(looked_at(&query(1, records)), Ok(()));
    }
    // Bytes behind the last record are somebody else's to judge.
    assert_eq!(looked_at(&[query(1, &[OPT]), vec![1]].concat()), Ok(()));
    // A whole name, a pointer to the question's, and a label before one.
    for name in [&b"\x01a\0"[..], &[0xc0, 12], &[1, b'a', 0xc0, 16]] {
        assert_eq!(looked_at(&with_name(name)), Ok(()), "{name:?}");
    }
}

#[test]
fn each_opcode_has_as_many_questions_as_it_should() {
    for opcode in 0..16 {
        let none = [&[0, 1, opcode << 3, 0][..], &[0; 8]].concat();
        let may = !matches!(opcode, OPCODE_QUERY | OPCODE_NOTIFY | OPCODE_UPDATE);
        assert_eq!(looked_at(&none).is_ok(), may, "none, opcode {opcode}");
        assert_eq!(looked_at(&changed(&[(2, opcode << 3)])), Ok(()));
        let two = [changed(&[(2, opcode << 3), (5, 2)]), query(1, &[])[12..].to_vec()].concat();
        assert_eq!(looked_at(&two), Err(Malformed::Questions));
    }
}

#[test]
fn broken_questions_are_found() {
    // A label of 64 bytes, a reserved one, a pointer to itself, the question cut.
    for broken in
        [changed(&[(12, 64)]), changed(&[(12, 128)]), changed(&[(12, 192), (13, 12)]), query(1, &[])[..28].to_vec()]
    {
        assert_eq!(looked_at(&broken), Err(Malformed::Question), "{broken:?}");
    }
    for (labels, is_good) in [(127, true), (128, false)] {
        let name = [b"\x01a".repeat(labels), vec![0, 0, 1, 0, 1]].concat();
        assert_eq!(looked_at(&[&query(1, &[])[..12], &name].concat()).is_ok(), is_good, "{labels}");
    }
}

#[test]
fn broken_records_are_found() {
    let counted = |at: usize| changed(&[(at, 1)]);
    let cut = query(1, &[OPT, TSIG]);
    for broken in [counted(7), counted(9), counted(11), counted(10), cut[..cut.len() - 1].to_vec()] {
        assert_eq!(looked_at(&broken), Err(Malformed::Records), "{broken:?}");
    }
    // Pointers to the header, to themselves, to what comes behind, to the beginning of their own name; half a pointer; a reserved label.
    for name in [&[0xc0, 0][..], &[0xc0, 29], &[0xc0, 31, 0], &[1, b'a', 0xc0, 29], &[0xc0], &[64], &[192, 30]] {
        assert_eq!(looked_at(&with_name(name)), Err(Malformed::Records), "{name:?}");
    }
    // The question's name has 13 bytes.
    for (labels, is_good) in [(121, true), (122, false)] {
        assert_eq!(
            looked_at(&with_name(&[b"\x01a".repeat(labels), vec![0xc0, 12]].concat())).is_ok(),
            is_good,
            "{labels}"
        );
    }
}

#[test]
fn broken_edns_is_found() {
    let with_options = |options: &[u8]| {
        let len = u8::try_from(options.len()).unwrap();
        query(1, &[&[&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, len][..], options].concat()])
    };
    assert_eq!(looked_at(&with_options(&[0, 12, 0, 0, 0, 10, 0, 1, 7])), Ok(()));
    for short in [&[0][..], &[0, 12, 0], &[0, 12, 0, 1], &[0, 12, 0, 0, 0], &[0, 12, 0, 2, 0]] {
        assert_eq!(looked_at(&with_options(short)), Err(Malformed::Edns), "{short:?}");
    }
    assert_eq!(looked_at(&query(1, &[OPT, OPT])), Err(Malformed::Edns));
    assert_eq!(looked_at(&query(1, &[&[b"\x01a", OPT].concat()])), Err(Malformed::Edns));
}

#[test]
fn the_work_is_bounded() {
    // Each record's name leads through all before: some thousand of them would be a million steps.
    let mut bytes = query(1, &[]);
    let mut target = 12_u16;
    for _ in 0..5000 {
        let at = u16::try_from(bytes.len()).unwrap();
        bytes.extend((0xc000 | target).to_be_bytes());
        bytes.extend([0, 1, 0, 1, 0, 0, 0, 9, 0, 0]);
        target = if at < 0x4000 { at } else { target };
    }
    bytes[10..12].copy_from_slice(&5000_u16.to_be_bytes());
    assert_eq!(looked_at(&bytes), Ok(()));
    let mut steps = 3;
    let last = bytes.len() - 12;
    assert_eq!((super::end_of_sound_name(&bytes, last, &mut steps), steps), (Some(last + 2), 0));
}

proptest! {
    #[test]
    fn what_is_well_formed_can_be_followed(bytes in nearly()) {
        let Some(message) = Message::new(&bytes) else { return Ok(()) };
        if message.well_formed().is_ok() {
            prop_assert!(message.questions() == 0 || message.question().is_some());
            prop_assert!(message.additional().is_some());
        }
    }

    #[test]
    fn nothing_cut_short_is_well_formed(cut in any::<prop::sample::Index>()) {
        let bytes = query(1, &[OPT, TSIG]);
        let len = 12 + cut.index(bytes.len() - 12);
        prop_assert!(looked_at(&bytes[..len]).is_err());
    }
}
