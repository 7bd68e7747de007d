//! Addresses as the kernel has them, and ours.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{self, SocketAddrAny, SocketAddrUnix};

use crate::addr::{Addr, UnixAddr};

/// The kernel's address as ours. A family that we never use, or none, is an unnamed Unix-domain socket: so the kernel reports the
/// peers of those.
pub(crate) fn from_any(addr: Option<SocketAddrAny>) -> Addr {
    let Some(addr) = addr else { return Addr::Unix(UnixAddr::Unnamed) };
    if let Ok(inet) = std::net::SocketAddr::try_from(addr.clone()) {
        return Addr::Inet(inet);
    }
    let Ok(unix) = SocketAddrUnix::try_from(addr) else { return Addr::Unix(UnixAddr::Unnamed) };
    match (unix.path_bytes(), unix.abstract_name()) {
        (Some(path), _) => {
            let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(path);
            Addr::unix(path)
        }
        (None, Some(name)) => Addr::Unix(UnixAddr::Abstract(name.into())),
        (None, None) => Addr::Unix(UnixAddr::Unnamed),
    }
}

fn to_unix(name: &UnixAddr) -> Result<SocketAddrUnix, Errno> {
    match name {
        UnixAddr::Path(path) => SocketAddrUnix::new(&**path),
        UnixAddr::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
        UnixAddr::Unnamed => Err(Errno::INVAL),
    }
}

pub(crate) fn connect(fd: impl AsFd, to: &Addr) -> Result<(), Errno> {
    match to {
        Addr::Inet(addr) => net::connect(fd, addr),
        Addr::Unix(name) => net::connect(fd, &to_unix(name)?),
    }
}

pub(crate) fn bind(fd: impl AsFd, to: &Addr) -> Result<(), Errno> {
    match to {
        Addr::Inet(addr) => net::bind(fd, addr),
        Addr::Unix(name) => net::bind(fd, &to_unix(name)?),
    }
}
