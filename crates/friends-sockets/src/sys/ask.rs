//! What the kernel knows of a socket.

use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::raw::c_int;
use std::time::Duration;

use super::{errno, real, set_errno};

/// `SO_NETNS_COOKIE` (asm-generic/socket.h, Linux 5.14).
const SO_NETNS_COOKIE: c_int = 71;

/// `SO_COOKIE` (asm-generic/socket.h).
const SO_COOKIE: c_int = 57;

/// States in which data can be sent (net/tcp_states.h).
const TCP_ESTABLISHED: u8 = 1;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_CLOSING: u8 = 11;

/// Bytes that crossed, as TCP counts them (`TCP_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The connection's state (net/tcp_states.h).
    state: u8,
    /// Acknowledged by the peer; one more on the side that connected, whose SYN is counted.
    pub(crate) acknowledged: u64,
    /// Received, in order.
    pub(crate) received: u64,
}

impl Counted {
    pub(crate) fn is_established(&self) -> bool {
        self.state == TCP_ESTABLISHED
    }
}

/// Reads an option into `value`; how much of it was filled, if the kernel answered.
fn option(fd: c_int, level: c_int, name: c_int, value: &mut [u8]) -> Option<usize> {
    let kept = errno();
    let mut length = libc::socklen_t::try_from(value.len()).ok()?;
    // SAFETY: the pointers are to `value` and its length.
    let answer =
        unsafe { (real::syscall())(libc::SYS_getsockopt, fd, level, name, value.as_mut_ptr(), &raw mut length) };
    set_errno(kept);
    (answer == 0).then_some(length as usize)
}

/// An integer option.
pub(crate) fn number(fd: c_int, level: c_int, name: c_int) -> Option<c_int> {
    let mut value = [0; size_of::<c_int>()];
    option(fd, level, name, &mut value)?;
    Some(c_int::from_ne_bytes(value))
}

/// Sets an integer option; whether the kernel took it.
pub(crate) fn set_number(fd: c_int, level: c_int, name: c_int, value: c_int) -> bool {
    let kept = errno();
    let size = size_of::<c_int>();
    // SAFETY: the pointer is to an integer of ours, of the length that is said.
    let answer = unsafe { (real::syscall())(libc::SYS_setsockopt, fd, level, name, &raw const value, size) };
    set_errno(kept);
    answer == 0
}

/// How long a call may wait (`SO_RCVTIMEO`, `SO_SNDTIMEO`); `None`: for ever.
pub(crate) fn limit(fd: c_int, name: c_int) -> Option<Duration> {
    let mut value = [0; 16];
    option(fd, libc::SOL_SOCKET, name, &mut value)?;
    let seconds = u64::from_ne_bytes(value[..8].try_into().ok()?);
    let micros = u64::from_ne_bytes(value[8..].try_into().ok()?);
    let limit = Duration::from_secs(seconds) + Duration::from_micros(micros);
    (!limit.is_zero()).then_some(limit)
}

/// How the connection ends when it's closed (`SO_LINGER`).
pub(crate) fn linger(fd: c_int) -> Option<libc::linger> {
    let mut value = [0; size_of::<libc::linger>()];
    option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &mut value)?;
    let half = |place: usize| value[place..place + 4].try_into().map(c_int::from_ne_bytes).ok();
    Some(libc::linger { l_onoff: half(0)?, l_linger: half(4)? })
}

/// Where the socket's network namespace is known by.
pub(crate) fn namespace(fd: c_int) -> Option<u64> {
    let mut value = [0; 8];
    (option(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut value)? == 8).then(|| u64::from_ne_bytes(value))
}

/// A number that no other socket of this host has had since it started (`SO_COOKIE`); `None` where there's no socket.
pub(crate) fn cookie(fd: c_int) -> Option<u64> {
    let mut value = [0; 8];
    (option(fd, libc::SOL_SOCKET, SO_COOKIE, &mut value)? == 8).then(|| u64::from_ne_bytes(value))
}

/// TCP's own counts.
pub(crate) fn counted(fd: c_int) -> Option<Counted> {
    // struct tcp_info of linux/tcp.h: tcpi_state is its first byte, tcpi_bytes_acked at 120 and tcpi_bytes_received at 128.
    let mut info = [0; 136];
    if option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)? < info.len() {
        return None;
    }
    let at = |place: usize| info[place..place + 8].try_into().map(u64::from_ne_bytes).ok();
    Some(Counted { state: info[0], acknowledged: at(120)?, received: at(128)? })
}

/// Whether an upper-layer protocol, such as TLS of the kernel's, sits on the connection.
pub(crate) fn has_upper_layer(fd: c_int) -> bool {
    let mut name = [0; 16];
    option(fd, libc::IPPROTO_TCP, libc::TCP_ULP, &mut name).is_some_and(|length| length > 0)
}

/// An ioctl that answers an integer.
fn queued(fd: c_int, request: libc::c_ulong) -> Option<u64> {
    let kept = errno();
    let mut value: c_int = 0;
    // SAFETY: these requests write one integer, and the pointer is to one.
    let answer = unsafe { (real::syscall())(libc::SYS_ioctl, fd, request, &raw mut value) };
    set_errno(kept);
    if answer == 0 { u64::try_from(value).ok() } else { None }
}

/// Bytes that wait in the socket to be read (`SIOCINQ`).
pub(crate) fn unread(fd: c_int) -> Option<u64> {
    queued(fd, libc::FIONREAD)
}

/// `SIOCATMARK` (linux/sockios.h).
const SIOCATMARK: libc::c_ulong = 0x8905;

/// Whether the next byte is the one that was urgent.
pub(crate) fn at_mark(fd: c_int) -> bool {
    queued(fd, SIOCATMARK) == Some(1)
}

/// Bytes that were sent and aren't acknowledged (`SIOCOUTQ`).
pub(crate) fn unacknowledged(fd: c_int) -> Option<u64> {
    queued(fd, libc::TIOCOUTQ)
}

/// Bytes that were ever sent, and on the side that connected its SYN. `None`: no more can be sent. The caller sees to it that nobody sends.
pub(crate) fn sent(fd: c_int) -> Option<u64> {
    // It ends: who would send more waits for the lock.
    loop {
        let (before, waiting, after) = (counted(fd)?, unacknowledged(fd)?, counted(fd)?);
        if ![TCP_ESTABLISHED, TCP_CLOSE_WAIT].contains(&after.state) {
            return None;
        }
        if before.acknowledged == after.acknowledged {
            return Some(after.acknowledged + waiting);
        }
    }
}

/// Bytes that were ever received and read. `None`: the connection is over. The caller sees to it that nobody reads.
pub(crate) fn received(fd: c_int) -> Option<u64> {
    loop {
        let (before, waiting, after) = (counted(fd)?, unread(fd)?, counted(fd)?);
        // TCP counts the FIN too (tcp_queue_rcv in net/ipv4/tcp_input.c), and ioctl doesn't.
        let end = match after.state {
            TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING | TCP_TIME_WAIT => 1,
            TCP_CLOSE => return None,
            _ => 0,
        };
        if before.received == after.received && before.state == after.state {
            return after.received.checked_sub(waiting + end);
        }
    }
}

/// The descriptor's flags (`F_GETFL`), 0 if it isn't open.
pub(crate) fn flags(fd: c_int) -> c_int {
    let kept = errno();
    // SAFETY: no pointer is passed.
    let flags = unsafe { (real::syscall())(libc::SYS_fcntl, fd, libc::F_GETFL, 0) };
    set_errno(kept);
    c_int::try_from(flags.max(0)).unwrap_or(0)
}

/// Whether the descriptor goes away when the process executes another program.
pub(crate) fn closes_on_exec(fd: c_int) -> bool {
    let kept = errno();
    // SAFETY: no pointer is passed.
    let flags = unsafe { (real::syscall())(libc::SYS_fcntl, fd, libc::F_GETFD, 0) };
    set_errno(kept);
    flags >= 0 && flags & libc::c_long::from(libc::FD_CLOEXEC) != 0
}

/// Which end of a connection.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Own,
    Peer,
}

/// The address of an end, IPv4 as mapped IPv6; `None` for other families.
pub(crate) fn address(fd: c_int, end: End) -> Option<SocketAddrV6> {
    let kept = errno();
    let mut storage = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in6>()).ok()?;
    let number = match end {
        End::Own => libc::SYS_getsockname,
        End::Peer => libc::SYS_getpeername,
    };
    // SAFETY: the pointers are to the storage and its length.
    let answer = unsafe { (real::syscall())(number, fd, storage.as_mut_ptr(), &raw mut length) };
    set_errno(kept);
    if answer != 0 {
        return None;
    }
    // SAFETY: it was zeroed, and all of its bytes may have any value.
    address_in(&unsafe { storage.assume_init() })
}

/// The address that stands in one of the kernel's, of either family.
pub(super) fn address_in(six: &libc::sockaddr_in6) -> Option<SocketAddrV6> {
    match c_int::from(six.sin6_family) {
        libc::AF_INET6 => {
            Some(SocketAddrV6::new(Ipv6Addr::from(six.sin6_addr.s6_addr), u16::from_be(six.sin6_port), 0, 0))
        }
        libc::AF_INET => {
            // sockaddr_in: the port where sockaddr_in6 has it, the address where that has the flow.
            let four = Ipv4Addr::from(six.sin6_flowinfo.to_ne_bytes());
            Some(SocketAddrV6::new(four.to_ipv6_mapped(), u16::from_be(six.sin6_port), 0, 0))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_was_read_is_known_before_and_after_the_end_came() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let fd = accepted.as_raw_fd();
        assert_eq!(received(fd), Some(0));
        dialled.write_all(b"twelve bytes").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(received(fd), Some(5));
        dialled.shutdown(Shutdown::Write).unwrap();
        // The end comes, with bytes before it, and is read.
        accepted.peek(&mut [0; 12]).unwrap();
        assert_eq!(received(fd), Some(5));
        accepted.read_exact(&mut [0; 7]).unwrap();
        assert_eq!(received(fd), Some(12));
        assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(received(fd), Some(12));
        accepted.shutdown(Shutdown::Write).unwrap();
        assert!([Some(12), None].contains(&received(fd)));
    }
}
