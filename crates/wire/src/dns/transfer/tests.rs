use proptest::prelude::*;

use super::Progress::{Broken, Last, More};
use super::*;

const AXFR: u16 = 252;
const IXFR: u16 = 251;
/// The zone, in letters that the query hasn't.
const ZONE: &[u8] = b"\x04zOne\x07exampLe\0";
const TSIG: &[u8] = &[1, b'k', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 3, 1, 2, 3];

/// A record of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rec {
    /// The zone's SOA: its serial, and another number of it.
    Soa(u32, u8),
    /// Any other.
    Other,
    /// An SOA of a name below the zone's.
    Below,
    /// One of the zone's name, and another class.
    Chaos,
}

/// How a message is written.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// It repeats the question; only the first has to.
    question: bool,
    /// Names are replaced by pointers.
    compressed: bool,
    signed: bool,
}

const PLAIN: Manner = Manner { question: true, compressed: true, signed: false };

/// A query for the zone's transfer by a client that has a version.
fn query(kind: u16, has: Option<u32>) -> Vec<u8> {
    let mut bytes = header(0, [1, 0, u16::from(has.is_some()), 0]);
    bytes.extend(b"\x04Zone\x07Example\0");
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    if let Some(serial) = has {
        Writer { bytes: &mut bytes, zone_at: Some(12), compressed: true }.record(Rec::Soa(serial, 0));
    }
    bytes
}

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [7, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    /// Where the zone's name stands.
    zone_at: Option<usize>,
    compressed: bool,
}

impl Writer<'_> {
    /// The zone's name behind a label, if there's one.
    fn name(&mut self, label: &str) {
        if !label.is_empty() {
            self.bytes.push(u8::try_from(label.len()).unwrap());
            self.bytes.extend(label.bytes());
        }
        match self.zone_at {
            Some(at) if self.compressed => {
                let pointer = 0xc000 | u16::try_from(at).unwrap();
                self.bytes.extend(pointer.to_be_bytes());
            }
            _ => {
                self.zone_at = Some(self.bytes.len());
                self.bytes.extend(ZONE);
            }
        }
    }

    fn record(&mut self, record: Rec) {
        let (label, kind, class) = match record {
            Rec::Soa(..) => ("", 6_u16, 1_u16),
            Rec::Below => ("below", 6, 1),
            Rec::Chaos => ("", 6, 3),
            Rec::Other => ("host", 1, 1),
        };
        self.name(label);
        for word in [kind, class, 0, 9] {
            self.bytes.extend(word.to_be_bytes());
        }
        let len_at = self.bytes.len();
        self.bytes.extend([0, 0]);
        match record {
            Rec::Other => self.bytes.extend([192, 0, 2, 1]),
            Rec::Soa(..) | Rec::Below | Rec::Chaos => {
                let (serial, refresh) = if let Rec::Soa(serial, refresh) = record { (serial, refresh) } else { (1, 0) };
                self.name("Ns");
                self.name("hostMaster");
                for number in [serial, u32::from(refresh), 600, 3600, 300] {
                    self.bytes.extend(number.to_be_bytes());
                }
            }
        }
        let len = u16::try_from(self.bytes.len() - len_at - 2).unwrap();
        self.bytes[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    }
}

fn answer(records: &[Rec], manner: Manner) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap();
    let mut bytes = header(0x8400, [u16::from(manner.question), count, 0, u16::from(manner.signed)]);
    let zone_at = if manner.question {
        bytes.extend(ZONE);
        bytes.extend([0, 252, 0, 1]);
        Some(12)
    } else {
        None
    };
    let mut writer = Writer { bytes: &mut bytes, zone_at, compressed: manner.compressed };
    records.iter().for_each(|record| writer.record(*record));
    if manner.signed {
        bytes.extend(TSIG);
    }
    bytes
}

fn tracker(query: &[u8]) -> Transfer {
    Transfer::of(Message::new(query).unwrap()).unwrap()
}

fn see(transfer: &mut Transfer, bytes: &[u8]) -> Progress {
    transfer.see(Message::new(bytes).unwrap())
}

/// What is said of these messages, one after the other.
fn said(query: &[u8], messages: &[&[Rec]]) -> Vec<Progress> {
    let mut transfer = tracker(query);
    messages.iter().map(|records| see(&mut transfer, &answer(records, PLAIN))).collect()
}

const fn soa(serial: u32) -> Rec {
    Rec::Soa(serial, 0)
}

use Rec::Other as O;

#[test]
fn a_zone_ends_with_its_second_soa() {
    let axfr = query(AXFR, None);
    assert_eq!(said(&axfr, &[&[soa(1), O, O, soa(1)], &[O]]), [Last, Broken]);
    assert_eq!(said(&axfr, &[&[soa(1), O], &[O, O], &[], &[O, soa(1)]]), [More, More, More, Last]);
    assert_eq!(said(&axfr, &[&[soa(1)], &[O], &[soa(1)]]), [More, More, Last]);
    assert_eq!(said(&axfr, &[&[soa(1), soa(1)]]), [Last], "a zone of nothing else");
    assert_eq!(said(&axfr, &[&[soa(1), Rec::Below, Rec::Chaos, O, soa(1)]]), [Last], "others' SOAs");
    assert_eq!(said(&axfr, &[&[soa(1), O, soa(2)], &[soa(1)]]), [Broken, Broken]);
    assert_eq!(said(&axfr, &[&[soa(1), O, Rec::Soa(1, 1)]]), [Broken], "the serial alone is the same");
    assert_eq!(said(&axfr, &[&[soa(1), O, soa(1), O]]), [Broken], "something behind the end");
    assert_eq!(said(&axfr, &[&[O, soa(1)]]), [Broken]);
    assert_eq!(said(&axfr, &[&[Rec::Chaos, O]]), [Broken]);
}

#[test]
fn an_error_or_nothing_is_all_there_is() {
    for query in [query(AXFR, None), query(IXFR, Some(1)), query(IXFR, None)] {
        assert_eq!(said(&query, &[&[]]), [Last]);
        let mut refused = answer(&[], PLAIN);
        refused[3] = 5;
        let mut transfer = tracker(&query);
        assert_eq!([see(&mut transfer, &refused), see(&mut transfer, &refused)], [Last, Broken]);
        let mut transfer = tracker(&query);
        assert_eq!(see(&mut transfer, &answer(&[soa(2), O], PLAIN)), More);
        assert_eq!(see(&mut transfer, &refused), Last, "an error in the midst");
    }
}

#[test]
fn differences_end_with_the_newest_soa_for_the_third_time() {
    let ixfr = query(IXFR, Some(1));
    assert_eq!(said(&ixfr, &[&[soa(2), soa(1), O, soa(2), O, soa(2)]]), [Last]);
    assert_eq!(said(&ixfr, &[&[soa(2), soa(1), soa(2), soa(2)]]), [Last], "nothing but the version changed");
    let two = [soa(3), soa(1), O, soa(2), O, soa(2), O, soa(3), O, soa(3)];
    assert_eq!(said(&ixfr, &[&two]), [Last]);
    let one_each: Vec<&[Rec]> = two.chunks(1).collect();
    assert_eq!(said(&ixfr, &one_each), [[More; 9].as_slice(), &[Last]].concat());
    assert_eq!(said(&ixfr, &[&[soa(3), soa(1), soa(2), soa(1)]]), [Broken], "the next begins where none ended");
    assert_eq!(said(&ixfr, &[&[soa(2), soa(1), soa(2), Rec::Soa(2, 1)]]), [Broken], "another SOA at the end");
    assert_eq!(said(&ixfr, &[&[soa(4), soa(3), O]]), [Broken], "another version than the client has");
    assert_eq!(said(&query(IXFR, None), &[&[soa(2), soa(1), O]]), [Broken], "nobody knows what it has");
    assert_eq!(said(&query(AXFR, None), &[&[soa(2), soa(1), O]]), [Broken], "nobody asked for differences");
}

#[test]
fn a_whole_zone_may_answer_for_its_differences() {
    let ixfr = query(IXFR, Some(1));
    assert_eq!(said(&ixfr, &[&[soa(2), O, O, soa(2)]]), [Last]);
    assert_eq!(said(&ixfr, &[&[soa(2)], &[O, O], &[soa(2)]]), [More, More, Last]);
    assert_eq!(said(&ixfr, &[&[soa(2), soa(2)]]), [Last], "a zone of nothing else");
    assert_eq!(said(&query(IXFR, None), &[&[soa(2), O, soa(2)]]), [Last]);
    // From a server that lost what it had: older, and it says more than that.
    assert_eq!(said(&query(IXFR, Some(5)), &[&[soa(2), O, soa(2)]]), [Last]);
}

#[test]
fn one_soa_is_the_answer_to_who_is_up_to_date() {
    let said = |has, serial| said(&query(IXFR, Some(has)), &[&[soa(serial)]])[0];
    assert_eq!([said(1, 1), said(2, 1), said(1, 2)], [Last, Last, More]);
    assert_eq!([said(0, u32::MAX), said(u32::MAX, 0)], [Last, More], "versions wrap");
    assert_eq!([said(0, 1 << 31), said(1 << 31, 0)], [More, More], "neither is the newer one");
}

#[test]
fn names_are_the_same_however_they_are_written() {
    for question in [false, true] {
        for compressed in [false, true] {
            for signed in [false, true] {
                let manner = Manner { question, compressed, signed };
                let mut transfer = tracker(&query(AXFR, None));
                assert_eq!(see(&mut transfer, &answer(&[soa(1), O], PLAIN)), More);
                assert_eq!(see(&mut transfer, &answer(&[O, soa(1)], manner)), Last, "{manner:?}");
            }
        }
    }
}

#[test]
fn only_what_asks_for_a_transfer_is_followed() {
    assert!(Transfer::of(Message::new(&query(1, None)).unwrap()).is_none());
    let mut two = query(AXFR, None);
    two[5] = 2;
    assert!(Transfer::of(Message::new(&two).unwrap()).is_none());
    // Its SOA is cut short: as if it said no version.
    let cut = query(IXFR, Some(1));
    assert_eq!(said(&cut[..cut.len() - 1], &[&[soa(1)]]), [More]);
}

#[test]
fn names_that_go_in_circles_are_no_names() {
    let zone_at = 12 + ZONE.len() + 4;
    for target in [zone_at, zone_at + 2] {
        let mut bytes = answer(&[soa(1)], PLAIN);
        bytes[zone_at + 1] = u8::try_from(target).unwrap();
        assert_eq!(see(&mut tracker(&query(AXFR, None)), &bytes), Broken);
    }
    // A label, and then all of it again.
    assert_eq!(Name::at(b"\x01a\xc0\x00", 0), None);
    // What stands behind.
    assert_eq!(Name::at(b"\xc0\x02\0", 0), None);
    // 127 labels are a name, and 128 aren't.
    let long = |labels: usize| [&b"\x01a".repeat(labels)[..], b"\0"].concat();
    assert!(Name::at(&long(127), 0).is_some());
    assert_eq!(Name::at(&long(128), 0), None);
    // Nor are pointers to pointers without end: each here leads to the one before.
    let pointers = (0..128_u16).flat_map(|at| (0xc000 | (at * 2)).to_be_bytes());
    let chain: Vec<u8> = [0, 0].into_iter().chain(pointers).collect();
    assert!(Name::at(&chain, 2 * 127).is_some());
    assert_eq!(Name::at(&chain, 2 * 128), None);
}

/// What is to be said of a transfer's records, looked at all together: where it ends, or where it goes wrong.
#[derive(Debug, PartialEq)]
enum Verdict {
    Open,
    Ends(usize),
    Wrong(usize),
}

/// The plain reference.
fn verdict(records: &[Rec], has: Option<u32>) -> Verdict {
    let soas: Vec<(usize, u32, u8)> = records
        .iter()
        .enumerate()
        .filter_map(|(at, record)| if let Rec::Soa(serial, more) = record { Some((at, *serial, *more)) } else { None })
        .collect();
    let Some(first) = records.first() else { return Verdict::Open };
    if !matches!(first, Rec::Soa(..)) {
        return Verdict::Wrong(0);
    }
    let newest = soas[0];
    let is_newest = |soa: &(usize, u32, u8)| (soa.1, soa.2) == (newest.1, newest.2);
    let Some(second) = soas.get(1) else { return Verdict::Open };
    if is_newest(second) {
        return Verdict::Ends(second.0);
    }
    if second.0 != 1 || Some(second.1) != has {
        return Verdict::Wrong(second.0);
    }
    // From here each second SOA begins what was added.
    for added in (2..).step_by(2) {
        let (Some(to), Some(next)) = (soas.get(added), soas.get(added + 1)) else { break };
        let (is_last, fits) = (to.1 == newest.1, if to.1 == newest.1 { is_newest(next) } else { next.1 == to.1 });
        match (is_last, fits) {
            (true, true) => return Verdict::Ends(next.0),
            (false, true) => {}
            (_, false) => return Verdict::Wrong(next.0),
        }
    }
    Verdict::Open
}

/// What is to be said of each message.
fn expected(messages: &[Vec<Rec>], has: Option<u32>) -> Vec<Progress> {
    let verdict = verdict(&messages.concat(), has);
    let (mut all, mut over, mut before) = (Vec::new(), false, 0);
    for (index, records) in messages.iter().enumerate() {
        let end = before + records.len();
        let is_here = |at: usize| (before..end).contains(&at);
        let alone = match (index, records.as_slice()) {
            (0, []) => true,
            (0, [Rec::Soa(serial, _)]) => has.is_some_and(|has| has >= *serial),
            _ => false,
        };
        let progress = match verdict {
            _ if over => Broken,
            _ if alone => Last,
            Verdict::Ends(at) if at + 1 == end && is_here(at) => Last,
            Verdict::Ends(at) | Verdict::Wrong(at) if is_here(at) => Broken,
            _ => More,
        };
        over |= progress != More;
        all.push(progress);
        before = end;
    }
    all
}

fn some_record() -> impl Strategy<Value = Rec> {
    prop_oneof![
        4 => Just(Rec::Other),
        4 => (1..4_u32).prop_map(soa),
        1 => (1..4_u32).prop_map(|serial| Rec::Soa(serial, 1)),
        1 => Just(Rec::Below),
        1 => Just(Rec::Chaos),
    ]
}

/// A transfer as it should be: a whole zone, or the differences between versions from 1 on.
fn good_records() -> impl Strategy<Value = Vec<Rec>> {
    let whole = (0..20_usize).prop_map(|count| [vec![soa(3)], vec![O; count], vec![soa(3)]].concat());
    let differences = prop::collection::vec((0..4_usize, 0..4_usize), 1..6).prop_map(|steps| {
        let newest = soa(u32::try_from(steps.len()).unwrap() + 1);
        let mut records = vec![newest];
        for ((removed, added), version) in steps.iter().zip(1..) {
            records.extend([vec![soa(version)], vec![O; *removed], vec![soa(version + 1)], vec![O; *added]].concat());
        }
        records.push(newest);
        records
    });
    prop_oneof![whole, differences]
}

fn records() -> impl Strategy<Value = Vec<Rec>> {
    let changed = (good_records(), any::<prop::sample::Index>(), some_record()).prop_map(|(mut records, at, other)| {
        let at = at.index(records.len());
        records[at] = other;
        records
    });
    prop_oneof![3 => good_records(), 2 => changed, 1 => prop::collection::vec(some_record(), 0..20)]
}

/// Those records in messages of random lengths, none among them.
fn split(records: &[Rec], cuts: &[prop::sample::Index]) -> Vec<Vec<Rec>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(records.len() + 1)).collect();
    cuts.extend([0, records.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| records[pair[0]..pair[1]].to_vec()).collect()
}

fn manners() -> impl Strategy<Value = Vec<Manner>> {
    let manner = any::<[bool; 3]>().prop_map(|[question, compressed, signed]| Manner { question, compressed, signed });
    prop::collection::vec(manner, 24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_end_is_where_a_plain_reference_finds_it(
        records in records(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        manners in manners(),
        has in prop::option::of(1..4_u32),
        axfr in any::<bool>(),
    ) {
        let (kind, has) = if axfr { (AXFR, None) } else { (IXFR, has) };
        let messages = split(&records, &cuts);
        let mut transfer = tracker(&query(kind, has));
        let said: Vec<Progress> = messages
            .iter()
            .zip(&manners)
            .map(|(records, manner)| see(&mut transfer, &answer(records, *manner)))
            .collect();
        prop_assert_eq!(said, expected(&messages, has));
    }

    #[test]
    fn no_bytes_make_it_panic(
        records in good_records(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        shorter in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut transfer = tracker(&query(IXFR, Some(1)));
        let mut over = false;
        for records in split(&records, &cuts) {
            let mut bytes = answer(&records, PLAIN);
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(shorter) = &shorter {
                bytes.truncate(12 + shorter.index(bytes.len() - 11));
            }
            let progress = see(&mut transfer, &bytes);
            prop_assert!(!over || progress == Broken);
            over |= progress != More;
        }
    }

    #[test]
    fn no_query_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 12..100), kind in prop_oneof![Just(AXFR), Just(IXFR)]) {
        let mut query = query(kind, Some(1));
        let len = query.len().min(bytes.len());
        query[12..len].copy_from_slice(&bytes[12..len]);
        for bytes in [&bytes[..], &query] {
            if let Some(mut transfer) = Message::new(bytes).and_then(Transfer::of) {
                transfer.see(Message::new(bytes).unwrap());
            }
        }
    }
}
