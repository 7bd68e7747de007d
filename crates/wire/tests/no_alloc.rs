//! The data path does not allocate: a counting allocator sees nothing of framing, of the PROXY protocol and of the trunk.

use std::sync::Arc;

use allocation_counter::measure;
use midmile_wire::dns::Message;
use midmile_wire::dns::transfer::{Progress, Transfer};
use midmile_wire::frame::{Framing, LengthPrefix, Line, Program, Resp, Seen, Side, VarintPrefix};
use midmile_wire::proxy::{Accept, Header, UnixPath, Version, decode, encode, tlvs};
use midmile_wire::trunk::answer::{self, Answer};
use midmile_wire::trunk::hello::{self, Hello, Path, TraceId};
use midmile_wire::trunk::{Key, Name, Nonce, Offer, Session, auth};

#[test]
fn framers_measure_without_allocating() {
    let len_max = 100;
    let program = |file| Framing::Program(Arc::new(Program::parse(file, len_max).unwrap()));
    // r6 = r1; r0 = the first two bytes; r0 += 2; exit
    let extended = [0x16bf_u64, 0x28, 0x2_0000_0007, 0x95].map(u64::to_le_bytes);
    // The last one's program reads where nothing is: r0 = *(u8 *)(r2 + 0)
    let astray = [0x2071_u64, 0x95].map(u64::to_le_bytes);
    let resp = |side| Framing::Resp(Resp { side, len_max });
    let streams: [(Framing, &[u8]); 9] = [
        (Framing::Dns, b"\0\x03abc\0\0"),
        (Framing::Length(LengthPrefix::DNS), b"\0\x03abc\0\0"),
        (Framing::Varint(VarintPrefix { offset: 1, len_max }), b"\xc0\0\x30\x82\0ab"),
        (Framing::Line(Line { len_max }), b"get a\r\nget b\n"),
        (resp(Side::Commands), b"\r\n*1\r\n$4\r\nPING\r\nPING\r\n"),
        (resp(Side::Answers), b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n|1\r\n+t\r\n:3\r\n%0\r\n"),
        (program(extended.as_flattened()), b"\0\x03abc\0\0"),
        (program(b"3,40 0 0 0,4 0 0 2,22 0 0 0"), b"\0\x03abc\0\0"),
        (program(astray.as_flattened()), b"x"),
    ];
    let (mut messages, mut errors) = (0, 0);
    let counted = measure(|| {
        for (framing, stream) in &streams {
            let (mut front, mut seen) = (0, Seen::default());
            for end in 0..=stream.len() {
                match framing.measure(&stream[front..end], &mut seen) {
                    Ok(Some(len)) => {
                        (messages, front, seen) = (messages + 1, front + len, Seen::default());
                    }
                    Ok(None) => {}
                    Err(_) => errors += 1,
                }
            }
        }
    });
    assert_eq!((messages, errors, counted.count_total), (2 * 8, 1, 0));
}

#[test]
fn a_transfer_is_followed_without_allocating() {
    let message = |records: &[&[u8]]| {
        let count = u8::try_from(records.len()).unwrap();
        [b"\0\0\x84\0\0\x01\0", &[count][..], b"\0\0\0\0\x04zone\0\0\xfc\0\x01", &records.concat()].concat()
    };
    let soa = [b"\xc0\x0c\0\x06\0\x01\0\0\0\0\0\x18\xc0\x0c\xc0\x0c", &[1; 20][..]].concat();
    let other = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x01";
    let messages = [message(&[]), message(&[&soa, other]), message(&[other, other]), message(&[other, &soa])];
    let mut said = [Progress::Broken; 3];
    let counted = measure(|| {
        let mut transfer = Transfer::of(Message::new(&messages[0]).unwrap()).unwrap();
        for (said, message) in said.iter_mut().zip(&messages[1..]) {
            *said = transfer.see(Message::new(message).unwrap());
        }
    });
    assert_eq!((said, counted.count_total), ([Progress::More, Progress::More, Progress::Last], 0));
}

#[test]
fn proxy_decodes_and_encodes_without_allocating() {
    let path = UnixPath::new(b"/run/socket").unwrap();
    let headers = [
        Header::Local,
        Header::inet("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap()),
        Header::inet("192.0.2.1:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap()),
        Header::inet("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap()),
        Header::Unix { source: path, destination: path },
    ];
    let mut headers_seen = 0;
    let counted = measure(|| {
        for header in &headers {
            for version in [Version::V1, Version::V2] {
                let encoded = encode(version, header);
                let bytes = encoded.as_bytes();
                for end in 0..=bytes.len() {
                    headers_seen += usize::from(matches!(decode(&bytes[..end], Accept::ANY), Ok(Some(_))));
                }
                headers_seen += tlvs(bytes).count();
            }
        }
        headers_seen += usize::from(decode(b"GET / HTTP/1.1\r\n", Accept::ANY).is_ok());
    });
    assert_eq!((headers_seen, counted.count_total), (2 * headers.len(), 0));

    let control = measure(|| drop(std::hint::black_box(Box::new(0_u8))));
    assert_eq!(control.count_total, 1, "the counter counts");
}

#[test]
fn the_trunk_shakes_hands_and_says_hello_without_allocating() {
    let key = Key::from_bytes([7; 32]);
    let names: [Name; 2] = ["oregon".parse().unwrap(), "mumbai".parse().unwrap()];
    let mut path = Path::EMPTY;
    path.push(names[1]).unwrap();
    let hello = Hello {
        client: Header::inet("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap()),
        destination: "db.internal:5432".parse().unwrap(),
        path,
        deadline_ms: 5000,
        trace: TraceId([1; 16]),
    };
    let mut heard = None;
    let counted = measure(|| {
        let (dialer, acceptor) = shake_hands(names, &key);
        let encoded = hello::encode(&hello, &dialer);
        for end in 0..=encoded.as_bytes().len() {
            heard = hello::decode(&encoded.as_bytes()[..end], &acceptor).expect("a hello");
        }
        assert!(hello::decode(encoded.as_bytes(), &dialer).is_err());
        assert_eq!(answer::decode(&[Answer::Stands.to_byte()]), Ok(Some((1, Answer::Stands))));
        assert!(answer::decode(&[0xff]).is_err());
    });
    assert_eq!((heard.map(|(_, hello)| hello), counted.count_total), (Some(hello), 0));
}

/// Both sides of a handshake in which each message comes byte by byte.
fn shake_hands(names: [Name; 2], key: &Key) -> (Session, Session) {
    let (dialer, message) = auth::begin(names[0], names[1], Nonce([1; 32]));
    let (_, introduced) = drip(&message, auth::introduction);
    let (acceptor, message) = introduced.challenge(key, Nonce([2; 32]));
    let offer = Offer { follows: 1, takes: 2 };
    let (_, message, dialer) = drip(&message, |bytes| dialer.handle(bytes, key, offer));
    let (_, accepted, message, _) = drip(&message, |bytes| acceptor.handle(bytes, 3));
    let (_, dialled, _) = drip(&message, |bytes| dialer.handle(bytes));
    (dialled, accepted)
}

fn drip<T>(message: &auth::Message, receive: impl Fn(&[u8]) -> Result<Option<T>, auth::Reject>) -> T {
    let bytes = message.as_bytes();
    (0..=bytes.len()).find_map(|end| receive(&bytes[..end]).expect("honest")).expect("complete")
}
