//! Making a TUN device.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct ifreq` of linux/if.h as `TUNSETIFF` reads it: a name, the flags, and the rest of the union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Makes an open `/dev/net/tun` the device `name` of the calling thread's network namespace: bare packets, one a call
/// (Documentation/networking/tuntap.rst).
pub(crate) fn make_tun(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let flags = u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("the flags fit their field");
    let mut request = InterfaceRequest { name: super::device_name(name)?, flags, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes one ifreq; the pointer leads to a value of that size, which outlives the call.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
