//! Hosts in a row, each a network namespace joined to the next: a client at one end, a server at the other.

mod host;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use host::Host;

/// Addresses of the host to the left of a link, or to its right.
pub(crate) fn left(link: u8) -> [IpAddr; 2] {
    addresses(link, 1)
}

pub(crate) fn right(link: u8) -> [IpAddr; 2] {
    addresses(link, 2)
}

fn addresses(link: u8, host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd77, 0, 0, u16::from(link), 0, 0, 0, u16::from(host));
    [Ipv4Addr::new(10, 77, link, host).into(), v6.into()]
}

/// So many hosts in a row: link 0 joins the first two. Those between forward, and everybody finds everybody.
pub(crate) fn row(count: u8) -> Vec<Host> {
    let hosts: Vec<Host> = (0..count).map(|_| Host::new()).collect();
    for (link, pair) in (0..).zip(hosts.windows(2)) {
        let there = pair[1].pid();
        pair[0].command(&format!("ip link add right type veth peer name left netns {there}"));
        for (host, device, addresses) in [(&pair[0], "right", left(link)), (&pair[1], "left", right(link))] {
            for address in addresses {
                // Without duplicate address detection an IPv6 address serves at once.
                let prefix = if address.is_ipv4() { "24" } else { "64 nodad" };
                host.command(&format!("ip addr add dev {device} {address}/{prefix}"));
            }
            host.command(&format!("ip link set {device} up"));
        }
    }
    for (at, host) in (0..count).zip(&hosts) {
        host.command("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for link in 0..count - 1 {
            let next = match link {
                link if link + 1 < at => left(at - 1),
                link if link > at => right(at),
                _ => continue,
            };
            let [v4, v6] = next;
            host.command(&format!("ip route add 10.77.{link}.0/24 via {v4}"));
            host.command(&format!("ip route add fd77:0:0:{link:x}::/64 via {v6}"));
        }
    }
    hosts
}
