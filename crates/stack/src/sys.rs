//! Memory shared with the kernel, and system calls without a safe wrapper. All unsafe code of the crate is here and below.
#![expect(unsafe_code, reason = "memory shared with the kernel, and a system call without a safe wrapper")]

use std::io;

mod cell;
mod channels;
mod halves;
mod map;
mod ring;
mod tun;

#[cfg(test)]
pub(crate) use cell::SOCKET_BYTES;
pub(crate) use cell::{Arena, Cell};
pub(crate) use channels::receive_queues;
#[cfg(fuzzing)]
pub use halves::fuzz_rings;
pub(crate) use halves::{FRAME_BYTES, Rings, open_rings};
pub use halves::{RxHalf, TxHalf};
pub(crate) use tun::make_tun;

/// A device's name as the kernel reads it: a C string.
fn device_name(name: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    let place = bytes[..libc::IFNAMSIZ - 1].get_mut(..name.len());
    place.ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?.copy_from_slice(name.as_bytes());
    Ok(bytes)
}
