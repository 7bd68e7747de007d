//! Transfers of zones.

use super::*;

const AXFR: u16 = 252;
/// As many as there may be at once.
const TRANSFERS: usize = 16;

impl Stage {
    /// Asks for transfers of zones under ids that follow each other, and says who was asked and what.
    fn ask_for(&mut self, client: RemoteId, zones: &[&str]) -> Vec<(RemoteId, Vec<u8>)> {
        for (id, zone) in (0..).zip(zones) {
            self.say(client, &query(id, zone, AXFR));
        }
        std::iter::from_fn(|| self.asked()).collect()
    }

    /// Upstreams of the only backend that stand.
    fn standing(&self) -> u64 {
        self.counters.upstreams_open.value()
    }

    /// Has a client ask, and the backend answer.
    fn has_its_answer_at_once(&mut self, client: RemoteId) {
        self.say(client, &query(1, "a", 1));
        let (upstream, heard) = self.asked().expect("a query waits behind transfers");
        self.say(upstream, &framed(&answer_to(&heard[2..])));
        assert_eq!(self.hear(client).0, framed(&answer_to(&query(1, "a", 1)[2..])));
    }

    fn reset(&mut self, remote: RemoteId) {
        self.core.parts().1.backend().hand_reset(remote);
    }
}

/// The messages of the transfer that was asked for.
fn zone(asked: &[u8]) -> Vec<Vec<u8>> {
    transfer_of(&asked[2..]).iter().map(|message| framed(message)).collect()
}

/// The first name whose transfer has so many messages or more.
fn name_of_many(first: char, messages: usize) -> String {
    let mut names = (0..1000).map(|at| format!("{first}{at}"));
    names.find(|name| transfer_of(&query(0, name, AXFR)[2..]).len() >= messages).unwrap()
}

#[test]
fn a_transfers_upstream_goes_with_its_last_message() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let name = name_of_many('z', 3);
    let (upstream, asked) = stage.ask_for(client, &[&name]).remove(0);
    let (messages, mut got) = (zone(&asked), Vec::new());
    let (last, others) = messages.split_last().unwrap();
    for message in others {
        stage.say(upstream, message);
        got.extend(stage.hear(client).0);
        assert_eq!((stage.hear(upstream).1, stage.standing()), (false, 3), "more is to come");
    }
    stage.say(upstream, last);
    got.extend(stage.hear(client).0);
    assert_eq!(got, zone(&query(0, &name, AXFR)).concat());
    assert_eq!((stage.hear(upstream).1, stage.standing()), (true, 2));
    assert_eq!((stage.counters.requests_open.value(), stage.counters.transfers_unclear.value()), (0, 0));
    // Who has the zone asks on.
    stage.say(client, &query(9, "a", 1));
    assert!(stage.asked().is_some());
}

#[test]
fn a_backend_that_is_lost_behind_the_last_message_is_nobodys_loss() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let (upstream, asked) = stage.ask_for(client, &["zone"]).remove(0);
    let whole = zone(&asked).concat();
    let mut sent = 0;
    while sent < whole.len() {
        match stage.core.parts().1.backend().hand_send(upstream, &whole[sent..]).unwrap() {
            Progress::Moved(count) => sent += count,
            progress => panic!("there's room for all: {progress:?}"),
        }
    }
    stage.core.parts().1.backend().hand_finish(upstream);
    stage.pass(5);
    assert_eq!(stage.hear(client), (zone(&query(0, "zone", AXFR)).concat(), false));
    assert_eq!((stage.ends(), stage.counters.upstreams_lost.value()), (vec![], 0));
}

#[test]
fn an_error_is_a_transfers_only_message() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let (upstream, mut refused) = stage.ask_for(client, &["zone"]).remove(0);
    (refused[4], refused[5]) = (0x80, 5);
    stage.say(upstream, &refused);
    assert_eq!((stage.hear(client).0[5], stage.hear(upstream).1, stage.standing()), (5, true, 2));
}

#[test]
fn a_transfer_that_cannot_be_followed_is_over_after_a_silence() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let name = name_of_many('u', 2);
    let (upstream, asked) = stage.ask_for(client, &[&name]).remove(0);
    stage.say(upstream, &zone(&asked).concat());
    assert_eq!(stage.hear(client).0, zone(&query(0, &name, AXFR)).concat());
    assert_eq!((stage.hear(upstream).1, stage.standing(), stage.counters.transfers_unclear.value()), (false, 3, 1));
    // What comes then is handed on too.
    let more = zone(&asked).remove(0);
    stage.say(upstream, &more);
    assert_eq!(stage.hear(client).0, with_id(&more, &[0, 0]));
    stage.pass(250);
    assert_eq!((stage.hear(upstream).1, stage.standing(), stage.ends()), (true, 2, vec![]));
}

#[test]
fn a_transfer_that_stops_midway_ends_its_client() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let (upstream, asked) = stage.ask_for(client, &[&name_of_many('z', 2)]).remove(0);
    stage.say(upstream, &zone(&asked)[0]);
    stage.pass(250);
    assert_eq!((stage.hear(upstream).1, stage.standing(), stage.ends()), (true, 2, vec![End::Unanswered]));
    assert_eq!((stage.counters.requests_open.value(), stage.counters.servfails.value()), (0, 0));
}

/// An answer that's no transfer's, and short.
fn unclear(asked: &[u8]) -> Vec<u8> {
    let mut answer = [asked, &[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    (answer[1], answer[4], answer[9]) = (answer[1] + 12, 0x84, 1);
    answer
}

/// As many transfers as may be under way, and a client who would like one more.
fn full_stage(first: char) -> (Stage, Vec<(RemoteId, Vec<u8>)>, RemoteId) {
    let bounds = Bounds { outstanding_per_client: 100, ..BOUNDS };
    let mut stage = Stage::new(Matching::Id, 1, bounds);
    for zones in [0..TRANSFERS / 2, TRANSFERS / 2..TRANSFERS] {
        let client = stage.client();
        let names = zones.map(|at| format!("{first}{at}"));
        let queries: Vec<u8> = (0..).zip(names).flat_map(|(id, name)| query(id, &name, AXFR)).collect();
        stage.say(client, &queries);
    }
    let asked: Vec<_> = std::iter::from_fn(|| stage.asked()).collect();
    assert_eq!(asked.len(), TRANSFERS);
    let other = stage.client();
    (stage, asked, other)
}

#[test]
fn the_next_transfer_begins_as_one_ends() {
    let (mut stage, asked, other) = full_stage('z');
    assert_eq!(stage.ask_for(other, &["waits"]), [], "one too many");
    let (upstream, asked) = &asked[5];
    stage.say(*upstream, &zone(asked).concat());
    let (next, waited) = stage.asked().expect("it has begun");
    assert_ne!(next, *upstream);
    assert_eq!(with_id(&waited, &[0, 0]), query(0, "waits", AXFR));
}

#[test]
fn the_next_transfer_begins_as_silence_ends_one() {
    let (mut stage, asked, other) = full_stage('u');
    for (upstream, asked) in &asked {
        stage.core.parts().1.backend().hand_send(*upstream, &unclear(asked)).unwrap();
    }
    stage.pass(100);
    assert_eq!(stage.ask_for(other, &["waits"]), [], "there's no room for it yet");
    let dialled = stage.counters.upstreams_dialled.value();
    // Who knows when the next turn is: it begins in the one in which the first of them ends.
    while stage.counters.requests_open.value() > TRANSFERS as u64 {
        stage.core.turn().unwrap();
        let (_, cx) = stage.core.parts();
        cx.set_alarm(Duration::from_millis(1));
    }
    assert_eq!(stage.counters.upstreams_dialled.value(), dialled + 1);
}

/// A stage of time enough.
fn patient_stage() -> Stage {
    let patient = Duration::from_secs(5);
    let bounds = Bounds {
        outstanding_per_client: 200,
        idle_timeout: patient,
        answer_timeout: patient,
        attempt_timeout: patient,
        ..BOUNDS
    };
    Stage::new(Matching::Id, 1, bounds)
}

#[test]
fn many_clients_transfers_hold_up_no_query() {
    let mut stage = patient_stage();
    let (secondaries, plain) = ([(); 12].map(|()| stage.client()), stage.client());
    let queries: Vec<u8> = (0..8).flat_map(|id| query(id, &format!("z{id}"), AXFR)).collect();
    for secondary in secondaries {
        stage.say(secondary, &queries);
    }
    assert_eq!(std::iter::from_fn(|| stage.asked()).count(), TRANSFERS);
    assert_eq!(stage.counters.requests_open.value(), 96, "80 wait");
    stage.has_its_answer_at_once(plain);
}

#[test]
fn a_client_with_as_many_transfers_as_may_be_is_read_on_once_half_are_over() {
    let mut stage = patient_stage();
    let client = stage.client();
    let transfers: Vec<u8> = (0..8).flat_map(|id| query(id, &format!("z{id}"), AXFR)).collect();
    stage.say(client, &[&transfers[..], &query(9, "a", 1)].concat());
    let begun: Vec<_> = std::iter::from_fn(|| stage.asked()).collect();
    assert_eq!(begun.len(), 8);
    for ((upstream, asked), over) in begun.iter().zip(1..=4) {
        stage.say(*upstream, &zone(asked).concat());
        assert_eq!(stage.counters.requests.value() == 9, over == 4, "after {over}");
    }
}

#[test]
fn transfers_that_wait_hold_up_nobody_else() {
    let mut stage = patient_stage();
    let [greedy, plain, secondary] = [(); 3].map(|()| stage.client());
    let many: u16 = 116;
    let queries: Vec<u8> = (0..many).flat_map(|id| query(id, &format!("z{id}"), AXFR)).collect();
    stage.say(greedy, &queries);
    let mut begun: Vec<_> = std::iter::from_fn(|| stage.asked()).collect();
    assert_eq!((begun.len(), stage.counters.transfers_held.value()), (TRANSFERS / 2, 1));
    // Another's query, and another's transfer.
    stage.has_its_answer_at_once(plain);
    assert_eq!(stage.ask_for(secondary, &["zone"]).len(), 1, "a client has all places");
    // One that's refused makes room at once, until all have been asked for.
    let mut refused = 0;
    while let Some((upstream, mut answer)) = begun.pop().or_else(|| stage.asked()) {
        (answer[4], answer[5], refused) = (0x80, 5, refused + 1);
        stage.say(upstream, &answer);
        assert!(stage.hear(greedy).0.len() == answer.len() && stage.hear(upstream).1, "it isn't over");
    }
    assert_eq!((refused, stage.counters.requests_open.value(), stage.ends()), (many, 1, vec![]));
}

#[test]
fn an_error_ends_a_transfer_that_cannot_be_followed() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let (upstream, mut asked) = stage.ask_for(client, &["u1"]).remove(0);
    stage.say(upstream, &unclear(&asked));
    assert_eq!((stage.standing(), stage.counters.transfers_unclear.value()), (3, 1));
    (asked[4], asked[5]) = (0x80, 2);
    stage.say(upstream, &asked);
    assert_eq!((stage.standing(), stage.counters.requests_open.value(), stage.ends()), (2, 0, vec![]));
}

#[test]
fn a_transfer_that_is_lost_before_its_first_answer_is_asked_for_anew() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let (lost, _) = stage.ask_for(client, &["zone"]).remove(0);
    stage.reset(lost);
    stage.pass(20);
    let (upstream, asked) = stage.asked().unwrap();
    stage.say(upstream, &zone(&asked).concat());
    assert_eq!(stage.hear(client).0, zone(&query(0, "zone", AXFR)).concat());
    assert_eq!((stage.hear(upstream).1, stage.standing()), (true, 2));
}

#[test]
fn a_transfer_has_an_upstream_of_its_own_and_waits_for_a_slow_client() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.core.parts().1.backend().hand_client(&port(1000), 3000);
    stage.pass(20);
    let asked = query(7, "zone", 252);
    stage.say(client, &asked);
    let (upstream, heard) = stage.asked().unwrap();
    assert_eq!(stage.upstreams(0).len(), 3, "an upstream of its own");
    // As much as can't wait in between, in messages the first of which alone has the question.
    let first = framed(&answer_to(&heard[2..]));
    let mut next = [&heard[2..4], &[0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    next.extend((0..1800).map(|at| u8::try_from(at % 251).unwrap()));
    let next = framed(&next);
    let zone = [&first[..], &next.repeat(200)].concat();
    let (mut sent, mut got, mut rested) = (0, Vec::new(), false);
    let expected = [with_id(&first, &[0, 7]), with_id(&next, &[0, 7]).repeat(200)].concat();
    while got.len() < expected.len() {
        if sent < zone.len()
            && let Progress::Moved(count) = stage.core.parts().1.backend().hand_send(upstream, &zone[sent..]).unwrap()
        {
            sent += count;
        }
        // Once it takes nothing for longer than an answer may take.
        let rests = !rested && got.len() > 100_000;
        rested |= rests;
        stage.pass(if rests { 400 } else { 2 });
        let (more, ended) = stage.hear(client);
        got.extend(more);
        assert!(!ended, "{} of {}: {:?}", got.len(), expected.len(), stage.ends());
        let owed = stage.core.parts().0.mux.chunks.used() * 508;
        assert!(owed < 100_000, "{owed} bytes wait in between");
    }
    assert_eq!(got, expected);
    // Others' answers don't wait for it.
    let other = stage.client();
    stage.say(other, &query(1, "a", 1));
    let (shared, heard) = stage.asked().unwrap();
    assert_ne!(shared, upstream);
    stage.say(shared, &framed(&answer_to(&heard[2..])));
    assert_eq!(stage.hear(other).0, framed(&answer_to(&query(1, "a", 1)[2..])));
    stage.pass(300);
    assert!(stage.hear(upstream).1, "its upstream stays");
    assert_eq!((stage.counters.servfails.value(), stage.counters.requests_open.value()), (0, 0));
}

#[test]
fn a_transfer_whose_backend_is_lost_midway_ends_its_client() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query(7, "zone", 252));
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &framed(&answer_to(&heard[2..])));
    stage.core.parts().1.backend().hand_reset(upstream);
    stage.pass(20);
    assert_eq!(stage.ends(), [End::Unanswered]);
}

#[test]
fn a_transfer_that_no_backend_takes_is_servfail() {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    let refused = DialOutcome::FailsAfter(Duration::from_millis(1), midmile_engine::ConnError::Refused);
    let place = stage.places[0].clone();
    stage.core.parts().1.backend().server(&place, vec![refused]);
    stage.say(client, &query(7, "zone", 252));
    stage.pass(50);
    assert_eq!(stage.hear(client).0[5] & 15, 2);
    assert_eq!(stage.counters.servfails.value(), 1);
}
