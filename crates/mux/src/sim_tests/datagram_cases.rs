//! Single promises about backends that are asked by datagrams.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::ConnError;
use midmile_engine::sim::DialOutcome;

use super::actors::{AXFR, answer_to, framed, query};
use super::cases::{KEEPALIVE, ROOM, Stage, TSIG, query_with, with_id};
use super::correspondents::cut_answer_to;
use super::{BOUNDS, port, service, with_datagrams};
use crate::{Bounds, Detour, Matching};

/// A datagram goes once more after 100 ms.
const SLOW: Bounds = Bounds {
    attempt_timeout: Duration::from_millis(400),
    answer_timeout: Duration::from_millis(1500),
    idle_timeout: Duration::from_mins(1),
    ..BOUNDS
};

/// A letter that has come to a place: from which of the mux's sockets, and what it says.
type Letter = (SocketAddr, Vec<u8>);

impl Stage {
    /// So many places, all asked by datagrams.
    fn by_datagrams(places: usize) -> Self {
        Self::with(places, |places| with_datagrams(service(places, Matching::Id, SLOW), |_| true))
    }

    fn at(&self, place: usize) -> SocketAddr {
        self.places[place].inet().unwrap()
    }

    /// All that has come to a place.
    fn letters(&mut self, place: usize) -> Vec<Letter> {
        let at = self.at(place);
        self.core.parts().1.backend().posted(at).to_vec()
    }

    /// The one letter that has come to any place, and to which.
    fn letter(&mut self) -> (usize, Letter) {
        let all =
            (0..self.places.len()).flat_map(|place| self.letters(place).into_iter().map(move |letter| (place, letter)));
        let all: Vec<_> = all.collect();
        let [one] = &all[..] else { panic!("{} letters", all.len()) };
        one.clone()
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.core.parts().1.backend().post(Duration::ZERO, from, to, bytes.to_vec());
        self.pass(5);
    }

    fn detours(&self, why: Detour) -> u64 {
        self.counters.detours[why.index()].value()
    }
}

/// As it's asked for, with an id of its own.
fn is_like(letter: &[u8], asked: &[u8]) -> bool {
    letter[2..] == asked[4..]
}

#[test]
fn a_plain_query_goes_as_a_datagram_and_its_answer_comes_back() {
    let mut stage = Stage::by_datagrams(1);
    let client = stage.client();
    let asked = query(7, "a", 1);
    stage.say(client, &asked);
    let (_, (from, letter)) = stage.letter();
    assert!(is_like(&letter, &asked));
    stage.post(stage.at(0), from, &answer_to(&letter));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&asked[2..])));
    assert_eq!(stage.asked(), None, "it went by a connection too");
    let counters = &stage.counters;
    assert_eq!([&counters.datagrams, &counters.datagrams_again, &counters.answers].map(|one| one.value()), [1, 0, 1]);
    assert_eq!(counters.sockets_open.value(), 8);
    // Told twice, it meets nobody.
    stage.post(stage.at(0), from, &answer_to(&letter));
    assert_eq!((stage.hear(client).0, stage.counters.answers_stray.value()), (Vec::new(), 1));
}

#[test]
fn no_datagram_asks_for_a_longer_one_than_may_be() {
    let opt = |size: [u8; 2]| [0, 0, 41, size[0], size[1], 0, 0, 0x80, 0, 0, 0];
    for (asked, sent) in [([0x10, 0], [4, 208]), ([4, 209], [4, 208]), ([4, 208], [4, 208]), ([2, 0], [2, 0])] {
        let mut stage = Stage::by_datagrams(1);
        let client = stage.client();
        stage.say(client, &query_with(1, &opt(asked)));
        let letter = stage.letter().1.1;
        assert!(is_like(&letter, &query_with(1, &opt(sent))), "{letter:?}");
    }
}

#[test]
fn what_may_not_be_changed_or_means_a_connection_goes_by_one() {
    let mut update = query(1, "a", 6);
    update[4] = 5 << 3;
    let padding = [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 4, 204, 0, 12, 4, 200][..], &[0; 1224]].concat();
    let kinds = [
        (query_with(1, TSIG), Detour::Signed),
        (update, Detour::NotQuery),
        (query_with(1, KEEPALIVE), Detour::Keepalive),
        (query(1, "zone", AXFR), Detour::Transfer),
        (query_with(1, &padding), Detour::TooLong),
    ];
    for (asked, why) in kinds {
        let mut stage = Stage::by_datagrams(1);
        let client = stage.client();
        stage.say(client, &asked);
        let (_, heard) = stage.asked().unwrap();
        assert_eq!(with_id(&heard, &[0, 1]), asked, "{why:?}");
        assert_eq!((stage.letters(0).len(), stage.detours(why)), (0, 1), "{why:?}");
    }
}

#[test]
fn a_cut_answer_is_asked_for_again_by_a_connection_to_the_same_place() {
    let mut stage = Stage::by_datagrams(3);
    let client = stage.client();
    let asked = query_with(0x0102, &[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    stage.say(client, &asked);
    let (place, (from, letter)) = stage.letter();
    stage.post(stage.at(place), from, &cut_answer_to(&letter));
    assert_eq!(stage.hear(client).0, []);
    stage.pass(10);
    let (upstream, heard) = stage.asked().unwrap();
    assert!(stage.upstreams(place).contains(&upstream), "another place");
    assert_eq!(with_id(&heard, &[1, 2]), asked, "not as it came");
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&asked[2..])));
    assert_eq!((stage.detours(Detour::Truncated), stage.counters.answers_stray.value()), (1, 0));
}

#[test]
fn a_cut_answer_without_a_connection_is_servfail() {
    let mut stage = Stage::by_datagrams(1);
    let refused = DialOutcome::FailsAfter(Duration::from_millis(1), ConnError::Refused);
    let place = stage.places[0].clone();
    stage.core.parts().1.backend().server(&place, vec![refused]);
    for upstream in stage.upstreams(0) {
        stage.core.parts().1.backend().hand_reset(upstream);
    }
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    let (_, (from, letter)) = stage.letter();
    stage.post(stage.at(0), from, &cut_answer_to(&letter));
    // Others aren't held up.
    stage.say(client, &query(2, "b", 1));
    let (from, letter) = stage.letters(0)[1].clone();
    stage.post(stage.at(0), from, &answer_to(&letter));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(2, "b", 1)[2..])));
    stage.pass(1500);
    let (heard, _) = stage.hear(client);
    assert_eq!((&heard[2..4], heard[5]), (&[0, 1][..], 2));
    assert_eq!(stage.letters(0).len(), 2, "it was sent as a datagram again");
}

#[test]
fn an_answer_is_taken_from_whom_it_was_asked_of_alone() {
    let mut stage = Stage::by_datagrams(1);
    let client = stage.client();
    let asked = query(1, "a", 1);
    stage.say(client, &asked);
    let (_, (from, letter)) = stage.letter();
    let (peer, answer) = (stage.at(0), answer_to(&letter));
    let other_port = SocketAddr::new(peer.ip(), peer.port() + 1);
    let other_host = SocketAddr::new([10, 0, 0, 99].into(), peer.port());
    let other_socket = SocketAddr::new(from.ip(), from.port() ^ 1);
    let changed = |at: usize| {
        let mut wrong = answer.clone();
        wrong[at] ^= 0x40;
        wrong
    };
    let strays = [
        (other_port, from, answer.clone()),
        (other_host, from, answer.clone()),
        (peer, other_socket, answer.clone()),
        (peer, from, changed(0)),
        (peer, from, changed(14)),
        (peer, from, letter.clone()),
        (peer, from, letter[..5].to_vec()),
    ];
    for (at, (who, whom, bytes)) in strays.into_iter().enumerate() {
        stage.post(who, whom, &bytes);
        assert_eq!((stage.hear(client).0, stage.counters.answers_stray.value()), (Vec::new(), at as u64 + 1));
    }
    stage.post(peer, from, &answer);
    assert_eq!(stage.hear(client).0, framed(&answer_to(&asked[2..])));
}

#[test]
fn a_datagram_without_an_answer_goes_once_more_and_then_elsewhere() {
    let mut stage = Stage::by_datagrams(2);
    let client = stage.client();
    let asked = query(1, "a", 1);
    stage.say(client, &asked);
    let (place, first) = stage.letter();
    stage.pass(110);
    assert_eq!(stage.letters(place), [first.clone(), first], "another id or port");
    assert_eq!((stage.letters(1 - place), stage.counters.datagrams_again.value()), (vec![], 1));
    stage.pass(300);
    let (from, letter) = stage.letters(1 - place)[0].clone();
    assert!(is_like(&letter, &asked));
    stage.post(stage.at(1 - place), from, &answer_to(&letter));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&asked[2..])));
    assert_eq!((stage.counters.retries.value(), stage.counters.datagrams_failed.value()), (1, 1));
}

#[test]
fn an_id_whose_answer_never_comes_is_free_again() {
    let mut stage = Stage::by_datagrams(1);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    // The place is heard of, only not about this.
    stage.say(client, &query(2, "b", 1));
    let (from, letter) = stage.letters(0)[1].clone();
    stage.post(stage.at(0), from, &answer_to(&letter));
    stage.pass(400);
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    let out = |stage: &mut Stage| {
        let mux = &stage.core.parts().0.mux;
        let upstreams = mux.upstreams.keys().filter_map(|key| mux.upstreams.get(key));
        upstreams.filter(|upstream| upstream.is_datagrams()).map(|upstream| upstream.pending.len()).sum::<usize>()
    };
    assert_eq!((out(&mut stage), stage.counters.datagrams_failed.value()), (1, 0));
    stage.pass(2100);
    assert_eq!(out(&mut stage), 0);
}

#[test]
fn a_place_that_leaves_datagrams_unanswered_is_asked_by_a_connection() {
    let mut stage = Stage::by_datagrams(1);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    stage.pass(420);
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
    assert_eq!(stage.detours(Detour::Unanswered), 1);
    // One datagram tries whether it hears again; others don't wait for that.
    stage.pass(100);
    let before = stage.letters(0).len();
    stage.say(client, &[query(2, "b", 1), query(3, "c", 1)].concat());
    assert_eq!(stage.letters(0).len(), before + 1);
    assert_eq!(stage.asked().unwrap().1.len(), query(3, "c", 1).len());
    assert_eq!(stage.detours(Detour::Unavailable), 1);
}

#[test]
fn a_datagram_that_is_lost_waits_for_a_connection_where_none_stands() {
    let mut stage = Stage::by_datagrams(1);
    let at = stage.places[0].clone();
    let accepts = |stage: &mut Stage, outcome| stage.core.parts().1.backend().server(&at, vec![outcome]);
    // Nobody accepts for long, so it's seldom tried whether somebody does.
    accepts(&mut stage, DialOutcome::FailsAfter(Duration::from_millis(1), ConnError::Refused));
    for upstream in stage.upstreams(0) {
        stage.core.parts().1.backend().hand_close(upstream);
    }
    stage.pass(6500);
    accepts(&mut stage, DialOutcome::ByHand(Duration::from_millis(1), ROOM));
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    stage.say(client, &query(2, "b", 1));
    let (from, letter) = stage.letters(0)[1].clone();
    stage.post(stage.at(0), from, &answer_to(&letter));
    stage.pass(420);
    assert_eq!(stage.detours(Detour::Unanswered), 1);
    let (upstream, heard) = stage.asked().expect("it's asked by a connection");
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.counters.servfails.value(), 0);
}

#[test]
fn where_nobody_is_bound_a_request_goes_elsewhere_at_once() {
    let mut stage = Stage::by_datagrams(2);
    let gone = stage.at(0);
    stage.core.parts().1.backend().set_bound(gone, false);
    let client = stage.client();
    for at in 0..4 {
        stage.say(client, &query(at, "a", 1));
    }
    let letters = stage.letters(1);
    assert_eq!(letters.len(), 4);
    for (from, letter) in letters {
        stage.post(stage.at(1), from, &answer_to(&letter));
    }
    assert_eq!(stage.hear(client).0.len(), 4 * framed(&answer_to(&query(1, "a", 1)[2..])).len());
    assert!(stage.counters.datagrams_failed.value() > 0);
    let known: BTreeSet<SocketAddr> = stage.letters(1).into_iter().map(|(from, _)| from).collect();
    // It's there again, and asked from other ports than before.
    stage.core.parts().1.backend().set_bound(gone, true);
    stage.pass(1000);
    stage.core.parts().1.backend().set_bound(stage.places[1].inet().unwrap(), false);
    stage.say(client, &query(9, "b", 1));
    let (from, letter) = stage.letters(0)[0].clone();
    assert!(!known.contains(&from));
    stage.hear(client);
    stage.post(stage.at(0), from, &answer_to(&letter));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(9, "b", 1)[2..])));
    assert_eq!(stage.counters.servfails.value(), 0);
}

#[test]
fn a_place_that_is_gone_for_a_while_costs_no_request() {
    let mut stage = Stage::by_datagrams(1);
    let refused = DialOutcome::FailsAfter(Duration::from_millis(1), ConnError::Refused);
    let (place, at) = (stage.places[0].clone(), stage.at(0));
    stage.core.parts().1.backend().server(&place, vec![refused]);
    for upstream in stage.upstreams(0) {
        stage.core.parts().1.backend().hand_reset(upstream);
    }
    stage.core.parts().1.backend().set_bound(at, false);
    let client = stage.client();
    stage.say(client, &query(1, "a", 1));
    stage.pass(600);
    assert_eq!((stage.hear(client).0, stage.letters(0).len()), (Vec::new(), 0));
    stage.core.parts().1.backend().set_bound(at, true);
    stage.pass(500);
    let (from, letter) = stage.letters(0)[0].clone();
    stage.post(at, from, &answer_to(&letter));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
}

#[test]
fn what_waits_is_sent_as_soon_as_a_place_is_tried_again() {
    let mut stage = Stage::by_datagrams(1);
    let (place, at) = (stage.places[0].clone(), stage.at(0));
    stage.core.parts().1.backend().server(&place, vec![DialOutcome::Silent]);
    for upstream in stage.upstreams(0) {
        stage.core.parts().1.backend().hand_reset(upstream);
    }
    stage.core.parts().1.backend().set_bound(at, false);
    let client = stage.client();
    // One before it waits for a connection.
    stage.say(client, &[query_with(2, KEEPALIVE), query(1, "a", 1)].concat());
    stage.core.parts().1.backend().set_bound(at, true);
    let began = stage.core.parts().1.now();
    // Nobody takes turns but when something happens, or is due.
    while stage.letters(0).is_empty() {
        stage.core.turn().unwrap();
    }
    assert!(stage.core.parts().1.now().since(began) < Duration::from_millis(150), "it waited for something else");
}

#[test]
fn ids_and_ports_are_drawn_and_a_port_that_somebody_tries_goes() {
    let mut stage = Stage::by_datagrams(1);
    let client = stage.client();
    for at in 0..60 {
        stage.say(client, &query(at, "a", 1));
        let (from, letter) = stage.letters(0).last().unwrap().clone();
        stage.post(stage.at(0), from, &answer_to(&letter));
    }
    let letters = stage.letters(0);
    let ports: BTreeSet<u16> = letters.iter().map(|(from, _)| from.port()).collect();
    assert_eq!(ports.len(), 8);
    let ids: Vec<u16> = letters.iter().map(|(_, letter)| u16::from_be_bytes([letter[0], letter[1]])).collect();
    let steps: BTreeSet<u16> = ids.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() > 50, "one can tell the next id from the last: {ids:?}");
    let tried = letters[0].0;
    for _ in 0..110 {
        stage.post(stage.at(0), tried, &answer_to(&letters[0].1));
    }
    stage.pass(1100);
    let before = stage.letters(0).len();
    for at in 0..60 {
        stage.say(client, &query(at, "b", 1));
        let (from, letter) = stage.letters(0).last().unwrap().clone();
        stage.post(stage.at(0), from, &answer_to(&letter));
    }
    assert!(stage.letters(0)[before..].iter().all(|(from, _)| *from != tried), "it's in use still");
    assert_eq!(stage.counters.sockets_open.value(), 8);
}

#[test]
fn a_reload_answers_what_is_out_as_datagrams() {
    let mut stage = Stage::by_datagrams(1);
    let client = stage.client();
    let asked = query(1, "a", 1);
    stage.say(client, &asked);
    let (_, (from, letter)) = stage.letter();
    let new = port(2900);
    let (owner, cx) = stage.core.parts();
    cx.backend().server(&new, vec![DialOutcome::ByHand(Duration::from_millis(1), ROOM)]);
    let id = owner.service.unwrap();
    let reloaded = with_datagrams(service(std::slice::from_ref(&new), Matching::Id, SLOW), |_| true);
    owner.mux.swap(cx, id, Arc::new(reloaded));
    stage.pass(20);
    assert_eq!(stage.counters.sockets_open.value(), 16);
    stage.post(stage.at(0), from, &answer_to(&letter));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&asked[2..])));
    stage.pass(200);
    assert_eq!(stage.counters.sockets_open.value(), 8, "sockets stay that nobody uses");
    // The same place once more, now by connections alone.
    let (owner, cx) = stage.core.parts();
    owner.mux.swap(cx, id, Arc::new(service(std::slice::from_ref(&new), Matching::Id, SLOW)));
    stage.pass(20);
    stage.places.push(new);
    stage.say(client, &query(2, "b", 1));
    assert!(stage.asked().is_some());
    assert_eq!(stage.counters.sockets_open.value(), 0);
}

/// A stage whose client may ask a lot at once of its only place.
fn busy_stage() -> Stage {
    let bounds = Bounds { outstanding_per_client: 200, outstanding_per_upstream: 1000, ..SLOW };
    Stage::with(1, |places| with_datagrams(service(places, Matching::Id, bounds), |_| true))
}

fn queries(ids: std::ops::Range<u16>) -> Vec<u8> {
    ids.flat_map(|id| query(id, "a", 1)).collect()
}

#[test]
fn datagrams_that_are_answered_leave_room_for_more() {
    let mut stage = busy_stage();
    let client = stage.client();
    for round in 0..2 {
        stage.say(client, &queries(0..128));
        for (from, letter) in stage.letters(0).split_off(128 * round) {
            let at = stage.at(0);
            stage.core.parts().1.backend().post(Duration::ZERO, at, from, answer_to(&letter));
        }
        stage.pass(5);
    }
    assert_eq!((stage.counters.answers.value(), stage.counters.datagrams.value()), (256, 256));
    stage.say(client, &queries(0..200));
    assert_eq!(stage.counters.datagrams.value(), 256 + 144, "the rest goes by connections");
}

#[test]
fn a_datagram_without_an_answer_leaves_room_for_half_as_many() {
    let mut stage = busy_stage();
    let client = stage.client();
    stage.say(client, &queries(0..2));
    // The place is heard of, only not about the other.
    let (from, letter) = stage.letters(0)[0].clone();
    stage.post(stage.at(0), from, &answer_to(&letter));
    stage.pass(100);
    assert_eq!(stage.counters.datagrams_again.value(), 1);
    stage.say(client, &queries(0..199));
    assert_eq!(stage.counters.datagrams.value(), 2 + 63);
}

#[test]
fn a_place_that_is_silent_about_a_datagram_is_asked_by_a_connection_until_it_is_heard() {
    let mut stage = busy_stage();
    let client = stage.client();
    stage.say(client, &queries(0..1));
    let (from, letter) = stage.letters(0)[0].clone();
    stage.pass(100);
    stage.say(client, &queries(1..2));
    assert_eq!((stage.counters.datagrams.value(), stage.asked().is_some()), (1, true));
    stage.post(stage.at(0), from, &answer_to(&letter));
    stage.say(client, &queries(2..3));
    assert_eq!(stage.counters.datagrams.value(), 2);
}
