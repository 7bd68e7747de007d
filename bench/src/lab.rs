//! The lab: client – proxy – server, three network namespaces on two veth pairs.
//!
//! ```text
//!   client 10.77.1.2 ──c0═p0── 10.77.1.1 proxy 10.77.2.1 ──p1═s0── 10.77.2.2 server
//! ```
//! Packets that arrive in the proxy's namespace are worked on by the proxy's CPU (receive packet steering), those for
//! client and server by the load CPU.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cpus::{LOAD_CPU, PROXY_CPU};
use crate::namespace::{Namespace, run};
use crate::workplace::Workplace;

/// The proxy's address towards the client.
pub(crate) const PROXY_ADDR: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
/// Where the load server listens.
pub(crate) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 2, 2), 7001);

/// Whether segments cross the veth as the wire would carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gro {
    /// veth's default: super-segments (TSO) travel whole, nothing to merge.
    Off,
    /// The client sends segments of one MSS (TSO and GSO off), every receiver merges them (GRO on).
    On,
}

impl Gro {
    /// The programs that a lab of this kind is built with.
    pub(crate) const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Off => &["ip", "tc", "sysctl"],
            Self::On => &["ip", "tc", "sysctl", "ethtool"],
        }
    }
}

impl fmt::Display for Gro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "TSO",
            Self::On => "GRO",
        })
    }
}

/// Three namespaces.
pub(crate) struct Lab {
    /// Namespace of the load clients.
    pub(crate) client: Namespace,
    /// Namespace of the proxy.
    pub(crate) proxy: Namespace,
    /// Namespace of the load server.
    pub(crate) server: Namespace,
    /// Logs and configuration files.
    pub(crate) dir: PathBuf,
}

/// Namespace settings common to the three. cubic is refused by sysctl in a namespace of some kernels; metrics kept from
/// an earlier connection would make the order of measurements matter.
const SYSCTLS: [&str; 9] = [
    "net.ipv4.tcp_congestion_control=reno",
    "net.ipv4.tcp_rmem=4096 131072 6291456",
    "net.ipv4.tcp_wmem=4096 16384 4194304",
    "net.ipv4.tcp_tw_reuse=1",
    "net.ipv4.ip_local_port_range=10000 65000",
    "net.core.somaxconn=4096",
    "net.ipv4.tcp_max_syn_backlog=8192",
    "net.ipv4.tcp_no_metrics_save=1",
    "net.ipv4.ip_forward=1",
];

impl Lab {
    /// Builds the namespaces.
    pub(crate) fn build(workplace: &mut Workplace, gro: Gro) -> Result<Self> {
        let prefix = format!("mmb{}{}", std::process::id(), if gro == Gro::On { "g" } else { "t" });
        let mut make = |side: char| Namespace::make(&mut workplace.janitor, format!("{prefix}{side}"));
        let (client, proxy, server) = (make('c')?, make('p')?, make('s')?);
        let lab = Self { client, proxy, server, dir: workplace.dir.clone() };
        lab.links().context("connect the namespaces")?;
        for (netns, _, _) in lab.ends() {
            netns.set(&SYSCTLS)?;
        }
        for (netns, dev, cpu) in lab.ends() {
            // `cpu` does the receive work of the device.
            let steer = netns.write(dev, "queues/rx-0/rps_cpus", &format!("{:x}", 1_u32 << cpu));
            steer.with_context(|| format!("steer packets of {dev}"))?;
        }
        if gro == Gro::On {
            lab.segment_like_a_wire()?;
        }
        Ok(lab)
    }

    /// Every end of a veth: namespace, device, the CPU its arrivals belong to.
    fn ends(&self) -> [(&Namespace, &str, usize); 4] {
        [
            (&self.client, "c0", LOAD_CPU),
            (&self.proxy, "p0", PROXY_CPU),
            (&self.proxy, "p1", PROXY_CPU),
            (&self.server, "s0", LOAD_CPU),
        ]
    }

    fn links(&self) -> Result<()> {
        let Self { client, proxy, server, .. } = self;
        for netns in [client, proxy, server] {
            netns.ip("link set lo up")?;
        }
        run(&format!("ip link add c0 netns {} type veth peer name p0 netns {}", client.name, proxy.name))?;
        run(&format!("ip link add s0 netns {} type veth peer name p1 netns {}", server.name, proxy.name))?;
        client.ip("addr add 10.77.1.2/24 dev c0")?;
        proxy.ip(&format!("addr add {PROXY_ADDR}/24 dev p0"))?;
        proxy.ip("addr add 10.77.2.1/24 dev p1")?;
        server.ip(&format!("addr add {}/24 dev s0", SERVER.ip()))?;
        for (netns, dev, _) in self.ends() {
            netns.ip(&format!("link set {dev} up"))?;
            netns.queue(dev, 10_000)?;
        }
        client.ip(&format!("route add default via {PROXY_ADDR}"))?;
        server.ip("route add default via 10.77.2.1")
    }

    fn segment_like_a_wire(&self) -> Result<()> {
        for (netns, dev, _) in self.ends() {
            netns.run(&format!("ethtool -K {dev} gro on"))?;
        }
        self.client.run("ethtool -K c0 tso off gso off")
    }
}
