//! RESP: what it is, and what it isn't.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::frame::{FrameError, Resp, Seen, Side};

fn measure(side: Side, bytes: impl AsRef<[u8]>) -> Result<Option<usize>, FrameError> {
    Resp { side, len_max: 100 }.measure(bytes.as_ref(), &mut Seen::default())
}

/// The values of a server: one after another, some of them with a byte that isn't what it was.
pub(super) fn values() -> impl Strategy<Value = Vec<u8>> {
    damaged(vec(value(), 1..5).prop_map(|values| values.concat()))
}

/// The commands of a client, likewise.
pub(super) fn commands() -> impl Strategy<Value = Vec<u8>> {
    let array = vec(string('$'), 1..5).prop_map(|strings| aggregate('*', strings.len(), &strings.concat()));
    let inline = "[ -~]{0,20}\r?\n".prop_map(String::into_bytes);
    let nothing = select(vec![&b"\r\n"[..], b" \t\n", b"*0\r\n", b"*-1\r\n"]).prop_map(<[u8]>::to_vec);
    damaged(vec(prop_oneof![array, inline, nothing], 1..6).prop_map(|commands| commands.concat()))
}

fn damaged(stream: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (stream, prop::option::weighted(0.3, (any::<Index>(), any::<u8>()))).prop_map(|(mut stream, damage)| {
        if let Some((place, byte)) = damage {
            *place.get_mut(&mut stream) = byte;
        }
        stream
    })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let line = (select(b"+-:_#,(".to_vec()), "[ -~]{0,10}").prop_map(|(kind, text)| {
        let mut line = vec![kind];
        line.extend(text.as_bytes());
        line.extend(b"\r\n");
        line
    });
    let null = select(vec![&b"$-1\r\n"[..], b"*-1\r\n"]).prop_map(<[u8]>::to_vec);
    let leaf = prop_oneof![3 => line, 1 => null, 1 => string('$'), 1 => string('!'), 1 => string('=')];
    leaf.prop_recursive(5, 20, 4, |inner| {
        let list = (select(vec!['*', '~', '>']), vec(inner.clone(), 0..4))
            .prop_map(|(kind, entries)| aggregate(kind, entries.len(), &entries.concat()));
        let map = vec((inner.clone(), inner.clone()), 0..3).prop_map(|entries| (entries.len(), flat(entries)));
        let about =
            (map.clone(), inner).prop_map(|((entries, flat), value)| [aggregate('|', entries, &flat), value].concat());
        prop_oneof![list, map.prop_map(|(entries, flat)| aggregate('%', entries, &flat)), about]
    })
}

fn flat(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    entries.into_iter().flat_map(|(key, value)| [key, value]).flatten().collect()
}

fn string(kind: char) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20).prop_map(move |text| {
        let mut string = aggregate(kind, text.len(), &text);
        string.extend(b"\r\n");
        string
    })
}

fn aggregate(kind: char, count: usize, behind: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{kind}{count}\r\n").into_bytes();
    bytes.extend(behind);
    bytes
}

#[test]
fn a_value_ends_where_its_last_part_does() {
    for whole in [
        "+OK\r\n",
        "-ERR unknown command\r\n",
        ":-1000\r\n",
        "$5\r\nhe\r\no\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*3\r\n:1\r\n$1\r\na\r\n*1\r\n+x\r\n",
        "*2\r\n*2\r\n*0\r\n_\r\n*-1\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5e3\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "!5\r\nERR x\r\n",
        "=7\r\ntxt:abc\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
        "~1\r\n#f\r\n",
        ">2\r\n+message\r\n+x\r\n",
        "|1\r\n+ttl\r\n:3600\r\n+value\r\n",
        "*2\r\n:1\r\n|1\r\n+ttl\r\n:3600\r\n:2\r\n",
        "|0\r\n|0\r\n*0\r\n",
    ] {
        for end in 0..whole.len() {
            assert_eq!(measure(Side::Answers, &whole[..end]), Ok(None), "{whole:?} up to {end}");
        }
        assert_eq!(measure(Side::Answers, whole), Ok(Some(whole.len())), "{whole:?}");
        assert_eq!(measure(Side::Answers, format!("{whole}+OK\r\n")), Ok(Some(whole.len())), "{whole:?}");
    }
}

#[test]
fn a_command_is_an_array_of_strings_or_a_line() {
    for whole in [
        "*1\r\n$4\r\nPING\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n",
        "PING\r\n",
        "SET k v\n",
        "+OK\r\n",
        "$5\r\n",
    ] {
        for end in 0..whole.len() {
            assert_eq!(measure(Side::Commands, &whole[..end]), Ok(None), "{whole:?} up to {end}");
        }
        assert_eq!(measure(Side::Commands, format!("{whole}*0\r\n")), Ok(Some(whole.len())), "{whole:?}");
    }
}

#[test]
fn what_a_server_does_not_answer_belongs_to_the_next_command() {
    for nothing in ["\r\n", "\n", " \t\x0b\x0c\r\n", "*0\r\n", "*-1\r\n", "\r\n*0\r\n\n"] {
        assert_eq!(measure(Side::Commands, nothing), Ok(None), "{nothing:?}");
        for command in ["PING\r\n", "*1\r\n$4\r\nPING\r\n"] {
            let whole = format!("{nothing}{command}");
            assert_eq!(measure(Side::Commands, &whole), Ok(Some(whole.len())), "{whole:?}");
        }
    }
}

/// Where another reader could take something else for the end, two would disagree on whose answer is whose.
#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for broken in [
        "x\r\n",
        "+OK\n",
        "+O\rK\r\n",
        "$2\r\nabc\r\n",
        "$1\r\na\nx",
        "$+1\r\n",
        "$01\r\n",
        "$-2\r\n",
        "$ 1\r\n",
        "$1\n",
        "$\r\n",
        "*1x\r\n",
        "%-1\r\n",
        "=-1\r\n",
        "*1\r\nx",
    ] {
        assert_eq!(measure(Side::Answers, broken), Err(FrameError::NotResp), "{broken:?}");
    }
    for broken in ["*1\r\n:1\r\n", "*1\r\n$-1\r\n", "*1\r\n*0\r\n", "*-2\r\n", "*1\r\nPING\r\n", "PI\0NG\r\n"] {
        assert_eq!(measure(Side::Commands, broken), Err(FrameError::NotResp), "{broken:?}");
    }
}

#[test]
fn what_is_streamed_is_refused_by_its_name() {
    for streamed in ["$?\r\n;4\r\nHell\r\n;0\r\n", "*?\r\n:1\r\n.\r\n", "%?\r\n", "~?", ";4\r\n", ".\r\n"] {
        assert_eq!(measure(Side::Answers, streamed), Err(FrameError::Streamed), "{streamed:?}");
    }
}

#[test]
fn what_cannot_fit_is_refused_before_it_comes() {
    // 100 bytes may come, and a value has 3 at least: 31 of them behind the 5 that announce them.
    assert_eq!(measure(Side::Answers, "*31\r\n"), Ok(None));
    assert_eq!(measure(Side::Answers, "*32\r\n"), Err(FrameError::TooLong));
    assert_eq!(measure(Side::Answers, "$93\r\n"), Ok(None));
    assert_eq!(measure(Side::Answers, "$94\r\n"), Err(FrameError::TooLong));
    assert_eq!(measure(Side::Answers, "*2\r\n*2\r\n*27\r\n"), Ok(None));
    assert_eq!(measure(Side::Answers, "*2\r\n*2\r\n*28\r\n"), Err(FrameError::TooLong));
    assert_eq!(measure(Side::Answers, "%18446744073709551615\r\n"), Err(FrameError::TooLong));
    assert_eq!(measure(Side::Answers, "$18446744073709551616"), Err(FrameError::TooLong));
    assert_eq!(measure(Side::Answers, "+".repeat(99)), Ok(None));
    assert_eq!(measure(Side::Answers, "+".repeat(100)), Err(FrameError::TooLong));
}

/// Depth costs nothing, so that it needs no bound.
#[test]
fn a_hundred_thousand_levels_are_no_matter() {
    let deep = "*1\r\n".repeat(100_000) + "_\r\n";
    let resp = Resp { side: Side::Answers, len_max: deep.len() };
    assert_eq!(resp.measure(deep.as_bytes(), &mut Seen::default()), Ok(Some(deep.len())));
}
