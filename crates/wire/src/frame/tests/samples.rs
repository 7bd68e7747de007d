//! Messages as real programs send them, cut at every byte.

use super::*;

const MEBIBYTE: usize = 1 << 20;

fn prefix(offset: usize, width: Width, adjust: i64) -> Framing {
    Framing::Length(LengthPrefix { offset, width, order: Order::Big, adjust, len_max: MEBIBYTE })
}

/// Two messages in a row are told as two, wherever the stream is cut.
fn check(framing: &Framing, messages: &[&[u8]]) {
    let stream = messages.concat();
    let lens: Vec<usize> = messages.iter().map(|message| message.len()).collect();
    assert_eq!(tell(framing, &stream, []), (lens.clone(), Ok(())));
    for cut in 0..stream.len() {
        assert_eq!(tell(framing, &stream, [cut]), (lens.clone(), Ok(())), "cut at {cut}");
    }
    assert_eq!(tell(framing, &stream, 0..stream.len()), (lens, Ok(())));
}

/// RFC 1035, 4.2.2. What is too short for a message is a frame all the same.
#[test]
fn dns() {
    let query = b"\x00\x1d\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
    let messages = [&query[..], b"\0\0", b"\0\x01x", query];
    for framing in [Framing::Dns, program(DNS_PROGRAM, 65_537), program(DNS_CLASSIC, 65_537)] {
        check(&framing, &messages);
    }
}

/// Kafka's protocol guide, "Common Request and Response Structure": ApiVersions, version 0, from "test".
#[test]
fn kafka() {
    let request = b"\x00\x00\x00\x0e\x00\x12\x00\x00\x00\x00\x00\x01\x00\x04test";
    check(&prefix(0, Width::Four, 0), &[request, request]);
}

/// memcached's BinaryProtocolRevamped: the example of a get and its answer. The total body length stands at 8; the header has 24.
#[test]
fn memcached() {
    let get = b"\x80\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00Hello";
    let answer = b"\x81\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xde\xad\xbe\xefWorld";
    check(&prefix(8, Width::Four, 24 - 12), &[get, answer]);
}

/// PostgreSQL's documentation, 53.7: a type, and a length that counts itself and not the type. The start-up has no type.
#[test]
fn postgresql() {
    let messages: [&[u8]; 3] = [b"Q\0\0\0\x0dSELECT 1\0", b"S\0\0\0\x04", b"Z\0\0\0\x05I"];
    let framing = prefix(1, Width::Four, -4);
    check(&framing, &messages);
    assert_eq!(tell(&framing, b"Q\0\0\0\x03", []).1, Err(FrameError::TooShort));
}

/// Thrift's framed transport, with a call in the binary protocol.
#[test]
fn thrift() {
    let call = b"\0\0\0\x11\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01\0";
    check(&prefix(0, Width::Four, 0), &[call, call]);
}

/// RFC 9113, 4.1, behind the connection preface: SETTINGS, PING, DATA.
#[test]
fn http2() {
    let data = [&b"\0\x01\x2c\0\x01\0\0\0\x01"[..], &[7; 300]].concat();
    let frames: [&[u8]; 3] = [b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x08\x06\0\0\0\0\0abcdefgh", &data];
    check(&prefix(0, Width::Three, 6), &frames);
    check(&program(HTTP2_PROGRAM, MEBIBYTE), &frames);
    assert_eq!(tell(&program(HTTP2_PROGRAM, MEBIBYTE), b"\0\x40\x01", []).1, Err(FrameError::Refused));
}

/// MongoDB's wire protocol, "Standard Message Header" and OP_MSG: a ping, and its answer. The length is little-endian and counts itself.
#[test]
fn mongodb() {
    let ping =
        b"\x33\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x1e\0\0\0\x10ping\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
    let answer = b"\x26\0\0\0\x02\0\0\0\x01\0\0\0\xdd\x07\0\0\0\0\0\0\0\x11\0\0\0\x01ok\0\0\0\0\0\0\0\xf0\x3f\0";
    let prefix = LengthPrefix { offset: 0, width: Width::Four, order: Order::Little, adjust: -4, len_max: MEBIBYTE };
    check(&Framing::Length(prefix), &[ping, answer]);
    assert_eq!(tell(&Framing::Length(prefix), b"\x03\0\0\0", []).1, Err(FrameError::TooShort));
}

/// MQTT 3.1.1 and 5.0: CONNECT of "abc", a PUBLISH of 200 bytes, PINGREQ.
#[test]
fn mqtt() {
    let connect = b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x03abc";
    let publish = [&b"\x30\xc8\x01\0\x03a/b"[..], &[b'x'; 195]].concat();
    let messages: [&[u8]; 3] = [connect, &publish, b"\xc0\0"];
    let varint = Framing::Varint(VarintPrefix { offset: 1, len_max: MEBIBYTE });
    let program = program(MQTT_PROGRAM, MEBIBYTE);
    check(&varint, &messages);
    check(&program, &messages);
    assert_eq!(tell(&varint, b"\x30\x80\x80\x80\x80", []).1, Err(FrameError::LongVarint));
    assert_eq!(tell(&program, b"\x30\x80\x80\x80\x80", []).1, Err(FrameError::Refused));
    for framing in [varint, program] {
        assert_eq!(tell(&framing, b"\x30\xff\xff\xff\x7f", []).1, Err(FrameError::TooLong));
        assert_eq!(tell(&framing, b"\x30\x82\x80\x80\x00ab", []), (vec![7], Ok(())));
    }
}

/// The table in MQTT 5.0, 1.5.5: the least and the greatest number of so many bytes.
#[test]
fn varints_borders() {
    let varint = VarintPrefix { offset: 0, len_max: usize::MAX };
    for (head, value) in [
        (&[0x00][..], 0),
        (&[0x7f], 127),
        (&[0x80, 0x01], 128),
        (&[0xff, 0x7f], 16_383),
        (&[0x80, 0x80, 0x01], 16_384),
        (&[0xff, 0xff, 0x7f], 2_097_151),
        (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
        (&[0xff, 0xff, 0xff, 0x7f], 268_435_455),
    ] {
        let exactly = |len_max| VarintPrefix { len_max, ..varint }.measure(head);
        let whole = head.len() + value;
        assert_eq!(exactly(whole), Ok((value == 0).then_some(1)));
        assert_eq!(exactly(whole - 1), Err(FrameError::TooLong));
    }
}

#[test]
fn lines() {
    let line = Framing::Line(Line { len_max: 8 });
    check(&line, &[b"get a\r\n", b"\n", b"\r\n", b"\r\r\n", b"1234567\n"]);
    assert_eq!(tell(&line, b"12345678", []), (vec![], Err(FrameError::TooLong)));
    assert_eq!(tell(&line, b"12345678\n", 0..9), (vec![], Err(FrameError::TooLong)));
}

/// As redis-cli and Redis 7 exchange them.
#[test]
fn redis() {
    let commands = Framing::Resp(Resp { side: Side::Commands, len_max: MEBIBYTE });
    check(
        &commands,
        &[
            b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
            b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n",
            b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n",
            b"PING\r\n",
        ],
    );
    check(
        &commands.of_answers(),
        &[
            b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*0\r\n",
            b"+OK\r\n",
            b"$5\r\nvalue\r\n",
            b"+PONG\r\n",
        ],
    );
    assert_eq!(Framing::Dns.of_answers(), Framing::Dns);
}
