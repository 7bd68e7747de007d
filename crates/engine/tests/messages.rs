//! Messages: whole ones only, each told once, however their bytes come.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::IoSlice;
use std::time::Duration;

use midmile_engine::sim::{RemoteId, Script, Sim};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Frame, Handler, Incoming, LegOptions, ListenerId, MeterId,
};
use midmile_wire::frame::{LengthPrefix, Order, Width};
use proptest::prelude::*;

/// The longest message of these tests.
const READ_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    PeerClose { left_over: usize },
    Error(ConnError),
}

/// Collects messages, answers each with its length and itself, and pauses after every so many.
struct Collector {
    prefix: LengthPrefix,
    got: Vec<Vec<u8>>,
    pause_every: usize,
    /// What couldn't be sent yet.
    owed: Vec<u8>,
    over: Option<Over>,
}

impl Collector {
    fn answer<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, parts: [&[u8]; 2]) {
        let sent = if self.owed.is_empty() { cx.send_vectored(conn, &parts.map(IoSlice::new)) } else { 0 };
        self.owed.extend(parts.concat().drain(sent..));
    }
}

impl<B: Backend> Handler<B> for Collector {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let conn = cx.admit(incoming, 7, MeterId::NONE).ok().expect("there is room for it");
        cx.read_messages(conn);
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: &[u8]) -> usize {
        panic!("bytes are offered that were to come as messages");
    }

    fn frame(&mut self, _conn: ConnId, token: u64, bytes: &[u8]) -> Frame {
        assert!(token == 7 && !bytes.is_empty());
        self.prefix.measure(bytes).into()
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) {
        assert_eq!(token, 7);
        self.got.push(bytes.to_vec());
        self.answer(cx, conn, [&[u8::try_from(bytes.len()).unwrap()], bytes]);
        if self.got.len().is_multiple_of(self.pause_every) {
            cx.pause(conn);
            cx.set_timer(conn, Duration::from_millis(3));
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        let sent = cx.send(conn, &self.owed);
        self.owed.drain(..sent);
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.read_messages(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        self.over = Some(Over::PeerClose { left_over: cx.left_over(conn) });
        cx.stop();
    }

    fn on_error(&mut self, cx: &mut Cx<B>, _conn: ConnId, _token: u64, error: ConnError) {
        self.over = Some(Over::Error(error));
        cx.stop();
    }
}

/// A way for bytes to come, and room to keep them.
#[derive(Clone, Debug)]
struct Way {
    seed: u64,
    step: usize,
    window: usize,
    blocks: usize,
    pause_every: usize,
    prefix: LengthPrefix,
}

impl Way {
    /// Byte by byte.
    const SLOW: Self =
        Self { seed: 1, step: 1, window: 1000, blocks: 1, pause_every: usize::MAX, prefix: LengthPrefix::DNS };
}

fn config(blocks: usize) -> Config {
    Config { conns_max: 2, read_bytes: READ_BYTES, blocks, pipes_max: 0, catch_panics: false, ..Config::default() }
}

fn converse(way: &Way, stream: Vec<u8>) -> (Core<Sim, Collector>, RemoteId) {
    let handler =
        Collector { prefix: way.prefix, got: Vec::new(), pause_every: way.pause_every, owed: Vec::new(), over: None };
    let mut core = Core::new(Sim::new(way.seed, false), config(way.blocks), handler);
    let cx = core.parts().1;
    let (_, at) = cx.listen_at(&Addr::Inet(([10, 0, 0, 2], 0).into()), &LegOptions::default(), 16).unwrap();
    let script = Script { preamble: stream, send_step: way.step, window: way.window, ..Script::default() };
    let client = cx.backend().client_to(&at, Duration::ZERO, script).unwrap();
    while core.parts().0.over.is_none() {
        assert!(core.parts().1.now().as_nanos() < 600_000_000_000, "it stands still: {way:?}");
        core.turn().unwrap();
        core.parts().1.check();
    }
    (core, client)
}

/// The bytes of a message in the form of `prefix`.
fn encode(prefix: &LengthPrefix, body: &[u8]) -> Vec<u8> {
    let value = u64::try_from(i64::try_from(body.len()).unwrap() - prefix.adjust).unwrap();
    let mut field = value.to_be_bytes()[8 - prefix.width.bytes()..].to_vec();
    if prefix.order == Order::Little {
        field.reverse();
    }
    [vec![b'.'; prefix.offset], field, body.to_vec()].concat()
}

fn way() -> impl Strategy<Value = Way> {
    let widths = [Width::One, Width::Two, Width::Three, Width::Four, Width::Eight];
    let prefix = (0_usize..4, prop::sample::select(widths.to_vec()), any::<bool>()).prop_map(|(offset, width, big)| {
        let order = if big { Order::Big } else { Order::Little };
        // The length counts all of the message, where that's given by the place that it stands at.
        let adjust = if offset == 1 { -5 } else { 0 };
        LengthPrefix { offset, width, order, adjust, len_max: usize::MAX }
    });
    let pause = prop_oneof![1_usize..4, Just(usize::MAX)];
    (any::<u64>(), 1_usize..200, 1_usize..300, 0_usize..2, pause, prefix).prop_map(
        |(seed, step, window, blocks, pause_every, prefix)| Way {
            // With no block a message waits where it came to, which has to have the room.
            window: if blocks == 0 { window + READ_BYTES } else { window },
            seed,
            step,
            blocks,
            pause_every,
            prefix,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn messages_are_the_same_however_their_bytes_come(
        way in way(),
        // The longest head has 3 bytes and a length of 8.
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=READ_BYTES - 11), 0..20),
        cut in prop::option::of(0_usize..1000),
    ) {
        let mut messages: Vec<_> = bodies.iter().map(|body| encode(&way.prefix, body)).collect();
        let mut stream = messages.concat();
        let mut left_over = 0;
        if let Some(cut) = cut.filter(|cut| *cut < stream.len()) {
            // The last message isn't whole.
            stream.truncate(cut);
            let mut whole = 0;
            let count = messages.iter().take_while(|message| { whole += message.len(); whole <= cut }).count();
            messages.truncate(count);
            left_over = cut - messages.concat().len();
        }
        let (mut core, _) = converse(&way, stream);
        let (handler, cx) = core.parts();
        prop_assert_eq!(&handler.got, &messages);
        // With no block the rest stays in the transport.
        prop_assert_eq!(handler.over, Some(Over::PeerClose { left_over: if way.blocks == 0 { 0 } else { left_over } }));
        prop_assert_eq!(cx.gauges().blocks_leased, usize::from(left_over > 0 && way.blocks > 0));
    }
}

#[test]
fn answers_of_several_parts_come_whole_and_in_order() {
    let messages: Vec<Vec<u8>> = (0..40).map(|len| encode(&LengthPrefix::DNS, &vec![len; usize::from(len)])).collect();
    let (mut core, client) = converse(&Way { step: 300, window: 50, ..Way::SLOW }, messages.concat());
    let expected: Vec<u8> = messages
        .iter()
        .flat_map(|message| [vec![u8::try_from(message.len()).unwrap()], message.clone()].concat())
        .collect();
    while core.parts().1.backend().remote(client).received().len() < expected.len() {
        assert!(core.parts().1.now().as_nanos() < 600_000_000_000, "the answers don't come");
        core.turn().unwrap();
    }
    assert_eq!(core.parts().1.backend().remote(client).received(), expected);
}

fn fails(blocks: usize, stream: &[u8], messages: usize, error: ConnError) {
    for step in [1, 7, 100] {
        let (mut core, client) = converse(&Way { step, blocks, ..Way::SLOW }, stream.to_vec());
        let (handler, cx) = core.parts();
        assert_eq!((handler.got.len(), handler.over), (messages, Some(Over::Error(error))), "by {step}");
        assert_eq!((cx.conns_open(), cx.gauges().blocks_leased), (0, 0));
        assert!(!cx.backend().remote(client).was_connected() || handler.owed.is_empty());
    }
}

#[test]
fn a_message_longer_than_the_buffer_ends_the_connection() {
    let longest = encode(&LengthPrefix::DNS, &[0; READ_BYTES - 2]);
    let longer = encode(&LengthPrefix::DNS, &[0; READ_BYTES - 1]);
    for blocks in [0, 1] {
        fails(blocks, &[longest.clone(), longer.clone()].concat(), 1, ConnError::TooLong);
    }
}

#[test]
fn what_is_no_message_ends_the_connection() {
    struct Lines(Vec<Frame>, Option<ConnError>);
    impl<B: Backend> Handler<B> for Lines {
        fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
            let conn = cx.admit(incoming, 0, MeterId::NONE).ok().expect("there is room for it");
            cx.read_messages(conn);
        }
        fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
            bytes.len()
        }
        fn frame(&mut self, _: ConnId, _: u64, _: &[u8]) -> Frame {
            self.0.remove(0)
        }
        fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
        fn on_error(&mut self, cx: &mut Cx<B>, _: ConnId, _: u64, error: ConnError) {
            self.1 = Some(error);
            cx.stop();
        }
    }
    let too_long = Frame::Message(READ_BYTES + 1);
    for (frame, error) in
        [(Frame::Broken, ConnError::Broken), (Frame::Message(0), ConnError::Broken), (too_long, ConnError::TooLong)]
    {
        let mut core = Core::new(Sim::new(1, false), config(1), Lines(vec![Frame::Message(2), frame], None));
        let cx = core.parts().1;
        let (_, at) = cx.listen_at(&Addr::Inet(([10, 0, 0, 2], 0).into()), &LegOptions::default(), 16).unwrap();
        let script = Script { preamble: b"abcdef".to_vec(), send_step: 100, ..Script::default() };
        cx.backend().client_to(&at, Duration::ZERO, script).unwrap();
        core.run().unwrap();
        assert_eq!(core.parts().0.1, Some(error));
    }
}
