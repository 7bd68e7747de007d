//! Answers to questions (RFC 1034, section 4.3.2; RFC 1035, section 4): without I/O, and without an allocation once `out` has room.

use crate::name::{self, Name};
use crate::zone::{A, AAAA, CNAME, NS, SOA, Set, Zone};

/// Bytes over UDP where the asker doesn't say that it takes more (RFC 1035, section 4.2.1).
const PLAIN_BYTES: usize = 512;
/// Bytes over UDP at most: such datagrams come whole by most ways (RFC 9715, section 3.2).
pub(crate) const UDP_BYTES_MAX: usize = 1232;
const TCP_BYTES_MAX: usize = 65_535;
/// Names that are followed from one alias to the next.
const ALIASES_MAX: usize = 8;
const HEADER: usize = 12;
const OPT: u16 = 41;
const ANY: u16 = 255;
const IN: u16 = 1;

/// Response codes (RFC 1035, section 4.1.1; RFC 6891, section 9).
const NO_ERROR: u16 = 0;
const FORMAT_ERROR: u16 = 1;
const NO_SUCH_NAME: u16 = 3;
const NOT_IMPLEMENTED: u16 = 4;
const REFUSED: u16 = 5;
const BAD_VERSION: u16 = 16;

/// What carries the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

/// What an asker says of itself (RFC 6891).
#[derive(Clone, Copy, Debug)]
struct Edns {
    udp_bytes: usize,
    version: u8,
    wants_dnssec: bool,
}

/// A question, and all else that counts.
struct Question<'a> {
    /// From the beginning of the message.
    raw: &'a [u8],
    name: Name,
    kind: u16,
    class: u16,
    edns: Option<Edns>,
}

/// Writes the answer to `query` behind what `out` holds. False, and nothing is written, where there's none: to what isn't a question.
pub(crate) fn answer(zone: &Zone, query: &[u8], over: Over, out: &mut Vec<u8>) -> bool {
    let Some(header) = query.first_chunk::<HEADER>() else { return false };
    // An answer to an answer would go on for ever.
    if header[2] & 0x80 != 0 {
        return false;
    }
    let mut writer = Writer::new(out, header);
    if header[2] >> 3 & 0x0F != 0 {
        writer.finish(NOT_IMPLEMENTED, None);
        return true;
    }
    let Some(question) = read(query) else {
        writer.finish(FORMAT_ERROR, None);
        return true;
    };
    writer.limit = match (over, question.edns) {
        (Over::Tcp, _) => TCP_BYTES_MAX,
        (Over::Udp, None) => PLAIN_BYTES,
        (Over::Udp, Some(edns)) => edns.udp_bytes.clamp(PLAIN_BYTES, UDP_BYTES_MAX),
    } - if question.edns.is_some() { 11 } else { 0 };
    writer.ask(&question);
    let code = match question.edns {
        Some(edns) if edns.version > 0 => BAD_VERSION,
        _ if question.class != IN || !name::is_within(question.name.as_bytes(), zone.origin()) => REFUSED,
        // Zones aren't handed out.
        _ if matches!(question.kind, 251 | 252) => REFUSED,
        _ => find(zone, &question, &mut writer),
    };
    writer.finish(code, question.edns);
    true
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Reads a message with one question; `None` if it's wrong.
fn read(query: &[u8]) -> Option<Question<'_>> {
    if number(query, 4)? != 1 {
        return None;
    }
    let name = Name::read(&query[HEADER..])?;
    let mut at = HEADER + name.as_bytes().len();
    let (kind, class) = (number(query, at)?, number(query, at + 2)?);
    at += 4;
    let raw = &query[HEADER..at];
    let records = usize::from(number(query, 6)?) + usize::from(number(query, 8)?) + usize::from(number(query, 10)?);
    let mut edns = None;
    for _ in 0..records {
        // The root, as OPT has it, is the only name of one byte.
        let owner = Name::read(query.get(at..)?)?.as_bytes().len();
        at += owner;
        let (kind, class, len) = (number(query, at)?, number(query, at + 2)?, number(query, at + 8)?);
        if kind == OPT {
            let (version, flags) = (*query.get(at + 5)?, number(query, at + 6)?);
            let said = Edns { udp_bytes: usize::from(class), version, wants_dnssec: flags & 0x8000 != 0 };
            if owner != 1 || edns.replace(said).is_some() {
                return None;
            }
        }
        at += 10 + usize::from(len);
        query.get(..at)?;
    }
    Some(Question { raw, name, kind, class, edns })
}

/// Writes what the zone has, and says how that went.
fn find(zone: &Zone, question: &Question<'_>, writer: &mut Writer<'_>) -> u16 {
    let mut name = question.name.as_bytes();
    writer.is_ours = true;
    for _ in 0..ALIASES_MAX {
        if let Some((child, servers)) = delegation(zone, name) {
            refer(zone, child, servers, writer);
            return NO_ERROR;
        }
        let Some(node) = zone.node(name) else {
            writer.add_soa(zone);
            return NO_SUCH_NAME;
        };
        // One set stands for all (RFC 8482, section 4.1).
        let set = if question.kind == ANY { node.sets.first() } else { node.set(question.kind) };
        if let Some(set) = set {
            writer.add_set(Section::Answer, name, set);
            return NO_ERROR;
        }
        let Some(alias) = node.set(CNAME) else {
            writer.add_soa(zone);
            return NO_ERROR;
        };
        writer.add_set(Section::Answer, name, alias);
        name = &alias.data[0];
        if !name::is_within(name, zone.origin()) {
            return NO_ERROR;
        }
    }
    NO_ERROR
}

/// The servers of the zone that was split off, if `name` lies in one.
fn delegation<'a, 'n>(zone: &'a Zone, name: &'n [u8]) -> Option<(&'n [u8], &'a Set)> {
    let mut found = None;
    let mut at = name;
    while at != zone.origin() {
        if let Some(servers) = zone.node(at).and_then(|node| node.set(NS)) {
            found = Some((at, servers));
        }
        at = name::parent(at)?;
    }
    found
}

/// Says who knows: the servers of the zone that was split off, and the addresses of those within it.
fn refer(zone: &Zone, child: &[u8], servers: &Set, writer: &mut Writer<'_>) {
    writer.is_ours = false;
    writer.add_set(Section::Authority, child, servers);
    for server in &servers.data {
        for kind in [A, AAAA] {
            if let Some(set) = zone.node(server).and_then(|node| node.set(kind)) {
                writer.add_set(Section::Additional, server, set);
            }
        }
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// A message that is being written.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where it begins.
    start: usize,
    /// Where the question ends.
    question_end: usize,
    /// Bytes that it may have, without what [`Writer::finish`] adds.
    limit: usize,
    counts: [u16; 3],
    question_name: Name,
    is_ours: bool,
    truncated: bool,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, header: &[u8; HEADER]) -> Self {
        let start = out.len();
        // The number, what was asked for, and that it's a response; the rest follows at the end.
        out.extend_from_slice(&[header[0], header[1], 0x80 | header[2] & 0x79, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let root = Name::read(&[0]).expect("the root is a name");
        let question_end = out.len();
        Self {
            out,
            start,
            question_end,
            limit: PLAIN_BYTES,
            counts: [0; 3],
            question_name: root,
            is_ours: false,
            truncated: false,
        }
    }

    /// Repeats the question.
    fn ask(&mut self, question: &Question<'_>) {
        self.out.extend_from_slice(question.raw);
        self.question_end = self.out.len();
        self.question_name = question.name;
        self.out[self.start + 5] = 1;
    }

    fn add_set(&mut self, section: Section, owner: &[u8], set: &Set) {
        for data in &set.data {
            self.add(section, owner, set.kind, set.ttl, data);
        }
    }

    fn add_soa(&mut self, zone: &Zone) {
        let (data, ttl) = zone.soa();
        self.add(Section::Authority, zone.origin(), SOA, ttl, data);
    }

    /// Adds a record; without room for it the message is truncated, but for those that only help.
    fn add(&mut self, section: Section, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) {
        let before = self.out.len();
        if self.truncated {
            return;
        }
        self.write_name(owner);
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(data);
        if self.out.len() - self.start > self.limit {
            self.out.truncate(before);
            self.truncated |= section != Section::Additional;
            return;
        }
        self.counts[section as usize] += 1;
    }

    /// A name that the question's ends with is a pointer into it (RFC 1035, section 4.1.4).
    fn write_name(&mut self, name: &[u8]) {
        let asked = self.question_name.as_bytes();
        if name::is_within(asked, name) && name.len() > 1 {
            let pointer = 0xC000 | u16::try_from(HEADER + asked.len() - name.len()).expect("a name is short");
            self.out.extend_from_slice(&pointer.to_be_bytes());
        } else {
            self.out.extend_from_slice(name);
        }
    }

    fn finish(self, code: u16, edns: Option<Edns>) {
        let Self { out, start, question_end, mut counts, is_ours, truncated, .. } = self;
        if truncated {
            // Nothing of it could be relied on (RFC 2181, section 9).
            out.truncate(question_end);
            counts = [0; 3];
            out[start + 2] |= 0x02;
        }
        if is_ours {
            out[start + 2] |= 0x04;
        }
        let [high, low] = code.to_be_bytes();
        let low_bits = low & 0x0F;
        out[start + 3] = low_bits;
        if let Some(edns) = edns {
            // A code of more than four bits has the others here.
            let high_bits = high << 4 | low >> 4;
            let size = u16::try_from(UDP_BYTES_MAX).expect("it is small").to_be_bytes();
            let flags = if edns.wants_dnssec { 0x80 } else { 0 };
            out.extend_from_slice(&[0, 0, 41, size[0], size[1], high_bits, 0, flags, 0, 0, 0]);
            counts[Section::Additional as usize] += 1;
        }
        for (place, count) in counts.iter().enumerate() {
            out[start + 6 + 2 * place..][..2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::TXT;
    use crate::zone::tests::TEXT;

    fn query(name: &str, kind: u16, udp_bytes: Option<u16>) -> Vec<u8> {
        let mut query = vec![0xAB, 0xCD, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(udp_bytes.is_some())];
        query.extend(name::parse(name, &[0]).unwrap());
        query.extend([kind.to_be_bytes(), IN.to_be_bytes()].concat());
        if let Some(bytes) = udp_bytes {
            query.extend([0, 0, 41]);
            query.extend(bytes.to_be_bytes());
            query.extend([0; 6]);
        }
        query
    }

    /// Code, whether it's ours, whether it's truncated, and the numbers of records.
    type Told = (u8, bool, bool, [u16; 3]);

    fn told(zone: &Zone, query: &[u8], over: Over) -> Told {
        let mut out = b"in front".to_vec();
        assert!(answer(zone, query, over, &mut out));
        let out = &out[8..];
        assert_eq!(out[..2], query[..2]);
        let counts = [6, 8, 10].map(|at| number(out, at).unwrap());
        (out[3] & 0x0F, out[2] & 4 != 0, out[2] & 2 != 0, counts)
    }

    #[test]
    fn questions_are_answered_as_the_zone_has_it() {
        let zone = Zone::parse(TEXT, None).unwrap();
        for (name, kind, expected) in [
            ("web.example", A, (0, true, false, [2, 0, 0])),
            ("wWw.eXample", A, (0, true, false, [3, 0, 0])),
            ("www.example", CNAME, (0, true, false, [1, 0, 0])),
            ("away.example", A, (0, true, false, [1, 0, 0])),
            ("web.example", AAAA, (0, true, false, [0, 1, 0])),
            ("example", SOA, (0, true, false, [1, 0, 0])),
            ("example", NS, (0, true, false, [1, 0, 0])),
            ("example", ANY, (0, true, false, [1, 0, 0])),
            ("text.example", TXT, (0, true, false, [1, 0, 0])),
            ("b.c.example", A, (0, true, false, [0, 1, 0])),
            ("x.b.c.example", A, (3, true, false, [0, 1, 0])),
            ("loop.example", A, (0, true, false, [8, 0, 0])),
            ("x.child.example", A, (0, false, false, [0, 1, 1])),
            ("other", A, (5, false, false, [0, 0, 0])),
            ("example", 252, (5, false, false, [0, 0, 0])),
        ] {
            assert_eq!(told(&zone, &query(name, kind, None), Over::Udp), expected, "{name} {kind}");
            let (code, ours, truncated, [answers, authority, additional]) = expected;
            let with_edns = (code, ours, truncated, [answers, authority, additional + 1]);
            assert_eq!(told(&zone, &query(name, kind, Some(4096)), Over::Udp), with_edns, "{name} {kind}");
        }
    }

    #[test]
    fn what_does_not_fit_is_truncated_and_whole_over_tcp() {
        let many: String = (0..100).map(|number| format!("many A 192.0.2.{number}\n")).collect();
        let zone = Zone::parse(&format!("{TEXT}{many}"), None).unwrap();
        let name = "many.example";
        assert_eq!(told(&zone, &query(name, A, None), Over::Udp), (0, true, true, [0, 0, 0]));
        assert_eq!(told(&zone, &query(name, A, Some(4096)), Over::Udp), (0, true, true, [0, 0, 1]));
        assert_eq!(told(&zone, &query(name, A, Some(100)), Over::Tcp), (0, true, false, [100, 0, 1]));
    }

    #[test]
    fn what_is_no_question_is_refused_or_left_alone() {
        let zone = Zone::parse(TEXT, None).unwrap();
        let good = query("web.example", A, Some(1232));
        let mut out = Vec::new();
        for len in 0..good.len() {
            let answered = answer(&zone, &good[..len], Over::Udp, &mut out);
            assert_eq!(answered, len >= HEADER);
            if answered {
                assert_eq!(out[3], 1, "{len}");
            }
            out.clear();
        }
        let change = |at: usize, to: u8| {
            let mut query = good.clone();
            query[at] = to;
            query
        };
        assert!(!answer(&zone, &change(2, 0x80), Over::Udp, &mut out));
        assert_eq!(told(&zone, &change(2, 0x28), Over::Udp).0, 4);
        assert_eq!(told(&zone, &change(5, 2), Over::Udp).0, 1);
        assert_eq!(told(&zone, &change(12, 0xC0), Over::Udp).0, 1);
        // Version 1 of EDNS: the code's higher bits are in the OPT record.
        assert_eq!(told(&zone, &change(good.len() - 5, 1), Over::Udp), (0, false, false, [0, 0, 1]));
    }
}
