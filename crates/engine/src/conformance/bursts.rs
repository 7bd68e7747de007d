//! Datagrams by the hundred: in order, none twice, in pieces, without room, beside connections and timers, and through panics.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::time::Duration;

use super::correspondents::{CorrespondentId, ROOMY};
use super::receiving::bytes;
use super::record::{Record, Seen};
use super::stage::{SMALL, Stage};
use super::world::{Ability, Verdict, World, needs};
use crate::backend::Backend;
use crate::config::Config;
use crate::cx::Cx;
use crate::datagram::{DatagramId, DatagramOptions, Flow, LOOP_DATAGRAMS, SendToError, TURN_DATAGRAMS};
use crate::waker::Waker;

/// What any socket holds, and any link: the kernel gives a socket so little if nobody asks for more.
const BURST: usize = 200;
/// Together they're more than a user-space stack's queue of the asked-for length holds: it comes round.
const ROUNDS: usize = 4;

/// The peer's `number`th datagram.
fn letter(number: usize) -> Vec<u8> {
    format!("datagram {number}").into_bytes()
}

/// A burst from several peers is told to its last datagram, in each peer's order and none twice, and so are the answers.
pub fn a_burst_arrives_in_order<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let socket = stage.bind();
    let at = stage.reached_at(socket);
    let peers = [(); 4].map(|()| stage.acquainted(socket).0);
    for round in 0..ROUNDS {
        for number in 0..BURST {
            stage.post(peers[number % peers.len()], at, &letter(number));
        }
        for peer in peers {
            stage.until_collected(peer, 1 + (round + 1) * BURST / peers.len());
        }
    }
    stage.settle();
    let counts = stage.counts(socket);
    let all = (peers.len() + ROUNDS * BURST) as u64;
    assert_eq!((counts.received, stage.expect_accounted(socket)), (all, all));
    assert_eq!((counts.truncated, counts.failed_reads, counts.failed, counts.exhausted), (0, 0, 0, 0));
    Ok(())
}

/// What finds no room in a socket's queue is lost and counted beneath; the rest is told in order, and later datagrams are.
pub fn what_a_full_queue_loses_is_counted<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let at = SocketAddr::new(stage.datagram_home(), 0);
    let little = DatagramOptions { recv_buffer: Some(4096), ..ROOMY };
    let socket = stage.bind_at(at, &little).expect("there's a free port");
    let (peer, _) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    for number in 0..BURST {
        stage.post(peer, at, &letter(number));
    }
    stage.until("each is told or lost", |stage| told_and_dropped(stage, socket, at) == 1 + BURST);
    stage.settle();
    assert_eq!(told_and_dropped(&mut stage, socket, at), 1 + BURST);
    let told = stage.record().told(socket).len();
    // In the simulation the program reads between any two that arrive.
    assert!(told < 1 + BURST || stage.world().0.is_virtual(), "so little room holds all");
    stage.post(peer, at, b"later");
    stage.until_told(socket, told + 1);
    Ok(())
}

fn told_and_dropped<W: World>(stage: &mut Stage<'_, W>, socket: DatagramId, at: SocketAddr) -> usize {
    let (world, backend) = stage.world();
    let dropped = usize::try_from(world.dropped(backend, at)).expect("they're few");
    dropped + stage.record().told(socket).len()
}

/// Lengths of a series: runs of equal ones, which may travel as one piece, a shorter one behind, empty ones, and a longer one.
fn series() -> Vec<usize> {
    [vec![1200; 70], vec![7; 3], vec![], vec![0, 0, 1400, 1400, 1, 1399, 0, 1400], vec![1; 40]].concat()
}

/// Pieces that are put together and cut up on the way don't show: each datagram is told and sent by itself.
pub fn pieces_show_as_datagrams<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    for coalesce in [true, false] {
        let mut stage = Stage::new(world, SMALL);
        let at = SocketAddr::new(stage.datagram_home(), 0);
        let options = DatagramOptions { coalesce, ..ROOMY };
        let socket = stage.bind_at(at, &options).expect("there's a free port");
        let at = stage.reached_at(socket);
        let (peer, flow) = stage.acquainted(socket);
        let mut told = 1;
        for (whole, segment) in [(40 * 1000, 1000), (1000 * 30 + 7, 1000), (1000, 1200), (64, 1), (1001, 1000)] {
            stage.post_as_one(peer, at, &bytes(whole as u64, whole), segment);
            told += whole.div_ceil(segment.into());
            stage.until_told(socket, told);
        }
        let lengths = series();
        for (number, len) in (0..).zip(&lengths) {
            stage.send_to(socket, flow, &bytes(number, *len));
        }
        stage.until_collected(peer, 1 + lengths.len());
        assert_eq!(stage.expect_accounted(socket), 1 + lengths.len() as u64);
        if stage.world().0.keeps_order() {
            let came = stage.collected(peer)[1..].iter().map(|(_, said)| said.len());
            assert!(came.eq(lengths), "lengths differ");
        }
    }
    Ok(())
}

/// More than an outbox holds goes out in between, in order, to several peers in turn.
pub fn more_than_an_outbox_holds_goes_out<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let at = SocketAddr::new(stage.datagram_home(), 0);
    let little = DatagramOptions { outbox_bytes: 256, ..ROOMY };
    let socket = stage.bind_at(at, &little).expect("there's a free port");
    let known: Vec<(CorrespondentId, Flow)> = (0..3).map(|_| stage.acquainted(socket)).collect();
    let mut number = 0;
    stage.until("all are sent", |stage| {
        while number < BURST && !stage.record().awaits_datagram_room(socket) {
            let (_, flow) = known[number % known.len()];
            let (record, cx) = stage.parts();
            if record.send_to(cx, socket, flow, &letter(number)) == Ok(()) {
                number += 1;
            }
        }
        number == BURST
    });
    for (index, (peer, _)) in known.iter().enumerate() {
        stage.until_collected(*peer, 1 + (BURST - index).div_ceil(known.len()));
    }
    stage.settle();
    assert_eq!(stage.expect_accounted(socket), (known.len() + BURST) as u64);
    Ok(())
}

/// A send that finds no room is refused and followed by word of room, once, and by none without it; in the end all has gone.
pub fn a_full_socket_is_followed_by_word_of_room<W: World>(world: &mut W) -> Verdict {
    const ALL: usize = 3000;
    needs(world, Ability::Datagrams)?;
    needs(world, Ability::FullSockets)?;
    let mut stage = Stage::new(world, SMALL);
    let at = SocketAddr::new(stage.datagram_home(), 0);
    let socket = stage.bind_at(at, &DatagramOptions { outbox_bytes: 512, ..ROOMY }).expect("there's a free port");
    let (_, flow) = stage.acquainted(socket);
    let go_on = move |cx: &mut Cx<W::Backend>, record: &mut Record| {
        loop {
            let number = record.handed(socket);
            if number > ALL || record.awaits_datagram_room(socket) {
                return;
            }
            if let Err(error) = record.send_to(cx, socket, flow, &letter(number)) {
                return assert_eq!(error, SendToError::Full);
            }
        }
    };
    let (record, cx) = stage.parts();
    go_on(cx, record);
    assert!(stage.record().awaits_datagram_room(socket), "it's never full");
    stage.until("room is told of", |stage| !stage.record().awaits_datagram_room(socket));
    // It isn't told again, for nobody lacked any since.
    let told = stage.record().count(Seen::DatagramsWritable);
    stage.settle();
    assert_eq!((told, stage.record().count(Seen::DatagramsWritable)), (1, 1));
    stage.hook(Box::new(move |cx, record, _, seen| {
        if seen == Seen::DatagramsWritable {
            go_on(cx, record);
        }
    }));
    let (record, cx) = stage.parts();
    go_on(cx, record);
    stage.until("all are handed over", |stage| stage.record().handed(socket) > ALL);
    stage.until("all are sent", |stage| stage.counts(socket).sent == stage.record().handed(socket) as u64);
    let counts = stage.counts(socket);
    assert_eq!((counts.failed, counts.exhausted), (0, 0));
    assert_eq!(counts.refused, stage.record().count(Seen::DatagramsWritable) as u64);
    Ok(())
}

/// A flood is told in turns between which a connection has its own, and is told to its end.
pub fn a_flood_leaves_connections_their_turn<W: World>(world: &mut W) -> Verdict {
    const FLOOD: usize = 400;
    const { assert!(FLOOD > TURN_DATAGRAMS && FLOOD < LOOP_DATAGRAMS) };
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    let socket = stage.bind();
    let (peer, _) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    let (conn, talker) = stage.accepted();
    stage.settle();
    for number in 0..FLOOD {
        stage.post(peer, at, &letter(number));
    }
    assert_eq!(stage.posted(peer), 1 + FLOOD);
    stage.turn();
    let (world, backend) = stage.world();
    let all = FLOOD + 1 - usize::try_from(world.dropped(backend, at)).expect("they're few");
    // The simulation's batches are of any size, and come at any time.
    assert!(stage.world().0.is_virtual() || stage.record().told(socket).len() < all, "all were told in one turn");
    // What the connection brings is told before the flood's next turn, if it's there by then.
    let (told, next) = (stage.record().told(socket).len(), stage.cx().gauges().turns + 1);
    stage.hook(Box::new(move |cx, record, _, seen| {
        if seen == Seen::Data && cx.gauges().turns == next {
            assert_eq!(record.told(socket).len(), told, "the connection waited for the flood");
        }
    }));
    stage.say(talker, b"!");
    stage.until_received(conn, 1);
    stage.until_told(socket, all);
    Ok(())
}

/// Much that comes by a connection leaves datagrams their turn.
pub fn bulk_leaves_datagrams_their_turn<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let much = bytes(50, world.held_max().min(3_000_000));
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = false;
    let socket = stage.bind();
    let (peer, _) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    let (conn, talker) = stage.accepted();
    stage.say(talker, &much);
    stage.until("some has come", |stage| !stage.record().received(conn).is_empty());
    for number in 0..3 {
        stage.post(peer, at, &[number]);
        stage.until_told(socket, 2 + usize::from(number));
    }
    let received = stage.record().received(conn).len();
    // In the simulation a datagram may be on its way for longer than all the bytes are.
    assert!(received < much.len() || stage.world().0.is_virtual(), "datagrams waited for all of {received} bytes");
    stage.until_received(conn, much.len());
    Ok(())
}

/// A program that panics over a datagram loses that one: the others of its batch are told, other sockets' are, and connections live on.
pub fn a_panic_over_a_datagram_costs_that_one<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, Config { catch_panics: true, ..SMALL });
    stage.record().echoes = true;
    let sockets = [stage.bind(), stage.bind()];
    let ats = sockets.map(|socket| stage.reached_at(socket));
    let peers = sockets.map(|socket| stage.acquainted(socket).0);
    let (_, talker) = stage.accepted();
    stage.hook(Box::new(|_, record, _, seen| {
        let (_, said) = record.told(record.socket()).last().expect("one was told");
        if seen == Seen::Datagram && said == b"datagram 3" {
            resume_unwind(Box::new("the program's fault"));
        }
    }));
    for number in 0..20 {
        for (at, peer) in ats.into_iter().zip(peers) {
            stage.post(peer, at, &letter(number));
        }
    }
    stage.say(talker, b"still there");
    // Answered before the panic, both of them.
    for (socket, peer) in sockets.into_iter().zip(peers) {
        stage.until_told(socket, 21);
        stage.until_collected(peer, 21);
    }
    stage.until_heard(talker, 11);
    assert_eq!(stage.cx().gauges().panics, 2);
    Ok(())
}

/// Timers run out, wakes are told and connections are served while datagrams come all the time.
pub fn timers_and_wakes_come_through_datagrams<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, SMALL);
    stage.record().echoes = true;
    let waker = Waker::new().expect("the system has a descriptor left");
    stage.cx().backend().watch_waker(&waker).expect("the system has room for a waker");
    let socket = stage.bind();
    let (peer, _) = stage.acquainted(socket);
    let at = stage.reached_at(socket);
    let (conn, talker) = stage.accepted();
    let mut posted = 0;
    let mut next = move |stage: &mut Stage<'_, W>| {
        // One is always on its way.
        if stage.collected(peer).len() == 1 + posted {
            posted += 1;
            stage.post(peer, at, &letter(posted));
        }
    };
    for round in 1..4 {
        stage.set_timer(conn, Duration::from_millis(3));
        stage.until("the timer runs out", |stage| {
            next(stage);
            stage.record().count(Seen::Timer) == round
        });
        waker.wake();
        stage.until("the wake is told", |stage| {
            next(stage);
            stage.record().count(Seen::Wake) >= round
        });
        stage.say(talker, b"!");
        stage.until("the connection is served", |stage| {
            next(stage);
            stage.heard(talker).len() == round
        });
    }
    assert!(stage.record().told(socket).len() > 3);
    Ok(())
}

/// A core that looks for more before it sleeps hears datagrams as another does.
pub fn a_busy_core_hears_datagrams<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Datagrams)?;
    let mut stage = Stage::new(world, Config { busy_poll: Duration::from_millis(5), ..SMALL });
    stage.record().echoes = true;
    let socket = stage.bind();
    let at = stage.reached_at(socket);
    let (peer, _) = stage.acquainted(socket);
    for number in 0..50 {
        stage.post(peer, at, &letter(number));
        stage.until_collected(peer, 2 + number);
    }
    Ok(())
}
