//! Packets, read as far as finding their connection takes. Everything else is smoltcp's to check.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use crate::link::{ETHERNET_BYTES, LinkAddress};
use crate::sum::{Unfinished, fold, sum};

/// EtherTypes (IEEE 802).
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Bytes of the smallest TCP header (RFC 9293, 3.1).
const TCP_BYTES: usize = 20;
/// TCP's number (RFC 9293, 3.1; IANA's protocol numbers).
const TCP: u8 = 6;
/// Where TCP's checksum stands.
const CHECKSUM: usize = 16;
/// UDP's (RFC 768), and the bytes of its header.
const UDP: u8 = 17;
const UDP_BYTES: usize = 8;
/// More fragments, or not the first one (RFC 791, 3.1).
const FRAGMENTED: u16 = 0x3fff;
/// The prefix of mapped addresses (RFC 4291, 2.5.5.2).
const MAPPED: u128 = 0xffff << 32;

/// Both ends of a connection, IPv4 addresses mapped (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    peer: u128,
    local: u128,
    peer_port: u16,
    local_port: u16,
}

impl Tuple {
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer: mapped(peer.ip()), local: mapped(local.ip()), peer_port: peer.port(), local_port: local.port() }
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        SocketAddr::new(unmapped(self.peer), self.peer_port)
    }

    /// Our address, as a number: to tell whether it's the same as another's.
    pub(crate) const fn local_bits(&self) -> u128 {
        self.local
    }

    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(unmapped(self.local), self.local_port)
    }

    pub(crate) const fn is_v4(&self) -> bool {
        self.local >> 32 == MAPPED >> 32
    }

    /// Whether both ends are hosts that could be on a wire: nobody else is answered (RFC 1122, 3.2.1.3).
    pub(crate) fn is_between_hosts(&self) -> bool {
        let good = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast() && !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback(),
        };
        self.peer_port != 0 && self.local_port != 0 && good(unmapped(self.peer)) && good(unmapped(self.local))
    }

    /// A number that nobody who doesn't know the keys can have collide: connections' places in the table follow from it.
    #[expect(clippy::cast_possible_truncation, reason = "numbers of 128 bits are taken apart")]
    pub(crate) fn hash(&self, keys: &[u64; 4]) -> u64 {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            (product as u64) ^ (product >> 64) as u64
        };
        let ports = u64::from(self.peer_port) << 16 | u64::from(self.local_port);
        let peer = fold(self.peer as u64 ^ keys[0], (self.peer >> 64) as u64 ^ keys[1]);
        let local = fold(self.local as u64 ^ keys[2], (self.local >> 64) as u64 ^ keys[3]);
        fold(peer ^ ports ^ keys[3], local ^ keys[1] | 1)
    }
}

fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn unmapped(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).to_canonical()
}

/// Flags of a segment (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    pub(crate) const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    pub(crate) const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    pub(crate) const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// It begins a connection.
    pub(crate) const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// It begins or answers the beginning of one.
    pub(crate) const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }
}

/// A TCP segment, as far as we look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) tuple: Tuple,
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// As it stands there, not scaled.
    pub(crate) window: u16,
    pub(crate) payload: u32,
}

impl Segment {
    /// The sequence number behind it (RFC 9293, 3.4: SYN and FIN take one each).
    pub(crate) const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.payload).wrapping_add(self.flags.fin() as u32).wrapping_add(self.flags.syn() as u32)
    }
}

/// Takes an Ethernet header off: who sent the frame, and its packet. Only IP over Ethernet II without a VLAN's tag is ours.
pub(crate) fn unwrap(frame: &[u8]) -> Option<(LinkAddress, &[u8])> {
    let (head, packet) = frame.split_at_checked(ETHERNET_BYTES)?;
    let kind = [head[12], head[13]];
    if kind != ETHERTYPE_IPV4 && kind != ETHERTYPE_IPV6 {
        return None;
    }
    Some((head[6..12].try_into().ok()?, packet))
}

/// An Ethernet header before a packet from `from` to `to`.
pub(crate) fn wrap(to: LinkAddress, from: LinkAddress, v4: bool) -> [u8; ETHERNET_BYTES] {
    let mut head = [0; ETHERNET_BYTES];
    head[..6].copy_from_slice(&to);
    head[6..12].copy_from_slice(&from);
    head[12..].copy_from_slice(if v4 { &ETHERTYPE_IPV4 } else { &ETHERTYPE_IPV6 });
    head
}

/// Reads a packet; `None` if it isn't a whole TCP segment. Fragments and IPv6 extension headers are the kernel's. Written out, for it
/// is done twice for each request: by smoltcp's readers, which look at each field again, it took a fourteenth of an echo server's time.
/// Inlined, for what it returned would be read from memory in wider pieces than it was written in, and that waits for all stores before.
#[inline(always)]
pub(crate) fn parse(packet: &[u8]) -> Option<Segment> {
    let (peer, local, payload) = match packet.first()? >> 4 {
        4 => parse_v4(packet, TCP)?,
        6 => parse_v6(packet, TCP)?,
        _ => return None,
    };
    let tcp: &[u8; TCP_BYTES] = payload.first_chunk()?;
    let head = usize::from(tcp[12] >> 4) * 4;
    if head < TCP_BYTES {
        return None;
    }
    Some(Segment {
        tuple: Tuple { peer, local, peer_port: half(tcp, 0), local_port: half(tcp, 2) },
        flags: Flags(tcp[13]),
        seq: word(tcp, 4),
        ack: word(tcp, 8),
        window: half(tcp, 14),
        payload: u32::try_from(payload.len().checked_sub(head)?).ok()?,
    })
}

/// Whether the checksums of a packet that [`parse`] has read are right; TCP's is looked at if it `verifies`. A segment that isn't whole is
/// nobody's: neither its ends nor its numbers are to be believed.
pub(crate) fn is_whole(packet: &[u8], tuple: &Tuple, verifies: bool) -> bool {
    let (from, to) = (unmapped(tuple.peer).into(), unmapped(tuple.local).into());
    let is_right =
        |tcp: &[u8]| !verifies || TcpPacket::new_checked(tcp).is_ok_and(|tcp| tcp.verify_checksum(&from, &to));
    if tuple.is_v4() {
        Ipv4Packet::new_checked(packet).is_ok_and(|ip| ip.verify_checksum() && is_right(ip.payload()))
    } else {
        !verifies || Ipv6Packet::new_checked(packet).is_ok_and(|ip| is_right(ip.payload()))
    }
}

/// Puts the sum of a TCP segment's pseudo-header where its checksum goes (RFC 9293, 3.1; RFC 8200, 8.1), and answers what is left to do in a frame
/// that has so many bytes before the packet. `None` if the packet isn't a TCP segment of ours, without options of IP: it's left alone.
pub(crate) fn begin_checksum(packet: &mut [u8], before: usize) -> Option<Unfinished> {
    let (addresses, head) = match packet.first()? >> 4 {
        4 if packet[0] & 0x0f == 5 && packet.get(9) == Some(&TCP) => (12..20, 20),
        6 if packet.get(6) == Some(&TCP) => (8..40, 40),
        _ => return None,
    };
    let len = u16::try_from(packet.len().checked_sub(head)?).ok().filter(|len| usize::from(*len) >= TCP_BYTES)?;
    let rest = u64::from(u16::from(TCP).to_be()) + u64::from(len.to_be());
    let pseudo = fold(sum(&packet[addresses]) + rest);
    packet[head + CHECKSUM..head + CHECKSUM + 2].copy_from_slice(&pseudo.to_ne_bytes());
    Some(Unfinished { start: u16::try_from(before + head).ok()?, at: u16::try_from(CHECKSUM).ok()? })
}

/// Both addresses of an IPv4 packet with a whole segment or datagram, and that (RFC 791, 3.1).
#[inline(always)]
fn parse_v4(packet: &[u8], protocol: u8) -> Option<(u128, u128, &[u8])> {
    let ip: &[u8; 20] = packet.first_chunk()?;
    let head = usize::from(ip[0] & 0x0f) * 4;
    let whole = half(ip, 6) & FRAGMENTED == 0;
    if head < ip.len() || ip[9] != protocol || !whole {
        return None;
    }
    let payload = packet.get(head..usize::from(half(ip, 2)))?;
    Some((MAPPED | u128::from(word(ip, 12)), MAPPED | u128::from(word(ip, 16)), payload))
}

/// The same of an IPv6 packet (RFC 8200, 3).
#[inline(always)]
fn parse_v6(packet: &[u8], protocol: u8) -> Option<(u128, u128, &[u8])> {
    let ip: &[u8; 40] = packet.first_chunk()?;
    if ip[6] != protocol {
        return None;
    }
    let payload = packet.get(ip.len()..ip.len() + usize::from(half(ip, 4)))?;
    let address = |at: usize| ip[at..at + 16].try_into().map(u128::from_be_bytes).ok();
    let (peer, local) = (address(8)?, address(24)?);
    // A mapped address on the wire would be taken for another connection's.
    let mapped = |address: u128| address >> 32 == MAPPED >> 32;
    (!mapped(peer) && !mapped(local)).then_some((peer, local, payload))
}

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) payload: &'a [u8],
}

/// Reads a packet; `None` if it isn't a whole datagram, or its checksums are wrong and are to be looked at.
pub(crate) fn parse_datagram(packet: &[u8], verifies: bool) -> Option<Datagram<'_>> {
    let v4 = packet.first()? >> 4 == 4;
    let (peer, local, udp) = if v4 { parse_v4(packet, UDP)? } else { parse_v6(packet, UDP)? };
    let head: &[u8; UDP_BYTES] = udp.first_chunk()?;
    let payload = udp.get(UDP_BYTES..usize::from(half(head, 4)))?;
    let (peer, local) = (unmapped(peer), unmapped(local));
    if verifies {
        if v4 && !Ipv4Packet::new_checked(packet).ok()?.verify_checksum() {
            return None;
        }
        // Over IPv6 there's always one (RFC 8200, 8.1).
        let is_whole = match half(head, 6) {
            0 => v4,
            _ => UdpPacket::new_checked(udp).ok()?.verify_checksum(&peer.into(), &local.into()),
        };
        if !is_whole {
            return None;
        }
    }
    let (peer, local) = (SocketAddr::new(peer, half(head, 0)), SocketAddr::new(local, half(head, 2)));
    Some(Datagram { peer, local, payload })
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple(peer: &str, local: &str) -> Tuple {
        Tuple::new(peer.parse().unwrap(), local.parse().unwrap())
    }

    #[test]
    fn ends_come_back_as_they_were() {
        for (peer, local) in [("10.0.0.2:1", "10.0.0.1:2"), ("[2001:db8::2]:3", "[2001:db8::1]:4")] {
            let tuple = tuple(peer, local);
            assert_eq!((tuple.peer().to_string(), tuple.local().to_string()), (peer.to_owned(), local.to_owned()));
            assert!(tuple.is_between_hosts());
        }
    }

    #[test]
    fn checksums_are_as_smoltcp_makes_them() {
        use smoltcp::phy::ChecksumCapabilities;
        use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpRepr, TcpSeqNumber};
        for (from, to) in [("10.0.0.1", "192.0.2.7"), ("2001:db8::1", "2001:db8:ffff::2")] {
            for len in [0, 1, 2, 63, 64, 1400] {
                let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
                let (from, to): (IpAddress, IpAddress) = (from.parse().unwrap(), to.parse().unwrap());
                let tcp = TcpRepr {
                    src_port: 80,
                    dst_port: 40_000,
                    control: TcpControl::Psh,
                    seq_number: TcpSeqNumber(-5),
                    ack_number: Some(TcpSeqNumber(77)),
                    window_len: 1000,
                    window_scale: None,
                    max_seg_size: None,
                    sack_permitted: false,
                    sack_ranges: [None; 3],
                    timestamp: None,
                    payload: &payload,
                };
                let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
                let packet = |checksums: &ChecksumCapabilities| {
                    let mut packet = vec![0; ip.buffer_len()];
                    ip.emit(&mut packet[..], &ChecksumCapabilities::default());
                    tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..]), &from, &to, checksums);
                    packet
                };
                let whole = packet(&ChecksumCapabilities::default());
                let mut frame = [&[9; ETHERNET_BYTES][..], &packet(&ChecksumCapabilities::ignored())].concat();
                let unfinished = begin_checksum(&mut frame[ETHERNET_BYTES..], ETHERNET_BYTES).unwrap();
                unfinished.finish(&mut frame);
                assert!(frame[ETHERNET_BYTES..] == whole && frame[..ETHERNET_BYTES] == [9; ETHERNET_BYTES]);
            }
        }
    }

    #[test]
    fn what_is_no_segment_is_left_alone() {
        let tcp = [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1][..], &[0; 20]].concat();
        assert!(begin_checksum(&mut tcp.clone(), 0).is_some());
        let changed = |at: usize, to: u8| {
            let mut packet = tcp.clone();
            packet[at] = to;
            packet
        };
        for mut packet in
            [changed(9, UDP), changed(0, 0x46), changed(0, 0x55), tcp[..39].to_vec(), Vec::new(), vec![0x60]]
        {
            let before = packet.clone();
            assert_eq!((begin_checksum(&mut packet, 0), packet), (None, before));
        }
    }

    #[test]
    fn datagrams_are_read_and_broken_ones_are_not() {
        let header = |len: u8| [&[0x45, 0, 0, len, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1][..]].concat();
        let packet = |checksum: u8| [&header(30)[..], &[0, 5, 0, 7, 0, 10, 0, checksum, b'h', b'i']].concat();
        let bytes = packet(0);
        let said = parse_datagram(&bytes, false).unwrap();
        assert_eq!((said.peer.to_string(), said.local.to_string()), ("10.0.0.2:5".to_owned(), "10.0.0.1:7".to_owned()));
        assert_eq!(said.payload, b"hi");
        // The header's checksum is wrong.
        assert_eq!(parse_datagram(&packet(0), true), None);
        for len in 0..30 {
            assert_eq!(parse_datagram(&packet(0)[..len], false), None);
        }
        // Its own length is beyond the packet's, or below its header's.
        for len in [0, 7, 11] {
            let mut packet = packet(0);
            packet[25] = len;
            assert_eq!(parse_datagram(&packet, false), None);
        }
    }

    #[test]
    fn nobody_answers_what_no_host_sends() {
        for peer in ["255.255.255.255:1", "224.0.0.1:1", "0.0.0.0:1", "127.0.0.1:1", "10.0.0.2:0", "[ff02::1]:1"] {
            assert!(!tuple(peer, "10.0.0.1:2").is_between_hosts(), "{peer}");
        }
    }

    #[test]
    fn places_follow_from_all_of_a_connections_ends() {
        let keys = [1, 2, 3, 4].map(|key: u64| key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let base = tuple("10.0.0.2:1000", "10.0.0.1:80");
        let others = ["10.0.0.3:1000", "10.0.0.2:1001"].map(|peer| tuple(peer, "10.0.0.1:80"));
        for other in others.into_iter().chain([tuple("10.0.0.2:1000", "10.0.0.1:81")]) {
            assert_ne!(base.hash(&keys), other.hash(&keys));
        }
        assert_ne!(base.hash(&keys), base.hash(&[9, 8, 7, 6]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), version in 4..7_u8) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | 5;
            }
            let _ = (unwrap(&bytes), parse(&bytes), parse_datagram(&bytes, true));
        }
    }
}
