//! The multiplexor: messages of many clients over few warm connections to backends.
//!
//! ```text
//!  client ─┐                                                              ┌─ upstream ─► backend
//!  client ─┼─ whole messages ─► requests (slots, bytes kept) ─► choice of ├─ upstream ─► backend
//!  client ─┘                                 ▲        least outstanding   └─ upstream ─► other backend
//!     ▲                                      │                                   │
//!     └── answers, gathered, one write ◄── match (id or order) ◄─── whole messages
//! ```
//!
//! What this is: a component of a program on `midmile-engine`. A *client* is a connection that was accepted; each of its messages is a
//! *request* and has one *answer*. An *upstream* is a connection to a backend, kept open for all clients' requests. A *service* says
//! what a route's clients are given. It is the idea of the kernel's KCM, with answers that find their way back.
//!
//! What it is not: a [`Handler`](midmile_engine::Handler). The owner hands it the upcalls whose token is its own. And not a DNS server: it
//! understands ids, questions and little else, and keeps no answer.
//!
//! # The contract with the owner
//! - **Tokens** of connections that the mux has made have the top bit set ([`Mux::owns`]); the owner's must not. Each upcall about
//!   such a connection goes to the method of the same name.
//! - **Datagrams**: each upcall about a socket goes to the method of the same name, which says whether the socket is the mux's.
//! - **[`Mux::on_turn_end`]** is called at each turn's end: what was gathered leaves there, clients go on being read there, and what
//!   is due happens there.
//! - **[`Mux::due`]** says when a turn has to have ended at the latest: the owner sets its alarm by it after each `on_turn_end`. Its
//!   `on_alarm` needs to do nothing for the mux.
//! - **[`Mux::next_ended`]** is asked after each turn's end until it says no more: each admitted client is told once.
//! - **Engine's configuration**: `read_bytes` no less than the longest message of any service ([`Bounds::message_max`]), and room for
//!   the upstreams' connections besides the clients'.
//! - As with the engine's downcalls, no method calls the owner back.
//!
//! # A request's way
//! ```text
//!  whole message ──► Waiting ──► Sent ──► answered: the answer, SERVFAIL, or its client's end
//!                      ▲           │
//!                      └───────────┘ its upstream is lost, or silent and another place is there (Matching::Id)
//! ```
//! A request has a slot until it's answered or its time is up, and is in exactly one of these states. Where its client ends before, the
//! slot stays until then all the same, and the answer is dropped.
//!
//! To a place that is asked by datagrams a plain query goes so: posted, posted again, then elsewhere. Others, and those whose answer was
//! cut, go there by a connection ([`Detour`]).
//!
//! # An upstream's way
//! ```text
//!  Resting (until the pause is over) ──► Dialling ──► Open ──► lost: Resting again, for longer if it was of no use
//! ```
//!
//! # Memory
//! All of it is in tables that are reserved by [`Mux::new`], and in an arena of chunks for the bytes of requests and what waits to
//! be sent. Nothing is allocated for a message. What one client may be owed, and how many requests it may have outstanding, is bounded;
//! beyond, it isn't read, and its own window pushes back on it.
//!
//! Beside it stand [message sockets](socket): KCM's own interface, for programs with threads of their own.
//!
//! # Modules
//! `mux` is the public half and the services; `inward` has clients' upcalls, `onward` sends requests and watches their time, `back` has
//! upstreams' upcalls and matches answers, `keepalive` says what of them is changed, `transfer` gives zones' transfers upstreams of their
//! own, `sending` gathers and flushes, `prospect` says how much may come yet, `outage` what becomes of requests while no backend is reached.
//! `datagrams` does for datagrams what `onward` and `back` do: `posts` are their sockets, `drawn` their ids, `window` says how many may be
//! out, `detour` which requests may not go so. `census` counts clients by where they're from, for all cores together. `client`, `upstream`, `request`, `chunks` and `list` hold the state; `check` says what holds
//! between them.

#![forbid(unsafe_code)]

mod back;
mod census;
mod check;
mod chunks;
mod client;
mod counters;
mod datagrams;
mod detour;
mod drawn;
mod inward;
mod keepalive;
mod list;
mod lone;
mod measure;
mod mux;
mod onward;
mod outage;
mod pace;
mod posts;
mod prospect;
mod reason;
mod request;
mod sending;
mod service;
mod serving;
pub mod socket;
mod telling;
mod token;
mod transfer;
mod turns;
mod upstream;
mod window;

#[cfg(test)]
mod alloc_tests;
#[cfg(any(test, fuzzing))]
mod sim_tests;

pub use census::Census;
pub use counters::Counters;
pub use detour::Detour;
pub use mux::{Ended, Mux};
pub use posts::SOCKETS_MAX;
pub use reason::{End, Refused};
pub use service::{Bounds, Matching, Place, Service, ServiceId, Transport};

/// A simulated world whose decisions are the fuzzer's.
#[cfg(fuzzing)]
pub use crate::sim_tests::fuzz as fuzz_mux;
