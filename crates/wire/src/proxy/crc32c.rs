//! CRC32c (RFC 4960, Appendix B), bit by bit.
//!
//! Own code rather than a crate: it is one loop, needs neither table nor `unsafe`, and runs once a connection over at
//! most [`LEN_MAX`](super::LEN_MAX) bytes, and then only for senders that add the checksum.

/// The Castagnoli polynomial 0x1EDC6F41, its bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The checksum of the bytes, in order.
pub(super) fn crc32c<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
    !bytes.into_iter().fold(u32::MAX, |crc, &byte| shift_byte(crc ^ u32::from(byte)))
}

fn shift_byte(crc: u32) -> u32 {
    (0..8).fold(crc, |crc, _| {
        let carry = (crc & 1).wrapping_neg();
        (crc >> 1) ^ (POLYNOMIAL & carry)
    })
}
