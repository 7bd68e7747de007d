//! The PROXY protocol, versions 1 and 2: the first bytes of a connection say who it was relayed for.
//!
//! Specification: HAProxy's `doc/proxy-protocol.txt`, 2020/03/05, "the specification" below; `§` is a section of it.
//!
//! ```text
//!   v1   PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n
//!   v2   signature 12 │ version+command 1 │ family+protocol 1 │ payload length 2 │ addresses │ TLVs
//! ```
//!
//! Whether a header is expected is configuration and never a guess (§2, §5): a client that may choose to send one
//! chooses its own address. So a connection that starts with anything else is refused by [`decode`], not passed on.

mod crc32c;
mod v1;
pub(crate) mod v2;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use v2::{Tlv, Tlvs};

/// Length in bytes of the longest header that [`decode`] accepts: 16 fixed bytes of v2 and a payload of 2048.
///
/// The specification allows a payload of 65535 but also wants the header to fit one segment of 536 bytes (§2), so 2048
/// leaves room for certificate names in TLVs and still bounds what a connection can make us hold. A line of v1 is at
/// most 107 bytes (§2.1). A buffer of `LEN_MAX` bytes is therefore always enough: once it is full, `decode` decides.
pub const LEN_MAX: usize = v2::LEN_MAX;

const _: () = assert!(v1::LINE_LEN_MAX <= LEN_MAX);

/// Decodes the header at the start of a stream; `bytes` is all that has arrived so far.
///
/// `Ok(None)` means that more bytes are needed. A stream that cannot become a header is refused at the first byte that
/// shows it (of v1 addresses and ports: at the latest when the field ends), so a client which speaks HTTP is turned
/// away at once and not at a timeout. The answer is stable: after an error every longer prefix of the stream is an
/// error, and after a header every longer prefix yields that header.
///
/// Cost is one pass over the header a call. An [`Accept`] of neither version refuses every byte.
///
/// # Errors
/// [`DecodeError`] says what the sender did wrong. Close the connection and count [`DecodeError::reason`].
pub fn decode(bytes: &[u8], accept: Accept) -> Result<Option<Decoded>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let version = Version::of(bytes).ok_or(DecodeError::NotProxy)?;
    if !accept.accepts(version) {
        // One byte 'P' may as well be the POST of an HTTP client: blame the version only when it is certain.
        let certain = bytes.starts_with(version.tag());
        return Err(if certain { DecodeError::VersionRefused } else { DecodeError::NotProxy });
    }
    match version {
        Version::V1 => v1::decode(bytes),
        Version::V2 => v2::decode(bytes),
    }
}

/// The TLVs of a complete header, `&bytes[..decoded.len]`; bytes behind it are not looked at.
///
/// Empty for v1, and for every [`Header::Local`]: what its payload holds, and where TLVs would start in it, is not
/// defined (§2.2). A header that [`decode`] accepted yields no error; anything else yields at most one, as the last
/// item.
pub fn tlvs(header: &[u8]) -> Tlvs<'_> {
    match Version::of(header) {
        Some(Version::V1) => Tlvs::EMPTY,
        Some(Version::V2) => Tlvs::of(header),
        None => Tlvs::failed(DecodeError::NotProxy),
    }
}

/// Encodes a header to send before any other byte on a connection.
///
/// Total: what a version cannot say it states as unknown. A v1 header of [`Header::Local`] or [`Header::Unix`] is
/// `PROXY UNKNOWN`. Addresses of [`Header::Inet`] go through [`Header::inet`] first, so a pair of mixed families is
/// sent as IPv6. No TLVs are written.
pub fn encode(version: Version, header: &Header) -> Encoded {
    let header = match *header {
        Header::Inet { source, destination } => Header::inet(source, destination),
        Header::Local | Header::Unix { .. } => *header,
    };
    match version {
        Version::V1 => v1::encode(&header),
        Version::V2 => v2::encode(&header),
    }
}

/// Who the connection is from and to, as the sender of the header states it.
///
/// It is a claim: believe it only from senders that the configuration trusts (§5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// The sender states nothing: use the addresses of the real socket. v2 `LOCAL` (a health check of the sender, to
    /// be accepted: §2.2), v2 with the family or the protocol `UNSPEC`, v1 `UNKNOWN`.
    Local,
    /// A TCP connection. Both addresses are of one family; build it by [`Header::inet`], which sees to that.
    Inet {
        /// The client, as the sender sees it.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// A Unix stream connection; v2 only.
    Unix {
        /// The client's address, most often unnamed.
        source: UnixPath,
        /// The address that the client connected to.
        destination: UnixPath,
    },
}

impl Header {
    /// An [`Header::Inet`] in normal form: both IPv4 if both are IPv4 or IPv4-mapped IPv6 (`::ffff:0:0/96`), else both
    /// IPv6, with an IPv4 address mapped. Flow label and scope, which no version carries, become zero.
    ///
    /// [`decode`] returns this form too, so an access list of IPv4 networks cannot be passed by in IPv6 clothes, save
    /// where the other address is true IPv6: compare [`IpAddr::to_canonical`] then.
    pub fn inet(source: SocketAddr, destination: SocketAddr) -> Self {
        let (from, to) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            same @ ((IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))) => same,
            (from, to) => (IpAddr::V6(mapped(from)), IpAddr::V6(mapped(to))),
        };
        Self::Inet {
            source: SocketAddr::new(from, source.port()),
            destination: SocketAddr::new(to, destination.port()),
        }
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The address of a Unix socket as v2 carries it: a field of 108 bytes, as `sun_path`, padded by NUL.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnixPath([u8; Self::LEN]);

impl UnixPath {
    /// Length of the field in bytes (§2.2).
    pub const LEN: usize = 108;

    /// The address of a socket that was not bound.
    pub const UNNAMED: Self = Self([0; Self::LEN]);

    /// The field for a path, or for an abstract name with its leading NUL. `None` if it is longer than [`Self::LEN`].
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut field = [0; Self::LEN];
        field.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self(field))
    }

    /// The field as it is on the wire.
    pub const fn from_field(field: [u8; Self::LEN]) -> Self {
        Self(field)
    }

    /// The field as it is on the wire.
    pub const fn as_field(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The path up to its NUL; of an abstract name, all but the padding; of an unnamed socket, nothing.
    ///
    /// The field has no length of its own, so NULs at the end of an abstract name cannot be told from padding.
    pub fn name(&self) -> &[u8] {
        let len = match self.0.first() {
            Some(0) => self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1),
            _ => self.0.iter().position(|&byte| byte == 0).unwrap_or(Self::LEN),
        };
        self.0.get(..len).unwrap_or(&self.0)
    }
}

impl fmt::Debug for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixPath(\"{}\")", self.name().escape_ascii())
    }
}

/// The two formats of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text (§2.1).
    V1,
    /// Binary (§2.2).
    V2,
}

impl Version {
    /// The version whose first bytes these are, complete or not: the first byte tells them apart (§2.2, "Identifying
    /// the protocol version").
    fn of(bytes: &[u8]) -> Option<Self> {
        [Self::V1, Self::V2].into_iter().find(|version| agrees(bytes, version.tag()))
    }

    const fn tag(self) -> &'static [u8] {
        match self {
            Self::V1 => v1::TAG,
            Self::V2 => &v2::SIGNATURE,
        }
    }
}

/// Whether `bytes` is a prefix of `tag`, or starts with it.
pub(crate) fn agrees(bytes: &[u8], tag: &[u8]) -> bool {
    bytes.iter().zip(tag).all(|(byte, expected)| byte == expected)
}

/// Which versions [`decode`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accept {
    /// Accept the line of text.
    pub v1: bool,
    /// Accept the binary header.
    pub v2: bool,
}

impl Accept {
    /// Both versions, as the specification recommends to receivers (§2).
    pub const ANY: Self = Self { v1: true, v2: true };
    /// Version 1 alone.
    pub const V1: Self = Self { v1: true, v2: false };
    /// Version 2 alone.
    pub const V2: Self = Self { v1: false, v2: true };

    const fn accepts(self, version: Version) -> bool {
        match version {
            Version::V1 => self.v1,
            Version::V2 => self.v2,
        }
    }
}

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decoded {
    /// What the sender states.
    pub header: Header,
    /// The format that it came in.
    pub version: Version,
    /// Bytes of the stream that the header takes, TLVs included: the connection's own data starts behind them. Never
    /// more than the bytes given, nor than [`LEN_MAX`].
    pub len: usize,
}

/// An encoded header, to be sent in one write (§2). The longest is of version 2 with two Unix addresses.
pub type Encoded = crate::encoded::Encoded<{ v2::FIXED_LEN + 2 * UnixPath::LEN }>;

/// Why the first bytes of a connection are not a header that we accept.
///
/// The sender is at fault in every case, or the configuration that expects another one. The caller always closes the
/// connection, without an answer (§2.1, §2.2.3), and counts [`DecodeError::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// The bytes start no header of an accepted version: the client speaks something else, so it is not behind a
    /// sender of the PROXY protocol, or the sender is not configured to use it. Close and count.
    #[error("not a PROXY protocol header")]
    NotProxy,
    /// A header of the version that [`Accept`] leaves out. Close and count; the mend is in one of the configurations.
    #[error("a PROXY protocol header of a version that is not accepted here")]
    VersionRefused,
    /// A v1 line departs from the form in §2.1: protocol, spaces, addresses, ports or line end. Close and count.
    #[error("malformed line of PROXY protocol version 1")]
    LineMalformed,
    /// A v1 line without its end in 107 bytes, or a v2 payload that makes the header longer than [`LEN_MAX`]. Close
    /// and count.
    #[error("PROXY protocol header is too long")]
    TooLong,
    /// The signature of v2, but its version is not 2 (§2.2: "must only accept this value"). Close and count.
    #[error("PROXY protocol signature with an unknown version")]
    VersionUnknown,
    /// A v2 command other than `LOCAL` and `PROXY` (§2.2: "must drop"). Close and count.
    #[error("unknown command in PROXY protocol version 2")]
    CommandUnknown,
    /// A v2 address family or transport protocol that is not assigned (§2.2: "must be rejected"). Close and count.
    #[error("unknown family or protocol in PROXY protocol version 2")]
    FamilyUnknown,
    /// A v2 header for a datagram: valid, but we relay TCP. Close and count; the sender points at the wrong place.
    #[error("PROXY protocol header for a datagram, not a stream")]
    Datagram,
    /// A v2 payload shorter than the addresses of its family. Close and count.
    #[error("PROXY protocol payload is too short for its addresses")]
    AddressShort,
    /// A v2 TLV that runs past the payload, a part of a TLV at its end, or a checksum TLV that is not of 4 bytes or
    /// not the only one. Close and count.
    #[error("malformed TLV in PROXY protocol version 2")]
    TlvMalformed,
    /// The checksum TLV does not match the header (§2.2.3: "MUST treat as invalid"). Close and count.
    #[error("PROXY protocol checksum does not match")]
    ChecksumMismatch,
}

impl DecodeError {
    /// The name of the error in metrics and logs: kebab-case, and stable between releases.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotProxy => "not-proxy",
            Self::VersionRefused => "version-refused",
            Self::LineMalformed => "line-malformed",
            Self::TooLong => "too-long",
            Self::VersionUnknown => "version-unknown",
            Self::CommandUnknown => "command-unknown",
            Self::FamilyUnknown => "family-unknown",
            Self::Datagram => "datagram",
            Self::AddressShort => "address-short",
            Self::TlvMalformed => "tlv-malformed",
            Self::ChecksumMismatch => "checksum-mismatch",
        }
    }
}

#[cfg(test)]
mod tests;
