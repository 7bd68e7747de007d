//! DNS messages (RFC 1035, section 4), as much of them as somebody in the middle has to know: whose they are, what they ask, whether
//! they may be touched.
//!
//! ```text
//!  │ id │ flags │ counts: 4 × 2 │ question: name, type, class │ answer │ authority │ additional: …, OPT, …, TSIG │
//!  0    2       4              12
//! ```
//!
//! A [`Message`] is a view: it borrows the bytes, and looks when it's asked. What doesn't parse is `None`, never a panic.
//! [`Message::well_formed`] says whether a server has to be bothered with a request. A [`transfer::Transfer`] follows a zone's transfer over its many answers.

mod form;
mod name;
pub mod transfer;

pub use form::Malformed;

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;
/// The longest name, in bytes, its root label counted (RFC 1035, 3.1).
const NAME_LEN_MAX: usize = 255;
/// Bytes of an OPT record without options (RFC 6891, 6.1.2): the root's name, type, size, extended flags, length.
const OPT_LEN: usize = 11;
/// Bytes of a record behind its name: type, class, TTL, length.
const RECORD_FIXED_LEN: usize = 10;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const MASK_OPCODE: u16 = 0x7800;
const MASK_RCODE: u16 = 0x000f;
/// In an OPT record's TTL: the client wants DNSSEC's records (RFC 3225).
const OPT_FLAG_DO: u8 = 0x80;

/// A plain query (RFC 1035, 4.1.1).
pub const OPCODE_QUERY: u8 = 0;
/// A notification that a zone has changed (RFC 1996).
pub const OPCODE_NOTIFY: u8 = 4;
/// A change to a zone (RFC 2136): what it does may differ when it's sent twice.
pub const OPCODE_UPDATE: u8 = 5;
/// Stateful operations between two ends (RFC 8490): they mean the connection, so nobody in the middle may carry them.
pub const OPCODE_DSO: u8 = 6;
/// The server couldn't understand the query (RFC 1035, 4.1.1).
pub const RCODE_FORMERR: u8 = 1;
/// The server couldn't answer.
pub const RCODE_SERVFAIL: u8 = 2;
/// The server doesn't know this kind of query.
pub const RCODE_NOTIMP: u8 = 4;

/// The server wants a cookie that it has made (RFC 7873, 8), as the twelve bits of EDNS have it: over UDP only, for over TCP the address
/// is proven.
pub const RCODE_BADCOOKIE: u16 = 23;

const TYPE_SOA: u16 = 6;
const TYPE_SIG: u16 = 24;
const TYPE_OPT: u16 = 41;
const TYPE_TSIG: u16 = 250;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
/// The option by which a server says how long it lets a connection idle (RFC 7828).
pub const OPTION_TCP_KEEPALIVE: u16 = 11;

/// A message, without the length that stands in front of it on TCP.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

/// The one question of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// As it stands in the message: name, type, class.
    pub bytes: &'a [u8],
    /// The type that is asked for.
    pub kind: u16,
}

/// What the additional section says of the message itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Additional {
    /// A TSIG record (RFC 8945) or SIG(0) (RFC 2931) is the last one. Only the id may be changed: TSIG digests the one of its own that
    /// it was signed with (RFC 8945, 5.3.2), and SIG(0) nothing may be changed of.
    pub signed: bool,
    /// There's an OPT record (EDNS, RFC 6891).
    pub edns: bool,
    /// Where its two bytes stand that say how long a datagram may be that its sender takes (RFC 6891, 6.2.3).
    pub udp_size_at: Option<usize>,
    /// The upper eight bits of what became of a query (RFC 6891, 6.1.3); 0 without EDNS.
    pub rcode_high: u8,
    /// The DO flag in it.
    pub wants_dnssec: bool,
    /// It has the keepalive option, be it with a timeout or, as a query has it, without.
    pub keepalive: bool,
    /// Where the two bytes of the keepalive option's timeout stand, in units of 100 ms; only where it has one.
    pub keepalive_at: Option<usize>,
    /// Where the OPT record's options begin, and where they end, if all of them fit and it's the last record: there another can be put.
    /// The two bytes before them count theirs.
    pub options: Option<(usize, usize)>,
}

impl<'a> Message<'a> {
    /// The message in `bytes`; `None` if they're too few for a header.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEADER_LEN { None } else { Some(Self { bytes }) }
    }

    fn word(self, at: usize) -> u16 {
        word(self.bytes, at).expect("a header is there")
    }

    /// The id by which an answer finds its query.
    #[must_use]
    pub fn id(self) -> u16 {
        self.word(0)
    }

    /// Whether it's an answer.
    #[must_use]
    pub fn is_response(self) -> bool {
        self.word(2) & FLAG_RESPONSE != 0
    }

    /// Whether the answer was cut, and is to be asked for over TCP (TC).
    #[must_use]
    pub fn is_truncated(self) -> bool {
        self.word(2) & FLAG_TRUNCATED != 0
    }

    /// The kind of query.
    #[must_use]
    pub fn opcode(self) -> u8 {
        ((self.word(2) & MASK_OPCODE) >> 11).to_be_bytes()[1]
    }

    /// What became of the query, without EDNS's upper bits.
    #[must_use]
    pub fn rcode(self) -> u8 {
        (self.word(2) & MASK_RCODE).to_be_bytes()[1]
    }

    /// How many questions it says there are.
    #[must_use]
    pub fn questions(self) -> u16 {
        self.word(4)
    }

    /// How many records it says there are in its answer.
    fn answers(self) -> u16 {
        self.word(6)
    }

    /// And how many in its authority section.
    fn authorities(self) -> u16 {
        self.word(8)
    }

    /// And how many in its additional section.
    fn additionals(self) -> u16 {
        self.word(10)
    }

    /// Where its records begin; `None` where its questions can't be followed.
    fn records_at(self) -> Option<usize> {
        let mut at = HEADER_LEN;
        for _ in 0..self.questions() {
            at = end_of_name(self.bytes, at)? + 4;
        }
        Some(at)
    }

    /// The question, if there is exactly one and it's whole.
    #[must_use]
    pub fn question(self) -> Option<Question<'a>> {
        if self.questions() != 1 {
            return None;
        }
        let name_end = end_of_plain_name(self.bytes)?;
        let bytes = self.bytes.get(HEADER_LEN..name_end + 4)?;
        Some(Question { bytes, kind: self.word(name_end) })
    }

    /// What the additional section says; `None` where the records can't be followed to the end, or several are OPT (RFC 6891, 6.1.1).
    #[must_use]
    pub fn additional(self) -> Option<Additional> {
        let mut said = Additional::default();
        let records = self.additionals();
        if records == 0 {
            return Some(said);
        }
        let mut at = self.records_at()?;
        for _ in 0..u32::from(self.answers()) + u32::from(self.authorities()) {
            at = Record::at(self.bytes, at)?.end;
        }
        for left in (0..records).rev() {
            let record = Record::at(self.bytes, at)?;
            let content = &self.bytes[record.content..record.end];
            match record.kind {
                TYPE_OPT if said.edns => return None,
                TYPE_OPT => {
                    said.edns = true;
                    // Class and TTL have other meanings in this one (RFC 6891, 6.1.3).
                    said.udp_size_at = Some(record.content - 8);
                    said.rcode_high = self.bytes[record.content - 6];
                    said.wants_dnssec = self.bytes[record.content - 4] & OPT_FLAG_DO != 0;
                    let keepalive = keepalive_in(content);
                    said.keepalive = keepalive.is_some();
                    said.keepalive_at = keepalive.filter(|(_, len)| *len == 2).map(|(place, _)| record.content + place);
                    // Names in records behind it might point to what would move.
                    let may_grow = left == 0 && options(content).all(|option| option.is_some());
                    said.options = may_grow.then_some((record.content, record.end));
                }
                TYPE_TSIG => said.signed |= left == 0,
                TYPE_SIG => said.signed |= left == 0 && word(content, 0) == Some(0),
                _ => {}
            }
            at = record.end;
        }
        Some(said)
    }
}

impl Question<'_> {
    /// Whether both ask the same: names are compared without regard to case (RFC 4343), for some servers don't keep it.
    #[must_use]
    pub fn is_same(&self, other: Question<'_>) -> bool {
        if self.bytes == other.bytes {
            return true;
        }
        let split = |bytes: &[u8]| bytes.len() - 4;
        let (name, rest) = self.bytes.split_at(split(self.bytes));
        let (other_name, other_rest) = other.bytes.split_at(split(other.bytes));
        // Lengths of labels are below 64 and have no case.
        rest == other_rest && name.eq_ignore_ascii_case(other_name)
    }

    /// Whether it asks for a zone's transfer, which many messages may answer (RFC 5936, 2.2; RFC 1995).
    #[must_use]
    pub const fn is_transfer(&self) -> bool {
        matches!(self.kind, TYPE_AXFR | TYPE_IXFR)
    }
}

/// A record, by the places of its parts.
struct Record {
    kind: u16,
    class: u16,
    content: usize,
    end: usize,
}

impl Record {
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        Self::behind(bytes, end_of_name(bytes, at)?)
    }

    /// The one whose name ends there.
    fn behind(bytes: &[u8], name_end: usize) -> Option<Self> {
        let (kind, class) = (word(bytes, name_end)?, word(bytes, name_end + 2)?);
        let content = name_end + RECORD_FIXED_LEN;
        let end = content + usize::from(word(bytes, name_end + 8)?);
        (end <= bytes.len()).then_some(Self { kind, class, content, end })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where the name at `at` ends: behind its root label, or behind the pointer that the rest of it is replaced by (RFC 1035, 4.1.4).
fn end_of_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len @ 1..64 => at += 1 + usize::from(len),
            192.. => return Some(at + 2),
            64..192 => return None,
        }
    }
}

/// Where the first question's name ends, in which nothing may be replaced: nothing stands before it that it could point to.
fn end_of_plain_name(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER_LEN;
    loop {
        match *bytes.get(at)? {
            0 => break,
            len @ 1..64 => at += 1 + usize::from(len),
            64.. => return None,
        }
    }
    (at < HEADER_LEN + NAME_LEN_MAX).then_some(at + 1)
}

/// The options of an OPT record's content: the code of each, where what it says stands, and how many bytes that has. `None` is the last
/// where one doesn't fit.
fn options(content: &[u8]) -> impl Iterator<Item = Option<(u16, usize, u16)>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= content.len() {
            return None;
        }
        let option = word(content, at).zip(word(content, at + 2)).map(|(code, len)| (code, at + 4, len));
        let option = option.filter(|(_, place, len)| place + usize::from(*len) <= content.len());
        at = option.map_or(content.len(), |(_, place, len)| place + usize::from(len));
        Some(option)
    })
}

/// Where the keepalive option's timeout stands in an OPT record's content, and how many bytes it has.
fn keepalive_in(content: &[u8]) -> Option<(usize, u16)> {
    let keepalive = options(content).flatten().find(|(code, ..)| *code == OPTION_TCP_KEEPALIVE);
    keepalive.map(|(_, place, len)| (place, len))
}

/// An answer that we make ourselves: the query's id, opcode and question, and why there's no other.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    bytes: [u8; Self::LEN_MAX],
    len: usize,
}

impl Refusal {
    /// Most bytes of one, the length in front counted.
    pub const LEN_MAX: usize = 2 + HEADER_LEN + NAME_LEN_MAX + 4 + OPT_LEN;

    /// The answer to `query` that says `rcode`. With EDNS where the query has it (RFC 6891, 7).
    #[must_use]
    pub fn of(query: Message<'_>, rcode: u8) -> Self {
        let mut refusal = Self { bytes: [0; Self::LEN_MAX], len: 2 };
        let flags =
            FLAG_RESPONSE | query.word(2) & (MASK_OPCODE | FLAG_RECURSION_DESIRED) | u16::from(rcode) & MASK_RCODE;
        let question = query.question();
        let said = query.additional().unwrap_or_default();
        for word in [query.id(), flags, u16::from(question.is_some()), 0, 0, u16::from(said.edns)] {
            refusal.push(&word.to_be_bytes());
        }
        refusal.push(question.map_or(&[], |question| question.bytes));
        if said.edns {
            let flags = if said.wants_dnssec { OPT_FLAG_DO } else { 0 };
            // We take 1,232 bytes by UDP, as everybody does, and say nothing more.
            refusal.push(&[0, 0, 41, 0x04, 0xd0, 0, 0, flags, 0, 0, 0]);
        }
        let len = u16::try_from(refusal.len - 2).expect("far below 65,536");
        refusal.bytes[..2].copy_from_slice(&len.to_be_bytes());
        refusal
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Its bytes, with their length in front, as TCP carries them.
    #[must_use]
    pub fn framed(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Its bytes, as UDP carries them.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.bytes[2..self.len]
    }
}

#[cfg(test)]
mod tests;
