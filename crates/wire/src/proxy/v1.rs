//! Version 1 (§2.1): one line of US-ASCII text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{DecodeError, Decoded, Encoded, Header, Version, agrees};

/// "PROXY" and exactly one space.
pub(super) const TAG: &[u8] = b"PROXY ";

/// Longest line in bytes, CRLF included: the worst case of `UNKNOWN`. `TCP4` lines end by 56 and `TCP6` lines by 104,
/// which the limits of their fields bring about.
pub(super) const LINE_LEN_MAX: usize = 107;

/// Longest port: 65535.
const PORT_LEN_MAX: usize = 5;

const _: () = assert!(LINE_LEN_MAX <= Encoded::LEN_MAX);

/// Decodes a line whose first bytes agree with [`TAG`].
pub(super) fn decode(bytes: &[u8]) -> Result<Option<Decoded>, DecodeError> {
    let mut line = Line { bytes, at: 0 };
    match line.header() {
        Ok(header) => Ok(Some(Decoded { header, version: Version::V1, len: line.at })),
        Err(Stop::More) => Ok(None),
        Err(Stop::Refuse(error)) => Err(error),
    }
}

/// Encodes a header whose addresses are of one family.
pub(super) fn encode(header: &Header) -> Encoded {
    let mut encoded = Encoded::EMPTY;
    match *header {
        Header::Inet { source, destination } => encoded.push_text(format_args!(
            "PROXY {} {} {} {} {}\r\n",
            if source.is_ipv4() { "TCP4" } else { "TCP6" },
            Text(source.ip()),
            Text(destination.ip()),
            source.port(),
            destination.port()
        )),
        Header::Local | Header::Unix { .. } => encoded.push(b"PROXY UNKNOWN\r\n"),
    }
    encoded
}

/// An address in the form of §2.1. It knows hexadecimal groups only, where [`Ipv6Addr`] prints a mapped address with
/// the dotted IPv4 address in it.
struct Text(IpAddr);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                let [.., high, low] = ip.segments();
                write!(f, "::ffff:{high:x}:{low:x}")
            }
            ip => write!(f, "{ip}"),
        }
    }
}

/// The protocol and family that a line with addresses announces.
#[derive(Clone, Copy)]
enum Family {
    Tcp4,
    Tcp6,
}

impl Family {
    /// Length in bytes of the longest address.
    const fn address_len_max(self) -> usize {
        match self {
            Self::Tcp4 => "255.255.255.255".len(),
            Self::Tcp6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len(),
        }
    }

    /// Whether the byte may be part of an address.
    ///
    /// DEVIATION: §2.1 has no dot in an IPv6 address. `inet_ntop` writes a mapped one as `::ffff:192.0.2.1`, and
    /// senders use it, so it is accepted (and never sent).
    const fn allows(self, byte: u8) -> bool {
        match self {
            Self::Tcp4 => matches!(byte, b'0'..=b'9' | b'.'),
            Self::Tcp6 => byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'),
        }
    }

    /// The standard parsers are as strict as §2.1: four decimal numbers without leading zeros; groups of one to four
    /// hexadecimal digits, `::` at most once, 128 bits, no zone.
    fn parse(self, field: &str) -> Option<IpAddr> {
        match self {
            Self::Tcp4 => field.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Self::Tcp6 => field.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        }
    }
}

/// Why a line ends early.
enum Stop {
    /// The bytes ran out, and all of them fit.
    More,
    Refuse(DecodeError),
}

const MALFORMED: Stop = Stop::Refuse(DecodeError::LineMalformed);

/// A line being read from left to right.
///
/// §2.1 has the receiver wait for the CRLF before it decodes addresses, so that they are complete. A field that its
/// separator has ended is complete, so it is judged then; nothing is returned before the CRLF.
struct Line<'a> {
    bytes: &'a [u8],
    /// Invariant: `at <= bytes.len()`, and all before it has been read and fits.
    at: usize,
}

impl<'a> Line<'a> {
    fn header(&mut self) -> Result<Header, Stop> {
        self.tag(TAG)?;
        match self.peek()? {
            b'T' => {
                let family = self.family()?;
                self.addresses(family)
            }
            _ => self.unknown(),
        }
    }

    fn family(&mut self) -> Result<Family, Stop> {
        self.tag(b"TCP")?;
        let family = match self.byte()? {
            b'4' => Family::Tcp4,
            b'6' => Family::Tcp6,
            _ => return Err(MALFORMED),
        };
        self.tag(b" ")?;
        Ok(family)
    }

    fn addresses(&mut self, family: Family) -> Result<Header, Stop> {
        let source = self.address(family)?;
        let destination = self.address(family)?;
        let source_port = self.port(b' ')?;
        let destination_port = self.port(b'\r')?;
        self.tag(b"\n")?;
        Ok(Header::inet(SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)))
    }

    /// "UNKNOWN", alone or followed by a space and whatever else: it "must be ignored" up to the CRLF.
    ///
    /// DEVIATION: a CR or LF by itself is refused rather than ignored, for receivers differ in whether it ends a line.
    fn unknown(&mut self) -> Result<Header, Stop> {
        self.tag(b"UNKNOWN")?;
        if !matches!(self.peek()?, b' ' | b'\r') {
            return Err(MALFORMED);
        }
        loop {
            match self.byte()? {
                b'\r' => break,
                b'\n' => return Err(MALFORMED),
                _ if self.at + b"\r\n".len() > LINE_LEN_MAX => {
                    return Err(Stop::Refuse(DecodeError::TooLong));
                }
                _ => {}
            }
        }
        self.tag(b"\n")?;
        Ok(Header::Local)
    }

    fn address(&mut self, family: Family) -> Result<IpAddr, Stop> {
        let field = self.field(b' ', family.address_len_max(), |byte| family.allows(byte))?;
        family.parse(field).ok_or(MALFORMED)
    }

    fn port(&mut self, end: u8) -> Result<u16, Stop> {
        let field = self.field(end, PORT_LEN_MAX, |byte| byte.is_ascii_digit())?;
        if field.len() > 1 && field.starts_with('0') {
            return Err(MALFORMED);
        }
        field.parse().map_err(|_| MALFORMED)
    }

    /// The bytes up to `end`, which is consumed.
    fn field(&mut self, end: u8, len_max: usize, allows: impl Fn(u8) -> bool) -> Result<&'a str, Stop> {
        let start = self.at;
        loop {
            let byte = self.byte()?;
            if byte == end {
                break;
            }
            if !allows(byte) || self.at - start > len_max {
                return Err(MALFORMED);
            }
        }
        let field = self.bytes.get(start..self.at - 1).ok_or(MALFORMED)?;
        str::from_utf8(field).map_err(|_| MALFORMED)
    }

    fn tag(&mut self, tag: &[u8]) -> Result<(), Stop> {
        let rest = self.rest();
        if !agrees(rest, tag) {
            return Err(MALFORMED);
        }
        if rest.len() < tag.len() {
            return Err(Stop::More);
        }
        self.at += tag.len();
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.rest().first().copied().ok_or(Stop::More)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}
