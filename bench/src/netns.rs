//! The lab: client – proxy – server, three network namespaces on two veth pairs.
//!
//! ```text
//!   client 10.77.1.2 ──c0═p0── 10.77.1.1 proxy 10.77.2.1 ──p1═s0── 10.77.2.2 server
//! ```
//! Packets that arrive in the proxy's namespace are worked on by the proxy's CPU (receive packet steering), those for
//! client and server by the load CPU.

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::janitor::{self, Janitor};
use crate::launch::Launch;

/// The proxy and the packets that arrive at it.
pub(crate) const PROXY_CPU: usize = 0;
/// Client and server and the packets that arrive at them.
pub(crate) const LOAD_CPU: usize = 1;
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

/// Three namespaces; deleted when dropped, by the janitor if that fails.
pub(crate) struct Lab {
    /// Namespace of the load clients.
    pub(crate) client: String,
    /// Namespace of the proxy.
    pub(crate) proxy: String,
    /// Namespace of the load server.
    pub(crate) server: String,
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
    /// Builds the namespaces, told to the janitor before they exist.
    pub(crate) fn build(janitor: &mut Janitor, dir: &Path, gro: Gro) -> Result<Self> {
        let prefix = format!("mmb{}{}", std::process::id(), if gro == Gro::On { "g" } else { "t" });
        let lab = Self {
            client: format!("{prefix}c"),
            proxy: format!("{prefix}p"),
            server: format!("{prefix}s"),
            dir: dir.to_path_buf(),
        };
        for name in [&lab.client, &lab.proxy, &lab.server] {
            janitor.owns_netns(name)?;
            run(&format!("ip netns add {name}"))?;
        }
        lab.links().context("connect the namespaces")?;
        for (netns, _, _) in lab.ends() {
            let mut sysctl: Vec<OsString> = vec!["sysctl".into(), "-qw".into()];
            sysctl.extend(SYSCTLS.iter().map(OsString::from));
            lab.inside(netns, sysctl)?;
        }
        for (netns, dev, cpu) in lab.ends() {
            steer(netns, dev, cpu)?;
        }
        if gro == Gro::On {
            lab.segment_like_a_wire()?;
        }
        Ok(lab)
    }

    /// Every end of a veth: namespace, device, the CPU its arrivals belong to.
    fn ends(&self) -> [(&str, &str, usize); 4] {
        [
            (&self.client, "c0", LOAD_CPU),
            (&self.proxy, "p0", PROXY_CPU),
            (&self.proxy, "p1", PROXY_CPU),
            (&self.server, "s0", LOAD_CPU),
        ]
    }

    fn links(&self) -> Result<()> {
        let Self { client, proxy, server, .. } = self;
        for name in [client, proxy, server] {
            run(&format!("ip -n {name} link set lo up"))?;
        }
        run(&format!("ip link add c0 netns {client} type veth peer name p0 netns {proxy}"))?;
        run(&format!("ip link add s0 netns {server} type veth peer name p1 netns {proxy}"))?;
        run(&format!("ip -n {client} addr add 10.77.1.2/24 dev c0"))?;
        run(&format!("ip -n {proxy} addr add {PROXY_ADDR}/24 dev p0"))?;
        run(&format!("ip -n {proxy} addr add 10.77.2.1/24 dev p1"))?;
        run(&format!("ip -n {server} addr add {}/24 dev s0", SERVER.ip()))?;
        for (netns, dev, _) in self.ends() {
            run(&format!("ip -n {netns} link set {dev} up"))?;
            // veth's ring holds 256 frames; without a queue before it, 1,000 connections drop packets.
            run(&format!("tc -n {netns} qdisc add dev {dev} root pfifo limit 10000"))?;
        }
        run(&format!("ip -n {client} route add default via {PROXY_ADDR}"))?;
        run(&format!("ip -n {server} route add default via 10.77.2.1"))
    }

    fn segment_like_a_wire(&self) -> Result<()> {
        for (netns, dev, _) in self.ends() {
            self.inside(netns, words(&format!("ethtool -K {dev} gro on")))?;
        }
        self.inside(&self.client, words("ethtool -K c0 tso off gso off"))
    }

    /// Runs a command inside a namespace to its end.
    fn inside(&self, netns: &str, command: Vec<OsString>) -> Result<()> {
        let name = command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        Launch { name: &name, netns, cpu: LOAD_CPU, log: self.dir.join("setup.log"), command }.run()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.client, &self.proxy, &self.server] {
            if let Err(error) = janitor::remove_netns(name) {
                eprintln!("clean up: {error:#}");
            }
        }
    }
}

/// Has `cpu` do the receive work of `dev`. /sys shows the devices of the namespace it was mounted in, so this one write
/// goes through `ip netns exec`, which mounts it anew.
fn steer(netns: &str, dev: &str, cpu: usize) -> Result<()> {
    let write = format!("echo {:x} > /sys/class/net/{dev}/queues/rx-0/rps_cpus", 1_u32 << cpu);
    let output = Command::new("ip").args(["netns", "exec", netns, "sh", "-c", &write]).output().context("run ip")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "steer packets of {dev}: {}", stderr.trim());
    Ok(())
}

/// Takes a command line without quoting apart.
pub(crate) fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Runs a command line without quoting to its end.
pub(crate) fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let output = Command::new(program).args(words).output().with_context(|| format!("run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{line}: {}", stderr.trim());
    Ok(())
}
