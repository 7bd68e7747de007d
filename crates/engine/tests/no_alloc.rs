//! Nothing is allocated for an event: messages that come in pieces, answers in parts, hand-overs between cores with bytes left over.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use midmile_engine::kernel::Kernel;
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, CoreId, Cx, Frame, Handler, Incoming, LegOptions, ListenerId, Mesh,
    MeterId,
};
use midmile_wire::frame::LengthPrefix;

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

/// Sends messages, the last of each batch in two pieces, and takes the answers.
fn converse(cores: &mut [Wandering], stream: &mut TcpStream) {
    const BATCH: &[u8; 14] = b"\0\x01a\0\x02bc\0\x05defgh";
    for _ in 0..50 {
        let (mut heard, mut answer) = (0, [0; BATCH.len()]);
        let begun = Instant::now();
        stream.write_all(&BATCH[..10]).unwrap();
        turn(cores);
        stream.write_all(&BATCH[10..]).unwrap();
        while heard < answer.len() {
            assert!(begun.elapsed() < Duration::from_secs(30), "no answer comes");
            turn(cores);
            match stream.read(&mut answer[heard..]) {
                Ok(bytes) => heard += bytes,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(&answer, BATCH);
    }
}

#[test]
fn messages_and_hand_overs_allocate_nothing() {
    let (_mesh, seats) = Mesh::new(2, 4).unwrap();
    let config = Config { conns_max: 4, pipes_max: 0, catch_panics: false, ..Config::default() };
    let core = |seat| Core::seated(Kernel::new().unwrap(), config, Wanderer::default(), seat).unwrap();
    let mut cores: Vec<Wandering> = seats.into_iter().map(core).collect();
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (_, at) = cores[0].parts().1.listen_at(&at, &LegOptions::default(), 4).unwrap();
    let mut stream = TcpStream::connect(at.inet().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    // What grows once has grown by then.
    converse(&mut cores, &mut stream);
    let counted = allocation_counter::measure(|| converse(&mut cores, &mut stream));
    let arrivals: usize = cores.iter_mut().map(|core| core.parts().0.arrivals).sum();
    assert!(arrivals > 50, "it hardly moved: {arrivals}");
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
