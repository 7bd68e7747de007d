//! Hosts that are network namespaces, with a stack in one of them: above a TUN device, or above a veth by AF_XDP.
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses some of it, and the conformance all")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "../../../../tests/netns/host.rs"]
mod host;

use std::cell::Cell;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use midmile_kernel::XdpMode;
use midmile_stack::{StackConfig, Tun, Xdp, XdpConfig, XdpDevice};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) use host::Host;

/// Of the devices. The kernel's first flight of ten segments then holds what the suite has a peer say before it resets: in this stack
/// nothing is acknowledged between two turns.
const MTU: u32 = 3000;
/// What no step of theirs takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ports that the stack is given to listen on, and to dial from.
pub(crate) const LISTEN: RangeInclusive<u16> = 7000..=7999;
pub(crate) const DIAL: RangeInclusive<u16> = 61_000..=62_999;
/// Ports that it's given for datagrams.
pub(crate) const DATAGRAMS: RangeInclusive<u16> = 6000..=6099;
/// The kernel's addresses, and the stack's.
pub(crate) const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 1);
pub(crate) const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xca, 0, 0, 0, 0, 0, 1);
pub(crate) const STACK_V4: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 2);
pub(crate) const STACK_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xca, 0, 0, 0, 0, 0, 2);
pub(crate) const STACK_V4_TOO: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 3);
pub(crate) const STACK_V6_TOO: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xca, 0, 0, 0, 0, 0, 3);
pub(crate) const STACK: [IpAddr; 4] =
    [IpAddr::V4(STACK_V4), IpAddr::V6(STACK_V6), IpAddr::V4(STACK_V4_TOO), IpAddr::V6(STACK_V6_TOO)];
/// The longest datagrams of a packet: the MTU without the headers of IPv4 or IPv6 (RFC 791, RFC 8200) and UDP (RFC 768).
pub(crate) const DATAGRAM_V4_BYTES: usize = MTU as usize - 28;
pub(crate) const DATAGRAM_V6_BYTES: usize = MTU as usize - 48;

/// What the tests' stacks are given.
pub(crate) fn config() -> StackConfig {
    StackConfig {
        addresses: STACK.to_vec(),
        listen_ports: vec![LISTEN],
        datagram_ports: vec![DATAGRAMS],
        dial_ports: DIAL,
        flows_max: 4096,
        receive_bytes: 32 * 1024,
        ..StackConfig::default()
    }
}

/// Why there can be no network of the tests' here; `None` where there can.
pub(crate) fn lacks_network() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the user-space stack isn't tried: network namespaces and devices need root".to_owned());
    }
    let can = std::process::Command::new("unshare").args(["--net", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        return Some("the user-space stack isn't tried: network namespaces can't be made here".to_owned());
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("the user-space stack isn't tried: there's no /dev/net/tun".to_owned());
    }
    None
}

/// Moves the calling thread to a host. A test has a thread of its own.
pub(crate) fn move_to(host: &Host) {
    let namespace = File::open(format!("/proc/{}/ns/net", host.pid())).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// A socket in another host.
pub(crate) fn socket_in(host: &Host, family: AddressFamily, kind: SocketType) -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    host.run(|| socket_with(family, kind, flags, None)).unwrap()
}

/// Has the kernel's end acknowledge without delay: one that waits looks to the suite as if nothing more came.
fn acknowledge_at_once(host: &Host, device: &str) {
    host.command(&format!("ip route replace 10.202.0.0/24 dev {device} src {PEER_V4} quickack 1"));
    host.command(&format!("ip -6 route replace fd20:ca::/64 dev {device} proto kernel metric 256 quickack 1"));
}

/// Has a host's routes forbid the way to an address, which is nobody's (RFC 5737, RFC 3849).
pub(crate) fn forbid(host: &Host, v4: bool) -> IpAddr {
    let address: IpAddr = if v4 { [198, 51, 100, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
    host.command(&format!("ip {} route add prohibit {address}", if v4 { "-4" } else { "-6" }));
    address
}

/// Waits until a host takes packets to its address: the kernel puts IPv6's into its tables some time after it's been given one, and what
/// comes before is dropped (`addrconf_dad_work` of net/ipv6/addrconf.c, `nodad` or not). TCP says it again; a datagram is gone.
fn await_address(host: &Host, address: Ipv6Addr) {
    let deadline = Instant::now() + PATIENCE;
    while !host.command(&format!("ip -6 route get {address}")).starts_with("local ") {
        assert!(Instant::now() < deadline, "{address} never becomes the host's");
        std::thread::yield_now();
    }
}

/// One host: a stack above a TUN device, and the kernel's TCP at its other end.
pub(crate) struct TunGround {
    pub(crate) host: Host,
    devices: Cell<u32>,
}

impl TunGround {
    pub(crate) fn new() -> Self {
        Self { host: Host::new(), devices: Cell::new(0) }
    }

    /// The device, whose other end is the calling thread's host. It takes the place of the one before: that one may still be there
    /// for a moment, since a program that another test is just starting has its descriptor until it's loaded.
    pub(crate) fn link(&self) -> Tun {
        let number = self.devices.get();
        self.devices.set(number + 1);
        if let Some(before) = number.checked_sub(1) {
            let delete = format!("link del t{before}");
            self.host.run(|| std::process::Command::new("ip").args(delete.split(' ')).output()).unwrap();
        }
        let name = format!("t{number}");
        self.host.command(&format!("ip tuntap add dev {name} mode tun"));
        self.host.command(&format!("ip link set {name} mtu {MTU}"));
        let tun = self.host.run(|| Tun::open(&name, &STACK)).unwrap();
        for (address, prefix) in [(PEER_V4.to_string(), "24"), (PEER_V6.to_string(), "64 nodad")] {
            self.host.command(&format!("ip addr add dev {name} {address}/{prefix}"));
        }
        self.host.command(&format!("ip link set {name} up"));
        acknowledge_at_once(&self.host, &name);
        await_address(&self.host, PEER_V6);
        tun
    }
}

/// Two hosts joined by a veth pair, with a stack in one of them.
pub(crate) struct VethGround {
    pub(crate) peer: Host,
    pub(crate) host: Host,
}

impl VethGround {
    pub(crate) fn new() -> Self {
        let ground = Self { peer: Host::new(), host: Host::new() };
        let there = ground.host.pid();
        let one = "numtxqueues 1 numrxqueues 1";
        ground.peer.command(&format!("ip link add p0 {one} type veth peer name s0 {one} netns {there}"));
        let peers = [IpAddr::V4(PEER_V4), IpAddr::V6(PEER_V6)];
        let ends = [(&ground.peer, "p0", &peers[..]), (&ground.host, "s0", &STACK[..])];
        for (host, device, addresses) in ends {
            for address in addresses {
                let prefix = if address.is_ipv4() { "24" } else { "64 nodad" };
                host.command(&format!("ip addr add dev {device} {address}/{prefix}"));
            }
            host.command(&format!("ip link set {device} mtu {MTU} up"));
        }
        // Generic XDP comes before a piece of several segments is cut up, and a frame holds one.
        ground.peer.command("ip link set p0 gso_max_segs 1");
        acknowledge_at_once(&ground.peer, "p0");
        await_address(&ground.peer, PEER_V6);
        // It answers for the stack's.
        await_address(&ground.host, STACK_V6);
        await_address(&ground.host, STACK_V6_TOO);
        ground
    }

    /// The queue of the device. What had it before may live on for a moment in a child that another test's thread is just starting.
    pub(crate) fn link(&self, mode: Option<XdpMode>) -> Xdp {
        let frames = XdpConfig { rx_frames: 512, tx_frames: 256, ..XdpConfig::default() };
        let open = || XdpDevice::attach("s0", mode)?.open(0, &frames, &config());
        let began = Instant::now();
        loop {
            match self.host.run(open) {
                Ok(link) => return link,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
