//! smoltcp's device: one frame in, some out, put in front of a link for the length of a call.

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::packet::{self, Segment};
use crate::link::{ETHERNET_BYTES, Transmit};

/// What left through a port.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// The last segment.
    pub(crate) last: Option<Segment>,
    /// Segments that the link had no room for.
    pub(crate) lost: u32,
}

/// A link in front of smoltcp. It's made anew for each call.
pub(crate) struct Port<'a, T> {
    /// The packet to be received.
    pub(crate) packet: Option<&'a [u8]>,
    pub(crate) tx: &'a mut T,
    /// Goes before each packet, where frames have a header.
    pub(crate) head: Option<[u8; ETHERNET_BYTES]>,
    pub(crate) mtu: usize,
    /// Where what the link has no room for is written: a packet's room.
    pub(crate) sink: &'a mut [u8],
    pub(crate) sent: Sent,
}

/// A packet that came.
pub(crate) struct Packet<'a>(&'a [u8]);

/// Room for one that leaves.
pub(crate) struct Room<'a, T> {
    tx: &'a mut T,
    head: Option<[u8; ETHERNET_BYTES]>,
    sink: &'a mut [u8],
    sent: &'a mut Sent,
}

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

impl<T: Transmit> TxToken for Room<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        if !self.tx.has_room() {
            // An answer alone comes here without having asked for room; the peer's next segment asks for it again.
            self.sent.lost += 1;
            return fill(&mut self.sink[..len]);
        }
        let before = self.head.map_or(0, |head| head.len());
        self.tx.send_unfinished(before + len, |frame| {
            let (head, packet) = frame.split_at_mut(before);
            if let Some(bytes) = self.head {
                head.copy_from_slice(&bytes);
            }
            let answer = fill(packet);
            self.sent.last = packet::parse(packet);
            (answer, packet::begin_checksum(packet, before))
        })
    }
}

impl<T: Transmit> Device for Port<'_, T> {
    type RxToken<'t>
        = Packet<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Room<'t, T>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Packet<'_>, Room<'_, T>)> {
        let packet = self.packet.take()?;
        let room = Room { tx: self.tx, head: self.head, sink: self.sink, sent: &mut self.sent };
        Some((Packet(packet), room))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_, T>> {
        if !self.tx.has_room() {
            return None;
        }
        Some(Room { tx: self.tx, head: self.head, sink: self.sink, sent: &mut self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// What smoltcp is told of every link. Checksums of what comes have been looked at by then, and TCP's of what leaves are the link's to finish.
fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    (capabilities.checksum.ipv4, capabilities.checksum.tcp) = (Checksum::Tx, Checksum::None);
    capabilities
}
