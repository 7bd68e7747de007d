//! A packet of IPv4 (RFC 791) or IPv6 (RFC 8200) with a TCP segment (RFC 9293).

use std::net::{IpAddr, SocketAddr};

use super::Way;

/// The window of every segment. None says how far to scale it, so it is what it says.
const WINDOW: u16 = u16::MAX;
const HOPS: u8 = 64;
const TCP: u8 = 6;
const TCP_BYTES: usize = 20;

/// Bits of a segment's flags.
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// A segment, and from whom to whom.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) way: Way,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// How much smaller than usual the window is.
    pub(super) narrower: u16,
    /// At most [`super::SEGMENT_MAX`] bytes.
    pub(super) payload: &'a [u8],
}

impl Packet<'_> {
    pub(super) fn len(&self) -> usize {
        let ip = if self.addresses().is_v4() { 20 } else { 40 };
        ip + TCP_BYTES + self.payload.len()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let addresses = self.addresses();
        let bytes = u16::try_from(TCP_BYTES + self.payload.len()).expect("a segment is short");
        addresses.write_header(bytes, out);
        let start = out.len();
        out.extend_from_slice(&self.way.from.port().to_be_bytes());
        out.extend_from_slice(&self.way.to.port().to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.ack.to_be_bytes());
        // The header's length in words of 4 bytes.
        out.extend_from_slice(&[5 << 4, self.flags]);
        out.extend_from_slice(&(WINDOW - self.narrower).to_be_bytes());
        // The checksum, which follows, and no urgent data.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.payload);
        let sum = addresses.sum() + u64::from(TCP) + u64::from(bytes);
        let checksum = fold(sum + add(&out[start..]));
        out[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
    }

    fn addresses(&self) -> Addresses {
        match (self.way.from, self.way.to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => Addresses::V4([from.ip().octets(), to.ip().octets()]),
            (from, to) => Addresses::V6([from, to].map(|end| match end.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            })),
        }
    }
}

/// From whom, to whom.
enum Addresses {
    V4([[u8; 4]; 2]),
    V6([[u8; 16]; 2]),
}

impl Addresses {
    fn is_v4(&self) -> bool {
        matches!(self, Self::V4(_))
    }

    /// The header of IP before so many bytes.
    fn write_header(&self, bytes: u16, out: &mut Vec<u8>) {
        match self {
            Self::V4(both) => {
                let start = out.len();
                out.extend_from_slice(&[0x45, 0]);
                out.extend_from_slice(&(bytes + 20).to_be_bytes());
                // No number, and not to be fragmented (RFC 6864, section 4.1).
                out.extend_from_slice(&[0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
                out.extend_from_slice(both.as_flattened());
                let checksum = fold(add(&out[start..]));
                out[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
            }
            Self::V6(both) => {
                out.extend_from_slice(&[0x60, 0, 0, 0]);
                out.extend_from_slice(&bytes.to_be_bytes());
                out.extend_from_slice(&[TCP, HOPS]);
                out.extend_from_slice(both.as_flattened());
            }
        }
    }

    /// Their part of the sum that TCP's checksum is made of (RFC 9293, section 3.1; RFC 8200, section 8.1).
    fn sum(&self) -> u64 {
        match self {
            Self::V4(both) => add(both.as_flattened()),
            Self::V6(both) => add(both.as_flattened()),
        }
    }
}

/// The sum of 16-bit words, the last one filled up with zeros (RFC 1071).
fn add(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>() + last
}

/// A sum as a checksum.
fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum >> 16) + (sum & u64::from(u16::MAX));
    }
    !u16::try_from(sum).expect("it was folded")
}
