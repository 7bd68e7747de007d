//! Which answer of a zone's transfer is its last (AXFR, RFC 5936, 2.2; IXFR, RFC 1995, 4).
//!
//! ```text
//!  AXFR    SOA, records …, the same SOA
//!  IXFR    SOA                                                      the client has that version, or a newer one
//!          SOA, records …, the same SOA                             the whole zone, as above
//!          SOA, (older SOA, removed …, newer SOA, added …) …, the first SOA again
//! ```
//! Messages may end between any two of these records. In the last form the first SOA's version comes three times: first of all, before what
//! was added last, and at the end. Whether the second record begins that form is told as BIND tells it: it's the SOA of the version that the
//! client said it has. Where it's the first one again, the zone is whole, and has no other record, as Knot sees it too.

use super::name::Name;
use super::{Message, Record, TYPE_IXFR, TYPE_SOA, word};

/// Bytes of an SOA's content behind its two names: serial, refresh, retry, expire, minimum (RFC 1035, 3.3.13).
const SOA_NUMBERS: usize = 20;

/// How far a transfer is with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Others follow.
    More,
    /// It was the last.
    Last,
    /// It isn't what can be followed: which is the last isn't known from now on.
    Broken,
}

/// A transfer that is under way. It's shown the answers one by one, in their order; it keeps the zone's name and the first SOA, some 800 bytes,
/// and allocates nothing.
#[derive(Clone, Debug)]
pub struct Transfer {
    zone: Name,
    class: u16,
    /// The version that the client has (IXFR).
    has: Option<Serial>,
    /// The first SOA, once that has come.
    newest: Option<Soa>,
    stage: Stage,
}

/// What came so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Nothing,
    /// The first SOA alone.
    Begun,
    /// A whole zone's records.
    Whole,
    /// An older version's SOA, and what isn't in the next one.
    Removing,
    /// The SOA of this version, and what wasn't in the one before.
    Adding(Serial),
    Over,
}

/// A zone's version. Versions wrap, so that only some are in order (RFC 1982).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Serial(u32);

/// An SOA's content: equal ones have equal fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Soa {
    names: [Name; 2],
    numbers: [u8; SOA_NUMBERS],
}

impl Transfer {
    /// The transfer that a query asks for; `None` if it asks for none. An IXFR's query says which version its client has by an SOA in the
    /// authority section; where that can't be read, answers by differences can't be followed.
    #[must_use]
    pub fn of(query: Message<'_>) -> Option<Self> {
        let question = query.question().filter(|question| question.is_transfer())?;
        let has = if question.kind == TYPE_IXFR { version_in(query) } else { None };
        let class = word(question.bytes, question.bytes.len() - 2)?;
        Some(Self { zone: Name::at(query.bytes, super::HEADER_LEN)?, class, has, newest: None, stage: Stage::Nothing })
    }

    /// Looks at the next answer. Nothing follows one that was the last, or where the transfer can't be followed: it's
    /// [`Progress::Broken`] ever after.
    pub fn see(&mut self, answer: Message<'_>) -> Progress {
        let progress = self.follow(answer).unwrap_or(Progress::Broken);
        if progress != Progress::More {
            self.stage = Stage::Over;
        }
        progress
    }

    fn follow(&mut self, answer: Message<'_>) -> Option<Progress> {
        if self.stage == Stage::Over {
            return None;
        }
        let records = answer.answers();
        // An error ends it wherever it stands (RFC 5936, 2.2.1).
        if answer.rcode() != 0 || (self.stage == Stage::Nothing && records == 0) {
            return Some(Progress::Last);
        }
        let mut at = answer.records_at()?;
        for _ in 0..records {
            let record = Record::at(answer.bytes, at)?;
            self.stage = match self.soa_in(answer.bytes, at, &record)? {
                Some(soa) => self.after_soa(soa)?,
                None => self.after_other()?,
            };
            at = record.end;
        }
        let is_last = self.stage == Stage::Over || self.is_up_to_date();
        Some(if is_last { Progress::Last } else { Progress::More })
    }

    /// The record as the zone's SOA, if it's that; the outer `None` where it's malformed.
    #[expect(clippy::option_option, reason = "malformed, or another record, or an SOA")]
    fn soa_in(&self, bytes: &[u8], at: usize, record: &Record) -> Option<Option<Soa>> {
        if record.kind != TYPE_SOA || record.class != self.class || Name::at(bytes, at)? != self.zone {
            return Some(None);
        }
        Soa::of(bytes, record).map(Some)
    }

    fn after_soa(&mut self, soa: Soa) -> Option<Stage> {
        let newest = *self.newest.get_or_insert(soa);
        match self.stage {
            Stage::Nothing => Some(Stage::Begun),
            Stage::Begun | Stage::Whole if soa == newest => Some(Stage::Over),
            Stage::Begun if self.has == Some(soa.serial()) => Some(Stage::Removing),
            Stage::Removing => Some(Stage::Adding(soa.serial())),
            Stage::Adding(version) if version == newest.serial() => (soa == newest).then_some(Stage::Over),
            Stage::Adding(version) => (soa.serial() == version).then_some(Stage::Removing),
            Stage::Begun | Stage::Whole | Stage::Over => None,
        }
    }

    fn after_other(&self) -> Option<Stage> {
        match self.stage {
            Stage::Nothing | Stage::Over => None,
            Stage::Begun => Some(Stage::Whole),
            stage => Some(stage),
        }
    }

    /// Whether nothing but the SOA of a version came that isn't newer than what the client has (RFC 1995, 2).
    fn is_up_to_date(&self) -> bool {
        let versions = self.has.zip(self.newest);
        self.stage == Stage::Begun && versions.is_some_and(|(has, newest)| has.is_no_older_than(newest.serial()))
    }
}

impl Serial {
    /// Not where the two are half of all versions apart: their order isn't defined then (RFC 1982, 3.2).
    const fn is_no_older_than(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) < 1 << 31
    }
}

impl Soa {
    /// The content of a record of this type; `None` if it's malformed.
    fn of(bytes: &[u8], record: &Record) -> Option<Self> {
        let second = super::end_of_name(bytes, record.content)?;
        let numbers_at = super::end_of_name(bytes, second)?;
        let numbers = *bytes.get(numbers_at..record.end)?.first_chunk()?;
        if numbers_at + SOA_NUMBERS != record.end {
            return None;
        }
        Some(Self { names: [Name::at(bytes, record.content)?, Name::at(bytes, second)?], numbers })
    }

    fn serial(&self) -> Serial {
        Serial(u32::from_be_bytes(*self.numbers.first_chunk().expect("it's the first of five")))
    }
}

/// The version in the SOA of a query's authority section.
fn version_in(query: Message<'_>) -> Option<Serial> {
    if query.answers() != 0 || query.authorities() == 0 {
        return None;
    }
    let record = Record::at(query.bytes, query.records_at()?).filter(|record| record.kind == TYPE_SOA)?;
    Some(Soa::of(query.bytes, &record)?.serial())
}

#[cfg(test)]
mod tests;
