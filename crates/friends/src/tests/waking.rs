//! Who is woken, and by what.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{CAPACITY, on_the_ring, taken};
use crate::{Broken, Heap, Plain, Side, Step, Taken, Wake};

const NOBODY: Wake = Wake { futex: false, bells: 0, pipe: false };
const BELL: Wake = Wake { futex: false, bells: 1, pipe: false };
const FUTEX: Wake = Wake { futex: true, bells: 0, pipe: false };

#[test]
fn a_reader_that_is_awake_costs_no_wake() {
    let heap = Heap::new(CAPACITY);
    let (writer, _) = on_the_ring(&heap.create());
    assert_eq!(writer.put(b"x").expect("room").wake, NOBODY);
}

#[test]
fn the_futex_is_woken_once() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    let doze = reader.doze().expect("both keep to the protocol").expect("nothing is there");
    assert_eq!(doze.word.load(Ordering::Relaxed), doze.expected);
    assert_eq!(writer.put(b"x").expect("room").wake, FUTEX);
    assert_ne!(doze.word.load(Ordering::Relaxed), doze.expected, "who falls asleep late doesn't");
    assert_eq!(writer.put(b"y").expect("room").wake, NOBODY);
    assert!(reader.doze().expect("both keep to the protocol").is_none(), "something is there");
}

#[test]
fn a_switch_a_send_or_an_end_wakes_the_futex() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert!(reader.doze().expect("both keep to the protocol").is_some());
    assert_eq!(writer.back_to_tcp(Plain::Splice), 0);
    writer.begin_tcp();
    assert_eq!(writer.sent(1), FUTEX);
    assert!(reader.doze().expect("both keep to the protocol").is_none(), "TCP has the turn");

    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert!(reader.doze().expect("both keep to the protocol").is_some());
    assert_eq!(writer.finish(), FUTEX);
    assert!(reader.finished() && reader.doze().expect("both keep to the protocol").is_none());
}

#[test]
fn one_doorbell_stands_while_the_ring_holds_something() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.watch(), Ok(true));
    assert_eq!(writer.put(b"one").expect("room").wake, BELL);
    writer.rang(1);
    assert_eq!(writer.put(b"two").expect("room").wake, NOBODY, "it stands there");
    assert_eq!(taken(reader, 5), b"onetw");
    assert_eq!(reader.step(), Ok(Step::Ring(1)));
    assert_eq!(taken(reader, 5), b"o");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    // Let go of, though not received yet: the next byte has a doorbell of its own.
    assert_eq!(writer.put(b"three").expect("room").wake, BELL);
    writer.rang(1);
    assert_eq!(reader.swallowed(&[0]), Ok(()));
    assert_eq!(taken(reader, 5), b"three");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    assert_eq!(reader.swallowed(&[]), Ok(()), "it's on its way");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    assert_eq!(reader.swallowed(&[0]), Ok(()));
    assert_eq!(reader.step(), Ok(Step::Empty));
}

#[test]
fn edges_are_told_for_each_piece() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.watch_edges(), Ok(true));
    for _ in 0..3 {
        assert_eq!(writer.put(b"x").expect("room").wake, BELL);
        writer.rang(1);
    }
    assert_eq!(taken(reader, 9), b"xxx");
    assert_eq!(reader.step(), Ok(Step::Bells(3)));
    assert_eq!(reader.swallowed(&[0; 3]), Ok(()));
    reader.unwatch();
    assert_eq!(writer.put(b"x").expect("room").wake, NOBODY);
    assert_eq!(reader.watch(), Ok(false), "what came before had no doorbell");
}

#[test]
fn a_doorbell_that_could_not_be_sent_stays_owed() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.watch(), Ok(true));
    assert_eq!(writer.put(b"x").expect("room").wake, BELL);
    writer.rang(0);
    assert_eq!(writer.put(b"y").expect("room").wake, BELL, "asked for again, and not a second one");
    assert_eq!(writer.back_to_tcp(Plain::Full), 1, "before any data");
    writer.rang(1);
    assert_eq!(writer.owed(), 0);
}

#[test]
fn who_sleeps_in_the_kernel_is_rung() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.sleep_by_bell(), Ok(true));
    assert_eq!(writer.put(b"x").expect("room").wake, BELL);
    writer.rang(1);
    reader.woke();
    assert_eq!(reader.sleep_by_bell(), Ok(false), "something is there");
    assert_eq!(taken(reader, 1), b"x");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    assert_eq!(reader.swallowed(&[0]), Ok(()));
    assert_eq!(writer.put(b"x").expect("room").wake, NOBODY, "nobody sleeps");
}

#[test]
fn a_writer_that_waits_for_room_is_woken_at_an_eighth() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert!(writer.wait_for_room().expect("both keep to the protocol").is_none(), "there's room");
    assert_eq!(writer.put(&[1; CAPACITY]).expect("room").taken, CAPACITY);
    let doze = writer.wait_for_room().expect("both keep to the protocol").expect("it's full");
    assert_eq!(doze.word.load(Ordering::Relaxed), doze.expected);
    let take = reader.skip(CAPACITY / 8 - 1).expect("there are");
    assert!(!take.wake_writer);
    let take = reader.skip(CAPACITY).expect("there are");
    assert!(take.wake_writer && take.count == CAPACITY - CAPACITY / 8 + 1);
    assert_ne!(doze.word.load(Ordering::Relaxed), doze.expected);
}

#[test]
fn a_reader_that_leaves_or_demands_wakes_the_writer() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(writer.put(&[1; CAPACITY]).expect("room").taken, CAPACITY);
    assert!(writer.wait_for_room().expect("both keep to the protocol").is_some());
    assert!(reader.demand(Plain::Drawn));
    assert!(writer.wait_for_room().expect("both keep to the protocol").is_some());
    assert!(reader.leave());
    assert!(writer.wait_for_room().expect("both keep to the protocol").is_none(), "nobody will take anything");
}

#[test]
fn a_reader_that_begins_to_look_gets_a_doorbell_for_what_is_there() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(writer.attract(), Ok(0), "the ring is empty");
    assert_eq!(writer.put(b"xyz").expect("room").wake, NOBODY);
    assert_eq!(reader.watch(), Ok(false));
    assert_eq!(writer.attract(), Ok(1));
    assert_eq!(writer.attract(), Ok(1), "it's owed until it's sent");
    writer.rang(1);
    assert_eq!(writer.attract(), Ok(0), "it stands there");
    assert_eq!(writer.put(b"w").expect("room").wake, NOBODY);
    assert_eq!(taken(reader, 4), b"xyzw");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    assert_eq!(reader.swallowed(&[0]), Ok(()));
    assert_eq!(reader.step(), Ok(Step::Empty));
}

#[test]
fn data_behind_the_ring_need_no_doorbell() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(writer.put(b"x").expect("room").wake, NOBODY);
    assert_eq!(writer.back_to_tcp(Plain::Full), 0);
    writer.begin_tcp();
    assert_eq!(writer.attract(), Ok(0), "they are on their way");
    let _wake = writer.sent(3);
    assert_eq!(writer.attract(), Ok(0), "they are in the socket");
    assert_eq!(taken(reader, 1), b"x");
    assert_eq!(reader.step(), Ok(Step::Tcp), "no doorbell was announced");
    reader.leave_tcp(3);
}

#[test]
fn a_writer_that_its_reader_may_lose_rings_for_all_that_is_there() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(writer.put(b"x").expect("room").wake, NOBODY);
    assert_eq!(writer.keep_rung(), Ok(1));
    writer.rang(1);
    assert_eq!(taken(reader, 1), b"x");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    assert_eq!(reader.swallowed(&[0]), Ok(()));
    assert_eq!(writer.put(b"y").expect("room").wake, BELL, "and from now on");
}

#[test]
fn the_doorbell_of_a_ring_moves_to_the_pipe_where_it_is_empty() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.watch(), Ok(true));
    assert_eq!(writer.put(b"one").expect("room").wake, BELL);
    writer.rang(1);
    assert_eq!(reader.watch_piped(false), Ok(false), "a doorbell stands in the socket");
    assert_eq!(taken(reader, 3), b"one");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    reader.swallowed(&[0]).expect("it's one");
    assert_eq!(reader.watch_piped(false), Ok(true));
    let pipe = Wake { pipe: true, ..NOBODY };
    assert_eq!(writer.put(b"two").expect("room").wake, pipe);
    writer.pipe_rang();
    assert_eq!((writer.put(b"three").expect("room").wake, reader.piped()), (NOBODY, 1), "it stands there");
    assert_eq!(reader.let_go_piped(), Ok(0), "the ring isn't empty");
    assert_eq!(taken(reader, 8), b"twothree");
    assert_eq!(reader.let_go_piped(), Ok(1));
    // Let go of, though not taken yet: the next byte has a doorbell of its own.
    assert_eq!(writer.put(b"x").expect("room").wake, pipe);
    writer.pipe_missed();
    assert_eq!(reader.piped(), 1);
    reader.pipe_taken(1);
    // One that sleeps in the kernel does so on the socket.
    assert_eq!(taken(reader, 1), b"x");
    assert_eq!(reader.sleep_by_bell(), Ok(true));
    assert_eq!(writer.put(b"y").expect("room").wake, Wake { pipe: true, ..BELL });
}

#[test]
fn a_calm_writer_asks_its_reader_for_a_barrier_until_it_cannot_be_had() {
    static BARRIERS: AtomicU32 = AtomicU32::new(0);
    let heap = Heap::new(CAPACITY);
    // The first can be had, the second not.
    let segment = heap.create().with_barrier(|| BARRIERS.fetch_add(1, Ordering::Relaxed) < 1);
    let (writer, reader) = on_the_ring(&segment);
    let pieces = || {
        for _ in 0..(1 << 12) + 10 {
            let put = writer.put(b"x").expect("room");
            assert_eq!((put.wake, taken(reader, 1)), (NOBODY, b"x".to_vec()));
        }
    };
    let sleeps = || {
        assert!(reader.doze().expect("quiet").is_some());
        assert_eq!((writer.put(b"x").expect("room").wake, taken(reader, 1)), (FUTEX, b"x".to_vec()));
        BARRIERS.load(Ordering::Relaxed)
    };
    pieces();
    assert_eq!(sleeps(), 0, "neither end has said that it can");
    [Side::Offering, Side::Attached].into_iter().for_each(|side| segment.may_recall(side));
    assert_eq!(sleeps(), 0, "exchanges need none");
    pieces();
    assert_eq!(sleeps(), 1);
    assert_eq!(sleeps(), 1, "it was woken");
    pieces();
    assert_eq!(sleeps(), 2);
    pieces();
    assert_eq!(sleeps(), 2, "it couldn't be had: the writer has its fence");
}

#[test]
fn a_doorbell_whose_sender_was_killed_is_found_in_the_pipe_or_owed() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.watch_piped(false), Ok(true));
    let pipe = Wake { pipe: true, ..NOBODY };
    assert_eq!(writer.put(b"x").expect("room").wake, pipe);
    writer.taken_over();
    assert_eq!((writer.is_unsure(), writer.pipe_expects()), ((false, true), Some(1)));
    assert_eq!(writer.pipe_holds(2, 1), Err(Broken::Abandoned), "more than was announced");
    assert_eq!((writer.pipe_holds(0, 1), writer.is_unsure()), (Ok(()), (false, false)));
    assert_eq!(writer.wake_again(), pipe, "it's owed");
    writer.taken_over();
    assert_eq!(writer.pipe_holds(1, 1), Ok(()));
    assert_eq!(writer.wake_again(), NOBODY, "it stands there");
    // It was written, and taken before anybody asked: for what came since nobody rang.
    assert_eq!((taken(reader, 1), reader.let_go_piped()), (b"x".to_vec(), Ok(1)));
    reader.pipe_taken(1);
    assert_eq!(writer.put(b"y").expect("room").wake, pipe);
    writer.taken_over();
    assert_eq!((taken(reader, 1), reader.let_go_piped()), (b"y".to_vec(), Ok(1)));
    assert_eq!(writer.pipe_expects(), None, "the reader has taken it and not counted it");
    reader.pipe_taken(1);
    assert_eq!(writer.put(b"z").expect("room").wake, pipe, "asked for with the next");
    assert_eq!((writer.pipe_expects(), writer.pipe_holds(0, 0)), (Some(0), Ok(())));
    assert_eq!(writer.wake_again(), pipe, "and announced anew");
}

#[test]
fn doorbells_whose_reader_was_killed_are_found_in_the_pipe_or_taken() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.watch_piped(false), Ok(true));
    let pipe = Wake { pipe: true, ..NOBODY };
    for (held, left) in [(1, 1), (0, 0)] {
        assert_eq!(writer.put(b"x").expect("room").wake, pipe);
        assert_eq!(reader.pipe_announced(), None, "it isn't written yet");
        writer.pipe_rang();
        assert_eq!((taken(reader, 1), reader.let_go_piped()), (b"x".to_vec(), Ok(1)));
        reader.taken_over();
        let announced = reader.pipe_announced().expect("it's written");
        assert_eq!((reader.is_unsure(), writer.pipe_expects()), ((false, true), None));
        assert_eq!(reader.pipe_holds(announced + 1, announced), Err(Broken::Abandoned), "more than was announced");
        assert_eq!((reader.pipe_holds(held, announced), reader.is_unsure()), (Ok(()), (false, false)));
        assert_eq!(reader.piped(), left);
        assert_eq!(reader.let_go_piped(), Ok(left));
        if left > 0 {
            reader.pipe_taken(left);
        }
    }
}

#[test]
fn a_pipe_rests_where_nobody_looks_at_it() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.watch_piped(false), Ok(true));
    let pipe = Wake { pipe: true, ..NOBODY };
    assert!(reader.rest_pipe());
    assert_eq!(writer.put(b"one").expect("room").wake, NOBODY);
    assert_eq!((reader.resume_pipe(), reader.piped()), (Ok(true), 1), "it was rung for nowhere");
    assert_eq!(writer.put(b"two").expect("room").wake, NOBODY, "it stands there");
    assert_eq!(taken(reader, 6), b"onetwo");
    assert_eq!(reader.let_go_piped(), Ok(1));
    reader.pipe_taken(1);
    assert!(reader.rest_pipe());
    assert_eq!((reader.resume_pipe(), reader.piped()), (Ok(false), 0), "nothing came");
    assert_eq!(writer.put(b"x").expect("room").wake, pipe);
    assert!(!reader.rest_pipe(), "a doorbell is on its way");
    writer.pipe_rang();
    assert_eq!((reader.resume_pipe(), reader.piped()), (Ok(true), 2), "one too many, which is taken with the other");
    reader.pipe_missed();
    assert_eq!(reader.piped(), 1);
    // One that has the lock may have looked before.
    assert_eq!(taken(reader, 1), b"x");
    assert_eq!(reader.let_go_piped(), Ok(1));
    reader.pipe_taken(1);
    assert_eq!(writer.lock().try_lock(crate::Owner::new(1).expect("not 0"), false), Ok(Taken::Owned));
    assert!(!reader.rest_pipe());
}
