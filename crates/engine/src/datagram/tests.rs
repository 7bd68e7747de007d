use std::net::SocketAddr;

use super::*;

fn flow(port: u16) -> Flow {
    Flow::to(SocketAddr::from(([192, 0, 2, 1], port)))
}

#[test]
fn a_batch_that_came_as_one_piece_is_told_apart() {
    let mut inbox = Inbox::default();
    let (buffer, arrivals) = inbox.parts_mut();
    buffer[..10].copy_from_slice(b"0123456789");
    buffer[SLOT_BYTES..SLOT_BYTES + 3].copy_from_slice(b"abc");
    arrivals.note(flow(1), 0, 10, Some(4));
    arrivals.note(flow(2), SLOT_BYTES, 3, None);
    arrivals.note(flow(3), SLOT_BYTES, 0, None);
    let told: Vec<_> = (0..inbox.len()).filter_map(|index| inbox.get(index)).collect();
    let one: &[(Flow, &[u8])] =
        &[(flow(1), b"0123"), (flow(1), b"4567"), (flow(1), b"89"), (flow(2), b"abc"), (flow(3), b"")];
    assert_eq!(told, one);
}

#[test]
fn a_full_inbox_says_so_and_keeps_what_it_has() {
    let mut inbox = Inbox::default();
    let long = vec![7; SLOT_BYTES];
    for _ in 0..SLOTS {
        assert!(inbox.push(flow(1), &long));
    }
    assert!(!inbox.push(flow(1), &[1]));
    assert!(inbox.push(flow(1), &[]));
    assert_eq!((inbox.len(), inbox.truncated()), (SLOTS + 1, 0));
    inbox.clear();
    while inbox.push(flow(1), &[1]) {}
    // What is noted beyond the most is counted.
    inbox.parts_mut().1.note(flow(1), 0, 8, Some(4));
    assert_eq!(inbox.truncated(), 2);
}

#[test]
fn what_is_sent_goes_out_in_order_through_an_outbox_that_is_small() {
    let mut outbox = Outbox::new(100);
    let (mut sent, mut gone) = (0_u8, 0_u8);
    while gone < 200 {
        while outbox.push(flow(sent.into()), &vec![sent; usize::from(sent % 40)]) {
            sent += 1;
        }
        assert!(!outbox.is_empty());
        let count = 1 + usize::from(sent) % outbox.departures().len();
        for (index, (to, bytes)) in outbox.departures().iter().take(count).enumerate() {
            assert_eq!((to, bytes), (flow(gone.into()), &vec![gone; usize::from(gone % 40)][..]));
            assert_eq!(outbox.departures().get(index), Some((to, bytes)));
            gone += 1;
        }
        outbox.spend(count);
    }
}

#[test]
fn pieces_are_of_one_flow_and_equal_but_for_the_last() {
    let mut outbox = Outbox::new(DATAGRAM_BYTES_MAX.try_into().unwrap());
    for (to, len) in [(1, 10), (1, 10), (1, 4), (1, 4), (2, 4), (2, 5), (2, 0), (2, 0), (3, 10), (3, 10)] {
        assert!(outbox.push(flow(to), &vec![1; len]));
    }
    let counts = |segment_bytes_max| {
        let (mut counts, mut next) = (Vec::new(), 0);
        while let Some((count, bytes)) = outbox.departures().piece(next, segment_bytes_max) {
            counts.push((count, bytes.len()));
            next += count;
        }
        counts
    };
    assert_eq!(counts(1000), [(3, 24), (1, 4), (1, 4), (1, 5), (1, 0), (1, 0), (2, 20)]);
    assert_eq!(counts(4), [(1, 10), (1, 10), (2, 8), (1, 4), (1, 5), (1, 0), (1, 0), (1, 10), (1, 10)]);
    assert!(counts(0).iter().all(|(count, _)| *count == 1));
}

#[test]
fn a_piece_has_64_datagrams_and_the_length_of_one_at_most() {
    let mut outbox = Outbox::new(200_000);
    while outbox.push(flow(1), &[1; 100]) {}
    assert_eq!(outbox.departures().piece(0, 1000).unwrap().0, 64);
    let mut outbox = Outbox::new(200_000);
    while outbox.push(flow(1), &[1; 20_000]) {}
    assert_eq!(outbox.departures().piece(0, 60_000).unwrap().0, 3);
}

#[test]
fn tags_of_sockets_are_told_from_those_of_connections() {
    let mut slab = crate::slab::Slab::with_capacity(1);
    let key = slab.insert(()).unwrap();
    assert_eq!(DatagramId::from_tag(DatagramId(key).tag()), Some(DatagramId(key)));
    assert_eq!(DatagramId::from_tag(Tag(key.to_bits())), None);
}
