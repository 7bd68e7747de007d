//! A user-space TCP beneath the engine: smoltcp over AF_XDP, or over TUN for tests.
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
mod sys;
mod tun;
mod xdp;

pub use crate::config::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, ConfigError, StackConfig};
pub use crate::gauges::StackGauges;
pub use crate::stack::{Listener, Pipe, Socket, Stack};
pub use crate::tun::{Tun, TunError, TunRx, TunTx};
pub use crate::xdp::{RxHalf, TxHalf, Xdp, XdpConfig, XdpDevice, XdpError};
