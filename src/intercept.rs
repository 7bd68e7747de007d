//! The firewall's and the routing's part in transparent interception: which rules a configuration needs, as text.
//!
//! ```text
//!  client's packet ──► prerouting: ours already?   mark it    ──► rule: marked packets ──► table: every address is local
//!                                  to be taken?    TPROXY, mark                            ──► the listener, or the leg
//! ```
//! A table of nftables and a routing table, both midmile's own by name and number; nothing else is touched
//! (Documentation/networking/tproxy.rst). Needs Linux 5.11 (`socket wildcard`) and nftables 1.0.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use midmile_gateway::Rule;

use crate::addr::Endpoint;
use crate::config::Config;

mod apply;

pub(crate) use apply::{Applied, can_tproxy};

/// The name of the table of nftables.
const TABLE: &str = "midmile";
/// The mark of packets that stay here whatever their address.
const MARK: &str = "0x6d69";
/// The number of the routing table, and the priority of the rule that leads there.
const ROUTES: &str = "28009";

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// As `ip` takes it.
    const fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// A destination that is handed over, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    rule: Rule,
    listener: SocketAddr,
}

/// The rules that a configuration needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    taken: Vec<Taken>,
    families: Vec<Family>,
}

impl Rules {
    /// The rules for the transparent listeners and the legs with their client's address; `None` if there are neither.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let transparent = config.listeners.iter().filter(|listener| listener.client.transparent);
        let places = transparent.filter_map(|listener| match &listener.listen {
            Endpoint::Ip(addr) => Some((*addr, &listener.intercept)),
            _ => None,
        });
        let places: Vec<_> = places.collect();
        let spoofs = config.listeners.iter().any(|listener| listener.spoof_client)
            || config.trunks.iter().any(|trunk| trunk.spoof_client);
        let takes_all = |addr: &SocketAddr| addr.is_ipv6() && addr.ip().is_unspecified();
        let v4 = spoofs || places.iter().any(|(addr, _)| addr.is_ipv4() || takes_all(addr));
        let v6 = spoofs || places.iter().any(|(addr, _)| addr.is_ipv6());
        let taken = places
            .iter()
            .flat_map(|(listener, rules)| rules.iter().map(|rule| Taken { rule: rule.clone(), listener: *listener }));
        let families = [(Family::V4, v4), (Family::V6, v6)].into_iter().filter_map(|(family, is)| is.then_some(family));
        let rules = Self { taken: taken.collect(), families: families.collect() };
        (!rules.families.is_empty()).then_some(rules)
    }

    /// What `nft -f -` reads: the table, in place of one that is there.
    pub(crate) fn nft(&self) -> String {
        let mut text = removal();
        let mut add = |line: &str| writeln!(text, "{line}").expect("writing to a string never fails");
        add(&format!("table inet {TABLE} {{"));
        add("\tchain prerouting {");
        add("\t\ttype filter hook prerouting priority mangle; policy accept;");
        add(&format!("\t\tmeta l4proto tcp socket wildcard 0 socket transparent 1 meta mark set {MARK} accept"));
        for taken in &self.taken {
            add(&format!("\t\t{}", taken.line()));
        }
        add("\t}");
        add("}");
        text
    }

    /// The arguments of the `ip` commands that have marked packets stay here.
    fn routes(&self) -> Vec<Vec<&'static str>> {
        let commands = self.families.iter().flat_map(|family| {
            let route = vec![family.option(), "route", "replace", "local", "default", "dev", "lo", "table", ROUTES];
            [route, rule_command(*family, "add")]
        });
        commands.collect()
    }

    /// All of it as a script for a shell, which may run again.
    pub(crate) fn script(&self) -> String {
        let mut text = format!("nft -f - <<'EOF'\n{}EOF\n", self.nft());
        for family in &self.families {
            writeln!(text, "ip {} 2>/dev/null || true", rule_command(*family, "del").join(" ")).expect(WRITES);
        }
        for command in self.routes() {
            writeln!(text, "ip {}", command.join(" ")).expect(WRITES);
        }
        text
    }
}

/// Why writing a text can be relied on.
const WRITES: &str = "writing to a string never fails";

impl Taken {
    fn line(&self) -> String {
        let Self { rule, listener } = self;
        let (first, last) = (rule.ports.start(), rule.ports.end());
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let family = if rule.net.addr().is_ipv4() { "ip" } else { "ip6" };
        // Of a listener on every address the kernel finds one itself.
        let to = match listener.ip() {
            ip if ip.is_unspecified() => format!(":{}", listener.port()),
            IpAddr::V4(_) | IpAddr::V6(_) => listener.to_string(),
        };
        format!("{family} daddr {} tcp dport {ports} tproxy {family} to {to} meta mark set {MARK} accept", rule.net)
    }
}

/// What `nft -f -` reads to remove the table, whether it's there or not.
fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The arguments of `ip` for the rule that leads marked packets to the routing table.
fn rule_command(family: Family, what: &'static str) -> Vec<&'static str> {
    vec![family.option(), "rule", what, "fwmark", MARK, "lookup", ROUTES, "priority", ROUTES]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    fn rules(text: &str) -> Option<Rules> {
        Rules::of(&crate::config::parse("f", text, &Host { cpus: 2, congestion: None }).unwrap())
    }

    #[test]
    fn who_intercepts_nothing_needs_no_rules() {
        assert_eq!(rules("[[listener]]\nlisten = \"127.0.0.1:80\"\nto = \"10.0.0.1:80\"\n"), None);
    }

    #[test]
    fn the_rules_name_destinations_and_listeners() {
        let text = "[[listener]]\nlisten = \"[::]:8443\"\nto = \"original\"\ntransparent = true\n\
                    intercept = [\"203.0.113.0/24:443\", \"[2001:db8::/32]:1-1024\"]\n\
                    [[listener]]\nlisten = \"10.0.0.1:8444\"\nto = \"original\"\ntransparent = true\n\
                    intercept = [\"198.51.100.7:25\"]\n";
        let wanted = "nft -f - <<'EOF'\n\
            table inet midmile\n\
            delete table inet midmile\n\
            table inet midmile {\n\
            \tchain prerouting {\n\
            \t\ttype filter hook prerouting priority mangle; policy accept;\n\
            \t\tmeta l4proto tcp socket wildcard 0 socket transparent 1 meta mark set 0x6d69 accept\n\
            \t\tip daddr 203.0.113.0/24 tcp dport 443 tproxy ip to :8443 meta mark set 0x6d69 accept\n\
            \t\tip6 daddr 2001:db8::/32 tcp dport 1-1024 tproxy ip6 to :8443 meta mark set 0x6d69 accept\n\
            \t\tip daddr 198.51.100.7/32 tcp dport 25 tproxy ip to 10.0.0.1:8444 meta mark set 0x6d69 accept\n\
            \t}\n\
            }\n\
            EOF\n\
            ip -4 rule del fwmark 0x6d69 lookup 28009 priority 28009 2>/dev/null || true\n\
            ip -6 rule del fwmark 0x6d69 lookup 28009 priority 28009 2>/dev/null || true\n\
            ip -4 route replace local default dev lo table 28009\n\
            ip -4 rule add fwmark 0x6d69 lookup 28009 priority 28009\n\
            ip -6 route replace local default dev lo table 28009\n\
            ip -6 rule add fwmark 0x6d69 lookup 28009 priority 28009\n";
        assert_eq!(rules(text).unwrap().script(), wanted);
    }

    #[test]
    fn a_spoofing_leg_needs_the_way_back_alone() {
        let text = "[[listener]]\nlisten = \"127.0.0.1:80\"\nto = \"10.0.0.1:80\"\nserver.spoof_client = true\n";
        let rules = rules(text).unwrap();
        assert_eq!((rules.taken.len(), &rules.families[..]), (0, &[Family::V4, Family::V6][..]));
        assert!(!rules.nft().contains("tproxy"));
    }

    #[test]
    fn a_family_that_nobody_listens_on_is_left_alone() {
        let text = "[[listener]]\nlisten = \"0.0.0.0:8443\"\nto = \"original\"\ntransparent = true\n";
        assert_eq!(rules(text).unwrap().families, [Family::V4]);
    }
}
