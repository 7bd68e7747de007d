//! Clients that ask much, or what is slow, beside those that don't.

use super::super::BOUNDS;
use super::super::actors::{answer_to, framed, query};
use super::*;

/// So many queries a backend reads of a connection before it answers one of them, as Unbound does.
const READ_MAX: usize = 32;
const PATIENT: Bounds = Bounds {
    message_max: 65_537,
    outstanding_per_client: 256,
    answer_timeout: Duration::from_secs(5),
    attempt_timeout: Duration::from_secs(2),
    message_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(10),
    outstanding_per_upstream: 4096,
    ..BOUNDS
};

/// A connection to a backend that answers at once, but for slow names, which it never does.
struct Recursor {
    remote: RemoteId,
    received: Vec<u8>,
    out: Vec<u8>,
    slow: usize,
}

impl Recursor {
    fn all_of(stage: &mut Stage) -> Vec<Self> {
        let remotes = stage.upstreams(0);
        remotes.into_iter().map(|remote| Self { remote, received: Vec::new(), out: Vec::new(), slow: 0 }).collect()
    }

    /// Reads and answers as far as it does.
    fn act(&mut self, stage: &mut Stage) {
        self.received.extend(stage.hear(self.remote).0);
        while self.slow < READ_MAX
            && let Some(len) = self.received.get(..2).map(|len| 2 + usize::from(u16::from_be_bytes([len[0], len[1]])))
            && len <= self.received.len()
        {
            let message: Vec<u8> = self.received.drain(..len).skip(2).collect();
            if message[13] == b's' {
                self.slow += 1;
            } else {
                self.out.extend(framed(&answer_to(&message)));
            }
        }
        stage.put(self.remote, &mut self.out);
    }
}

impl Stage {
    /// Has a remote send what there's room for.
    fn put(&mut self, remote: RemoteId, bytes: &mut Vec<u8>) {
        while !bytes.is_empty()
            && let Progress::Moved(count) = self.core.parts().1.backend().hand_send(remote, bytes).unwrap()
        {
            bytes.drain(..count);
        }
    }

    /// Has a new client ask one question, and says after how many milliseconds it has the answer, if it has within so many.
    fn is_answered_within(&mut self, recursors: &mut [Recursor], name: &str, most: u64) -> Option<u64> {
        let client = self.client();
        let mut asked = query(7, name, 1);
        for millis in 0..most {
            self.put(client, &mut asked);
            self.pass(1);
            recursors.iter_mut().for_each(|recursor| recursor.act(self));
            if !self.hear(client).0.is_empty() {
                self.core.parts().1.backend().hand_close(client);
                return Some(millis);
            }
        }
        self.core.parts().1.backend().hand_close(client);
        None
    }
}

/// Asks for slow names, as many as may be.
fn ask_slow_names(stage: &mut Stage, count: u16) -> RemoteId {
    let client = stage.client();
    stage.put(client, &mut (0..count).flat_map(|id| query(id, "s", 1)).collect());
    client
}

#[test]
fn clients_that_ask_for_slow_names_only_hold_up_no_other() {
    let mut stage = Stage::new(Matching::Id, 1, PATIENT);
    let mut recursors = Recursor::all_of(&mut stage);
    assert_eq!(recursors.len(), 2);
    let greedy: Vec<RemoteId> = (0..4).map(|_| ask_slow_names(&mut stage, 256)).collect();
    for round in 0..100 {
        let within = stage.is_answered_within(&mut recursors, "quick", 1000);
        assert!(within.is_some_and(|millis| millis < 5), "round {round}: {within:?}");
    }
    assert_eq!(greedy.len(), 4);
}

#[test]
fn an_upstream_that_is_read_no_more_is_left_to_what_is_slow() {
    let mut stage = Stage::new(Matching::Id, 1, PATIENT);
    let mut recursors = Recursor::all_of(&mut stage);
    // Five are out on each; one connection's are answered, and then it's read no more. So it has the fewest out.
    ask_slow_names(&mut stage, 10);
    stage.pass(5);
    let mut slow = stage.hear(recursors[0].remote).0;
    assert_eq!(slow.len(), 5 * query(0, "s", 1).len());
    let mut answers = Vec::new();
    while !slow.is_empty() {
        let message: Vec<u8> = slow.drain(..query(0, "s", 1).len()).skip(2).collect();
        answers.extend(framed(&answer_to(&message)));
    }
    stage.say(recursors[0].remote, &answers);
    recursors[0].slow = READ_MAX;
    // One or two find out.
    let waited = (0..100).filter(|_| stage.is_answered_within(&mut recursors, "quick", 60).is_none()).count();
    assert!(waited <= 2, "{waited} of 100 went where nothing is read");
}

#[test]
fn who_has_hundreds_waiting_has_one_turn_in_each_round() {
    let bounds = Bounds { outstanding_per_upstream: 1, upstreams_per_backend: 1, ..PATIENT };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let mut recursors = Recursor::all_of(&mut stage);
    let many = stage.client();
    stage.put(many, &mut (0..200).flat_map(|id| query(id, "many", 1)).collect());
    stage.pass(20);
    let within = stage.is_answered_within(&mut recursors, "quick", 300);
    assert!(within.is_some_and(|millis| millis < 10), "{within:?}");
}

#[test]
fn long_requests_of_one_client_take_a_small_part_of_the_arena() {
    let mut stage = Stage::new(Matching::Id, 1, PATIENT);
    let client = stage.core.parts().1.backend().hand_client(&port(1000), 20_000_000);
    stage.pass(20);
    let record = [&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0xea, 0x64, 0, 12, 0xea, 0x60][..], &[0; 60_000]].concat();
    let mut long: Vec<u8> = (0..250).flat_map(|id| query_with(id, &record)).collect();
    stage.put(client, &mut long);
    stage.pass(50);
    let used = stage.core.parts().0.mux.chunks.used() * crate::chunks::CHUNK_BYTES;
    assert!(used < 512 * 1024, "{used} bytes of one client wait");
    let mut recursors = Recursor::all_of(&mut stage);
    assert!(stage.is_answered_within(&mut recursors, "quick", 50).is_some());
    assert_eq!(stage.counters.requests_max.value(), 0);
    // It's read on as they're answered.
    for _ in 0..2000 {
        recursors.iter_mut().for_each(|recursor| recursor.act(&mut stage));
        stage.pass(1);
        stage.hear(client);
    }
    assert_eq!(stage.counters.answers.value(), 251);
}
