//! Timers and alarms: once, never early, replaced, cleared, and gone with what they belong to.

use std::time::Duration;

use super::record::Seen;
use super::stage::{SMALL, Stage};
use super::world::{Verdict, World};
use crate::config::Config;
use crate::time::Time;

/// How far the clock has to go for a case to see that something doesn't come.
const LONG: Duration = Duration::from_millis(60);
/// An alarm that only comes when something else doesn't.
const GUARD: Duration = Duration::from_secs(15);

fn pass<W: World>(stage: &mut Stage<'_, W>, wait: Duration) {
    let until = stage.cx().now().after(wait);
    stage.until("time passes", |stage| stage.cx().now() > until);
}

/// Takes turns, as long as they sleep, until `done`; a core that sleeps too long is found out by the guard.
fn sleep_until<W: World>(stage: &mut Stage<'_, W>, mut done: impl FnMut(&mut Stage<'_, W>) -> bool) {
    stage.record().shows_alarms = true;
    stage.cx().set_alarm(GUARD);
    while !done(stage) {
        stage.bare_turn();
        assert_eq!(stage.record().count(Seen::Alarm), 0, "the core slept too long\n{}", stage.tell());
    }
}

/// A timer wakes a core that sleeps, once and not early.
pub fn a_timer_runs_out_once_and_not_early<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, _peer) = stage.accepted();
    stage.set_timer(conn, Duration::from_millis(30));
    sleep_until(&mut stage, |stage| stage.record().count(Seen::Timer) == 1);
    stage.record().shows_alarms = false;
    pass(&mut stage, LONG);
    stage.expect(conn, &[Seen::Accept, Seen::Timer]);
    Ok(())
}

/// A timer without any wait runs out in a turn soon.
pub fn a_timer_without_a_wait_runs_out<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, _peer) = stage.accepted();
    stage.set_timer(conn, Duration::ZERO);
    sleep_until(&mut stage, |stage| stage.record().count(Seen::Timer) == 1);
    Ok(())
}

/// The later of two settings counts, be it sooner or later.
pub fn a_timer_is_replaced<W: World>(world: &mut W) -> Verdict {
    for (first, second) in [(5, 40), (10_000, 20)] {
        let mut stage = Stage::new(world, SMALL);
        let (conn, _peer) = stage.accepted();
        stage.set_timer(conn, Duration::from_millis(first));
        let from = stage.cx().now();
        stage.set_timer(conn, Duration::from_millis(second));
        sleep_until(&mut stage, |stage| stage.record().count(Seen::Timer) == 1);
        assert!(stage.cx().now().since(from) >= Duration::from_millis(second));
        stage.record().shows_alarms = false;
        pass(&mut stage, LONG);
        stage.expect(conn, &[Seen::Accept, Seen::Timer]);
    }
    Ok(())
}

/// A cleared timer never runs out; set again it does.
pub fn a_timer_is_cleared<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, _peer) = stage.accepted();
    stage.set_timer(conn, Duration::from_millis(5));
    stage.cx().clear_timer(conn);
    stage.record().expect_timer(conn, None);
    pass(&mut stage, LONG);
    stage.expect(conn, &[Seen::Accept]);
    stage.set_timer(conn, Duration::from_millis(5));
    stage.until_seen(conn, Seen::Timer);
    Ok(())
}

/// A connection's timer is gone with it, also when its slot is taken again.
pub fn a_timer_is_gone_with_its_connection<W: World>(world: &mut W) -> Verdict {
    for resets in [false, true] {
        let mut stage = Stage::new(world, Config { conns_max: 1, ..SMALL });
        let (old, _) = stage.accepted();
        stage.set_timer(old, Duration::from_millis(10));
        if resets {
            stage.reset(old)
        } else {
            stage.close(old)
        }
        let (new, _peer) = stage.accepted();
        assert_eq!(old.slot(), new.slot());
        pass(&mut stage, LONG);
        stage.expect(new, &[Seen::Accept]);
    }
    Ok(())
}

/// A timer that is set again when it runs out keeps running out.
pub fn a_timer_is_set_again_when_it_runs_out<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, _peer) = stage.accepted();
    stage.hook(Box::new(|cx, record, conn, seen| {
        if let (Some(conn), Seen::Timer) = (conn, seen) {
            let wait = Duration::from_millis(3);
            record.expect_timer(conn, Some(cx.now().after(wait)));
            cx.set_timer(conn, wait);
        }
    }));
    stage.set_timer(conn, Duration::from_millis(3));
    let from = stage.cx().now();
    sleep_until(&mut stage, |stage| stage.record().count(Seen::Timer) == 10);
    assert!(stage.cx().now().since(from) >= Duration::from_millis(30));
    Ok(())
}

/// Timers of many connections run out in the order of their times.
pub fn timers_run_out_in_order<W: World>(world: &mut W) -> Verdict {
    const WAITS: [u64; 8] = [70, 3, 300, 1, 64, 130, 10, 65];
    let mut stage = Stage::new(world, SMALL);
    let conns: Vec<_> = WAITS.iter().map(|_| stage.accepted().0).collect();
    // Set in one turn, so that their order is that of their waits.
    for (conn, wait) in conns.iter().zip(WAITS) {
        stage.set_timer(*conn, Duration::from_millis(wait));
    }
    sleep_until(&mut stage, |stage| stage.record().count(Seen::Timer) == WAITS.len());
    let mut expected: Vec<usize> = (0..WAITS.len()).collect();
    expected.sort_by_key(|place| WAITS[*place]);
    let times: Vec<Time> = expected.iter().map(|place| stage.record().seen_at(conns[*place], Seen::Timer)).collect();
    assert!(times.is_sorted(), "{times:?}\n{}", stage.tell());
    Ok(())
}

/// The alarm wakes a core that sleeps, once and not early, and a later setting counts.
pub fn an_alarm_runs_out_once_and_not_early<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let (conn, _peer) = stage.accepted();
    stage.record().shows_alarms = true;
    let from = stage.cx().now();
    stage.cx().set_alarm(Duration::from_millis(500));
    stage.cx().set_alarm(Duration::from_millis(20));
    while stage.record().count(Seen::Alarm) == 0 {
        stage.bare_turn();
    }
    let waited = stage.cx().now().since(from);
    assert!(waited >= Duration::from_millis(20), "too early");
    assert!(waited < Duration::from_millis(500), "the first setting counted");
    stage.set_timer(conn, LONG);
    while stage.record().count(Seen::Timer) == 0 {
        stage.bare_turn();
    }
    assert_eq!(stage.record().count(Seen::Alarm), 1, "an alarm comes once");
    Ok(())
}
