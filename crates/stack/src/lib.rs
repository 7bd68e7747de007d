//! A TCP in user space beneath the engine: smoltcp above AF_XDP, or above TUN for tests.
//!
//! A program on `midmile-engine` runs on it as it runs on the kernel's TCP. It's opt-in and has a narrow use, small messages over
//! links without loss where both ends are one's own: `docs/user-stack.md` says when not to use it, what it takes from the kernel, and its
//! limits.
//!
//! ```text
//!   engine: Core, Handler
//!        │  Backend (readiness)
//!   Stack ───────────────────────── one a core and a receive queue
//!        │  frames and time in, frames and events out
//!   net: table of connections, listeners, half-open, TIME-WAIT, timers; a smoltcp set for each connection
//!        │  Link (two halves: receive, transmit)
//!   Xdp (rings in shared memory)   Tun   cable, faulty (tests)
//! ```
//!
//! What it isn't: a TCP of our own (smoltcp's serves; ours are the driver beneath and the demultiplexer above), or a replacement for the
//! kernel's on paths with loss.
//!
//! # The contract
//! - **Packets**: only those to the addresses and ports of [`StackConfig`] are taken from the kernel. [`XdpDevice`] attaches the program
//!   that does so; it's gone with the last of its queues, or with the process.
//! - **Order**: what the program sends in a turn leaves when the engine polls next, in as few packets as it fits.
//! - **Memory** is bounded by [`StackConfig`]; tables are reserved when a stack is made. A connection has a socket and buffers while
//!   something happens on it; one that has been silent for [`StackConfig::rest_after`] keeps neither ([`StackGauges::resting`]).
//! - **Trust**: any frame may come. Nothing in one may panic; what isn't right is dropped and counted ([`StackGauges`]).
//! - **Threads**: a stack belongs to one core. It may be moved to its thread, and is never shared.
//!
//! # Modules
//! [`link`] is the seam beneath; `net` is all the rest of the stack without I/O; `stack` makes a backend of both. `xdp` and `tun` are the
//! drivers, [`cable`] and [`faulty`] stand for them in tests. Unsafe code lives in `sys` alone: memory shared with the kernel, and one
//! `ioctl`.

#![deny(unsafe_code)]

pub mod cable;
mod config;
pub mod faulty;
mod gauges;
pub mod link;
mod net;
mod random;
mod sleep;
mod stack;
mod sum;
mod sys;
mod tun;
mod xdp;

pub use crate::config::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, ConfigError, REST_AFTER_MIN, StackConfig};
pub use crate::gauges::StackGauges;
pub use crate::stack::{DatagramSocket, Listener, Pipe, Socket, Stack};
pub use crate::sum::Unfinished;
#[cfg(fuzzing)]
pub use crate::sys::fuzz_rings;
pub use crate::tun::{Tun, TunError, TunRx, TunTx};
pub use crate::xdp::{RxHalf, TxHalf, Xdp, XdpConfig, XdpDevice, XdpError};
