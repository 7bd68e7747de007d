//! What a trunk may dial, as an operator writes it: a network, an address or a name, and ports.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use midmile_gateway::Rule;
use toml::de::DeValue;

use super::value::{Scalar, parse_net};
use crate::addr::{Endpoint, HostPort};

/// One entry of `trunk.allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// A network, or one address, and ports.
    Net(Rule),
    /// A name and a port.
    Name(HostPort),
}

impl Scalar for Allowed {
    const KIND: &'static str = "a destination";
    const EXAMPLE: &'static str = "\"10.3.0.0/24:80\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(parse)
    }
}

/// One entry of `listener.intercept`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intercepted(pub(super) Rule);

impl Scalar for Intercepted {
    const KIND: &'static str = "a network and its ports";
    const EXAMPLE: &'static str = "\"203.0.113.0/24:443\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(|text| match parse(text)? {
            Allowed::Net(rule) => Ok(Self(rule)),
            Allowed::Name(_) => {
                Err(format!("\"{text}\": packets have no names; write network:port, such as 203.0.113.0/24:443"))
            }
        })
    }
}

fn parse(text: &str) -> Result<Allowed, String> {
    let (host, ports) = split(text).ok_or_else(|| {
        format!("\"{text}\" has no port; write network:port, [v6/bits]:port or name:port, such as 10.3.0.0/24:80")
    })?;
    if host.contains('/') || host.parse::<IpAddr>().is_ok() {
        return Ok(Allowed::Net(Rule { net: parse_net(host)?, ports: parse_ports(ports)? }));
    }
    match text.parse() {
        Ok(Endpoint::Name(name)) if name.port != 0 => Ok(Allowed::Name(name)),
        Ok(_) => Err(format!("\"{text}\" is no network and no name; write one of them and a port")),
        Err(error) => Err(format!("\"{text}\": {error}")),
    }
}

/// The part before the ports, without brackets, and the ports.
fn split(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once("]:");
    }
    let (host, ports) = text.rsplit_once(':')?;
    // An IPv6 address needs its brackets: its last group isn't a port.
    (!host.contains(':')).then_some((host, ports))
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let ports = match text.split_once('-') {
        Some((first, last)) => port(first).zip(port(last)).filter(|(first, last)| first <= last),
        None => port(text).map(|port| (port, port)),
    };
    let ports = ports.map(|(first, last)| first..=last);
    ports.ok_or_else(|| format!("\"{text}\" is no port; write 1 to 65535, or two of them as 8000-8999"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(net: &str, ports: RangeInclusive<u16>) -> Allowed {
        Allowed::Net(Rule { net: net.parse().unwrap(), ports })
    }

    #[test]
    fn networks_addresses_and_names_are_told_apart() {
        assert_eq!(parse("10.3.0.0/24:80"), Ok(net("10.3.0.0/24", 80..=80)));
        assert_eq!(parse("10.3.0.7:8000-8999"), Ok(net("10.3.0.7/32", 8000..=8999)));
        assert_eq!(parse("[2001:db8::/32]:443"), Ok(net("2001:db8::/32", 443..=443)));
        assert_eq!(parse("[::1]:443"), Ok(net("::1/128", 443..=443)));
        assert_eq!(parse("db.internal:5432"), Ok(Allowed::Name(HostPort { host: "db.internal".into(), port: 5432 })));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_mend() {
        let cases = [
            ("10.3.0.0/24", "has no port; write network:port"),
            ("2001:db8::/32", "has no port; write network:port"),
            ("10.3.0.1/24:80", "has bits set beyond its prefix; write 10.3.0.0/24"),
            ("10.3.0.0/24:0", "is no port; write 1 to 65535"),
            ("10.3.0.0/24:9-8", "is no port; write 1 to 65535"),
            ("10.3.0.0/240:80", "is not a network; write address/bits"),
            ("a b:80", "a host name can't contain ' '"),
            ("db:0", "is no network and no name"),
        ];
        for (text, told) in cases {
            let what = parse(text).unwrap_err();
            assert!(what.contains(told), "{text}: {what}");
        }
    }
}
