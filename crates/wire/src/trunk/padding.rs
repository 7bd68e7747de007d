//! Padding: bytes without meaning behind the handshake, by which a side opens its congestion window.
//!
//! A sender's window doubles each round trip only while it is used. A side that can open its window by no other means sends zeros
//! when the handshake is done, and the other throws them away. Proof and welcome say how many there will be, under their MACs.

/// Most bytes of padding that a side may announce.
pub const PADDING_MAX: u32 = 16 << 20;

/// Length in bytes of a count on the wire.
pub(super) const COUNT_LEN: usize = 4;

/// What a dialer says of padding in its proof, in bytes. More than [`PADDING_MAX`] is said as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// So many follow the proof.
    pub follows: u32,
    /// So many may follow the welcome at most: none if the connection is wanted at once.
    pub takes: u32,
}

/// What both sides have agreed on, in bytes, as one of them sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// So many are ours to send.
    pub sends: u32,
    /// So many come, and are to be thrown away.
    pub receives: u32,
}

impl Offer {
    /// As it is sent.
    pub(super) fn to_bytes(self) -> [u8; 2 * COUNT_LEN] {
        let mut bytes = [0; 2 * COUNT_LEN];
        let (follows, takes) = bytes.split_at_mut(COUNT_LEN);
        follows.copy_from_slice(&self.follows.min(PADDING_MAX).to_be_bytes());
        takes.copy_from_slice(&self.takes.min(PADDING_MAX).to_be_bytes());
        bytes
    }

    /// As it came; `None` if a side may not say so.
    pub(super) fn from_bytes([a, b, c, d, e, f, g, h]: [u8; 2 * COUNT_LEN]) -> Option<Self> {
        let offer = Self { follows: u32::from_be_bytes([a, b, c, d]), takes: u32::from_be_bytes([e, f, g, h]) };
        (offer.follows.max(offer.takes) <= PADDING_MAX).then_some(offer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_bounded_by_either_side() {
        let greedy = Offer { follows: u32::MAX, takes: PADDING_MAX + 1 };
        let said = Offer::from_bytes(greedy.to_bytes());
        assert_eq!(said, Some(Offer { follows: PADDING_MAX, takes: PADDING_MAX }));
        for at in [0, 4] {
            let mut bytes = Offer { follows: 1, takes: 2 }.to_bytes();
            bytes[at] = 2;
            assert_eq!(Offer::from_bytes(bytes), None);
        }
    }
}
