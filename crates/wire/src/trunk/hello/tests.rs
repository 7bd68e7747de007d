//! The hello: that it comes back as it was, and that nothing else is taken for one.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Key, Name, Nonce, Offer, auth};
use super::*;
use crate::proxy::{Accept, UnixPath, tlvs};

/// Both sides of one connection: the dialer's session and the acceptor's.
fn sessions(nonce: u8) -> (Session, Session) {
    let (key, nonces) = (Key::from_bytes([7; 32]), [Nonce([nonce; 32]), Nonce([!nonce; 32])]);
    let (dialer, message) = auth::begin("a".parse().unwrap(), "b".parse().unwrap(), nonces[0]);
    let (_, introduced) = auth::introduction(message.as_bytes()).unwrap().unwrap();
    let (acceptor, message) = introduced.challenge(&key, nonces[1]);
    let (_, message, dialer) = dialer.handle(message.as_bytes(), &key, Offer::default()).unwrap().unwrap();
    let (_, accepted, message, _) = acceptor.handle(message.as_bytes(), 0).unwrap().unwrap();
    let (_, dialled, _) = dialer.handle(message.as_bytes()).unwrap().unwrap();
    (dialled, accepted)
}

fn path(names: &[&str]) -> Path {
    let mut path = Path::EMPTY;
    names.iter().for_each(|name| path.push(name.parse().unwrap()).unwrap());
    path
}

fn example() -> Hello {
    Hello {
        client: Header::inet("198.51.100.7:40000".parse().unwrap(), "192.0.2.1:443".parse().unwrap()),
        destination: "db.internal:5432".parse().unwrap(),
        path: path(&["mumbai", "pune"]),
        deadline_ms: 5000,
        trace: TraceId(*b"0123456789abcdef"),
    }
}

/// The example without its MAC, whose TLV starts at the end.
fn unsealed() -> Vec<u8> {
    let encoded = encode(&example(), &sessions(1).0);
    encoded.as_bytes()[..encoded.as_bytes().len() - 35].to_vec()
}

/// What the acceptor says of these bytes, once they have the right length and MAC.
fn sealed(unsealed: &[u8]) -> Result<Hello, HelloError> {
    let (dialer, acceptor) = sessions(1);
    let encoded = fuzz_sealed(unsealed, &dialer).unwrap();
    decode(encoded.as_bytes(), &acceptor).map(|it| it.expect("complete").1)
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// A hello with these TLVs, up to its MAC.
fn with_tlvs(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let addresses = [198, 51, 100, 7, 192, 0, 2, 1, 0x9c, 0x40, 1, 0xbb];
    let mut bytes = [&v2::SIGNATURE[..], &[0x21, 0x11, 0, 0], &addresses].concat();
    tlvs.iter().for_each(|(kind, value)| bytes.extend(tlv(*kind, value)));
    bytes
}

const DESTINATION: (u8, &[u8]) = (kind::DESTINATION, b"\x04\0\x50\x0a\x03\0\x02");
const PATH: (u8, &[u8]) = (kind::PATH, b"\x06mumbai");
const DEADLINE: (u8, &[u8]) = (kind::DEADLINE, &[0, 0, 0, 9]);
const TRACE: (u8, &[u8]) = (kind::TRACE, &[3; 16]);

#[test]
fn tlvs_are_what_the_page_says() {
    let hello = sealed(&with_tlvs(&[DESTINATION, PATH, DEADLINE, TRACE])).unwrap();
    let destination = "10.3.0.2:80".parse().unwrap();
    let client = example().client;
    assert_eq!(hello, Hello { client, destination, path: path(&["mumbai"]), deadline_ms: 9, trace: TraceId([3; 16]) });
    assert_eq!(sealed(&with_tlvs(&[DESTINATION, DEADLINE, TRACE])).unwrap().path, Path::EMPTY);
    assert_eq!(hello.trace.to_string(), "03".repeat(16));
}

#[test]
fn every_flipped_bit_is_refused_at_once() {
    let (dialer, acceptor) = sessions(1);
    for client in [example().client, Header::Local] {
        let encoded = encode(&Hello { client, ..example() }, &dialer);
        for bit in 0..encoded.as_bytes().len() * 8 {
            let mut bytes = encoded.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, &acceptor).is_err(), "bit {bit}");
            bytes.extend([0xEF; 600]);
            assert!(decode(&bytes, &acceptor).is_err(), "bit {bit}, more behind it");
        }
    }
}

#[test]
fn a_hello_of_another_connection_or_direction_is_refused() {
    let (dialer, acceptor) = sessions(1);
    let (other_dialer, other_acceptor) = sessions(2);
    let sent = encode(&example(), &dialer);
    for not_meant in [&dialer, &other_acceptor, &other_dialer] {
        assert_eq!(decode(sent.as_bytes(), not_meant).unwrap_err(), HelloError::MacWrong);
    }
    let back = encode(&example(), &acceptor);
    assert_eq!(decode(back.as_bytes(), &acceptor).unwrap_err(), HelloError::MacWrong);
    assert_eq!(decode(back.as_bytes(), &dialer), Ok(Some((back.as_bytes().len(), example()))));
}

#[test]
fn tlvs_out_of_order_or_twice_are_refused() {
    for tlvs in [
        &[DEADLINE, DESTINATION, TRACE][..],
        &[DESTINATION, DESTINATION, DEADLINE, TRACE],
        &[DESTINATION, DEADLINE, DEADLINE, TRACE],
        &[DESTINATION, DEADLINE, TRACE, TRACE],
        &[DESTINATION, DEADLINE, TRACE, (0xE9, b""), (0xE9, b"")],
        &[DESTINATION, DEADLINE, TRACE, (0xE9, b""), (0xE8, b"")],
        &[DESTINATION, DEADLINE, TRACE, (0xEF, &[0; 32])],
    ] {
        assert_eq!(sealed(&with_tlvs(tlvs)).unwrap_err(), HelloError::TlvOrder, "{tlvs:?}");
    }
}

#[test]
fn unknown_types_are_skipped_or_refused_by_their_number() {
    let with = |kind, value| sealed(&with_tlvs(&[DESTINATION, DEADLINE, TRACE, (kind, value)]));
    let known = sealed(&with_tlvs(&[DESTINATION, DEADLINE, TRACE]));
    for kind in 0xE8..=0xEE {
        assert_eq!(with(kind, &[1; 100]), known, "{kind:#x}");
    }
    for kind in (0xE4..=0xE7).chain(0xF0..=0xFF) {
        assert_eq!(with(kind, &[1; 100]), Err(HelloError::TlvUnknown), "{kind:#x}");
    }
    for kind in 1..0xE0 {
        let refused = sealed(&with_tlvs(&[(kind, &[0; 4]), DESTINATION, DEADLINE, TRACE]));
        assert_eq!(refused, Err(HelloError::TlvUnknown), "{kind:#x}");
    }
    assert_eq!(sealed(&with_tlvs(&[(0, b""), DESTINATION, DEADLINE, TRACE])), Err(HelloError::TlvOrder));
}

#[test]
fn what_every_hello_has_is_missed() {
    for tlvs in [&[][..], &[DEADLINE, TRACE], &[DESTINATION, TRACE], &[DESTINATION, DEADLINE], &[PATH]] {
        assert_eq!(sealed(&with_tlvs(tlvs)).unwrap_err(), HelloError::TlvMissing);
    }
    let (dialer, acceptor) = sessions(1);
    let mut without_mac = with_tlvs(&[DESTINATION, DEADLINE, TRACE]);
    let len = u8::try_from(without_mac.len() - 16).unwrap();
    without_mac[15] = len;
    assert_eq!(decode(&without_mac, &acceptor).unwrap_err(), HelloError::MacMissing);
    for len in [0, 16, 31, 33] {
        let mut bytes = [&without_mac[..], &tlv(kind::MAC, &vec![0; len])].concat();
        bytes[15] = u8::try_from(bytes.len() - 16).unwrap();
        let mac = dialer.sign(&bytes[..bytes.len() - len.min(32)]);
        let at = bytes.len() - len.min(32);
        bytes[at..].copy_from_slice(&mac.as_bytes()[..len.min(32)]);
        assert_eq!(decode(&bytes, &acceptor).unwrap_err(), HelloError::TlvMalformed, "{len}");
    }
}

#[test]
fn values_are_checked_behind_a_right_code() {
    for (place, value, error) in [
        (0, &b""[..], HelloError::DestinationInvalid),
        (0, b"\x04\0\0\x0a\x03\0\x02", HelloError::DestinationInvalid),
        (0, b"\x01\0\x50a b", HelloError::DestinationInvalid),
        (1, b"", HelloError::PathInvalid),
        (1, b"\x06Mumbai", HelloError::PathInvalid),
        (2, &[0; 3], HelloError::TlvMalformed),
        (2, &[0; 5], HelloError::TlvMalformed),
        (3, &[0; 15], HelloError::TlvMalformed),
        (3, &[0; 17], HelloError::TlvMalformed),
    ] {
        let mut tlvs = [DESTINATION, PATH, DEADLINE, TRACE];
        tlvs[place].1 = value;
        assert_eq!(sealed(&with_tlvs(&tlvs)).unwrap_err(), error, "{place} {value:?}");
    }
}

#[test]
fn clients_that_no_hello_has_are_refused() {
    let (_, acceptor) = sessions(1);
    for client in [[0x20, 0x11], [0x21, 0x00], [0x21, 0x31], [0x21, 0x12], [0x22, 0x11], [0x31, 0x11], [0x20, 0x01]] {
        let mut bytes = unsealed();
        bytes[12..14].copy_from_slice(&client);
        assert_eq!(sealed(&bytes).unwrap_err(), HelloError::ClientInvalid, "{client:x?}");
        assert!(decode(&bytes[..14], &acceptor).is_err(), "{client:x?}: as soon as it has come");
    }
    for (stranger, error) in [
        (&b"G"[..], HelloError::NotHello),
        (b"PROXY TCP4", HelloError::NotHello),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x03\xf1", HelloError::TooLong),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", HelloError::TooLong),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b", HelloError::TlvMalformed),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x00", HelloError::MacMissing),
    ] {
        assert_eq!(decode(stranger, &acceptor).unwrap_err(), error, "{stranger:?}");
    }
}

#[test]
fn a_client_of_a_unix_socket_is_without_an_address() {
    let (dialer, acceptor) = sessions(1);
    let unnamed = Header::Unix { source: UnixPath::UNNAMED, destination: UnixPath::new(b"/run/x").unwrap() };
    let encoded = encode(&Hello { client: unnamed, ..example() }, &dialer);
    let (_, hello) = decode(encoded.as_bytes(), &acceptor).unwrap().unwrap();
    assert_eq!(hello, Hello { client: Header::Local, ..example() });
}

#[test]
fn the_longest_hello_is_within_the_bound() {
    let host = format!("{}.{}", ["a".repeat(63).as_str(); 3].join("."), "b".repeat(61));
    let name = "z".repeat(64);
    let longest = Hello {
        client: Header::inet("[2001:db8::1]:1".parse().unwrap(), "192.0.2.1:443".parse().unwrap()),
        destination: Destination::name(&host, 65535).unwrap(),
        path: path(&[name.as_str(); 8]),
        ..example()
    };
    let (dialer, acceptor) = sessions(1);
    let encoded = encode(&longest, &dialer);
    assert_eq!(encoded.as_bytes().len(), WRITTEN_LEN_MAX);
    assert_eq!(decode(encoded.as_bytes(), &acceptor), Ok(Some((WRITTEN_LEN_MAX, longest))));

    // A later version may add to it, up to the last byte.
    let mut bytes = with_tlvs(&[DESTINATION, DEADLINE, TRACE]);
    bytes.extend(tlv(0xE8, &vec![1; LEN_MAX - bytes.len() - 3 - 35]));
    assert_eq!(fuzz_sealed(&bytes, &dialer).unwrap().as_bytes().len(), LEN_MAX);
    assert!(sealed(&bytes).is_ok());
}

#[test]
fn a_tool_that_knows_the_proxy_protocol_reads_the_client() {
    let encoded = encode(&example(), &sessions(1).0);
    let decoded = proxy::decode(encoded.as_bytes(), Accept::V2).unwrap().unwrap();
    assert_eq!((decoded.header, decoded.len), (example().client, encoded.as_bytes().len()));
    let kinds: Vec<u8> = tlvs(encoded.as_bytes()).map(|tlv| tlv.unwrap().kind).collect();
    assert_eq!(kinds, [0xE0, 0xE1, 0xE2, 0xE3, 0xEF]);
}

#[test]
fn each_error_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = HelloError::ALL.iter().map(|error| error.name()).collect();
    assert_eq!(names.len(), HelloError::ALL.len());
}

fn socket_addr() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn hello() -> impl Strategy<Value = Hello> {
    let client = prop_oneof![
        1 => Just(Header::Local),
        4 => (socket_addr(), socket_addr()).prop_map(|(source, destination)| Header::inet(source, destination)),
    ];
    let destination = prop_oneof![
        socket_addr().prop_filter_map("can't be dialled", |address| Destination::address(address).ok()),
        ("([a-z0-9_-]{1,20}\\.){0,5}[a-z][a-z0-9_-]{0,20}", 1..=u16::MAX)
            .prop_map(|(host, port)| Destination::name(&host, port).unwrap()),
    ];
    let path = vec("[a-z0-9.-]{1,64}", 0..=8).prop_map(|names| {
        let mut path = Path::EMPTY;
        names.iter().for_each(|name| path.push(name.parse::<Name>().unwrap()).unwrap());
        path
    });
    (client, destination, path, any::<u32>(), any::<[u8; 16]>()).prop_map(
        |(client, destination, path, deadline_ms, trace)| Hello {
            client,
            destination,
            path,
            deadline_ms,
            trace: TraceId(trace),
        },
    )
}

/// TLVs of which most are known, and some are in order.
fn some_tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let value = prop_oneof![
        Just(DESTINATION.1.to_vec()),
        Just(PATH.1.to_vec()),
        Just(DEADLINE.1.to_vec()),
        Just(TRACE.1.to_vec()),
        vec(any::<u8>(), 0..40),
    ];
    vec((prop_oneof![0xE0..=0xEFu8, any::<u8>()], value), 0..6)
}

/// How far a stream of noise gets before it is noise.
const STARTS: &[&[u8]] = &[b"", &v2::SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x20\0\x02", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"];

proptest! {
    #[test]
    fn round_trip(hello in hello(), trailing in vec(any::<u8>(), 0..40)) {
        let (dialer, acceptor) = sessions(1);
        let encoded = encode(&hello, &dialer);
        let len = encoded.as_bytes().len();
        for end in 0..len {
            prop_assert_eq!(decode(&encoded.as_bytes()[..end], &acceptor), Ok(None), "{} bytes", end);
        }
        let stream = [encoded.as_bytes(), &trailing].concat();
        prop_assert_eq!(decode(&stream, &acceptor), Ok(Some((len, hello))));
    }

    #[test]
    fn what_is_taken_is_written_in_the_same_way(tlvs in some_tlvs(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
        let (dialer, acceptor) = sessions(1);
        let tlvs: Vec<_> = tlvs.iter().map(|(kind, value)| (*kind, &value[..])).collect();
        let mut bytes = with_tlvs(&tlvs);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let encoded = fuzz_sealed(&bytes, &dialer).unwrap();
        if let Ok(Some((len, hello))) = decode(encoded.as_bytes(), &acceptor) {
            prop_assert_eq!(len, encoded.as_bytes().len());
            let again = encode(&hello, &dialer);
            prop_assert_eq!(decode(again.as_bytes(), &acceptor), Ok(Some((again.as_bytes().len(), hello))));
        }
    }

    #[test]
    fn noise_is_decided_within_the_bound(
        start in prop::sample::select(STARTS),
        noise in vec(prop_oneof![any::<u8>(), 0xE0..=0xEFu8, Just(0)], 0..1100),
    ) {
        let (_, acceptor) = sessions(1);
        let stream = [start, &noise].concat();
        let mut settled = None;
        for end in 0..=stream.len() {
            let answer = decode(&stream[..end], &acceptor);
            match settled {
                Some(settled) => prop_assert_eq!(answer, settled),
                None if answer == Ok(None) => prop_assert!(end < LEN_MAX),
                None => {
                    prop_assert!(answer.is_err(), "noise was believed");
                    settled = Some(answer);
                }
            }
        }
    }
}
