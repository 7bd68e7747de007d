//! Requests and answers of the Redis protocol, version 2 (redis.io/docs/reference/protocol-spec): without I/O.

use std::io::Write as _;
use std::ops::Range;

/// Words in a request, at most.
const WORDS_MAX: usize = 4096;

/// What came is no request; the text goes into the error that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Looks for a request at the front of `bytes`, and puts where its words are into `words`. `None`: it isn't whole yet. A line without a
/// request has no words.
pub(crate) fn request(bytes: &[u8], words: &mut Vec<Range<usize>>) -> Result<Option<usize>, Malformed> {
    words.clear();
    if bytes.first() != Some(&b'*') {
        return inline(bytes, words);
    }
    let Some((count, mut at)) = number(bytes, 1)? else { return Ok(None) };
    let count = usize::try_from(count).unwrap_or(0);
    if count > WORDS_MAX {
        return Err(Malformed("Protocol error: invalid multibulk length"));
    }
    for _ in 0..count {
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(_) => return Err(Malformed("Protocol error: expected '$'")),
        }
        let Some((len, start)) = number(bytes, at + 1)? else { return Ok(None) };
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
        let Some(end) = end.filter(|end| *end < usize::MAX - 2) else {
            return Err(Malformed("Protocol error: invalid bulk length"));
        };
        match bytes.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(Malformed("Protocol error: a string doesn't end where it should")),
        }
        words.push(start..end);
        at = end + 2;
    }
    Ok(Some(at))
}

/// Words of a line, divided by blanks.
fn inline(bytes: &[u8], words: &mut Vec<Range<usize>>) -> Result<Option<usize>, Malformed> {
    /// Longest line, as with Redis.
    const LINE_MAX: usize = 64 * 1024;
    let Some(end) = bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_MAX {
            Ok(None)
        } else {
            Err(Malformed("Protocol error: too big inline request"))
        };
    };
    let mut start = None;
    for (at, byte) in bytes[..=end].iter().enumerate() {
        match (byte.is_ascii_whitespace(), start) {
            (true, Some(begun)) if words.len() < WORDS_MAX => {
                words.push(begun..at);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    Ok(Some(end + 1))
}

/// The number that ends with the line at `from`, and where the next line begins.
fn number(bytes: &[u8], from: usize) -> Result<Option<(i64, usize)>, Malformed> {
    /// A sign and the digits of 64 bits, and the line's end.
    const LEN_MAX: usize = 22;
    let line = &bytes[from..bytes.len().min(from + LEN_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < LEN_MAX { Ok(None) } else { Err(Malformed("Protocol error: a number has no end")) };
    };
    let number = integer(&line[..end]).ok_or(Malformed("Protocol error: a length is no number"))?;
    Ok(Some((number, from + end + 2)))
}

/// A whole number in decimal digits.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A string of any bytes.
pub(crate) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// No value.
pub(crate) fn nothing(out: &mut Vec<u8>) {
    out.extend_from_slice(b"$-1\r\n");
}

/// The beginning of an array.
pub(crate) fn array(out: &mut Vec<u8>, len: usize) {
    length(out, b'*', len);
}

fn length(out: &mut Vec<u8>, kind: u8, len: usize) {
    out.push(kind);
    write!(out, "{len}\r\n").expect("a vector takes what it's given");
}

pub(crate) fn int(out: &mut Vec<u8>, number: i64) {
    write!(out, ":{number}\r\n").expect("a vector takes what it's given");
}

pub(crate) fn simple(out: &mut Vec<u8>, text: &str) {
    write!(out, "+{text}\r\n").expect("a vector takes what it's given");
}

pub(crate) fn error(out: &mut Vec<u8>, text: &str) {
    write!(out, "-ERR {text}\r\n").expect("a vector takes what it's given");
}

#[cfg(test)]
mod tests {
    use super::*;

    type Request<'a> = (usize, Vec<&'a [u8]>);

    fn words(bytes: &[u8]) -> Result<Option<Request<'_>>, Malformed> {
        let mut words = Vec::new();
        let len = request(bytes, &mut words)?;
        Ok(len.map(|len| (len, words.into_iter().map(|word| &bytes[word]).collect())))
    }

    #[test]
    fn requests_are_taken_apart_whatever_the_pieces() {
        let whole = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n\r\n\0x\r\nPING x\r\n";
        let first = 30;
        for len in 0..first {
            assert_eq!(words(&whole[..len]), Ok(None), "{len}");
        }
        assert_eq!(words(whole), Ok(Some((first, vec![&b"SET"[..], b"a", b"\r\n\0x"]))));
        assert_eq!(words(&whole[first..]), Ok(Some((8, vec![&b"PING"[..], b"x"]))));
        assert_eq!(words(b"\r\n"), Ok(Some((2, vec![]))));
        assert_eq!(words(b"*-1\r\n"), Ok(Some((5, vec![]))));
    }

    #[test]
    fn what_is_no_request_is_told_from_what_is_not_whole() {
        for bad in
            ["*x\r\n", "*1\r\n:1\r\n", "*1\r\n$-1\r\n", "*1\r\n$1\r\nabc", "*99999\r\n", "*1111111111111111111111111"]
        {
            assert!(words(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(words(&[b'a'; 70_000]).is_err());
        assert_eq!(words(b"*1\r\n$9223372036854775807\r\n"), Ok(None));
    }
}
