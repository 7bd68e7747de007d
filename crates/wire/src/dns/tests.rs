use proptest::prelude::*;

use super::*;

/// A query for `www.example` of a type, with so many additional records' bytes.
pub(super) fn query(kind: u16, additional: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::try_from(additional.len()).unwrap()];
    bytes.extend(b"\x03www\x07example\0");
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(additional.concat());
    bytes
}

/// OPT with DO and a cookie, then keepalive of 12 s.
pub(super) const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 12, 0, 10, 0, 2, 9, 9, 0, 11, 0, 2, 0, 120];
/// OPT with a keepalive option that asks, without a timeout.
const OPT_ASKS: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 11, 0, 0];
pub(super) const TSIG: &[u8] = &[1, b'k', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 3, 1, 2, 3];
/// A signature of the message: it covers no type.
const SIG0: &[u8] = &[0, 0, 24, 0, 255, 0, 0, 0, 0, 0, 3, 0, 0, 3];
/// One of records.
const SIG: &[u8] = &[0, 0, 24, 0, 255, 0, 0, 0, 0, 0, 3, 0, 1, 3];

#[test]
fn a_query_says_what_it_asks() {
    let bytes = query(28, &[]);
    let message = Message::new(&bytes).unwrap();
    assert_eq!((message.id(), message.opcode(), message.rcode(), message.questions()), (0x1234, 0, 0, 1));
    assert!(!message.is_response() && !message.is_truncated());
    let question = message.question().unwrap();
    assert_eq!((question.kind, question.bytes), (28, &bytes[12..]));
    assert!(!question.is_transfer());
    for kind in [251, 252] {
        assert!(Message::new(&query(kind, &[])).unwrap().question().unwrap().is_transfer());
    }
    assert!(Message::new(&bytes[..11]).is_none());
    assert!(Message::new(&bytes[..bytes.len() - 1]).unwrap().question().is_none());
}

#[test]
fn flags_are_told_apart() {
    let mut bytes = query(1, &[]);
    (bytes[2], bytes[3]) = (0xb2, 0x83);
    let message = Message::new(&bytes).unwrap();
    assert_eq!((message.opcode(), message.rcode()), (6, 3));
    assert!(message.is_response() && message.is_truncated());
}

#[test]
fn names_are_the_same_in_any_case_and_types_are_not() {
    let (mut a, mut b) = (query(0x41, &[]), query(0x61, &[]));
    let same = |a: &[u8], b: &[u8]| {
        Message::new(a).unwrap().question().unwrap().is_same(Message::new(b).unwrap().question().unwrap())
    };
    assert!(!same(&a, &b));
    b.clone_from(&a);
    b[13] = b'W';
    assert!(same(&a, &b));
    a[13] = b'v';
    assert!(!same(&a, &b));
}

#[test]
fn the_additional_section_is_understood() {
    let said = |records: &[&[u8]]| Message::new(&query(1, records)).unwrap().additional().unwrap();
    assert_eq!(said(&[]), Additional::default());
    let all = said(&[OPT, TSIG]);
    assert!(all.signed && all.edns && all.wants_dnssec);
    let at = all.keepalive_at.unwrap();
    assert_eq!(query(1, &[OPT, TSIG])[at..at + 2], [0, 120]);
    assert!(!said(&[TSIG, OPT]).signed, "a signature stands at the end");
    assert!(said(&[SIG0]).signed && !said(&[SIG]).signed);
    let asks = said(&[OPT_ASKS]);
    assert!(asks.edns && !asks.wants_dnssec && asks.keepalive && asks.keepalive_at.is_none());
    assert!(all.keepalive && !said(&[TSIG]).keepalive);
    let size = all.udp_size_at.unwrap();
    assert_eq!((&query(1, &[OPT, TSIG])[size..size + 2], all.rcode_high), (&[4, 208][..], 0));
    let bad_cookie = [&OPT[..5], &[1], &OPT[6..]].concat();
    assert_eq!(said(&[&bad_cookie]).rcode_high, 1);
    assert_eq!(Message::new(&query(1, &[OPT, OPT])).unwrap().additional(), None, "two say different things");
    let mut cut = query(1, &[OPT]);
    cut.pop();
    assert_eq!(Message::new(&cut).unwrap().additional(), None);
}

#[test]
fn an_option_more_has_its_place_behind_the_others_of_the_last_record() {
    let options = |records: &[&[u8]]| Message::new(&query(1, records)).unwrap().additional()?.options;
    let begin = query(1, &[]).len() + OPT_LEN;
    let bare = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    assert_eq!(options(&[bare]), Some((begin, begin)));
    assert_eq!(options(&[OPT]), Some((begin, begin + 12)));
    assert_eq!(options(&[TSIG, OPT]), Some((begin + TSIG.len(), begin + TSIG.len() + 12)));
    // Nothing is behind it that a name could point into, and no signature.
    assert_eq!([options(&[OPT, TSIG]), options(&[OPT, SIG]), options(&[TSIG]), options(&[])], [None; 4]);
    assert_eq!(options(&[OPT, OPT]), None);
    // What is behind the last record is nobody's.
    let trailed = [OPT, &[1, 2, 3]].concat();
    assert_eq!(options(&[&trailed]), Some((begin, begin + 12)));
    // Options that don't fit: one more would be a part of theirs.
    for broken in
        [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 3, 0, 10, 0][..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 10, 0, 2, 9]]
    {
        assert_eq!(options(&[broken]), None, "{broken:?}");
    }
    let whole = query(1, &[OPT]);
    for len in HEADER_LEN..whole.len() {
        let said = Message::new(&whole[..len]).unwrap().additional();
        assert_eq!(said, None, "cut to {len} bytes");
    }
}

#[test]
fn a_pointer_ends_a_name() {
    // One answer, www.example by a pointer to the question, and OPT behind it.
    let mut bytes = query(1, &[]);
    bytes[7] = 1;
    bytes[11] = 1;
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 127, 0, 0, 1]);
    bytes.extend(OPT);
    assert!(Message::new(&bytes).unwrap().additional().unwrap().keepalive_at.is_some());
}

#[test]
fn a_refusal_echoes_the_question() {
    let bytes = query(1, &[OPT, TSIG]);
    let query = Message::new(&bytes).unwrap();
    let refusal = Refusal::of(query, RCODE_SERVFAIL);
    let answer = Message::new(refusal.message()).unwrap();
    assert_eq!((answer.id(), answer.rcode(), answer.is_response()), (0x1234, 2, true));
    assert_eq!(answer.question(), query.question());
    let said = answer.additional().unwrap();
    assert!(said.edns && said.wants_dnssec && !said.signed && said.keepalive_at.is_none());
    assert_eq!(usize::from(u16::from_be_bytes([refusal.framed()[0], refusal.framed()[1]])), refusal.message().len());
}

/// Bytes that are nearly a message: a good one with some bytes changed and its end cut off.
pub(super) fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let records = prop::collection::vec(prop_oneof![Just(OPT), Just(TSIG), Just(SIG0), Just(OPT_ASKS)], 0..4);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (records, changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(records, changes, cut, cuts)| {
        let mut bytes = query(1, &records);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(if cuts { cut.index(bytes.len()) } else { bytes.len() });
        bytes
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_a_refusal_is_a_message(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..400), nearly()],
    ) {
        let Some(message) = Message::new(&bytes) else { return Ok(()) };
        let said = message.additional();
        if let Some(at) = said.and_then(|said| said.keepalive_at) {
            prop_assert!(at + 2 <= bytes.len() && bytes[at - 4..at] == [0, 11, 0, 2]);
        }
        let refusal = Refusal::of(message, RCODE_SERVFAIL);
        let answer = Message::new(refusal.message()).unwrap();
        prop_assert_eq!(answer.id(), message.id());
        prop_assert_eq!(answer.opcode(), message.opcode());
        prop_assert_eq!(answer.question(), message.question());
        prop_assert!(answer.is_response() && answer.additional().is_some());
    }

    #[test]
    fn a_question_is_the_same_as_itself_in_capitals(label in "[a-zA-Z0-9-]{1,63}", kind in any::<u16>()) {
        let make = |label: &str| {
            let mut bytes = vec![0; 12];
            bytes[5] = 1;
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
            bytes.push(0);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1]);
            bytes
        };
        let (a, b) = (make(&label), make(&label.to_uppercase()));
        prop_assert!(Message::new(&a).unwrap().question().unwrap().is_same(Message::new(&b).unwrap().question().unwrap()));
    }
}
