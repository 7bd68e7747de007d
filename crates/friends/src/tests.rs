//! What each call promises, one at a time; then both ends at once (`model`), and a peer that keeps to nothing (`hostile`).

mod hostile;
mod lending;
mod switching;
mod waking;

use crate::{BadSegment, Heap, Owner, Reader, Segment, Side, Step, Taken, Way, Writer, segment_bytes};

const CAPACITY: usize = 64;

/// Both ends of the flow from the offering side, begun and engaged.
fn ends<'m>(segment: &Segment<'m>) -> (Writer<'m>, Reader<'m>) {
    let (writer, reader) = (segment.outgoing(Side::Offering), segment.incoming(Side::Attached));
    writer.begin(0);
    reader.engage(0);
    (writer, reader)
}

/// The same, with the ring taken.
fn on_the_ring<'m>(segment: &Segment<'m>) -> (Writer<'m>, Reader<'m>) {
    let (writer, reader) = ends(segment);
    assert_eq!(writer.way(), Ok(Way::Ring));
    (writer, reader)
}

/// Takes up to `most` bytes.
fn taken(reader: Reader<'_>, most: usize) -> Vec<u8> {
    let mut buffer = vec![0; most];
    let take = reader.take(&mut buffer).expect("both keep to the protocol");
    buffer.truncate(take.count);
    buffer
}

/// Worlds of every style, and what they have to have met together.
#[test]
fn both_ends_over_a_modelled_connection() {
    let seeds = std::env::var("MIDMILE_FRIENDS_SEEDS").map_or(3000, |seeds| seeds.parse().expect("a number"));
    let first = std::env::var("MIDMILE_FRIENDS_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    let (mut ring, mut tcp, mut switches, mut bells, mut wakes, mut full) = (0, 0, 0, 0, 0, 0);
    for seed in first..first + seeds {
        let world = std::panic::catch_unwind(|| crate::model::run_seed(seed));
        let tally =
            world.unwrap_or_else(|_| panic!("MIDMILE_FRIENDS_SEED={seed} MIDMILE_FRIENDS_SEEDS=1 shows it again"));
        ring += tally.ring_bytes;
        tcp += tally.tcp_bytes;
        switches += tally.switches;
        bells += tally.bells;
        wakes += tally.wakes;
        full += tally.returns(crate::Plain::Full);
    }
    println!(
        "{seeds} worlds: ring {ring}, TCP {tcp}, switches {switches}, doorbells {bells}, wakes {wakes}, full {full}"
    );
    let least = u64::from(seeds) / 2;
    assert!(seeds < 1000 || [ring, tcp, switches, bells, wakes, full].into_iter().all(|count| count > least));
}

#[test]
fn a_segment_is_opened_as_it_was_made() {
    let heap = Heap::new(CAPACITY);
    assert_eq!(heap.open().map(drop), Err(BadSegment::Magic));
    let made = heap.create();
    let opened = heap.open().expect("it was made");
    assert_eq!((made.capacity(), opened.capacity()), (CAPACITY, CAPACITY));
    // Version, capacity, nonce: each is checked.
    for (at, error) in
        [(0, BadSegment::Magic), (32, BadSegment::Version), (24, BadSegment::Length), (8, BadSegment::Nonce)]
    {
        let (heap, _) = (Heap::new(CAPACITY), ());
        let segment = heap.create();
        heap.scribble(at, 0x77);
        assert_eq!(heap.open().map(drop), Err(error), "byte {at}");
        assert_eq!(segment.capacity(), CAPACITY, "never read again");
    }
    for capacity in [0, 32, 96, 1 << 25] {
        assert_eq!(segment_bytes(capacity), Err(BadSegment::Capacity));
    }
}

#[test]
fn both_sides_see_the_offer_and_who_holds_the_ends() {
    use crate::State::{Attached, Offered, Withdrawn};
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    assert_eq!(segment.state(), Some(Offered));
    assert!(segment.advance(Offered, Attached));
    assert!(!segment.advance(Offered, Withdrawn), "someone has attached");
    assert_eq!(segment.state(), Some(Attached));
    assert_eq!((segment.hold(Side::Offering), segment.hold(Side::Offering)), (0, 1));
    assert!(!segment.release(Side::Offering));
    assert!(segment.release(Side::Offering));
    assert_eq!(segment.holders(Side::Attached), 0);
}

#[test]
fn bytes_come_out_as_they_went_in_around_the_rings_end() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    let (mut next, mut due) = (0_u8, 0_u8);
    for round in 0..200 {
        let bytes: Vec<u8> =
            (0..1 + round % CAPACITY).map(|offset| next.wrapping_add(u8::try_from(offset).expect("few"))).collect();
        let put = writer.put(&bytes).expect("both keep to the protocol").taken;
        next = next.wrapping_add(u8::try_from(put).expect("few"));
        let peeked = {
            let mut buffer = [0; CAPACITY];
            let count = reader.peek(1, &mut buffer).expect("both keep to the protocol");
            buffer[..count].to_vec()
        };
        let got = taken(reader, 1 + (round * 7) % (CAPACITY - 1));
        assert!(got.iter().skip(1).zip(&peeked).all(|(taken, peeked)| taken == peeked));
        for byte in got {
            assert_eq!(byte, due);
            due = due.wrapping_add(1);
        }
    }
}

#[test]
fn the_two_flows_share_nothing() {
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    let (writer, reader) = on_the_ring(&segment);
    let (back, forth) = (segment.outgoing(Side::Attached), segment.incoming(Side::Offering));
    back.begin(0);
    forth.engage(0);
    assert_eq!(back.way(), Ok(Way::Ring));
    assert_eq!(writer.put(b"there").expect("room").taken, 5);
    assert_eq!(back.put(b"back").expect("room").taken, 4);
    assert_eq!((taken(reader, 9), taken(forth, 9)), (b"there".to_vec(), b"back".to_vec()));
    assert_eq!(segment.tally(Side::Offering).ring_bytes, 5);
    assert_eq!(segment.tally(Side::Attached).ring_bytes, 4);
}

#[test]
fn a_full_ring_takes_no_more() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(writer.put(&[7; 100]).expect("room").taken, CAPACITY);
    assert_eq!(writer.put(&[7; 1]).expect("no room").taken, 0);
    assert_eq!((writer.unread(), reader.available()), (Ok(CAPACITY), Ok(CAPACITY)));
    assert_eq!(reader.skip(10).expect("there are").count, 10);
    assert_eq!(writer.put(&[7; 100]).expect("room").taken, 10);
    // What was seen, and not what was put since; a take looks again.
    assert_eq!(reader.step(), Ok(Step::Ring(CAPACITY - 10)));
    assert_eq!(taken(reader, 100), [7; CAPACITY]);
}

#[test]
fn a_lock_knows_its_owner() {
    let heap = Heap::new(CAPACITY);
    let lock = heap.create().outgoing(Side::Offering).lock();
    let (first, second) = (Owner::new(10).expect("an id"), Owner::new(11).expect("an id"));
    assert_eq!((Owner::new(0), Owner::new(1 << 30)), (None, None));
    assert_eq!(lock.try_lock(first, false), Ok(Taken::Owned));
    let held = lock.try_lock(second, false).expect_err("it's held");
    assert_eq!(held.thread(), 10);
    let expected = lock.wait(held).expect("still held");
    assert_eq!(lock.futex().load(std::sync::atomic::Ordering::Relaxed), expected);
    assert_eq!(lock.take_over(held, second), None, "it isn't the word that was seen");
    assert!(lock.unlock(Taken::Owned), "one sleeps");
    assert_eq!(lock.wait(held), None, "it's free");
    // Whoever slept takes it so that the next one is woken too.
    assert_eq!(lock.try_lock(second, true), Ok(Taken::Owned));
    let held = lock.try_lock(first, false).expect_err("it's held");
    assert_eq!(lock.take_over(held, first), Some(Taken::Owned), "the owner is dead");
    assert_eq!(lock.try_lock(second, false).expect_err("it's held").thread(), 10);
    assert!(lock.unlock(Taken::Owned));
}

#[test]
fn ends_that_wait_on_one_cpu_know_it_of_each_other() {
    let heap = Heap::new(4096);
    let segment = heap.create();
    let waits = |side, cpu| segment.waits_on(side, cpu);
    assert!(!waits(Side::Offering, 0), "the other end hasn't waited");
    assert!(waits(Side::Attached, 0) && waits(Side::Offering, 0));
    assert!(!waits(Side::Attached, 1) && !waits(Side::Offering, 0));
}
