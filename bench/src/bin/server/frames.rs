//! The protocol: a message is its length in four bytes, the highest first, and then so many bytes.

/// Bytes of the length.
pub(crate) const HEADER_BYTES: usize = 4;
/// The longest message, its length included.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;
/// What a connection that reads in place begins with: room for many short messages. It grows to [`MESSAGE_BYTES_MAX`].
pub(crate) const BUFFER_BYTES: usize = 1024;

/// A length beyond [`MESSAGE_BYTES_MAX`]: the connection can't be understood any further and is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// How many bytes the message at the front has, its length included; `None` while the length isn't there.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, TooLong> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let payload = usize::try_from(u32::from_be_bytes(*header)).map_err(|_| TooLong)?;
    if payload <= MESSAGE_BYTES_MAX - HEADER_BYTES { Ok(Some(HEADER_BYTES + payload)) } else { Err(TooLong) }
}

/// How many bytes at the front are whole messages. Each is answered by itself in a frame: here the answers stand where the
/// questions stood, one after another, so that a server may send them together.
pub(crate) fn whole(bytes: &[u8]) -> Result<usize, TooLong> {
    let mut end = 0;
    while let Some(length) = length(&bytes[end..])?
        && end + length <= bytes.len()
    {
        end += length;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_messages_count() {
        let bytes = [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(whole(&bytes), Ok(10));
        assert_eq!(whole(&bytes[..9]), Ok(6));
        assert_eq!(whole(&bytes[..5]), Ok(0));
        assert_eq!(whole(&[]), Ok(0));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        let payload = u32::try_from(MESSAGE_BYTES_MAX - HEADER_BYTES).unwrap();
        assert_eq!(length(&payload.to_be_bytes()), Ok(Some(MESSAGE_BYTES_MAX)));
        assert_eq!(length(&(payload + 1).to_be_bytes()), Err(TooLong));
        assert_eq!(whole(&[255; 8]), Err(TooLong));
    }
}
