//! The system calls that rustix doesn't wrap. All unsafe code of the engine is here.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

pub(crate) mod datagram;
pub(crate) mod operation;
mod region;
pub(crate) mod ring;

use std::io;
use std::mem::{offset_of, size_of, size_of_val};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::path::PathInfo;

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
    attach_program(fd, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// Has the kernel drop whatever packet comes for the socket, as if its host were gone (`SO_ATTACH_FILTER`).
#[cfg(feature = "conformance")]
pub(crate) fn deafen(fd: BorrowedFd<'_>) -> io::Result<()> {
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    attach_program(fd, libc::SO_ATTACH_FILTER, &[Instruction { code: RETURN, jt: 0, jf: 0, k: 0 }])
}

fn attach_program(fd: BorrowedFd<'_>, option: libc::c_int, program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let header = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the header points to `length` instructions that outlive the call; the kernel copies them and writes nothing, so the
    // cast from a shared slice is sound.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
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

/// The beginning of the kernel's `struct tcp_info` (linux/tcp.h), which only ever grows at its end; in the host's byte order.
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    state: [u8; 2],
    /// Retransmission timeouts in a row; acknowledging anything new begins anew.
    retransmits: u8,
    /// Probes of a window or of keepalive that nothing has followed.
    probes: u8,
    scaling: [u8; 3],
    /// The first bit ([`RATE_LIMITED`]) says that the delivery rate was measured while the sender had no more to send.
    rate_bits: u8,
    timeouts_and_sizes: [u32; 4],
    /// Segments.
    unacked: u32,
    queues: [u32; 4],
    /// This and the next in milliseconds, to the jiffy.
    last_data_sent: u32,
    /// Linux never sets it.
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    sizes: [u32; 2],
    /// Microseconds, smoothed.
    rtt: u32,
    windows: [u32; 7],
    total_retrans: u32,
    pacing_and_bytes: [u64; 4],
    counts: [u32; 5],
    /// Retransmissions among them, acknowledgements without data not.
    data_segs_out: u32,
    /// Bytes a second (Linux 4.9).
    delivery_rate: u64,
}

/// The first of bits within a byte, which compilers count from the end that the host's byte order begins with.
const RATE_LIMITED: u8 = if cfg!(target_endian = "big") { 0x80 } else { 0x01 };

const _: () = {
    assert!(offset_of!(TcpInfo, retransmits) == 2);
    assert!(offset_of!(TcpInfo, probes) == 3);
    assert!(offset_of!(TcpInfo, rate_bits) == 7);
    assert!(offset_of!(TcpInfo, unacked) == 24);
    assert!(offset_of!(TcpInfo, last_data_sent) == 44);
    assert!(offset_of!(TcpInfo, last_ack_recv) == 56);
    assert!(offset_of!(TcpInfo, rtt) == 68);
    assert!(offset_of!(TcpInfo, total_retrans) == 100);
    assert!(offset_of!(TcpInfo, data_segs_out) == 156);
    assert!(offset_of!(TcpInfo, delivery_rate) == 160);
    assert!(size_of::<TcpInfo>() == 168);
};

/// What the kernel knows of the way to a TCP connection's peer (`TCP_INFO`); `None` before Linux 4.9, which tells too little.
pub(crate) fn path(fd: BorrowedFd<'_>) -> io::Result<Option<PathInfo>> {
    let mut info = TcpInfo::default();
    let whole = libc::socklen_t::try_from(size_of::<TcpInfo>()).expect("it is small");
    let mut told = whole;
    // SAFETY: the kernel writes at most `told` bytes to `info`, which is as long and takes any bytes; it writes to `told` how many
    // there were. Both outlive the call.
    let answer = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut told)
    };
    checked(answer)?;
    Ok((told == whole).then(|| PathInfo {
        rtt: Duration::from_micros(info.rtt.into()),
        sent_segments: info.data_segs_out.into(),
        retransmitted_segments: info.total_retrans.into(),
        delivery_rate: info.delivery_rate,
        delivery_rate_limited: info.rate_bits & RATE_LIMITED != 0,
        unacknowledged_segments: info.unacked,
        timeouts: info.retransmits,
        probes: info.probes,
        sent_ago: Duration::from_millis(info.last_data_sent.into()),
        heard_ago: Duration::from_millis(info.last_data_recv.min(info.last_ack_recv).into()),
    }))
}

/// The address of a TCP connection's peer, also when the connection is over, for which getpeername(2) has none (`SO_PEERNAME`).
pub(crate) fn peer_name(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    /// Of asm-generic/socket.h, which libc doesn't name.
    const SO_PEERNAME: libc::c_int = 28;
    let mut name = libc::sockaddr_in6 {
        sin6_family: 0,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    };
    // The kernel refuses to fill more than it has, and both families' addresses begin with family and port.
    for len in [size_of::<libc::sockaddr_in6>(), size_of::<libc::sockaddr_in>()] {
        let mut told = libc::socklen_t::try_from(len).expect("it is small");
        // SAFETY: the kernel writes at most `told` bytes to `name`, which is at least as long and takes any bytes; it reads and
        // writes `told`. Both outlive the call.
        let answer = unsafe {
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_PEERNAME, (&raw mut name).cast(), &raw mut told)
        };
        match checked(answer) {
            Ok(()) => break,
            Err(error) if len == size_of::<libc::sockaddr_in>() => return Err(error),
            Err(_) => {}
        }
    }
    let port = u16::from_be(name.sin6_port);
    match libc::c_int::from(name.sin6_family) {
        // The address of IPv4 stands where IPv6 has its flow.
        libc::AF_INET => Ok(SocketAddr::from((name.sin6_flowinfo.to_ne_bytes(), port))),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id)))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_way_to_a_peer_is_known_once_bytes_have_crossed_it() {
        const BYTES: usize = 200_000;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let before = path(near.as_fd()).unwrap().unwrap();
        assert_eq!(before.sent_segments, 0);
        let writing = std::thread::spawn(move || {
            near.write_all(&[7; BYTES]).unwrap();
            // The answer comes after the acknowledgement of all, or with it.
            near.read_exact(&mut [0]).unwrap();
            near
        });
        far.read_exact(&mut vec![0; BYTES]).unwrap();
        far.write_all(b"!").unwrap();
        let near = writing.join().unwrap();
        let after = path(near.as_fd()).unwrap().unwrap();
        assert!(after.rtt > Duration::ZERO && after.rtt < Duration::from_secs(10), "{after:?}");
        assert!(after.sent_segments > 0 && after.sent_segments <= BYTES as u64, "{after:?}");
        assert!(after.retransmitted_segments <= after.sent_segments, "{after:?}");
        assert!(after.delivery_rate > 0, "{after:?}");
        assert_eq!((after.unacknowledged_segments, after.timeouts, after.probes), (0, 0, 0), "{after:?}");
        assert!(after.sent_ago < Duration::from_secs(10) && after.heard_ago < Duration::from_secs(10), "{after:?}");
    }

    #[test]
    fn a_peer_that_stands_still_is_heard_of_when_its_closed_window_is_probed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        // All that the kernels of both ends hold.
        while near.write(&[7; 65_536]).is_ok_and(|written| written > 0) {}
        // The first probe comes after a retransmission timeout, each later one after twice as long.
        let begun = std::time::Instant::now();
        let mut heard_before = Duration::ZERO;
        loop {
            assert!(begun.elapsed() < Duration::from_secs(30), "no probe was answered");
            std::thread::yield_now();
            let path = path(near.as_fd()).unwrap().unwrap();
            let answered = path.heard_ago < heard_before && heard_before > Duration::from_millis(100);
            heard_before = path.heard_ago;
            assert!(path.timeouts == 0 && path.probes <= 1, "{path:?}");
            if answered && path.unacknowledged_segments == 0 {
                break;
            }
        }
    }

    #[test]
    fn a_unix_domain_socket_has_no_way_to_speak_of() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert!(path(near.as_fd()).is_err());
    }
}
