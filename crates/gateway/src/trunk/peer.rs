//! Who trunk connections go to and come from, and what they may ask for.

use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{Addr, LegOptions};
use midmile_wire::trunk::{Key, Name};

use super::permit::Permit;
use super::warming::Warmth;

/// Another gateway.
#[derive(Debug)]
pub struct Peer {
    /// Its name; unique in a plan.
    pub name: Name,
    /// This gateway's name towards it.
    pub own: Name,
    /// Where its trunk listener is, tried in this order; empty for one that only comes to us.
    pub addrs: Vec<Addr>,
    /// The key that both hold.
    pub key: Key,
    /// Options of the connections that we dial to it.
    pub leg: LegOptions,
    /// How many wait ready.
    pub pool: PoolLimits,
    /// How long it may leave what it is sent on connections that we dialled unanswered, before their pairs end; `None`: as long as
    /// the kernel tries.
    pub dead_after: Option<Duration>,
    /// Padding on the connections that we dial to it.
    pub warmth: Warmth,
}

impl Peer {
    /// Whether connections made for `self` serve `other` as well.
    pub(crate) fn same_way(&self, other: &Self) -> bool {
        self.name == other.name
            && self.own == other.own
            && self.addrs == other.addrs
            && self.key == other.key
            && self.leg == other.leg
    }
}

/// Bounds of a pool, over all cores together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Connections that wait ready though nobody comes.
    pub min: u32,
    /// The most that wait ready or are under way.
    pub max: u32,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { min: 8, max: 512 }
    }
}

/// The gateways that a listener's pairs go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The one whose pool a pair takes from.
    pub first: Name,
    /// Those behind it, in order.
    pub rest: Vec<Name>,
}

/// What a trunk listener asks of those who come, and allows them.
#[derive(Debug)]
pub struct Gate {
    /// Who may come.
    pub peers: Vec<Arc<Peer>>,
    /// What may be dialled for them.
    pub permit: Permit,
    /// Peers that pairs may be passed on to.
    pub onward: Vec<Name>,
    /// As [`Peer::dead_after`], for the connections that peers dialled.
    pub dead_after: Option<Duration>,
    /// Padding on the connections that are accepted.
    pub warmth: Warmth,
}

impl Gate {
    pub(crate) fn peer(&self, name: &Name, own: &Name) -> Option<&Arc<Peer>> {
        self.peers.iter().find(|peer| peer.name == *name && peer.own == *own)
    }

    /// Whether what `peer` has proved is proof here as well: it may come, and by the same key.
    pub(crate) fn lets_in(&self, peer: &Peer) -> bool {
        self.peer(&peer.name, &peer.own).is_some_and(|known| known.key == peer.key)
    }
}
