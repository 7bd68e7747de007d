//! Version 2 (§2.2): binary, 16 fixed bytes and a payload of addresses and TLVs.

use std::iter::FusedIterator;
use std::net::{IpAddr, SocketAddr};

use super::crc32c::crc32c;
use super::{DecodeError, Decoded, Encoded, Header, UnixPath, Version};

/// The first bytes; chosen so that HTTP, TLS, SMTP and others fail on it (§5).
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Length in bytes of signature, version and command, family and protocol, and payload length.
pub(crate) const FIXED_LEN: usize = 16;

/// Longest payload in bytes that is accepted.
const PAYLOAD_LEN_MAX: usize = 2048;

pub(super) const LEN_MAX: usize = FIXED_LEN + PAYLOAD_LEN_MAX;

/// Type and length of a TLV, in bytes.
pub(crate) const TLV_HEAD_LEN: usize = 3;

/// `PP2_TYPE_CRC32C`.
const TLV_CRC32C: u8 = 0x03;

/// Length in bytes of the value of [`TLV_CRC32C`].
const CRC32C_LEN: usize = 4;

/// Decodes a header whose first bytes agree with [`SIGNATURE`].
pub(super) fn decode(bytes: &[u8]) -> Result<Option<Decoded>, DecodeError> {
    let Some(fixed) = Fixed::decode(bytes)? else {
        return Ok(None);
    };
    let checksum_at = match checksum_at(bytes, fixed.tlvs())? {
        Tail::More => return Ok(None),
        Tail::Complete { checksum_at } => checksum_at,
    };
    let Some(header) = bytes.get(..fixed.len()) else {
        return Ok(None);
    };
    if let Some(at) = checksum_at {
        verify(header, at)?;
    }
    let header = fixed.header(header).ok_or(DecodeError::AddressShort)?;
    Ok(Some(Decoded { header, version: Version::V2, len: fixed.len() }))
}

/// Encodes a header whose addresses are of one family.
pub(super) fn encode(header: &Header) -> Encoded {
    let mut encoded = Encoded::EMPTY;
    encoded.push(&SIGNATURE);
    match *header {
        Header::Local => encoded.push(&[0x20, 0x00, 0, 0]),
        Header::Inet { source, destination } => {
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    encoded.push(&[0x21, 0x11, 0, Block::Inet.len()]);
                    encoded.push(&from.octets());
                    encoded.push(&to.octets());
                }
                (from, to) => {
                    encoded.push(&[0x21, 0x21, 0, Block::Inet6.len()]);
                    encoded.push(&super::mapped(from).octets());
                    encoded.push(&super::mapped(to).octets());
                }
            }
            encoded.push(&source.port().to_be_bytes());
            encoded.push(&destination.port().to_be_bytes());
        }
        Header::Unix { source, destination } => {
            encoded.push(&[0x21, 0x31, 0, Block::Unix.len()]);
            encoded.push(source.as_field());
            encoded.push(destination.as_field());
        }
    }
    encoded
}

/// What the address block in front of the TLVs holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    /// The whole payload is skipped unread. `LOCAL` has the receiver "discard the protocol block including the family";
    /// `UNSPEC` has it ignore addresses whose layout is not defined, so where TLVs start is not either.
    ///
    /// DEVIATION: a checksum in there is not verified (§2.2.3), as nothing that it protects is used.
    Skipped,
    Inet,
    Inet6,
    Unix,
}

impl Block {
    /// The block that the family (high nibble of byte 14) and protocol of a relayed connection announce.
    const fn of(family_protocol: u8) -> Result<Self, DecodeError> {
        match (family_protocol >> 4, family_protocol & 0xf) {
            (4.., _) | (_, 3..) => Err(DecodeError::FamilyUnknown),
            (_, 2) => Err(DecodeError::Datagram),
            (0, _) | (_, 0) => Ok(Self::Skipped),
            (1, 1) => Ok(Self::Inet),
            (2, 1) => Ok(Self::Inet6),
            (3, 1) => Ok(Self::Unix),
        }
    }

    /// Length in bytes.
    const fn len(self) -> u8 {
        match self {
            Self::Skipped => 0,
            Self::Inet => 2 * (4 + 2),
            Self::Inet6 => 2 * (16 + 2),
            Self::Unix => 2 * 108,
        }
    }

    /// The addresses at the start of the payload, in network byte order: source, destination, and their ports. `None`
    /// if it is shorter than [`Self::len`].
    fn decode(self, payload: &[u8]) -> Option<Header> {
        let mut rest = payload;
        match self {
            Self::Skipped => Some(Header::Local),
            Self::Inet => {
                let (source, destination): ([u8; 4], _) = (take(&mut rest)?, take::<4>(&mut rest)?);
                inet(source.into(), destination.into(), rest)
            }
            Self::Inet6 => {
                let (source, destination): ([u8; 16], _) = (take(&mut rest)?, take::<16>(&mut rest)?);
                inet(source.into(), destination.into(), rest)
            }
            Self::Unix => Some(Header::Unix {
                source: UnixPath::from_field(take(&mut rest)?),
                destination: UnixPath::from_field(take(&mut rest)?),
            }),
        }
    }
}

fn inet(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<Header> {
    let mut rest = ports;
    let source = SocketAddr::new(source, u16::from_be_bytes(take(&mut rest)?));
    let destination = SocketAddr::new(destination, u16::from_be_bytes(take(&mut rest)?));
    Some(Header::inet(source, destination))
}

/// The next `N` bytes, taken from the front; `None` if there are fewer.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// The fixed bytes behind the signature, checked.
pub(crate) struct Fixed {
    block: Block,
    /// Invariant: `block.len() <= payload_len <= PAYLOAD_LEN_MAX`.
    payload_len: usize,
}

impl Fixed {
    /// Checks each byte as it comes; the signature has been.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut fields = bytes.iter().copied().skip(SIGNATURE.len());
        let Some(version_command) = fields.next() else {
            return Ok(None);
        };
        if version_command >> 4 != 2 {
            return Err(DecodeError::VersionUnknown);
        }
        let local = match version_command & 0xf {
            0 => true,
            1 => false,
            _ => return Err(DecodeError::CommandUnknown),
        };
        let Some(family_protocol) = fields.next() else {
            return Ok(None);
        };
        let block = if local { Block::Skipped } else { Block::of(family_protocol)? };
        let (Some(high), Some(low)) = (fields.next(), fields.next()) else {
            return Ok(None);
        };
        let payload_len = usize::from(u16::from_be_bytes([high, low]));
        if payload_len > PAYLOAD_LEN_MAX {
            return Err(DecodeError::TooLong);
        }
        if payload_len < usize::from(block.len()) {
            return Err(DecodeError::AddressShort);
        }
        Ok(Some(Self { block, payload_len }))
    }

    /// Length of the header in bytes.
    pub(crate) const fn len(&self) -> usize {
        FIXED_LEN + self.payload_len
    }

    /// What the address block of a complete header states. `None` if the header isn't complete.
    pub(crate) fn header(&self, header: &[u8]) -> Option<Header> {
        self.block.decode(header.get(FIXED_LEN..)?)
    }

    fn tlvs(&self) -> Walk {
        match self.block {
            Block::Skipped => Walk { at: self.len(), end: self.len() },
            Block::Inet | Block::Inet6 | Block::Unix => self.behind_addresses(),
        }
    }

    /// The TLVs where a skipped payload has some too: the hello of the trunk says that they start at once.
    pub(crate) fn behind_addresses(&self) -> Walk {
        Walk { at: FIXED_LEN + usize::from(self.block.len()), end: self.len() }
    }
}

/// A walk over the TLVs of a header, by offsets into it.
#[derive(Clone)]
pub(crate) struct Walk {
    /// Where the next TLV starts. Invariant: `at <= end`.
    at: usize,
    /// Where the header ends.
    end: usize,
}

/// One step of a [`Walk`].
pub(crate) enum Step<'a> {
    Tlv {
        value_at: usize,
        tlv: Tlv<'a>,
    },
    /// The TLV fits, but not all of its bytes have arrived.
    More,
    End,
}

impl Walk {
    /// Whether no TLV is left.
    pub(crate) const fn is_done(&self) -> bool {
        self.at == self.end
    }

    /// `bytes` starts with the header. It may lack the header's end, and may have other bytes behind it.
    pub(crate) fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, DecodeError> {
        match self.end - self.at {
            0 => return Ok(Step::End),
            1..TLV_HEAD_LEN => return Err(DecodeError::TlvMalformed),
            TLV_HEAD_LEN.. => {}
        }
        let value_at = self.at + TLV_HEAD_LEN;
        let Some(&[kind, high, low]) = bytes.get(self.at..value_at) else {
            return Ok(Step::More);
        };
        let value_len = usize::from(u16::from_be_bytes([high, low]));
        let value_end = value_at + value_len;
        if value_end > self.end || (kind == TLV_CRC32C && value_len != CRC32C_LEN) {
            return Err(DecodeError::TlvMalformed);
        }
        let Some(value) = bytes.get(value_at..value_end) else {
            return Ok(Step::More);
        };
        self.at = value_end;
        Ok(Step::Tlv { value_at, tlv: Tlv { kind, value } })
    }
}

/// What a walk over the TLVs that have arrived came to.
enum Tail {
    More,
    Complete { checksum_at: Option<usize> },
}

/// Checks all TLVs, and finds the value of the checksum.
fn checksum_at(bytes: &[u8], mut walk: Walk) -> Result<Tail, DecodeError> {
    let mut checksum_at = None;
    loop {
        match walk.step(bytes)? {
            Step::More => return Ok(Tail::More),
            Step::End => return Ok(Tail::Complete { checksum_at }),
            Step::Tlv { value_at, tlv } if tlv.kind == TLV_CRC32C => {
                if checksum_at.replace(value_at).is_some() {
                    return Err(DecodeError::TlvMalformed);
                }
            }
            Step::Tlv { .. } => {}
        }
    }
}

/// Verifies the checksum whose value is at `at` (§2.2.3): CRC32c of the whole header, with zeros for the value itself,
/// most significant byte first.
fn verify(header: &[u8], at: usize) -> Result<(), DecodeError> {
    let (before, rest) = header.split_at_checked(at).ok_or(DecodeError::TlvMalformed)?;
    let (stated, after) = rest.split_first_chunk::<CRC32C_LEN>().ok_or(DecodeError::TlvMalformed)?;
    if crc32c(before.iter().chain(&[0; CRC32C_LEN]).chain(after)) == u32::from_be_bytes(*stated) {
        Ok(())
    } else {
        Err(DecodeError::ChecksumMismatch)
    }
}

/// One type-length-value of a v2 header (§2.2, `struct pp2_tlv`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tlv<'a> {
    /// The type: one of `PP2_TYPE_*` in §2.2, or in 0xE0..=0xEF an application's own (§2.2.8).
    pub kind: u8,
    /// The value, unread.
    pub value: &'a [u8],
}

/// The TLVs of a header, in order; see [`tlvs`](super::tlvs). An error is the last item.
#[derive(Clone)]
pub struct Tlvs<'a> {
    header: &'a [u8],
    walk: Walk,
    error: Option<DecodeError>,
}

impl<'a> Tlvs<'a> {
    pub(super) const EMPTY: Self = Self { header: &[], walk: Walk { at: 0, end: 0 }, error: None };

    pub(super) const fn failed(error: DecodeError) -> Self {
        Self { error: Some(error), ..Self::EMPTY }
    }

    /// The TLVs of a header that starts with [`SIGNATURE`], or a part of it.
    pub(super) fn of(header: &'a [u8]) -> Self {
        match Fixed::decode(header) {
            Ok(Some(fixed)) => Self { header, walk: fixed.tlvs(), error: None },
            Ok(None) => Self::failed(DecodeError::TlvMalformed),
            Err(error) => Self::failed(error),
        }
    }

    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.walk.at = self.walk.end;
        error
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<Tlv<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        match self.walk.step(self.header) {
            Ok(Step::Tlv { tlv, .. }) => Some(Ok(tlv)),
            Ok(Step::End) => None,
            Ok(Step::More) => Some(Err(self.fail(DecodeError::TlvMalformed))),
            Err(error) => Some(Err(self.fail(error))),
        }
    }
}

impl FusedIterator for Tlvs<'_> {}
