use proptest::prelude::*;

use super::*;

/// Sequence number of the first byte: near the end, so that it wraps.
const SEQUENCE: u32 = u32::MAX - 5000;
const IDENTIFICATION: u16 = u16::MAX - 3;

/// What to make a super-packet of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) v6: bool,
    pub(crate) payload: usize,
    pub(crate) segment: u16,
    pub(crate) flags: u8,
}

/// The byte at a place of the payload.
fn content(at: usize) -> u8 {
    (at * 31 + at / 251).to_le_bytes()[0]
}

/// A packet as the kernel hands it over. The TCP header has 12 bytes of options, as with timestamps.
pub(crate) fn super_packet(recipe: Recipe) -> Vec<u8> {
    let Recipe { v6, payload, segment, flags } = recipe;
    let (ip_header, tcp_header) = (if v6 { 40 } else { 20 }, 32);
    let mut bytes = vec![0; PREFIX + ip_header + tcp_header];
    let many = payload > usize::from(segment);
    bytes[0] = NEEDS_CHECKSUM;
    bytes[1] = if many { [GSO_TCP_V4, GSO_TCP_V6][usize::from(v6)] } else { 0 };
    bytes[2..4].copy_from_slice(&u16::try_from(ip_header + tcp_header).unwrap().to_ne_bytes());
    bytes[4..6].copy_from_slice(&if many { segment } else { 0 }.to_ne_bytes());
    bytes[6..8].copy_from_slice(&u16::try_from(ip_header).unwrap().to_ne_bytes());
    bytes[8..10].copy_from_slice(&16_u16.to_ne_bytes());
    let ip = &mut bytes[PREFIX..];
    if v6 {
        ip[0] = 0x60;
        ip[6] = TCP;
        ip[8..40].copy_from_slice(&std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at * 7).unwrap()));
    } else {
        ip[0] = 0x45;
        ip[4..6].copy_from_slice(&IDENTIFICATION.to_be_bytes());
        ip[8..10].copy_from_slice(&[64, TCP]);
        ip[12..20].copy_from_slice(&[10, 1, 0, 1, 10, 1, 0, 2]);
    }
    let tcp = &mut ip[ip_header..];
    tcp[0..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    tcp[4..8].copy_from_slice(&SEQUENCE.to_be_bytes());
    tcp[12] = 8 << 4;
    tcp[13] = flags;
    bytes.extend((0..payload).map(content));
    let sum = mend_ip(&mut bytes[PREFIX..], ip_header, 0);
    bytes[PREFIX + ip_header + 16..][..2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// What a receiver would check, written another way than the code under test.
fn assert_sound(piece: &[u8], v6: bool) {
    let ip = &piece[PREFIX..];
    let header = if v6 { 40 } else { 20 };
    let words = |bytes: &[u8]| -> u64 {
        bytes.chunks(2).map(|two| u64::from(two[0]) * 256 + u64::from(*two.get(1).unwrap_or(&0))).sum()
    };
    let ones = |sum: u64| sum > 0 && sum.is_multiple_of(0xffff);
    let length = u64::try_from(ip.len() - header).unwrap();
    if v6 {
        assert_eq!(words(&ip[4..6]), length);
    } else {
        assert_eq!(words(&ip[2..4]), u64::try_from(ip.len()).unwrap());
        assert!(ones(words(&ip[..20])), "the IP header's checksum");
    }
    // The device completes the checksum: the sum from csum_start on, which has the pseudo-header's in its place.
    let sum = words(&ip[header..]) % 0xffff;
    let finished = 0xffff - sum;
    let field = words(&ip[header + 16..header + 18]);
    let addresses = if v6 { &ip[8..40] } else { &ip[12..20] };
    let pseudo = words(addresses) + length + u64::from(TCP);
    assert!(ones(pseudo + words(&ip[header..]) - field + finished), "the TCP checksum");
}

fn recipes() -> impl Strategy<Value = Recipe> {
    (any::<bool>(), 1_usize..60_000, 500_u16..1449, any::<u8>()).prop_map(|(v6, payload, segment, flags)| Recipe {
        v6,
        payload,
        segment,
        flags,
    })
}

proptest! {
    #[test]
    fn pieces_carry_what_the_whole_did(recipe in recipes(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let bytes = super_packet(recipe);
        let packet = Packet::new(&bytes);
        let segments = packet.segments();
        prop_assert_eq!(segments, recipe.payload.div_ceil(usize::from(recipe.segment)));
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(segments)).chain([segments]).collect();
        ends.sort_unstable();
        ends.dedup();
        let (mut begin, mut carried) = (0, 0);
        for end in ends.into_iter().filter(|end| *end > 0) {
            let piece = packet.cut(begin..end);
            assert_sound(&piece, recipe.v6);
            let header = if recipe.v6 { 40 } else { 20 };
            let (ip, payload) = (&piece[PREFIX..], &piece[PREFIX + header + 32..]);
            let sequence = u32::from_be_bytes(*ip[header + 4..].first_chunk().unwrap());
            prop_assert_eq!(sequence, SEQUENCE.wrapping_add(u32::try_from(carried).unwrap()));
            prop_assert!(payload.iter().enumerate().all(|(at, byte)| *byte == content(carried + at)));
            let flags = ip[header + 13];
            let (first, last) = (begin == 0, end == segments);
            prop_assert_eq!(flags & (FIN | PSH), if last { recipe.flags & (FIN | PSH) } else { 0 });
            prop_assert_eq!(flags & CWR, if first { recipe.flags & CWR } else { 0 });
            prop_assert_eq!(Packet::new(&piece).segments(), end - begin);
            let wire: u64 = (begin..end).map(|segment| packet.wire_bytes(segment)).sum();
            let headers = u64::try_from((end - begin) * (header + 32)).unwrap();
            prop_assert_eq!(wire, headers + u64::try_from(payload.len()).unwrap());
            carried += payload.len();
            begin = end;
        }
        prop_assert_eq!(carried, recipe.payload);
    }

    #[test]
    fn anything_at_all_is_looked_at_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0_u8..2, gso in 0_u8..6) {
        let mut bytes = bytes;
        // Half-way sound, so that it gets further than the first check.
        for (at, value) in [(0, 1), (1, gso), (PREFIX, [0x45, 0x60][usize::from(version)]), (7, 0)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let packet = Packet::new(&bytes);
        let segments = packet.segments();
        for segment in 0..segments.min(70) {
            prop_assert!(!packet.cut(segment..segment + 1).is_empty() || bytes.is_empty());
        }
        let _view = packet.tcp();
    }
}

#[test]
fn identification_counts_on() {
    let bytes = super_packet(Recipe { v6: false, payload: 7240, segment: 1448, flags: ACK });
    let packet = Packet::new(&bytes);
    let identification = |segment: usize| {
        let piece = packet.cut(segment..segment + 1);
        u16::from_be_bytes([piece[PREFIX + 4], piece[PREFIX + 5]])
    };
    assert_eq!([identification(0), identification(3), identification(4)], [u16::MAX - 3, u16::MAX, 0]);
}

#[test]
fn the_header_is_read() {
    for v6 in [false, true] {
        let bytes = super_packet(Recipe { v6, payload: 3000, segment: 1448, flags: SYN | ACK });
        let view = Packet::new(&bytes).tcp().unwrap();
        assert_eq!((view.source.port(), view.destination.port(), view.payload), (40_000, 80, 3000));
        assert!(view.syn && view.ack && !view.fin && !view.rst);
    }
}
