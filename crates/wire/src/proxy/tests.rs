//! What the specification says, case by case; `properties` holds what is true of every input.

mod checksum;
mod properties;
mod refusal;
mod values;
mod version_1;
mod version_2;

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
