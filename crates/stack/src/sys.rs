//! Memory shared with the kernel, and system calls without a safe wrapper. All unsafe code of the crate is here and below.
#![expect(unsafe_code, reason = "memory shared with the kernel, and a system call without a safe wrapper")]

mod cell;
mod halves;
mod map;
mod ring;
mod tun;

#[cfg(test)]
pub(crate) use cell::SOCKET_BYTES;
pub(crate) use cell::{Arena, Cell};
pub(crate) use halves::{FRAME_BYTES, Rings, open_rings};
pub use halves::{RxHalf, TxHalf};
pub(crate) use tun::make_tun;
