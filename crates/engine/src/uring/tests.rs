//! What connections leave behind in the ring's lists when they come and go.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::row::Row;
use super::{Socket, Uring, UringConfig};
use crate::backend::{Backend, Dialled, Progress, Tag};
use crate::options::LegOptions;

/// Longer than any of this takes.
const LONG: Duration = Duration::from_secs(20);
/// A ring with few slots, so that they are taken again at once, and few buffers.
fn ring() -> Option<Uring> {
    let config = UringConfig {
        sockets_max: 64,
        recv_buffers: 16,
        recv_buffer_bytes: 256,
        send_blocks: 8,
        linger_max: Duration::from_hours(1),
        ..UringConfig::default()
    };
    Uring::new(config).inspect_err(|error| println!("SKIP: {error}")).ok()
}

/// Polls until `done` says so.
fn until(ring: &mut Uring, mut done: impl FnMut(&mut Uring, usize) -> bool) {
    let begun = Instant::now();
    loop {
        let events = ring.poll(Some(Duration::from_millis(20))).unwrap();
        ring.check();
        if done(ring, events) {
            return;
        }
        assert!(begun.elapsed() < LONG, "it doesn't come to pass");
    }
}

fn connected(ring: &mut Uring, tag: u64) -> (Socket, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (socket, dialled) = ring.dial(&server.local_addr().unwrap().into(), &LegOptions::default()).unwrap();
    let (far, _) = server.accept().unwrap();
    ring.watch(&socket, Tag(tag)).unwrap();
    if dialled == Dialled::Pending {
        until(ring, |ring, events| (0..events).map(|index| ring.ready(index)).any(|it| it.tag.0 == tag && it.writable));
    }
    (socket, far)
}

#[test]
fn a_closed_connection_lingers_no_longer_than_it_lasts() {
    let Some(mut ring) = ring() else { return };
    for round in 0..10 {
        let (mut socket, far) = connected(&mut ring, round);
        // Its own socket takes the large ones; the last, small one waits in a block.
        while ring.send(&mut socket, &[7; 100_000]).unwrap() != Progress::Blocked {}
        while ring.send(&mut socket, &[7; 100]).unwrap() != Progress::Blocked {}
        ring.close(socket);
        assert_eq!(ring.table.row(Row::Lingering).count(), 1, "round {round}");
        // The peer goes without having read: a reset.
        drop(far);
        until(&mut ring, |ring, _| ring.gauges().sockets == 0);
        assert_eq!(ring.table.row(Row::Lingering).count(), 0, "round {round}");
    }
}

#[test]
fn whoever_waits_for_buffers_waits_no_longer_than_it_lasts() {
    use std::io::Write;
    let Some(mut ring) = ring() else { return };
    let (_hoarder, mut far) = connected(&mut ring, 1000);
    while ring.gauges().recv_buffers_free > 0 {
        far.write_all(&[7; 256]).unwrap();
        ring.poll(Some(Duration::from_millis(20))).unwrap();
    }
    let (mut first, mut far) = connected(&mut ring, 1001);
    far.write_all(b"x").unwrap();
    let starve = |ring: &mut Uring, socket: &mut Socket| {
        until(ring, |ring, _| ring.peek(socket, &mut [0; 16]).unwrap() == Progress::Moved(1));
    };
    starve(&mut ring, &mut first);
    for round in 0..10 {
        let (mut socket, mut far) = connected(&mut ring, round);
        far.write_all(b"x").unwrap();
        starve(&mut ring, &mut socket);
        assert_eq!(ring.table.row(Row::Starved).collect::<Vec<_>>(), [first.slot(), socket.slot()], "in their order");
        if round % 2 == 0 {
            ring.reset(socket)
        } else {
            ring.close(socket)
        }
        assert_eq!(ring.table.row(Row::Starved).collect::<Vec<_>>(), [first.slot()], "round {round}");
    }
}

#[test]
fn a_slot_that_is_taken_again_stands_in_no_list_twice() {
    let Some(mut ring) = ring() else { return };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().into();
    let slot_of = |ring: &mut Uring| {
        let (mut socket, _) = ring.dial(&to, &LegOptions::default()).unwrap();
        let slot = socket.slot();
        ring.look_at_rest(slot);
        ring.table[slot].watched = true;
        ring.table[slot].tag = Tag(7);
        ring.tell(slot, |ready| ready.failed = true);
        ring.table[slot].tag = Tag(8);
        ring.tell(slot, |ready| ready.readable = true);
        assert_eq!(ring.send(&mut socket, b"x").unwrap(), Progress::Moved(1));
        ring.close(socket);
        slot
    };
    let first = slot_of(&mut ring);
    for _ in 0..10 {
        assert_eq!(slot_of(&mut ring), first);
        assert_eq!((ring.dirty.len(), ring.resting.len(), ring.events.len()), (1, 1, 1));
        let event = ring.events[0];
        assert!(event.tag == Tag(8) && event.readable && !event.failed, "another's event: {event:?}");
    }
}
