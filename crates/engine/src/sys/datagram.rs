//! Datagrams by the batch: `recvmmsg`, `sendmmsg`, and the control messages that go with them.
//!
//! Addresses and control messages are put together and read as bytes, in the layout that the kernel has for them; unsafe are the
//! calls alone. Everything that the kernel is pointed to is on this stack or the caller's, for the length of the call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::datagram::{Flow, SLOTS};

/// `UDP_SEGMENT` of linux/udp.h.
pub(crate) const SEGMENT: libc::c_int = 103;
/// `UDP_GRO` of linux/udp.h.
pub(crate) const GRO: libc::c_int = 104;

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; 28]);

/// Control messages: at most an address and a segment's length.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 96]);

/// Bytes of a control message's header before its data (`CMSG_LEN(0)`).
const CONTROL_HEADER: usize = aligned(size_of::<libc::cmsghdr>());

const fn aligned(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// What came, into one slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// From whom; `None` of a family that we don't know.
    pub(crate) peer: Option<SocketAddr>,
    /// The address of this host that it came to.
    pub(crate) local: Option<IpAddr>,
    pub(crate) len: usize,
    /// How long each datagram of several is.
    pub(crate) segment: Option<usize>,
    /// There was more than the slot holds.
    pub(crate) truncated: bool,
}

/// What is to go, as one piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goes<'a> {
    pub(crate) flow: Flow,
    pub(crate) bytes: &'a [u8],
    /// Cut it up into so many bytes.
    pub(crate) segment: Option<u16>,
}

/// A header that points to nothing.
fn empty_header() -> libc::mmsghdr {
    // SAFETY: it consists of integers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Reads what waits into slots of `slot_bytes` bytes, calls `each` with the place of each slot and what came into it, and says how many
/// there were.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    slot_bytes: usize,
    mut each: impl FnMut(usize, Came),
) -> io::Result<usize> {
    let mut names = [Name([0; 28]); SLOTS];
    let mut controls = [Control([0; 96]); SLOTS];
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SLOTS];
    let mut headers: [libc::mmsghdr; SLOTS] = std::array::from_fn(|_| empty_header());
    let mut count = 0;
    let slots = buffer.chunks_exact_mut(slot_bytes).zip(&mut headers);
    for (((slot, header), name), (control, part)) in slots.zip(&mut names).zip(controls.iter_mut().zip(&mut parts)) {
        *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        header.msg_hdr.msg_name = (&raw mut *name).cast();
        header.msg_hdr.msg_namelen = length(size_of::<Name>());
        header.msg_hdr.msg_control = (&raw mut *control).cast();
        header.msg_hdr.msg_controllen = size_of::<Control>();
        header.msg_hdr.msg_iov = &raw mut *part;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` headers each point to a name, a control buffer and a part of the lengths that they say, which nothing
    // else uses during the call; each part points to a slot of `buffer`, which is borrowed alone. No timeout is given.
    let answer = unsafe { libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, 0, std::ptr::null_mut()) };
    let came = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
    for (index, header) in headers.iter().enumerate().take(came) {
        let told = &header.msg_hdr;
        let mut came = Came {
            peer: decode_name(&names[index].0, told.msg_namelen as usize),
            local: None,
            len: header.msg_len as usize,
            segment: None,
            truncated: told.msg_flags & libc::MSG_TRUNC != 0,
        };
        read_controls(&controls[index].0[..told.msg_controllen.min(size_of::<Control>())], &mut came);
        each(index, came);
    }
    Ok(came)
}

/// Sends `pieces`, at most [`SLOTS`] of them, by a socket of IPv6 or IPv4, and says how many went. An error is about the first.
pub(crate) fn send(fd: BorrowedFd<'_>, v6: bool, pieces: &[Goes<'_>]) -> io::Result<usize> {
    let mut names = [Name([0; 28]); SLOTS];
    let mut controls = [Control([0; 96]); SLOTS];
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SLOTS];
    let mut headers: [libc::mmsghdr; SLOTS] = std::array::from_fn(|_| empty_header());
    let mut count = 0;
    let rooms = names.iter_mut().zip(&mut controls).zip(parts.iter_mut().zip(&mut headers));
    for (goes, ((name, control), (part, header))) in pieces.iter().zip(rooms) {
        header.msg_hdr.msg_namelen = length(encode_name(&mut name.0, goes.flow.peer, v6));
        header.msg_hdr.msg_name = (&raw mut *name).cast();
        let controls = write_controls(&mut control.0, goes, v6);
        if controls > 0 {
            header.msg_hdr.msg_control = (&raw mut *control).cast();
            header.msg_hdr.msg_controllen = controls;
        }
        *part = libc::iovec { iov_base: goes.bytes.as_ptr().cast_mut().cast(), iov_len: goes.bytes.len() };
        header.msg_hdr.msg_iov = &raw mut *part;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` headers each point to a name, a part and, if any, control messages of the lengths that they say, which
    // outlive the call; the kernel only reads them and the bytes (so the cast from a shared slice is sound), and writes `msg_len` of the
    // headers, which nothing else uses.
    let answer = unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

fn length(len: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(len).expect("an address is short")
}

/// Writes `sockaddr_in` (linux/in.h) or `sockaddr_in6` (linux/in6.h), and says how long it is.
fn encode_name(name: &mut [u8; 28], addr: SocketAddr, v6: bool) -> usize {
    let family = |family: libc::c_int| u16::try_from(family).expect("families are small numbers").to_ne_bytes();
    name[2..4].copy_from_slice(&addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(addr) if !v6 => {
            name[..2].copy_from_slice(&family(libc::AF_INET));
            name[4..8].copy_from_slice(&addr.ip().octets());
            16
        }
        addr => {
            name[..2].copy_from_slice(&family(libc::AF_INET6));
            name[8..24].copy_from_slice(&as_v6(addr.ip()).octets());
            if let SocketAddr::V6(addr) = addr {
                name[24..].copy_from_slice(&addr.scope_id().to_ne_bytes());
            }
            28
        }
    }
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn decode_name(name: &[u8; 28], len: usize) -> Option<SocketAddr> {
    let family = libc::c_int::from(u16::from_ne_bytes([name[0], name[1]]));
    let port = u16::from_be_bytes([name[2], name[3]]);
    if family == libc::AF_INET && len >= 16 {
        let ip: [u8; 4] = name[4..8].try_into().ok()?;
        Some(SocketAddr::new(Ipv4Addr::from(ip).into(), port))
    } else if family == libc::AF_INET6 && len >= 28 {
        let ip: [u8; 16] = name[8..24].try_into().ok()?;
        let scope = u32::from_ne_bytes(name[24..].try_into().ok()?);
        Some(SocketAddrV6::new(ip.into(), port, 0, scope).into())
    } else {
        None
    }
}

/// Writes what goes along with a piece, and says how many bytes that is.
fn write_controls(control: &mut [u8; 96], goes: &Goes<'_>, v6: bool) -> usize {
    let mut end = 0;
    match goes.flow.local {
        Some(local) if v6 => {
            // in6_pktinfo (linux/ipv6.h): the address, and the interface, which the way to the peer decides.
            let mut info = [0; 20];
            info[..16].copy_from_slice(&as_v6(local).octets());
            end = put(control, end, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        Some(IpAddr::V4(local)) => {
            // in_pktinfo (linux/in.h): the interface, the local address, the header's.
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&local.octets());
            end = put(control, end, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        _ => {}
    }
    if let Some(segment) = goes.segment {
        end = put(control, end, libc::SOL_UDP, SEGMENT, &segment.to_ne_bytes());
    }
    end
}

/// Writes a control message (cmsg(3)) at `at`, and says where the next begins.
fn put(control: &mut [u8; 96], at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
    const WORD: usize = size_of::<usize>();
    let len = CONTROL_HEADER + data.len();
    control[at..at + WORD].copy_from_slice(&len.to_ne_bytes());
    control[at + WORD..at + WORD + 4].copy_from_slice(&level.to_ne_bytes());
    control[at + WORD + 4..at + WORD + 8].copy_from_slice(&kind.to_ne_bytes());
    control[at + CONTROL_HEADER..at + len].copy_from_slice(data);
    at + aligned(len)
}

/// Reads what the kernel tells of what came.
fn read_controls(mut control: &[u8], came: &mut Came) {
    const WORD: usize = size_of::<usize>();
    let int = |bytes: &[u8]| bytes.try_into().map(libc::c_int::from_ne_bytes).unwrap_or_default();
    while let Some(head) = control.get(..CONTROL_HEADER) {
        let len = head[..WORD].try_into().map(usize::from_ne_bytes).unwrap_or_default();
        let Some(data) = control.get(CONTROL_HEADER..len) else { return };
        match (int(&head[WORD..WORD + 4]), int(&head[WORD + 4..WORD + 8])) {
            // in_pktinfo: the second address is what answers come from, also where the header's is a broadcast's.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                came.local = data.get(4..8).and_then(|ip| <[u8; 4]>::try_from(ip).ok()).map(IpAddr::from);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let ip = data.get(..16).and_then(|ip| <[u8; 16]>::try_from(ip).ok()).map(Ipv6Addr::from);
                came.local = ip.filter(|ip| !ip.is_multicast()).map(IpAddr::from);
            }
            (libc::SOL_UDP, GRO) => {
                came.segment = data.get(..4).and_then(|bytes| usize::try_from(int(bytes)).ok());
            }
            _ => {}
        }
        control = control.get(aligned(len)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Came = Came { peer: None, local: None, len: 0, segment: None, truncated: false };

    #[test]
    fn names_are_read_as_they_were_written() {
        for addr in ["192.0.2.1:53", "[2001:db8::1]:5353", "[fe80::1%3]:1"] {
            let addr: SocketAddr = addr.parse().unwrap();
            let mut name = [0; 28];
            let len = encode_name(&mut name, addr, addr.is_ipv6());
            assert_eq!(decode_name(&name, len), Some(addr));
            assert_eq!(decode_name(&name, len - 1), None);
        }
        let mut name = [0; 28];
        let len = encode_name(&mut name, "192.0.2.1:53".parse().unwrap(), true);
        assert_eq!(decode_name(&name, len), Some("[::ffff:192.0.2.1]:53".parse().unwrap()));
    }

    #[test]
    fn control_messages_are_read_as_they_were_written() {
        for (local, v6) in [("192.0.2.1", false), ("2001:db8::1", true)] {
            let local: IpAddr = local.parse().unwrap();
            let flow = Flow { peer: "192.0.2.7:7".parse().unwrap(), local: Some(local) };
            let mut control = [0; 96];
            let end = write_controls(&mut control, &Goes { flow, bytes: &[], segment: Some(1200) }, v6);
            let mut came = NOTHING;
            read_controls(&control[..end], &mut came);
            assert_eq!(came.local, Some(local));
        }
    }

    #[test]
    fn control_messages_that_lie_about_their_length_are_left_alone() {
        let mut control = [0; 96];
        let end = put(&mut control, 0, libc::SOL_UDP, GRO, &1200_i32.to_ne_bytes());
        for len in [0, 1, CONTROL_HEADER - 1, end + 1, usize::MAX] {
            let mut lies = control;
            lies[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            let mut came = NOTHING;
            read_controls(&lies[..end], &mut came);
            assert_eq!(came.segment, None, "{len}");
        }
    }
}
