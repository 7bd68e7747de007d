//! What a backend offers, called as the engine calls it.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use midmile_engine::backend::{Dialled, Progress, Tag};
use midmile_engine::kernel::{self, Kernel};
use midmile_engine::sim::{DialOutcome, Script, Sim};
use midmile_engine::{Addr, Backend, LegOptions, ListenError, WAKE, Waker};

mod under;

use under::Under;

const HERE: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// Longer than any of this takes.
const LONG: Duration = Duration::from_secs(10);

fn an_address_is_listened_on_once_unless_it_is_shared<B: Backend>(mut backend: B) {
    let options = LegOptions::default();
    let (held, at) = backend.listen(&Addr::Inet(HERE.into()), &options, 16).unwrap();
    assert_ne!(at.inet().unwrap().port(), 0);
    assert!(matches!(backend.listen(&at, &options, 16), Err(ListenError::InUse)));
    drop(held);
    let shared = LegOptions { shared: true, ..options };
    let (_one, at) = backend.listen(&at, &shared, 16).unwrap();
    backend.listen(&at, &shared, 16).unwrap();
}

#[test]
fn the_kernel_listens_on_an_address_once_unless_it_is_shared() {
    an_address_is_listened_on_once_unless_it_is_shared(Kernel::new().unwrap());
}

#[test]
fn the_simulation_listens_on_an_address_once_unless_it_is_shared() {
    an_address_is_listened_on_once_unless_it_is_shared(Sim::new(1, false));
}

#[test]
fn an_address_in_use_is_refused_even_by_a_group_of_our_own() {
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (held, at) = kernel::listen(&at, &LegOptions::default(), &[0, 1], false).unwrap();
    let again = kernel::listen(&at, &LegOptions::default(), &[0, 1], false);
    assert!(matches!(again, Err(ListenError::InUse)), "{again:?}");
    // A reload joins it.
    kernel::listen(&at, &LegOptions::default(), &[0, 1], true).unwrap();
    drop(held);
}

/// A connection of `backend` that stands, and its far end.
fn connected<B: Under>(backend: &mut B) -> (B::Socket, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (socket, dialled) = backend.dial(&server.local_addr().unwrap().into(), &LegOptions::default()).unwrap();
    let (far, _) = server.accept().unwrap();
    if dialled == Dialled::Pending {
        backend.watch(&socket, Tag(1)).unwrap();
        assert!(backend.poll(Some(LONG)).unwrap() == 1 && backend.ready(0).writable);
    }
    (socket, far)
}

const PARTS: [&[u8]; 5] = [b"", b"one ", b"after ", b"", b"another"];

fn parts_go_out_in_their_order<B: Under>() {
    let mut backend = B::made().unwrap();
    let (mut socket, mut far) = connected(&mut backend);
    let whole = PARTS.concat();
    let sent = backend.send_vectored(&mut socket, &PARTS.map(IoSlice::new)).unwrap();
    assert_eq!(sent, Progress::Moved(whole.len()));
    backend.flush().unwrap();
    let mut got = vec![0; whole.len()];
    far.read_exact(&mut got).unwrap();
    assert_eq!(got, whole);
}

#[test]
fn parts_are_cut_where_the_room_ends() {
    let mut sim = Sim::new(1, false);
    let at = Addr::Inet(([10, 0, 0, 2], 1).into());
    sim.server(&at, vec![DialOutcome::AtOnce(Script { window: 7, finishes: false, ..Script::default() })]);
    let whole = PARTS.concat();
    let (mut socket, _) = sim.dial(&at, &LegOptions::default()).unwrap();
    sim.watch(&socket, Tag(1)).unwrap();
    let mut sent = 0;
    while sent < whole.len() {
        let mut parts = PARTS.map(IoSlice::new);
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, sent);
        match sim.send_vectored(&mut socket, left).unwrap() {
            Progress::Moved(bytes) => sent += bytes,
            _ => _ = sim.poll(Some(LONG)).unwrap(),
        }
        assert!(sent < whole.len() || sim.now().as_nanos() > 0, "all of it found room at once");
    }
    let remote = sim.dialled(&at).next().unwrap();
    while sim.remote(remote).received().len() < whole.len() {
        assert!(sim.now().as_nanos() < 1_000_000_000, "the rest doesn't come");
        sim.poll(Some(Duration::from_millis(1))).unwrap();
    }
    assert_eq!(sim.remote(remote).received(), whole);
}

fn a_connection_takes_what_waits_in_it_to_another_core<B: Under>() {
    let mut one = B::made().unwrap();
    let (socket, mut far) = connected(&mut one);
    far.write_all(b"ahead").unwrap();
    let parcel = one.detach(socket).unwrap_or_else(|_| panic!("these backends let connections go"));
    let there = thread::spawn(move || {
        let mut other = B::made().unwrap();
        let mut socket = other.attach(parcel).unwrap();
        other.watch(&socket, Tag(7)).unwrap();
        let mut got: Vec<u8> = Vec::new();
        // No byte comes from now on: only the state at its registration tells of it.
        while got.len() < 5 {
            assert_eq!(other.poll(Some(LONG)).unwrap(), 1);
            assert_eq!(other.ready(0).tag, Tag(7));
            let mut buffer = [0; 16];
            if let Progress::Moved(bytes) = other.recv(&mut socket, &mut buffer).unwrap() {
                got.extend(&buffer[..bytes]);
            }
        }
        got
    });
    assert_eq!(there.join().unwrap(), b"ahead");
    assert_eq!(one.poll(Some(Duration::ZERO)).unwrap(), 0);
}

#[test]
fn a_wake_is_told_in_the_simulation_too() {
    let (mut sim, waker) = (Sim::new(1, false), Waker::new().unwrap());
    sim.watch_waker(&waker).unwrap();
    assert_eq!(sim.poll(None).unwrap(), 0);
    waker.wake();
    waker.clone().wake();
    assert_eq!((sim.poll(None).unwrap(), sim.ready(0).tag), (1, WAKE));
    assert_eq!(sim.poll(None).unwrap(), 0);
}

fn what_a_client_sees_of_a_connection_that_nobody_closed_is_the_listeners_choice<B: Under>() {
    let mut backend = B::made().unwrap();
    for ends_if_killed in [false, true] {
        let options = LegOptions { ends_if_killed, ..LegOptions::default() };
        let (listener, at) = backend.listen(&Addr::Inet(HERE.into()), &options, 16).unwrap();
        backend.watch_listener(&listener, Tag(1)).unwrap();
        for closes in [false, true] {
            let mut far = TcpStream::connect(at.inet().unwrap()).unwrap();
            far.set_read_timeout(Some(LONG)).unwrap();
            backend.poll(Some(LONG)).unwrap();
            let (socket, _) = backend.accept(&listener).unwrap();
            // Dropped, it ends as it does when the process dies.
            if closes {
                backend.close(socket)
            } else {
                drop(socket)
            }
            // A ring hands it over with its next turn.
            backend.poll(Some(Duration::ZERO)).unwrap();
            match far.read(&mut [0; 1]) {
                Ok(0) => assert!(closes || ends_if_killed),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    assert!(!closes && !ends_if_killed)
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

on_each!(
    parts_go_out_in_their_order,
    a_connection_takes_what_waits_in_it_to_another_core,
    what_a_client_sees_of_a_connection_that_nobody_closed_is_the_listeners_choice,
);
