//! A flood of SYNs into a host: a host of its own, joined by a veth pair, that sends batches made beforehand.
//!
//! ```text
//!  flooder ── veth ──► the host under test     its answers go back to an Ethernet address that nobody has
//! ```
//! A veth pair has no thread: the sender's own CPU takes each packet through the host's network stack (netif_rx), up to the answer.
//! So the sender keeps to one CPU, before all programs as a device's interrupts would be, and what the flood costs the kernel is
//! paid there.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::fs;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use midmile_lab::netns::Host;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, connect, ipproto, sendmmsg,
    socket_with,
};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use crate::process::PATIENCE;
use crate::syns::Packet;

/// The device's name in both hosts.
const DEVICE: &str = "flood";
/// The device's Ethernet address in the host under test, and one that nobody has: packets to it are dropped on arrival.
const MAC: &str = "02:00:00:00:00:01";
const NOBODY: &str = "02:00:00:00:00:99";
/// The flooder's address, which is no other network's of these tests.
const FLOODER: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 2);
/// Where forged sources are (RFC 6598), and how many networks of 256 addresses that is.
const SOURCES: &str = "100.64.0.0/10";
const SOURCES_FIRST: u32 = 0x6440_0000;
const PREFIXES: u32 = 1 << 14;
/// Packets made beforehand, each with a source of its own; then they are sent again.
const PACKETS: u32 = 1 << 17;
/// An IPv4 header and a TCP header without options.
const PACKET_BYTES: usize = 40;
/// The least nice value (setpriority(2)).
const HIGHEST_PRIORITY: i32 = -20;
/// Packets handed over in one system call.
const BATCH: usize = 64;

/// What was sent, and how long that took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) time: Duration,
}

impl Sent {
    /// Packets a second.
    pub(crate) fn rate(self) -> f64 {
        per_second(self.packets, self.time)
    }
}

/// So many in so long, each second.
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The flooder, its socket and its packets.
pub(crate) struct Flooder {
    // Keeps the namespace.
    _host: Host,
    socket: OwnedFd,
    packets: Vec<u8>,
}

impl Flooder {
    /// Joins a new host to `victim`; its packets are SYNs to `to`, an address of the victim's.
    pub(crate) fn new(victim: &Host, to: SocketAddrV4) -> Self {
        let host = Host::new("flooder").unwrap();
        let there = victim.run(|| gettid().as_raw_nonzero()).unwrap();
        let ip = to.ip();
        command(
            &host,
            &format!("ip link add {DEVICE} type veth peer name {DEVICE} address {MAC} mtu 1500 netns {there}"),
        );
        command(&host, &format!("ip addr add {FLOODER}/32 dev {DEVICE}"));
        command(&host, &format!("ip link set {DEVICE} up"));
        command(&host, &format!("ip route add {ip}/32 dev {DEVICE}"));
        command(&host, &format!("ip neigh add {ip} lladdr {MAC} dev {DEVICE} nud permanent"));
        host.set_sysctl("net/ipv4/ip_forward", "0").unwrap();
        command(victim, &format!("ip link set {DEVICE} up"));
        command(victim, &format!("ip neigh add {FLOODER} lladdr {NOBODY} dev {DEVICE} nud permanent"));
        command(victim, &format!("ip route add {SOURCES} via {FLOODER} dev {DEVICE} onlink"));
        let socket = host.run(move || raw_socket(to)).unwrap();
        Self { _host: host, socket, packets: (0..PACKETS).flat_map(|number| syn(number, to).bytes()).collect() }
    }

    /// Sends so many packets a second from the last CPU, until `stop` says so or patience ends.
    pub(crate) fn flood(&self, rate: f64, stop: &AtomicBool) -> Sent {
        pin_to_last_cpu();
        // On Linux it is the thread's own. Without the right to it a busy machine may be skipped.
        setpriority_process(None, HIGHEST_PRIORITY).ok();
        let (began, mut sent) = (Instant::now(), 0_u64);
        let mut batches = self.packets.chunks_exact(BATCH * PACKET_BYTES).cycle();
        while !stop.load(Relaxed) && began.elapsed() < PATIENCE {
            if per_second(sent, began.elapsed()) < rate {
                sent += self.send(batches.next().unwrap());
            } else {
                thread::sleep(Duration::from_micros(100));
            }
        }
        Sent { packets: sent, time: began.elapsed() }
    }

    /// Sends one batch; answers how many the kernel took.
    fn send(&self, batch: &[u8]) -> u64 {
        let slices: Vec<_> = batch.chunks_exact(PACKET_BYTES).map(|packet| [IoSlice::new(packet)]).collect();
        let mut controls: [_; BATCH] = std::array::from_fn(|_| SendAncillaryBuffer::default());
        let messages = slices.iter().zip(&mut controls).map(|(slice, control)| MMsgHdr::new(slice, control));
        match sendmmsg(&self.socket, &mut messages.collect::<Vec<_>>(), SendFlags::empty()) {
            Ok(count) => u64::try_from(count).unwrap(),
            Err(Errno::NOBUFS | Errno::AGAIN) => 0,
            Err(error) => panic!("can't send: {error}"),
        }
    }
}

/// Packets that the flood's device of `victim` has received.
pub(crate) fn received(victim: &Host) -> u64 {
    let text = victim.run(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(DEVICE)?.strip_prefix(':')).unwrap();
    // The bytes are before the packets.
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// SYN cookies that `victim` has sent.
pub(crate) fn cookies(victim: &Host) -> u64 {
    let text = victim.run(|| fs::read_to_string("/proc/thread-self/net/netstat")).unwrap().unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let place = lines.next().unwrap().position(|name| name == "SyncookiesSent").unwrap();
    lines.next().unwrap().nth(place).unwrap().parse().unwrap()
}

/// The forged SYN of this number: neighbours come from different networks.
fn syn(number: u32, to: SocketAddrV4) -> Packet {
    let source = SOURCES_FIRST + (number % PREFIXES) * 256 + number / PREFIXES % 256;
    Packet { checksum: true, ..Packet::syn((Ipv4Addr::from(source), 1024).into(), to.into(), number) }
}

/// A socket that sends whole packets (raw(7)), connected so that each needs no address.
fn raw_socket(to: SocketAddrV4) -> OwnedFd {
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW)).unwrap();
    // A raw socket takes no port.
    connect(&socket, &SocketAddr::from((*to.ip(), 0))).unwrap();
    socket
}

fn pin_to_last_cpu() {
    let allowed = sched_getaffinity(None).unwrap();
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut set = CpuSet::new();
    set.set(last);
    sched_setaffinity(None, &set).unwrap();
}

fn command(host: &Host, line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    assert!(host.spawn(command).unwrap().wait().unwrap().success(), "{line}");
}
