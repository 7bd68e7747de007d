//! One test program for every backend: each order of upcalls, each way to fail, on each.
//!
//! A *case* is a function over a [`World`]: the backend under test with its surroundings. It drives a core turn by turn, acts for the
//! peers in between ([`Stage`]), and holds each upcall against the contract of [`Handler`](crate::Handler) ([`Trace`]); what
//! it's about itself it asserts from what was seen. Nothing sleeps to wait for something: turns are taken until it's there.
//!
//! ```text
//!   case ──► Stage ──┬── Core + Trace ── Backend (kernel, simulation, …) ──┐
//!                    └── peers' scripts ── World (sockets, remotes, …) ────┘
//! ```
//!
//! A backend whose peers can be the kernel's sockets needs no more than a [`Side`]; others implement [`World`]. What a world lacks it
//! declares ([`Ability`]), and cases that need it say that they're skipped. [`conformance_tests!`](crate::conformance_tests) makes a
//! test of each case.

mod actor;
mod correspondents;
mod datagram_story;
mod letters;
mod peers;
mod record;
mod run;
mod sim_world;
mod socket_world;
mod sockets;
mod stage;
mod trace;
mod world;

pub mod accepting;
pub mod binding;
pub mod bursts;
pub mod crowds;
pub mod datagrams;
pub mod dialling;
pub mod ending;
pub mod failing;
pub mod forwarding;
pub mod listening;
pub mod messages;
pub mod panicking;
pub mod polling;
pub mod receiving;
pub mod sending;
pub mod silence;
pub mod timers;
pub mod travelling;
pub mod wakes;

pub use actor::Ending;
pub use correspondents::{CorrespondentId, ROOMY};
pub use letters::SocketCorrespondent;
pub use record::{Door, Record, Seen, Story, Take};
pub use run::run;
pub use sim_world::{SimCorrespondent, SimDoor, SimWorld};
pub use socket_world::{KernelSide, Side, SocketWorld, UringSide, kernel_world, uring_world};
pub use sockets::{Home, Opener, SocketDoor, SocketPeer, Sockets};
pub use stage::{PeerId, SMALL, Stage};
pub use trace::{Hook, Trace};
pub use world::{Ability, Heard, Posting, Skip, Verdict, World, needs};
