//! Single promises, each by itself.

mod fair;
mod faults;
mod idle;
mod outages;
mod owed;
mod poison;
mod transfers;

use std::sync::Arc;
use std::time::Duration;

use midmile_engine::backend::Progress;
use midmile_engine::sim::{DialOutcome, RemoteId, Sim};
use midmile_engine::{Addr, Config, Core, LegOptions, Time};

use super::actors::{answer_to, framed, query, transfer_of};
use super::{BOUNDS, Owner, port, service};
use crate::{Bounds, Counters, End, Matching, Mux, Refused, Service};

pub(super) const ROOM: usize = 100_000;

/// A mux with some backends, all of whom a test acts for.
pub(super) struct Stage {
    pub(super) core: Core<Sim, Owner>,
    pub(super) places: Vec<Addr>,
    pub(super) counters: Arc<Counters>,
}

impl Stage {
    fn new(matching: Matching, places: usize, bounds: Bounds) -> Self {
        Self::with(places, |places| service(places, matching, bounds))
    }

    /// So many places, and what is served of them.
    pub(super) fn with(places: usize, service: impl FnOnce(&[Addr]) -> Service) -> Self {
        let config = Config { conns_max: 100, catch_panics: false, ..Config::default() };
        let mut core = Core::new(Sim::new(7, false), config, Owner::new(Mux::new(20, 300)));
        let places: Vec<Addr> = (0..places).map(|place| port(2000 + place)).collect();
        let counters = Arc::new(Counters::default());
        let (owner, cx) = core.parts();
        for place in &places {
            cx.backend().server(place, vec![DialOutcome::ByHand(Duration::from_millis(1), ROOM)]);
        }
        cx.listen_at(&port(1000), &LegOptions::default(), 100).unwrap();
        owner.service = Some(owner.mux.serve(cx, Arc::new(service(&places)), counters.clone(), Arc::default()));
        let mut stage = Self { core, places, counters };
        stage.pass(20);
        stage
    }

    /// Lets so many milliseconds pass.
    pub(super) fn pass(&mut self, millis: u64) {
        let until = self.core.parts().1.now().after(Duration::from_millis(millis));
        while self.core.parts().1.now() < until {
            self.core.turn().unwrap();
            let (owner, cx) = self.core.parts();
            owner.mux.check();
            let due = owner.mux.due().unwrap_or(Time::ZERO.after(Duration::from_secs(1000)));
            cx.set_alarm(due.since(cx.now()).min(Duration::from_millis(1)));
        }
    }

    pub(super) fn client(&mut self) -> RemoteId {
        let client = self.core.parts().1.backend().hand_client(&port(1000), ROOM);
        self.pass(20);
        client
    }

    pub(super) fn say(&mut self, remote: RemoteId, bytes: &[u8]) {
        self.send(remote, bytes);
        self.pass(20);
    }

    /// Has a remote send this, and lets time pass only as far as that needs.
    fn send(&mut self, remote: RemoteId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.core.parts().1.backend().hand_send(remote, bytes).unwrap() {
                Progress::Moved(count) => bytes = &bytes[count..],
                _ => self.pass(1),
            }
        }
    }

    /// What has come to a remote since it was last asked, and whether it has seen the end.
    pub(super) fn hear(&mut self, remote: RemoteId) -> (Vec<u8>, bool) {
        let (mut all, mut buffer) = (Vec::new(), [0; 5000]);
        loop {
            match self.core.parts().1.backend().hand_recv(remote, &mut buffer) {
                Ok(Progress::Moved(count)) => all.extend(&buffer[..count]),
                Ok(Progress::Blocked) => return (all, false),
                Ok(Progress::Ended) | Err(_) => return (all, true),
            }
        }
    }

    /// The upstreams of a place that were ever dialled.
    pub(super) fn upstreams(&mut self, place: usize) -> Vec<RemoteId> {
        self.core.parts().1.backend().dialled(&self.places[place]).collect()
    }

    /// The upstream on which a request has come, and the request, which is the only one there.
    pub(super) fn asked(&mut self) -> Option<(RemoteId, Vec<u8>)> {
        let all: Vec<RemoteId> = (0..self.places.len()).flat_map(|place| self.upstreams(place)).collect();
        all.into_iter().find_map(|upstream| {
            let (heard, _) = self.hear(upstream);
            (!heard.is_empty()).then_some((upstream, heard))
        })
    }

    fn ends(&mut self) -> Vec<End> {
        self.core.parts().0.ended.iter().map(|ended| ended.end).collect()
    }
}

pub(super) fn with_id(framed: &[u8], id: &[u8]) -> Vec<u8> {
    [&framed[..2], id, &framed[4..]].concat()
}

/// A query for `a` with these bytes behind its question, which are one additional record.
pub(super) fn query_with(id: u16, record: &[u8]) -> Vec<u8> {
    let mut bytes = query(id, "a", 1)[2..].to_vec();
    bytes[11] = 1;
    bytes.extend(record);
    framed(&bytes)
}

pub(super) const TSIG: &[u8] = &[1, b'k', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 3, 1, 2, 3];
pub(super) const KEEPALIVE: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 11, 0, 2, 0xff, 0xff];

#[test]
fn signed_messages_cross_untouched_but_for_the_id() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let asked = query_with(0xabcd, TSIG);
    stage.say(client, &asked);
    let (upstream, heard) = stage.asked().unwrap();
    assert_eq!(with_id(&heard, &[0xab, 0xcd]), asked);
    let mut answer = heard;
    answer[4] |= 0x80;
    stage.say(upstream, &answer);
    assert_eq!(stage.hear(client).0, with_id(&answer, &[0xab, 0xcd]));
}

#[test]
fn a_keepalive_timeout_becomes_ours_in_place_and_nothing_else_changes() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query_with(1, KEEPALIVE));
    let (upstream, mut answer) = stage.asked().unwrap();
    answer[4] |= 0x80;
    stage.say(upstream, &answer);
    let mut expected = with_id(&answer, &[0, 1]);
    let len = expected.len();
    // 600 ms.
    expected[len - 2..].copy_from_slice(&[0, 6]);
    assert_eq!(stage.hear(client).0, expected);
}

#[test]
fn a_signed_answer_keeps_its_keepalive_timeout() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query_with(1, KEEPALIVE));
    let (upstream, heard) = stage.asked().unwrap();
    let mut answer = [&heard[2..], TSIG].concat();
    (answer[2], answer[11]) = (0x81, 2);
    stage.say(upstream, &framed(&answer));
    assert_eq!(stage.hear(client).0, with_id(&framed(&answer), &[0, 1]));
}

#[test]
fn stateful_operations_are_declined() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &framed(&[0, 9, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(stage.hear(client).0, framed(&[0, 9, 0xb0, 4, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(stage.counters.declined.value(), 1);
}

#[test]
fn one_slow_answer_delays_no_other() {
    let bounds = Bounds { upstreams_per_backend: 1, ..BOUNDS };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let client = stage.client();
    let (slow, quick) = (query(5, "slow", 1), query(5, "quick", 1));
    stage.say(client, &[&slow[..], &quick].concat());
    let (upstream, heard) = stage.asked().unwrap();
    let (first, second) = heard.split_at(slow.len());
    assert_ne!(first[2..4], second[2..4], "two requests under one id");
    stage.say(upstream, &framed(&answer_to(&second[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&quick[2..])));
    stage.say(upstream, &framed(&answer_to(&first[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&slow[2..])));
}

#[test]
fn an_answer_is_acknowledged_at_once_where_others_are_awaited_and_nothing_is_sent() {
    let bounds = Bounds { upstreams_per_backend: 1, ..BOUNDS };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let client = stage.client();
    let (first, second) = (query(1, "a", 1), query(2, "b", 1));
    stage.say(client, &[&first[..], &second].concat());
    let (upstream, heard) = stage.asked().unwrap();
    let (one, two) = heard.split_at(first.len());
    let acknowledged = |stage: &mut Stage| stage.core.parts().1.backend().remote(upstream).acknowledged();
    assert_eq!(acknowledged(&mut stage), 0);
    stage.say(upstream, &framed(&answer_to(&one[2..])));
    assert_eq!(acknowledged(&mut stage), 1, "the other answer may be held back until the backend hears of this one");
    stage.say(upstream, &framed(&answer_to(&two[2..])));
    assert_eq!(acknowledged(&mut stage), 1, "nothing is held back: the next request tells");
    assert_eq!(stage.hear(client).0.len(), framed(&answer_to(&one[2..])).len() + framed(&answer_to(&two[2..])).len());
}

#[test]
fn a_backend_that_was_just_told_of_answers_is_told_of_more_a_little_later() {
    let bounds = Bounds { upstreams_per_backend: 1, ..BOUNDS };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let client = stage.client();
    let queries: Vec<Vec<u8>> = (0..4).map(|id| query(id, "a", 1)).collect();
    stage.say(client, &queries.concat());
    let (upstream, heard) = stage.asked().unwrap();
    let answers: Vec<Vec<u8>> = heard.chunks(queries[0].len()).map(|asked| framed(&answer_to(&asked[2..]))).collect();
    let acknowledged = |stage: &mut Stage| stage.core.parts().1.backend().remote(upstream).acknowledged();
    let began = stage.core.parts().1.now();
    for answer in &answers[..3] {
        stage.send(upstream, answer);
        stage.core.turn().unwrap();
    }
    let pauses = stage.core.parts().1.now().since(began).as_micros() / 250;
    let at_once = acknowledged(&mut stage);
    assert!((1..=1 + u64::try_from(pauses).unwrap()).contains(&at_once) && at_once < 3, "{at_once} in {pauses} pauses");
    stage.pass(2);
    assert_eq!(acknowledged(&mut stage), at_once + 1, "the last answer may be held back");
    stage.pass(50);
    assert_eq!(acknowledged(&mut stage), at_once + 1, "it's told once");
}

#[test]
fn a_request_goes_to_another_backend_when_its_own_is_lost() {
    let mut stage = Stage::new(Matching::Id, 2, BOUNDS);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    let (lost, heard) = stage.asked().unwrap();
    stage.core.parts().1.backend().hand_reset(lost);
    stage.pass(20);
    let (upstream, again) = stage.asked().unwrap();
    assert_ne!(stage.upstreams(0).contains(&lost), stage.upstreams(0).contains(&upstream), "the same backend");
    assert_eq!(with_id(&again, &heard[2..4]), heard);
    stage.say(upstream, &framed(&answer_to(&again[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
    assert_eq!((stage.counters.retries.value(), stage.counters.upstreams_lost.value()), (1, 1));
}

#[test]
fn a_change_to_a_zone_is_never_sent_twice() {
    let mut stage = Stage::new(Matching::Id, 2, BOUNDS);
    let client = stage.client();
    let mut update = query(1, "a", 6);
    update[4] = 5 << 3;
    stage.say(client, &update);
    let (lost, _) = stage.asked().unwrap();
    stage.pass(100);
    assert_eq!(stage.asked(), None);
    stage.core.parts().1.backend().hand_reset(lost);
    stage.pass(20);
    assert_eq!(stage.asked(), None);
    let (heard, _) = stage.hear(client);
    assert_eq!((heard[4], heard[5]), (0x80 | 5 << 3, 2));
}

#[test]
fn the_first_of_two_silent_backends_that_answers_is_heard() {
    let mut stage = Stage::new(Matching::Id, 2, BOUNDS);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    let (first, heard) = stage.asked().unwrap();
    stage.pass(80);
    let (second, again) = stage.asked().unwrap();
    assert_ne!(first, second);
    stage.say(first, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
    stage.say(second, &framed(&answer_to(&again[2..])));
    assert_eq!(stage.hear(client), (Vec::new(), false));
    assert_eq!((stage.counters.retries.value(), stage.counters.answers_late.value()), (1, 1));
}

#[test]
fn without_an_answer_in_time_it_is_servfail() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query(0x0102, "a", 1));
    stage.pass(250);
    let (heard, ended) = stage.hear(client);
    let mut expected = query(0x0102, "a", 1);
    (expected[4], expected[5]) = (0x81, 2);
    assert_eq!((heard, ended), (expected, false));
    assert_eq!(stage.counters.servfails.value(), 1);
}

#[test]
fn answers_to_other_questions_are_dropped() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    let (upstream, heard) = stage.asked().unwrap();
    let id = u16::from_be_bytes([heard[2], heard[3]]);
    for stray in [query(id, "b", 1), query(id, "a", 28), query(id + 1, "a", 1)] {
        stage.say(upstream, &framed(&answer_to(&stray[2..])));
    }
    stage.say(upstream, &heard);
    // The answer to a notification (RFC 1996) about the same.
    let mut notified = framed(&answer_to(&heard[2..]));
    notified[4] |= 4 << 3;
    stage.say(upstream, &notified);
    assert_eq!((stage.hear(client).0, stage.counters.answers_stray.value()), (Vec::new(), 5));
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
}

#[test]
fn everything_read_is_answered_before_the_close() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    stage.core.parts().1.backend().hand_finish(client);
    stage.pass(50);
    assert_eq!(stage.hear(client), (Vec::new(), false));
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client), (framed(&answer_to(&query(1, "a", 1)[2..])), true));
    assert_eq!(stage.ends(), [End::Finished]);
}

#[test]
fn a_drain_ends_idle_clients_at_once_and_others_with_their_answers() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let (idle, busy) = (stage.client(), stage.client());
    stage.say(busy, &query(1, "a", 1));
    let (owner, cx) = stage.core.parts();
    owner.mux.drain(cx);
    stage.pass(5);
    assert_eq!((stage.hear(idle), stage.hear(busy)), ((Vec::new(), true), (Vec::new(), false)));
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(busy), (framed(&answer_to(&query(1, "a", 1)[2..])), true));
    stage.core.parts().1.backend().hand_close(busy);
    stage.pass(20);
    assert_eq!(stage.ends(), [End::Drained; 2]);
    let late = stage.client();
    assert!(stage.hear(late).1, "one more was taken in");
    assert_eq!(stage.counters.refusals[Refused::Draining.index()].value(), 1);
}

#[test]
fn a_reload_moves_requests_to_new_places_and_answers_old_ones() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    let (old, heard) = stage.asked().unwrap();
    let new = port(2900);
    let (owner, cx) = stage.core.parts();
    cx.backend().server(&new, vec![DialOutcome::ByHand(Duration::from_millis(1), ROOM)]);
    owner.mux.swap(cx, owner.service.unwrap(), Arc::new(service(std::slice::from_ref(&new), Matching::Id, BOUNDS)));
    stage.pass(20);
    stage.places.push(new);
    stage.say(client, &query(2, "b", 1));
    let (upstream, other) = stage.asked().unwrap();
    assert!(stage.upstreams(1).contains(&upstream));
    stage.say(old, &framed(&answer_to(&heard[2..])));
    stage.say(upstream, &framed(&answer_to(&other[2..])));
    let answers = [query(1, "a", 1), query(2, "b", 1)].map(|query| framed(&answer_to(&query[2..]))).concat();
    assert_eq!(stage.hear(client).0, answers);
    let upstreams = stage.upstreams(0);
    assert!(upstreams.into_iter().all(|upstream| stage.hear(upstream).1), "an old upstream stays");
    assert_eq!(stage.counters.upstreams_open.value(), 2);
}

#[test]
fn a_service_that_is_retired_goes_with_its_last_client() {
    let mut stage = Stage::new(Matching::Order, 1, BOUNDS);
    let client = stage.client();
    let (owner, cx) = stage.core.parts();
    owner.mux.retire(cx, owner.service.unwrap());
    stage.say(client, b"a\n");
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &heard);
    assert_eq!(stage.hear(client).0, b"a\n");
    stage.core.parts().1.backend().hand_close(client);
    stage.pass(20);
    assert_eq!(stage.core.parts().1.conns_open(), 0);
    assert_eq!(stage.ends(), [End::Finished]);
}

#[test]
fn so_many_clients_of_one_address() {
    let bounds = Bounds { clients_per_address: 2, ..BOUNDS };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let [first, _, third] = [(); 3].map(|()| stage.client());
    assert!(stage.hear(third).1 && !stage.hear(first).1);
    assert_eq!(stage.counters.refusals[Refused::ClientsPerAddress.index()].value(), 1);
    stage.core.parts().1.backend().hand_close(first);
    stage.pass(20);
    let fourth = stage.client();
    assert!(!stage.hear(fourth).1);
}

#[test]
fn a_slow_message_ends_its_client_and_an_idle_one_ends_by_another_name() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let (slow, _idle) = (stage.client(), stage.client());
    for byte in &query(1, "a", 1)[..10] {
        stage.say(slow, &[*byte]);
    }
    assert_eq!(stage.ends(), []);
    stage.pass(500);
    assert_eq!((stage.hear(slow), stage.ends()), ((Vec::new(), true), vec![End::IdleTimeout]));
    assert_eq!(stage.asked(), None, "a backend heard of half a message");
    stage.core.parts().1.backend().hand_close(slow);
    stage.pass(20);
    assert_eq!(stage.ends(), [End::IdleTimeout, End::MessageTimeout]);
}

#[test]
fn a_slow_message_costs_its_client_no_answer_to_what_it_asked_before() {
    let patient = Duration::from_secs(2);
    let bounds = Bounds { answer_timeout: patient, attempt_timeout: patient, ..BOUNDS };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let client = stage.client();
    stage.say(client, &[&query(1, "a", 1)[..], &[0]].concat());
    let (upstream, heard) = stage.asked().unwrap();
    stage.pass(700);
    assert_eq!((stage.hear(client), stage.ends()), ((Vec::new(), false), vec![]));
    // What comes too late is no request any more.
    stage.say(client, &query(2, "b", 1)[1..]);
    assert_eq!(stage.asked(), None);
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client), (framed(&answer_to(&query(1, "a", 1)[2..])), true));
    stage.pass(1000);
    assert_eq!(stage.ends(), [End::MessageTimeout]);
}

#[test]
fn an_unhealthy_place_gets_nothing_while_another_works() {
    let mut stage = Stage::new(Matching::Id, 2, BOUNDS);
    let shape = service(&stage.places, Matching::Id, BOUNDS);
    shape.backends[0].healthy.store(false, std::sync::atomic::Ordering::Relaxed);
    let (owner, cx) = stage.core.parts();
    owner.mux.swap(cx, owner.service.unwrap(), Arc::new(shape));
    let client = stage.client();
    for at in 0..4 {
        stage.say(client, &query(at, "a", 1));
        let (upstream, heard) = stage.asked().unwrap();
        assert!(stage.upstreams(1).contains(&upstream));
        stage.say(upstream, &framed(&answer_to(&heard[2..])));
    }
    assert_eq!(stage.counters.answers.value(), 4);
    assert_eq!(stage.counters.upstreams_dialled.value(), 4, "a reload that changes no place dials none");
}
