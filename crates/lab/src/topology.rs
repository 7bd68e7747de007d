//! The hosts of a scenario with their links, addresses and routes.
//!
//! ```text
//!           10.1.0.1 ── link0 ── 10.1.0.2 10.2.0.1 ── link1 ── 10.2.0.2  …  ── 10.N.0.2
//!  client ◄                      gateway                                             ► server
//!           10.250.0.1 ───────────────────── direct ──────────────────────── 10.250.0.2
//! ```
//! Everything is set once, when it is built: a route that changes while connections are open makes their first flight small.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use netlink_packet_route::link::LinkAttribute;

use crate::emulator::{Emulator, Link};
use crate::netem;
use crate::netlink::{Netlink, Route, index};
use crate::netns::Host;
use crate::scenario::{Scenario, Span};
use crate::tun::Tun;

/// Of a link, as on most of the Internet.
const MTU: u32 = 1500;
/// Packets that a device holds while the emulator is busy.
const QUEUE_LENGTH: u32 = 10_000;
/// Second part of the addresses of the direct link.
const DIRECT: u8 = 250;
const NETWORK_PREFIX: u8 = 24;
/// Of a link's two ends: a network, so that a gateway may set a route of its own to the other end.
const LINK_PREFIX: u8 = 30;

/// Settings of every host: what an earlier visit learnt must not make the next one faster, and buffers must not be what limits it.
const SETTINGS: [(&str, &str); 6] = [
    ("net/ipv4/tcp_no_metrics_save", "1"),
    ("net/ipv4/tcp_rmem", "4096 131072 67108864"),
    ("net/ipv4/tcp_wmem", "4096 16384 67108864"),
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];
/// A setting of gateways: windows that are open stay open (RFC 7661 has why they wouldn't).
const IDLE_WINDOWS_CLOSE: &str = "net/ipv4/tcp_slow_start_after_idle";
/// Receive buffers: least, at first, most. The window is half of the buffer.
const RECEIVE_BUFFERS: &str = "net/ipv4/tcp_rmem";
/// Where the window that clients offer at first is raised to.
pub(crate) const RECEIVE_BUFFER_MAX: u64 = 64 << 20;
/// TCP Fast Open for clients and servers (RFC 7413).
const FAST_OPEN: (&str, &str) = ("net/ipv4/tcp_fastopen", "3");

/// What links are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// TUN devices and the lab's own emulator: it counts, traces and cuts.
    #[default]
    Tun,
    /// veth pairs and the kernel's netem, where the kernel has it; see [`netem::probe`].
    Netem,
}

/// A scenario's hosts, connected and running.
#[derive(Debug)]
pub struct Topology {
    // Dropped in this order: the links stop before their devices' hosts go. It has none where netem does its work.
    emulator: Emulator,
    hosts: Vec<Host>,
}

/// What hosts do and say of their connections beyond what the scenario does; `None` leaves it to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Segments that the server may send before the first acknowledgement, towards its gateway.
    pub server_window: Option<u32>,
    /// Bytes of the receive buffer that the client's connections begin with; the kernel grows it further.
    pub client_buffer: Option<u64>,
    /// The congestion control of gateways that can't set their own.
    pub gateway_congestion: Option<&'static str>,
    /// What the hosts are joined by.
    pub links: Links,
    /// Whether windows of gateways' idle connections close.
    pub gateway_windows_close: bool,
}

/// What one host has to be told about one of its devices.
#[derive(Clone, Debug)]
struct Device {
    name: String,
    address: Ipv4Addr,
    peer: Ipv4Addr,
    /// Networks behind the peer.
    behind: Vec<Ipv4Addr>,
    initial_window: Option<u32>,
    congestion: Option<&'static str>,
}

impl Topology {
    /// Builds the hosts of a scenario.
    ///
    /// # Errors
    /// No privileges, no TUN devices, no netem where that is asked for, or a kernel without something that a host needs: said with
    /// what mends it.
    pub fn build(scenario: &Scenario, options: HostOptions) -> Result<Self> {
        let hosts = scenario.hosts.iter().map(|name| Host::new(name)).collect::<Result<Vec<_>>>()?;
        let last = hosts.len() - 1;
        let links = match options.links {
            Links::Tun => {
                spans(scenario).map(|span| connect(span.ends(&hosts), &span.name, span.span)).collect::<Result<_>>()?
            }
            Links::Netem => {
                spans(scenario)
                    .try_for_each(|span| netem::connect(span.ends(&hosts), &span.name, span.addresses, span.span))?;
                Vec::new()
            }
        };
        for (place, host) in hosts.iter().enumerate() {
            let close = if options.gateway_windows_close { "1" } else { "0" };
            let idle = (place > 0 && place < last).then_some((IDLE_WINDOWS_CLOSE, close));
            for (path, value) in SETTINGS.into_iter().chain(idle).chain([FAST_OPEN]) {
                host.set_sysctl(path, value)?;
            }
            if let Some(buffer) = options.client_buffer.filter(|_| place == 0) {
                host.set_sysctl(RECEIVE_BUFFERS, &format!("4096 {buffer} {RECEIVE_BUFFER_MAX}"))?;
            }
            let devices = devices(place, last, options);
            let configured = host.run(move || configure(&devices))?;
            configured.with_context(|| format!("can't configure host {}", host.name()))?;
        }
        Ok(Self { emulator: Emulator::start(links, scenario.seed)?, hosts })
    }

    /// Client, gateways, server.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where traffic begins.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.hosts[0]
    }

    /// Where it goes.
    #[must_use]
    pub fn server(&self) -> &Host {
        &self.hosts[self.hosts.len() - 1]
    }

    /// Between client and server.
    #[must_use]
    pub fn gateways(&self) -> &[Host] {
        &self.hosts[1..self.hosts.len() - 1]
    }

    /// The host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name() == name)
    }

    /// The running links, which the lab has with [`Links::Tun`] alone.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The server's address on the direct link.
    #[must_use]
    pub const fn direct_server() -> Ipv4Addr {
        direct(2)
    }

    /// Takes everything down and answers what the links have done.
    ///
    /// # Errors
    /// The links had failed.
    pub fn close(self) -> Result<Vec<crate::emulator::LinkCounters>> {
        self.emulator.stop()
    }
}

/// The address of a link's end: side 1 is the client's, side 2 the server's.
#[must_use]
pub fn address(link: usize, side: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, u8::try_from(link + 1).expect("a scenario has few links"), 0, side)
}

const fn direct(side: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, DIRECT, 0, side)
}

/// A link's place between hosts.
struct Place<'a> {
    name: String,
    /// Places of the hosts: the client's side, the server's side.
    hosts: [usize; 2],
    addresses: [Ipv4Addr; 2],
    span: &'a Span,
}

impl Place<'_> {
    fn ends<'a>(&self, hosts: &'a [Host]) -> [&'a Host; 2] {
        self.hosts.map(|place| &hosts[place])
    }
}

/// The links of a scenario: those between neighbours, then the direct one.
fn spans(scenario: &Scenario) -> impl Iterator<Item = Place<'_>> {
    let between = scenario.links.iter().enumerate().map(|(place, span)| Place {
        name: format!("link{place}"),
        hosts: [place, place + 1],
        addresses: [1, 2].map(|side| address(place, side)),
        span,
    });
    let ends = Place {
        name: "direct".to_owned(),
        hosts: [0, scenario.hosts.len() - 1],
        addresses: [1, 2].map(direct),
        span: &scenario.direct,
    };
    between.chain([ends])
}

/// Makes a device in each of two hosts.
fn connect([near, far]: [&Host; 2], name: &str, span: &Span) -> Result<Link> {
    Ok(Link { ends: [Tun::open(near, name)?, Tun::open(far, name)?], shapes: [span.to_server, span.to_client] })
}

/// The devices of the host at `place`, of which `last` is the server's.
fn devices(place: usize, last: usize, options: HostOptions) -> Vec<Device> {
    let initial_window = options.server_window.filter(|_| place == last);
    let congestion = options.gateway_congestion.filter(|_| place > 0 && place < last);
    let network = |link: usize| address(link, 0);
    let mut devices = Vec::new();
    if place > 0 {
        let link = place - 1;
        let behind = (0..link).map(network).collect();
        let (address, peer) = (address(link, 2), address(link, 1));
        devices.push(Device { name: format!("link{link}"), address, peer, behind, initial_window, congestion });
    }
    if place < last {
        let behind = (place + 1..last).map(network).collect();
        let (address, peer) = (address(place, 1), address(place, 2));
        devices.push(Device { name: format!("link{place}"), address, peer, behind, initial_window, congestion });
    }
    if place == 0 || place == last {
        let (mine, theirs) = if place == 0 { (1, 2) } else { (2, 1) };
        let (address, peer) = (direct(mine), direct(theirs));
        devices.push(Device {
            name: "direct".to_owned(),
            address,
            peer,
            behind: Vec::new(),
            initial_window: None,
            congestion,
        });
    }
    devices
}

/// Runs inside the host.
fn configure(devices: &[Device]) -> Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.bring_up(index("lo")?, Vec::new()).context("lo")?;
    for device in devices {
        configure_device(&mut netlink, device).with_context(|| device.name.clone())?;
    }
    Ok(())
}

fn configure_device(netlink: &mut Netlink, device: &Device) -> Result<()> {
    let number = index(&device.name)?;
    netlink.bring_up(number, vec![LinkAttribute::Mtu(MTU), LinkAttribute::TxQueueLen(QUEUE_LENGTH)])?;
    netlink.add_address(number, device.address)?;
    let to_peer = Route {
        network: Ipv4Addr::from_bits(device.peer.to_bits() & (u32::MAX << (32 - LINK_PREFIX))),
        prefix: LINK_PREFIX,
        gateway: None,
        device: number,
        initial_window: device.initial_window,
        congestion: device.congestion,
    };
    netlink.add_route(to_peer)?;
    for network in &device.behind {
        netlink.add_route(Route {
            network: *network,
            prefix: NETWORK_PREFIX,
            gateway: Some(device.peer),
            ..to_peer
        })?;
    }
    Ok(())
}
