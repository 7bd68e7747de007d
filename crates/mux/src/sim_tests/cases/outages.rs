//! No backend is reached: how long who asks waits for SERVFAIL, and who finds a backend that is back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use midmile_engine::ConnError;
use midmile_engine::sim::{DialOutcome, RemoteId};

use super::super::actors::{answer_to, framed, query};
use super::super::{BOUNDS, service};
use super::{ROOM, Stage};
use crate::{Bounds, Matching};

/// Times that are the defaults': 2 s of grace, a look each 125 ms, 1 s at most for who comes later.
const USUAL: Bounds = Bounds {
    answer_timeout: Duration::from_secs(4),
    attempt_timeout: Duration::from_secs(2),
    idle_timeout: Duration::from_mins(5),
    ..BOUNDS
};
const REFUSED: DialOutcome = DialOutcome::FailsAfter(Duration::from_millis(1), ConnError::Refused);
const STANDS: DialOutcome = DialOutcome::ByHand(Duration::from_millis(1), ROOM);

impl Stage {
    /// What becomes of dials to a place from now on, and an end to all connections there.
    fn dials(&mut self, place: usize, outcome: DialOutcome) {
        let at = self.places[place].clone();
        let cx = self.core.parts().1;
        cx.backend().server(&at, vec![outcome]);
        let gone: Vec<RemoteId> = cx.backend().dialled(&at).collect();
        gone.into_iter().for_each(|upstream| self.core.parts().1.backend().hand_reset(upstream));
        self.pass(5);
    }

    /// Asks, and says after how many milliseconds SERVFAIL comes.
    fn refused_after(&mut self, client: RemoteId, id: u16) -> u64 {
        let began = self.core.parts().1.now();
        let asked = query(id, "a", 1);
        self.send(client, &asked);
        let heard = (0..10_000).find_map(|_| {
            self.pass(1);
            Some(self.hear(client).0).filter(|heard| !heard.is_empty())
        });
        let mut expected = asked;
        (expected[4], expected[5]) = (0x81, 2);
        assert_eq!(heard.expect("an answer"), expected);
        self.core.parts().1.now().since(began).as_millis().try_into().unwrap()
    }

    fn is_answered(&mut self, client: RemoteId, id: u16, within: u64) {
        self.send(client, &query(id, "a", 1));
        self.pass(within);
        let (upstream, heard) = self.asked().expect("no backend was asked");
        self.say(upstream, &framed(&answer_to(&heard[2..])));
        assert_eq!(self.hear(client).0, framed(&answer_to(&query(id, "a", 1)[2..])));
    }
}

#[test]
fn in_an_outage_a_query_waits_for_a_while_and_later_ones_hardly() {
    let mut stage = Stage::new(Matching::Id, 2, USUAL);
    let client = stage.client();
    (0..2).for_each(|place| stage.dials(place, REFUSED));
    let first = stage.refused_after(client, 1);
    assert!((1900..2200).contains(&first), "{first} ms");
    for id in 2..5 {
        let later = stage.refused_after(client, id);
        assert!(later < 150, "{later} ms");
    }
    // Whom nobody asks, nobody dials oftener than it rests.
    stage.pass(1000);
    let before = stage.counters.upstreams_dialled.value();
    stage.pass(5000);
    let dialled = stage.counters.upstreams_dialled.value() - before;
    assert!((4..=16).contains(&dialled), "{dialled} dials");
    assert_eq!(stage.ends(), []);
}

#[test]
fn a_backend_that_starts_again_within_the_grace_costs_no_question() {
    let mut stage = Stage::new(Matching::Id, 2, USUAL);
    let client = stage.client();
    (0..2).for_each(|place| stage.dials(place, REFUSED));
    stage.say(client, &query(1, "a", 1));
    stage.pass(1000);
    stage.dials(1, STANDS);
    stage.pass(800);
    let (upstream, heard) = stage.asked().expect("no backend was asked");
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
    // The next outage has a grace of its own.
    stage.dials(1, REFUSED);
    let again = stage.refused_after(client, 2);
    assert!((1900..2200).contains(&again), "{again} ms");
}

#[test]
fn who_asks_first_finds_a_backend_that_is_back_however_long_it_was_away() {
    let mut stage = Stage::new(Matching::Id, 1, USUAL);
    let client = stage.client();
    stage.dials(0, REFUSED);
    // By now there are pauses of five seconds between dials.
    stage.pass(60_000);
    stage.refused_after(client, 1);
    stage.dials(0, STANDS);
    stage.is_answered(client, 2, 200);
    assert_eq!(stage.counters.servfails.value(), 1);
}

#[test]
fn who_is_known_to_be_down_is_waited_for_by_nobody() {
    let mut stage = Stage::new(Matching::Id, 2, USUAL);
    let client = stage.client();
    let shape = service(&stage.places, Matching::Id, USUAL);
    shape.backends.iter().for_each(|place| place.healthy.store(false, Relaxed));
    let (owner, cx) = stage.core.parts();
    owner.mux.swap(cx, owner.service.unwrap(), Arc::new(shape));
    // Health checks may be wrong.
    stage.is_answered(client, 1, 20);
    (0..2).for_each(|place| stage.dials(place, REFUSED));
    let refused = stage.refused_after(client, 2);
    assert!(refused < 200, "{refused} ms");
}

#[test]
fn dials_that_nobody_answers_are_not_waited_for_to_their_end() {
    let mut stage = Stage::new(Matching::Id, 1, USUAL);
    let client = stage.client();
    stage.dials(0, DialOutcome::Silent);
    let first = stage.refused_after(client, 1);
    assert!((1900..2200).contains(&first), "{first} ms");
    for id in 2..6 {
        let later = stage.refused_after(client, id);
        assert!(later < 1150, "{later} ms");
    }
}

#[test]
fn while_one_backend_stands_nobody_is_refused() {
    let mut stage = Stage::new(Matching::Id, 2, USUAL);
    let client = stage.client();
    stage.dials(0, REFUSED);
    stage.pass(10_000);
    // The one that is left is slow.
    stage.say(client, &query(1, "a", 1));
    stage.pass(1500);
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
    assert_eq!(stage.counters.servfails.value(), 0);
}
