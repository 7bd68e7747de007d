//! Clients and backends of the simulated world: what they say, and what they hold against what they hear.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use midmile_engine::Time;
use midmile_engine::backend::Progress;
use midmile_engine::sim::{RemoteId, Rng, Sim};

use super::BOUNDS;
use crate::{End, Matching};

/// A transfer, of some messages.
pub(super) const AXFR: u16 = 252;
/// The first letter of zones whose transfer can't be followed to its end.
const UNCLEAR: char = 'u';

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// It asks, reads, and finishes.
    Good,
    /// One of those that follow, by the seed.
    Any,
    /// It resets somewhere.
    Resets,
    /// It doesn't read.
    Mute,
    /// It falls silent in the midst of a message.
    Stalls,
    /// It falls silent when it has asked all.
    Idles,
    /// It ends in the midst of a message.
    Truncates,
    /// Its last message is none.
    Garbles,
    /// Its last message is longer than may be.
    Overflows,
}

/// A query or a line, and what became of it.
#[derive(Debug)]
struct Asked {
    id: u16,
    name: String,
    /// The type that is asked for.
    kind: u16,
    /// Where its bytes end in what the client sends.
    end: usize,
    /// Messages of its transfer that have come.
    part: usize,
    answers: usize,
    servfails: usize,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) remote: RemoteId,
    manners: Manners,
    matching: Matching,
    asked: Vec<Asked>,
    says: Vec<u8>,
    sent: usize,
    stops_at: usize,
    step: usize,
    pace: Duration,
    next: Time,
    received: Vec<u8>,
    finished: bool,
    over: bool,
    /// When it last received something, and when it saw its end.
    heard_at: Time,
    over_at: Time,
    /// The next answer of those that come in order.
    turn: usize,
}

/// A query with a name of its own and an id that others have as well.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.push(u8::try_from(name.len()).unwrap());
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    framed(&bytes)
}

pub(super) fn framed(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

/// What the backends answer to a query, without the length in front of both: some text that depends on the name.
pub(crate) fn answer_to(query: &[u8]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    (bytes[2], bytes[3], bytes[7]) = (0x81, 0x80, 1);
    let seed = query[12..].iter().fold(7_usize, |sum, byte| (sum * 31 + usize::from(*byte)) % 65_521);
    let len = if seed % 3 == 0 { seed % 900 } else { seed % 40 };
    bytes.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0]);
    bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
    bytes.extend((0..len).map(|at| u8::try_from((seed + at) % 251).unwrap()));
    bytes
}

/// What the backends answer to a query for a zone: its SOA, as many records as depend on the name, and the SOA, in messages of one to three.
pub(super) fn transfer_of(query: &[u8]) -> Vec<Vec<u8>> {
    let seed = query[12..].iter().fold(3_usize, |sum, byte| (sum * 31 + usize::from(*byte)) % 65_521);
    let soa = |serial: u32| {
        let numbers = [serial, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
        [&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 24, 0xc0, 12, 0xc0, 12][..], &numbers].concat()
    };
    let text = [&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 200][..], &[b'x'; 200]].concat();
    let last = if name_of(query).starts_with(UNCLEAR) { 2 } else { 1 };
    let records = [vec![soa(1)], vec![text; seed % 9], vec![soa(last)]].concat();
    let message = |records: &[Vec<u8>]| {
        let mut bytes = [query, &records.concat()].concat();
        (bytes[2], bytes[3], bytes[7]) = (0x84, 0, u8::try_from(records.len()).unwrap());
        bytes
    };
    records.chunks(1 + seed % 3).map(message).collect()
}

fn line_answer(line: &[u8]) -> Vec<u8> {
    [b"re:", line].concat()
}

/// The first message of a stream, cut off it.
fn take_message(matching: Matching, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (head, len) = match matching {
        Matching::Id => (2, usize::from(u16::from_be_bytes(*bytes.first_chunk()?))),
        Matching::Order => (0, bytes.iter().position(|byte| *byte == b'\n')? + 1),
    };
    if bytes.len() < head + len {
        return None;
    }
    let rest = bytes.split_off(head + len);
    Some(std::mem::replace(bytes, rest).split_off(head))
}

fn name_of(query: &[u8]) -> &str {
    let len = usize::from(query[12]);
    std::str::from_utf8(&query[13..13 + len]).unwrap()
}

impl Client {
    pub(super) fn new(
        rng: &mut Rng,
        remote: RemoteId,
        number: usize,
        manners: Manners,
        matching: Matching,
        kind: bool,
    ) -> Self {
        use Manners::{Any, Garbles, Good, Idles, Mute, Overflows, Resets, Stalls, Truncates};
        let all = [Good, Resets, Mute, Stalls, Idles, Truncates, Garbles, Overflows];
        let manners = if manners == Any { all[rng.up_to(all.len() - 1)] } else { manners };
        let (mut says, mut asked) = (Vec::new(), Vec::new());
        for at in 0..rng.up_to(12) {
            let id = u16::try_from(rng.up_to(3)).unwrap();
            let first = if !kind && rng.one_in(4) { UNCLEAR } else { 'c' };
            let name = format!("{first}{number}q{at}{}", "x".repeat(rng.up_to(40)));
            let kind = if rng.one_in(10) { AXFR } else { 1 };
            says.extend(match matching {
                Matching::Id => query(id, &name, kind),
                Matching::Order => format!("{name}\n").into_bytes(),
            });
            asked.push(Asked { id, name, kind, end: says.len(), part: 0, answers: 0, servfails: 0 });
        }
        match manners {
            Stalls | Truncates => says.push(1),
            Garbles if matching == Matching::Id => says.extend(framed(b"short")),
            Overflows if matching == Matching::Id => says.extend([0xff; 2500]),
            Garbles | Overflows => says.extend([b'x'; 2500]),
            _ => {}
        }
        let stops_at = if manners == Resets { rng.up_to(says.len()) } else { says.len() };
        Self {
            remote,
            manners,
            matching,
            asked,
            sent: 0,
            stops_at,
            step: 1 + [rng.up_to(30), rng.up_to(600)][rng.up_to(1)],
            pace: Duration::from_micros(200 + rng.up_to(4000) as u64),
            next: Time::ZERO,
            says,
            received: Vec::new(),
            finished: false,
            over: false,
            heard_at: Time::ZERO,
            over_at: Time::ZERO,
            turn: 0,
        }
    }

    /// Nothing will change at its end any more, or it wouldn't notice.
    pub(super) fn is_over(&self) -> bool {
        self.over || (self.manners == Manners::Mute && self.finished)
    }

    /// Does what it does now, and says when it wants to do more.
    pub(super) fn act(&mut self, sim: &mut Sim, rng: &mut Rng, now: Time) -> Option<Time> {
        if self.over {
            return None;
        }
        if self.manners != Manners::Mute {
            self.read(sim, now);
        }
        if self.over || self.finished {
            return None;
        }
        if now < self.next {
            return Some(self.next);
        }
        self.next = now.after(self.pace);
        let until = self.stops_at.min(self.sent + 1 + rng.up_to(self.step));
        if self.sent < until {
            match sim.hand_send(self.remote, &self.says[self.sent..until]) {
                Ok(Progress::Moved(count)) => self.sent += count,
                Ok(_) => {}
                Err(_) => self.over = true,
            }
        }
        if self.sent < self.stops_at || self.over {
            return Some(self.next);
        }
        match self.manners {
            Manners::Resets => {
                sim.hand_reset(self.remote);
                self.over = true;
            }
            Manners::Good | Manners::Truncates | Manners::Mute => sim.hand_finish(self.remote),
            _ => {}
        }
        self.finished = true;
        None
    }

    fn read(&mut self, sim: &mut Sim, now: Time) {
        let mut buffer = [0; 700];
        loop {
            match sim.hand_recv(self.remote, &mut buffer) {
                Ok(Progress::Moved(count)) => {
                    self.heard_at = now;
                    self.received.extend(&buffer[..count]);
                }
                Ok(Progress::Blocked) => break,
                Ok(Progress::Ended) | Err(_) => {
                    (self.over, self.over_at) = (true, now);
                    break;
                }
            }
        }
        while let Some(message) = take_message(self.matching, &mut self.received) {
            match self.matching {
                Matching::Id => self.check_answer(&message),
                Matching::Order => {
                    let asked = self.asked.get_mut(self.turn).expect("no more answers than questions");
                    assert_eq!(message, line_answer(format!("{}\n", asked.name).as_bytes()), "another's answer");
                    asked.answers += 1;
                    self.turn += 1;
                }
            }
        }
    }

    fn check_answer(&mut self, message: &[u8]) {
        let name = name_of(message);
        let asked = self.asked.iter_mut().find(|asked| asked.name == name).expect("an answer to another's query");
        assert_eq!(u16::from_be_bytes([message[0], message[1]]), asked.id, "another id");
        assert!(asked.end <= self.sent, "an answer before its query");
        let query = query(asked.id, &asked.name, asked.kind).split_off(2);
        if message[3] & 15 == 2 {
            assert_eq!(asked.part, 0, "an error in the midst of a transfer");
            asked.servfails += 1;
            asked.answers += 1;
        } else if asked.kind == AXFR {
            let messages = transfer_of(&query);
            assert_eq!(message, messages[asked.part], "another message");
            asked.part += 1;
            asked.answers += usize::from(asked.part == messages.len());
        } else {
            assert_eq!(message, answer_to(&query), "another answer");
            asked.answers += 1;
        }
    }

    pub(super) fn judge(&self, end: Option<End>, matching: Matching, kind: bool) {
        let answered = self.asked.iter().all(|asked| asked.answers == 1);
        let servfails: usize = self.asked.iter().map(|asked| asked.servfails).sum();
        assert!(self.asked.iter().all(|asked| asked.answers <= 1), "a query was answered twice: {self:?}");
        assert!(!kind || servfails == 0, "a kind world's query was answered SERVFAIL: {self:?}");
        let promptly = self.over_at.since(self.heard_at) < BOUNDS.answer_timeout / 2;
        assert!(!kind || promptly, "a kind world's client waits for its end: {self:?}");
        let Some(end) = end else {
            assert!(self.asked.iter().all(|asked| asked.answers == 0), "a refused client was answered");
            return;
        };
        // Those of which all has come, and is known to have come, are over.
        let goes_on = |asked: &Asked| asked.kind == AXFR && (asked.answers == 0 || asked.name.starts_with(UNCLEAR));
        let transfers = self.asked.iter().any(goes_on);
        let gave_up = !kind
            && match matching {
                Matching::Order => matches!(end, End::Unanswered | End::NoBackend),
                // More might have come.
                Matching::Id => transfers && end == End::Unanswered,
            };
        let expected: &[End] = match self.manners {
            Manners::Good => &[End::Finished],
            Manners::Resets => &[End::ClientReset],
            Manners::Stalls => &[End::MessageTimeout],
            Manners::Idles => &[End::IdleTimeout],
            Manners::Truncates => &[End::MessageCut],
            Manners::Garbles if matching == Matching::Id => &[End::MessageShort],
            // A slow one doesn't come so far.
            Manners::Garbles | Manners::Overflows => &[End::MessageTooLong, End::MessageTimeout],
            Manners::Mute | Manners::Any => &[End::Finished, End::AnswersUnread],
        };
        assert!(gave_up || expected.contains(&end), "{end:?} in place of {expected:?}: {self:?}");
        let reads = !matches!(self.manners, Manners::Resets | Manners::Mute | Manners::Overflows);
        assert!(gave_up || !reads || answered, "{end:?}, and not all is answered: {self:?}");
    }
}

/// A connection that the mux has dialled.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) remote: RemoteId,
    matching: Matching,
    unkind: bool,
    /// It never answers.
    silent: bool,
    /// After so many requests it ends, in one way or another.
    requests_left: usize,
    received: Vec<u8>,
    /// Answers, and when they're due.
    due: Vec<(Time, Vec<u8>)>,
    out: VecDeque<u8>,
    /// It leaves one in so many queries without an answer.
    drops_one_in: usize,
    /// Ids that were asked under and aren't answered, and when they were.
    ids: HashMap<u16, Time>,
    finished: bool,
    over: bool,
}

impl Backend {
    pub(super) fn new(rng: &mut Rng, remote: RemoteId, matching: Matching, unkind: bool) -> Self {
        Self {
            remote,
            matching,
            unkind,
            silent: unkind && rng.one_in(8),
            drops_one_in: if rng.one_in(4) { 2 } else { 30 },
            requests_left: if unkind && rng.one_in(3) { 1 + rng.up_to(7) } else { usize::MAX },
            received: Vec::new(),
            due: Vec::new(),
            out: VecDeque::new(),
            ids: HashMap::new(),
            finished: false,
            over: false,
        }
    }

    /// As [`Client::act`].
    pub(super) fn act(&mut self, sim: &mut Sim, rng: &mut Rng, now: Time) -> Option<Time> {
        if self.over || !sim.remote(self.remote).was_connected() {
            return None;
        }
        let mut buffer = [0; 500];
        loop {
            match sim.hand_recv(self.remote, &mut buffer) {
                Ok(Progress::Moved(count)) => self.received.extend(&buffer[..count]),
                Ok(Progress::Blocked) => break,
                Ok(Progress::Ended) | Err(_) => {
                    self.over = true;
                    return None;
                }
            }
        }
        while let Some(request) = take_message(self.matching, &mut self.received) {
            self.hear(rng, now, &request);
            if self.requests_left == 0 {
                self.end(sim, rng);
                return None;
            }
        }
        self.speak(sim, rng, now);
        let soon = now.after(Duration::from_micros(500));
        if self.silent || self.finished {
            None
        } else if self.out.is_empty() {
            self.due.iter().map(|(due, _)| *due).min()
        } else {
            Some(soon)
        }
    }

    fn hear(&mut self, rng: &mut Rng, now: Time, request: &[u8]) {
        self.requests_left -= 1;
        if self.matching == Matching::Id {
            let before = self.ids.insert(u16::from_be_bytes([request[0], request[1]]), now);
            // It's free half an answer timeout after it was given up at the soonest, and what came here may have been under way for a while.
            let again = before.is_none_or(|before| now.since(before) > BOUNDS.answer_timeout / 4);
            assert!(again, "an id is in use twice");
        }
        let delay = match rng.up_to(9) {
            0 if self.unkind => 150_000,
            1 if self.unkind => 60_000,
            _ => 6_000,
        };
        let mut at = now.after(Duration::from_micros(rng.up_to(delay) as u64));
        if self.matching == Matching::Order {
            at = self.due.last().map_or(at, |(last, _)| at.max(*last));
            return self.due.push((at, line_answer(request)));
        }
        if self.unkind && rng.one_in(self.drops_one_in) {
            return;
        }
        if self.unkind && rng.one_in(20) {
            // Another question's answer, or none's, comes first.
            let mut stray = answer_to(request);
            stray[if rng.one_in(2) { 14 } else { 0 }] ^= 0x40;
            self.due.push((now, framed(&stray)));
        }
        if request.ends_with(&[0, 252, 0, 1]) {
            self.due.extend(transfer_of(request).iter().map(|message| (at, framed(message))));
            return;
        }
        self.due.push((at, framed(&answer_to(request))));
        if self.unkind && rng.one_in(20) {
            self.due.push((at, framed(&answer_to(request))));
        }
    }

    fn speak(&mut self, sim: &mut Sim, rng: &mut Rng, now: Time) {
        if self.silent || self.finished {
            return;
        }
        while let Some(at) = self.due.iter().position(|(due, _)| *due <= now) {
            let (_, answer) = self.due.remove(at);
            if self.matching == Matching::Id {
                self.ids.remove(&u16::from_be_bytes([answer[2], answer[3]]));
            }
            self.out.extend(answer);
        }
        let count = if rng.one_in(3) { rng.up_to(self.out.len()) } else { self.out.len() };
        let bytes: Vec<u8> = self.out.iter().copied().take(count).collect();
        match sim.hand_send(self.remote, &bytes) {
            Ok(Progress::Moved(sent)) => drop(self.out.drain(..sent)),
            Ok(_) => {}
            Err(_) => self.over = true,
        }
    }

    fn end(&mut self, sim: &mut Sim, rng: &mut Rng) {
        match rng.up_to(2) {
            0 => sim.hand_reset(self.remote),
            1 => sim.hand_close(self.remote),
            _ => {
                sim.hand_finish(self.remote);
                self.finished = true;
                self.requests_left = usize::MAX;
                return;
            }
        }
        self.over = true;
    }
}
