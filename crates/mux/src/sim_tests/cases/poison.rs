//! Questions that backends close on, beside others.

use super::super::actors::{answer_to, framed, query};
use super::faults::LONG;
use super::*;

/// A backend's end of a connection, and what has come there and isn't a whole message yet.
struct Upstream {
    remote: RemoteId,
    received: Vec<u8>,
}

/// Backends that answer all but one question, and close when they come to that.
struct Backends {
    all: Vec<Upstream>,
    gone: Vec<RemoteId>,
    /// How many connections they closed, and how many of those carried nothing but that question.
    closed: usize,
    closed_alone: usize,
}

impl Backends {
    fn new() -> Self {
        Self { all: Vec::new(), gone: Vec::new(), closed: 0, closed_alone: 0 }
    }

    /// Answers what has come, and lets two milliseconds pass.
    fn answer(&mut self, stage: &mut Stage, is_poison: impl Fn(&[u8]) -> bool) {
        for remote in (0..stage.places.len()).flat_map(|place| stage.upstreams(place)).collect::<Vec<_>>() {
            if self.gone.contains(&remote) {
                continue;
            }
            let heard = stage.hear(remote).0;
            let index = self.all.iter().position(|upstream| upstream.remote == remote).unwrap_or_else(|| {
                self.all.push(Upstream { remote, received: Vec::new() });
                self.all.len() - 1
            });
            let mut bytes = std::mem::take(&mut self.all[index].received);
            bytes.extend(heard);
            let (mut at, mut others) = (0, 0);
            while let Some(len) = bytes.get(at..at + 2)
                && let end = at + 2 + usize::from(u16::from_be_bytes([len[0], len[1]]))
                && let Some(message) = bytes.get(at + 2..end)
            {
                if is_poison(message) {
                    stage.core.parts().1.backend().hand_reset(remote);
                    self.gone.push(remote);
                    self.closed += 1;
                    self.closed_alone += usize::from(others == 0 && end == bytes.len());
                    break;
                }
                stage.send(remote, &framed(&answer_to(message)));
                (at, others) = (end, others + 1);
            }
            self.all[index].received = bytes.split_off(at);
        }
        stage.pass(2);
    }
}

/// The name that backends close on.
fn is_poison(message: &[u8]) -> bool {
    message[13..].starts_with(b"poison")
}

/// The codes of the answers in a stream, by id.
fn rcodes(mut bytes: &[u8]) -> Vec<(u16, u8)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let len = 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        all.push((u16::from_be_bytes([bytes[2], bytes[3]]), bytes[5] & 15));
        bytes = &bytes[len..];
    }
    all.sort_unstable();
    all
}

#[test]
fn a_question_that_backends_close_on_is_given_up_soon_and_all_others_are_answered() {
    let mut stage = Stage::new(Matching::Id, 2, LONG);
    let [bad, good] = [(); 2].map(|()| stage.client());
    let mut backends = Backends::new();
    let (mut bad_heard, mut good_heard) = (Vec::new(), Vec::new());
    stage.say(bad, &[1, 2, 3].map(|id| query(id, "poison", 1)).concat());
    for id in 0..200 {
        // Two milliseconds each, besides those that it takes to say.
        stage.send(good, &query(id, &format!("q{id}"), 1));
        backends.answer(&mut stage, is_poison);
        bad_heard.extend(stage.hear(bad).0);
        good_heard.extend(stage.hear(good).0);
    }
    assert_eq!(rcodes(&bad_heard), [(1, 2), (2, 2), (3, 2)], "the poison isn't given up");
    for _ in 0..300 {
        backends.answer(&mut stage, is_poison);
        good_heard.extend(stage.hear(good).0);
    }
    let expected: Vec<(u16, u8)> = (0..200).map(|id| (id, 0)).collect();
    assert_eq!(rcodes(&good_heard), expected);
    assert_eq!(stage.counters.servfails.value(), 3);
    // Each has two shared connections and three of its own at most.
    assert!(backends.closed <= 15 && backends.closed_alone >= 9, "{}, {}", backends.closed, backends.closed_alone);
}

#[test]
fn what_is_not_well_formed_is_answered_at_once_and_no_backend_hears_of_it() {
    let mut stage = Stage::new(Matching::Id, 1, LONG);
    let client = stage.client();
    let changed = |at: usize, byte: u8| {
        let mut bytes = query(0xabcd, "a", 1);
        bytes[at] = byte;
        bytes
    };
    // Two questions; none; a label of 64 bytes; a record that isn't there; an option that is cut.
    let short_option = query_with(0xabcd, &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 3, 0, 12, 0]);
    let broken = [changed(7, 2), changed(7, 0), changed(14, 64), changed(13, 1), short_option];
    for (bytes, has_question) in broken.iter().zip([false, false, false, true, true]) {
        stage.say(client, bytes);
        assert_eq!(stage.asked(), None, "{bytes:?}");
        let heard = stage.hear(client).0;
        assert_eq!((&heard[2..4], heard[4] & 0x80, heard[5] & 15), (&[0xab, 0xcd][..], 0x80, 1), "{heard:?}");
        assert_eq!(heard[7] == 1, has_question);
    }
    let counted: Vec<u64> = stage.counters.malformed.iter().map(midmile_engine::Counter::value).collect();
    assert_eq!((counted, stage.counters.servfails.value()), (vec![2, 1, 1, 1], 0));
    // The opcode is the question's (NOTIFY), and the client goes on.
    let mut notify = changed(7, 2);
    notify[4] = 4 << 3;
    stage.say(client, &notify);
    assert_eq!(stage.hear(client).0[4], 0x80 | 4 << 3);
    stage.say(client, &query(1, "a", 1));
    assert!(stage.asked().is_some());
}

#[test]
fn one_loss_leaves_a_connection_its_width() {
    let mut stage = Stage::new(Matching::Id, 1, Bounds { upstreams_per_backend: 1, ..LONG });
    // A client each, for one that has waited has fewer out at first.
    let asked: Vec<Vec<u8>> = (10..30).map(|id| query(id, &format!("q{id}"), 1)).collect();
    for asked in &asked {
        let client = stage.client();
        stage.say(client, asked);
    }
    let (upstream, heard) = stage.asked().unwrap();
    assert_eq!(heard.len(), asked.concat().len());
    stage.say(upstream, &framed(&answer_to(&heard[2..asked[0].len()])));
    stage.core.parts().1.backend().hand_finish(upstream);
    stage.pass(20);
    let (_, again) = stage.asked().unwrap();
    assert_eq!(again.len(), asked[1..].concat().len(), "fewer are out after one loss");
}
