//! What is refused, as early as it can be known, and by what name.

use super::*;

#[test]
fn other_protocols_are_refused_at_their_first_wrong_byte() {
    for (bytes, seen) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"POST / HTTP/1.1\r\n", 2),
        (b"PUT / HTTP/1.1\r\n", 2),
        (b"PRI * HTTP/2.0\r\n", 3),
        (b"PROPFIND / HTTP/1.1\r\n", 4),
        (b"\x16\x03\x01\x02\x00", 1),
        (b"SSH-2.0-OpenSSH", 1),
        (b"EHLO example.com\r\n", 1),
        (b"\0", 1),
        (b"\r\n\r\nQUIT\r\n", 5),
        (b"PROXY\r\n", 6),
        (b"proxy TCP4 ", 1),
    ] {
        assert_eq!(decode(&bytes[..seen - 1], Accept::ANY), Ok(None));
        for end in seen..=bytes.len() {
            assert_eq!(refused(&bytes[..end]), DecodeError::NotProxy, "{}", bytes.escape_ascii());
        }
    }
}

#[test]
fn lines_are_refused_before_they_end() {
    for prefix in [
        "PROXY X",
        "PROXY TX",
        "PROXY TCP5",
        "PROXY TCP4x",
        "PROXY TCP4 x",
        "PROXY TCP4 :",
        "PROXY TCP4 1111111111111111",
        "PROXY TCP4 1.2.3.256 ",
        "PROXY TCP4 1.2.3.4 1.2.3.4 x",
        "PROXY TCP4 1.2.3.4 1.2.3.4 123456",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 ",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\rx",
    ] {
        let bytes = prefix.as_bytes();
        assert_eq!(decode(&bytes[..bytes.len() - 1], Accept::ANY), Ok(None), "{prefix:?}");
        assert_eq!(refused(bytes), DecodeError::LineMalformed, "{prefix:?}");
    }
}

#[test]
fn a_version_that_is_left_out_is_refused_and_named_once_certain() {
    let neither = Accept { v1: false, v2: false };
    for (bytes, certain, accepts) in
        [(b"PROXY UNKNOWN\r\n".to_vec(), 6, [Accept::V2, neither]), (v2(0x20, 0, &[]), 12, [Accept::V1, neither])]
    {
        for accept in accepts {
            assert_eq!(decode(&[], accept), Ok(None));
            for end in 1..=bytes.len() {
                let expected = if end < certain { DecodeError::NotProxy } else { DecodeError::VersionRefused };
                assert_eq!(decode(&bytes[..end], accept), Err(expected), "{accept:?} {end}");
            }
        }
    }
}

#[test]
fn reasons_are_stable_kebab_case_and_distinct() {
    let reasons = [
        (DecodeError::NotProxy, "not-proxy"),
        (DecodeError::VersionRefused, "version-refused"),
        (DecodeError::LineMalformed, "line-malformed"),
        (DecodeError::TooLong, "too-long"),
        (DecodeError::VersionUnknown, "version-unknown"),
        (DecodeError::CommandUnknown, "command-unknown"),
        (DecodeError::FamilyUnknown, "family-unknown"),
        (DecodeError::Datagram, "datagram"),
        (DecodeError::AddressShort, "address-short"),
        (DecodeError::TlvMalformed, "tlv-malformed"),
        (DecodeError::ChecksumMismatch, "checksum-mismatch"),
    ];
    for (error, reason) in reasons {
        assert_eq!(error.reason(), reason);
    }
}
