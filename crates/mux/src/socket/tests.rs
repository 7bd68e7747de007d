//! The sockets as programs use them, with real connections; and sequences of operations from a seed, turn by turn.

mod sequences;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use midmile_wire::frame::{Framing, LengthPrefix, Order, Resp, Side, Width};

use super::{Batch, Closed, Duration, Ended, MessageSocket, Multiplexor, Outgoing, Received, Settings, Via};

/// Long enough for anything that is to happen.
const LONG: Option<Duration> = Some(Duration::from_secs(30));
/// Short enough to wait for what mustn't.
const SHORT: Option<Duration> = Some(Duration::from_millis(30));

pub(super) fn settings() -> Settings {
    Settings { message_timeout: Duration::from_secs(30), ..Settings::new(Framing::Dns) }
}

/// A message as it goes over the wire: its length in front.
pub(super) fn message(body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap();
    [&len.to_be_bytes(), body].concat()
}

pub(super) fn to_anybody(bytes: &[u8], ticket: u64) -> Outgoing<'_> {
    Outgoing { bytes, via: None, idempotent: false, ticket }
}

/// A multiplexor with a connection; what stands at its far end.
fn attached(settings: Settings) -> (Multiplexor, MessageSocket, Via, UnixStream) {
    let mux = Multiplexor::start(settings).unwrap();
    let (via, far) = another(&mux);
    let socket = mux.socket();
    (mux, socket, via, far)
}

fn another(mux: &Multiplexor) -> (Via, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_read_timeout(LONG).unwrap();
    (mux.attach(near).unwrap(), far)
}

/// The next thing to be told.
fn next(socket: &MessageSocket) -> Received {
    let mut batch = Batch::default();
    assert_eq!(socket.recv_batch(&mut batch, 1, LONG), Ok(1), "nothing comes");
    batch.items()[0].clone()
}

fn read_message(far: &mut UnixStream) -> Vec<u8> {
    let mut len = [0; 2];
    far.read_exact(&mut len).unwrap();
    let mut body = vec![0; u16::from_be_bytes(len).into()];
    far.read_exact(&mut body).unwrap();
    body
}

/// More than a socket holds.
fn large(byte: u8) -> Vec<u8> {
    message(&[byte; 65_000])
}

/// For messages longer than any socket holds.
fn long_messages() -> Settings {
    let prefix = LengthPrefix { offset: 0, width: Width::Four, order: Order::Big, adjust: 0, len_max: 5 << 20 };
    Settings { framing: Framing::Length(prefix), message_max: 5 << 20, ..settings() }
}

fn long_message(len: u32) -> Vec<u8> {
    len.to_be_bytes().into_iter().chain((0..len).map(|at| (at % 251) as u8)).collect()
}

#[test]
fn half_a_message_wakes_nobody_and_a_whole_one_says_whose_it_is() {
    let (mux, socket, first, mut far) = attached(settings());
    let (second, mut other) = another(&mux);
    let whole = message(b"question");
    far.write_all(&whole[..5]).unwrap();
    assert_eq!(socket.recv_batch(&mut Batch::default(), 9, SHORT), Ok(0));
    other.write_all(&message(b"else")).unwrap();
    assert_eq!(next(&socket), Received::Message { via: second, bytes: message(b"else") });
    far.write_all(&whole[5..]).unwrap();
    assert_eq!(next(&socket), Received::Message { via: first, bytes: whole });
    assert_eq!((mux.figures().rx_messages, mux.figures().rx_bytes), (2, 16));
}

#[test]
fn an_answer_goes_by_the_connection_that_it_names_and_others_take_turns() {
    let (mux, socket, first, mut far) = attached(settings());
    let (second, mut other) = another(&mux);
    let bytes = message(b"a");
    let to = |via| Outgoing { via: Some(via), ..to_anybody(&bytes, 0) };
    assert_eq!(socket.send_batch(&[to(second), to(second), to(first)], LONG), Ok(3));
    assert_eq!([read_message(&mut other), read_message(&mut other), read_message(&mut far)].concat(), b"aaa");
    assert_eq!(socket.send_batch(&[to_anybody(&message(b"b"), 0), to_anybody(&message(b"c"), 0)], LONG), Ok(2));
    let mut got = [read_message(&mut far), read_message(&mut other)].concat();
    got.sort_unstable();
    assert_eq!(got, b"bc");
}

#[test]
fn receivers_share_the_messages() {
    const MESSAGES: usize = 3000;
    let (mux, socket, _, mut far) = attached(Settings { queue_messages: 7, ..settings() });
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let socket = socket.clone();
            thread::spawn(move || {
                let (mut batch, mut got) = (Batch::default(), Vec::new());
                while socket.recv_batch(&mut batch, 5, None).is_ok() {
                    for item in batch.items() {
                        let Received::Message { bytes, .. } = item else { return got };
                        got.push(u16::from_be_bytes(bytes[2..].try_into().unwrap()));
                    }
                }
                got
            })
        })
        .collect();
    for number in 0..MESSAGES {
        far.write_all(&message(&u16::try_from(number).unwrap().to_be_bytes())).unwrap();
    }
    while mux.figures().rx_messages < MESSAGES as u64 {
        thread::yield_now();
    }
    // Nothing is lost at the end: a receiver takes what has come before it hears of it.
    drop(mux);
    let mut got = receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect::<Vec<_>>();
    got.sort_unstable();
    assert_eq!(got, (0..u16::try_from(MESSAGES).unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_connection_is_reserved_until_its_message_is_out() {
    let (mux, socket, first, mut far) = attached(settings());
    let (_, mut other) = another(&mux);
    let (a, b, c) = (large(b'a'), large(b'b'), message(b"c"));
    // Some of these fit the socket; one is half out then.
    let named: Vec<_> = (0..20).map(|ticket| Outgoing { via: Some(first), ..to_anybody(&a, ticket) }).collect();
    assert_eq!(socket.send_batch(&named, LONG), Ok(20));
    assert_eq!(socket.send_batch(&[to_anybody(&b, 0), to_anybody(&c, 0)], LONG), Ok(2));
    assert_eq!(read_message(&mut other), &b[2..]);
    assert_eq!(read_message(&mut other), b"c");
    for _ in 0..20 {
        assert_eq!(read_message(&mut far), &a[2..]);
    }
}

#[test]
fn a_message_that_was_cut_off_goes_once_by_another_if_it_may() {
    for idempotent in [true, false] {
        let (mux, socket, first, far) = attached(settings());
        let all: Vec<_> = (0..20).map(|_| large(b'x')).collect();
        let outgoing: Vec<_> =
            (0..).zip(&all).map(|(ticket, bytes)| Outgoing { idempotent, ..to_anybody(bytes, ticket) }).collect();
        assert_eq!(socket.send_batch(&outgoing, LONG), Ok(20));
        let (_, mut other) = another(&mux);
        let before = mux.figures().tx_messages;
        drop(far);
        let mut unsent = 0;
        let reading = thread::spawn(move || {
            let mut got = 0;
            while got < 19 - before {
                read_message(&mut other);
                got += 1;
            }
            (got, other)
        });
        let mut ended = None;
        while ended.is_none() {
            match next(&socket) {
                Received::Unsent { .. } => unsent += 1,
                Received::Ended { via, why } => ended = Some((via, why)),
                Received::Message { .. } => panic!("nobody sends"),
            }
        }
        assert_eq!(ended, Some((first, Ended::Failed)));
        assert_eq!(unsent, u64::from(!idempotent));
        assert_eq!(mux.figures().tx_retries, u64::from(idempotent));
        let (_, mut other) = reading.join().unwrap();
        if idempotent {
            read_message(&mut other);
        }
    }
}

#[test]
fn it_isnt_sent_a_third_time() {
    let (mux, socket, first, far) = attached(long_messages());
    let whole = long_message(4 << 20);
    socket.send_batch(&[Outgoing { idempotent: true, ..to_anybody(&whole, 5) }], LONG).unwrap();
    let (second, mut other) = another(&mux);
    drop(far);
    assert_eq!(next(&socket), Received::Ended { via: first, why: Ended::Failed });
    // It has begun there.
    other.read_exact(&mut [0; 100]).unwrap();
    let (_third, mut nothing) = another(&mux);
    drop(other);
    let told = [next(&socket), next(&socket)];
    assert!(told.contains(&Received::Unsent { ticket: 5 }), "{told:?}");
    assert!(told.contains(&Received::Ended { via: second, why: Ended::Failed }), "{told:?}");
    drop(mux);
    assert_eq!(nothing.read(&mut [0; 4]).unwrap(), 0);
}

#[test]
fn a_message_larger_than_a_socket_goes_whole() {
    let (mux, socket, via, mut far) = attached(long_messages());
    let whole = long_message(4 << 20);
    socket.send_batch(&[to_anybody(&whole, 0)], LONG).unwrap();
    let mut echo = vec![0; whole.len()];
    far.read_exact(&mut echo).unwrap();
    assert!(echo == whole, "bytes differ");
    let writing = thread::spawn(move || far.write_all(&echo).map(|()| far));
    assert!(next(&socket) == Received::Message { via, bytes: whole }, "bytes differ");
    writing.join().unwrap().unwrap();
    assert_eq!((mux.figures().tx_messages, mux.figures().rx_messages), (1, 1));
}

#[test]
fn each_end_has_its_name() {
    let (mux, socket, via, mut far) = attached(Settings { message_max: 10, ..settings() });
    far.write_all(&message(b"longer than ten")).unwrap();
    assert_eq!(next(&socket), Received::Ended { via, why: Ended::TooLong });
    assert!(matches!(far.read(&mut [0]), Ok(0) | Err(_)), "the connection goes on");
    let (via, mut far) = another(&mux);
    far.write_all(b"\0").unwrap();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(next(&socket), Received::Ended { via, why: Ended::Torn });
    let (via, mut far) = another(&mux);
    far.write_all(&message(b"last")).unwrap();
    drop(far);
    assert_eq!(next(&socket), Received::Message { via, bytes: message(b"last") });
    assert_eq!(next(&socket), Received::Ended { via, why: Ended::Finished });
    let figures = mux.figures();
    assert_eq!((figures.rx_too_long, figures.rx_torn, figures.rx_finished, figures.attached), (1, 1, 1, 3));
}

#[test]
fn the_whole_message_has_to_come_in_time_however_often_a_byte_does() {
    let (mux, socket, via, mut far) = attached(Settings { message_timeout: Duration::from_millis(60), ..settings() });
    let (quiet, mut other) = another(&mux);
    let drip = thread::spawn(move || {
        // Until it's cut.
        while far.write_all(b"\x10").is_ok() {
            thread::sleep(Duration::from_millis(2));
        }
    });
    assert_eq!(next(&socket), Received::Ended { via, why: Ended::TimedOut });
    drip.join().unwrap();
    // One that says nothing at all stays.
    other.write_all(&message(b"now")).unwrap();
    assert_eq!(next(&socket), Received::Message { via: quiet, bytes: message(b"now") });
}

#[test]
fn the_whole_message_has_to_be_taken_in_time_however_often_a_part_is() {
    let (mux, socket, via, mut far) = attached(Settings { send_timeout: Duration::from_millis(60), ..long_messages() });
    let whole = long_message(4 << 20);
    let outgoing = Outgoing { idempotent: true, ..to_anybody(&whole, 3) };
    assert_eq!(socket.send_batch(&[outgoing], LONG), Ok(1));
    let drip = thread::spawn(move || {
        // Until it's cut.
        while far.read(&mut [0; 20_000]).is_ok_and(|read| read > 0) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(next(&socket), Received::Ended { via, why: Ended::Untaken });
    drip.join().unwrap();
    // What may be sent again goes by another, whose peer takes it.
    let (near, mut other) = UnixStream::pair().unwrap();
    other.set_read_timeout(LONG).unwrap();
    let reading = thread::spawn(move || {
        let mut got = vec![0; 4 + (4 << 20)];
        other.read_exact(&mut got).map(|()| (got, other))
    });
    mux.attach(near).unwrap();
    assert!(reading.join().unwrap().unwrap().0 == whole, "bytes differ");
    assert_eq!((mux.figures().tx_untaken, mux.figures().tx_retries, mux.figures().tx_failed), (1, 1, 0));
}

#[test]
fn a_peer_that_takes_nothing_keeps_no_connection_from_who_wants_it_back() {
    let (mux, socket, via, mut far) = attached(Settings { send_timeout: Duration::from_millis(60), ..long_messages() });
    assert_eq!(socket.send_batch(&[to_anybody(&long_message(4 << 20), 4)], LONG), Ok(1));
    // It has begun.
    far.read_exact(&mut [0; 100]).unwrap();
    assert_eq!(mux.detach(via).unwrap_err().kind(), ErrorKind::NotFound);
    let told = [next(&socket), next(&socket)];
    assert!(told.contains(&Received::Unsent { ticket: 4 }), "{told:?}");
    assert!(told.contains(&Received::Ended { via, why: Ended::Untaken }), "{told:?}");
}

#[test]
fn of_two_messages_in_opposite_ways_the_one_whose_time_is_over_ends_the_connection() {
    let [short, long] = [60, 30_000].map(Duration::from_millis);
    let whole = long_message(4 << 20);
    for (message_timeout, send_timeout, why) in [(short, long, Ended::TimedOut), (long, short, Ended::Untaken)] {
        let (_mux, socket, via, mut far) = attached(Settings { message_timeout, send_timeout, ..long_messages() });
        assert_eq!(socket.send_batch(&[to_anybody(&whole, 5)], LONG), Ok(1));
        far.write_all(&long_message(100)[..50]).unwrap();
        let told = [next(&socket), next(&socket)];
        assert!(told.contains(&Received::Ended { via, why }), "{told:?}");
    }
}

#[test]
fn what_is_no_message_ends_its_connection() {
    let framing = Framing::Resp(Resp { side: Side::Commands, len_max: 1000 });
    let (_mux, socket, via, mut far) = attached(Settings { framing, ..settings() });
    far.write_all(b"*1\r\n?\r\n").unwrap();
    assert_eq!(next(&socket), Received::Ended { via, why: Ended::Broken });
}

#[test]
fn full_receivers_have_no_connection_read() {
    let (mux, socket, via, mut far) = attached(Settings { queue_messages: 4, ..settings() });
    far.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // Until the peer's side is full: the queue, what one read brought, and both sockets' buffers.
    loop {
        match far.write(&message(b"12345678")) {
            Ok(10) => sent += 1,
            Ok(_) => panic!("a message was cut"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if mux.figures().rx_full > 0 {
                    break;
                }
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(mux.figures().rx_messages, 4);
    for _ in 0..sent {
        assert_eq!(next(&socket), Received::Message { via, bytes: message(b"12345678") });
    }
}

#[test]
fn a_connection_is_given_back_with_what_it_has_begun() {
    let (mux, socket, via, mut far) = attached(settings());
    far.write_all(&message(b"first")).unwrap();
    far.write_all(b"\0\x09se").unwrap();
    next(&socket);
    // The rest may be in the socket still.
    let (fd, mut rest) = mux.detach(via).unwrap();
    let mut near = UnixStream::from(fd);
    far.write_all(b"cond").unwrap();
    while rest.len() < 8 {
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        rest.push(byte[0]);
    }
    assert_eq!(rest, b"\0\x09second");
    assert_eq!(mux.detach(via).unwrap_err().kind(), ErrorKind::NotFound);
    let unsent = Outgoing { via: Some(via), ..to_anybody(b"\0\0", 77) };
    socket.send_batch(&[unsent], LONG).unwrap();
    assert_eq!(next(&socket), Received::Unsent { ticket: 77 });
}

#[test]
fn one_that_is_reserved_is_given_back_once_its_message_is_out() {
    let (mux, socket, via, mut far) = attached(settings());
    let bytes = large(b'l');
    let named: Vec<_> = (0..20).map(|ticket| Outgoing { via: Some(via), ..to_anybody(&bytes, ticket) }).collect();
    socket.send_batch(&named, LONG).unwrap();
    let reading = thread::spawn(move || {
        let mut got = 0;
        while far.read_exact(&mut [0; 65_002]).is_ok() {
            got += 1;
        }
        got
    });
    let (near, _) = mux.detach(via).unwrap();
    drop(near);
    let whole = reading.join().unwrap();
    assert_eq!(mux.figures().tx_messages, whole);
    for _ in whole..20 {
        assert!(matches!(next(&socket), Received::Unsent { .. }));
    }
}

#[test]
fn senders_wait_for_room() {
    let (_mux, socket, via, mut far) = attached(Settings { unsent_messages: 3, ..settings() });
    let bytes = large(b'w');
    let one = [Outgoing { via: Some(via), ..to_anybody(&bytes, 0) }];
    let mut taken = 0;
    while socket.send_batch(&one, SHORT).unwrap() == 1 {
        taken += 1;
        assert!(taken < 100, "nothing bounds it");
    }
    read_message(&mut far);
    // A socket may have had room for more than one meanwhile.
    for _ in 1..taken {
        read_message(&mut far);
    }
    assert_eq!(socket.send_batch(&one, LONG), Ok(1));
}

#[test]
fn at_the_end_everybody_is_told() {
    let (mux, socket, _, mut far) = attached(settings());
    let waiting = {
        let socket = socket.clone();
        thread::spawn(move || socket.recv_batch(&mut Batch::default(), 1, None))
    };
    drop(mux);
    assert_eq!(waiting.join().unwrap(), Err(Closed));
    assert_eq!(socket.send_batch(&[to_anybody(b"\0\0", 0)], LONG), Err(Closed));
    assert_eq!(far.read(&mut [0; 4]).unwrap(), 0);
}
