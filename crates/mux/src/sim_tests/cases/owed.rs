//! Long answers, and clients that take them slowly or not at all.

use super::*;
use crate::chunks::CHUNK_BYTES;

/// A backend's only connection, which answers all at once, and whose answers are long.
struct Resolver {
    remote: RemoteId,
    received: Vec<u8>,
    out: Vec<u8>,
}

/// An answer with about so many bytes.
fn long_answer(query: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = query.to_vec();
    (bytes[2], bytes[3], bytes[7]) = (0x81, 0x80, 1);
    bytes.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0]);
    bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
    bytes.resize(bytes.len() + len, b'x');
    bytes
}

/// The messages at the front, taken out.
fn take_messages(bytes: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some(len) = bytes.get(at..at + 2)
        && let end = at + 2 + usize::from(u16::from_be_bytes([len[0], len[1]]))
        && let Some(message) = bytes.get(at + 2..end)
    {
        all.push(message.to_vec());
        at = end;
    }
    bytes.drain(..at);
    all
}

impl Resolver {
    /// Answers what has come with answers of so many bytes, as far as there's room, and lets a millisecond pass.
    fn answer(&mut self, stage: &mut Stage, len: usize) {
        self.received.extend(stage.hear(self.remote).0);
        for query in take_messages(&mut self.received) {
            self.out.extend(framed(&long_answer(&query, len)));
        }
        if let Progress::Moved(count) = stage.core.parts().1.backend().hand_send(self.remote, &self.out).unwrap() {
            self.out.drain(..count);
        }
        stage.pass(1);
    }

    /// The same until nobody waits for anything.
    fn answer_all(&mut self, stage: &mut Stage, len: usize) {
        while stage.counters.requests_open.value() > 0 {
            self.answer(stage, len);
        }
    }
}

/// A stage of time enough, and its backend.
fn long_stage() -> (Stage, Resolver) {
    let patient = Duration::from_secs(5);
    stage_of(BOUNDS.message_timeout, patient)
}

/// The same with so much time for a client's message, and for a client to take answers.
fn stage_of(message_timeout: Duration, idle_timeout: Duration) -> (Stage, Resolver) {
    let patient = Duration::from_secs(5);
    let bounds = Bounds {
        message_max: 65_537,
        outstanding_per_client: 256,
        message_timeout,
        idle_timeout,
        answer_timeout: patient,
        attempt_timeout: patient,
        upstreams_per_backend: 1,
        outstanding_per_upstream: 300,
        ..BOUNDS
    };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let remote = stage.upstreams(0)[0];
    (stage, Resolver { remote, received: Vec::new(), out: Vec::new() })
}

fn queries(count: u16) -> Vec<u8> {
    (0..count).flat_map(|id| query(id, "a", 16)).collect()
}

impl Stage {
    /// Bytes that wait in between.
    fn waits(&mut self) -> usize {
        self.core.parts().0.mux.chunks.used() * CHUNK_BYTES
    }

    /// Has a client take up to 8,000 bytes.
    fn take_some(&mut self, client: RemoteId, got: &mut Vec<u8>) {
        let mut buffer = [0; 8000];
        match self.core.parts().1.backend().hand_recv(client, &mut buffer) {
            Ok(Progress::Moved(count)) => got.extend(&buffer[..count]),
            Ok(Progress::Blocked) => {}
            other => panic!("the client has ended: {other:?} {:?}", self.ends()),
        }
    }

    /// How much of what a new client asks at once is taken before it has an answer; then it has all its answers, of so many
    /// bytes.
    fn asks_at_once(&mut self, resolver: &mut Resolver, count: u16, len: usize) -> usize {
        let client = self.client();
        self.say(client, &queries(count));
        resolver.received.extend(self.hear(resolver.remote).0);
        let asked = usize::try_from(self.counters.requests_open.value()).unwrap();
        let (mut got, mut have) = (Vec::new(), 0);
        while have < count {
            resolver.answer(self, len);
            self.take_some(client, &mut got);
            have += u16::try_from(take_messages(&mut got).len()).unwrap();
        }
        self.core.parts().1.backend().hand_close(client);
        self.pass(5);
        asked
    }

    /// Has a client ask so often, and take short answers.
    fn get_used_to_short_answers(&mut self, client: RemoteId, resolver: &mut Resolver) {
        for _ in 0..4 {
            self.say(client, &queries(15));
            resolver.answer_all(self, 10);
            self.pass(5);
            self.hear(client);
        }
    }
}

#[test]
fn long_answers_to_all_that_a_client_asked_at_once_come_as_it_takes_them() {
    let (mut stage, mut resolver) = long_stage();
    let client = stage.client();
    let count = 250;
    stage.say(client, &queries(count));
    let (mut got, mut ids) = (Vec::new(), Vec::new());
    while ids.len() < usize::from(count) {
        resolver.answer(&mut stage, 59_000);
        stage.take_some(client, &mut got);
        for answer in take_messages(&mut got) {
            assert_eq!(answer[2..], long_answer(&query(0, "a", 16)[2..], 59_000)[2..]);
            ids.push(u16::from_be_bytes([answer[0], answer[1]]));
        }
        assert!(stage.waits() < 3 * 1024 * 1024 / 2, "{} bytes wait in between", stage.waits());
    }
    ids.sort_unstable();
    assert_eq!((ids, stage.ends()), ((0..count).collect(), vec![]));
}

#[test]
fn a_new_client_may_ask_the_more_at_once_the_shorter_all_answers_of_late_were() {
    let (mut stage, mut resolver) = long_stage();
    assert_eq!(stage.asks_at_once(&mut resolver, 100, 10), 17, "nothing is known of the answers");
    for _ in 0..4 {
        stage.asks_at_once(&mut resolver, 100, 10);
    }
    assert_eq!(stage.asks_at_once(&mut resolver, 100, 10), 100);
    stage.asks_at_once(&mut resolver, 1, 59_000);
    assert_eq!(stage.asks_at_once(&mut resolver, 100, 10), 18, "a long one came just now");
}

#[test]
fn the_longest_answers_to_all_that_a_new_client_asks_at_once_fit_half_of_the_arena() {
    let (mut stage, mut resolver) = long_stage();
    for _ in 0..6 {
        stage.asks_at_once(&mut resolver, 100, 10);
    }
    let client = stage.client();
    stage.say(client, &queries(250));
    assert_eq!(stage.counters.requests_open.value(), 129);
    (0..4000).for_each(|_| resolver.answer(&mut stage, 65_000));
    let (waits, arena) = (stage.waits(), 32_768 * CHUNK_BYTES);
    assert!((arena / 3..arena / 2 + 200_000).contains(&waits), "{waits} bytes wait in between");
    assert_eq!(stage.ends(), [End::Finished; 6], "one that waits for its answers was ended");
}

#[test]
fn a_client_that_takes_no_long_answer_ends_by_its_time_alone() {
    let (mut stage, mut resolver) = long_stage();
    let client = stage.client();
    stage.say(client, &queries(250));
    (0..4000).for_each(|_| resolver.answer(&mut stage, 59_000));
    assert!(stage.waits() < 3 * 1024 * 1024 / 2, "{} bytes wait in between", stage.waits());
    assert_eq!(stage.ends(), []);
    (0..1500).for_each(|_| resolver.answer(&mut stage, 59_000));
    assert_eq!((stage.ends(), stage.waits()), (vec![End::AnswersUnread], 0));
}

#[test]
fn a_long_time_for_messages_gives_nobody_longer_to_take_answers() {
    let (mut stage, mut resolver) = stage_of(Duration::from_secs(60), Duration::from_secs(1));
    let client = stage.client();
    let half = &query(9, "a", 16)[..5];
    stage.say(client, &[&queries(3), half].concat());
    // Its timer has run out once meanwhile.
    stage.pass(1500);
    resolver.answer_all(&mut stage, 59_000);
    assert!(stage.waits() > 0);
    stage.pass(2100);
    assert_eq!((stage.ends(), stage.waits()), (vec![End::AnswersUnread], 0));
}

#[test]
fn the_time_to_take_answers_begins_when_they_begin_to_wait() {
    let (mut stage, mut resolver) = stage_of(BOUNDS.message_timeout, Duration::from_secs(1));
    let client = stage.client();
    // Two answers fill the client's window to the last byte.
    stage.say(client, &queries(2));
    resolver.answer_all(&mut stage, ROOM / 2 - framed(&long_answer(&query(0, "a", 16)[2..], 0)).len());
    assert_eq!(stage.waits(), 0);
    stage.pass(700);
    stage.say(client, &queries(1));
    resolver.answer_all(&mut stage, 10);
    assert!(stage.waits() > 0);
    stage.pass(800);
    assert_eq!(stage.ends(), []);
    stage.pass(300);
    assert_eq!(stage.ends(), [End::AnswersUnread]);
}

#[test]
fn whoever_goes_on_taking_answers_may_take_as_long_as_that_needs() {
    let (mut stage, mut resolver) = stage_of(BOUNDS.message_timeout, Duration::from_secs(1));
    let client = stage.client();
    stage.say(client, &queries(5));
    resolver.answer_all(&mut stage, 59_000);
    let mut got = Vec::new();
    // Each piece well within the time for one, all together not.
    while take_messages(&mut got.clone()).len() < 5 {
        stage.take_some(client, &mut got);
        stage.pass(100);
    }
    // What the kernel has of the last ones arrives after an end in order as well.
    assert!(!stage.ends().contains(&End::AnswersUnread));
}

#[test]
fn whoever_is_owed_more_than_64_kib_is_not_read() {
    let (mut stage, mut resolver) = long_stage();
    let client = stage.client();
    stage.say(client, &queries(3));
    resolver.answer_all(&mut stage, 59_000);
    stage.say(client, &queries(1));
    assert_eq!(stage.counters.requests.value(), 3);
    let mut got = Vec::new();
    for _ in 0..6 {
        stage.take_some(client, &mut got);
        stage.pass(5);
    }
    assert_eq!(stage.counters.requests.value(), 4);
}

#[test]
fn behind_seventeen_of_a_new_client_more_follow_after_four_short_answers() {
    let (mut stage, mut resolver) = long_stage();
    let client = stage.client();
    stage.say(client, &queries(100));
    resolver.received.extend(stage.hear(resolver.remote).0);
    for (query, answered) in take_messages(&mut resolver.received).iter().zip(1..=4) {
        stage.say(resolver.remote, &framed(&long_answer(query, 10)));
        assert_eq!(stage.counters.requests.value() > 17, answered == 4, "after {answered}");
    }
}

#[test]
fn whoever_has_as_many_requests_as_may_be_is_read_on_once_half_are_answered() {
    let bounds = Bounds { outstanding_per_client: 4, upstreams_per_backend: 1, outstanding_per_upstream: 50, ..BOUNDS };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let client = stage.client();
    stage.say(client, &queries(9));
    let (upstream, mut asked) = stage.asked().unwrap();
    let asked = take_messages(&mut asked);
    for (query, requests) in asked.iter().zip([4, 6, 6, 8]) {
        stage.say(upstream, &framed(&answer_to(query)));
        assert_eq!(stage.counters.requests.value(), requests);
    }
}

#[test]
fn answers_that_wait_give_nobody_longer_for_a_message() {
    let (mut stage, mut resolver) = stage_of(Duration::from_secs(1), Duration::from_secs(5));
    let client = stage.client();
    let (half, rest) = (&query(9, "a", 16)[..5], &query(9, "a", 16)[5..]);
    stage.say(client, &[&queries(2), half].concat());
    resolver.answer_all(&mut stage, 59_000);
    assert!(stage.waits() > 0);
    stage.pass(1100);
    stage.say(client, rest);
    assert_eq!(stage.counters.requests.value(), 2, "it's no request any more");
    let mut got = Vec::new();
    while take_messages(&mut got.clone()).len() < 2 {
        stage.take_some(client, &mut got);
        stage.pass(1);
    }
    stage.pass(1100);
    assert_eq!(stage.ends(), [End::MessageTimeout]);
}

#[test]
fn answers_longer_than_any_before_wait_while_half_of_the_arena_is_free() {
    let (mut stage, mut resolver) = long_stage();
    let [patient, greedy] = [(); 2].map(|()| stage.client());
    for client in [patient, greedy] {
        stage.get_used_to_short_answers(client, &mut resolver);
    }
    stage.say(patient, &queries(99));
    resolver.answer_all(&mut stage, 60_000);
    assert!(stage.waits() > 5_000_000, "only {} bytes wait in between", stage.waits());
    stage.say(greedy, &queries(99));
    resolver.answer_all(&mut stage, 60_000);
    assert_eq!(stage.ends(), [End::AnswersUnread], "a client may have all that there is");
    let mut got = Vec::new();
    while got.len() < 99 * 60_000 {
        stage.take_some(patient, &mut got);
        stage.pass(1);
    }
    assert_eq!(take_messages(&mut got).len(), 99);
}
