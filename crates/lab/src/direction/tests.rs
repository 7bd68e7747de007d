use proptest::prelude::*;

use super::*;
use crate::packet::PREFIX;
use crate::packet::tests::{Recipe, super_packet};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A packet that isn't TCP, with a number and of this many IP bytes.
fn numbered(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; PREFIX + length];
    bytes[PREFIX] = 0x45;
    bytes[PREFIX + 20..PREFIX + 24].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number_of(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes[PREFIX + 20..].first_chunk().unwrap())
}

fn rate(bits: u64) -> Option<Rate> {
    Rate::new(bits)
}

/// Everything under way, each delivery at its time.
fn drain(direction: &mut Direction) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while let Some(due) = direction.deadline() {
        assert!(due.is_zero() || direction.poll_delivery(due - Duration::from_nanos(1)).is_none(), "too early");
        deliveries.push(direction.poll_delivery(due).unwrap());
    }
    deliveries
}

#[test]
fn the_delay_is_exact() {
    let mut direction = Direction::new(Shape { delay: Duration::from_micros(14_200), ..Shape::default() }, 1);
    for sent in [0, 7, 7, 100] {
        direction.handle_packet(MILLISECOND * sent, &numbered(sent, 60));
    }
    let due: Vec<_> = drain(&mut direction).iter().map(|delivery| delivery.due - delivery.entered).collect();
    assert_eq!(due, [Duration::from_micros(14_200); 4]);
    assert_eq!(direction.counters().late_max, Duration::ZERO);
}

#[test]
fn what_comes_in_while_it_is_cut_is_lost_and_nothing_else() {
    let mut direction = Direction::new(Shape { delay: MILLISECOND * 5, ..Shape::default() }, 1);
    for (number, cut) in [(0, false), (1, true), (2, true), (3, false)] {
        direction.set_cut(cut);
        direction.handle_packet(MILLISECOND * number, &numbered(number, 60));
    }
    let numbers: Vec<_> = drain(&mut direction).iter().map(|delivery| number_of(&delivery.bytes)).collect();
    assert_eq!(numbers, [0, 3]);
    assert_eq!((direction.counters().packets, direction.counters().losses), (4, 2));
}

#[test]
fn the_rate_is_kept_whatever_the_size() {
    for (bits, length) in [(500_000_000, 1500), (10_000_000_000, 60), (1_000_003, 1499)] {
        let mut direction = Direction::new(Shape { rate: rate(bits), ..Shape::default() }, 1);
        let count = 10_000;
        for number in 0..count {
            direction.handle_packet(Duration::ZERO, &numbered(number, length));
        }
        let last = drain(&mut direction).last().unwrap().due;
        let expected = f64::from(count) * f64::from(u32::try_from(length * 8).unwrap())
            / f64::from(u32::try_from(bits / 1000).unwrap())
            / 1000.0;
        let error = (last.as_secs_f64() / expected - 1.0).abs();
        assert!(error < 1e-5, "{bits} bit/s, {length} bytes: {error}");
    }
}

#[test]
fn as_many_are_lost_as_was_asked_for() {
    let mut direction = Direction::new(Shape { loss: 0.01, ..Shape::default() }, 7);
    let bytes = super_packet(Recipe { v6: false, payload: 44 * 1448, segment: 1448, flags: 0x10 });
    let mut passed = 0;
    for _ in 0..5000 {
        direction.handle_packet(Duration::ZERO, &bytes);
        passed += drain(&mut direction).iter().map(|delivery| Packet::new(&delivery.bytes).segments()).sum::<usize>();
    }
    let counters = direction.counters();
    assert_eq!(counters.packets, 220_000);
    // 2,200 expected; the standard deviation is 47.
    assert!((2000..2400).contains(&counters.losses), "{}", counters.losses);
    assert_eq!(as_count(passed), counters.packets - counters.losses);
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    let run = |seed| {
        let mut direction = Direction::new(Shape { loss: 0.3, jitter: MILLISECOND, ..Shape::default() }, seed);
        for number in 0..100 {
            direction.handle_packet(Duration::ZERO, &numbered(number, 100));
        }
        drain(&mut direction)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_full_queue_takes_the_segments_that_fit() {
    let queue = Some(10 * 1500);
    let mut direction = Direction::new(Shape { rate: rate(1_000_000), queue, ..Shape::default() }, 1);
    let bytes = super_packet(Recipe { v6: false, payload: 30 * 1448, segment: 1448, flags: 0x10 });
    direction.handle_packet(Duration::ZERO, &bytes);
    assert_eq!(direction.counters().queue_drops, 20);
    direction.handle_packet(Duration::ZERO, &bytes);
    assert_eq!(direction.counters().queue_drops, 50);
    let deliveries = drain(&mut direction);
    assert_eq!(deliveries.len(), 1);
    assert_eq!(Packet::new(&deliveries[0].bytes).segments(), 10);
    assert_eq!(deliveries[0].due, Duration::from_millis(120));
}

#[test]
fn memory_has_an_end_without_a_queue_limit() {
    let mut direction = Direction::new(Shape { delay: Duration::from_secs(60), ..Shape::default() }, 1);
    let bytes = super_packet(Recipe { v6: false, payload: 44 * 1448, segment: 1448, flags: 0x10 });
    for _ in 0..2 * HELD_MAX / bytes.len() {
        direction.handle_packet(Duration::ZERO, &bytes);
    }
    assert!(direction.held <= HELD_MAX + bytes.len());
    assert!(direction.counters().queue_drops > 0);
}

#[test]
fn some_overtake_where_that_is_asked_for() {
    let shape = Shape { delay: MILLISECOND * 10, reorder: 0.1, overtake: MILLISECOND * 5, ..Shape::default() };
    let mut direction = Direction::new(shape, 3);
    for number in 0..1000 {
        direction.handle_packet(MILLISECOND * number, &numbered(number, 100));
    }
    let order: Vec<_> = drain(&mut direction).iter().map(|delivery| number_of(&delivery.bytes)).collect();
    let overtakers = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((60..140).contains(&overtakers), "{overtakers}");
    let mut sorted = order;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..1000), "none is lost or doubled");
}

proptest! {
    #[test]
    fn order_bound_and_number_are_kept(
        delay in 0_u64..300_000, jitter in 0_u64..5000, loss in 0.0..0.3, bits in 100_000_u64..1_000_000_000,
        queue in 1500_u64..200_000, seed in any::<u64>(),
        packets in proptest::collection::vec((0_u64..3000, 40_usize..1500), 1..200),
    ) {
        let micros = Duration::from_micros;
        let shape = Shape { delay: micros(delay), jitter: micros(jitter), loss, rate: rate(bits), queue: Some(queue), ..Shape::default() };
        let mut direction = Direction::new(shape, seed);
        let (mut now, mut seen) = (Duration::ZERO, Vec::new());
        for (number, (gap, length)) in packets.iter().enumerate() {
            now += micros(*gap);
            while let Some(delivery) = direction.poll_delivery(now) {
                seen.push(delivery);
            }
            direction.handle_packet(now, &numbered(u32::try_from(number).unwrap(), *length));
            prop_assert!(direction.backlog(now) <= u128::from(queue));
        }
        seen.extend(drain(&mut direction));
        let counters = direction.counters();
        prop_assert_eq!(counters.packets, as_count(packets.len()));
        prop_assert_eq!(as_count(seen.len()) + counters.losses + counters.queue_drops, counters.packets);
        prop_assert_eq!(counters.bytes, seen.iter().map(|delivery| as_count(delivery.bytes.len() - PREFIX)).sum::<u64>());
        prop_assert_eq!(direction.held, 0);
        for delivery in &seen {
            prop_assert!(delivery.due >= delivery.entered + micros(delay));
        }
        for pair in seen.windows(2) {
            prop_assert!(number_of(&pair[0].bytes) < number_of(&pair[1].bytes));
            prop_assert!(pair[0].due <= pair[1].due);
        }
    }
}
