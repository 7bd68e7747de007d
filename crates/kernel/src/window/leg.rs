//! Which legs.

use std::net::SocketAddr;

use crate::address;

/// `struct leg` of `bpf/window.bpf.c`: the address, the port in this machine's byte order, the side, a byte of padding.
pub(super) type LegKey = [u8; 20];

/// The side that we have of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We dialled: the address is the remote one.
    Dialled,
    /// We accepted: the address is the listener's.
    Accepted,
}

/// As the program looks it up.
pub(super) fn key(side: Side, address: SocketAddr) -> LegKey {
    let mut key = [0; 20];
    key[..address::BYTES].copy_from_slice(&address::to_bytes(address.ip()));
    key[16..18].copy_from_slice(&address.port().to_ne_bytes());
    key[18] = match side {
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
        assert_eq!(size_of::<LegKey>(), 20);
        let address: SocketAddr = "[2001:db8::7]:7000".parse().unwrap();
        for (side, byte) in [(Side::Dialled, 0), (Side::Accepted, 1)] {
            let key = key(side, address);
            assert_eq!((key[0], key[1], key[15]), (0x20, 0x01, 7));
            assert_eq!((u16::from_ne_bytes([key[16], key[17]]), key[18], key[19]), (7000, byte, 0));
        }
    }
}
