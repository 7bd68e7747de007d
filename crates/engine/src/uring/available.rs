//! Whether this host has what the ring needs, and what mends it where not.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::sys::ring::{Ring, Sizes};

/// Why there's no io_uring to be had. The message names the mend.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The kernel is older than Linux 6.1, which has multishot receive into buffer rings and defers work until it's asked for.
    #[error("the kernel is too old for this use of io_uring: it takes Linux 6.1")]
    KernelTooOld,
    /// The kernel was built without it (`CONFIG_IO_URING`), or a filter hides the system call (`ENOSYS`).
    #[error(
        "the kernel has no io_uring, or a seccomp filter hides it: allow io_uring_setup, _enter and _register in the filter"
    )]
    Missing,
    /// `kernel.io_uring_disabled` forbids it to everybody (2), or to those outside of `kernel.io_uring_group` (1).
    #[error("sysctl kernel.io_uring_disabled={0} forbids io_uring: set it to 0, or at 1 join kernel.io_uring_group")]
    Disabled(u8),
    /// Something else forbids it, mostly a container's seccomp filter.
    #[error(
        "io_uring is forbidden, mostly by a container's seccomp filter: allow io_uring_setup, _enter and _register in it"
    )]
    Forbidden,
    /// The kernel lacks an operation, by this name.
    #[error("the kernel's io_uring lacks the operation {0}: it takes Linux 6.1 with networking by io_uring")]
    Lacks(&'static str),
    /// There's no memory for the rings that it may lock.
    #[error("no memory for the rings: raise RLIMIT_MEMLOCK (LimitMEMLOCK= of systemd), or make them smaller")]
    NoMemory,
    /// Anything else.
    #[error("io_uring: {0}")]
    System(#[from] io::Error),
}

impl Unavailable {
    /// What an error of setting a ring up means.
    pub(super) fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINVAL) => Self::KernelTooOld,
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EPERM | libc::EACCES) => disabled().map_or(Self::Forbidden, Self::Disabled),
            Some(libc::ENOMEM) => Self::NoMemory,
            _ => Self::System(error),
        }
    }
}

/// What the sysctl says if it forbids anything (Linux 6.6).
fn disabled() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok().filter(|value| *value > 0)
}

/// Whether the kernel says that it is of that version, or later.
pub(super) fn is_since(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Sends and receives a few bytes by a small ring, for [`crate::probe`].
pub(crate) fn try_uring() -> Result<(), Unavailable> {
    const WORD: &[u8] = b"uring";
    let sizes = Sizes { submissions: 4, completions: 8, buffers: 2, buffer_bytes: 256, blocks: 1, block_bytes: 256 };
    let mut ring = Ring::new(sizes).map_err(Unavailable::from_setup)?;
    if let Some(operation) = ring.missing()? {
        return Err(Unavailable::Lacks(operation));
    }
    let (near, far) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    ring.block(0)[..WORD.len()].copy_from_slice(WORD);
    ring.send(near.as_raw_fd(), 0, 0..5, false, 0);
    ring.recv(far.as_raw_fd(), 0, false);
    ring.enter(Some(Duration::from_secs(1)))?;
    let done = ring.next_done().ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
    match done.buffer {
        Some(buffer) if ring.received(buffer) == WORD => Ok(()),
        _ if done.result < 0 => Err(Unavailable::System(io::Error::from_raw_os_error(-done.result))),
        _ => Err(Unavailable::System(io::ErrorKind::InvalidData.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(is_since(0, 0) && is_since(2, 99) && !is_since(1000, 0));
    }

    #[test]
    fn each_refusal_names_its_mend() {
        let said = |errno| Unavailable::from_setup(io::Error::from_raw_os_error(errno)).to_string();
        assert!(said(libc::EINVAL).contains("Linux 6.1"));
        assert!(said(libc::ENOSYS).contains("seccomp"));
        assert!(said(libc::EPERM).contains("seccomp") || said(libc::EPERM).contains("io_uring_disabled"));
        assert!(said(libc::ENOMEM).contains("MEMLOCK"));
        assert!(said(libc::EMFILE).starts_with("io_uring: "));
    }
}
