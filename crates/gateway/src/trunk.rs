//! Trunks: the way from gateway to gateway.
//!
//! ```text
//!  client ── leg ──► ingress ═══ trunk connection, one a client ═══► egress ── leg ──► server
//!                    │ pool: dialled, authenticated, waiting          │ guest: authenticated, waiting
//!                    └ takes one, says hello, and the bytes flow      └ reads the hello, dials, and the bytes flow
//! ```
//! A client never waits for a trunk handshake: connections to each [`Peer`] stand ready in a pool, a core's own, kept as large as
//! what comes asks for. A client has its connection to itself, so nobody waits behind another's loss. The formats are those of
//! [`midmile_wire::trunk`]: both ends prove that they hold the same key before anything else, and nothing is dialled for whom a
//! [`Permit`] doesn't allow it.

mod demand;
mod peer;
mod permit;
mod pool;
mod warming;
mod watch;

pub(crate) use demand::TICK;
pub use peer::{Gate, Peer, PoolLimits, Via};
pub use permit::{Named, Permit, Rule};
pub(crate) use pool::{Pooled, PooledState, Pools, Reach};
pub use warming::Warmth;
pub(crate) use warming::{Warmed, Warming, is_live};
pub use watch::DEAD_AFTER;
pub(crate) use watch::{Keepalive, Watch};
