//! Sockets with addresses that aren't this host's: listeners that the firewall hands others' connections to, and legs that come
//! from their client's address (Documentation/networking/tproxy.rst).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Socket, address, connect, leg_for};
use crate::addr::Addr;
use crate::backend::Dialled;
use crate::error::ConnError;
use crate::options::LegOptions;
use crate::sys;

/// Lets a socket have others' addresses. Needs `CAP_NET_ADMIN` or `CAP_NET_RAW`.
pub(super) fn set(fd: &OwnedFd, v4: bool) -> Result<(), Errno> {
    let (level, name) =
        if v4 { (libc::IPPROTO_IP, libc::IP_TRANSPARENT) } else { (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT) };
    sys::set_int(fd.as_fd(), level, name, 1).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}

/// Begins a connection from `source`: with its port if nobody has it, or else with any.
pub(super) fn dial(to: &Addr, source: SocketAddr, options: &LegOptions) -> Result<(Socket, Dialled), ConnError> {
    let to = canonical(to.inet().ok_or(ConnError::Unreachable)?);
    let source = canonical(source);
    if to.is_ipv4() != source.is_ipv4() {
        return Err(ConnError::Unreachable);
    }
    let to = Addr::Inet(to);
    match dial_bound(&to, source, options) {
        // Taken, or an earlier connection of the same two ends is still remembered: then only connecting fails.
        Err(ConnError::Exhausted) if source.port() != 0 => dial_bound(&to, SocketAddr::new(source.ip(), 0), options),
        answer => answer,
    }
}

fn dial_bound(to: &Addr, source: SocketAddr, options: &LegOptions) -> Result<(Socket, Dialled), ConnError> {
    let fd = leg_for(to, options)?;
    set(&fd, source.is_ipv4())?;
    if source.port() == 0 {
        // The port is chosen at connect, for these two ends alone (Linux 4.2).
        sys::set_int(fd.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
            .map_err(|error| ConnError::from(Errno::from_io_error(&error).unwrap_or(Errno::INVAL)))?;
    } else {
        // A client may talk to two servers from one port.
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    address::bind(&fd, &Addr::Inet(source))?;
    connect(fd, to, options)
}

/// IPv4 as itself: a listener on `[::]` sees it mapped into IPv6 (RFC 4291, 2.5.5.2).
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Tries whether sockets may have others' addresses, for [`crate::probe`].
pub(crate) fn try_transparent() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let fd = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    Ok(set(&fd, true)?)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use super::*;

    #[test]
    fn another_family_is_out_of_reach() {
        let (v4, v6) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), SocketAddr::from((Ipv6Addr::LOCALHOST, 1)));
        for (to, source) in [(v4, v6), (v6, v4)] {
            let answer = dial(&Addr::Inet(to), source, &LegOptions::default());
            assert_eq!(answer.map(|_| ()), Err(ConnError::Unreachable));
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.1:80".parse().unwrap());
    }

    /// Whose address `server` sees when it's dialled from `source`; the leg stays open.
    fn seen(server: &TcpListener, source: SocketAddr) -> (Socket, SocketAddr) {
        let to = Addr::Inet(server.local_addr().unwrap());
        let (leg, _) = dial(&to, source, &LegOptions::default()).unwrap();
        (leg, server.accept().unwrap().1)
    }

    #[test]
    fn a_port_is_kept_where_it_is_free_and_the_address_always() {
        if let Err(error) = try_transparent() {
            println!("SKIP: IP_TRANSPARENT isn't tried: {error}");
            return;
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = TcpListener::bind("127.77.0.9:0").unwrap();
        let source = holder.local_addr().unwrap();
        let (_other, saw) = seen(&server, source);
        assert!(saw.ip() == source.ip() && saw.port() != source.port(), "{saw} of {source}");
        drop(holder);
        let (_first, saw) = seen(&server, source);
        assert_eq!(saw, source);
        // The same two ends once more: only connecting finds out.
        let (_second, saw) = seen(&server, source);
        assert!(saw.ip() == source.ip() && saw.port() != source.port(), "{saw} of {source}");
    }
}
