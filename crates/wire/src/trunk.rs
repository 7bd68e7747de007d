//! The trunk: how two gateways prove to each other who they are, and how one tells the next whom a connection is for.
//!
//! ```text
//!   dialer                                    acceptor
//!     │ introduction: names, nonce ─────────────► │
//!     │ ◄───────────────── challenge: nonce, MAC  │   the acceptor has proved itself
//!     │ proof: padding, MAC ────────────────────► │   the dialer has proved itself
//!     │ ◄──────────────── welcome: padding, MAC   │
//!     ┆  padding, if any, each way at once        ┆
//!     ┆       the connection waits in the pool    ┆
//!     │ hello: client, destination, path, MAC ──► │
//!     │ the client's bytes ═════════════════════► │
//!     │ ◄──────────── answer: stands, or why not  │
//!     │ ◄═════════════════════ the server's bytes │
//! ```
//!
//! `docs/trunk-protocol.md` has the bytes, the rules for versions, and what the authentication doesn't give: nothing
//! here is encrypted.
//!
//! # The contract
//! - Random numbers, sockets, deadlines and the choice of the key are the caller's. A [`Nonce`] is used once.
//! - Decoders follow the [contract of this crate](crate#the-contract-of-a-decoder). A message that the other side could
//!   send has a length that is bounded before it has come: [`auth::Message::LEN_MAX`], [`hello::LEN_MAX`]; an answer has one byte.
//! - What waits in a pool is small: each state of the handshake and the [`Session`] are at most 200 bytes.
//! - After any error the connection is closed without an answer, and the error's name is counted.
//!
//! # Modules
//! - [`auth`]: the four messages of the handshake.
//! - [`Offer`], [`Padding`]: bytes behind them that open a window.
//! - [`hello`]: the first message on a connection that is put to use.
//! - [`answer`]: what comes of it.

pub mod answer;
pub mod auth;
pub mod hello;

mod key;
mod mac;
mod name;
mod padding;
mod session;

pub use key::{Key, KeyError, Nonce};
pub use name::{Name, NameError};
pub use padding::{Offer, PADDING_MAX, Padding};
pub use session::Session;
