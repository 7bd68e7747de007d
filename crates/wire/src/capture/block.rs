//! Blocks of pcapng (draft-ietf-opsawg-pcapng, section 4). Numbers are little-endian; the section says so.

use std::time::Duration;

use super::packet::Packet;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Shows a reader the order of bytes.
const MAGIC: u32 = 0x1a2b_3c4d;
/// Packets begin with the header of IPv4 or of IPv6.
const LINKTYPE_RAW: u16 = 101;

const OPTION_END: u16 = 0;
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const LOST: u16 = 5;
/// Times are in units of ten to the power of minus this.
const NANOSECONDS: u8 = 9;
/// Bytes of a text at most.
const TEXT_MAX: usize = 255;

/// The beginning of a file.
pub(super) fn section(out: &mut Vec<u8>) {
    block(SECTION, out, |out| {
        out.extend_from_slice(&MAGIC.to_le_bytes());
        // Version 1.0; the length isn't known.
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        option(APPLICATION, b"midmile", out);
        option(OPTION_END, b"", out);
    });
}

pub(super) fn interface(name: &str, out: &mut Vec<u8>) {
    block(INTERFACE, out, |out| {
        out.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
        // Reserved, and packets of any length.
        out.extend_from_slice(&[0; 6]);
        option(NAME, text(name), out);
        option(RESOLUTION, &[NANOSECONDS], out);
        option(OPTION_END, b"", out);
    });
}

pub(super) fn statistics(interface: u32, at: Duration, lost: u64, out: &mut Vec<u8>) {
    block(STATISTICS, out, |out| {
        out.extend_from_slice(&interface.to_le_bytes());
        time(at, out);
        option(LOST, &lost.to_le_bytes(), out);
        option(OPTION_END, b"", out);
    });
}

/// A packet, and what is to be said of it.
pub(super) fn packet(interface: u32, at: Duration, packet: &Packet<'_>, comment: Option<&str>, out: &mut Vec<u8>) {
    let len = u32::try_from(packet.len()).expect("a segment is short");
    block(PACKET, out, |out| {
        out.extend_from_slice(&interface.to_le_bytes());
        time(at, out);
        // As much is here, and as long was it.
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        let start = out.len();
        packet.write(out);
        assert_eq!(out.len() - start, packet.len(), "the length was said before");
        pad(out.len() - start, out);
        if let Some(comment) = comment {
            option(COMMENT, text(comment), out);
            option(OPTION_END, b"", out);
        }
    });
}

/// A block around what `body` writes, whose length is in multiples of four.
fn block(kind: u32, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() - start + 4).expect("a block is short").to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&len);
    out.extend_from_slice(&len);
}

fn option(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).expect("options are short").to_le_bytes());
    out.extend_from_slice(value);
    pad(value.len(), out);
}

/// The upper half first.
fn time(at: Duration, out: &mut Vec<u8>) {
    let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    let [low, high] = [nanoseconds, nanoseconds >> 32].map(|half| half.to_le_bytes());
    out.extend_from_slice(&high[..4]);
    out.extend_from_slice(&low[..4]);
}

fn pad(len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 3][..len.next_multiple_of(4) - len]);
}

fn text(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)]
}
