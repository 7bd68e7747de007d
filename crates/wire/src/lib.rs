//! Wire formats, sans-IO: bytes in, values out, and back.
//!
//! ```text
//!   bytes of a stream ──► decode ──► value + how many bytes it took
//!                value ──► encode ──► a fixed array of bytes
//! ```
//!
//! What this is: pure functions over slices. Nothing here but [`capture`] allocates, and nothing reads a clock, opens a socket or
//! keeps state between calls (where a message may come in many pieces, the caller keeps it: [`frame::Seen`]), and no input makes it panic.
//!
//! What this is not: a reader or a writer. The caller owns the buffer, appends what the socket gave, and calls again;
//! it also owns the deadline by which a header must be complete, and the choice of whom to believe.
//!
//! # The contract of a decoder
//! - `Ok(None)`: every byte so far fits, and more are needed. Not an error: read on.
//! - `Ok(Some(_))`: complete. Bytes after it are the caller's and do not change the answer.
//! - `Err(_)`: no further byte can mend it, so a decoder says it as early as it can. Close and count the reason.
//!
//! # Modules
//! - [`capture`]: packets made up for bytes that went without any, for Wireshark.
//! - [`dns`]: a look at a DNS message: id, question, signature; and where a zone's transfer ends.
//! - [`encoded`]: what an encoder writes.
//! - [`frame`]: where one message of a stream ends; by rules, or by a BPF program.
//! - [`named!`]: reasons that are counted under names.
//! - [`proxy`]: the PROXY protocol, versions 1 and 2: who a relayed connection is from and to.
//! - [`trunk`]: between gateways: the handshake, the hello in front of a connection, and the answer to it.

#![forbid(unsafe_code)]

pub mod capture;
pub mod dns;
pub mod encoded;
pub mod frame;
mod named;
pub mod proxy;
pub mod trunk;
