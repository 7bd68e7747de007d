//! The curve's lab: client and server, two network namespaces on one veth pair.
//!
//! ```text
//!   CPU 1: client 10.78.0.2 ── cPID ══ sPID ── 10.78.0.1 server :CPU 0
//! ```
//! Each end's packets are worked on by a thread of its own (threaded NAPI, Linux 5.12) on its side's CPU, at a real-time priority
//! below the hog's: else a veth runs the receiver's work in the sender's name, and the client pays for the server. Segments travel
//! as on a wire (no TSO, GRO on).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::janitor::{self, Janitor};
use crate::launch::Launch;
use crate::load::CONNS_PER_SOURCE;
use crate::measure::cpu;
use crate::netns::{LOAD_CPU, PROXY_CPU, run, words};

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

/// Two namespaces; deleted when dropped, by the janitor if that fails.
pub(crate) struct Link {
    /// Namespace of the client.
    pub(crate) client: String,
    /// Namespace of the server.
    pub(crate) server: String,
    /// The server's device.
    pub(crate) device: String,
    /// The kernel's threads that work for the server.
    pub(crate) server_threads: Vec<u32>,
    /// Logs.
    pub(crate) dir: PathBuf,
}

impl Link {
    /// Builds the namespaces, told to the janitor before they exist; for at most `conns` connections at once.
    pub(crate) fn build(janitor: &mut Janitor, dir: &Path, conns: usize) -> Result<Self> {
        let pid = std::process::id();
        let mut link = Self {
            client: format!("mmc{pid}c"),
            server: format!("mmc{pid}s"),
            device: format!("s{pid}"),
            server_threads: cpu::kernel_threads(&format!("ksoftirqd/{SERVER_CPU}"))?,
            dir: dir.to_path_buf(),
        };
        for name in [&link.client, &link.server] {
            janitor.owns_netns(name)?;
            run(&format!("ip netns add {name}"))?;
        }
        let (client_device, server_device) = (format!("c{pid}"), link.device.clone());
        link.connect(&client_device, conns).context("connect the namespaces")?;
        for (netns, device, cpu) in
            [(&link.client, &client_device, LOAD_CPU), (&link.server, &server_device, SERVER_CPU)]
        {
            let threads = napi_threads(netns, device, cpu).with_context(|| format!("threaded NAPI of {device}"))?;
            if cpu == SERVER_CPU {
                link.server_threads.extend(threads);
            }
        }
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
            "ip link add {client_device} netns {client} {queues} type veth peer name {device} netns {server} {queues}"
        ))?;
        run(&format!("ip -n {server} addr add {SERVER}/16 dev {device}"))?;
        for source in 0..=u32::try_from(conns / CONNS_PER_SOURCE)? {
            let address = Ipv4Addr::from(u32::from(CLIENT) + source);
            run(&format!("ip -n {client} addr add {address}/16 dev {client_device}"))?;
        }
        for (netns, device) in [(client, client_device), (server, device.as_str())] {
            self.inside(netns, "ip link set lo up")?;
            run(&format!("ip -n {netns} link set {device} up"))?;
            // veth's ring holds 256 frames; without a queue before it, 1,000 connections drop packets.
            run(&format!("tc -n {netns} qdisc add dev {device} root pfifo limit 100000"))?;
            self.inside(netns, &format!("ethtool -K {device} gro on tso off"))?;
            let mut sysctl = words("sysctl -qw");
            sysctl.extend(SYSCTLS.iter().map(std::ffi::OsString::from));
            self.launch(netns, sysctl).run()?;
        }
        Ok(())
    }

    fn inside(&self, netns: &str, line: &str) -> Result<()> {
        self.launch(netns, words(line)).run()
    }

    fn launch<'a>(&self, netns: &'a str, command: Vec<std::ffi::OsString>) -> Launch<'a> {
        Launch { name: "setup", netns, cpu: LOAD_CPU, log: self.dir.join("setup.log"), command }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in [&self.client, &self.server] {
            if let Err(error) = janitor::remove_netns(name) {
                eprintln!("clean up: {error:#}");
            }
        }
    }
}

/// Gives `device` a thread for its packets, pins it to `cpu` and raises it above ordinary programs; returns it. /sys shows the devices
/// of the namespace it was mounted in, so this one write goes through `ip netns exec`, which mounts it anew.
fn napi_threads(netns: &str, device: &str, cpu: usize) -> Result<Vec<u32>> {
    let write = format!("echo 1 > /sys/class/net/{device}/threaded");
    let output = Command::new("ip").args(["netns", "exec", netns, "sh", "-c", &write]).output().context("run ip")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
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
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(i32::try_from(thread).ok().and_then(Pid::from_raw), &cpus).context("pin it")?;
        run(&format!("chrt --fifo --pid 1 {thread}")).context("raise it")?;
    }
    Ok(threads)
}
