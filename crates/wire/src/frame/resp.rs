//! RESP, the protocol of Redis: whole values, of versions 2 and 3.
//!
//! ```text
//!   *2 CRLF              one value is to come; an aggregate of n stands for n more values in its place
//!     $3 CRLF GET CRLF   a string: its bytes aren't looked at
//!     $1 CRLF k CRLF     nothing is to come any more: here the message ends
//! ```
//!
//! How many values are still to come is all that has to be known, whatever nests in what: no depth needs a bound, and none costs memory.

use super::line::find_line_feed;
use super::{FrameError, Seen, unfinished, within};

/// Fewest bytes of a value: its type and CR LF.
const VALUE_BYTES_MIN: usize = 3;
const CRLF: &[u8] = b"\r\n";
/// The count of a RESP2 null, and the end of its line.
const NULL: &[u8] = b"-1\r\n";
const VERTICAL_TAB: u8 = 0x0b;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Clients: an array of strings, or else an inline command, a line. What a server doesn't answer (blank lines, arrays of nothing)
    /// is part of the command that follows, so that each message has an answer of its own.
    Commands,
    /// Servers: one value of any type. A push message (`>`), which answers nothing, is a message as well.
    Answers,
}

/// Messages of Redis and of what speaks like it: RESP2 and RESP3, as its specification has them.
///
/// Taken strictly, so that no server can see another end than we do: lines end with CR LF, only an inline command's also with LF alone;
/// numbers are digits without sign and without zeros in front; the only number below 0 is the -1 of RESP2's nulls; an inline command
/// has no byte 0, at which Redis would stop looking for its end. Streamed strings
/// and aggregates, whose length isn't said, are refused as [`FrameError::Streamed`]: Redis sends none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resp {
    /// Who sends what is measured.
    pub side: Side,
    /// The longest message, in bytes, all of it counted.
    pub len_max: usize,
}

/// What stands at the front of some bytes.
enum Value {
    /// A value that is whole with so many bytes, and so many values that belong to it follow.
    Whole { len: usize, follow: usize },
    /// An attribute: so many bytes, then its values, then the value that it's about.
    Attribute { len: usize, follow: usize },
    /// A command without anything in it.
    Blank { len: usize },
    /// A line whose end hasn't come.
    Line,
    /// A string or a number whose end hasn't come; how far it goes is told anew at little cost.
    Awaited,
}

impl Resp {
    /// As [`super::Framing::measure`].
    pub(super) fn measure(self, bytes: &[u8], seen: &mut Seen) -> Result<Option<usize>, FrameError> {
        let bytes = within(bytes, self.len_max);
        while let Some(&kind) = bytes.get(seen.at) {
            let room = self.len_max - seen.at;
            let value = match self.side {
                Side::Answers => answer(kind, bytes, seen, room)?,
                Side::Commands if seen.left == 0 => command(kind, bytes, seen)?,
                Side::Commands if kind == b'$' => string(&bytes[seen.at..], false, room)?,
                Side::Commands => return Err(FrameError::NotResp),
            };
            // At a message's beginning one value is to come.
            let left = seen.left.max(1);
            let (len, left) = match value {
                Value::Whole { len, follow } => (len, (left - 1).saturating_add(follow)),
                Value::Attribute { len, follow } => (len, left.saturating_add(follow)),
                Value::Blank { len } => {
                    *seen = Seen { at: seen.at + len, ..Seen::default() };
                    continue;
                }
                Value::Line => {
                    seen.searched = bytes.len();
                    break;
                }
                Value::Awaited => break,
            };
            if left == 0 {
                return Ok(Some(seen.at + len));
            }
            // What is to come is known to be too much long before it comes.
            if left > (room - len) / VALUE_BYTES_MIN {
                return Err(FrameError::TooLong);
            }
            *seen = Seen { at: seen.at + len, searched: 0, left };
        }
        unfinished(bytes, self.len_max)
    }
}

/// A value of a server's.
fn answer(kind: u8, bytes: &[u8], seen: &Seen, room: usize) -> Result<Value, FrameError> {
    let from = &bytes[seen.at..];
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => line(bytes, seen),
        b'$' | b'!' | b'=' => string(from, kind == b'$', room),
        b'*' => aggregate(from, 1, true),
        b'~' | b'>' => aggregate(from, 1, false),
        b'%' => aggregate(from, 2, false),
        b'|' => Ok(match aggregate(from, 2, false)? {
            Value::Whole { len, follow } => Value::Attribute { len, follow },
            other => other,
        }),
        b';' | b'.' => Err(FrameError::Streamed),
        _ => Err(FrameError::NotResp),
    }
}

/// A command's beginning: an array, or else a line.
fn command(kind: u8, bytes: &[u8], seen: &Seen) -> Result<Value, FrameError> {
    if kind == b'*' {
        return Ok(match aggregate(&bytes[seen.at..], 1, true)? {
            Value::Whole { len, follow: 0 } => Value::Blank { len },
            other => other,
        });
    }
    let Some(end) = find_line_feed(bytes, seen.at.max(seen.searched)) else { return Ok(Value::Line) };
    let line = &bytes[seen.at..=end];
    if line.contains(&0) {
        return Err(FrameError::NotResp);
    }
    let blank = line.iter().all(|&byte| byte.is_ascii_whitespace() || byte == VERTICAL_TAB);
    Ok(if blank { Value::Blank { len: line.len() } } else { Value::Whole { len: line.len(), follow: 0 } })
}

/// A value that is a line.
fn line(bytes: &[u8], seen: &Seen) -> Result<Value, FrameError> {
    let Some(end) = find_line_feed(bytes, seen.at.max(seen.searched)) else { return Ok(Value::Line) };
    match bytes[seen.at..end].split_last() {
        Some((b'\r', body)) if !body.contains(&b'\r') => Ok(Value::Whole { len: body.len() + CRLF.len(), follow: 0 }),
        _ => Err(FrameError::NotResp),
    }
}

/// A string that says its length, and has `room` bytes at most.
fn string(from: &[u8], nullable: bool, room: usize) -> Result<Value, FrameError> {
    let Some((count, head)) = number(from, nullable)? else { return Ok(Value::Awaited) };
    let Some(count) = count else { return Ok(Value::Whole { len: head, follow: 0 }) };
    let len = head.saturating_add(count).saturating_add(CRLF.len());
    if len > room {
        return Err(FrameError::TooLong);
    }
    let end = from.get(len - CRLF.len()..).unwrap_or_default();
    if !begins(end, CRLF) {
        return Err(FrameError::NotResp);
    }
    Ok(if len <= from.len() { Value::Whole { len, follow: 0 } } else { Value::Awaited })
}

/// An aggregate that says how many entries it has, of `each` values.
fn aggregate(from: &[u8], each: usize, nullable: bool) -> Result<Value, FrameError> {
    Ok(match number(from, nullable)? {
        Some((count, head)) => Value::Whole { len: head, follow: count.unwrap_or(0).saturating_mul(each) },
        None => Value::Awaited,
    })
}

/// The number behind a type's byte, `None` within for -1, and the bytes from the type to the end of the line.
fn number(from: &[u8], nullable: bool) -> Result<Option<(Option<usize>, usize)>, FrameError> {
    let text = &from[1..];
    match text.first() {
        Some(b'?') => return Err(FrameError::Streamed),
        Some(b'-') if nullable && begins(text, NULL) => {
            return Ok((text.len() >= NULL.len()).then_some((None, 1 + NULL.len())));
        }
        _ => {}
    }
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = &text[digits..];
    let zero_in_front = digits > 1 && text[0] == b'0';
    let none = digits == 0 && !end.is_empty();
    if zero_in_front || none {
        return Err(FrameError::NotResp);
    }
    let value = text[..digits]
        .iter()
        .try_fold(0_usize, |value, digit| value.checked_mul(10)?.checked_add(usize::from(digit - b'0')))
        .ok_or(FrameError::TooLong)?;
    if !begins(end, CRLF) {
        return Err(FrameError::NotResp);
    }
    Ok((end.len() >= CRLF.len()).then_some((Some(value), 1 + digits + CRLF.len())))
}

/// Whether bytes are `text`, as far as they have come.
fn begins(bytes: &[u8], text: &[u8]) -> bool {
    bytes.iter().zip(text).all(|(byte, of_text)| byte == of_text)
}
