//! Hosts that are network namespaces, joined by a veth pair.

#[path = "../../../../tests/netns/host.rs"]
mod host;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

pub(crate) use host::Host;

/// How long a link may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The gateway's device and addresses.
pub(crate) const GATEWAY_DEVICE: &str = "g0";
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const GATEWAY: [IpAddr; 2] = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];
/// The client's.
pub(crate) const CLIENT_DEVICE: &str = "c0";
pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const CLIENT: [IpAddr; 2] = [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)];

/// A client and a gateway, joined.
pub(crate) struct Ground {
    pub(crate) client: Host,
    pub(crate) gateway: Host,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let ground = Self { client: Host::new(), gateway: Host::new() };
        let there = ground.gateway.pid();
        let (near, far) = (CLIENT_DEVICE, GATEWAY_DEVICE);
        ground.client.command(&format!("ip link add {near} type veth peer name {far} netns {there}"));
        for (host, device, addresses) in [(&ground.client, near, CLIENT), (&ground.gateway, far, GATEWAY)] {
            for address in addresses {
                // Without duplicate address detection an IPv6 address serves at once.
                let prefix = if address.is_ipv4() { "24" } else { "64 nodad" };
                host.command(&format!("ip addr add dev {device} {address}/{prefix}"));
            }
            // Nor should its link-local address, from which neighbours are asked for, bring its routes some time later.
            host.command(&format!("sysctl -qw net.ipv6.conf.{device}.accept_dad=0"));
            host.command(&format!("ip link set {device} up"));
        }
        // The kernel hears of a carrier a moment after it's there.
        for host in [&ground.client, &ground.gateway] {
            let is_up = || {
                let [v4, v6] = ["ip route show table all", "ip -6 route show table all"].map(|line| host.command(line));
                !(v4 + &v6).contains("linkdown") && host.command("ip -6 address show scope link").contains("fe80:")
            };
            let began = Instant::now();
            while !is_up() {
                assert!(began.elapsed() < PATIENCE, "the link stays down");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        ground
    }
}
