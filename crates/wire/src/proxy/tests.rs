//! What the specification says, case by case; `properties` holds what is true of every input.

mod properties;

use super::crc32c::crc32c;
use super::*;

/// A v2 header: version and command, family and protocol, payload with its length in front.
fn v2(version_command: u8, family_protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    let mut header = v2::SIGNATURE.to_vec();
    header.extend([version_command, family_protocol]);
    header.extend(len.to_be_bytes());
    header.extend(payload);
    header
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    bytes
}

/// A v2 header for TCP over IPv4 with these bytes behind the addresses.
fn v2_inet_with(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&[192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb], tlvs].concat())
}

/// Puts the right checksum into the four bytes at `at`.
fn sign(header: &mut [u8], at: usize) {
    header[at..at + 4].fill(0);
    let sum = crc32c(&*header);
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

fn inet(source: &str, destination: &str) -> Header {
    Header::Inet { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn example() -> Header {
    inet("192.168.0.1:56324", "192.168.0.11:443")
}

fn accepted(bytes: &[u8]) -> Decoded {
    decode(bytes, Accept::ANY).expect("accepted").expect("complete")
}

fn refused(bytes: &[u8]) -> DecodeError {
    decode(bytes, Accept::ANY).expect_err("refused")
}

/// An AWS endpoint service's header: checksum, endpoint identity, padding. Written by another implementation, so it
/// says that our checksum is theirs (aws/elastic-load-balancing-tools, `Compatibility_AwsNetworkLoadBalancerTest`).
fn aws_endpoint() -> Vec<u8> {
    let addresses = [0xac, 0x1f, 0x07, 0x71, 0xac, 0x1f, 0x0a, 0x1f, 0xc8, 0xf2, 0x00, 0x50];
    let checksum = tlv(0x03, &[0xe8, 0xd6, 0x89, 0x2d]);
    let endpoint = tlv(0xea, b"\x01vpce-08d2bf15fac5001c9");
    let padding = tlv(0x04, &[0; 36]);
    v2(0x21, 0x11, &[&addresses[..], &checksum, &endpoint, &padding].concat())
}

mod version_1 {
    use super::*;

    fn line(rest: &str) -> Result<Option<Decoded>, DecodeError> {
        decode(format!("PROXY {rest}\r\n").as_bytes(), Accept::ANY)
    }

    #[test]
    fn example_of_the_specification() {
        let request = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";
        assert_eq!(accepted(request), Decoded { header: example(), version: Version::V1, len: 47 });
        assert_eq!(encode(Version::V1, &example()).as_bytes(), &request[..47]);
    }

    #[test]
    fn longest_lines_of_the_specification() {
        let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let tcp4 = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        let tcp6 = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
        let unknown = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
        assert_eq!((tcp4.len(), tcp6.len(), unknown.len()), (56, 104, 107));

        assert_eq!(accepted(tcp4.as_bytes()).header, inet("255.255.255.255:65535", "255.255.255.255:65535"));
        let full = format!("[{full}]:65535");
        assert_eq!(accepted(tcp6.as_bytes()).header, inet(&full, &full));
        assert_eq!(accepted(unknown.as_bytes()), Decoded { header: Header::Local, version: Version::V1, len: 107 });
        assert_eq!(encode(Version::V1, &accepted(tcp4.as_bytes()).header).as_bytes(), tcp4.as_bytes());
        assert_eq!(encode(Version::V1, &accepted(tcp6.as_bytes()).header).as_bytes(), tcp6.as_bytes());
    }

    #[test]
    fn unknown_ignores_the_rest_of_the_line() {
        for rest in ["UNKNOWN", "UNKNOWN ", "UNKNOWN \u{e9}\0 TCP4 1.2.3.4"] {
            let header = line(rest).unwrap().unwrap();
            assert_eq!((header.header, header.len), (Header::Local, rest.len() + 8), "{rest:?}");
        }
        for rest in ["UNKNOWNS", "UNKNOWN a\rb", "UNKNOWN a\nb", "UNKNOWN a\r\rb", "UNKNOW", "unknown"] {
            assert_eq!(line(rest), Err(DecodeError::LineMalformed), "{rest:?}");
        }
    }

    #[test]
    fn unknown_is_too_long_once_its_end_cannot_come_within_107_bytes() {
        let line = |len: usize| format!("{:x<len$}", "PROXY UNKNOWN ");
        assert_eq!(decode(line(105).as_bytes(), Accept::ANY), Ok(None));
        assert_eq!(accepted(format!("{}\r\n", line(105)).as_bytes()).len, 107);
        assert_eq!(refused(line(106).as_bytes()), DecodeError::TooLong);
        assert_eq!(refused(format!("{}\r\n", line(106)).as_bytes()), DecodeError::TooLong);
    }

    #[test]
    fn accepts_the_ways_to_write_an_address() {
        for (rest, header) in [
            ("TCP4 0.0.0.0 10.0.0.255 0 65535", inet("0.0.0.0:0", "10.0.0.255:65535")),
            ("TCP6 :: ::1 1 2", inet("[::]:1", "[::1]:2")),
            ("TCP6 2001:DB8::A 2001:0db8:0000::000b 1 2", inet("[2001:db8::a]:1", "[2001:db8::b]:2")),
            // What inet_ntop makes of mapped addresses; IPv4 to us, as both are.
            ("TCP6 ::ffff:1.2.3.4 ::ffff:102:305 1 2", inet("1.2.3.4:1", "1.2.3.5:2")),
            ("TCP6 ::ffff:1.2.3.4 2001:db8::1 1 2", inet("[::ffff:1.2.3.4]:1", "[2001:db8::1]:2")),
        ] {
            assert_eq!(line(rest).unwrap().unwrap().header, header, "{rest}");
        }
    }

    #[test]
    fn refuses_what_departs_from_the_form() {
        for rest in [
            // Protocol and spaces.
            "",
            "TCP",
            "TCP5 1.2.3.4 1.2.3.4 1 2",
            "tcp4 1.2.3.4 1.2.3.4 1 2",
            "UDP4 1.2.3.4 1.2.3.4 1 2",
            " TCP4 1.2.3.4 1.2.3.4 1 2",
            "TCP4  1.2.3.4 1.2.3.4 1 2",
            "TCP4 1.2.3.4  1.2.3.4 1 2",
            "TCP4 1.2.3.4 1.2.3.4  1 2",
            "TCP4 1.2.3.4 1.2.3.4 1  2",
            "TCP4 1.2.3.4 1.2.3.4 1 2 ",
            "TCP4\t1.2.3.4 1.2.3.4 1 2",
            "TCP4 1.2.3.4 1.2.3.4 1",
            "TCP4 1.2.3.4 1.2.3.4 1 2 3",
            // IPv4 addresses.
            "TCP4 1.2.3 1.2.3.4 1 2",
            "TCP4 1.2.3.4.5 1.2.3.4 1 2",
            "TCP4 1.2.3.256 1.2.3.4 1 2",
            "TCP4 01.2.3.4 1.2.3.4 1 2",
            "TCP4 1.2.3.4 1.2.3.00 1 2",
            "TCP4 0x1.2.3.4 1.2.3.4 1 2",
            "TCP4 ::1 ::1 1 2",
            // IPv6 addresses.
            "TCP6 1.2.3.4 1.2.3.4 1 2",
            "TCP6 ::1 1.2.3.4 1 2",
            "TCP6 :::1 ::1 1 2",
            "TCP6 1::2::3 ::1 1 2",
            "TCP6 1:2:3:4:5:6:7 ::1 1 2",
            "TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2",
            "TCP6 ::00001 ::1 1 2",
            "TCP6 fe80::1%eth0 ::1 1 2",
            "TCP6 [::1] ::1 1 2",
            "TCP6 ::g ::1 1 2",
            "TCP6 0000:0000:0000:0000:0000:ffff:255.255.255.255 ::1 1 2",
            // Ports.
            "TCP4 1.2.3.4 1.2.3.4 65536 2",
            "TCP4 1.2.3.4 1.2.3.4 1 99999",
            "TCP4 1.2.3.4 1.2.3.4 100000 2",
            "TCP4 1.2.3.4 1.2.3.4 01 2",
            "TCP4 1.2.3.4 1.2.3.4 1 00",
            "TCP4 1.2.3.4 1.2.3.4 -1 2",
            "TCP4 1.2.3.4 1.2.3.4 +1 2",
            "TCP4 1.2.3.4 1.2.3.4 1 ",
            // Line ends.
            "TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "TCP4 1.2.3.4 1.2.3.4 1 2\r",
        ] {
            assert_eq!(line(rest), Err(DecodeError::LineMalformed), "{rest:?}");
        }
    }

    #[test]
    fn says_unknown_of_what_it_cannot_say() {
        let path = UnixPath::new(b"/run/socket").unwrap();
        for header in [Header::Local, Header::Unix { source: path, destination: path }] {
            assert_eq!(encode(Version::V1, &header).as_bytes(), b"PROXY UNKNOWN\r\n");
        }
    }

    #[test]
    fn writes_mapped_addresses_without_a_dot() {
        let header = Header::inet("1.2.3.4:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap());
        let encoded = encode(Version::V1, &header);
        assert_eq!(encoded.as_bytes(), b"PROXY TCP6 ::ffff:102:304 2001:db8::1 5 6\r\n");
    }
}

mod version_2 {
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
}

mod checksum {
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
}

mod refusal {
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
}

mod values {
    use super::*;

    #[test]
    fn inet_is_in_normal_form() {
        for (source, destination, expected) in [
            ("1.2.3.4:5", "6.7.8.9:10", inet("1.2.3.4:5", "6.7.8.9:10")),
            ("[::ffff:1.2.3.4]:5", "6.7.8.9:10", inet("1.2.3.4:5", "6.7.8.9:10")),
            ("1.2.3.4:5", "[::ffff:6.7.8.9]:10", inet("1.2.3.4:5", "6.7.8.9:10")),
            ("[::ffff:1.2.3.4]:5", "[::ffff:6.7.8.9]:10", inet("1.2.3.4:5", "6.7.8.9:10")),
            ("1.2.3.4:5", "[2001:db8::1]:10", inet("[::ffff:1.2.3.4]:5", "[2001:db8::1]:10")),
            ("[2001:db8::1]:5", "6.7.8.9:10", inet("[2001:db8::1]:5", "[::ffff:6.7.8.9]:10")),
            ("[fe80::1%3]:5", "[fe80::2%3]:10", inet("[fe80::1]:5", "[fe80::2]:10")),
            // IPv4-compatible addresses (RFC 4291, 2.5.5.1) are IPv6.
            ("[::1.2.3.4]:5", "6.7.8.9:10", inet("[::1.2.3.4]:5", "[::ffff:6.7.8.9]:10")),
        ] {
            assert_eq!(Header::inet(source.parse().unwrap(), destination.parse().unwrap()), expected);
        }
    }

    #[test]
    fn mixed_families_that_bypassed_the_constructor_are_sent_as_ipv6() {
        let header = inet("1.2.3.4:5", "[2001:db8::1]:6");
        for version in [Version::V1, Version::V2] {
            let decoded = accepted(encode(version, &header).as_bytes());
            assert_eq!(decoded.header, inet("[::ffff:1.2.3.4]:5", "[2001:db8::1]:6"));
        }
    }

    #[test]
    fn unix_path_names() {
        let full = [b'x'; 108];
        for name in [&b""[..], b"/run/socket", b"\0abstract", b"\0a\0b", &full] {
            assert_eq!(UnixPath::new(name).unwrap().name(), name);
        }
        assert_eq!(UnixPath::new(&[b'x'; 109]), None);
        assert_eq!(UnixPath::new(b"/run\0junk").unwrap().name(), b"/run");
        assert_eq!(UnixPath::UNNAMED.name(), b"");
    }
}
