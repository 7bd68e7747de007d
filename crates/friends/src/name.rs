//! What a connection is called.

use core::net::SocketAddrV6;

/// A connection, as one of its ends knows it. IPv4 addresses are mapped into IPv6 (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The network namespace.
    pub namespace: u64,
    /// This end.
    pub own: SocketAddrV6,
    /// The other end.
    pub peer: SocketAddrV6,
}

impl Name {
    /// The same connection, as the other end knows it.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self { namespace: self.namespace, own: self.peer, peer: self.own }
    }

    /// In six words, for who can't keep it otherwise.
    #[must_use]
    pub fn to_words(self) -> [u64; 6] {
        let halves = |end: SocketAddrV6| {
            let bits = end.ip().to_bits();
            [u64::try_from(bits >> 64).unwrap_or(0), u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0)]
        };
        let ([own_high, own_low], [peer_high, peer_low]) = (halves(self.own), halves(self.peer));
        let ports = u64::from(self.own.port()) << 16 | u64::from(self.peer.port());
        [self.namespace, own_high, own_low, peer_high, peer_low, ports]
    }

    /// From those words, whatever they are.
    #[must_use]
    pub fn from_words([namespace, own_high, own_low, peer_high, peer_low, ports]: [u64; 6]) -> Self {
        let end = |high: u64, low: u64, port: u64| {
            let port = u16::try_from(port & 0xffff).unwrap_or(0);
            SocketAddrV6::new((u128::from(high) << 64 | u128::from(low)).into(), port, 0, 0)
        };
        Self { namespace, own: end(own_high, own_low, ports >> 16), peer: end(peer_high, peer_low, ports) }
    }
}
