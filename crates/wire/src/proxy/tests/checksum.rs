//! The checksum of version 2 (§2.2.3).

use super::*;

/// RFC 3720, B.4, and the catalogue's check value.
#[test]
fn vectors() {
    let rising: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(&rising), 0x46dd_794e);
    assert_eq!(crc32c(b""), 0);
}

#[test]
fn of_another_implementation_is_verified() {
    let bytes = aws_endpoint();
    assert_eq!(accepted(&bytes).header, inet("172.31.7.113:51442", "172.31.10.31:80"));
    let kinds: Vec<_> = tlvs(&bytes).map(|tlv| tlv.unwrap().kind).collect();
    assert_eq!(kinds, [0x03, 0xea, 0x04]);
}

#[test]
fn any_flipped_bit_behind_the_fixed_bytes_is_noticed() {
    let len = aws_endpoint().len();
    // Save in the type of the checksum's TLV: as another type it is no checksum, and there is nothing to verify.
    for at in (16..len).filter(|&at| at != 28) {
        for bit in 0..8 {
            let mut bytes = aws_endpoint();
            bytes[at] ^= 1 << bit;
            let error = refused(&bytes);
            let expected = [DecodeError::ChecksumMismatch, DecodeError::TlvMalformed];
            assert!(expected.contains(&error), "byte {at} bit {bit}: {error:?}");
        }
    }
}

#[test]
fn is_verified_wherever_it_stands_but_only_once() {
    let noop = tlv(0x04, b"pad");
    let sum = tlv(0x03, &[0; 4]);
    for (tlvs, at) in [([&sum[..], &noop].concat(), 28 + 3), ([&noop[..], &sum].concat(), 28 + 6 + 3)] {
        let mut bytes = v2_inet_with(&tlvs);
        assert_eq!(refused(&bytes), DecodeError::ChecksumMismatch);
        sign(&mut bytes, at);
        // What follows the header is not part of the sum.
        bytes.extend(b"data");
        assert_eq!(accepted(&bytes).header, example());
    }
    let mut twice = v2_inet_with(&[&sum[..], &sum].concat());
    sign(&mut twice, 28 + 3);
    assert_eq!(refused(&twice), DecodeError::TlvMalformed);
}
