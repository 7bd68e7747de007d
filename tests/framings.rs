//! Framings of a file through `midmile gateway`: lengths, varints, BPF programs and RESP, with servers that answer in order.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use midmile_wire::frame::{Framing, LengthPrefix, Order, Program, Resp, Seen, Side, VarintPrefix, Width};
use process::{PATIENCE, Running, Scratch, status, until};

/// A message around these bytes.
type Make = fn(&[u8]) -> Vec<u8>;

/// A server that answers each message in order, with what `answer` makes of it.
fn server(framing: Framing, answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serves = Arc::new((framing, answer));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let serves = serves.clone();
            thread::spawn(move || {
                let (mut held, mut seen, mut piece) = (Vec::new(), Seen::default(), [0; 4096]);
                while let Ok(more @ 1..) = stream.read(&mut piece) {
                    held.extend(&piece[..more]);
                    while let Some(len) = serves.0.measure(&held, &mut seen).unwrap() {
                        let message: Vec<u8> = held.drain(..len).collect();
                        seen = Seen::default();
                        if stream.write_all(&(serves.1)(&message)).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    addr
}

/// `midmile gateway` with one listener in front of `to`.
fn gateway(scratch: &Scratch, to: &[SocketAddr], framing: &str, more: &str) -> Running {
    let to: Vec<String> = to.iter().map(ToString::to_string).collect();
    let text = format!(
        "[limits]\ncores = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"m\"\nlisten = \"127.0.0.1:0\"\n\
         to = {to:?}\nframing = {framing}\n{more}\n"
    );
    Running::start(&["gateway", "--config", &scratch.write("m.toml", &text)])
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Several clients, each with messages of all lengths, many in a write and cut anywhere, have each their own answers in their order,
/// from both servers.
fn carries(name: &str, written: &str, framing: &Framing, make: Make) {
    let scratch = Scratch::new(&format!("framings-{name}"));
    let to = [b'x', b'y'].map(|letter| server(framing.clone(), move |message| make(&[&[letter], message].concat())));
    let running = gateway(&scratch, &to, written, "");
    let listen = running.ready();
    let clients: Vec<_> = (0..8_u8).map(|client| thread::spawn(move || converse(listen, client, make))).collect();
    let letters: BTreeSet<u8> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert_eq!(letters, [b'x', b'y'].into(), "{name}: both servers answer");
    let document = status(running.admin());
    let messages = &document["routes"][0]["messages"];
    assert_eq!((&messages["requests"], &messages["answers"]), (&1600.into(), &1600.into()), "{name}: {messages:#}");
    assert_eq!(messages["upstreams"]["lost"], 0, "{name}: {messages:#}");
}

/// The letters of the servers that answered.
fn converse(listen: SocketAddr, client: u8, make: Make) -> BTreeSet<u8> {
    let mut stream = connect(listen);
    let mut letters = BTreeSet::new();
    for round in 0..20_u8 {
        let bodies = (0..10_u8).map(|place| vec![client ^ round ^ place; usize::from(place) * 31 * usize::from(round)]);
        let asked: Vec<Vec<u8>> = bodies.map(|body| make(&body)).collect();
        for piece in asked.concat().chunks(1 + usize::from(round) * 97) {
            stream.write_all(piece).unwrap();
        }
        for message in asked {
            let [from_x, from_y] = [b'x', b'y'].map(|letter| make(&[&[letter], &message[..]].concat()));
            let mut answer = vec![0; from_x.len()];
            stream.read_exact(&mut answer).unwrap();
            assert!(answer == from_x || answer == from_y, "client {client}, round {round}: not its own answer");
            letters.insert(if answer == from_x { b'x' } else { b'y' });
        }
    }
    letters
}

#[test]
fn lengths_are_carried() {
    // A type, then a length that counts itself, the lowest byte first.
    let prefix = LengthPrefix { offset: 1, width: Width::Four, order: Order::Little, adjust: -4, len_max: 65_536 };
    let written = "{ length = { offset = 1, width = 4, endian = \"little\", adjust = -4 } }";
    carries("length", written, &Framing::Length(prefix), |body| {
        [b"Q", &(u32::try_from(body.len()).unwrap() + 4).to_le_bytes()[..], body].concat()
    });
}

#[test]
fn varints_are_carried() {
    let varint = VarintPrefix { offset: 1, len_max: 65_536 };
    carries("varint", "{ varint = { offset = 1 } }", &Framing::Varint(varint), |body| {
        let (low, high) = (u8::try_from(body.len() % 128).unwrap(), u8::try_from(body.len() / 128).unwrap());
        let len = if high == 0 { vec![low] } else { vec![low | 0x80, high] };
        [b"\x30", &len[..], body].concat()
    });
}

#[test]
fn what_a_program_tells_apart_is_carried() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/wire/src/frame/tests/programs/dns.bin");
    let program = Program::parse(&std::fs::read(FILE).unwrap(), 65_536).unwrap();
    let written = format!("{{ program = \"{FILE}\" }}");
    carries("program", &written, &Framing::Program(Arc::new(program)), |body| {
        [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
    });
}

/// Messages that have begun and don't end hold blocks of the core's buffers; answers longer than the kernel holds need one too.
#[test]
fn beginnings_of_many_clients_hold_up_no_long_answer() {
    const LONG: usize = 900_000;
    let value = format!("${LONG}\r\n{}\r\n", "z".repeat(LONG)).into_bytes();
    let answer = value.clone();
    let commands = Framing::Resp(Resp { side: Side::Commands, len_max: 1 << 20 });
    let to =
        server(commands, move |message| if message == b"PING\r\n" { b"+PONG\r\n".to_vec() } else { answer.clone() });
    let scratch = Scratch::new("framings-beginnings");
    let timeouts = "[listener.messages]\nmessage_timeout = \"5m\"\nanswer_timeout = \"20s\"\nidle_timeout = \"5m\"";
    let running = gateway(&scratch, &[to], "{ resp = { max = \"1MiB\" } }", timeouts);
    let listen = running.ready();
    let mut good = connect(listen);
    let mut slow: Vec<TcpStream> = (0..100).map(|_| connect(listen)).collect();
    until("all clients", || (open(&running) == 101).then_some(()));
    for sender in &mut slow {
        sender.write_all(b"*2\r\n").unwrap();
    }
    for _ in 0..3 {
        // What was sent before it has been seen when it's answered.
        good.write_all(b"PING\r\n").unwrap();
        let mut pong = [0; 7];
        good.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"+PONG\r\n");
        good.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n").unwrap();
        let mut got = vec![0; value.len()];
        good.read_exact(&mut got).unwrap();
        assert!(got == value, "another answer");
    }
    assert_eq!(open(&running), 101, "those that began a message are still there");
}

/// What isn't a message is counted by the framer's reason, and a program that leaves its memory is told of in the log.
#[test]
fn a_framers_reasons_are_counted_and_a_fault_is_logged() {
    let scratch = Scratch::new("framings-reasons");
    // r2 = data; r0 = the byte 32,767 behind it; exit.
    let program = [[0x61, 0x12, 76, 0, 0, 0, 0, 0], [0x71, 0x20, 0xff, 0x7f, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let path = scratch.path("reads-outside.bin");
    std::fs::write(&path, program.concat()).unwrap();
    let to = server(Framing::Dns, <[u8]>::to_vec);
    let cases: [(&str, &[u8], &str); 3] = [
        (&format!("{{ program = \"{path}\" }}"), b"x", "fault"),
        ("{ resp = {} }", b"*x\r\n", "not-resp"),
        ("{ length = { max = \"1KiB\" } }", &[0xff; 4], "too-long"),
    ];
    for (framing, bytes, reason) in cases {
        let running = gateway(&scratch, &[to], framing, "");
        let mut client = connect(running.ready());
        client.write_all(bytes).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "{reason}: its end");
        let errors = || status(running.admin())["routes"][0]["messages"]["frame_errors"]["client"].clone();
        until(reason, || (errors()[reason] == 1).then_some(()));
        let all: u64 = errors().as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(all, 1, "{}", errors());
        if reason == "fault" {
            running.logged("the framing program left its memory");
        }
    }
}

/// Clients of the only route.
fn open(running: &Running) -> u64 {
    status(running.admin())["routes"][0]["pairs_open"].as_u64().unwrap()
}
