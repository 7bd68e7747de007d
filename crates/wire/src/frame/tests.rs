//! Every framer against a plain reference, on streams that are cut anywhere.

mod length;
mod reference;
mod resp;
mod samples;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// How far a stream's messages go, and what it ends with.
type Told = (Vec<usize>, Result<(), FrameError>);

pub(super) const DNS_PROGRAM: &[u8] = include_bytes!("tests/programs/dns.bin");
pub(super) const HTTP2_PROGRAM: &[u8] = include_bytes!("tests/programs/http2.bin");
pub(super) const MQTT_PROGRAM: &[u8] = include_bytes!("tests/programs/mqtt.bin");
pub(super) const DNS_CLASSIC: &[u8] = b"3\n40 0 0 0\n4 0 0 2\n22 0 0 0\n";

fn program(file: &[u8], len_max: usize) -> Framing {
    Framing::Program(Arc::new(Program::parse(file, len_max).expect("a program")))
}

/// Measures the messages of a stream that comes in pieces, which end at `cuts` and at the end.
fn tell(framing: &Framing, stream: &[u8], cuts: impl IntoIterator<Item = usize>) -> Told {
    let (mut lens, mut front, mut seen) = (Vec::new(), 0, Seen::default());
    for end in cuts.into_iter().chain([stream.len()]) {
        loop {
            match framing.measure(&stream[front..end], &mut seen) {
                Ok(Some(len)) => {
                    assert!((1..=framing.len_max().min(end - front)).contains(&len), "{len} of {front}..{end}");
                    lens.push(len);
                    front += len;
                    seen = Seen::default();
                }
                Ok(None) => break,
                Err(error) => return (lens, Err(error)),
            }
        }
    }
    (lens, Ok(()))
}

/// Bytes that framers have something to do with.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => 0_u8..20,
        4 => select(b"\r\n\r\n0123*$+-:_|%~>?x ".to_vec()),
        1 => any::<u8>(),
    ];
    vec(byte, 0..300)
}

/// Every kind of framer, with limits from nothing to no limit.
fn framing() -> impl Strategy<Value = Framing> {
    let len_max = || prop_oneof![1_usize..400, Just(0x7fff_ffff)];
    prop_oneof![
        Just(Framing::Dns),
        length::prefix().prop_map(Framing::Length),
        (0_usize..6, len_max()).prop_map(|(offset, len_max)| Framing::Varint(VarintPrefix { offset, len_max })),
        len_max().prop_map(|len_max| Framing::Line(Line { len_max })),
        (select(vec![Side::Commands, Side::Answers]), len_max())
            .prop_map(|(side, len_max)| Framing::Resp(Resp { side, len_max })),
        (select(vec![DNS_PROGRAM, HTTP2_PROGRAM, MQTT_PROGRAM, DNS_CLASSIC]), len_max())
            .prop_map(|(file, len_max)| program(file, len_max)),
    ]
}

/// Streams that are messages for the most part.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![bytes(), resp::values(), resp::commands()]
}

proptest! {
    #[test]
    fn what_is_seen_changes_no_answer_and_a_decision_is_kept_by_every_longer_beginning(
        framing in framing(),
        bytes in stream(),
    ) {
        let (mut decided, mut seen) = (None, Seen::default());
        for end in 0..=bytes.len() {
            let fresh = framing.measure(&bytes[..end], &mut Seen::default());
            match decided {
                Some(before) => prop_assert_eq!(fresh, before, "at {}", end),
                None => {
                    prop_assert_eq!(framing.measure(&bytes[..end], &mut seen), fresh, "at {}", end);
                    decided = (fresh != Ok(None)).then_some(fresh);
                }
            }
        }
    }

    #[test]
    fn cuts_change_no_message(
        framing in framing(),
        bytes in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = tell(&framing, &bytes, []);
        prop_assert_eq!(tell(&framing, &bytes, cuts), whole.clone());
        prop_assert_eq!(tell(&framing, &bytes, 0..bytes.len()), whole);
    }

    #[test]
    fn the_messages_are_those_of_the_reference(framing in framing(), bytes in stream()) {
        let (lens, end) = tell(&framing, &bytes, []);
        let (lens_of_reference, end_of_reference) = reference::tell(&framing, &bytes);
        prop_assert_eq!(lens, lens_of_reference);
        // Of RESP we see early that what is announced can't fit; the reference waits for it.
        let early = matches!(framing, Framing::Resp(_)) && end == Err(FrameError::TooLong);
        prop_assert!(early || end.is_err() == end_of_reference.is_err(), "{:?} {:?}", end, end_of_reference);
    }

    #[test]
    fn a_limit_changes_nothing_but_what_is_too_long(
        side in select(vec![Side::Commands, Side::Answers]),
        bytes in prop_oneof![resp::values(), resp::commands()],
        len_max in 1_usize..100,
    ) {
        let measure = |len_max| Resp { side, len_max }.measure(&bytes, &mut Seen::default());
        let answer = measure(len_max);
        match measure(usize::MAX) {
            Ok(Some(len)) if len <= len_max => prop_assert_eq!(answer, Ok(Some(len))),
            Ok(Some(_)) => prop_assert_eq!(answer, Err(FrameError::TooLong)),
            Ok(None) if bytes.len() >= len_max => prop_assert_eq!(answer, Err(FrameError::TooLong)),
            Ok(None) => prop_assert!(matches!(answer, Ok(None) | Err(FrameError::TooLong))),
            Err(error) => prop_assert!(answer == Err(error) || answer == Err(FrameError::TooLong)),
        }
    }
}

/// The square of these bytes is more than a test program has time for.
#[test]
fn a_message_that_comes_byte_by_byte_costs_no_more_than_its_bytes() {
    const BYTES: usize = 1 << 20;
    let mut line = vec![b'x'; BYTES];
    line.extend(b"\r\n");
    let mut simple = line.clone();
    simple[0] = b'+';
    let mut values = format!("*{}\r\n", BYTES / 4).into_bytes();
    values.extend(b"_\r\n".repeat(BYTES / 4));
    let mut blank = b"\r\n".repeat(BYTES / 2);
    blank.extend(b"PING\r\n");
    let len_max = 2 * BYTES;
    for (framing, message) in [
        (Framing::Line(Line { len_max }), &line),
        (Framing::Resp(Resp { side: Side::Commands, len_max }), &line),
        (Framing::Resp(Resp { side: Side::Answers, len_max }), &simple),
        (Framing::Resp(Resp { side: Side::Answers, len_max }), &values),
        (Framing::Resp(Resp { side: Side::Commands, len_max }), &blank),
    ] {
        assert_eq!(tell(&framing, message, 0..message.len()), (vec![message.len()], Ok(())));
    }
}

#[test]
fn each_error_has_a_name_of_its_own() {
    assert!(FrameError::ALL.iter().map(|error| error.index()).eq([0, 1, 2, 3, 4, 5, 6]));
    let mut names: Vec<&str> = FrameError::ALL.iter().map(|error| error.name()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}
