//! Version 2: binary (§2.2).

use super::*;

#[test]
fn inet_is_byte_for_byte_that_of_the_specification() {
    let header = v2_inet_with(&[]);
    assert_eq!(accepted(&header), Decoded { header: example(), version: Version::V2, len: 28 });
    assert_eq!(encode(Version::V2, &example()).as_bytes(), header);
}

#[test]
fn inet6_is_byte_for_byte_that_of_the_specification() {
    let mut payload = vec![0x20, 0x01, 0x0d, 0xb8];
    payload.extend([0; 11]);
    payload.extend([1, 0x20, 0x01, 0x0d, 0xb8]);
    payload.extend([0; 11]);
    payload.extend([2, 0xff, 0xff, 0x00, 0x50]);
    let bytes = v2(0x21, 0x21, &payload);
    let header = inet("[2001:db8::1]:65535", "[2001:db8::2]:80");
    assert_eq!(accepted(&bytes), Decoded { header, version: Version::V2, len: 16 + 36 });
    assert_eq!(encode(Version::V2, &header).as_bytes(), bytes);
}

#[test]
fn unix_is_byte_for_byte_that_of_the_specification() {
    let mut payload = [0; 216];
    payload[108..119].copy_from_slice(b"/run/socket");
    let bytes = v2(0x21, 0x31, &payload);
    let header = Header::Unix { source: UnixPath::UNNAMED, destination: UnixPath::new(b"/run/socket").unwrap() };
    assert_eq!(accepted(&bytes), Decoded { header, version: Version::V2, len: 16 + 216 });
    assert_eq!(encode(Version::V2, &header).as_bytes(), bytes);
}

#[test]
fn local_is_accepted_whatever_its_family_and_payload() {
    assert_eq!(encode(Version::V2, &Header::Local).as_bytes(), v2(0x20, 0x00, &[]));
    for (family_protocol, payload) in [(0x00, &[][..]), (0x11, &[0xff; 12]), (0x12, &[1]), (0xff, &[0xff; 2048])] {
        let bytes = v2(0x20, family_protocol, payload);
        let len = 16 + payload.len();
        assert_eq!(accepted(&bytes), Decoded { header: Header::Local, version: Version::V2, len });
        assert_eq!(tlvs(&bytes).next(), None);
    }
}

#[test]
fn unspecified_family_or_protocol_is_local() {
    for family_protocol in [0x00, 0x01, 0x10, 0x20, 0x30] {
        let bytes = v2(0x21, family_protocol, &[0xff; 5]);
        let expected = Decoded { header: Header::Local, version: Version::V2, len: 21 };
        assert_eq!(accepted(&bytes), expected, "{family_protocol:#x}");
    }
}

#[test]
fn refuses_each_field_as_it_comes() {
    for (version_command, family_protocol, payload_len, error, seen) in [
        (0x11, 0x11, 12, DecodeError::VersionUnknown, 13),
        (0x31, 0x11, 12, DecodeError::VersionUnknown, 13),
        (0x22, 0x11, 12, DecodeError::CommandUnknown, 13),
        (0x2f, 0x11, 12, DecodeError::CommandUnknown, 13),
        (0x21, 0x41, 12, DecodeError::FamilyUnknown, 14),
        (0x21, 0x13, 12, DecodeError::FamilyUnknown, 14),
        (0x21, 0xff, 12, DecodeError::FamilyUnknown, 14),
        (0x21, 0x02, 0, DecodeError::Datagram, 14),
        (0x21, 0x12, 12, DecodeError::Datagram, 14),
        (0x21, 0x22, 36, DecodeError::Datagram, 14),
        (0x21, 0x32, 216, DecodeError::Datagram, 14),
        (0x21, 0x11, 11, DecodeError::AddressShort, 16),
        (0x21, 0x21, 35, DecodeError::AddressShort, 16),
        (0x21, 0x31, 215, DecodeError::AddressShort, 16),
        (0x21, 0x11, 2049, DecodeError::TooLong, 16),
        (0x20, 0x00, 2049, DecodeError::TooLong, 16),
        (0x20, 0x00, 65535, DecodeError::TooLong, 16),
    ] {
        let bytes = v2(version_command, family_protocol, &vec![0; payload_len]);
        assert_eq!(decode(&bytes[..seen - 1], Accept::ANY), Ok(None), "{error:?}");
        assert_eq!(refused(&bytes[..seen]), error);
        assert_eq!(refused(&bytes), error);
    }
}

#[test]
fn longest_header_is_accepted() {
    let bytes = v2_inet_with(&tlv(0x04, &[7; 2048 - 12 - 3]));
    assert_eq!(bytes.len(), LEN_MAX);
    assert_eq!(accepted(&bytes).len, LEN_MAX);
}

#[test]
fn yields_its_tlvs_in_order_and_nothing_behind_the_header() {
    let mut bytes = v2_inet_with(&[tlv(0x01, b"h2"), tlv(0xe0, b""), tlv(0x02, b"example.com")].concat());
    bytes.extend(tlv(0x05, b"data of the connection"));
    let found: Vec<_> = tlvs(&bytes).map(|tlv| tlv.map(|tlv| (tlv.kind, tlv.value)).unwrap()).collect();
    assert_eq!(found, [(0x01, &b"h2"[..]), (0xe0, b""), (0x02, b"example.com")]);
}

#[test]
fn refuses_malformed_tlvs_as_soon_as_they_show() {
    for (tlvs, seen) in [
        // One or two bytes cannot be a TLV: known from the payload's length.
        (vec![0x04], 16),
        (vec![0x04, 0], 16),
        // Runs past the payload by one byte; the second TLV does.
        (vec![0x04, 0, 2, 0xff], 28 + 3),
        ([tlv(0x04, b"ab"), vec![0x04, 0xff, 0xff, 0]].concat(), 28 + 5 + 3),
        ([tlv(0x04, b"ab"), vec![0]].concat(), 28 + 5),
        // A checksum of a wrong length.
        (tlv(0x03, &[0; 3]), 28 + 3),
        (tlv(0x03, &[0; 5]), 28 + 3),
    ] {
        let bytes = v2_inet_with(&tlvs);
        assert_eq!(decode(&bytes[..seen - 1], Accept::ANY), Ok(None), "{tlvs:?}");
        assert_eq!(refused(&bytes[..seen]), DecodeError::TlvMalformed, "{tlvs:?}");
        let items: Vec<_> = super::tlvs(&bytes).collect();
        assert_eq!(items.iter().position(Result::is_err), Some(items.len() - 1), "{tlvs:?}");
    }
}

#[test]
fn tlvs_of_what_is_no_complete_header() {
    let bytes = v2_inet_with(&tlv(0x04, b"abc"));
    for (bytes, error) in [
        (&b"GET / HTTP/1.1"[..], DecodeError::NotProxy),
        (&bytes[..15], DecodeError::TlvMalformed),
        (&bytes[..bytes.len() - 1], DecodeError::TlvMalformed),
        (&v2(0x21, 0x12, &[0; 12]), DecodeError::Datagram),
    ] {
        assert_eq!(tlvs(bytes).collect::<Vec<_>>(), [Err(error)]);
    }
    assert_eq!(tlvs(b"PROXY UNKNOWN\r\n").next(), None);
    assert_eq!(tlvs(b"").next(), None);
}
