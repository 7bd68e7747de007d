//! The system calls without a safe wrapper. All unsafe code of the lab is here.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

/// `struct ifreq` of linux/if.h as `TUNSETIFF` reads it: a name, the flags, and the rest of the union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Gives the calling thread a network namespace of its own, empty but for a loopback that is down.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET changes no descriptor table, which is what makes other flags unsafe.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Moves the process into a user namespace of its own. It must have one thread (`EINVAL` otherwise).
pub(crate) fn unshare_user() -> io::Result<()> {
    // SAFETY: CLONE_NEWUSER changes no descriptor table, which is what makes other flags unsafe.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }?;
    Ok(())
}

/// Makes an open `/dev/net/tun` the device `name` of the calling thread's network namespace: packets without frames, each behind a
/// `virtio_net_hdr` (Documentation/networking/tuntap.rst).
pub(crate) fn attach_tun(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let flags = u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR).expect("the flags fit their field");
    let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
    // The last byte stays zero: the kernel wants a C string.
    let room = &mut request.name[..libc::IFNAMSIZ - 1];
    let Some(place) = room.get_mut(..name.len()) else { return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)) };
    place.copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one ifreq; the pointer leads to a value of that size, which outlives the call.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// Lets the kernel hand over TCP packets larger than the MTU and without a complete checksum.
pub(crate) fn offload_tun(fd: BorrowedFd<'_>) -> io::Result<()> {
    let offloads = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN);
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })
}

/// Sets an integer option of a TCP socket.
pub(crate) fn set_tcp_option(fd: BorrowedFd<'_>, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("an int is small");
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel only reads it.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, name, (&raw const value).cast(), length) })
}

/// Has the kernel kill the command's process once the thread that starts it is gone, however that came (`PR_SET_PDEATHSIG`).
pub(crate) fn die_with_this_thread(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec the closure makes two system calls; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(move || bind_to(parent)) };
}

/// Runs in the child. A parent that is already gone would never send its signal.
fn bind_to(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
