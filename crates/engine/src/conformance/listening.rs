//! Listeners: more than one, closed with others in the queue, closed from within, and without descriptors to accept with.

use std::time::Duration;

use super::actor::Ending;
use super::record::Seen;
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::config::Config;
use crate::cx::MeterId;
use crate::error::ListenError;
use crate::options::LegOptions;

/// A closed listener's queue is emptied by resets, whoever comes later is refused, and those that were admitted live on.
pub fn a_closed_listener_turns_all_away<W: World>(world: &mut W) -> Verdict {
    let ending = if needs(world, Ability::Resets).is_ok() { Ending::Reset } else { Ending::End };
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let (conn, old) = stage.accepted();
    let waiting = stage.connect();
    let listener = stage.listener();
    stage.cx().unlisten(listener);
    stage.cx().unlisten(listener);
    stage.until("the one that waits is turned away", |stage| stage.ending(waiting).is_some());
    assert!(stage.ending(waiting) == Some(ending) || stage.ending(waiting) == Some(Ending::Reset));
    let late = stage.connect();
    stage.until_ending(late, Ending::Reset);
    stage.say(old, b"still here");
    stage.until_heard(old, 10);
    assert_eq!(stage.record().accepted(), [conn]);
    Ok(())
}

/// Those who wait are taken before their listener is closed, and served.
pub fn those_who_wait_are_taken_before_it_is_closed<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, Config { accept_batch: 1, ..SMALL });
    stage.record().echoes = true;
    let peers = [stage.connect(), stage.connect(), stage.connect()];
    stage.until("the first is met", |stage| !stage.record().accepted().is_empty());
    let listener = stage.listener();
    let mut taken = 0;
    loop {
        let (record, cx) = stage.parts();
        let Some(incoming) = cx.take_incoming(listener) else { break };
        let token = record.token();
        let conn = cx.admit(incoming, token, MeterId::NONE).ok().expect("there's room");
        record.begin(conn, token, false);
        cx.read(conn);
        taken += 1;
    }
    stage.cx().unlisten(listener);
    for peer in &peers {
        stage.say(*peer, b"?");
    }
    stage.until("each is served or turned away", |stage| {
        peers.iter().all(|peer| stage.heard(*peer) == b"?" || stage.ending(*peer).is_some())
    });
    let served = peers.iter().filter(|peer| stage.heard(**peer) == b"?").count();
    assert_eq!(served, stage.record().accepted().len() + taken);
    Ok(())
}

/// A listener closed within the upcall of one that it brought brings no other.
pub fn closed_within_an_accept<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let listener = stage.listener();
    stage.hook(Box::new(move |cx, _, _, seen| {
        if seen == Seen::Accept {
            cx.unlisten(listener);
        }
    }));
    let peers = [stage.connect(), stage.connect(), stage.connect()];
    stage.until("the others are turned away", |stage| {
        peers.iter().filter(|peer| stage.ending(**peer).is_some()).count() == 2
    });
    assert_eq!(stage.record().accepted().len(), 1);
    Ok(())
}

/// An address that's listened on can't be listened on again, until it's closed.
pub fn an_address_is_listened_on_once<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let at = stage.listen();
    let again = stage.cx().listen_at(&at, &LegOptions::default(), 16);
    assert!(matches!(again, Err(ListenError::InUse)), "{again:?}");
    let (_, peer) = stage.accepted();
    stage.say(peer, b"!");
    let listener = stage.listener();
    stage.cx().unlisten(listener);
    let turn = stage.cx().gauges().turns;
    // Closing may take a turn.
    stage.until("the address is free again", |stage| {
        let again = stage.cx().listen_at(&at, &LegOptions::default(), 16);
        again.is_ok() || stage.cx().gauges().turns > turn + 1000
    });
    assert!(stage.cx().gauges().turns <= turn + 1000, "the address is never free again");
    let (conn, _) = stage.accepted();
    assert!(!stage.record().is_over(conn));
    Ok(())
}

/// Each connection says by which of several listeners it came.
pub fn several_listeners_are_told_apart<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let first = stage.listener();
    let (one, _) = stage.accepted();
    stage.forget_listener();
    let second = stage.listener();
    let (two, _) = stage.accepted();
    assert_ne!(first, second);
    let record = stage.record();
    assert_eq!((record.listener(one), record.listener(two)), (Some(first), Some(second)));
    Ok(())
}

/// Without descriptors a listener rests, and says so; all others are served meanwhile, and whoever waits is when there are some again.
pub fn without_descriptors_a_listener_rests<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Starving)?;
    let rest = Duration::from_millis(SMALL.accept_rest_ms);
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let (_, old) = stage.accepted();
    let (world, backend) = stage.world();
    world.starve(backend, Some(2));
    let waiting = [stage.connect(), stage.connect()];
    stage.until("it's told", |stage| stage.record().count(Seen::Exhausted) > 0);
    let from = stage.cx().now();
    stage.until("it's told again", |stage| stage.record().count(Seen::Exhausted) == 3);
    assert!(stage.cx().now().since(from) >= rest, "the listener doesn't rest");
    stage.say(old, b"served");
    stage.until_heard(old, 6);
    assert_eq!(stage.record().accepted().len(), 1);
    let (world, backend) = stage.world();
    world.starve(backend, None);
    stage.until("those who waited are met", |stage| stage.record().accepted().len() == 3);
    for peer in waiting {
        stage.say(peer, b"at last");
        stage.until_heard(peer, 7);
    }
    Ok(())
}

/// A listener that rests is closed: it isn't roused, and nothing is left of it.
pub fn a_resting_listener_is_closed<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Starving)?;
    let mut stage = Stage::new(world, SMALL);
    stage.listen();
    let (world, backend) = stage.world();
    world.starve(backend, Some(1));
    let waiting = stage.connect();
    stage.until("it's told", |stage| stage.record().count(Seen::Exhausted) > 0);
    let listener = stage.listener();
    stage.cx().unlisten(listener);
    let (world, backend) = stage.world();
    world.starve(backend, None);
    stage.until("whoever waits is turned away", |stage| stage.ending(waiting).is_some());
    stage.settle();
    assert_eq!(stage.record().accepted().len(), 0);
    // The core sleeps, for nothing is left to be roused.
    let turns = stage.cx().gauges().turns;
    stage.record().shows_alarms = true;
    stage.cx().set_alarm(10 * Duration::from_millis(SMALL.accept_rest_ms));
    while stage.record().count(Seen::Alarm) == 0 {
        stage.bare_turn();
    }
    let turns = stage.cx().gauges().turns - turns;
    assert!(turns < 8, "the core woke {turns} times for nobody");
    stage.record().shows_alarms = false;
    stage.forget_listener();
    stage.accepted();
    Ok(())
}
