//! SYNs made by hand, from any address, and a socket that sends them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

/// SYN alone, in the flags of a TCP header.
pub(crate) const SYN: u8 = 0x02;
/// Numbers of protocols (IANA): TCP, UDP, IPv6 destination options.
const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const OPTIONS: u8 = 60;

/// A TCP segment in an IP packet, with what tests change about it.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    /// Words of IPv4 options.
    pub(crate) option_words: u8,
    /// The fragment field of IPv4.
    pub(crate) fragment: u16,
    /// TCP's number or another. [`OPTIONS`] puts an IPv6 extension header before TCP, with the port where TCP has it.
    pub(crate) protocol: u8,
    /// Whether TCP's checksum is there. Without it the kernel's TCP never sees the packet; what looks before does.
    pub(crate) checksum: bool,
}

impl Packet {
    pub(crate) fn syn(from: SocketAddr, to: SocketAddr, seq: u32) -> Self {
        Self { from, to, seq, flags: SYN, option_words: 0, fragment: 0, protocol: TCP, checksum: false }
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => [self.ipv4(from, to), self.tcp()].concat(),
            (IpAddr::V6(from), IpAddr::V6(to)) => [self.ipv6(from, to), self.tcp()].concat(),
            _ => panic!("addresses of both families"),
        }
    }

    /// RFC 791, section 3.1. The kernel fills in the checksum.
    fn ipv4(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let words = 5 + self.option_words;
        let bytes = u16::from(words) * 4 + 20;
        let mut header = vec![0x40 | words, 0];
        header.extend(bytes.to_be_bytes());
        header.extend([0, 7]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend(from.octets());
        header.extend(to.octets());
        // No operation.
        header.resize(usize::from(words) * 4, 1);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// RFC 8200, section 3.
    fn ipv6(&self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let [high, low] = self.to.port().to_be_bytes();
        let extension: &[u8] = if self.protocol == OPTIONS { &[TCP, 0, high, low, 0, 0, 0, 0] } else { &[] };
        let mut header = vec![0x60, 0, 0, 0, 0, 20 + u8::try_from(extension.len()).unwrap()];
        header.extend([self.protocol, 64]);
        header.extend(from.octets());
        header.extend(to.octets());
        header.extend(extension);
        header
    }

    /// RFC 9293, section 3.1.
    fn tcp(&self) -> Vec<u8> {
        let mut header = self.from.port().to_be_bytes().to_vec();
        header.extend(self.to.port().to_be_bytes());
        header.extend(self.seq.to_be_bytes());
        header.extend([0; 4]);
        header.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        if self.checksum {
            let octets = |ip| match ip {
                IpAddr::V4(ip) => Ipv4Addr::octets(&ip).to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let pseudo = [&octets(self.from.ip()), &octets(self.to.ip()), &[0, self.protocol, 0, 20][..], &header];
            let pseudo = pseudo.concat();
            let sum = checksum(&pseudo);
            header[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        header
    }
}

/// RFC 1071, of a whole number of words.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// Sends whole packets, IP header and all, from the namespace in which it was made (raw(7)).
pub(crate) struct RawSender {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl RawSender {
    pub(crate) fn new() -> Self {
        let raw = |family| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW)).unwrap();
        Self { v4: raw(AddressFamily::INET), v6: raw(AddressFamily::INET6) }
    }

    pub(crate) fn send(&self, packet: &Packet) {
        let socket = if packet.to.is_ipv4() { &self.v4 } else { &self.v6 };
        // A raw socket takes no port.
        let to = SocketAddr::new(packet.to.ip(), 0);
        let bytes = packet.bytes();
        assert_eq!(sendto(socket, &bytes, SendFlags::empty(), &to).unwrap(), bytes.len());
    }
}
