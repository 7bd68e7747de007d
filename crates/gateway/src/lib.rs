//! The relay: a pair of legs for each client, moved by the engine.
//!
//! ```text
//!  client ── leg ──► listener ─ admission ─► pair ── dial ──► backend
//!                      one a core             │ client leg ⇄ server leg: forwarded by the engine
//!                                             └ timer, one reason at the end
//!                                            └ or, where messages are carried: the multiplexor (`midmile_mux`), whose connections to
//!                                              backends all clients share
//!  control side:  Plan ──► Fleet (threads, listeners, reload, drain) ──► Observer (figures)
//! ```
//!
//! What it is: [`Fleet`] runs one relay a core from a checked [`Plan`], and says how it goes. What it isn't: it parses no
//! configuration, resolves no name, checks no health, serves no metrics: the binary does that, beside the data path.
//!
//! # Promises
//! - A byte that a leg has received is handed on, in order, before the end or the reset that came after it.
//! - Memory a pair is bounded: user space holds its state, and at most one block of 64 KiB or one pipe a direction; the rest is
//!   the sockets' own buffers.
//! - Each pair ends with one [`End`], each refused client is counted under one [`Refusal`].
//! - Nothing is shared between cores while bytes flow but counters with one writer each.
#![forbid(unsafe_code)]

mod backend;
mod counters;
mod fleet;
mod pair;
mod plan;
mod reason;
mod relay;
mod report;
mod room;
mod serving;
mod trunk;

pub use crate::backend::{BACKENDS_MAX, Backend, BackendSet, Balance, HealthCheck};
pub use crate::counters::TIME_BOUNDS_US;
pub use crate::fleet::{
    Announcer, BackendSnapshot, DatagramsSnapshot, Fleet, FleetFailure, Flow, Listening, MessagesSnapshot, Observer,
    PeerSnapshot, RouteSnapshot, Snapshot, StartError, Times,
};
pub use crate::plan::{Limits, Plan, Route, Timeouts, WaitBy};
pub use crate::reason::{End, PoolLoss, Refusal};
pub use crate::report::PairReport;
pub use crate::trunk::{DEAD_AFTER, Gate, Named, Peer, Permit, PoolLimits, Rule, Via, Warmth};

/// A simulated world whose decisions are the fuzzer's.
#[cfg(fuzzing)]
pub use crate::relay::sim_tests::fuzz as fuzz_relay;
