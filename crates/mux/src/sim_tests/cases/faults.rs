//! Backends that leave, drop, refuse and change, and what becomes of requests.

use std::sync::Arc;
use std::time::Duration;

use midmile_engine::sim::{DialOutcome, RemoteId};

use super::super::actors::{answer_to, framed, query};
use super::super::{BOUNDS, port, service};
use super::{ROOM, Stage};
use crate::chunks::Chunks;
use crate::{Bounds, End, Matching};

/// One connection to a backend.
const ONE: Bounds = Bounds { upstreams_per_backend: 1, ..BOUNDS };

/// The first of the messages that stand behind one another.
fn first_of(bytes: &[u8]) -> &[u8] {
    &bytes[..2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))]
}

/// What the backends answer to queries that stand behind one another.
fn answers_to_all(mut queries: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    while !queries.is_empty() {
        let first = first_of(queries);
        answers.extend(framed(&answer_to(&first[2..])));
        queries = &queries[first.len()..];
    }
    answers
}

#[test]
fn ids_of_queries_that_a_backend_drops_come_back() {
    let bounds = Bounds { outstanding_per_upstream: 3, idle_timeout: Duration::from_mins(1), ..ONE };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let client = stage.client();
    let mut dropped = Vec::new();
    for _ in 0..2 {
        stage.say(client, &query(1, "dropped", 1));
        dropped.push(stage.asked().unwrap());
        stage.say(client, &query(2, "heard", 1));
        let (upstream, heard) = stage.asked().unwrap();
        stage.say(upstream, &framed(&answer_to(&heard[2..])));
        stage.pass(100);
    }
    stage.pass(700);
    assert_eq!((stage.counters.servfails.value(), stage.counters.upstreams_lost.value()), (2, 0));
    stage.hear(client);
    let asked = ["a", "b", "c"].map(|name| query(3, name, 1));
    stage.say(client, &asked.concat());
    let (upstream, heard) = stage.asked().unwrap();
    assert_eq!((upstream, heard.len()), (dropped[0].0, asked.concat().len()), "the upstream is full for good");
    // An answer that comes after all comes under an id that another question has now.
    stage.say(upstream, &framed(&answer_to(&dropped[0].1[2..])));
    assert_eq!((stage.hear(client).0, stage.counters.answers_stray.value()), (Vec::new(), 1));
    stage.say(upstream, &answers_to_all(&heard));
    assert_eq!(stage.hear(client).0, answers_to_all(&asked.concat()));
}

#[test]
fn an_upstream_that_falls_silent_with_an_answer_is_replaced() {
    let bounds = Bounds { outstanding_per_upstream: 1, ..ONE };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    let client = stage.client();
    stage.say(client, &[query(1, "a", 1), query(2, "b", 1)].concat());
    let (upstream, heard) = stage.asked().unwrap();
    // The other is sent in the turn of this answer.
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.asked().unwrap().0, upstream);
    stage.pass(300);
    assert_eq!((stage.counters.servfails.value(), stage.counters.upstreams_lost.value()), (1, 1));
}

#[test]
fn a_backend_that_says_something_unasked_and_leaves_is_dialled_with_pauses() {
    for (matching, words) in
        [(Matching::Order, b"-ERR max number of clients reached\r\n".to_vec()), (Matching::Id, query(0, "a", 1))]
    {
        let mut stage = Stage::new(matching, 1, ONE);
        let begun = stage.counters.upstreams_dialled.value();
        let mut left: Vec<RemoteId> = Vec::new();
        for _ in 0..1000 {
            for upstream in stage.upstreams(0) {
                if !left.contains(&upstream) && stage.core.parts().1.backend().remote(upstream).was_connected() {
                    stage.say_last(upstream, &words);
                    left.push(upstream);
                }
            }
            stage.pass(1);
        }
        let dials = stage.counters.upstreams_dialled.value() - begun;
        assert!((3..8).contains(&dials), "{dials} dials in a second");
        assert!(stage.counters.answers_stray.value() > 2);
    }
}

#[test]
fn an_answer_to_an_update_may_be_a_header_alone_and_none_to_a_query() {
    for (opcode, is_one) in [(5, true), (0, false), (4, false)] {
        let mut stage = Stage::new(Matching::Id, 1, ONE);
        let client = stage.client();
        let mut asked = query(1, "zone", 6);
        asked[4] = opcode << 3;
        stage.say(client, &asked);
        let (upstream, heard) = stage.asked().unwrap();
        let answer = |id: &[u8]| framed(&[&[id[0], id[1], 0x80 | opcode << 3, 0][..], &[0; 8]].concat());
        stage.say(upstream, &answer(&heard[2..4]));
        assert_eq!(stage.hear(client).0 == answer(&[0, 1]), is_one, "opcode {opcode}");
        assert_eq!(stage.counters.answers_stray.value(), u64::from(!is_one));
    }
}

impl Stage {
    /// A backend says this and closes.
    fn say_last(&mut self, remote: RemoteId, bytes: &[u8]) {
        self.send(remote, bytes);
        self.core.parts().1.backend().hand_finish(remote);
    }

    /// The upstream on which a request comes within half a second, and the request.
    fn comes_to(&mut self) -> (RemoteId, Vec<u8>) {
        for _ in 0..50 {
            if let Some(asked) = self.asked() {
                return asked;
            }
            self.pass(10);
        }
        panic!("it was given up");
    }

    /// Another place takes the place of all.
    fn replace_places(&mut self, matching: Matching, bounds: Bounds) {
        let new = port(2900);
        let (owner, cx) = self.core.parts();
        cx.backend().server(&new, vec![DialOutcome::ByHand(Duration::from_millis(1), ROOM)]);
        owner.mux.swap(cx, owner.service.unwrap(), Arc::new(service(std::slice::from_ref(&new), matching, bounds)));
        self.places.push(new);
    }
}

#[test]
fn a_reload_away_from_a_silent_backend_has_its_queries_answered_by_another() {
    // In its first attempt, and behind that.
    for before in [0, 100] {
        let mut stage = Stage::new(Matching::Id, 1, ONE);
        let client = stage.client();
        stage.say(client, &query(1, "a", 1));
        let (old, heard) = stage.asked().unwrap();
        stage.pass(before);
        stage.replace_places(Matching::Id, ONE);
        stage.pass(100 - before);
        stage.pass(20);
        let (new, again) = stage.asked().expect("nobody else is asked");
        assert!(stage.upstreams(1).contains(&new) && again[4..] == heard[4..]);
        stage.say(new, &framed(&answer_to(&again[2..])));
        assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
        stage.say(old, &framed(&answer_to(&heard[2..])));
        assert_eq!((stage.hear(client), stage.counters.servfails.value()), ((Vec::new(), false), 0));
    }
}

#[test]
fn a_reload_moves_a_busy_client_of_lines_once_it_has_its_answers() {
    let mut stage = Stage::new(Matching::Order, 1, ONE);
    let client = stage.client();
    stage.say(client, b"a\nb\n");
    let (old, _) = stage.asked().unwrap();
    stage.replace_places(Matching::Order, ONE);
    stage.say(client, b"c\n");
    stage.say(old, b"A\n");
    assert_eq!((stage.hear(client).0, stage.asked()), (b"A\n".to_vec(), None), "it asks two at once");
    stage.say(old, b"B\n");
    let (new, heard) = stage.asked().unwrap();
    assert!(stage.upstreams(1).contains(&new) && heard == b"c\n");
    assert!(stage.hear(old).1, "the old one stays");
    stage.pass(100);
    stage.say(new, b"C\n");
    assert_eq!((stage.hear(client), stage.ends()), ((b"B\nC\n".to_vec(), false), Vec::<End>::new()));
}

/// Time for a few pauses.
pub(super) const LONG: Bounds = Bounds {
    outstanding_per_client: 20,
    outstanding_per_upstream: 20,
    attempt_timeout: Duration::from_secs(1),
    answer_timeout: Duration::from_secs(2),
    idle_timeout: Duration::from_mins(1),
    ..BOUNDS
};

#[test]
fn a_backend_that_closes_after_each_answer_answers_all() {
    let mut stage = Stage::new(Matching::Id, 1, LONG);
    let client = stage.client();
    let asked: Vec<Vec<u8>> = (0..20).map(|at| query(at, &format!("q{at}"), 1)).collect();
    stage.say(client, &asked.concat());
    let mut left = Vec::new();
    for _ in 0..200 {
        // What comes behind its end is lost with it.
        if let Some((upstream, heard)) = stage.asked().filter(|(upstream, _)| !left.contains(upstream)) {
            stage.say_last(upstream, &framed(&answer_to(&first_of(&heard)[2..])));
            left.push(upstream);
        }
        stage.pass(2);
    }
    let len = answers_to_all(&asked.concat()).len();
    assert_eq!((stage.hear(client).0.len(), stage.counters.servfails.value()), (len, 0));
    // Each was out with others twice at most, and alone then.
    assert!(stage.counters.retries.value() <= 40, "{} were sent again", stage.counters.retries.value());
}

#[test]
fn a_query_that_is_lost_four_times_goes_on() {
    let mut stage = Stage::new(Matching::Id, 1, Bounds { upstreams_per_backend: 1, ..LONG });
    let client = stage.client();
    let asked = query(1, "a", 1);
    stage.say(client, &asked);
    // Two shared connections, between pauses of theirs, and then its own.
    for _ in 0..4 {
        let (upstream, _) = stage.comes_to();
        stage.core.parts().1.backend().hand_reset(upstream);
    }
    let (upstream, heard) = stage.comes_to();
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!((stage.hear(client).0, stage.counters.servfails.value()), (framed(&answer_to(&asked[2..])), 0));
}

#[test]
fn a_reload_brings_another_bound_to_upstreams_that_stay() {
    let few = Bounds { outstanding_per_upstream: 1, ..ONE };
    let mut stage = Stage::new(Matching::Id, 1, few);
    let client = stage.client();
    let all = [query(1, "a", 1), query(2, "b", 1), query(3, "c", 1)].concat();
    stage.say(client, &all);
    assert_eq!(stage.asked().unwrap().1.len(), all.len() / 3);
    let shape = service(&stage.places, Matching::Id, ONE);
    let (owner, cx) = stage.core.parts();
    owner.mux.swap(cx, owner.service.unwrap(), Arc::new(shape));
    stage.pass(5);
    assert_eq!(stage.asked().unwrap().1.len(), all.len() / 3 * 2);
    assert_eq!(stage.counters.upstreams_dialled.value(), 1);
}

#[test]
fn clients_that_give_up_waiting_for_room_leave_nothing() {
    let mut stage = Stage::new(Matching::Id, 1, Bounds { clients_per_address: 0, ..LONG });
    // One request is all that there is room for.
    stage.core.parts().0.mux.requests_max = 1;
    let (holder, before) = (stage.client(), stage.core.parts().0.mux.starved.capacity());
    stage.say(holder, &query(1, "a", 1));
    for at in 0..3 * u16::try_from(before).unwrap() {
        let client = stage.client();
        stage.say(client, &query(at, "b", 1));
        stage.core.parts().1.backend().hand_reset(client);
        stage.pass(1);
    }
    assert_eq!(stage.core.parts().0.mux.starved.capacity(), before);
}

#[test]
fn room_for_one_request_is_one_clients_whose_turn_it_is() {
    let mut stage = Stage::new(Matching::Id, 1, LONG);
    stage.core.parts().0.mux.requests_max = 1;
    // Each comes with one more than there's room for, and waits with the next.
    let clients = [(); 4].map(|()| stage.client());
    for client in clients {
        stage.say(client, &[query(1, "a", 1), query(2, "b", 1)].concat());
    }
    assert_eq!(stage.counters.requests.value(), 4);
    let asked: Vec<_> = std::iter::from_fn(|| stage.asked()).collect();
    for (upstream, heard) in asked {
        stage.say(upstream, &answers_to_all(&heard));
    }
    assert_eq!(stage.counters.requests.value(), 5);
    let (upstream, heard) = stage.asked().unwrap();
    stage.hear(clients[0]);
    stage.say(upstream, &answers_to_all(&heard));
    assert_eq!(stage.hear(clients[0]).0, answers_to_all(&query(2, "b", 1)), "the first to wait isn't the first");
}

#[test]
fn an_upstream_that_owes_an_answer_for_too_long_gets_nothing_while_another_answers() {
    let mut stage = Stage::new(Matching::Id, 2, Bounds { upstreams_per_backend: 1, ..LONG });
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    let (silent, _) = stage.asked().unwrap();
    stage.pass(1000);
    let (other, heard) = stage.asked().unwrap();
    stage.say(other, &framed(&answer_to(&heard[2..])));
    // Soon that has more outstanding than the silent one.
    let asked: Vec<u8> = (2..8).flat_map(|id| query(id, "b", 1)).collect();
    stage.say(client, &asked);
    let (upstream, heard) = stage.asked().unwrap();
    assert_ne!(upstream, silent);
    assert_eq!((upstream, heard.len()), (other, asked.len()));
}

#[test]
fn a_backend_of_lines_that_leaves_one_out_loses_its_connection() {
    let mut stage = Stage::new(Matching::Order, 1, ONE);
    let client = stage.client();
    stage.say(client, b"a\nb\n");
    let (upstream, _) = stage.asked().unwrap();
    // It speaks after it was asked the other.
    stage.say(upstream, b"A\n");
    stage.pass(300);
    assert_eq!((stage.ends(), stage.hear(upstream).1), (vec![End::Unanswered], true));
}

#[test]
fn a_line_that_finds_no_backend_ends_its_client_by_that_name() {
    let mut stage = Stage::new(Matching::Order, 1, ONE);
    let client = stage.client();
    let refused = DialOutcome::FailsAfter(Duration::from_millis(1), midmile_engine::ConnError::Refused);
    let (place, upstream) = (stage.places[0].clone(), stage.upstreams(0)[0]);
    stage.core.parts().1.backend().server(&place, vec![refused]);
    stage.core.parts().1.backend().hand_reset(upstream);
    stage.pass(5);
    stage.say(client, b"a\n");
    stage.pass(300);
    assert_eq!(stage.ends(), [End::NoBackend]);
}

#[test]
fn lines_that_wait_for_one_upstream_hold_up_nobody_else() {
    let mut stage = Stage::new(Matching::Order, 1, Bounds { outstanding_per_upstream: 1, ..LONG });
    let [busy, other] = [(); 2].map(|()| stage.client());
    stage.say(busy, b"a\nb\nc\n");
    let (first, heard) = stage.asked().unwrap();
    assert_eq!(heard, b"a\n");
    stage.say(other, b"d\n");
    let (second, heard) = stage.asked().expect("it waits behind those that can't go");
    assert!(first != second && heard == b"d\n");
}

#[test]
fn what_the_arena_has_no_room_for_waits_and_costs_nobody_his_place() {
    let mut stage = Stage::new(Matching::Order, 1, ONE);
    stage.core.parts().0.mux.chunks = Chunks::new(3);
    let client = stage.client();
    // Two are kept, and one of them stands before the upstream until the turn's end.
    let lines = ["a", "b"].map(|letter| letter.repeat(400) + "\n").concat();
    stage.say(client, lines.as_bytes());
    let (upstream, heard) = stage.asked().unwrap();
    assert_eq!(heard, lines.as_bytes());
    stage.say(upstream, &heard);
    assert_eq!(stage.hear(client).0, lines.as_bytes());
}

#[test]
fn a_reload_to_fewer_upstreams_closes_the_others() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let shape = Arc::new(service(&stage.places, Matching::Id, ONE));
    let (owner, cx) = stage.core.parts();
    owner.mux.swap(cx, owner.service.unwrap(), shape);
    stage.pass(20);
    assert_eq!((stage.counters.upstreams_open.value(), stage.counters.upstreams_dialled.value()), (1, 2));
}

#[test]
fn a_dial_that_nobody_answers_is_given_up_and_begun_anew() {
    let mut stage = Stage::new(Matching::Id, 1, ONE);
    let (place, upstream) = (stage.places[0].clone(), stage.upstreams(0)[0]);
    stage.core.parts().1.backend().server(&place, vec![DialOutcome::Silent]);
    stage.core.parts().1.backend().hand_reset(upstream);
    stage.pass(400);
    let counters = &stage.counters;
    assert!(counters.dials_failed.value() > 0 && counters.upstreams_dialled.value() > 2, "it waits for ever");
}
