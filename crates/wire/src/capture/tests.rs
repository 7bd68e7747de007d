//! Captures, read again by a parser of their own; `tests/capture_tshark.rs` has tshark read them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A packet that was read, its checksums looked at.
#[derive(Clone, Debug)]
struct Read {
    interface: u32,
    at: Duration,
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: Vec<u8>,
    comment: Option<String>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// The sum of RFC 1071, in the plainest way.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut bytes = parts.concat();
    bytes.push(0);
    let mut sum = 0_u32;
    for pair in bytes.chunks_exact(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// The packets of a file, and the kinds of its other blocks.
fn read(mut file: &[u8]) -> (Vec<Read>, Vec<u32>) {
    let (mut packets, mut others) = (Vec::new(), Vec::new());
    while !file.is_empty() {
        let (kind, len) = (word(file, 0), word(file, 4) as usize);
        assert!(len.is_multiple_of(4) && word(file, len - 4) as usize == len, "a block of {len} bytes");
        if kind == 6 {
            packets.push(packet(&file[8..len - 4]))
        } else {
            others.push(kind)
        }
        file = &file[len..];
    }
    (packets, others)
}

fn packet(block: &[u8]) -> Read {
    let len = word(block, 12) as usize;
    assert_eq!(word(block, 16) as usize, len);
    let options = &block[20 + len.next_multiple_of(4)..];
    let comment = (!options.is_empty()).then(|| {
        let len = usize::from(u16::from_le_bytes([options[2], options[3]]));
        assert_eq!(&options[4 + len.next_multiple_of(4)..], [0; 4]);
        String::from_utf8(options[4..4 + len].to_vec()).unwrap()
    });
    let at = u64::from(word(block, 4)) << 32 | u64::from(word(block, 8));
    let ip = &block[20..20 + len];
    let (addresses, tcp) = if ip[0] == 0x45 {
        assert_eq!((sum(&[&ip[..20]]), usize::from(half(ip, 2)), ip[9]), (0xffff, len, 6));
        (&ip[12..20], &ip[20..])
    } else {
        assert_eq!((ip[0], usize::from(half(ip, 4)), ip[6]), (0x60, len - 40, 6));
        (&ip[8..40], &ip[40..])
    };
    let length = u16::try_from(tcp.len()).unwrap().to_be_bytes();
    assert_eq!(sum(&[addresses, &[0, 6], &length, tcp]), 0xffff, "TCP's checksum");
    assert!(tcp.len() <= 20 + SEGMENT_MAX);
    let (from, to) = addresses.split_at(addresses.len() / 2);
    let end = |bytes: &[u8], port| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => SocketAddr::from((v4, port)),
        Err(_) => SocketAddr::from((<[u8; 16]>::try_from(bytes).unwrap(), port)),
    };
    Read {
        interface: word(block, 0),
        at: Duration::from_nanos(at),
        from: end(from, half(tcp, 0)),
        to: end(to, half(tcp, 2)),
        seq: half(tcp, 4).into_seq(half(tcp, 6)),
        ack: half(tcp, 8).into_seq(half(tcp, 10)),
        flags: tcp[13],
        payload: tcp[20..].to_vec(),
        comment,
    }
}

trait IntoSeq {
    fn into_seq(self, low: u16) -> u32;
}

impl IntoSeq for u16 {
    fn into_seq(self, low: u16) -> u32 {
        u32::from(self) << 16 | u32::from(low)
    }
}

const CLIENT: &str = "127.0.0.1:40000";
const SERVER: &str = "127.0.0.1:6379";

fn way(from: &str, to: &str) -> Way {
    Way { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

/// Writes events, a microsecond apart.
fn written(events: &[(Way, Option<u32>, What<'_>)]) -> (Vec<u8>, Counts) {
    let mut file = Vec::new();
    let mut capture = Capture::begin(&mut file);
    let interface = capture.interface("friends", &mut file).unwrap();
    for (number, (way, place, what)) in (0..).zip(events) {
        let at = Duration::from_secs(1_700_000_000) + Duration::from_micros(number);
        capture.tell(&Event { at, interface, way: *way, place: *place, what: *what }, &mut file);
    }
    capture.finish(interface, Duration::from_secs(1_700_000_001), 7, &mut file);
    (file, capture.counts())
}

/// What a reader puts together of both streams, by sequence numbers alone; nothing may be missing, and each acknowledgement has to be of
/// what was seen.
fn reassembled(packets: &[Read]) -> HashMap<SocketAddr, Vec<u8>> {
    let mut streams = HashMap::new();
    let mut next: HashMap<SocketAddr, u32> = HashMap::new();
    for packet in packets {
        let expected = *next.entry(packet.from).or_insert(packet.seq);
        assert_eq!(packet.seq, expected, "{packet:?}");
        let consumes = u32::from(packet.flags & 3 != 0) + u32::try_from(packet.payload.len()).unwrap();
        next.insert(packet.from, packet.seq.wrapping_add(consumes));
        if packet.flags & 0x10 != 0 {
            assert_eq!(packet.ack, *next.entry(packet.to).or_insert(packet.ack), "{packet:?}");
        }
        streams.entry(packet.from).or_insert_with(Vec::new).extend(&packet.payload);
    }
    streams
}

#[test]
fn a_whole_connection() {
    let (there, back) = (way(CLIENT, SERVER), way(SERVER, CLIENT));
    let (file, counts) = written(&[
        (there, Some(100), What::Dialled),
        (back, Some(7), What::Accepted),
        (there, Some(100), What::Bytes(b"PING\r\n")),
        (back, Some(7), What::Bytes(b"+PONG\r\n")),
        (there, Some(106), What::Ended),
        (back, Some(14), What::Ended),
        // The socket is done with: nothing of it is to be written.
        (there, None, What::Reset),
    ]);
    let (packets, others) = read(&file);
    assert_eq!(others, [0x0a0d_0d0a, 1, 5]);
    let flags: Vec<_> = packets.iter().map(|packet| packet.flags).collect();
    assert_eq!(flags, [0x02, 0x12, 0x10, 0x18, 0x18, 0x11, 0x10, 0x11, 0x10]);
    let streams = reassembled(&packets);
    assert_eq!((&streams[&there.from][..], &streams[&there.to][..]), (&b"PING\r\n"[..], &b"+PONG\r\n"[..]));
    assert_eq!(packets[3].at, Duration::new(1_700_000_000, 2000));
    assert!(packets.iter().all(|packet| packet.comment.is_none() && packet.interface == 0));
    assert_eq!(counts, Counts { packets: 9, missing: 0, untold: 0 });
}

#[test]
fn what_is_missing_has_its_room_and_is_said() {
    let there = way("[2001:db8::1]:5", "[2001:db8::1]:6");
    let (file, counts) = written(&[
        (there, Some(u32::MAX - 1), What::Bytes(b"abcd")),
        (there, Some(12), What::Bytes(b"efg")),
        (there, Some(15), What::Missing(5)),
        (there, Some(20), What::Ended),
    ]);
    let (packets, _) = read(&file);
    let seqs: Vec<_> = packets.iter().map(|packet| packet.seq.wrapping_sub(packets[0].seq)).take(3).collect();
    assert_eq!(seqs, [0, 14, 22]);
    let comments: Vec<_> = packets.iter().filter_map(|packet| packet.comment.as_deref()).collect();
    let said = |count| format!("midmile: {count} bytes before this weren't captured");
    assert_eq!(comments, [said(10), said(5)]);
    assert_eq!(counts.missing, 15);
}

#[test]
fn what_comes_after_much_was_lost_is_written() {
    let there = way(CLIENT, SERVER);
    let (file, counts) = written(&[
        (there, Some(50), What::Bytes(b"abc")),
        (there, Some(53 + 3_000_000_000), What::Bytes(b"def")),
        (there, Some(56 + 3_000_000_000), What::Bytes(b"ghi")),
    ]);
    let (packets, _) = read(&file);
    let lengths: Vec<_> = packets.iter().map(|packet| packet.payload.len()).filter(|length| *length > 0).collect();
    assert_eq!((lengths, counts.missing), (vec![3, 3, 3], 3_000_000_000));
}

#[test]
fn what_is_sent_again_is_written_once() {
    let there = way(CLIENT, SERVER);
    let (file, counts) = written(&[
        (there, Some(50), What::Bytes(b"abcdef")),
        // TCP took two, and the program offered the rest again.
        (there, Some(52), What::Bytes(b"cdefgh")),
        (there, Some(53), What::Missing(5)),
        (there, Some(55), What::Ended),
    ]);
    let (packets, _) = read(&file);
    assert_eq!(reassembled(&packets)[&there.from], b"abcdefgh");
    assert_eq!(packets[2].comment.as_deref(), Some("midmile: the last 3 bytes were offered, and not sent"));
    assert_eq!(counts.missing, 0);
}

#[test]
fn a_reset_is_written_once_and_leaving_is_said() {
    let (there, back) = (way(CLIENT, SERVER), way(SERVER, CLIENT));
    let resets = [(there, None, What::Bytes(b"a")), (there, None, What::Reset), (back, None, What::Reset)];
    let (packets, _) = read(&written(&resets).0);
    assert_eq!(packets.iter().map(|packet| packet.flags).collect::<Vec<_>>(), [0x18, 0x14]);
    let leaves = [(there, None, What::Bytes(b"a")), (back, None, What::Left), (there, None, What::Ended)];
    let (packets, _) = read(&written(&leaves).0);
    assert_eq!(packets.len(), 2);
    assert!(packets[1].comment.as_deref().unwrap().contains("by TCP alone"));
}

#[test]
fn ports_that_are_used_again_are_another_connection() {
    let there = way(CLIENT, SERVER);
    let (file, _) = written(&[(there, Some(1), What::Dialled), (there, Some(900), What::Dialled)]);
    let (packets, _) = read(&file);
    assert_eq!((packets[0].flags, packets[3].flags, packets.len()), (2, 2, 6));
    assert_ne!(packets[0].seq, packets[3].seq);
}

#[test]
fn bounds_hold_and_are_counted() {
    let mut file = Vec::new();
    let mut capture = Capture::begin(&mut file);
    let tell = |capture: &mut Capture, port: u32, interface| {
        let from = SocketAddr::from(([127, 0, u8::try_from(port >> 15).unwrap(), 1], (port & 0x7fff) as u16));
        let way = Way { from, to: SERVER.parse().unwrap() };
        capture
            .tell(&Event { at: Duration::ZERO, interface, way, place: None, what: What::Bytes(b"x") }, &mut Vec::new());
    };
    tell(&mut capture, 1, 0);
    assert_eq!(capture.counts(), Counts { packets: 0, missing: 0, untold: 1 });
    for number in 0..INTERFACES_MAX {
        assert_eq!(capture.interface(&"x".repeat(300), &mut file), Some(number));
    }
    assert_eq!(capture.interface("one more", &mut file), None);
    let flows = u32::try_from(FLOWS_MAX).unwrap();
    (0..flows + 3).for_each(|port| tell(&mut capture, port, 0));
    assert_eq!(capture.counts(), Counts { packets: flows.into(), missing: 0, untold: 4 });
    // Those that are known go on.
    tell(&mut capture, 5, 0);
    assert_eq!(capture.counts().packets, u64::from(flows) + 1);
}

/// How a connection goes on: who, how much, and whether the bytes before are told once more.
#[derive(Clone, Debug)]
struct Step {
    is_client: bool,
    bytes: Vec<u8>,
    again: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        (0_usize..70_000).prop_map(|len| (0..=250).cycle().take(len).collect()),
    ];
    let step = (any::<bool>(), bytes, 0_usize..50);
    proptest::collection::vec(step.prop_map(|(is_client, bytes, again)| Step { is_client, bytes, again }), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streams_come_out_as_they_went_in(
        steps in steps(), v6: bool, opened: bool, is_placed: bool, start: [u32; 2], at in 0_u64..u64::MAX / 2,
    ) {
        let ends = if v6 { ["[::1]:40000", "[::1]:80"] } else { [CLIENT, SERVER] };
        let ways = [way(ends[0], ends[1]), way(ends[1], ends[0])];
        let (mut file, mut sent) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut capture = Capture::begin(&mut file);
        let interface = capture.interface("x", &mut file).unwrap();
        let mut tell = |side: usize, told: usize, what: What<'_>| {
            let place = is_placed.then(|| start[side].wrapping_add(u32::try_from(told).unwrap()));
            let event = Event { at: Duration::from_nanos(at), interface, way: ways[side], place, what };
            capture.tell(&event, &mut file);
        };
        if opened {
            tell(0, 0, What::Dialled);
            tell(1, 0, What::Accepted);
        }
        for step in &steps {
            let side = usize::from(!step.is_client);
            let again = if is_placed { step.again.min(sent[side].len()) } else { 0 };
            let told = sent[side].len() - again;
            let bytes = [&sent[side][told..], &step.bytes].concat();
            tell(side, told, What::Bytes(&bytes));
            sent[side].extend(&step.bytes);
        }
        tell(0, sent[0].len(), What::Ended);
        tell(1, sent[1].len(), What::Ended);
        prop_assert_eq!(capture.counts().missing, 0);
        let (packets, _) = read(&file);
        let streams = reassembled(&packets);
        for side in 0..2 {
            prop_assert_eq!(streams.get(&ways[side].from).map_or(&[][..], Vec::as_slice), &sent[side]);
        }
        let mut flight = HashMap::new();
        for packet in &packets {
            flight.insert(packet.to, 0);
            let flying = flight.entry(packet.from).or_insert(0);
            *flying += packet.payload.len();
            prop_assert!(*flying < 65_535, "the window is full");
        }
    }

    #[test]
    fn whatever_is_told_the_file_is_whole(
        events in proptest::collection::vec((0_u8..9, any::<bool>(), any::<Option<u32>>(), 0_usize..40_000), 0..40),
    ) {
        let told: Vec<_> = events.iter().map(|(kind, is_client, place, len)| {
            let what = match kind {
                0 => What::Dialled,
                1 => What::Accepted,
                2 => What::Missing(u32::try_from(*len).unwrap()),
                3 => What::Ended,
                4 => What::Reset,
                5 => What::Left,
                _ => What::Bytes(&[7; 40_000][..*len]),
            };
            (if *is_client { way(CLIENT, SERVER) } else { way(SERVER, CLIENT) }, *place, what)
        }).collect();
        let (file, counts) = written(&told);
        let (packets, _) = read(&file);
        prop_assert_eq!(packets.len() as u64, counts.packets);
    }
}
