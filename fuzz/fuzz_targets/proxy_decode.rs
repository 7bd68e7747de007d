//! The PROXY protocol decoder against arbitrary bytes. It may not panic, and must keep its contract:
//! - the answer at a prefix is kept by every longer one, so how a stream is split cannot matter;
//! - a header completes at its last byte, and before [`LEN_MAX`] bytes have come the decoder has decided;
//! - accepting both versions is accepting either;
//! - what was decoded says the same once it is encoded in either version.

#![no_main]

use libfuzzer_sys::fuzz_target;
use midmile_wire::proxy::{Accept, DecodeError, Decoded, Header, LEN_MAX, Version, decode, encode, tlvs};

type Answer = Result<Option<Decoded>, DecodeError>;

fuzz_target!(|data: &[u8]| {
    let answer = check_splits(data, Accept::ANY);
    check_versions(data, &answer);
    match answer {
        Ok(Some(decoded)) => {
            check_round_trip(&decoded);
            check_tlvs(&data[..decoded.len], decoded.version);
        }
        Ok(None) | Err(_) => {
            // No header, so an error, if anything, and at most one; what counts is that it ends.
            assert!(tlvs(data).filter(Result::is_err).count() <= 1);
        }
    }
});

/// Feeds the stream byte by byte until the decoder decides; what it says then must hold for all longer prefixes.
fn check_splits(data: &[u8], accept: Accept) -> Answer {
    let whole = decode(data, accept);
    let decided_at = (0..=data.len()).find(|&end| decode(&data[..end], accept) != Ok(None));
    let Some(end) = decided_at else {
        assert!(data.len() < LEN_MAX, "still undecided after {} bytes", data.len());
        return whole;
    };
    let first = decode(&data[..end], accept);
    if let Ok(Some(decoded)) = first {
        assert_eq!(decoded.len, end, "complete, but not at the last byte of the header");
    }
    for longer in [end + 1, end + 2, end.midpoint(data.len()), data.len()] {
        let answer = decode(&data[..longer.min(data.len())], accept);
        assert_eq!(answer, first, "{end} bytes were enough to decide, {longer} decide otherwise");
    }
    whole
}

fn check_versions(data: &[u8], either: &Answer) {
    let v1 = check_splits_of_one(data, Accept::V1);
    let v2 = check_splits_of_one(data, Accept::V2);
    match either {
        Ok(Some(Decoded { version: Version::V1, .. })) => assert!(v1 == *either && v2.is_err()),
        Ok(Some(Decoded { version: Version::V2, .. })) => assert!(v2 == *either && v1.is_err()),
        Ok(None) => assert!(v1 == Ok(None) || v2 == Ok(None)),
        Err(_) => assert!(v1.is_err() && v2.is_err()),
    }
}

/// As [`check_splits`], but only that an error stays one: a refused version is named when enough of it has come.
fn check_splits_of_one(data: &[u8], accept: Accept) -> Answer {
    let whole = decode(data, accept);
    if (0..data.len().min(16)).any(|end| decode(&data[..end], accept).is_err()) {
        assert!(whole.is_err(), "a prefix is refused, the whole is not");
    }
    whole
}

fn check_round_trip(decoded: &Decoded) {
    for version in [Version::V1, Version::V2] {
        let encoded = encode(version, &decoded.header);
        let header = match (version, decoded.header) {
            (Version::V1, Header::Unix { .. }) => Header::Local,
            (_, header) => header,
        };
        let len = encoded.as_bytes().len();
        assert_eq!(decode(encoded.as_bytes(), Accept::ANY), Ok(Some(Decoded { header, version, len })));
    }
    if let Header::Inet { source, destination } = decoded.header {
        assert_eq!(Header::inet(source, destination), decoded.header, "not in normal form");
    }
}

/// The TLVs of a header that was accepted are all in order, and with their heads of 3 bytes make up its end.
fn check_tlvs(header: &[u8], version: Version) {
    let mut len = 0;
    for tlv in tlvs(header) {
        len += 3 + tlv.expect("decode has checked it").value.len();
    }
    assert!(len <= header.len());
    assert!(len == 0 || version == Version::V2);
}
