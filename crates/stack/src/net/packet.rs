//! Packets, read as far as finding their connection takes. Everything else is smoltcp's to check.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};

use crate::link::{ETHERNET_BYTES, LinkAddress};

/// EtherTypes (IEEE 802).
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Bytes of the smallest TCP header (RFC 9293, 3.1).
const TCP_BYTES: usize = 20;

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

    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(unmapped(self.local), self.local_port)
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

/// Reads a packet; `None` if it isn't a whole TCP segment. Fragments and IPv6 extension headers are the kernel's.
pub(crate) fn parse(packet: &[u8]) -> Option<Segment> {
    let (peer, local, payload): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            if ip.next_header() != IpProtocol::Tcp || ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            let payload = packet.get(usize::from(ip.header_len())..usize::from(ip.total_len()))?;
            (ip.src_addr().into(), ip.dst_addr().into(), payload)
        }
        6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            if ip.next_header() != IpProtocol::Tcp {
                return None;
            }
            let (peer, local) = (ip.src_addr(), ip.dst_addr());
            // A mapped address on the wire would be taken for another connection's.
            if peer.to_ipv4_mapped().is_some() || local.to_ipv4_mapped().is_some() {
                return None;
            }
            (peer.into(), local.into(), packet.get(ip.header_len()..ip.total_len())?)
        }
        _ => return None,
    };
    if payload.len() < TCP_BYTES {
        return None;
    }
    let tcp = TcpPacket::new_checked(payload).ok()?;
    Some(Segment {
        tuple: Tuple::new(SocketAddr::new(peer, tcp.src_port()), SocketAddr::new(local, tcp.dst_port())),
        flags: Flags(payload[13]),
        seq: bits(tcp.seq_number().0),
        ack: bits(tcp.ack_number().0),
        window: tcp.window_len(),
        payload: u32::try_from(payload.len() - usize::from(tcp.header_len())).ok()?,
    })
}

/// smoltcp has sequence numbers signed, for its comparisons.
pub(crate) const fn bits(number: i32) -> u32 {
    number.cast_unsigned()
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
            let _ = (unwrap(&bytes), parse(&bytes));
        }
    }
}
