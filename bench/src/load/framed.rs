//! Messages of the curve: a length, then bytes that say whose message it is and which one, so that an answer can be checked.

use anyhow::{Result, ensure};

/// Bytes of a message, its length of four bytes included.
pub(super) const FRAMED_BYTES: usize = 64;

/// One message.
pub(super) type Message = [u8; FRAMED_BYTES];

/// The message number `sequence` of connection `conn`.
pub(super) fn message(conn: u64, sequence: u64) -> Message {
    let mut message = [0; FRAMED_BYTES];
    let payload = u32::try_from(FRAMED_BYTES - 4).expect("64 bytes");
    message[..4].copy_from_slice(&payload.to_be_bytes());
    message[4..12].copy_from_slice(&conn.to_be_bytes());
    message[12..20].copy_from_slice(&sequence.to_be_bytes());
    // The rest follows from both: bytes of another message, or of another place, are found out.
    let mut state = conn ^ sequence.rotate_left(32);
    for chunk in message[20..].chunks_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        chunk.copy_from_slice(&mixed.to_be_bytes()[..chunk.len()]);
    }
    message
}

/// Checks an answer: it must be the question again.
pub(super) fn check(answer: &Message, conn: u64, sequence: u64) -> Result<()> {
    ensure!(*answer == message(conn, sequence), "connection {conn} got a wrong answer to its message {sequence}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_differ_by_connection_and_by_number() {
        let answer = message(7, 9);
        assert!(check(&answer, 7, 9).is_ok());
        assert!(check(&answer, 7, 10).is_err() && check(&answer, 8, 9).is_err());
        let mut wrong = answer;
        wrong[FRAMED_BYTES - 1] ^= 1;
        assert!(check(&wrong, 7, 9).is_err());
    }
}
