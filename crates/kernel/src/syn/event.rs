//! What the program says of a SYN.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::address;

/// Bytes of `struct event` of `bpf/syn.bpf.c`:
///
/// | at | bytes | what |
/// | --- | --- | --- |
/// | 0 | 8 | time |
/// | 8 | 16 | client's address |
/// | 24 | 16 | listener's address |
/// | 40 | 2 | client's port |
/// | 42 | 2 | listener's port |
/// | 44 | 4 | initial sequence number |
/// | 48 | 4 | CPU |
/// | 52 | 4 | device |
///
/// Addresses are in network order, all else in this machine's.
pub(super) const EVENT_BYTES: usize = 56;

/// A SYN for a listener. It says that somebody sent it, not who: `client` can be forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynEvent {
    /// When it came, on the clock `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// From where: the peer address that `accept` will tell.
    pub client: SocketAddr,
    /// To where: the local address that the accepted socket will have.
    pub listener: SocketAddr,
    /// The initial sequence number, which tells connections of the same addresses and ports apart.
    pub seq: u32,
    /// The CPU on which it came.
    pub cpu: u32,
    /// The index of the device by which it came.
    pub device: u32,
}

impl SynEvent {
    pub(super) fn decode(record: &[u8; EVENT_BYTES]) -> Self {
        let device = u32::from_ne_bytes(at(record, 52));
        Self {
            at: Duration::from_nanos(u64::from_ne_bytes(at(record, 0))),
            client: socket_addr(at(record, 8), u16::from_ne_bytes(at(record, 40)), device),
            listener: socket_addr(at(record, 24), u16::from_ne_bytes(at(record, 42)), device),
            seq: u32::from_ne_bytes(at(record, 44)),
            cpu: u32::from_ne_bytes(at(record, 48)),
            device,
        }
    }
}

/// The bytes from `offset` on.
fn at<const N: usize>(record: &[u8; EVENT_BYTES], offset: usize) -> [u8; N] {
    record[offset..offset + N].try_into().expect("the lengths are the same")
}

/// As the kernel tells it of a socket: link-local addresses have their device as scope (RFC 4007, section 6).
fn socket_addr(bytes: [u8; address::BYTES], port: u16, device: u32) -> SocketAddr {
    match address::from_bytes(bytes) {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, device).into(),
        ip => SocketAddr::new(ip, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with each field where the table has it.
    fn record(client: &str, listener: &str) -> [u8; EVENT_BYTES] {
        let ip = |text: &str| address::to_bytes(text.parse().unwrap());
        let mut bytes = Vec::new();
        bytes.extend(7_000_000_009_u64.to_ne_bytes());
        bytes.extend(ip(client));
        bytes.extend(ip(listener));
        bytes.extend(50_000_u16.to_ne_bytes());
        bytes.extend(443_u16.to_ne_bytes());
        bytes.extend(0xdead_beef_u32.to_ne_bytes());
        bytes.extend(3_u32.to_ne_bytes());
        bytes.extend(5_u32.to_ne_bytes());
        bytes.try_into().unwrap()
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let event = SynEvent::decode(&record("10.0.0.9", "10.0.0.1"));
        let expected = SynEvent {
            at: Duration::new(7, 9),
            client: "10.0.0.9:50000".parse().unwrap(),
            listener: "10.0.0.1:443".parse().unwrap(),
            seq: 0xdead_beef,
            cpu: 3,
            device: 5,
        };
        assert_eq!(event, expected);
    }

    #[test]
    fn a_link_local_address_has_its_device_as_scope() {
        let event = SynEvent::decode(&record("fe80::1", "2001:db8::1"));
        let client = SocketAddrV6::new("fe80::1".parse().unwrap(), 50_000, 0, 5);
        assert_eq!((event.client, event.listener), (client.into(), "[2001:db8::1]:443".parse().unwrap()));
    }
}
