//! The contract of upcalls on the kernel's sockets, by epoll and by io_uring: what is offered, what is kept, and in which order ends and failures show.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use midmile_engine::kernel;
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenError, ListenerId, Waker,
};

mod under;

use under::Under;

const FRAME: usize = 10;
const SMALL: Config = Config { conns_max: 4, ..DEFAULT };
const DEFAULT: Config = Config {
    conns_max: 4,
    read_bytes: 64 * 1024,
    blocks: 4,
    pipes_max: 4,
    pipe_bytes: 64 * 1024,
    turn_bytes: 1024 * 1024,
    loop_bytes: 1024 * 1024,
    accept_batch: 64,
    accept_rest_ms: 50,
    busy_poll: Duration::ZERO,
    catch_panics: false,
};

/// What a program saw, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Connect,
    PeerClose,
    Error(ConnError),
    Timer,
    Wake,
}

/// Answers each whole frame of ten bytes, and stops when its connection is over.
#[derive(Default)]
struct Framed {
    seen: Vec<Seen>,
    frames: usize,
    left_over: usize,
}

impl Framed {
    fn over<B: Backend>(&mut self, cx: &mut Cx<B>, what: Seen) {
        self.seen.push(what);
        cx.stop();
    }
}

impl<B: Backend> Handler<B> for Framed {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let meter = cx.add_meter(std::sync::Arc::default());
        let conn = cx.admit(incoming, 0, meter).ok().expect("there is room for four");
        cx.read(conn);
    }

    fn on_connect(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        self.seen.push(Seen::Connect);
        cx.read(conn);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        let whole = bytes.len() - bytes.len() % FRAME;
        self.frames += whole / FRAME;
        self.left_over = bytes.len() - whole;
        if whole > 0 {
            // A short answer means that the connection has failed, and on_error follows.
            cx.send(conn, &bytes[..whole]);
        }
        whole
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.close(conn);
        self.over(cx, Seen::PeerClose);
    }

    fn on_error(&mut self, cx: &mut Cx<B>, _conn: ConnId, _token: u64, error: ConnError) {
        self.over(cx, Seen::Error(error));
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.reset(conn);
        self.over(cx, Seen::Timer);
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        self.over(cx, Seen::Wake);
    }
}

type Framing<B> = Core<B, Framed>;

fn core<B: Under>(config: Config) -> Framing<B> {
    Core::new(B::made().unwrap(), config, Framed::default())
}

fn listening<B: Under>(core: &mut Framing<B>) -> SocketAddr {
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (listeners, at) = kernel::listen(&at, &LegOptions::default(), &[0], false).unwrap();
    for listener in listeners {
        core.parts().1.listen(listener).unwrap();
    }
    at.inet().unwrap()
}

fn dial<B: Under>(core: &mut Framing<B>, to: SocketAddr) -> Result<ConnId, ConnError> {
    let cx = core.parts().1;
    let meter = cx.add_meter(std::sync::Arc::default());
    cx.dial(&to.into(), &LegOptions::default(), 0, meter)
}

/// Sends `pieces`, each when the answer to all whole frames before it is in; then ends, and returns all answers.
fn converse(at: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).unwrap();
    let (mut said, mut heard) = (0, Vec::new());
    for piece in pieces {
        stream.write_all(piece).unwrap();
        said += piece.len();
        let mut answer = vec![0; said - said % FRAME - heard.len()];
        stream.read_exact(&mut answer).unwrap();
        heard.extend(answer);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut heard).unwrap();
    heard
}

fn whole_frames_are_answered_whatever_the_pieces<B: Under>(config: Config) {
    let mut core = core::<B>(config);
    let at = listening(&mut core);
    let pieces: [&[u8]; 6] = [b"0123456789", b"abc", b"defghij01", b"2", b"345678987654321", b"xy"];
    let client = thread::spawn(move || converse(at, &pieces));
    core.run().unwrap();
    let (handler, cx) = core.parts();
    cx.check();
    assert_eq!(cx.gauges().blocks_leased, 0);
    let said = pieces.concat();
    assert_eq!((handler.frames, handler.left_over), (said.len() / FRAME, said.len() % FRAME));
    assert_eq!(handler.seen, [Seen::PeerClose]);
    assert_eq!(client.join().unwrap(), &said[..said.len() - said.len() % FRAME]);
}

fn what_is_left_over_stands_in_front_of_what_comes_next<B: Under>() {
    whole_frames_are_answered_whatever_the_pieces::<B>(SMALL);
}

fn a_core_that_looks_for_more_before_it_sleeps_sees_the_same<B: Under>() {
    whole_frames_are_answered_whatever_the_pieces::<B>(Config { busy_poll: Duration::from_millis(10), ..SMALL });
}

fn without_blocks_what_is_left_over_stays_in_the_kernel<B: Under>() {
    whole_frames_are_answered_whatever_the_pieces::<B>(Config { blocks: 0, ..SMALL });
}

/// Answers a first frame, takes a second one, dials, and forwards what comes behind it.
struct Late {
    to: SocketAddr,
    client: Option<ConnId>,
    answered: bool,
}

impl<B: Backend> Handler<B> for Late {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let meter = cx.add_meter(std::sync::Arc::default());
        let client = cx.admit(incoming, 0, meter).ok().expect("there is room for four");
        self.client = Some(client);
        cx.read(client);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64, _bytes: &[u8]) -> usize {
        if !std::mem::replace(&mut self.answered, true) {
            assert_eq!(cx.send(conn, b"!"), 1);
            return FRAME;
        }
        cx.pause(conn);
        let meter = cx.add_meter(std::sync::Arc::default());
        cx.dial(&self.to.into(), &LegOptions::default(), 0, meter).unwrap();
        FRAME
    }

    fn on_connect(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.forward(self.client.unwrap(), conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, _conn: ConnId, _token: u64) {
        cx.stop();
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, error: ConnError) {
        panic!("{error}");
    }
}

fn what_is_left_over_is_forwarded<B: Under>(config: Config) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let handler = Late { to: server.local_addr().unwrap(), client: None, answered: false };
    let mut core = Core::new(B::made().unwrap(), config, handler);
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (mut listeners, at) = kernel::listen(&at, &LegOptions::default(), &[0], false).unwrap();
    core.parts().1.listen(listeners.remove(0)).unwrap();
    let client = thread::spawn(move || {
        let mut client = TcpStream::connect(at.inet().unwrap()).unwrap();
        client.write_all(b"0123456789").unwrap();
        client.read_exact(&mut [0]).unwrap();
        client.write_all(b"0123456789and the rest").unwrap();
        let (mut stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut got = [0; 12];
        // Nothing more comes that could wake the forwarder.
        stream.read_exact(&mut got).map(|()| got)
    });
    core.run().unwrap();
    assert_eq!(&client.join().unwrap().unwrap(), b"and the rest");
}

fn what_is_left_over_is_forwarded_without_another_word<B: Under>() {
    what_is_left_over_is_forwarded::<B>(SMALL);
}

fn without_blocks_what_is_left_over_is_forwarded_without_another_word<B: Under>() {
    what_is_left_over_is_forwarded::<B>(Config { blocks: 0, ..SMALL });
}

fn bytes_that_came_before_a_reset_are_offered_before_it<B: Under>() {
    let mut core = core::<B>(SMALL);
    let at = listening(&mut core);
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(&[7; 5 * FRAME + 3]).unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    // The core first looks when data and reset are both there.
    drop(stream);
    core.run().unwrap();
    let handler = core.parts().0;
    assert_eq!((handler.frames, handler.left_over), (5, 3));
    assert_eq!(handler.seen, [Seen::Error(ConnError::Reset)]);
}

fn a_dial_that_stands_is_told_before_its_bytes<B: Under>() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut core = core::<B>(SMALL);
    dial(&mut core, server.local_addr().unwrap()).unwrap();
    let answering = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.write_all(&[1; FRAME]).unwrap();
        stream.read_exact(&mut [0; FRAME]).unwrap();
    });
    core.run().unwrap();
    answering.join().unwrap();
    assert_eq!(core.parts().0.seen, [Seen::Connect, Seen::PeerClose]);
}

fn a_dial_that_nobody_answers_is_refused<B: Under>() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut core = core::<B>(SMALL);
    if let Err(error) = dial(&mut core, gone) {
        assert_eq!(error, ConnError::Refused);
        return;
    }
    core.run().unwrap();
    assert_eq!(core.parts().0.seen, [Seen::Error(ConnError::Refused)]);
}

fn a_timer_fires_and_not_early<B: Under>() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut core = core::<B>(SMALL);
    let conn = dial(&mut core, server.local_addr().unwrap()).unwrap();
    let start = Instant::now();
    core.parts().1.set_timer(conn, Duration::from_millis(30));
    core.run().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(29), "{:?}", start.elapsed());
    assert_eq!(core.parts().0.seen, [Seen::Connect, Seen::Timer]);
    assert_eq!(core.parts().1.conns_open(), 0);
}

fn a_timer_fires_on_a_core_that_is_looking_for_more<B: Under>() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    // It doesn't sleep until long after the timer.
    let mut core = core::<B>(Config { busy_poll: Duration::from_secs(600), ..SMALL });
    let conn = dial(&mut core, server.local_addr().unwrap()).unwrap();
    let start = Instant::now();
    core.parts().1.set_timer(conn, Duration::from_millis(30));
    core.run().unwrap();
    assert!((29..60_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(core.parts().0.seen, [Seen::Connect, Seen::Timer]);
}

fn a_waker_wakes_from_another_thread<B: Under>() {
    let waker = Waker::new().unwrap();
    let mut backend = B::made().unwrap();
    backend.watch_waker(&waker).unwrap();
    let mut core = Core::new(backend, SMALL, Framed::default());
    let (go, told) = channel::<()>();
    let waking = thread::spawn(move || {
        told.recv().unwrap();
        waker.wake();
    });
    go.send(()).unwrap();
    core.run().unwrap();
    waking.join().unwrap();
    assert_eq!(core.parts().0.seen, [Seen::Wake]);
}

fn a_full_core_gives_the_connection_back_to_be_refused<B: Under>() {
    struct Full(usize);
    impl<B: Backend> Handler<B> for Full {
        fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
            let meter = cx.add_meter(std::sync::Arc::default());
            if let Err(incoming) = cx.admit(incoming, 0, meter) {
                self.0 += 1;
                cx.refuse(incoming);
                cx.stop();
            }
        }
        fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
            bytes.len()
        }
        fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
        fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}
    }
    let mut core = Core::new(B::made().unwrap(), Config { conns_max: 1, ..SMALL }, Full(0));
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (mut listeners, at) = kernel::listen(&at, &LegOptions::default(), &[0], false).unwrap();
    core.parts().1.listen(listeners.remove(0)).unwrap();
    let to = at.inet().unwrap();
    let (kept, mut refused) = (TcpStream::connect(to).unwrap(), TcpStream::connect(to).unwrap());
    core.run().unwrap();
    assert_eq!(core.parts().0.0, 1);
    let answer = refused.read(&mut [0; 1]).unwrap_err();
    assert_eq!(answer.kind(), std::io::ErrorKind::ConnectionReset);
    drop(kept);
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

on_each!(
    what_is_left_over_stands_in_front_of_what_comes_next,
    without_blocks_what_is_left_over_stays_in_the_kernel,
    what_is_left_over_is_forwarded_without_another_word,
    without_blocks_what_is_left_over_is_forwarded_without_another_word,
    bytes_that_came_before_a_reset_are_offered_before_it,
    a_dial_that_stands_is_told_before_its_bytes,
    a_dial_that_nobody_answers_is_refused,
    a_timer_fires_and_not_early,
    a_timer_fires_on_a_core_that_is_looking_for_more,
    a_core_that_looks_for_more_before_it_sleeps_sees_the_same,
    a_waker_wakes_from_another_thread,
    a_full_core_gives_the_connection_back_to_be_refused,
);
