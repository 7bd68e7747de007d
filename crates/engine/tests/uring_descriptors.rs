//! Accepting by io_uring without descriptors. The only test of its program, whose limit it lowers.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use midmile_engine::backend::{AcceptError, Progress, Tag};
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{Addr, Backend, LegOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LISTENER: Tag = Tag(1 << 63);

/// Polls until the listener reports.
fn reported(ring: &mut Uring) {
    for _ in 0..100 {
        let events = ring.poll(Some(Duration::from_millis(100))).unwrap();
        if (0..events).any(|index| ring.ready(index).tag == LISTENER) {
            return;
        }
    }
    panic!("the listener doesn't report");
}

#[test]
fn without_descriptors_accepting_rests_and_goes_on_later() {
    let mut ring = match Uring::new(UringConfig::default()) {
        Ok(ring) => ring,
        Err(error) => return println!("SKIP: {error}"),
    };
    let here = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (listener, at) = ring.listen(&here, &LegOptions::default(), 16).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at.inet().unwrap()).unwrap()).collect();
    let limit = getrlimit(Resource::Nofile);
    // The lowest descriptor that's free is the next one, and below the limit there's none. An accept goes by the limit under which it
    // was begun (io_accept_prep of io_uring/net.c).
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::Nofile, Rlimit { current: Some(u64::try_from(next).unwrap()), ..limit }).unwrap();
    ring.watch_listener(&listener, LISTENER).unwrap();
    for _ in 0..2 {
        reported(&mut ring);
        assert!(matches!(ring.accept(&listener), Err(AcceptError::Exhausted)));
        ring.ignore_listener(&listener).unwrap();
        assert_eq!(ring.poll(Some(Duration::from_millis(20))).unwrap(), 0, "it rests");
        ring.watch_listener(&listener, LISTENER).unwrap();
    }
    ring.ignore_listener(&listener).unwrap();
    setrlimit(Resource::Nofile, limit).unwrap();
    ring.watch_listener(&listener, LISTENER).unwrap();
    let mut sockets = Vec::new();
    while sockets.len() < 3 {
        reported(&mut ring);
        while let Ok((socket, _)) = ring.accept(&listener) {
            ring.watch(&socket, Tag(sockets.len() as u64)).unwrap();
            sockets.push(socket);
        }
    }
    for (client, socket) in clients.iter_mut().zip(&mut sockets) {
        client.write_all(b"served?").unwrap();
        let mut buf = [0; 16];
        while !matches!(ring.recv(socket, &mut buf).unwrap(), Progress::Moved(7)) {
            ring.poll(Some(Duration::from_millis(100))).unwrap();
        }
        assert_eq!(ring.send(socket, b"yes").unwrap(), Progress::Moved(3));
        ring.flush().unwrap();
        let mut answer = [0; 3];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"yes");
    }
}
