//! What io_uring does otherwise than epoll: buffers and blocks are few and shared, completions come late, and memory is the kernel's
//! for a while.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use midmile_engine::backend::{Dialled, Progress, Tag};
use midmile_engine::sim::Rng;
use midmile_engine::uring::{Socket, Uring, UringConfig};
use midmile_engine::{
    Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId, Waker,
};

/// Longer than any of this takes.
const LONG: Duration = Duration::from_secs(20);
/// As little as a ring can do with: everything runs out.
const TINY: UringConfig = UringConfig {
    sockets_max: 1024,
    submissions: 16,
    completions: 32,
    recv_buffers: 16,
    recv_buffer_bytes: 256,
    recv_held_max: 2,
    bundles: false,
    send_blocks: 2,
    send_block_bytes: 256,
    accepted_max: 2,
    linger_max: LONG,
    napi_busy_poll: None,
};

/// A ring, or the word that there's none to be had.
fn ring(config: UringConfig) -> Option<Uring> {
    Uring::new(config).inspect_err(|error| println!("SKIP: {error}")).ok()
}

/// A connection of `ring` that stands and reports under `tag`, and its far end.
fn connected(ring: &mut Uring, tag: u64) -> (Socket, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (socket, dialled) = ring.dial(&server.local_addr().unwrap().into(), &LegOptions::default()).unwrap();
    let (far, _) = server.accept().unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    far.set_write_timeout(Some(LONG)).unwrap();
    ring.watch(&socket, Tag(tag)).unwrap();
    if dialled == Dialled::Pending {
        assert!(until(ring, |ready| ready.tag == Tag(tag) && ready.writable));
    }
    (socket, far)
}

/// Polls until an event is what is awaited.
fn until(ring: &mut Uring, mut awaited: impl FnMut(&midmile_engine::backend::Ready) -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        let events = ring.poll(Some(Duration::from_millis(100))).unwrap();
        ring.check();
        if (0..events).any(|index| awaited(&ring.ready(index))) {
            return true;
        }
    }
    false
}

/// Polls for as long as something keeps happening.
fn settle(ring: &mut Uring) {
    let mut quiet = 0;
    while quiet < 3 {
        let events = ring.poll(Some(Duration::from_millis(20))).unwrap();
        quiet = if events == 0 { quiet + 1 } else { 0 };
    }
    ring.check();
}

/// Reads `len` bytes as they come.
fn read_all(ring: &mut Uring, socket: &mut Socket, len: usize) -> Vec<u8> {
    let (mut got, begun) = (Vec::new(), Instant::now());
    let mut buf = vec![0; 10_000];
    while got.len() < len {
        assert!(begun.elapsed() < LONG, "{} of {len} bytes came", got.len());
        match ring.recv(socket, &mut buf).unwrap() {
            Progress::Moved(bytes) => got.extend_from_slice(&buf[..bytes]),
            Progress::Blocked => {
                ring.poll(Some(Duration::from_millis(100))).unwrap();
            }
            Progress::Ended => panic!("it ended after {} of {len} bytes", got.len()),
        }
    }
    ring.check();
    got
}

/// Bytes that differ from place to place.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31).wrapping_add(seed * 7) >> 3).to_le_bytes()[0]).collect()
}

fn writing(mut far: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    thread::spawn(move || {
        far.write_all(&bytes).unwrap();
        far
    })
}

/// Sends until there's no room, and says what was taken.
fn fill(ring: &mut Uring, socket: &mut Socket) -> Vec<u8> {
    let mut sent = Vec::new();
    let piece = pattern(1, 100_000);
    for size in [100_000, 100] {
        loop {
            match ring.send(socket, &piece[..size]).unwrap() {
                Progress::Moved(bytes) => sent.extend_from_slice(&piece[..bytes]),
                Progress::Blocked => break,
                Progress::Ended => panic!("a send doesn't end"),
            }
        }
        ring.poll(Some(Duration::ZERO)).unwrap();
    }
    sent
}

#[test]
fn those_who_find_no_buffer_are_served_while_others_hold_them_all() {
    const HOLDERS: usize = 32;
    let Some(mut ring) = ring(TINY) else { return };
    let mut holders: Vec<_> = (0..HOLDERS).map(|at| connected(&mut ring, at as u64)).collect();
    for (at, (_, far)) in holders.iter_mut().enumerate() {
        far.write_all(&pattern(at, 1000)).unwrap();
    }
    settle(&mut ring);
    let gauges = ring.gauges();
    assert!(gauges.recv_starved > 0 || gauges.recv_buffers_free < 4, "{gauges:?}");
    let (mut late, mut far) = connected(&mut ring, 99);
    for round in 0..20 {
        far.write_all(&pattern(round, 300)).unwrap();
        assert_eq!(read_all(&mut ring, &mut late, 300), pattern(round, 300));
    }
    for (at, (socket, _)) in holders.iter_mut().enumerate() {
        assert_eq!(read_all(&mut ring, socket, 1000), pattern(at, 1000));
    }
    // With the buffers back, all receive into them again.
    for (at, (socket, far)) in holders.iter_mut().enumerate() {
        far.write_all(&pattern(at, 50)).unwrap();
        assert_eq!(read_all(&mut ring, socket, 50), pattern(at, 50));
    }
    assert_eq!(ring.gauges().recv_buffers_free, TINY.recv_buffers);
}

#[test]
fn a_connection_that_isnt_read_holds_a_bounded_number_of_buffers() {
    const LEN: usize = 20 << 20;
    let config = UringConfig::default();
    let Some(mut ring) = ring(config) else { return };
    let (mut socket, far) = connected(&mut ring, 0);
    let far = writing(far, pattern(0, LEN));
    settle(&mut ring);
    let held = config.recv_buffers - ring.gauges().recv_buffers_free;
    assert!(held > 0 && held <= config.recv_held_max + 64, "{held} buffers");
    // The rest stays with the kernel, whose window closes.
    assert!(!far.is_finished());
    assert!(read_all(&mut ring, &mut socket, LEN) == pattern(0, LEN), "bytes differ");
    far.join().unwrap();
    assert_eq!(ring.gauges().recv_buffers_free, config.recv_buffers);
}

/// Since Linux 6.13 a call brings 20 at most where it doesn't want more.
#[test]
fn a_crowd_is_met_in_a_few_turns() {
    const CROWD: usize = 200;
    let Some(mut ring) = ring(UringConfig::default()) else { return };
    let (sockets, mut far): (Vec<_>, Vec<_>) = (0..CROWD).map(|tag| connected(&mut ring, tag as u64)).unzip();
    settle(&mut ring);
    for stream in &mut far {
        stream.write_all(b"?").unwrap();
    }
    let mut met = [false; CROWD];
    let mut turns = 0;
    while met.contains(&false) {
        turns += 1;
        assert!(turns <= 4, "{} of {CROWD} were met", met.iter().filter(|met| **met).count());
        for index in 0..ring.poll(Some(LONG)).unwrap() {
            let ready = ring.ready(index);
            met[usize::try_from(ready.tag.0).unwrap()] |= ready.readable;
        }
    }
    drop(sockets);
}

#[test]
fn what_was_sent_before_a_close_reaches_a_slow_peer() {
    for config in [TINY, UringConfig::default()] {
        let Some(mut ring) = ring(config) else { return };
        let (mut socket, mut far) = connected(&mut ring, 0);
        let sent = fill(&mut ring, &mut socket);
        assert!(usize::from(config.send_blocks) > ring.gauges().send_blocks_free, "nothing is pending");
        ring.close(socket);
        let reading = thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).map(|_| got)
        });
        while !reading.is_finished() {
            ring.poll(Some(Duration::from_millis(10))).unwrap();
        }
        assert!(reading.join().unwrap().unwrap() == sent, "bytes differ");
        settle(&mut ring);
        assert_eq!(ring.gauges().sockets, 0);
    }
}

#[test]
fn a_closed_connection_whose_peer_takes_nothing_is_given_up() {
    let Some(mut ring) = ring(UringConfig { linger_max: Duration::from_millis(200), ..TINY }) else { return };
    let (mut socket, mut far) = connected(&mut ring, 0);
    fill(&mut ring, &mut socket);
    ring.close(socket);
    let begun = Instant::now();
    while ring.gauges().sockets > 0 {
        assert!(begun.elapsed() < LONG, "it lingers");
        ring.poll(None).unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(190));
    let mut sink = vec![0; 1 << 20];
    let answer = loop {
        match far.read(&mut sink) {
            Ok(0) => panic!("it ended in order"),
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(answer, ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_drops_what_waits_to_be_sent() {
    for config in [TINY, UringConfig::default()] {
        let Some(mut ring) = ring(config) else { return };
        let (mut socket, mut far) = connected(&mut ring, 0);
        fill(&mut ring, &mut socket);
        ring.reset(socket);
        settle(&mut ring);
        let gauges = ring.gauges();
        assert_eq!((gauges.sockets, gauges.send_blocks_free), (0, config.send_blocks.into()));
        let mut sink = Vec::new();
        assert_eq!(far.read_to_end(&mut sink).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_peers_reset_shows_though_nobody_reads_and_after_the_bytes_before_it() {
    let Some(mut ring) = ring(UringConfig::default()) else { return };
    let (mut socket, far) = connected(&mut ring, 7);
    let mut far = writing(far, pattern(0, 100_000)).join().unwrap();
    assert!(until(&mut ring, |ready| ready.readable));
    settle(&mut ring);
    far.write_all(b"last").unwrap();
    rustix::net::sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    assert!(until(&mut ring, |ready| ready.failed), "nobody was told");
    assert_eq!(ring.take_error(&mut socket), Some(ConnError::Reset));
    let got = read_all(&mut ring, &mut socket, 100_004);
    assert!(got[..100_000] == pattern(0, 100_000) && &got[100_000..] == b"last");
    assert!(matches!(ring.recv(&mut socket, &mut [0; 8]), Ok(Progress::Ended | Progress::Blocked) | Err(_)));
}

#[test]
fn dropping_the_ring_with_operations_under_way_leaves_nothing_behind() {
    for round in 0..30 {
        let Some(mut ring) = ring(if round % 2 == 0 { TINY } else { UringConfig::default() }) else { return };
        let mut conns: Vec<_> = (0..10).map(|at| connected(&mut ring, at)).collect();
        for (at, (socket, far)) in conns.iter_mut().enumerate() {
            far.write_all(&pattern(at, 5000)).unwrap();
            if at % 3 == 0 {
                fill(&mut ring, socket);
            } else {
                ring.send(socket, b"not handed over yet").unwrap();
            }
        }
        let (closing, mut far) = conns.pop().unwrap();
        ring.close(closing);
        // Half of the handles outlive the ring.
        let outlive = conns.split_off(5);
        drop(conns);
        drop(ring);
        drop(outlive);
        let mut got = Vec::new();
        // What was closed has its end; the bytes that nobody read may make it a reset.
        far.read_to_end(&mut got).ok();
    }
}

#[test]
fn a_waker_is_heard_each_time() {
    let Some(mut ring) = ring(TINY) else { return };
    let waker = Waker::new().unwrap();
    ring.watch_waker(&waker).unwrap();
    ring.poll(Some(Duration::ZERO)).unwrap();
    for _ in 0..100 {
        waker.wake();
        assert!(until(&mut ring, |ready| ready.tag == midmile_engine::WAKE));
    }
}

#[test]
fn a_connection_travels_with_the_bytes_that_have_come() {
    let (Some(mut one), Some(mut two)) = (ring(UringConfig::default()), ring(UringConfig::default())) else { return };
    let (socket, far) = connected(&mut one, 0);
    let whole = pattern(3, 2_000_000);
    let mut far = writing(far, whole[..5000].to_vec()).join().unwrap();
    settle(&mut one);
    far.write_all(&whole[5000..6000]).unwrap();
    let parcel = one.detach(socket).unwrap();
    far.write_all(&whole[6000..7000]).unwrap();
    let mut socket = two.attach(parcel).unwrap();
    two.watch(&socket, Tag(9)).unwrap();
    assert!(until(&mut two, |ready| ready.tag == Tag(9) && ready.readable && ready.writable));
    let far = writing(far, whole[7000..].to_vec());
    let mut shown = [0; 100];
    assert_eq!(two.peek(&mut socket, &mut shown).unwrap(), Progress::Moved(100));
    assert_eq!(shown[..], whole[..100]);
    assert!(read_all(&mut two, &mut socket, whole.len()) == whole, "bytes differ");
    two.send(&mut socket, b"answer").unwrap();
    two.flush().unwrap();
    let mut answer = [0; 6];
    far.join().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    settle(&mut one);
    assert_eq!(one.gauges().sockets, 0);
}

/// Sends back what comes, keeps what finds no room, and now and then doesn't read for a while.
struct Echo {
    rng: Rng,
    ended: usize,
    expected: usize,
    messages: u64,
}

impl Echo {
    fn new(expected: usize) -> Self {
        Self { rng: Rng::new(42), ended: 0, expected, messages: 0 }
    }

    fn over<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId) {
        cx.close(conn);
        self.ended += 1;
        if self.ended == self.expected {
            cx.stop();
        }
    }
}

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let conn = cx.admit(incoming, 0, MeterId::NONE).ok().expect("there's room");
        cx.read(conn);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        self.messages += 1;
        let sent = cx.send(conn, bytes);
        if sent < bytes.len() {
            cx.pause(conn);
        } else if self.rng.one_in(20) {
            cx.pause(conn);
            cx.set_timer(conn, Duration::from_millis(self.rng.up_to(10) as u64));
        }
        sent
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.read(conn);
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.read(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        self.over(cx, conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, error: ConnError) {
        panic!("{error}");
    }
}

/// Says `len` bytes in pieces of any size, hears them again, and pauses now and then.
fn converse(at: SocketAddr, seed: u64, len: usize, piece_max: usize) {
    let whole = pattern(usize::try_from(seed).unwrap(), len);
    let mut near = TcpStream::connect(at).unwrap();
    near.set_read_timeout(Some(LONG)).unwrap();
    let mut writer = near.try_clone().unwrap();
    let said = whole.clone();
    let writing = thread::spawn(move || {
        let mut rng = Rng::new(seed);
        let mut left = &said[..];
        while !left.is_empty() {
            let piece = left.len().min(1 + rng.up_to(piece_max));
            writer.write_all(&left[..piece]).unwrap();
            left = &left[piece..];
            if rng.one_in(50) {
                thread::yield_now();
            }
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).unwrap();
    writing.join().unwrap();
    assert!(heard == whole, "{} of {} bytes came back, or others", heard.len(), whole.len());
}

fn echoes_are_exact(config: UringConfig, core_config: Config, clients: u64, len: usize, piece_max: usize) {
    let Some(ring) = ring(config) else { return };
    let mut core = Core::new(ring, core_config, Echo::new(usize::try_from(clients).unwrap()));
    let here = midmile_engine::Addr::Inet(([127, 0, 0, 1], 0).into());
    let (_, at) = core.parts().1.listen_at(&here, &LegOptions::default(), 1024).unwrap();
    let at = at.inet().unwrap();
    let clients: Vec<_> = (0..clients).map(|seed| thread::spawn(move || converse(at, seed, len, piece_max))).collect();
    core.run().unwrap();
    for client in clients {
        client.join().unwrap();
    }
    let cx = core.parts().1;
    cx.check();
    settle(cx.backend());
    let gauges = cx.backend().gauges();
    assert_eq!((gauges.sockets, gauges.recv_buffers_free), (0, config.recv_buffers), "{gauges:?}");
    assert_eq!(gauges.send_blocks_free, usize::from(config.send_blocks));
}

const SMALL: Config = Config {
    conns_max: 2048,
    read_bytes: 4096,
    blocks: 2,
    pipes_max: 2,
    pipe_bytes: 65_536,
    turn_bytes: 16_384,
    loop_bytes: 32_768,
    accept_batch: 4,
    accept_rest_ms: 10,
    catch_panics: false,
    busy_poll: Duration::ZERO,
};

#[test]
fn random_pieces_under_random_pauses_come_back_exactly() {
    echoes_are_exact(UringConfig::default(), Config { conns_max: 64, ..Config::default() }, 8, 1_000_000, 60_000);
}

#[test]
fn random_pieces_come_back_exactly_where_everything_is_scarce() {
    echoes_are_exact(TINY, SMALL, 24, 150_000, 3000);
}

#[test]
fn without_blocks_of_the_core_they_come_back_exactly_as_well() {
    echoes_are_exact(TINY, Config { blocks: 0, ..SMALL }, 12, 100_000, 3000);
}

#[test]
fn with_bundles_they_come_back_exactly_as_well() {
    echoes_are_exact(UringConfig { bundles: true, ..TINY }, SMALL, 12, 100_000, 3000);
    let config = UringConfig { bundles: true, ..UringConfig::default() };
    echoes_are_exact(config, Config { conns_max: 64, ..Config::default() }, 4, 2_000_000, 200_000);
}

#[test]
fn more_completions_than_their_queue_holds_are_all_handled() {
    // 20,000 messages, of which up to 200 complete at once in a queue of 32.
    const CLIENTS: usize = 200;
    const ROUNDS: usize = 100;
    let Some(ring) = ring(UringConfig { recv_buffers: 256, ..TINY }) else { return };
    let mut core = Core::new(ring, SMALL, Echo::new(CLIENTS));
    let here = midmile_engine::Addr::Inet(([127, 0, 0, 1], 0).into());
    let (_, at) = core.parts().1.listen_at(&here, &LegOptions::default(), 1024).unwrap();
    let at = at.inet().unwrap();
    let client = thread::spawn(move || {
        let mut streams: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(at).unwrap()).collect();
        for round in 0..ROUNDS {
            for (at, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&pattern(at + round, 64)).unwrap();
            }
            for (at, stream) in streams.iter_mut().enumerate() {
                let mut answer = [0; 64];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer[..], pattern(at + round, 64));
            }
        }
    });
    core.run().unwrap();
    client.join().unwrap();
    assert!(core.parts().0.messages >= (CLIENTS * ROUNDS) as u64);
}
