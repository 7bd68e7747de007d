//! Packets as a TUN device with offloads hands them over: a `virtio_net_hdr`, an IP header, and up to 64 KiB behind it.
//!
//! ```text
//!  0      1         2        4         6           8            10
//!  ┌──────┬─────────┬────────┬─────────┬───────────┬────────────┬───────────┬────────────┬─────────┐
//!  │flags │gso_type │hdr_len │gso_size │csum_start │csum_offset │ IP header │ TCP header │ payload │
//!  └──────┴─────────┴────────┴─────────┴───────────┴────────────┴───────────┴────────────┴─────────┘
//! ```
//! A super-packet stands for several segments of `gso_size` bytes. [`Packet::cut`] takes some of them out as a packet of their own,
//! as the wire would have carried them (struct virtio_net_hdr of linux/virtio_net.h; its numbers are in this machine's byte order).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// Bytes of the header before each packet.
pub(crate) const PREFIX: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the TCP checksum holds the sum of the pseudo-header alone.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4` and `VIRTIO_NET_HDR_GSO_TCPV6`; `0x80` beside them says ECN.
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_ECN: u8 = 0x80;
/// IANA's number of TCP.
const TCP: u8 = 6;
const IPV6_HEADER: usize = 40;
/// Flags of a TCP header (RFC 9293, section 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// A view of one packet, prefix and all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    bytes: &'a [u8],
    /// How a super-packet is made up; `None` for one that travels whole.
    gso: Option<Gso>,
}

/// Where the parts of a super-packet are. Offsets count from the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gso {
    tcp: usize,
    payload: usize,
    /// Payload bytes of each segment but the last.
    segment: usize,
}

/// What a TCP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpView {
    /// Who sent it.
    pub source: SocketAddr,
    /// Who it is for.
    pub destination: SocketAddr,
    /// Opens a connection.
    pub syn: bool,
    /// Acknowledges something.
    pub ack: bool,
    /// Ends a direction.
    pub fin: bool,
    /// Ends the connection.
    pub rst: bool,
    /// Bytes behind the header.
    pub payload: usize,
}

impl<'a> Packet<'a> {
    /// Looks at what was read from the device. A packet that isn't understood travels whole.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, gso: Gso::of(bytes) }
    }

    /// As how many packets it would cross a wire; at least one.
    pub(crate) fn segments(&self) -> usize {
        self.gso.map_or(1, |gso| (self.ip().len() - gso.payload).div_ceil(gso.segment).max(1))
    }

    /// Bytes that the segment takes on the wire, its IP and TCP headers among them.
    pub(crate) fn wire_bytes(&self, segment: usize) -> u64 {
        let bytes = match self.gso {
            None => self.ip().len(),
            Some(gso) => gso.payload + self.span(gso, &(segment..segment + 1)).len(),
        };
        u64::try_from(bytes).expect("a packet's length fits 64 bits")
    }

    /// Some of its segments as a packet of their own, with length, identification, sequence number, flags and checksums as if they
    /// had been sent alone.
    pub(crate) fn cut(&self, segments: Range<usize>) -> Box<[u8]> {
        let Some(gso) = self.gso else { return self.bytes.into() };
        if segments == (0..self.segments()) {
            return self.bytes.into();
        }
        let span = self.span(gso, &segments);
        let headers = PREFIX + gso.payload;
        let mut piece = Vec::with_capacity(headers + span.len());
        piece.extend_from_slice(&self.bytes[..headers]);
        piece.extend_from_slice(&self.bytes[PREFIX..][span.clone()]);
        if span.len() <= gso.segment {
            // A single segment is no super-packet: gso_type and gso_size are none.
            piece[1] = 0;
            piece[4..6].fill(0);
        }
        let last = segments.end == self.segments();
        let ip = &mut piece[PREFIX..];
        mend_tcp(&mut ip[gso.tcp..], span.start - gso.payload, segments.start == 0, last);
        let sum = mend_ip(ip, gso.tcp, segments.start);
        ip[gso.tcp + 16..gso.tcp + 18].copy_from_slice(&sum.to_be_bytes());
        piece.into_boxed_slice()
    }

    /// Its TCP header, if it has one.
    pub(crate) fn tcp(&self) -> Option<TcpView> {
        let ip = self.ip();
        let (header, source, destination) = addresses(ip)?;
        let tcp = ip.get(header..)?;
        let fixed = tcp.first_chunk::<20>()?;
        let flags = fixed[13];
        let length = usize::from(fixed[12] >> 4) * 4;
        Some(TcpView {
            source: SocketAddr::new(source, u16::from_be_bytes([fixed[0], fixed[1]])),
            destination: SocketAddr::new(destination, u16::from_be_bytes([fixed[2], fixed[3]])),
            syn: flags & SYN != 0,
            ack: flags & ACK != 0,
            fin: flags & FIN != 0,
            rst: flags & RST != 0,
            payload: tcp.len().checked_sub(length)?,
        })
    }

    fn ip(&self) -> &'a [u8] {
        self.bytes.get(PREFIX..).unwrap_or_default()
    }

    /// Where the payload of `segments` is, from the IP header on.
    fn span(&self, gso: Gso, segments: &Range<usize>) -> Range<usize> {
        let end = self.ip().len();
        let at = |segment: usize| (gso.payload + segment * gso.segment).min(end);
        at(segments.start)..at(segments.end)
    }
}

impl Gso {
    fn of(bytes: &[u8]) -> Option<Self> {
        let prefix = bytes.first_chunk::<PREFIX>()?;
        let ip = &bytes[PREFIX..];
        let number = |at: usize| usize::from(u16::from_ne_bytes([prefix[at], prefix[at + 1]]));
        let (segment, tcp) = (number(4), number(6));
        let version = ip.first()? >> 4;
        let shortest = match (prefix[1] & !GSO_ECN, version) {
            (GSO_TCP_V4, 4) => usize::from(ip[0] & 0x0f) * 4,
            (GSO_TCP_V6, 6) => IPV6_HEADER,
            _ => return None,
        };
        let length = usize::from(ip.get(tcp + 12)? >> 4) * 4;
        let payload = tcp + length;
        let sound = prefix[0] & NEEDS_CHECKSUM != 0
            && segment > 0
            && tcp >= shortest
            && shortest >= 20
            && length >= 20
            && payload <= ip.len();
        sound.then_some(Self { tcp, payload, segment })
    }
}

/// Length of the IP header up to TCP, source and destination.
fn addresses(ip: &[u8]) -> Option<(usize, IpAddr, IpAddr)> {
    match ip.first()? >> 4 {
        4 => {
            let header = ip.first_chunk::<20>()?;
            let [_, _, _, _, _, _, _, _, _, protocol, _, _, a, b, c, d, e, f, g, h] = *header;
            let source = Ipv4Addr::new(a, b, c, d).into();
            (protocol == TCP).then(|| (usize::from(header[0] & 0x0f) * 4, source, Ipv4Addr::new(e, f, g, h).into()))
        }
        6 => {
            let header = ip.first_chunk::<IPV6_HEADER>()?;
            let source: [u8; 16] = *header[8..].first_chunk()?;
            let destination: [u8; 16] = *header[24..].first_chunk()?;
            (header[6] == TCP).then(|| (IPV6_HEADER, Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into()))
        }
        _ => None,
    }
}

/// Moves the sequence number on by `offset`. What ends a message stays with the last piece, what answers congestion with the first
/// (RFC 3168, section 6.1.2).
fn mend_tcp(tcp: &mut [u8], offset: usize, first: bool, last: bool) {
    let offset = u32::try_from(offset).expect("a packet is shorter than 64 KiB");
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(offset);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        tcp[13] &= !(FIN | PSH);
    }
    if !first {
        tcp[13] &= !CWR;
    }
}

/// Sets length, identification and checksum of an IP header; answers the sum of the pseudo-header that TCP's checksum starts from.
fn mend_ip(ip: &mut [u8], tcp: usize, segment: usize) -> u16 {
    let total = u16::try_from(ip.len()).expect("a packet is shorter than 64 KiB");
    let tcp_length = u16::try_from(ip.len() - tcp).expect("a packet is shorter than 64 KiB").to_be_bytes();
    let end = [0, TCP, tcp_length[0], tcp_length[1]];
    if ip[0] >> 4 == 6 {
        let payload = u16::try_from(ip.len() - IPV6_HEADER).expect("a packet is shorter than 64 KiB");
        ip[4..6].copy_from_slice(&payload.to_be_bytes());
        return fold(add_up(&ip[8..IPV6_HEADER]) + add_up(&end));
    }
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let step = u16::try_from(segment).expect("a packet has fewer segments than bytes");
    let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(step);
    ip[4..6].copy_from_slice(&identification.to_be_bytes());
    ip[10..12].fill(0);
    let header = usize::from(ip[0] & 0x0f) * 4;
    let checksum = !fold(add_up(&ip[..header]));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    fold(add_up(&ip[12..20]) + add_up(&end))
}

/// The sum of 16-bit words of the Internet checksum (RFC 1071).
fn add_up(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > u32::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("it was folded to 16 bits")
}

#[cfg(test)]
pub(crate) mod tests;
