//! Routes to hosts, asked for and changed by rtnetlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily as Family, RecvFlags, SocketFlags, SocketType};

use super::ROUTE_PROTOCOL;
use super::answer::{Answer, Found, answers, kind, metric};
use crate::netlink;

/// What the kernel says at once is shorter: 32 KiB at most (`NLMSG_GOODSIZE` and what dumps are given).
const DATAGRAM_MAX: usize = 64 << 10;

/// A socket to the kernel's routing tables.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A route to one host.
#[derive(Clone, Debug)]
pub(super) struct HostRoute(RouteMessage);

impl HostRoute {
    /// A route to `host` as `now` says that its packets go, in the table that `matched` stands in; `None` if that can't be copied.
    pub(super) fn copied(host: IpAddr, matched: &Found, now: &Found, segments: u32) -> Option<Self> {
        let special = [kind::ENCAP, kind::MULTIPATH].into_iter().any(|kind| now.value(kind).is_some());
        if special || now.value(kind::OIF).is_none() {
            return None;
        }
        let mut route = Self::to(host, matched.table);
        let message = &mut route.0;
        let has_gateway = now.value(kind::GATEWAY).or(now.value(kind::VIA)).is_some();
        message.header.scope = if has_gateway || host.is_ipv6() { RouteScope::Universe } else { RouteScope::Link };
        if matched.is_onlink() || now.is_onlink() {
            message.header.flags = RouteFlags::Onlink;
        }
        let mut copy = |from: &Found, kind| {
            let value = from.value(kind).map(|value| RouteAttribute::Other(DefaultNla::new(kind, value.to_vec())));
            message.attributes.extend(value);
        };
        for kind in [kind::OIF, kind::GATEWAY, kind::VIA, kind::FLOW] {
            copy(now, kind);
        }
        // An IPv6 answer names the source that would be chosen, where its route says none.
        copy(if host.is_ipv6() { matched } else { now }, kind::PREFSRC);
        let lasting = |kind: u16| kind != metric::INITCWND && (kind != metric::MTU || !now.expires());
        let kept = now.metrics().into_iter().filter(|(kind, _)| lasting(*kind));
        let kept = kept.map(|(kind, value)| RouteMetric::Other(DefaultNla::new(kind, value)));
        message.attributes.push(RouteAttribute::Metrics(kept.chain([RouteMetric::InitCwnd(segments)]).collect()));
        Some(route)
    }

    /// A route that nobody has: to an address that is for documentation (RFC 5737).
    pub(super) fn of_nobody() -> Self {
        Self::to(Ipv4Addr::new(192, 0, 2, 1).into(), u32::from(RouteHeader::RT_TABLE_MAIN))
    }

    fn to(host: IpAddr, table: u32) -> Self {
        let mut message = asked(host);
        message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Table(table));
        Self(message)
    }

    /// A route of ours that was found.
    fn found(found: &Found) -> Self {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::from(found.family);
        message.header.destination_prefix_length = found.prefix;
        message.header.protocol = RouteProtocol::from(found.protocol);
        message.header.scope = RouteScope::from(found.scope);
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Table(found.table));
        for kind in [kind::DST, kind::OIF, kind::GATEWAY, kind::VIA, kind::PRIORITY] {
            let value = found.value(kind).map(|value| RouteAttribute::Other(DefaultNla::new(kind, value.to_vec())));
            message.attributes.extend(value);
        }
        Self(message)
    }
}

/// A message about a route to one host.
fn asked(host: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, prefix, address) = match host {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = prefix;
    message.attributes = vec![RouteAttribute::Destination(address)];
    message
}

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE, whose number is zero.
        let socket = rustix::net::socket_with(Family::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_MAX] })
    }

    /// The route to a host; `None` if there is none. `entry` asks for the entry of the table that matches (Linux 4.13), and not for
    /// what it comes to.
    pub(super) fn look_up(&mut self, host: IpAddr, entry: bool) -> io::Result<Option<Found>> {
        let mut message = asked(host);
        message.header.flags = RouteFlags::LookupTable;
        message.header.flags.set(RouteFlags::FibMatch, entry);
        match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL | Errno::NOENT) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// The routes of ours that are there, though this socket hasn't set any.
    pub(super) fn left_behind(&mut self) -> io::Result<Vec<HostRoute>> {
        let mut left = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let found = self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
            left.extend(found.iter().map(HostRoute::found));
        }
        Ok(left)
    }

    /// Adds a route, where there is no other to the same host.
    pub(super) fn add(&mut self, route: &HostRoute) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route.0.clone());
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Removes a route; one that is gone is no error.
    pub(super) fn remove(&mut self, route: &HostRoute) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(route.0.clone()), NLM_F_ACK) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::SRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// Asks, and reads to the answer's end. Of a dump only routes of ours are kept.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Found>> {
        self.sequence = self.sequence.wrapping_add(1);
        netlink::ask(&self.socket, self.sequence, message, flags)?;
        let mut found = Vec::new();
        loop {
            let (length, _) = rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            for answer in answers(&self.buffer[..length.min(DATAGRAM_MAX)], self.sequence)? {
                match answer {
                    Answer::Route(route) if flags & NLM_F_DUMP == 0 || route.protocol == ROUTE_PROTOCOL => {
                        found.push(route);
                    }
                    Answer::Route(_) | Answer::Other => {}
                    Answer::End(None) => return Ok(found),
                    Answer::End(Some(code)) => return Err(io::Error::from_raw_os_error(code)),
                }
            }
        }
    }
}
