//! What is true of every header, and of every input.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Bytes behind a header: none, or some that could be taken for more of it.
fn trailing() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(b"\r\n".to_vec()), Just(b"PROXY ".to_vec()), Just(v2::SIGNATURE.to_vec()), vec(any::<u8>(), 0..40)]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(IpAddr::V4),
        any::<Ipv4Addr>().prop_map(|ip| IpAddr::V6(ip.to_ipv6_mapped())),
        any::<Ipv6Addr>().prop_map(IpAddr::V6),
        // Runs of zeros, which the text form shortens.
        any::<(u16, u16)>().prop_map(|(a, b)| IpAddr::V6(Ipv6Addr::new(a, 0, 0, b, 0, 0, 0, a))),
    ]
}

fn socket_addr() -> impl Strategy<Value = SocketAddr> {
    (ip(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn inet_header() -> impl Strategy<Value = Header> {
    (socket_addr(), socket_addr()).prop_map(|(source, destination)| Header::inet(source, destination))
}

fn unix_path() -> impl Strategy<Value = UnixPath> {
    vec(any::<u8>(), 0..=UnixPath::LEN).prop_map(|name| UnixPath::new(&name).unwrap())
}

fn header() -> impl Strategy<Value = Header> {
    prop_oneof![
        1 => Just(Header::Local),
        8 => inet_header(),
        2 => (unix_path(), unix_path()).prop_map(|(source, destination)| Header::Unix { source, destination }),
    ]
}

/// TLVs of any kind but the checksum.
fn plain_tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = any::<u8>().prop_filter("not the checksum", |&kind| kind != 3);
    vec((kind, vec(any::<u8>(), 0..60)), 0..6)
}

/// A valid v2 header of TCP or Unix with TLVs, signed or not.
fn with_tlvs() -> impl Strategy<Value = (Vec<(u8, Vec<u8>)>, Vec<u8>)> {
    (header(), plain_tlvs(), any::<Option<prop::sample::Index>>())
        .prop_filter("has TLVs", |(header, ..)| *header != Header::Local)
        .prop_map(|(header, mut tlvs, signed)| {
            let position = signed.map(|index| index.index(tlvs.len() + 1));
            if let Some(position) = position {
                tlvs.insert(position, (3, vec![0; 4]));
            }
            let mut bytes = encode(Version::V2, &header).as_bytes().to_vec();
            let mut value_at = None;
            for (index, (kind, value)) in tlvs.iter().enumerate() {
                if position == Some(index) {
                    value_at = Some(bytes.len() + 3);
                }
                bytes.extend(tlv(*kind, value));
            }
            let payload_len = u16::try_from(bytes.len() - 16).unwrap();
            bytes[14..16].copy_from_slice(&payload_len.to_be_bytes());
            if let Some(at) = value_at {
                sign(&mut bytes, at);
                tlvs[position.unwrap()].1 = bytes[at..at + 4].to_vec();
            }
            (tlvs, bytes)
        })
}

/// A valid header of any kind.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        inet_header().prop_map(|header| encode(Version::V1, &header).as_bytes().to_vec()),
        "PROXY UNKNOWN( [ -~]{0,91})?\r\n".prop_map(String::into_bytes),
        header().prop_map(|header| encode(Version::V2, &header).as_bytes().to_vec()),
        with_tlvs().prop_map(|(_, bytes)| bytes),
    ]
}

/// How far a stream of noise gets before it is noise.
const STARTS: &[&[u8]] = &[
    b"",
    b"PROXY ",
    b"PROXY TCP4 ",
    b"PROXY TCP6 ",
    b"PROXY UNKNOWN",
    &v2::SIGNATURE,
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
];

/// Bytes that mean something in a line.
const LINE_BYTES: &[u8] = b"\r\n .:0139f";

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(LINE_BYTES)]
}

/// Whatever the input: no panic; nothing counted that is not there; and the answer at each prefix is kept by the
/// longer ones.
fn check_every_prefix(bytes: &[u8], accept: Accept) -> Result<(), TestCaseError> {
    let mut settled = None;
    for end in 0..=bytes.len() {
        let answer = decode(&bytes[..end], accept);
        match (&settled, &answer) {
            (None, Ok(None)) => prop_assert!(end < LEN_MAX),
            (None, Ok(Some(decoded))) => prop_assert_eq!(decoded.len, end),
            (None, Err(_)) => {}
            (Some(Err(_)), answer) => prop_assert!(answer.is_err(), "{:?} at {}", answer, end),
            (Some(settled), answer) => prop_assert_eq!(settled, answer),
        }
        if settled.is_none() && answer != Ok(None) {
            settled = Some(answer);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn v2_round_trip(header in header(), trailing in trailing()) {
        let encoded = encode(Version::V2, &header);
        let stream = [encoded.as_bytes(), &trailing].concat();
        let len = encoded.as_bytes().len();
        prop_assert_eq!(decode(&stream, Accept::V2), Ok(Some(Decoded { header, version: Version::V2, len })));
    }

    #[test]
    fn v1_round_trip(header in inet_header(), trailing in trailing()) {
        let encoded = encode(Version::V1, &header);
        let len = encoded.as_bytes().len();
        prop_assert!(len <= 104);
        let stream = [encoded.as_bytes(), &trailing].concat();
        prop_assert_eq!(decode(&stream, Accept::V1), Ok(Some(Decoded { header, version: Version::V1, len })));
    }

    #[test]
    fn v1_writes_ipv6_in_hexadecimal_only(header in inet_header()) {
        let encoded = encode(Version::V1, &header);
        let dots = encoded.as_bytes().iter().filter(|&&byte| byte == b'.').count();
        prop_assert_eq!(dots, if encoded.as_bytes().starts_with(b"PROXY TCP4") { 6 } else { 0 });
    }

    #[test]
    fn inet_is_of_one_family_and_stays_as_it_is(source in socket_addr(), destination in socket_addr()) {
        let Header::Inet { source: from, destination: to } = Header::inet(source, destination) else {
            panic!("not Inet");
        };
        prop_assert_eq!(from.is_ipv4(), to.is_ipv4());
        prop_assert_eq!(Header::inet(from, to), Header::Inet { source: from, destination: to });
        prop_assert_eq!(from.ip().to_canonical(), source.ip().to_canonical());
        prop_assert_eq!(to.ip().to_canonical(), destination.ip().to_canonical());
    }

    #[test]
    fn valid_headers_are_complete_at_their_last_byte(header in valid(), trailing in trailing()) {
        let complete = decode(&header, Accept::ANY);
        prop_assert_eq!(complete.map(|decoded| decoded.map(|decoded| decoded.len)), Ok(Some(header.len())));
        for end in 0..header.len() {
            prop_assert_eq!(decode(&header[..end], Accept::ANY), Ok(None), "{} bytes", end);
        }
        let stream = [&header[..], &trailing].concat();
        for end in header.len()..=stream.len() {
            prop_assert_eq!(decode(&stream[..end], Accept::ANY), complete, "{} bytes", end);
        }
    }

    #[test]
    fn tlvs_come_back_as_they_were((expected, header) in with_tlvs(), trailing in trailing()) {
        let stream = [&header[..], &trailing].concat();
        prop_assert_eq!(accepted(&stream).len, header.len());
        let found: Vec<_> = tlvs(&stream).map(|tlv| tlv.map(|tlv| (tlv.kind, tlv.value.to_vec()))).collect();
        prop_assert_eq!(found, expected.into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn mutations_keep_the_contract(
        header in valid(),
        trailing in trailing(),
        changes in vec((any::<prop::sample::Index>(), byte()), 1..4),
    ) {
        let mut stream = [header, trailing].concat();
        for (index, byte) in changes {
            let at = index.index(stream.len());
            stream[at] = byte;
        }
        for accept in [Accept::ANY, Accept::V1, Accept::V2] {
            check_every_prefix(&stream, accept)?;
        }
        tlvs(&stream).for_each(drop);
    }

    #[test]
    fn noise_keeps_the_contract(start in prop::sample::select(STARTS), noise in vec(any::<u8>(), 0..200)) {
        let stream = [start, &noise].concat();
        check_every_prefix(&stream, Accept::ANY)?;
        tlvs(&stream).for_each(drop);
    }
}
