//! By whom packets leave: a device's own figures, the next hop to a host, and that hop's Ethernet address, asked of the kernel by
//! rtnetlink(7).
//!
//! Somebody who sends frames by himself needs the answers that the kernel keeps for its own packets. It goes on to resolve addresses
//! (ARP, RFC 826; neighbour discovery, RFC 4861); here it's asked, and told when there's something to resolve.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily as Family, RecvFlags, SocketFlags, SocketType};

use crate::netlink;

/// What the kernel says at once is shorter: 32 KiB at most.
const DATAGRAM_MAX: usize = 64 << 10;

/// An Ethernet address.
pub type LinkAddress = [u8; 6];

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// The longest packet that it carries, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Its Ethernet address; `None` if it isn't an Ethernet device.
    pub link: Option<LinkAddress>,
    /// Whether it's one end of a veth pair: what comes may have checksums that nobody has finished.
    pub veth: bool,
    /// Receive queues that it may use; it may use fewer now.
    pub queues: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Where packets to a host go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The number of the device by which they leave.
    pub device: u32,
    /// Who takes them: a router, or the host itself.
    pub next: IpAddr,
    /// The address that they come from.
    pub source: Option<IpAddr>,
}

/// What is known of a neighbour's Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// It has this one.
    Known(LinkAddress),
    /// It's being asked.
    Asked,
    /// Nothing, and nobody asks.
    Unknown,
    /// It was asked, and didn't answer.
    Silent,
}

/// A socket to the kernel's tables, of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Neighbours {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Neighbours {
    /// Opens it.
    ///
    /// # Errors
    /// When there's no descriptor left.
    pub fn open() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE, whose number is zero.
        let socket = rustix::net::socket_with(Family::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_MAX] })
    }

    /// The device of a name, as it is now.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn interface(&mut self, name: &str) -> io::Result<Interface> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut interface = self.link(message)?;
        let index = interface.index;
        let addresses = &mut interface.addresses;
        self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewAddress(address) = answer
                && address.header.index == index
            {
                addresses.extend(address_of(&address));
            }
        })?;
        Ok(interface)
    }

    /// The longest packet that a device carries now, in bytes.
    ///
    /// # Errors
    /// `ENODEV` if there's no device of this number.
    pub fn mtu(&mut self, device: u32) -> io::Result<u32> {
        let mut message = LinkMessage::default();
        message.header.index = device;
        Ok(self.link(message)?.mtu)
    }

    /// The device that `message` asks for, without its addresses.
    fn link(&mut self, message: LinkMessage) -> io::Result<Interface> {
        let mut found = None;
        self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(link);
            }
        })?;
        Ok(interface_of(&found.ok_or(Errno::NODEV)?))
    }

    /// Where packets to a host go; `None` where they don't leave by a device to a neighbour.
    ///
    /// # Errors
    /// `EACCES` where a route prohibits it; the system's others aren't known to happen.
    pub fn way(&mut self, to: IpAddr) -> io::Result<Option<Way>> {
        let mut message = RouteMessage::default();
        let (family, prefix, address) = match to {
            IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
            IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = prefix;
        message.attributes.push(RouteAttribute::Destination(address));
        let mut found = None;
        let asked = self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                found = Some(route);
            }
        });
        match asked.map_err(|error| Errno::from_io_error(&error)) {
            Ok(()) => Ok(found.and_then(|route| way_of(&route, to))),
            Err(Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::INVAL | Errno::NOENT)) => Ok(None),
            Err(code) => Err(code.unwrap_or(Errno::INVAL).into()),
        }
    }

    /// What the kernel knows of a neighbour's address (Linux 5.0).
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn neighbour(&mut self, device: u32, neighbour: IpAddr) -> io::Result<Neighbour> {
        let mut known = Neighbour::Unknown;
        let message = RouteNetlinkMessage::GetNeighbour(asked(device, neighbour));
        let asked = self.request(message, NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewNeighbour(found) = answer {
                known = neighbour_of(&found);
            }
        });
        match asked.map_err(|error| Errno::from_io_error(&error)) {
            Ok(()) | Err(Some(Errno::NOENT)) => Ok(known),
            Err(code) => Err(code.unwrap_or(Errno::INVAL).into()),
        }
    }

    /// Has the kernel find out a neighbour's address, as if it had a packet for it; needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Without the capability, or when the device is gone.
    pub fn resolve(&mut self, device: u32, neighbour: IpAddr) -> io::Result<()> {
        let mut message = asked(device, neighbour);
        message.header.flags = NeighbourFlags::Use;
        message.header.state = NeighbourState::None;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewNeighbour(message), flags, drop)
    }

    /// Asks, and reads to the answer's end.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut tell: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        netlink::ask(&self.socket, self.sequence, message, flags)?;
        loop {
            let (length, _) = rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &self.buffer[..length.min(DATAGRAM_MAX)];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                let ours = answer.header.sequence_number == self.sequence;
                // Messages begin at multiples of four, and none is shorter than its header.
                let taken = usize::try_from(answer.header.length).unwrap_or(usize::MAX).max(16);
                rest = rest.get(taken.checked_next_multiple_of(4).unwrap_or(usize::MAX)..).unwrap_or_default();
                match answer.payload {
                    _ if !ours => {}
                    NetlinkPayload::InnerMessage(inner) => tell(inner),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(answer) => {
                        return if answer.code.is_none() { Ok(()) } else { Err(answer.to_io()) };
                    }
                    _ => {}
                }
            }
        }
    }
}

fn asked(device: u32, neighbour: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, address) = match neighbour {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    message.header.family = family;
    message.header.ifindex = device;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}

fn interface_of(link: &LinkMessage) -> Interface {
    let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let mut interface =
        Interface { index: link.header.index, mtu: 0, link: None, veth: false, queues: 1, addresses: Vec::new() };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => interface.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            LinkAttribute::NumRxQueues(queues) => interface.queues = *queues,
            LinkAttribute::Address(bytes) if ethernet => interface.link = bytes[..].try_into().ok(),
            _ => {}
        }
    }
    interface
}

/// The device's own address: on a point-to-point device the other attribute is its peer's.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(local) => Some(*local),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn way_of(route: &RouteMessage, to: IpAddr) -> Option<Way> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let (mut device, mut next, mut source) = (None, to, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Gateway(gateway) => next = ip(gateway)?,
            RouteAttribute::PrefSource(address) => source = ip(address),
            // A router of the other family, or none that frames could be sent to.
            RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    Some(Way { device: device?, next, source })
}

fn neighbour_of(message: &NeighbourMessage) -> Neighbour {
    if message.header.state == NeighbourState::Failed {
        return Neighbour::Silent;
    }
    let link = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLocalAddress(bytes) => bytes[..].try_into().ok(),
        _ => None,
    });
    match link {
        _ if message.header.state == NeighbourState::Incomplete => Neighbour::Asked,
        Some(link) => Neighbour::Known(link),
        None => Neighbour::Unknown,
    }
}
