//! Where a message ends, within a bound of one's own.

use midmile_wire::frame::{FrameError, Framing, Seen};

/// What a framing says of the front of `bytes`, with a message of `max` bytes at most. `seen` is ready for the next message once one is whole.
pub(crate) fn measure(
    framing: &Framing,
    max: usize,
    bytes: &[u8],
    seen: &mut Seen,
) -> Result<Option<usize>, FrameError> {
    let answer = framing.measure(bytes, seen)?;
    if answer.unwrap_or(bytes.len()) > max || (answer.is_none() && bytes.len() == max) {
        return Err(FrameError::TooLong);
    }
    if answer.is_some() {
        *seen = Seen::default();
    }
    Ok(answer)
}
