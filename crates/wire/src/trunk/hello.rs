//! The hello: the first message on a connection out of the pool says who the client is and where to go.
//!
//! It is a PROXY protocol header of version 2, so that any tool that knows those can show the client, with TLVs of our
//! own behind the addresses and a MAC at the end:
//!
//! ```text
//!   signature 12 │ command 1 │ family 1 │ length 2 │ addresses │ 0xE0 … 0xE3 │ 0xEF MAC
//! ```
//!
//! DEVIATION: TLVs follow at once where the header states no address; the PROXY protocol has receivers skip those.
//!
//! The TLVs stand in ascending order of their types, so none comes twice and there is one order alone. Of the types that this version doesn't know, 0xE4 to 0xE7 are critical and refused, 0xE8 to 0xEE are skipped;
//! all others are refused.

mod destination;
mod path;

use std::fmt;

pub use destination::{Destination, DestinationError, Host};
pub use path::{Path, PathFull};

use super::{Session, mac};
use crate::proxy::v2::{self, Fixed, Step, TLV_HEAD_LEN, Tlv};
use crate::proxy::{self, DecodeError, Header, Version, agrees};

/// Length in bytes of the longest hello that [`decode`] accepts. It leaves room for TLVs that this version skips.
pub const LEN_MAX: usize = 1024;

/// The types of the TLVs, in the order in which they stand.
mod kind {
    pub(super) const DESTINATION: u8 = 0xE0;
    pub(super) const PATH: u8 = 0xE1;
    pub(super) const DEADLINE: u8 = 0xE2;
    pub(super) const TRACE: u8 = 0xE3;
    pub(super) const MAC: u8 = 0xEF;
}

/// Length in bytes of the longest hello that [`encode`] writes.
const WRITTEN_LEN_MAX: usize = {
    let client = v2::FIXED_LEN + 2 * (16 + 2);
    let values = Destination::VALUE_LEN_MAX + Path::VALUE_LEN_MAX + size_of::<u32>() + TraceId::LEN + mac::LEN;
    client + 5 * TLV_HEAD_LEN + values
};

const _: () = assert!(WRITTEN_LEN_MAX <= LEN_MAX);

/// What a gateway tells the next one about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The client, and where it connected to: what a PROXY header to the server says. [`Header::Local`] if the client
    /// has no IP address; [`encode`] makes that of [`Header::Unix`].
    pub client: Header,
    /// What the last gateway dials.
    pub destination: Destination,
    /// The gateways behind the one that is told.
    pub path: Path,
    /// How long the rest of the way may take, in milliseconds from when the hello comes: clocks aren't compared.
    pub deadline_ms: u32,
    /// The connection's name in the logs of all gateways on its path.
    pub trace: TraceId,
}

/// The name of a connection in the logs of all gateways that it goes through: 16 bytes, random, made by the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; Self::LEN]);

impl TraceId {
    /// Length in bytes.
    pub const LEN: usize = 16;
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

/// Encodes the hello to send before any other byte of a connection, once for each session.
pub fn encode(hello: &Hello, session: &Session) -> Encoded {
    let client = match hello.client {
        Header::Unix { .. } => Header::Local,
        Header::Local | Header::Inet { .. } => hello.client,
    };
    let mut encoded = Encoded::EMPTY;
    encoded.push(proxy::encode(Version::V2, &client).as_bytes());
    encoded.tlv(kind::DESTINATION, |encoded| hello.destination.write(|bytes| encoded.push(bytes)));
    if !hello.path.names().is_empty() {
        encoded.tlv(kind::PATH, |encoded| hello.path.write(|bytes| encoded.push(bytes)));
    }
    encoded.tlv(kind::DEADLINE, |encoded| encoded.push(&hello.deadline_ms.to_be_bytes()));
    encoded.tlv(kind::TRACE, |encoded| encoded.push(&hello.trace.0));
    encoded.seal(session);
    encoded
}

/// Decodes the hello at the start of what a peer sends; `bytes` is all that has come so far.
///
/// Answers how many bytes it took, and the hello. `Ok(None)` means that more bytes are needed. Nothing that the TLVs
/// hold is looked at before the MAC is found right.
///
/// # Errors
/// [`HelloError`] says what is wrong. Close the connection and count [`HelloError::name`].
pub fn decode(bytes: &[u8], session: &Session) -> Result<Option<(usize, Hello)>, HelloError> {
    let Some(fixed) = fixed(bytes)? else { return Ok(None) };
    if !is_whole(bytes, &fixed)? {
        return Ok(None);
    }
    let Some(header) = bytes.get(..fixed.len()) else { return Ok(None) };
    let (signed, stated) = header.split_last_chunk().ok_or(HelloError::MacMissing)?;
    if session.expect(signed) != mac::Mac::stated(*stated) {
        return Err(HelloError::MacWrong);
    }
    Ok(Some((header.len(), read(header, &fixed)?)))
}

/// The fixed bytes of the header, each checked as it comes. `None` if they haven't come whole.
fn fixed(bytes: &[u8]) -> Result<Option<Fixed>, HelloError> {
    if !agrees(bytes, &v2::SIGNATURE) {
        return Err(HelloError::NotHello);
    }
    let client = bytes.get(v2::SIGNATURE.len()..).unwrap_or_default();
    if !CLIENTS.iter().any(|allowed| agrees(client, allowed)) {
        return Err(HelloError::ClientInvalid);
    }
    let fixed = Fixed::decode(bytes).map_err(|error| match error {
        DecodeError::TooLong => HelloError::TooLong,
        DecodeError::AddressShort => HelloError::TlvMalformed,
        _ => HelloError::ClientInvalid,
    })?;
    match fixed {
        Some(fixed) if fixed.len() > LEN_MAX => Err(HelloError::TooLong),
        fixed => Ok(fixed),
    }
}

/// Command and family of the clients that there can be: without an address, TCP over IPv4, TCP over IPv6.
const CLIENTS: [[u8; 2]; 3] = [[0x20, 0x00], [0x21, 0x11], [0x21, 0x21]];

/// Whether all TLVs have come: that they fill the header, are in order and known, and that the last is the MAC.
fn is_whole(bytes: &[u8], fixed: &Fixed) -> Result<bool, HelloError> {
    let mut walk = fixed.behind_addresses();
    let mut before = 0;
    loop {
        let tlv = match walk.step(bytes) {
            Ok(Step::Tlv { tlv, .. }) => tlv,
            Ok(Step::More) => return Ok(false),
            Ok(Step::End) => return Err(HelloError::MacMissing),
            Err(_) => return Err(HelloError::TlvMalformed),
        };
        if tlv.kind <= before {
            return Err(HelloError::TlvOrder);
        }
        before = tlv.kind;
        match tlv.kind {
            kind::DESTINATION..=kind::TRACE | 0xE8..=0xEE => {}
            kind::MAC if tlv.value.len() != mac::LEN => return Err(HelloError::TlvMalformed),
            kind::MAC if walk.is_done() => return Ok(true),
            kind::MAC => return Err(HelloError::TlvOrder),
            _ => return Err(HelloError::TlvUnknown),
        }
    }
}

/// The hello in a header whose MAC is right.
fn read(header: &[u8], fixed: &Fixed) -> Result<Hello, HelloError> {
    let client = fixed.header(header).ok_or(HelloError::TlvMalformed)?;
    let (mut destination, mut path, mut deadline_ms, mut trace) = (None, Path::EMPTY, None, None);
    let mut walk = fixed.behind_addresses();
    while let Ok(Step::Tlv { tlv: Tlv { kind, value }, .. }) = walk.step(header) {
        match kind {
            kind::DESTINATION => destination = Some(Destination::read(value).ok_or(HelloError::DestinationInvalid)?),
            kind::PATH => path = Path::read(value).ok_or(HelloError::PathInvalid)?,
            kind::DEADLINE => {
                deadline_ms = Some(u32::from_be_bytes(value.try_into().map_err(|_| HelloError::TlvMalformed)?));
            }
            kind::TRACE => trace = Some(TraceId(value.try_into().map_err(|_| HelloError::TlvMalformed)?)),
            // The MAC, and what is skipped.
            _ => {}
        }
    }
    Ok(Hello {
        client,
        destination: destination.ok_or(HelloError::TlvMissing)?,
        path,
        deadline_ms: deadline_ms.ok_or(HelloError::TlvMissing)?,
        trace: trace.ok_or(HelloError::TlvMissing)?,
    })
}

/// An encoded hello, to be sent in one write.
pub type Encoded = crate::encoded::Encoded<LEN_MAX>;

impl Encoded {
    /// Adds a TLV with the value that `write` pushes.
    fn tlv(&mut self, kind: u8, write: impl FnOnce(&mut Self)) {
        let at = self.len();
        self.push(&[kind, 0, 0]);
        write(self);
        self.put_len(at + 1, self.len() - at - TLV_HEAD_LEN);
    }

    /// Completes the hello: its length, and the MAC over all bytes before the MAC.
    fn seal(&mut self, session: &Session) {
        self.push(&[kind::MAC, 0, 0]);
        self.put_len(self.len() - 2, mac::LEN);
        self.put_len(v2::FIXED_LEN - 2, self.len() + mac::LEN - v2::FIXED_LEN);
        let mac = session.sign(self.as_bytes());
        self.push(mac.as_bytes());
    }

    /// Writes a length over two bytes that have been pushed.
    fn put_len(&mut self, at: usize, len: usize) {
        let len = u16::try_from(len).expect("LEN_MAX is below 64 KiB");
        self.put(at, &len.to_be_bytes());
    }
}

/// A hello of the fuzzer's: its bytes up to the MAC, with the right length and MAC. `None` if it's too long.
///
/// For fuzz targets: they can't guess a MAC, so nothing behind it would be tried.
#[cfg(any(test, fuzzing))]
#[must_use]
pub fn fuzz_sealed(unsealed: &[u8], session: &Session) -> Option<Encoded> {
    if !(v2::FIXED_LEN..=LEN_MAX - TLV_HEAD_LEN - mac::LEN).contains(&unsealed.len()) {
        return None;
    }
    let mut encoded = Encoded::EMPTY;
    encoded.push(unsealed);
    encoded.seal(session);
    Some(encoded)
}

/// Why what a peer sent is no hello. The caller closes the connection without an answer and counts
/// [`HelloError::name`]; whoever sees one often compares the versions and keys of both gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HelloError {
    /// The bytes aren't a PROXY protocol header of version 2.
    #[error("not a hello")]
    NotHello,
    /// A command, family or protocol that no hello has.
    #[error("the hello states its client in a way that none does")]
    ClientInvalid,
    /// Longer than [`LEN_MAX`].
    #[error("the hello is longer than {LEN_MAX} bytes")]
    TooLong,
    /// A TLV that runs past the end or has not the length of its type, or too little room for the addresses.
    #[error("malformed TLV in the hello")]
    TlvMalformed,
    /// TLVs that are out of order or come twice, or something behind the MAC.
    #[error("TLVs of the hello are out of order")]
    TlvOrder,
    /// A type that isn't ours, or a critical one that this version doesn't know: the peer is newer.
    #[error("the hello has a TLV that this version doesn't know")]
    TlvUnknown,
    /// A TLV that every hello has isn't there.
    #[error("the hello lacks a TLV")]
    TlvMissing,
    /// The hello ends without a MAC.
    #[error("the hello lacks its MAC, the message authentication code")]
    MacMissing,
    /// The MAC isn't what it has to be: changed, or of another connection or direction.
    #[error("wrong MAC in the hello: it was changed, or isn't of this connection")]
    MacWrong,
    /// A destination that is no place to dial.
    #[error("invalid destination in the hello")]
    DestinationInvalid,
    /// A path with an invalid name, with too many names, or with none.
    #[error("invalid path in the hello")]
    PathInvalid,
}

impl HelloError {
    /// All of them, in the order of their counters.
    pub const ALL: &'static [Self] = &[
        Self::NotHello,
        Self::ClientInvalid,
        Self::TooLong,
        Self::TlvMalformed,
        Self::TlvOrder,
        Self::TlvUnknown,
        Self::TlvMissing,
        Self::MacMissing,
        Self::MacWrong,
        Self::DestinationInvalid,
        Self::PathInvalid,
    ];

    /// The name in metrics and logs: kebab-case, and stable between releases.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotHello => "not-hello",
            Self::ClientInvalid => "client-invalid",
            Self::TooLong => "too-long",
            Self::TlvMalformed => "tlv-malformed",
            Self::TlvOrder => "tlv-order",
            Self::TlvUnknown => "tlv-unknown",
            Self::TlvMissing => "tlv-missing",
            Self::MacMissing => "mac-missing",
            Self::MacWrong => "mac-wrong",
            Self::DestinationInvalid => "destination-invalid",
            Self::PathInvalid => "path-invalid",
        }
    }
}

#[cfg(test)]
mod tests;
