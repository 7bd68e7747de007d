//! Interfaces, addresses and routes of the calling thread's network namespace, by rtnetlink (rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily as Family, RecvFlags, SendFlags, SocketFlags, SocketType, socket};

/// The bits of an IPv4 address.
const HOST_PREFIX: u8 = 32;
/// RTAX_CC_ALGO of linux/rtnetlink.h.
const CC_ALGO: u16 = 16;
/// A request or an answer is shorter than this.
const MESSAGE_MAX: usize = 4096;

/// Of a request for a queueing discipline where there was none.
pub(crate) const QDISC_FLAGS: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A socket to the kernel's routing tables.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A route to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) network: Ipv4Addr,
    pub(crate) prefix: u8,
    /// The neighbour that packets go to; none if the network is the link itself.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Index of the device that packets leave by.
    pub(crate) device: u32,
    /// Segments that a connection may send at first (`initcwnd` of ip-route(8)).
    pub(crate) initial_window: Option<u32>,
    /// The congestion control of connections that don't name one before they are made (`congctl` of ip-route(8), Linux 4.0).
    pub(crate) congestion: Option<&'static str>,
}

/// One end of a veth pair to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VethEnd {
    pub(crate) name: String,
    /// Its Ethernet address.
    pub(crate) mac: [u8; 6],
}

impl VethEnd {
    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(self.name.clone()),
            LinkAttribute::Address(self.mac.to_vec()),
            // TCP hands over single segments: what delays and drops packets must see each by itself.
            LinkAttribute::GsoMaxSegs(1),
        ];
        message
    }
}

/// The number of a device of the calling thread's namespace.
pub(crate) fn index(name: &str) -> Result<u32> {
    let any = socket(Family::INET, SocketType::DGRAM, None).context("can't make a socket")?;
    name_to_index(&any, name).with_context(|| format!("there is no device {name}"))
}

impl Netlink {
    /// Opens one in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self> {
        // No protocol is NETLINK_ROUTE, whose number is zero.
        let opened = rustix::net::socket_with(Family::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let socket = opened.context("can't open a netlink socket")?;
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0)).context("can't reach the kernel by netlink")?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings a device up.
    pub(crate) fn bring_up(&mut self, device: u32, attributes: Vec<LinkAttribute>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = device;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Makes a veth pair: one end here, the other in the namespace `there` (veth(4)).
    pub(crate) fn add_veth(&mut self, here: &VethEnd, other: &VethEnd, there: &OwnedFd) -> Result<()> {
        let mut peer = other.message();
        peer.attributes.push(LinkAttribute::NetNsFd(there.as_raw_fd()));
        let mut message = here.message();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Says for good which Ethernet address a neighbour has.
    pub(crate) fn add_neighbour(&mut self, device: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = device;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
            NeighbourAttribute::LinkLocalAddress(mac.to_vec()),
        ];
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a queueing discipline (tc(8)).
    pub(crate) fn add_qdisc(&mut self, message: TcMessage) -> Result<()> {
        self.request(RouteNetlinkMessage::NewQueueDiscipline(message), QDISC_FLAGS)
    }

    /// Gives a device an address. No network comes with it: the way to the peer is a route of its own, so that it can have metrics
    /// from the start.
    pub(crate) fn add_address(&mut self, device: u32, address: Ipv4Addr) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = HOST_PREFIX;
        message.header.index = device;
        message.attributes =
            vec![AddressAttribute::Local(IpAddr::V4(address)), AddressAttribute::Address(IpAddr::V4(address))];
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a route to the main table.
    pub(crate) fn add_route(&mut self, route: Route) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = route.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.header.kind = RouteType::Unicast;
        message.attributes =
            vec![RouteAttribute::Destination(RouteAddress::Inet(route.network)), RouteAttribute::Oif(route.device)];
        message.attributes.extend(route.gateway.map(|via| RouteAttribute::Gateway(RouteAddress::Inet(via))));
        let window = route.initial_window.map(RouteMetric::InitCwnd);
        // The crate takes the name of an algorithm for a number.
        let congestion = route.congestion.map(|name| RouteMetric::Other(DefaultNla::new(CC_ALGO, terminated(name))));
        let metrics: Vec<_> = window.into_iter().chain(congestion).collect();
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = encode(message, flags, self.sequence);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty()).context("can't send to netlink")?;
        self.acknowledged()
    }

    /// Reads the one answer to a request with `NLM_F_ACK`.
    fn acknowledged(&self) -> Result<()> {
        let mut bytes = vec![0; MESSAGE_MAX];
        let (length, _) = rustix::net::recv(&self.socket, bytes.as_mut_slice(), RecvFlags::empty())?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[..length.min(MESSAGE_MAX)])?;
        match answer.payload {
            NetlinkPayload::Error(answer) if answer.code.is_none() => Ok(()),
            NetlinkPayload::Error(answer) => Err(answer.to_io().into()),
            other => bail!("netlink answered with something else: {other:?}"),
        }
    }
}

/// A request that is to be acknowledged, as it is sent.
pub(crate) fn encode(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

/// A string as the kernel reads it.
fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}
