//! The system calls that rustix doesn't wrap. All unsafe code of the engine is here.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One instruction of classic BPF (linux/filter.h).
pub(crate) type Instruction = libc::sock_filter;

/// Sets an integer socket option.
pub(crate) fn set_int(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel only reads it.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of_val(&value)).expect("an int is small"),
        )
    };
    checked(answer)
}

/// Sets the most that the socket sends, in bytes a second (`SO_MAX_PACING_RATE`; 64 bits wide since Linux 4.20).
pub(crate) fn set_pacing(fd: BorrowedFd<'_>, bytes_per_second: u64) -> io::Result<()> {
    // SAFETY: the pointer and the length describe the number, which outlives the call; the kernel only reads it.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const bytes_per_second).cast(),
            libc::socklen_t::try_from(size_of_val(&bytes_per_second)).expect("a number is small"),
        )
    };
    checked(answer)
}

/// Lets a classic BPF program choose among the sockets of the `SO_REUSEPORT` group that `fd` belongs to (Linux 4.5).
pub(crate) fn attach_reuseport_program(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let header = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the header points to `length` instructions that outlive the call; the kernel copies them and writes nothing, so the
    // cast from a shared slice is sound.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const header).cast(),
            libc::socklen_t::try_from(size_of_val(&header)).expect("a header is small"),
        )
    };
    checked(answer)
}

/// What of a send queue is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// Bytes that haven't been sent (`SIOCOUTQNSD`, TCP only).
    Unsent,
    /// Bytes that haven't been acknowledged, or read on a Unix-domain socket (`SIOCOUTQ`).
    Unacknowledged,
}

/// Bytes in the send queue.
pub(crate) fn queued(fd: BorrowedFd<'_>, which: Queued) -> io::Result<usize> {
    /// `SIOCOUTQNSD` of linux/sockios.h, which libc doesn't name.
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    let request = match which {
        Queued::Unsent => SIOCOUTQNSD,
        // `SIOCOUTQ` is another name of it.
        Queued::Unacknowledged => libc::TIOCOUTQ,
    };
    let mut bytes: libc::c_int = 0;
    // SAFETY: either request writes one int to the pointer, which is valid for that.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut bytes) };
    checked(answer)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Whether io_uring may be used here: a ring of one entry is made and closed again.
pub(crate) fn try_io_uring() -> io::Result<()> {
    let mut params = [0_u8; 120];
    // SAFETY: io_uring_params is 120 bytes (linux/io_uring.h); the kernel reads and writes no more than that.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    let fd = libc::c_int::try_from(fd).unwrap_or(-1);
    checked(fd)?;
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    checked(unsafe { libc::close(fd) })
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
