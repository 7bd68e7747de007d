//! Cores that look for more before they sleep: they see the same.

use std::time::Duration;

use super::actor::Ending;
use super::record::{Seen, Take};
use super::stage::{SMALL, Stage};
use super::world::{Verdict, World};
use crate::backend::Backend;
use crate::config::Config;
use crate::waker::Waker;

/// It doesn't sleep until long after the case.
const BUSY: Config = Config { busy_poll: Duration::from_secs(600), ..SMALL };

/// A conversation by frames, with pauses that are longer and shorter than the core looks.
pub fn a_busy_core_serves_as_another<W: World>(world: &mut W) -> Verdict {
    for busy_poll in [Duration::from_micros(100), Duration::from_millis(10), BUSY.busy_poll] {
        let mut stage = Stage::new(world, Config { busy_poll, ..SMALL });
        (stage.record().take, stage.record().echoes) = (Take::Frames(10), true);
        let (conn, peer) = stage.accepted();
        for piece in [&b"0123456789"[..], b"abc", b"defghij01", b"23456789"] {
            stage.say(peer, piece);
            stage.until("it's all said", |stage| stage.said_all(peer));
            let whole = stage.said(peer).len() / 10 * 10;
            stage.until_heard(peer, whole);
        }
        stage.finish(peer);
        stage.until_seen(conn, Seen::PeerClose);
        stage.close(conn);
        stage.until_ending(peer, Ending::End);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// A timer and an alarm run out on a core that looks for more, not early, and a wake is told.
pub fn a_busy_core_looks_up<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, BUSY);
    let waker = Waker::new().expect("the system has a descriptor left");
    let (conn, _peer) = stage.accepted();
    stage.cx().backend().watch_waker(&waker).expect("the system has room for a waker");
    stage.record().shows_alarms = true;
    let from = stage.cx().now();
    stage.set_timer(conn, Duration::from_millis(30));
    stage.cx().set_alarm(Duration::from_millis(60));
    while stage.record().count(Seen::Alarm) == 0 {
        stage.bare_turn();
    }
    let waited = stage.cx().now().since(from);
    assert!((60..30_000).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(stage.record().count(Seen::Timer), 1);
    waker.wake();
    stage.cx().set_alarm(Duration::from_secs(15));
    while stage.record().count(Seen::Wake) == 0 {
        stage.bare_turn();
        assert_eq!(stage.record().count(Seen::Alarm), 1, "the wake is lost");
    }
    Ok(())
}
