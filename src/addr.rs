//! Addresses as an operator writes them: `host:port`, `[v6]:port`, `unix:/path`, `unix:@abstract`; of backends that are asked by datagrams
//! `udp:host:port`.
//!
//! A name stays a name here; the control path resolves it (see [`crate::resolve`]), so that reading a configuration opens no
//! socket and asks no server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use midmile_engine::{UNIX_NAME_LEN_MAX, UnixAddr};

/// Longest host name: RFC 1035 §2.3.4 allows 255 bytes on the wire, which is 253 as text.
const HOST_LEN_MAX: usize = 253;

/// Where to listen or where to dial, as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A host name and a port, to be resolved.
    Name(HostPort),
    /// A Unix-domain socket file.
    UnixPath(Arc<Path>),
    /// A name in the abstract namespace, without its leading zero byte.
    UnixAbstract(Arc<str>),
}

/// A host name and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

/// A backend as written: an endpoint, or `udp:` in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) endpoint: Endpoint,
    /// It's asked by datagrams.
    pub(crate) udp: bool,
}

impl FromStr for Backend {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let (endpoint, udp) = text.strip_prefix("udp:").map_or((text, false), |rest| (rest, true));
        let endpoint: Endpoint = endpoint.parse()?;
        if udp && endpoint.is_unix() {
            return mend("there are no datagrams to a Unix-domain socket; write udp:host:port");
        }
        Ok(Self { endpoint, udp })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.udp { "udp:" } else { "" }, self.endpoint)
    }
}

/// Why a text is not an address, and how to write it instead. It doesn't repeat the text: its place is the caller's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddrError(String);

impl Endpoint {
    /// Whether it's a Unix-domain socket, to which TCP's options don't apply.
    pub(crate) const fn is_unix(&self) -> bool {
        matches!(self, Self::UnixPath(_) | Self::UnixAbstract(_))
    }

    /// The port, unless it's a Unix-domain socket.
    pub(crate) const fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(addr) => Some(addr.port()),
            Self::Name(name) => Some(name.port),
            Self::UnixPath(_) | Self::UnixAbstract(_) => None,
        }
    }

    /// Whether a listener there and a listener at `other` would be one and the same. Port 0 never collides.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        self == other && self.port() != Some(0)
    }

    /// The Unix-domain name, if it is one.
    pub(crate) fn unix(&self) -> Option<UnixAddr> {
        match self {
            Self::UnixPath(path) => Some(UnixAddr::Path(Arc::clone(path))),
            Self::UnixAbstract(name) => Some(UnixAddr::Abstract(name.as_bytes().into())),
            Self::Ip(_) | Self::Name(_) => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        if let Some(name) = text.strip_prefix("unix:") {
            return unix(name);
        }
        if text.is_empty() {
            return mend("it is empty; write host:port, [v6]:port or unix:/path");
        }
        if text.starts_with("udp:") {
            return mend("only backends of framing \"dns\" are asked over UDP; leave \"udp:\" out");
        }
        if text.starts_with('/') {
            return mend(format!("a path without \"unix:\"; write unix:{text}"));
        }
        if text.contains('/') {
            return mend("a scheme or path is not part of an address; write host:port alone");
        }
        if text.starts_with('[') {
            return bracketed(text);
        }
        host_and_port(text)
    }
}

fn mend<T>(what: impl Into<String>) -> Result<T, AddrError> {
    Err(AddrError(what.into()))
}

fn unix(name: &str) -> Result<Endpoint, AddrError> {
    let (bytes, kind) = name.strip_prefix('@').map_or((name, "path"), |rest| (rest, "abstract name"));
    if bytes.is_empty() {
        return mend("a Unix-domain socket without a name; write unix:/path or unix:@name");
    }
    if bytes.contains('\0') {
        return mend(format!("a zero byte in the {kind}; leave it out"));
    }
    if bytes.len() > UNIX_NAME_LEN_MAX {
        let len = bytes.len();
        return mend(format!("the {kind} has {len} bytes; the kernel allows {UNIX_NAME_LEN_MAX}, use a shorter one"));
    }
    if kind == "abstract name" {
        return Ok(Endpoint::UnixAbstract(bytes.into()));
    }
    if !bytes.starts_with('/') {
        return mend("the path is relative; write the whole path, such as unix:/run/app.sock");
    }
    Ok(Endpoint::UnixPath(Path::new(bytes).into()))
}

fn bracketed(text: &str) -> Result<Endpoint, AddrError> {
    let Some((host, rest)) = text[1..].split_once(']') else {
        return mend("the closing ] is missing; write [v6]:port, such as [::1]:80");
    };
    let Some(digits) = rest.strip_prefix(':') else {
        return mend(format!("no port; write [{host}]:port, such as [{host}]:80"));
    };
    port(digits)?;
    // The standard library knows numeric zones (`%2`), not interface names.
    let addr = text.parse().or_else(|_| mend(format!("{host} is not an IPv6 address; only those go in brackets")))?;
    Ok(Endpoint::Ip(SocketAddr::V6(addr)))
}

fn host_and_port(text: &str) -> Result<Endpoint, AddrError> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return mend(format!("an IPv6 address goes in brackets, with a port; write [{text}]:80"));
    }
    let Some((host, digits)) = text.rsplit_once(':') else {
        return mend(format!("no port; write host:port, such as {text}:80"));
    };
    if host.contains(':') {
        return mend("too many colons; write host:port, or [v6]:port for IPv6");
    }
    if host.is_empty() || host == "*" {
        return mend(format!("no host; for every address write 0.0.0.0:{digits} (IPv4) or [::]:{digits}"));
    }
    let port = port(digits)?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Endpoint::Ip(SocketAddr::new(ip, port)));
    }
    host_name(host)?;
    Ok(Endpoint::Name(HostPort { host: host.into(), port }))
}

fn port(digits: &str) -> Result<u16, AddrError> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port) if plain => Ok(port),
        _ => mend(format!("the port \"{digits}\" is not a number from 0 to 65535")),
    }
}

fn host_name(host: &str) -> Result<(), AddrError> {
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return mend(format!("{host} is not an IPv4 address; write four numbers from 0 to 255"));
    }
    if host.len() > HOST_LEN_MAX {
        return mend(format!("the host name has {} characters; DNS allows {HOST_LEN_MAX}", host.len()));
    }
    match host.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
        Some(bad) => mend(format!("a host name can't contain {bad:?}; write names outside ASCII in their xn-- form")),
        None => Ok(()),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::UnixPath(path) => write!(f, "unix:{}", String::from_utf8_lossy(path.as_os_str().as_bytes())),
            Self::UnixAbstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddrError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_shown() {
        let texts = [
            "127.0.0.1:80",
            "[::1]:443",
            "[fe80::1%2]:1",
            "localhost:0",
            "db_1.example.com:5432",
            "unix:/run/a.sock",
            "unix:@web",
        ];
        for text in texts {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_backend_says_how_it_is_asked() {
        for (text, udp) in
            [("10.0.0.1:53", false), ("udp:10.0.0.1:53", true), ("udp:[::1]:53", true), ("udp:ns.test:53", true)]
        {
            let backend: Backend = text.parse().unwrap();
            assert_eq!((backend.udp, backend.to_string()), (udp, text.to_owned()));
        }
        let said = |text: &str| text.parse::<Backend>().unwrap_err().to_string();
        assert_eq!(said("udp:unix:@a"), "there are no datagrams to a Unix-domain socket; write udp:host:port");
        assert_eq!(said("udp:udp:a:53"), said("udp:udp:b:53"));
    }

    /// What is wrong, and what is said of it.
    const WRONG: [(&str, &str); 20] = [
        ("udp:a:53", "only backends of framing \"dns\" are asked over UDP; leave \"udp:\" out"),
        ("", "it is empty; write host:port, [v6]:port or unix:/path"),
        ("localhost", "no port; write host:port, such as localhost:80"),
        ("::1", "an IPv6 address goes in brackets, with a port; write [::1]:80"),
        ("a:b:c", "too many colons; write host:port, or [v6]:port for IPv6"),
        (":8080", "no host; for every address write 0.0.0.0:8080 (IPv4) or [::]:8080"),
        ("*:8080", "no host; for every address write 0.0.0.0:8080 (IPv4) or [::]:8080"),
        ("a:65536", "the port \"65536\" is not a number from 0 to 65535"),
        ("a:+1", "the port \"+1\" is not a number from 0 to 65535"),
        ("a:", "the port \"\" is not a number from 0 to 65535"),
        ("[::1]", "no port; write [::1]:port, such as [::1]:80"),
        ("[::1:80", "the closing ] is missing; write [v6]:port, such as [::1]:80"),
        ("[a]:80", "a is not an IPv6 address; only those go in brackets"),
        ("300.1.1.1:80", "300.1.1.1 is not an IPv4 address; write four numbers from 0 to 255"),
        ("http://a:80", "a scheme or path is not part of an address; write host:port alone"),
        ("/run/a.sock", "a path without \"unix:\"; write unix:/run/a.sock"),
        ("b\u{fc}:80", "a host name can't contain 'ü'; write names outside ASCII in their xn-- form"),
        ("unix:", "a Unix-domain socket without a name; write unix:/path or unix:@name"),
        ("unix:@", "a Unix-domain socket without a name; write unix:/path or unix:@name"),
        ("unix:a.sock", "the path is relative; write the whole path, such as unix:/run/app.sock"),
    ];

    fn assert_said(text: &str, said: &str) {
        assert_eq!(text.parse::<Endpoint>(), Err(AddrError(said.to_owned())), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_mend() {
        for (text, said) in WRONG {
            assert_said(text, said);
        }
    }

    #[test]
    fn what_is_too_long_is_said_with_the_limit() {
        let path = format!("unix:/{}", "a".repeat(107));
        assert_said(&path, "the path has 108 bytes; the kernel allows 107, use a shorter one");
        let name = format!("unix:@{}", "a".repeat(108));
        assert_said(&name, "the abstract name has 108 bytes; the kernel allows 107, use a shorter one");
        let host = format!("{}:1", "a".repeat(254));
        assert_said(&host, "the host name has 254 characters; DNS allows 253");
    }

    #[test]
    fn only_equal_places_with_a_port_collide() {
        let at = |text: &str| text.parse::<Endpoint>().unwrap();
        assert!(at("127.0.0.1:80").collides(&at("127.0.0.1:80")));
        assert!(at("unix:@a").collides(&at("unix:@a")));
        assert!(!at("127.0.0.1:0").collides(&at("127.0.0.1:0")));
        assert!(!at("127.0.0.1:80").collides(&at("127.0.0.1:81")));
    }
}
