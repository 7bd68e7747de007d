//! Which legs.

use std::net::SocketAddr;

use crate::address;
use crate::namespace::Cookie;

/// `struct leg` of `bpf/window.bpf.c`: the namespace's cookie in this machine's byte order, the address, the port in this machine's
/// byte order, the side, five bytes of padding.
pub(super) type LegKey = [u8; 32];

/// The side that we have of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We dialled: the address is the remote one.
    Dialled,
    /// We accepted: the address is the listener's.
    Accepted,
}

/// As the program looks it up.
pub(super) fn key(namespace: Cookie, side: Side, address: SocketAddr) -> LegKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&namespace.0.to_ne_bytes());
    key[8..24].copy_from_slice(&address::to_bytes(address.ip()));
    key[24..26].copy_from_slice(&address.port().to_ne_bytes());
    key[26] = match side {
        Side::Dialled => 0,
        Side::Accepted => 1,
    };
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_program() {
        assert_eq!(size_of::<LegKey>(), 32);
        let address: SocketAddr = "[2001:db8::7]:7000".parse().unwrap();
        for (side, byte) in [(Side::Dialled, 0), (Side::Accepted, 1)] {
            let key = key(Cookie(9), side, address);
            assert_eq!(u64::from_ne_bytes(key[..8].try_into().unwrap()), 9);
            assert_eq!((key[8], key[9], key[23]), (0x20, 0x01, 7));
            assert_eq!((u16::from_ne_bytes([key[24], key[25]]), key[26], &key[27..]), (7000, byte, &[0; 5][..]));
        }
    }
}
