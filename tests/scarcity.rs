//! More stalled pairs than there are pipes, or blocks to keep a rest in: slower, but every byte arrives and all is given back.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use process::{PATIENCE, Running, Scratch, until};
use programs::data::{MIB, file};
use programs::lacks;
use programs::nginx::{self, Site};
use programs::relay::{Relay, number};
use rustix::net::sockopt;

/// Stalled clients: more than the engine has blocks on one core.
const CLIENTS: usize = 100;
/// Pipes for them.
const PIPES: u64 = 3;
/// How long nothing has to move for all to count as stalled.
const STALL: Duration = Duration::from_millis(500);

/// A gateway on one core with few pipes and small buffers, so that it's the gateway that has to hold what is left over.
fn gateway(scratch: &Scratch, to: SocketAddr) -> Relay {
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[limits]\ncores = 1\npipes_max = {PIPES}\npipe_size = \"64KiB\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n[listener.client]\nsend_buffer = \"16KiB\"\n"
    );
    Relay::of(Running::start(&["gateway", "--config", &scratch.write("m.toml", &text)]), 1)
}

/// Clients that have asked for the file, and don't read.
fn stalled(relay: &Relay) -> Vec<TcpStream> {
    let ask = |_| {
        let mut stream = TcpStream::connect(relay.addr()).unwrap();
        sockopt::set_socket_recv_buffer_size(&stream, 16 * 1024).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
    let clients = (0..CLIENTS).map(ask).collect();
    let mut seen = (0, Instant::now());
    until("all to stall", || {
        let moved = relay.count("/totals/downstream/bytes");
        if moved != seen.0 {
            seen = (moved, Instant::now());
        }
        (moved > 0 && seen.1.elapsed() > STALL).then_some(())
    });
    clients
}

#[test]
fn every_stalled_pair_gets_all_its_bytes_in_the_end() {
    if lacks(&["nginx"]) {
        return;
    }
    let scratch = Scratch::new("scarce");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let wanted = std::fs::read(file(&scratch, "data/file", 2 * MIB, 23)).unwrap();
    let relay = gateway(&scratch, addr);
    let clients = stalled(&relay);
    assert!(relay.count("/pipes/leased") <= PIPES);
    assert!(relay.count("/totals/downstream/bytes") < wanted.len() as u64 * CLIENTS as u64 / 2, "they did stall");
    thread::scope(|scope| {
        for mut stream in clients {
            let wanted = &wanted;
            scope.spawn(move || {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(got.ends_with(wanted), "{} bytes", got.len());
            });
        }
    });
    let status = relay.finished();
    assert!(number(&status, "/pipes/missed") > 0, "there were too few pipes: {status:#}");
}

#[test]
fn what_stalled_pairs_held_is_given_back_when_they_are_cut() {
    if lacks(&["nginx"]) {
        return;
    }
    let scratch = Scratch::new("scarce-cut");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let wanted = std::fs::read(file(&scratch, "data/file", 2 * MIB, 24)).unwrap();
    let relay = gateway(&scratch, addr);
    let descriptors = relay.descriptors();
    for round in 1..=3 {
        // They are closed with bytes unread, which makes each close a reset.
        drop(stalled(&relay));
        let status = relay.settled();
        assert_eq!(number(&status, "/totals/ends/client-reset"), round * CLIENTS as u64, "{status:#}");
    }
    let pipes = usize::try_from(relay.count("/pipes/exist")).unwrap();
    assert!(pipes as u64 <= PIPES);
    until("the descriptors to be back", || (relay.descriptors() == descriptors + 2 * pipes).then_some(()));
    let mut got = Vec::new();
    let mut stream = TcpStream::connect(relay.addr()).unwrap();
    stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").unwrap();
    stream.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&wanted), "as before");
}
