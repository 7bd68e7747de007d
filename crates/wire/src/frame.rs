//! Where one message of a stream ends.
//!
//! ```text
//!   bytes so far ──► Framing::measure ──► none yet │ the message has so many bytes │ no message begins like this
//!                        ▲     │
//!                        └ Seen┘  what is known of the message that comes, so that nothing is looked at twice
//! ```
//!
//! | framing | how a message ends | whose |
//! | --- | --- | --- |
//! | [`Framing::Dns`] | after as many bytes as two in front say | DNS over TCP |
//! | [`LengthPrefix`] | after as many bytes as a number at a fixed place says | Kafka, memcached, PostgreSQL, Thrift, HTTP/2 |
//! | [`VarintPrefix`] | the same, of a number whose own length varies | MQTT |
//! | [`Line`] | after a line feed | text, one line a message |
//! | [`Resp`] | where its last value ends | Redis and its kin |
//! | [`Program`] | where a BPF program says | any, by the contract of the kernel's KCM |
//!
//! What no framer does: judge what a message says. A DNS message of no bytes at all is a frame.

use std::sync::Arc;

mod length;
mod line;
mod program;
mod resp;
mod varint;

pub use length::{LengthPrefix, Order, Width};
pub use line::Line;
pub use program::{Flaw, Program, ProgramError};
pub use resp::{Resp, Side};
pub use varint::VarintPrefix;

/// How the messages of a stream are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// DNS over TCP: two bytes of length (RFC 1035, 4.2.2).
    Dns,
    /// A length of a fixed number of bytes.
    Length(LengthPrefix),
    /// A length whose own bytes say whether one more follows.
    Varint(VarintPrefix),
    /// Lines.
    Line(Line),
    /// Redis's protocol.
    Resp(Resp),
    /// A BPF program, shared by all streams that it frames.
    Program(Arc<Program>),
}

impl Framing {
    /// The bytes of the message at the front of `bytes`, all of it counted, once it is whole; never 0.
    ///
    /// `seen` is what earlier calls on a shorter beginning of the same message have learnt: give [`Seen::default`] for the first,
    /// and again once a message has been told. A message that comes byte by byte then costs no more to measure, all calls
    /// together, than a few looks at each of its bytes. A [`Program`] is the exception: it is run from its beginning by each call
    /// until it has told the length.
    ///
    /// The answer is the same however the message is cut; bytes behind it don't change it. For a program that holds as far as the
    /// program keeps to its contract.
    ///
    /// # Errors
    /// When no byte that could follow makes this a message. The stream is at no message's beginning any more: close it.
    pub fn measure(&self, bytes: &[u8], seen: &mut Seen) -> Result<Option<usize>, FrameError> {
        match self {
            Self::Dns => LengthPrefix::DNS.measure(bytes),
            Self::Length(prefix) => prefix.measure(bytes),
            Self::Varint(prefix) => prefix.measure(bytes),
            Self::Line(line) => line.measure(bytes, seen),
            Self::Resp(resp) => resp.measure(bytes, seen),
            Self::Program(program) => program.measure(bytes, seen),
        }
    }

    /// The longest message, in bytes, all of it counted.
    #[must_use]
    pub fn len_max(&self) -> usize {
        match self {
            Self::Dns => LengthPrefix::DNS.len_max,
            Self::Length(prefix) => prefix.len_max,
            Self::Varint(prefix) => prefix.len_max,
            Self::Line(line) => line.len_max,
            Self::Resp(resp) => resp.len_max,
            Self::Program(program) => program.len_max(),
        }
    }

    /// The framing of what is answered to messages of this one. Redis's commands and answers differ; all others are framed alike in
    /// both directions.
    #[must_use]
    pub fn of_answers(&self) -> Self {
        match self {
            Self::Resp(resp) => Self::Resp(Resp { side: Side::Answers, ..*resp }),
            same => same.clone(),
        }
    }
}

/// What is known of a message that isn't whole yet. It means something to the framing that filled it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that needn't be looked at again: a line's without its end, or RESP's values that are whole. A program's answer, once
    /// it is more than 0.
    at: usize,
    /// Bytes in which the end of RESP's line that begins at `at` isn't; 0 if it hasn't been looked for.
    searched: usize,
    /// RESP's values that are still to come behind those that are whole; 0 at the beginning, where one is.
    left: usize,
}

crate::named! {
    /// Why a message can't be one. The stream has no beginning of a message any more: close it.
    #[derive(thiserror::Error)]
    FrameError {
        /// It is longer than the protocol's users agreed on: `len_max`.
        #[error("a message is longer than allowed")]
        TooLong => "too-long",
        /// Its length is so small that it ends before the length itself does.
        #[error("a message ends before its own length field")]
        TooShort => "too-short",
        /// Its length of variable size doesn't end with its fourth byte.
        #[error("a length has more than four bytes")]
        LongVarint => "long-varint",
        /// It isn't RESP: an unknown type, a number that isn't one, or a line or string that doesn't end with CR LF. Where clients send
        /// it, they may speak another protocol.
        #[error("a message isn't RESP")]
        NotResp => "not-resp",
        /// A RESP value without a length in front (`$?`, `*?`), which no Redis sends: have the other side send it with its length.
        #[error("a RESP value is streamed, without a length")]
        Streamed => "streamed",
        /// The program says so, by a negative number.
        #[error("the framing program says that a message is broken")]
        Refused => "refused",
        /// The program read or wrote where it may not. It is the program that has to be mended: `data` may be read up to `data_end`,
        /// the 512 bytes below `r10` may be written.
        #[error("the framing program left its memory")]
        Fault => "fault",
    }
}

/// What of `bytes` a message of at most `len_max` may be in. A framer that looks at that alone answers the same however much has come.
fn within(bytes: &[u8], len_max: usize) -> &[u8] {
    &bytes[..bytes.len().min(len_max)]
}

/// The answer of a framer that found no end `within` bytes.
fn unfinished(within: &[u8], len_max: usize) -> Result<Option<usize>, FrameError> {
    if within.len() < len_max { Ok(None) } else { Err(FrameError::TooLong) }
}

#[cfg(test)]
mod tests;
