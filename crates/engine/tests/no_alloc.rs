//! Nothing is allocated for an event: messages that come in pieces, answers in parts, hand-overs between cores with bytes left over.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::fs::DirBuilder;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Duration, Instant};

use midmile_engine::kernel::Kernel;
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, CoreId, Cx, Frame, Handler, Incoming, LegOptions, ListenerId, Mesh,
    MeterId,
};
use midmile_friends_sockets::own::{self, Figure};
use midmile_wire::frame::LengthPrefix;
use rustix::event::epoll;
use rustix::io::Errno;

/// Answers each message with itself, in two parts, and sends the connection to the other core after every third.
#[derive(Default)]
struct Wanderer {
    messages: usize,
    arrivals: usize,
}

impl<B: Backend> Handler<B> for Wanderer {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let conn = cx.admit(incoming, 0, MeterId::NONE).ok().expect("there is room for it");
        cx.read_messages(conn);
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn frame(&mut self, _: ConnId, _: u64, bytes: &[u8]) -> Frame {
        LengthPrefix::DNS.measure(bytes).into()
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64, bytes: &[u8]) {
        let (head, body) = bytes.split_at(2);
        assert_eq!(cx.send_vectored(conn, &[IoSlice::new(head), IoSlice::new(body)]), bytes.len());
        self.messages += 1;
        if self.messages.is_multiple_of(3) {
            let to = if cx.core() == Some(CoreId(0)) { CoreId(1) } else { CoreId(0) };
            cx.hand_off(conn, to).unwrap();
        }
    }

    fn on_hand_off(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        self.arrivals += 1;
        cx.read_messages(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.close(conn);
    }

    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, error: ConnError) {
        panic!("{error}");
    }
}

type Wandering = Core<Kernel, Wanderer>;

/// Gives each core a turn, without sleep.
fn turn(cores: &mut [Wandering]) {
    for core in cores {
        core.parts().1.set_alarm(Duration::ZERO);
        core.turn().unwrap();
    }
}

/// The other end of a connection.
trait Peer {
    fn say(&mut self, bytes: &[u8]);

    /// `None`: nothing has come.
    fn hear(&mut self, into: &mut [u8]) -> Option<usize>;
}

impl Peer for TcpStream {
    fn say(&mut self, bytes: &[u8]) {
        self.write_all(bytes).unwrap();
    }

    fn hear(&mut self, into: &mut [u8]) -> Option<usize> {
        match self.read(into) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }
}

/// One that asks to be the engine's friend.
struct Friend(TcpStream);

impl Peer for Friend {
    fn say(&mut self, bytes: &[u8]) {
        assert_eq!(own::send(self.0.as_raw_fd(), &[IoSlice::new(bytes)], false), Ok(bytes.len()));
    }

    fn hear(&mut self, into: &mut [u8]) -> Option<usize> {
        match own::receive(self.0.as_raw_fd(), into, false) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                assert_eq!(error.0, Errno::AGAIN.raw_os_error());
                None
            }
        }
    }
}

/// Sends messages, the last of each batch in two pieces, and takes the answers.
fn converse(cores: &mut [Wandering], peer: &mut impl Peer) {
    const BATCH: &[u8; 14] = b"\0\x01a\0\x02bc\0\x05defgh";
    for _ in 0..50 {
        let (mut heard, mut answer) = (0, [0; BATCH.len()]);
        let begun = Instant::now();
        peer.say(&BATCH[..10]);
        turn(cores);
        peer.say(&BATCH[10..]);
        while heard < answer.len() {
            assert!(begun.elapsed() < Duration::from_secs(30), "no answer comes");
            turn(cores);
            heard += peer.hear(&mut answer[heard..]).unwrap_or(0);
        }
        assert_eq!(&answer, BATCH);
    }
}

/// Two cores between which the connection moves while `peer` speaks with them; how much was allocated meanwhile.
fn wander<P: Peer>(options: &LegOptions, peer: impl FnOnce(TcpStream) -> P) -> u64 {
    let (_mesh, seats) = Mesh::new(2, 4).unwrap();
    let config = Config { conns_max: 4, pipes_max: 0, catch_panics: false, ..Config::default() };
    let core = |seat| Core::seated(Kernel::new().unwrap(), config, Wanderer::default(), seat).unwrap();
    let mut cores: Vec<Wandering> = seats.into_iter().map(core).collect();
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (_, at) = cores[0].parts().1.listen_at(&at, options, 4).unwrap();
    let stream = TcpStream::connect(at.inet().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut peer = peer(stream);
    // What grows once has grown by then.
    converse(&mut cores, &mut peer);
    let counted = allocation_counter::measure(|| converse(&mut cores, &mut peer));
    let arrivals: usize = cores.iter_mut().map(|core| core.parts().0.arrivals).sum();
    assert!(arrivals > 50, "it hardly moved: {arrivals}");
    counted.count_total
}

#[test]
fn messages_and_hand_overs_allocate_nothing() {
    assert_eq!(wander(&LegOptions::default(), |stream| stream), 0);
}

fn figure(wanted: Figure) -> u64 {
    own::figures().find_map(|(figure, count)| (figure == wanted).then_some(count)).unwrap()
}

#[test]
fn friends_that_move_between_cores_lose_nothing_and_allocate_nothing() {
    let directory = std::env::temp_dir().join(format!("midmile-engine-friends-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory).unwrap();
    own::begin(&directory).unwrap();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    let allocated = wander(&LegOptions { friend: true, ..LegOptions::default() }, |stream| {
        epoll::add(&epoll, &stream, epoll::EventData::new_u64(0), flags).unwrap();
        own::watched(epoll.as_raw_fd(), stream.as_raw_fd(), flags.bits(), 0, true);
        Friend(stream)
    });
    std::fs::remove_dir_all(&directory).unwrap();
    // Both ends are this process's.
    let (friends, by_ring) = (figure(Figure::Friends), figure(Figure::RingIn));
    assert!(friends == 2 && by_ring > 1200, "{friends} friends, {by_ring} bytes by ring");
    assert_eq!(allocated, 0);
}
