//! A pair: two legs and the state between them.

use std::num::NonZeroU64;
use std::sync::Arc;

use midmile_engine::{Addr, ConnId, Key, Time};

use crate::backend::Tried;
use crate::reason::End;
use crate::trunk::{Peer, Watch};

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

/// The addresses that a hello led to.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    /// The one that it named.
    One(Addr),
    /// Those of the name that it named, and which of them is tried.
    Listed(Arc<[Addr]>, u8),
}

impl Given {
    pub(crate) const fn of(addrs: Arc<[Addr]>) -> Self {
        Self::Listed(addrs, 0)
    }

    /// The address to dial.
    pub(crate) fn addr(&self) -> Option<&Addr> {
        match self {
            Self::One(addr) => Some(addr),
            Self::Listed(addrs, at) => addrs.get(usize::from(*at)),
        }
    }

    /// Goes on to the next address; false if there's none.
    pub(crate) fn advance(&mut self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Listed(addrs, at) => match at.checked_add(1) {
                Some(next) if usize::from(next) < addrs.len() => {
                    *at = next;
                    true
                }
                _ => false,
            },
        }
    }
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
    /// Nanoseconds from acceptance to the server's first byte that was handed on, once that was looked at.
    pub(crate) first_byte_after: Option<NonZeroU64>,
    /// The peer on whose trunk connection it came in, if it did.
    pub(crate) came_from: Option<Arc<Peer>>,
    pub(crate) tried: Tried,
    /// The backend chosen last, and which of its addresses is tried or was reached.
    pub(crate) backend: Option<u8>,
    pub(crate) addr_index: u8,
    /// Where a hello said that it goes, if one did and it isn't passed on.
    pub(crate) given: Option<Given>,
    /// The hello that is passed on to the next gateway, in the core's table; or [`Key::NONE`].
    pub(crate) hello: Key,
    /// It was opened at its client's SYN, and its client hasn't been accepted yet.
    pub(crate) unclaimed: bool,
    /// It was given another trunk connection already.
    pub(crate) retried: bool,
    /// It came by a trunk, and the gateway in front hasn't been told yet what comes of it.
    pub(crate) owes_answer: bool,
    /// The server leg is a trunk connection that said hello, and the gateway behind hasn't answered yet. Nothing is forwarded from it.
    pub(crate) awaits_answer: bool,
    /// Whether the side has finished sending.
    pub(crate) client_ended: bool,
    pub(crate) server_ended: bool,
    /// The server leg's keepalive has been set.
    pub(crate) kept_alive: bool,
    /// Bytes that neither peer had acknowledged when the pair was last looked at.
    pub(crate) unacknowledged: usize,
    /// When it's looked whether the pair is idle, once it flows.
    pub(crate) idle_due: Time,
    /// When the legs that go through a trunk are looked at, and what was seen of them, by side.
    pub(crate) watch_due: Time,
    pub(crate) watches: [Watch; 2],
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
            first_byte_after: None,
            came_from: None,
            tried: Tried::NONE,
            backend: None,
            addr_index: 0,
            given: None,
            hello: Key::NONE,
            unclaimed: false,
            retried: false,
            owes_answer: false,
            awaits_answer: false,
            client_ended: false,
            server_ended: false,
            kept_alive: false,
            unacknowledged: 0,
            idle_due: Time::ZERO,
            watch_due: Time::ZERO,
            watches: [Watch::NEW; 2],
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

/// What a connection carries as its token: what it is to the relay. Tokens with the top bit set are the multiplexor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The client leg of a pair.
    Client(Key),
    /// The server leg of a pair.
    Server(Key),
    /// A trunk connection that we dialled and no pair has yet.
    Pooled(Key),
    /// A trunk connection that we accepted and that isn't a pair yet.
    Guest(Key),
}

/// Where the kind is kept: of the three bits that a key leaves free the lower two.
const KIND_SHIFT: u32 = 61;
const KEY_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl Token {
    /// The token of a pair's leg.
    pub(crate) const fn leg(pair: Key, side: Side) -> Self {
        match side {
            Side::Client => Self::Client(pair),
            Side::Server => Self::Server(pair),
        }
    }

    pub(crate) const fn to_bits(self) -> u64 {
        let (kind, key) = match self {
            Self::Client(key) => (0, key),
            Self::Server(key) => (1, key),
            Self::Pooled(key) => (2, key),
            Self::Guest(key) => (3, key),
        };
        kind << KIND_SHIFT | key.to_bits()
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        let key = Key::from_bits(bits & KEY_MASK);
        match bits >> KIND_SHIFT {
            0 => Self::Client(key),
            1 => Self::Server(key),
            2 => Self::Pooled(key),
            _ => Self::Guest(key),
        }
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
    fn a_token_names_its_kind_and_its_key() {
        let mut slab = midmile_engine::Slab::with_capacity(1);
        let pair = slab.insert(()).unwrap();
        for token in [Token::Client(pair), Token::Server(pair), Token::Pooled(pair), Token::Guest(pair)] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
            assert_eq!(token.to_bits() >> 63, 0, "it would be the multiplexor's");
        }
    }
}
