//! What this host allows. Each probe tries the thing itself, on descriptors of its own, and leaves nothing behind.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::kernel;
use crate::uring::{self, Unavailable};

/// Moves bytes from a socket to a socket through a pipe (`splice(2)`, Linux 2.6.35 for what we do).
///
/// # Errors
/// The system's, when it can't be done: bulk is then copied.
pub fn splice_sockets() -> io::Result<()> {
    let pair = || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let ((near, far), (out, end)) = (pair()?, pair()?);
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    send(&near, b"splice", SendFlags::NOSIGNAL)?;
    let moved = splice(&far, None, &write, None, 6, SpliceFlags::MOVE)?;
    splice(&read, None, &out, None, moved, SpliceFlags::MOVE)?;
    let mut back = [0_u8; 8];
    let (bytes, _) = recv(&end, &mut back, RecvFlags::empty())?;
    if &back[..bytes] == b"splice" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The capacity that a pipe gets when `wanted` bytes are asked for: less than that beyond `fs.pipe-max-size` or
/// `fs.pipe-user-pages-soft`, for the unprivileged.
///
/// # Errors
/// The system's, when no pipe can be made.
pub fn pipe_bytes(wanted: usize) -> io::Result<usize> {
    let (_read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut wanted = wanted;
    loop {
        match fcntl_setpipe_size(&write, wanted) {
            Ok(got) => return Ok(got),
            Err(_) if wanted > 4096 => wanted /= 2,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Steers connections of a `SO_REUSEPORT` group to the CPU that received them.
///
/// # Errors
/// The system's, when it can't be done: connections are then spread by a hash.
pub fn steering() -> io::Result<()> {
    kernel::try_steering()
}

/// Gives a socket an address that isn't this host's (`IP_TRANSPARENT`).
///
/// # Errors
/// The system's, when it can't be done: nothing is intercepted then, and no client's address shown to a server.
pub fn transparent() -> io::Result<()> {
    kernel::try_transparent()
}

/// Has datagrams come up together and cut up late (`UDP_GRO`, Linux 5.0; `UDP_SEGMENT`, Linux 4.18).
///
/// # Errors
/// The system's, when it can't be done: datagrams then come and go one by one.
pub fn datagram_coalescing() -> io::Result<()> {
    kernel::try_coalescing()
}

/// Receives by an io_uring what was sent by it, as the engine's backend does.
///
/// # Errors
/// What is missing, and what mends it.
pub fn io_uring() -> Result<(), Unavailable> {
    uring::try_uring()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_supported_kernel_has_is_found() {
        splice_sockets().unwrap();
        steering().unwrap();
        assert!(pipe_bytes(1 << 20).unwrap() >= 4096);
    }
}
