//! What an egress gateway dials for its peers: nothing but what its operator has written down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use midmile_engine::Addr;

/// A network and ports in it that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The network; a single address is one of full length.
    pub net: IpNet,
    /// The ports.
    pub ports: RangeInclusive<u16>,
}

/// A name that may be dialled, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name, in lower case.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Its addresses, as the control side resolved them last.
    pub addrs: Vec<SocketAddr>,
}

/// What may be dialled. Empty, it allows nothing.
///
/// Addresses that lead into this host or to the secrets of its cloud (loopback, link-local, metadata servers) must be named
/// exactly: a wider network that contains them doesn't allow them. That holds for what a name stands for as well, so whoever
/// controls a name's records gains nothing by them. Addresses that are no host's (unspecified, multicast, broadcast) are never
/// dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    rules: Vec<Rule>,
    names: Vec<(Named, Arc<[Addr]>)>,
}

impl Permit {
    /// A permit of `rules`, and of `names` as far as what they stand for may be dialled.
    #[must_use]
    pub fn new(rules: Vec<Rule>, names: Vec<Named>) -> Self {
        let mut permit = Self { rules, names: Vec::new() };
        let named = names.into_iter().map(|named| {
            let admitted = named.addrs.iter().filter(|addr| permit.admits_named(**addr));
            let addrs: Arc<[Addr]> = admitted.map(|addr| Addr::Inet(*addr)).collect();
            (named, addrs)
        });
        permit.names = named.collect();
        permit
    }

    /// Whether `addr` may be dialled when it is asked for as an address.
    #[must_use]
    pub fn admits(&self, addr: SocketAddr) -> bool {
        let ip = plain(addr.ip());
        let exact_only = is_inside(ip);
        !is_nobody(ip)
            && self.rules.iter().any(|rule| {
                let exact = rule.net.prefix_len() == rule.net.max_prefix_len();
                rule.ports.contains(&addr.port()) && rule.net.contains(&ip) && (exact || !exact_only)
            })
    }

    /// Whether `addr` may be dialled for a name that is allowed.
    fn admits_named(&self, addr: SocketAddr) -> bool {
        let ip = plain(addr.ip());
        !is_nobody(ip) && (!is_inside(ip) || self.admits(addr))
    }

    /// The addresses that may be dialled and are known one by one: those written down alone with one port, and those of names.
    pub fn known_addrs(&self) -> impl Iterator<Item = SocketAddr> {
        let alone = self.rules.iter().filter(|rule| {
            rule.net.prefix_len() == rule.net.max_prefix_len() && rule.ports.start() == rule.ports.end()
        });
        let alone = alone.map(|rule| SocketAddr::new(rule.net.addr(), *rule.ports.start()));
        let named = self.names.iter().flat_map(|(_, addrs)| addrs.iter().filter_map(Addr::inet));
        alone.chain(named)
    }

    /// What may be dialled for a name; `None` if it isn't on the list, or stands for nothing that is.
    #[must_use]
    pub fn named(&self, host: &str, port: u16) -> Option<Arc<[Addr]>> {
        let (_, addrs) = self.find(host, port)?;
        (!addrs.is_empty()).then(|| addrs.clone())
    }

    /// Whether a name is on the list and has no address at all.
    #[must_use]
    pub fn is_unresolved(&self, host: &str, port: u16) -> bool {
        self.find(host, port).is_some_and(|(named, _)| named.addrs.is_empty())
    }

    fn find(&self, host: &str, port: u16) -> Option<&(Named, Arc<[Addr]>)> {
        self.names.iter().find(|(named, _)| named.port == port && named.host.eq_ignore_ascii_case(host))
    }
}

/// The address that packets would go to: IPv4 behind the notations that embed it in IPv6 (RFC 4291, 2.5.5; RFC 6052).
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let octets = v6.octets();
    let embedded = Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => IpAddr::V4(embedded),
        [0x64, 0xFF9B, 0, 0, 0, 0, ..] => IpAddr::V4(embedded),
        _ => ip.to_canonical(),
    }
}

/// Into this host, onto its own link, or to where its cloud hands out secrets.
fn is_inside(ip: IpAddr) -> bool {
    const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
    const METADATA_V6: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xFD00, 0xEC2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xFD20, 0xCE, 0, 0, 0, 0, 0, 0x254)];
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || METADATA_V6.contains(&ip),
    }
}

/// No host's address. Connecting to the unspecified one leads into this host.
fn is_nobody(ip: IpAddr) -> bool {
    let this_network = matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 0 || ip.is_broadcast());
    ip.is_unspecified() || ip.is_multicast() || this_network
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(net: &str, ports: RangeInclusive<u16>) -> Rule {
        Rule { net: net.parse().unwrap(), ports }
    }

    fn admits(permit: &Permit, addr: &str) -> bool {
        permit.admits(addr.parse().unwrap())
    }

    #[test]
    fn an_empty_permit_allows_nothing() {
        for addr in ["10.0.0.1:80", "[2001:db8::1]:80", "127.0.0.1:80", "0.0.0.0:80"] {
            assert!(!admits(&Permit::default(), addr), "{addr}");
        }
    }

    #[test]
    fn networks_and_ports_are_kept_to() {
        let permit = Permit::new(vec![rule("10.3.0.0/24", 80..=81), rule("2001:db8::/32", 443..=443)], Vec::new());
        for addr in ["10.3.0.7:80", "10.3.0.255:81", "[2001:db8::7]:443", "[::ffff:10.3.0.7]:80"] {
            assert!(admits(&permit, addr), "{addr}");
        }
        for addr in ["10.3.0.7:82", "10.3.1.7:80", "[2001:db9::7]:443", "[2001:db8::7]:80"] {
            assert!(!admits(&permit, addr), "{addr}");
        }
    }

    #[test]
    fn what_leads_inside_must_be_named_exactly() {
        let wide = Permit::new(vec![rule("0.0.0.0/0", 0..=65535), rule("::/0", 0..=65535)], Vec::new());
        let inside = [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "169.254.169.254:80",
            "100.100.100.200:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::127.0.0.1]:80",
            "[64:ff9b::7f00:1]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
        ];
        for addr in inside {
            assert!(!admits(&wide, addr), "{addr}");
        }
        let exact = Permit::new(vec![rule("127.0.0.1/32", 80..=80), rule("::1/128", 80..=80)], Vec::new());
        assert!(
            admits(&exact, "127.0.0.1:80") && admits(&exact, "[::1]:80") && admits(&exact, "[::ffff:127.0.0.1]:80")
        );
        assert!(!admits(&exact, "127.0.0.2:80") && !admits(&exact, "127.0.0.1:81"));
    }

    #[test]
    fn what_is_no_hosts_address_is_never_dialled() {
        let rules = ["0.0.0.0/0", "0.0.0.0/32", "255.255.255.255/32", "224.0.0.1/32", "::/0", "::/128"];
        let permit = Permit::new(rules.iter().map(|net| rule(net, 0..=65535)).collect(), Vec::new());
        for addr in ["0.0.0.0:80", "0.1.2.3:80", "255.255.255.255:80", "224.0.0.1:80", "[::]:80", "[ff02::1]:80"] {
            assert!(!admits(&permit, addr), "{addr}");
        }
    }

    #[test]
    fn a_name_without_an_address_is_unresolved_and_one_that_leads_inside_is_not_permitted() {
        let named = |host: &str, addrs: &[&str]| Named {
            host: host.into(),
            port: 80,
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        };
        let permit = Permit::new(Vec::new(), vec![named("gone", &[]), named("inside", &["127.0.0.1:80"])]);
        assert!(permit.named("gone", 80).is_none() && permit.is_unresolved("GONE", 80));
        assert!(permit.named("inside", 80).is_none() && !permit.is_unresolved("inside", 80));
        assert!(!permit.is_unresolved("gone", 81) && !permit.is_unresolved("other", 80));
    }

    #[test]
    fn a_name_leads_inside_only_where_the_address_is_named_as_well() {
        let named = |addrs: &[&str]| Named {
            host: "db.internal".into(),
            port: 5432,
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        };
        let permit = Permit::new(Vec::new(), vec![named(&["10.0.0.9:5432", "127.0.0.1:5432", "169.254.169.254:5432"])]);
        assert_eq!(permit.named("DB.internal", 5432).unwrap()[..], [Addr::Inet("10.0.0.9:5432".parse().unwrap())]);
        assert!(permit.named("db.internal", 5433).is_none() && permit.named("other", 5432).is_none());
        assert!(!admits(&permit, "10.0.0.9:5432"), "a name allows the name, not its address");
        let rebound = Permit::new(Vec::new(), vec![named(&["127.0.0.1:5432"])]);
        assert!(rebound.named("db.internal", 5432).is_none());
        let meant = Permit::new(vec![rule("127.0.0.1/32", 5432..=5432)], vec![named(&["127.0.0.1:5432"])]);
        assert_eq!(meant.named("db.internal", 5432).unwrap().len(), 1);
    }
}
