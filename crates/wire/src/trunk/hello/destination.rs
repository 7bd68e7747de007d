//! The place that the last gateway of a path dials.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::proxy::v2::take;

/// What is dialled at the end of the path: an IP address or a host's name, and a port.
///
/// Whether it *may* be dialled is the last gateway's to say. What can't be a place is refused here: port 0, the
/// unspecified address (which Linux takes for this host), multicast and broadcast. An IPv4-mapped IPv6 address is the
/// IPv4 address, so that an access list sees it as it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination(Place);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "nothing is allocated for a message, so the name is in the value")]
enum Place {
    Address(SocketAddr),
    Name { host: HostName, port: u16 },
}

/// The host part of a [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host<'a> {
    /// An address, in canonical form.
    Address(IpAddr),
    /// A name to resolve, in lower case. It isn't an IP address written as one.
    Name(&'a str),
}

impl Destination {
    /// An address and port.
    ///
    /// # Errors
    /// If it can't be dialled: [`DestinationError::Port`], [`DestinationError::Address`].
    pub fn address(address: SocketAddr) -> Result<Self, DestinationError> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        match address.ip() {
            _ if address.port() == 0 => Err(DestinationError::Port),
            ip if ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST => {
                Err(DestinationError::Address { address: ip })
            }
            _ => Ok(Self(Place::Address(address))),
        }
    }

    /// A host's name and a port. Capitals become small letters.
    ///
    /// # Errors
    /// If no host can have this name, or the port is 0: [`DestinationError::Name`], [`DestinationError::Port`].
    pub fn name(host: &str, port: u16) -> Result<Self, DestinationError> {
        let mut lower = HostName::BLANK;
        let bytes = lower.bytes.get_mut(..host.len()).ok_or(DestinationError::Name)?;
        bytes.copy_from_slice(host.as_bytes());
        bytes.make_ascii_lowercase();
        Self::name_from_bytes(bytes, port)
    }

    fn name_from_bytes(host: &[u8], port: u16) -> Result<Self, DestinationError> {
        let host = HostName::from_bytes(host).ok_or(DestinationError::Name)?;
        if port == 0 { Err(DestinationError::Port) } else { Ok(Self(Place::Name { host, port })) }
    }

    /// The host.
    pub fn host(&self) -> Host<'_> {
        match &self.0 {
            Place::Address(address) => Host::Address(address.ip()),
            Place::Name { host, .. } => Host::Name(host.as_str()),
        }
    }

    /// The port: 1 to 65535.
    pub const fn port(&self) -> u16 {
        match &self.0 {
            Place::Address(address) => address.port(),
            Place::Name { port, .. } => *port,
        }
    }

    /// Length of the longest value on the wire, in bytes.
    pub(super) const VALUE_LEN_MAX: usize = 1 + 2 + HostName::LEN_MAX;

    /// The value on the wire, in three parts: form, port, host.
    pub(super) fn write(&self, mut push: impl FnMut(&[u8])) {
        let (form, host): (u8, &dyn AsRef<[u8]>) = match &self.0 {
            Place::Address(address) => match address.ip() {
                IpAddr::V4(ip) => (FORM_IPV4, &ip.octets()),
                IpAddr::V6(ip) => (FORM_IPV6, &ip.octets()),
            },
            Place::Name { host, .. } => (FORM_NAME, host),
        };
        push(&[form]);
        push(&self.port().to_be_bytes());
        push(host.as_ref());
    }

    /// The destination that a value on the wire is. There is one way alone to write each.
    pub(super) fn read(mut value: &[u8]) -> Option<Self> {
        let [form] = take(&mut value)?;
        let port = u16::from_be_bytes(take(&mut value)?);
        let destination = match form {
            FORM_IPV4 => Self::address(SocketAddr::new(take::<4>(&mut value)?.into(), port)).ok()?,
            FORM_IPV6 => {
                let ip = IpAddr::from(take::<16>(&mut value)?);
                if ip.to_canonical() != ip {
                    return None;
                }
                Self::address(SocketAddr::new(ip, port)).ok()?
            }
            FORM_NAME => Self::name_from_bytes(std::mem::take(&mut value), port).ok()?,
            _ => return None,
        };
        value.is_empty().then_some(destination)
    }
}

const FORM_NAME: u8 = 1;
const FORM_IPV4: u8 = 4;
const FORM_IPV6: u8 = 6;

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Ok(address) = text.parse() {
            return Self::address(address);
        }
        let (host, port) = text.rsplit_once(':').ok_or(DestinationError::Port)?;
        // `parse` would take a "+" too.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DestinationError::Port);
        }
        Self::name(host, port.parse().map_err(|_| DestinationError::Port)?)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Address(address) => address.fmt(f),
            Place::Name { host, port } => write!(f, "{}:{port}", host.as_str()),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({self})")
    }
}

/// The name of a host (RFC 1123, 2.1, with "_" as some networks have it), in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct HostName {
    /// Invariant: zeros behind `len`, so that names compare by their bytes.
    bytes: [u8; Self::LEN_MAX],
    /// Invariant: `1 <= len <= LEN_MAX`.
    len: u8,
}

impl HostName {
    /// Length of the longest name in bytes: what remains of RFC 1035's 255 octets when it's written as text.
    const LEN_MAX: usize = 253;

    /// Length of the longest label in bytes (RFC 1035, 2.3.4).
    const LABEL_LEN_MAX: usize = 63;

    const BLANK: Self = Self { bytes: [0; Self::LEN_MAX], len: 0 };

    fn from_bytes(name: &[u8]) -> Option<Self> {
        let mut host = Self::BLANK;
        host.bytes.get_mut(..name.len())?.copy_from_slice(name);
        host.len = u8::try_from(name.len()).ok()?;
        let is_label = |label: &[u8]| {
            (1..=Self::LABEL_LEN_MAX).contains(&label.len())
                && label.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        let mut labels = name.split(|&byte| byte == b'.');
        let last = labels.clone().next_back()?;
        (labels.all(is_label) && !is_number(last)).then_some(host)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_ref()).expect("a host's name is ASCII")
    }
}

/// Whether a name that ends in this label is an IPv4 address to resolvers, in one of its old forms: `10.1`, `0x7f.1`.
fn is_number(label: &[u8]) -> bool {
    match label {
        [b'0', b'x', hexadecimal @ ..] => hexadecimal.iter().all(u8::is_ascii_hexdigit),
        decimal => decimal.iter().all(u8::is_ascii_digit),
    }
}

impl AsRef<[u8]> for HostName {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).expect("len is at most LEN_MAX")
    }
}

/// Why something is no [`Destination`]. The user who typed it mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// No port, or one that can't be.
    #[error("a destination is an address or name, \":\", and a port from 1 to 65535: \"10.3.0.2:80\"")]
    Port,
    /// An address at which nobody can be.
    #[error("{address} can't be dialled; name the address of one host")]
    Address {
        /// The address.
        address: IpAddr,
    },
    /// Not the name of a host.
    #[error(
        "a host's name has labels of 1 to 63 of a-z, 0-9, \"-\" and \"_\" with dots between them, is at most 253 long, \
         and doesn't end in a number; an IPv6 address stands in brackets: \"[2001:db8::1]:80\""
    )]
    Name,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(destination: &Destination) -> Vec<u8> {
        let mut value = Vec::new();
        destination.write(|bytes| value.extend(bytes));
        value
    }

    #[test]
    fn what_can_be_dialled_comes_back_as_it_was() {
        let long = format!("{}.{}:1", ["a".repeat(63).as_str(); 3].join("."), "b".repeat(61));
        for text in ["10.3.0.2:80", "127.0.0.1:65535", "[2001:db8::1]:443", "[::1]:1", "db.internal:5432", "a:1", &long]
        {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), text);
            assert_eq!(Destination::read(&value(&destination)), Some(destination));
            assert!(value(&destination).len() <= Destination::VALUE_LEN_MAX);
        }
        assert_eq!(value(&long.parse().unwrap()).len(), Destination::VALUE_LEN_MAX);
    }

    #[test]
    fn one_place_is_written_in_one_way() {
        for (text, canonical) in [
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("DB.Internal:080", "db.internal:80"),
            ("[fe80::1%3]:9", "[fe80::1]:9"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap(), canonical.parse().unwrap());
        }
        let mapped = [&[6, 0, 80][..], &"::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets()].concat();
        assert_eq!(Destination::read(&mapped), None);
        assert_eq!(Destination::read(b"\x01\0\x50DB"), None);
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        use DestinationError::{Name, Port};
        for text in ["", "a", "a:", "a:0", "a:65536", "a:-1", "a:+1", "10.0.0.1", "10.0.0.1:0", "[::1]:0"] {
            assert_eq!(text.parse::<Destination>(), Err(Port), "{text}");
        }
        for text in [":1", ".:1", "a.:1", ".a:1", "a..b:1", "a b:1", "a\0:1", "ä:1", "::1:1", "[::1:1", "http://a:1"] {
            assert_eq!(text.parse::<Destination>(), Err(Name), "{text}");
        }
        for text in ["127.1:1", "1:1", "0x7f000001:1", "a.0x:1", "010.0.0.1:1", "1.2.3.4.5:1", "300.1.1.1:1"] {
            assert_eq!(text.parse::<Destination>(), Err(Name), "{text}");
        }
        let (label, name) = ("a".repeat(64), ["a".repeat(63).as_str(); 4].join("."));
        for long in [format!("{label}:1"), format!("{name}:1"), format!("{name}{name}:1")] {
            assert_eq!(long.parse::<Destination>(), Err(Name), "{long}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "[::ffff:0.0.0.0]:1", "224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1"] {
            assert!(matches!(text.parse::<Destination>(), Err(DestinationError::Address { .. })), "{text}");
        }
    }

    #[test]
    fn values_of_another_form_or_length_are_refused() {
        for good in [&b"\x04\0\x50\x0a\x03\0\x02"[..], b"\x06\0\x50\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"] {
            assert!(Destination::read(good).is_some());
            for len in 0..good.len() {
                assert_eq!(Destination::read(&good[..len]), None);
            }
            assert_eq!(Destination::read(&[good, &[0]].concat()), None);
            assert_eq!(Destination::read(&[&[5], &good[1..]].concat()), None);
        }
        assert_eq!(Destination::read(b"\x01\0\x50"), None);
        assert_eq!(Destination::read(b"\x01\0\0a"), None);
    }
}
