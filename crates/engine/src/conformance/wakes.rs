//! Word from other threads.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::record::Seen;
use super::stage::{SMALL, Stage};
use super::world::{Verdict, World};
use crate::backend::Backend;
use crate::waker::Waker;

fn waker<W: World>(stage: &mut Stage<'_, W>) -> Waker {
    let waker = Waker::new().expect("the system has a descriptor left");
    stage.cx().backend().watch_waker(&waker).expect("the system has room for a waker");
    waker
}

/// Takes turns, as long as they sleep, until so many wakes have been seen.
fn sleep_until_woken<W: World>(stage: &mut Stage<'_, W>, count: usize) {
    while stage.record().count(Seen::Wake) < count {
        stage.cx().set_alarm(Duration::from_secs(15));
        let before = stage.cx().now();
        stage.bare_turn();
        // In the simulation the clock runs ahead while the other thread gets to it.
        let slept = stage.cx().now().since(before) >= Duration::from_secs(15);
        assert!(!slept || stage.world().0.is_virtual(), "a wake is lost");
    }
}

/// A wake that came before the core sleeps keeps it from sleeping.
pub fn a_wake_before_the_core_sleeps<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let waker = waker(&mut stage);
    thread::scope(|scope| {
        scope.spawn(|| waker.wake());
    });
    sleep_until_woken(&mut stage, 1);
    stage.settle();
    assert_eq!(stage.record().count(Seen::Wake), 1, "one wake is told once");
    Ok(())
}

/// Each of many wakes from another thread is answered before the next: none is lost, wherever it falls.
pub fn no_wake_is_lost<W: World>(world: &mut W) -> Verdict {
    const ROUNDS: usize = 300;
    let mut stage = Stage::new(world, SMALL);
    let waker = waker(&mut stage);
    let (go, told) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while told.recv().is_ok() {
                waker.clone().wake();
            }
        });
        for round in 1..=ROUNDS {
            go.send(()).expect("the other thread listens");
            sleep_until_woken(&mut stage, round);
        }
        drop(go);
    });
    Ok(())
}

/// Several wakes at once may be told as one; one that comes after is told anew.
pub fn wakes_at_once_may_be_told_as_one<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let waker = waker(&mut stage);
    for _ in 0..10 {
        waker.wake();
    }
    sleep_until_woken(&mut stage, 1);
    stage.settle();
    let told = stage.record().count(Seen::Wake);
    assert!((1..=10).contains(&told));
    waker.wake();
    sleep_until_woken(&mut stage, told + 1);
    Ok(())
}

/// A wake from within an upcall isn't told within it, but after.
pub fn a_wake_from_within_an_upcall_comes_after_it<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    let waker = waker(&mut stage);
    stage.hook(Box::new(move |_, _, _, seen| {
        if seen == Seen::Data {
            waker.wake();
        }
    }));
    let (conn, peer) = stage.accepted();
    stage.say(peer, b"!");
    stage.until_received(conn, 1);
    stage.until("the wake is told", |stage| stage.record().count(Seen::Wake) == 1);
    Ok(())
}

/// A wake comes through while connections are busy.
pub fn a_wake_comes_through_traffic<W: World>(world: &mut W) -> Verdict {
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let waker = waker(&mut stage);
    let pairs: Vec<_> = (0..4).map(|_| stage.accepted()).collect();
    for (_, peer) in &pairs {
        stage.says_at_once(*peer, 10);
        stage.say(*peer, &[7; 500]);
    }
    for round in 1..5 {
        waker.wake();
        stage.until("the wake is told", |stage| stage.record().count(Seen::Wake) == round);
    }
    for (_, peer) in &pairs {
        stage.until_heard(*peer, 500);
    }
    Ok(())
}
