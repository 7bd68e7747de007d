//! The curve's lab: client and server, two network namespaces on one veth pair.
//!
//! ```text
//!   CPU 1: client 10.78.0.2 ── cPID ══ sPID ── 10.78.0.1 server :CPU 0
//! ```
//! Each end's packets are worked on by a thread of its own (threaded NAPI, Linux 5.12) on its side's CPU, at a real-time priority
//! below the hog's: else a veth runs the receiver's work in the sender's name, and the client pays for the server. Segments travel
//! as on a wire (no TSO, GRO on).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;

use crate::cpus::{self, LOAD_CPU, PROXY_CPU};
use crate::load::CONNS_PER_SOURCE;
use crate::measure::cpu;
use crate::namespace::{Namespace, run};
use crate::workplace::Workplace;

/// The CPU of the server and of the packets that arrive at it.
pub(crate) const SERVER_CPU: usize = PROXY_CPU;
/// Where servers listen.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// The first of the client's addresses.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// Programs that the lab is built with.
pub(crate) const PROGRAMS: [&str; 5] = ["ip", "tc", "sysctl", "ethtool", "chrt"];

/// Namespace settings of both. The rest of the SYN queue and of TIME_WAIT isn't what is measured.
const SYSCTLS: [&str; 9] = [
    "net.ipv4.tcp_congestion_control=reno",
    "net.ipv4.ip_local_port_range=1024 65535",
    "net.ipv4.tcp_tw_reuse=1",
    "net.ipv4.tcp_max_tw_buckets=1000",
    "net.ipv4.tcp_max_syn_backlog=16384",
    "net.ipv4.tcp_syncookies=0",
    "net.core.somaxconn=16384",
    "net.ipv4.tcp_no_metrics_save=1",
    "net.ipv6.conf.all.disable_ipv6=1",
];
/// How long the kernel may take to start its threads.
const THREADS_WAIT: Duration = Duration::from_secs(5);

/// Two namespaces.
pub(crate) struct Link {
    /// Namespace of the client.
    pub(crate) client: Namespace,
    /// Namespace of the server.
    pub(crate) server: Namespace,
    /// The server's device.
    pub(crate) device: String,
    /// The kernel's threads that work for the server.
    pub(crate) server_threads: Vec<u32>,
    /// Logs.
    pub(crate) dir: PathBuf,
}

impl Link {
    /// Builds the namespaces, for at most `conns` connections at once.
    pub(crate) fn build(workplace: &mut Workplace, conns: usize) -> Result<Self> {
        let pid = std::process::id();
        let server_threads = cpu::kernel_threads(&format!("ksoftirqd/{SERVER_CPU}"))?;
        let mut make = |side: char| Namespace::make(&mut workplace.janitor, format!("mmc{pid}{side}"));
        let (client, server) = (make('c')?, make('s')?);
        let mut link = Self { client, server, device: format!("s{pid}"), server_threads, dir: workplace.dir.clone() };
        let client_device = format!("c{pid}");
        link.connect(&client_device, conns).context("connect the namespaces")?;
        let threads = |netns, device: &str, cpu| {
            napi_threads(netns, device, cpu).with_context(|| format!("threaded NAPI of {device}"))
        };
        threads(&link.client, &client_device, LOAD_CPU)?;
        link.server_threads.extend(threads(&link.server, &link.device, SERVER_CPU)?);
        Ok(link)
    }

    /// The address of a server at `port`.
    pub(crate) const fn server_at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(SERVER, port)
    }

    fn connect(&self, client_device: &str, conns: usize) -> Result<()> {
        let Self { client, server, device, .. } = self;
        let queues = "numtxqueues 1 numrxqueues 1";
        run(&format!(
            "ip link add {client_device} netns {} {queues} type veth peer name {device} netns {} {queues}",
            client.name, server.name
        ))?;
        server.ip(&format!("addr add {SERVER}/16 dev {device}"))?;
        for source in 0..=u32::try_from(conns / CONNS_PER_SOURCE)? {
            let address = Ipv4Addr::from(u32::from(CLIENT) + source);
            client.ip(&format!("addr add {address}/16 dev {client_device}"))?;
        }
        for (netns, device) in [(client, client_device), (server, device.as_str())] {
            netns.ip("link set lo up")?;
            netns.ip(&format!("link set {device} up"))?;
            netns.queue(device, 100_000)?;
            netns.run(&format!("ethtool -K {device} gro on tso off"))?;
            netns.set(&SYSCTLS)?;
        }
        Ok(())
    }
}

/// Gives `device` a thread for its packets, pins it to `cpu` and raises it above ordinary programs; returns it.
fn napi_threads(netns: &Namespace, device: &str, cpu: usize) -> Result<Vec<u32>> {
    netns.write(device, "threaded", "1")?;
    let deadline = Instant::now() + THREADS_WAIT;
    let threads = loop {
        let threads = cpu::kernel_threads(&format!("napi/{device}-"))?;
        if !threads.is_empty() {
            break threads;
        }
        ensure!(Instant::now() < deadline, "the kernel starts no thread");
        std::thread::sleep(Duration::from_millis(10));
    };
    for &thread in &threads {
        cpus::pin(i32::try_from(thread).ok().and_then(Pid::from_raw), cpu).context("pin it")?;
        run(&format!("chrt --fifo --pid 1 {thread}")).context("raise it")?;
    }
    Ok(threads)
}
