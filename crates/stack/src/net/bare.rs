//! Acknowledgements without a socket, for connections that have none, or whose socket wouldn't answer.

use midmile_engine::Key;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::packet::Tuple;
use super::{Net, send_packet};
use crate::link::{LinkAddress, Transmit};

/// Hops that a packet may take (RFC 1700).
pub(super) const HOPS: u8 = 64;

/// The numbers of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bare {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
}

/// A link that takes nothing.
pub(super) struct Nowhere;

impl Transmit for Nowhere {
    fn has_room(&mut self) -> bool {
        false
    }

    fn send<R>(&mut self, _: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        fill(&mut [])
    }

    fn flush(&mut self) {}
}

impl Net {
    /// Sends a connection's last acknowledgement again, with a number so far `before` the next one.
    pub(super) fn acknowledge_again<T: Transmit>(&mut self, key: Key, before: u32, tx: &mut T) {
        let Some(flow) = self.flows.get(key) else { return };
        let (tuple, link) = (flow.tuple, flow.link);
        let bare = Bare { seq: flow.next().wrapping_sub(before), ack: flow.acknowledged, window: flow.window };
        self.acknowledge(&tuple, link, bare, tx);
    }

    /// Sends a bare acknowledgement.
    pub(super) fn acknowledge<T: Transmit>(&mut self, tuple: &Tuple, link: LinkAddress, bare: Bare, tx: &mut T) {
        if !tx.has_room() {
            self.gauges.answers_lost += 1;
            return;
        }
        let (from, to) = (tuple.local(), tuple.peer());
        let tcp = TcpRepr {
            src_port: from.port(),
            dst_port: to.port(),
            control: TcpControl::None,
            seq_number: TcpSeqNumber(bare.seq.cast_signed()),
            ack_number: Some(TcpSeqNumber(bare.ack.cast_signed())),
            window_len: bare.window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), HOPS);
        send_packet(&self.figures, link, &ip, tx, |room, checksums| {
            tcp.emit(&mut TcpPacket::new_unchecked(room), &source, &destination, checksums);
        });
    }
}
