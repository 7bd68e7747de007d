//! Addresses as the programs have them: 16 bytes, IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2), in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an address.
pub(crate) const BYTES: usize = 16;

/// As the programs have it.
pub(crate) fn to_bytes(address: IpAddr) -> [u8; BYTES] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// From what a program wrote; a mapped address is IPv4.
pub(crate) fn from_bytes(bytes: [u8; BYTES]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// What an address stands for: a socket on `[::]` takes IPv4 as well (`net.ipv6.bindv6only` is 0 by default), and the programs
/// have a wildcard for each.
pub(crate) fn meant_by(address: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let also = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    std::iter::once(address).chain((address.ip() == Ipv6Addr::UNSPECIFIED).then_some(also))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.0.0.1", "0.0.0.0", "::", "2001:db8::1", "fe80::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(from_bytes(to_bytes(address)), address);
        }
        assert_eq!(to_bytes([10, 0, 0, 1].into())[10..], [0xff, 0xff, 10, 0, 0, 1]);
    }

    #[test]
    fn the_wildcard_of_ipv6_stands_for_both() {
        let meant = |text: &str| meant_by(text.parse().unwrap()).map(|one| one.to_string()).collect::<Vec<_>>();
        assert_eq!(meant("[::]:80"), ["[::]:80", "0.0.0.0:80"]);
        assert_eq!(meant("0.0.0.0:80"), ["0.0.0.0:80"]);
        assert_eq!(meant("[::ffff:10.0.0.1]:80"), ["10.0.0.1:80"]);
    }
}
