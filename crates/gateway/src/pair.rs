//! A pair: two legs and the state between them.

use std::num::NonZeroU64;

use midmile_engine::{Addr, ConnId, Key, Time};

use crate::backend::Tried;
use crate::reason::End;

/// One side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Why the pair ends when this side's leg fails with the pair standing.
    pub(crate) const fn end_by_reset(self) -> End {
        match self {
            Self::Client => End::ClientReset,
            Self::Server => End::ServerReset,
        }
    }

    pub(crate) const fn end_by_loss(self) -> End {
        match self {
            Self::Client => End::ClientLost,
            Self::Server => End::ServerLost,
        }
    }
}

/// How far a pair has come.
///
/// ```text
///  accepted ──► Header ──► Dialling ──► Greeting ──► Flowing ──► (finished)
///         └───────────────────▲  └──────────────────────▲  └──► Resetting ──► (ended)
/// ```
/// Header only where a PROXY header is expected, Greeting only where one is sent. Any state may end at once, with a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The client's PROXY header is awaited.
    Header,
    /// A server leg is being dialled.
    Dialling,
    /// Our PROXY header goes to the server; so much of it has.
    Greeting { sent: u16 },
    /// Both legs stand.
    Flowing,
    /// One leg was reset; the other is reset as soon as what came before is on the wire.
    Resetting { end: End, until: Time },
}

/// Two legs and the state between them.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: ConnId,
    /// [`Key::NONE`] while there is none.
    pub(crate) server: ConnId,
    /// The route it's served by, in the core's table.
    pub(crate) serving: Key,
    pub(crate) state: State,
    /// The client, as its PROXY header says where one was accepted.
    pub(crate) peer: Addr,
    /// Where the client went, if its PROXY header said so.
    pub(crate) destination: Option<std::net::SocketAddr>,
    pub(crate) opened: Time,
    pub(crate) dial_deadline: Time,
    /// Nanoseconds from acceptance to an established server leg.
    pub(crate) connected_after: Option<NonZeroU64>,
    pub(crate) tried: Tried,
    /// The backend chosen last, and which of its addresses is tried or was reached.
    pub(crate) backend: Option<u8>,
    pub(crate) addr_index: u8,
    /// Whether the side has finished sending.
    pub(crate) client_ended: bool,
    pub(crate) server_ended: bool,
    /// The server leg's keepalive has been set.
    pub(crate) kept_alive: bool,
    /// Bytes that neither peer had acknowledged when the pair was last looked at.
    pub(crate) unacknowledged: usize,
    /// Length of the client's PROXY header, which isn't the server's to see.
    pub(crate) header_bytes: u16,
    /// What a leg that is gone already had handed on.
    pub(crate) gone_bytes: [u64; 2],
}

impl Pair {
    pub(crate) const fn new(serving: Key, peer: Addr, state: State, now: Time) -> Self {
        Self {
            client: Key::NONE,
            server: Key::NONE,
            serving,
            state,
            peer,
            destination: None,
            opened: now,
            dial_deadline: now,
            connected_after: None,
            tried: Tried::NONE,
            backend: None,
            addr_index: 0,
            client_ended: false,
            server_ended: false,
            kept_alive: false,
            unacknowledged: 0,
            header_bytes: 0,
            gone_bytes: [0; 2],
        }
    }

    pub(crate) const fn leg(&self, side: Side) -> ConnId {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    pub(crate) const fn leg_mut(&mut self, side: Side) -> &mut ConnId {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Notes that `side` has finished sending; true if both have now.
    pub(crate) const fn side_ended(&mut self, side: Side) -> bool {
        match side {
            Side::Client => self.client_ended = true,
            Side::Server => self.server_ended = true,
        }
        self.client_ended && self.server_ended
    }

    pub(crate) const fn half_closed(&self) -> bool {
        self.client_ended || self.server_ended
    }
}

/// What a connection carries as its token: which pair, and which side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LegToken {
    pub(crate) pair: Key,
    pub(crate) side: Side,
}

const SERVER_BIT: u64 = 1 << 63;

impl LegToken {
    pub(crate) const fn to_bits(self) -> u64 {
        match self.side {
            Side::Client => self.pair.to_bits(),
            Side::Server => self.pair.to_bits() | SERVER_BIT,
        }
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        let side = if bits & SERVER_BIT == 0 { Side::Client } else { Side::Server };
        Self { pair: Key::from_bits(bits & !SERVER_BIT), side }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_takes_four_cache_lines_at_most() {
        assert!(size_of::<Pair>() <= 256, "{}", size_of::<Pair>());
    }

    #[test]
    fn a_token_names_its_pair_and_its_side() {
        let mut slab = midmile_engine::Slab::with_capacity(1);
        let pair = slab.insert(()).unwrap();
        for side in [Side::Client, Side::Server] {
            let token = LegToken { pair, side };
            assert_eq!(LegToken::from_bits(token.to_bits()), token);
        }
    }
}
