//! When bytes go by the ring, when by TCP, and in which order they are read.

use super::{CAPACITY, ends, on_the_ring, taken};
use crate::{Broken, Heap, Owner, Plain, Side, Step, Taken, View, Wake, Way};

#[test]
fn the_ring_is_taken_when_all_is_consumed_and_nobody_is_inside() {
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    let (writer, reader) = (segment.outgoing(Side::Offering), segment.incoming(Side::Attached));
    assert_eq!(writer.way(), Ok(Way::Tcp), "nothing is known");
    writer.begin(1000);
    assert_eq!(writer.way(), Ok(Way::Tcp), "the reader isn't engaged");
    reader.engage(990);
    assert_eq!(writer.way(), Ok(Way::Tcp), "ten bytes aren't read");
    assert_eq!(reader.step(), Ok(Step::Tcp));
    reader.leave_tcp(10);
    assert!(reader.enter_tcp().expect("TCP has the turn"));
    assert_eq!(writer.way(), Ok(Way::Tcp), "the reader is inside");
    reader.leave_tcp(0);
    writer.begin_tcp();
    assert_eq!(writer.way(), Ok(Way::Tcp), "a send is under way");
    assert_eq!(writer.sent(0), Wake::default());
    assert_eq!(writer.way(), Ok(Way::Ring));
    assert!(!reader.enter_tcp().expect("the ring has the turn"));
    assert_eq!(reader.step(), Ok(Step::Empty));
    assert_eq!(segment.tally(Side::Offering).switches, 1);
}

#[test]
fn the_ring_is_not_taken_again_before_it_is_empty() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(writer.put(&[1; CAPACITY]).expect("room").taken, CAPACITY);
    assert_eq!(writer.back_to_tcp(Plain::Full), 0);
    assert_eq!(writer.way(), Ok(Way::Tcp));
    assert_eq!(taken(reader, CAPACITY - 1).len(), CAPACITY - 1);
    assert_eq!(writer.way(), Ok(Way::Tcp), "a byte of the ring isn't read");
    assert_eq!(taken(reader, CAPACITY), [1]);
    assert_eq!(writer.way(), Ok(Way::Ring));
}

#[test]
fn a_put_needs_the_ring() {
    let heap = Heap::new(CAPACITY);
    let (writer, _) = ends(&heap.create());
    assert_eq!(writer.put(b"x"), Err(Broken::Gate));
}

#[test]
fn after_the_ring_come_the_doorbells_and_then_tcp() {
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    let (writer, reader) = on_the_ring(&segment);
    assert_eq!(reader.watch(), Ok(true));
    assert_eq!(writer.put(b"ring").expect("room").wake, Wake { futex: false, bells: 1, pipe: false });
    writer.rang(1);
    assert_eq!(writer.back_to_tcp(Plain::Full), 0);
    assert_eq!(writer.way(), Ok(Way::Tcp), "the ring isn't consumed");
    writer.begin_tcp();
    assert_eq!(writer.sent(3), Wake::default());
    assert_eq!(reader.view(), Ok(View { ring: 4, bells: 1, piped: 0, tcp: true }));
    assert_eq!(reader.step(), Ok(Step::Ring(4)));
    assert!(!reader.enter_tcp().expect("the ring has the turn"));
    assert_eq!(taken(reader, 9), b"ring");
    assert_eq!(reader.step(), Ok(Step::Bells(1)), "never the data behind them");
    assert!(!reader.enter_tcp().expect("the doorbells have the turn"));
    assert_eq!(reader.swallowed(&[0]), Ok(()));
    assert_eq!(reader.step(), Ok(Step::Tcp));
    reader.leave_tcp(2);
    assert_eq!(writer.way(), Ok(Way::Tcp), "a byte of TCP isn't read");
    assert_eq!(reader.step(), Ok(Step::Tcp));
    reader.leave_tcp(1);
    assert_eq!(writer.way(), Ok(Way::Ring));
    let tally = segment.tally(Side::Offering);
    assert_eq!((tally.ring_bytes, tally.tcp_bytes, tally.bells, tally.switches), (4, 3, 1, 2));
    assert_eq!((tally.returns(Plain::Full), tally.ring, tally.last), (1, true, false));
}

#[test]
fn a_demand_holds_for_good_and_the_first_reason_counts() {
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    let (writer, reader) = on_the_ring(&segment);
    assert_eq!(writer.put(b"before").expect("room").taken, 6);
    assert!(!reader.demand(Plain::Exec), "no writer sleeps");
    writer.demand(Plain::Off);
    assert_eq!(reader.is_plain(), Ok(false));
    assert_eq!(writer.way(), Ok(Way::Tcp));
    assert_eq!(reader.is_plain(), Ok(false), "six bytes are in the ring");
    assert_eq!(taken(reader, 9), b"before");
    assert_eq!(reader.is_plain(), Ok(true));
    assert_eq!(writer.way(), Ok(Way::Tcp));
    let tally = segment.tally(Side::Offering);
    assert_eq!((tally.returns(Plain::Exec), tally.returns(Plain::Off), tally.last), (1, 0, true));
}

#[test]
fn a_reader_that_cannot_wait_switches_itself() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert!(!reader.demand(Plain::Drawn));
    assert_eq!(writer.lock().try_lock(Owner::new(5).expect("an id"), false), Ok(Taken::Owned));
    assert_eq!(writer.back_to_tcp(Plain::Drawn), 0);
    assert!(!writer.lock().unlock(Taken::Owned));
    assert_eq!(reader.is_plain(), Ok(true));
    assert_eq!(writer.put(b"x"), Err(Broken::Gate));
}

#[test]
fn a_reason_that_lasts_keeps_tcp_and_another_does_not() {
    for &why in Plain::ALL {
        let heap = Heap::new(CAPACITY);
        let (writer, reader) = on_the_ring(&heap.create());
        assert_eq!(writer.back_to_tcp(why), 0);
        assert_eq!(reader.is_plain(), Ok(why.lasting()));
        assert_eq!(writer.way() == Ok(Way::Tcp), why.lasting(), "{}", why.name());
        assert_eq!(Plain::from_code(why.code()), why);
    }
    assert_eq!(Plain::from_code(99), Plain::Unknown);
}

#[test]
fn a_reader_that_has_left_is_told_by_tcp() {
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    let (writer, reader) = on_the_ring(&segment);
    assert!(!reader.leave());
    assert!(writer.left());
    assert_eq!(writer.way(), Ok(Way::Tcp));
    assert_eq!(segment.tally(Side::Offering).returns(Plain::Left), 1);
}

#[test]
fn whoever_sends_past_the_library_keeps_the_direction_with_tcp() {
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    let (writer, reader) = ends(&segment);
    assert_eq!(reader.step(), Ok(Step::Tcp));
    reader.leave_tcp(1);
    assert_eq!(writer.way(), Ok(Way::Tcp));
    assert_eq!(segment.tally(Side::Offering).returns(Plain::Miscounted), 1);
    assert_eq!(reader.is_plain(), Ok(true));
}

#[test]
fn bytes_that_cannot_be_doorbells_break_the_connection() {
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = on_the_ring(&heap.create());
    assert_eq!(reader.unannounced(), Err(Broken::Stray));
    assert_eq!(reader.watch(), Ok(true));
    assert_eq!(writer.put(b"x").expect("room").wake.bells, 1);
    assert_eq!(reader.unannounced(), Ok(()));
    assert_eq!(taken(reader, 1), b"x");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    assert_eq!(reader.swallowed(b"d"), Err(Broken::Bell));
}

#[test]
fn what_a_killed_holder_leaves_is_safe_or_known() {
    // Inside a receive, and inside a send: the direction stays with TCP.
    let heap = Heap::new(CAPACITY);
    let (writer, reader) = ends(&heap.create());
    assert_eq!(reader.step(), Ok(Step::Tcp));
    reader.taken_over();
    assert_eq!((reader.is_unsure(), writer.way()), ((false, false), Ok(Way::Tcp)));
    let heap = Heap::new(CAPACITY);
    let (writer, _) = ends(&heap.create());
    writer.begin_tcp();
    writer.taken_over();
    assert_eq!((writer.is_unsure(), writer.way()), ((false, false), Ok(Way::Tcp)));
    // With a doorbell announced, and maybe sent; with doorbells received, and maybe not counted.
    let heap = Heap::new(CAPACITY);
    let segment = heap.create();
    let (writer, reader) = (segment.outgoing(Side::Offering), segment.incoming(Side::Attached));
    writer.begin(5);
    reader.engage(5);
    assert_eq!((writer.way(), reader.watch()), (Ok(Way::Ring), Ok(true)));
    assert_eq!(writer.put(b"x").expect("room").wake.bells, 1);
    writer.taken_over();
    assert_eq!((writer.is_unsure(), writer.owed()), ((true, false), 1));
    let sent = writer.sent_by_tcp();
    assert_eq!(writer.has_sent(sent + 1), Err(Broken::Abandoned), "more than was counted");
    assert_eq!(writer.has_sent(sent - 2), Err(Broken::Abandoned), "data are missing");
    assert_eq!(
        (writer.has_sent(sent - 1), writer.is_unsure(), writer.owed()),
        (Ok(()), (false, false), 1),
        "it wasn't"
    );
    writer.taken_over();
    assert_eq!((writer.has_sent(sent), writer.is_unsure(), writer.owed()), (Ok(()), (false, false), 0), "it was");
    assert_eq!(writer.wake_again(), Wake::default(), "it stands there still");
    writer.taken_over();
    assert_eq!(writer.is_unsure(), (false, false), "nothing was owed");
    assert_eq!(taken(reader, 1), b"x");
    assert_eq!(reader.step(), Ok(Step::Bells(1)));
    reader.taken_over();
    assert_eq!(
        (reader.is_unsure(), reader.step()),
        ((true, false), Ok(Step::Bells(1))),
        "it's looked for when some are taken"
    );
    assert_eq!(reader.has_received(Some(sent + 1)), Err(Broken::Abandoned), "more than was announced");
    assert_eq!(reader.has_received(Some(sent - 2)), Err(Broken::Abandoned), "less than was counted");
    assert_eq!((reader.has_received(Some(sent - 1)), reader.is_unsure().0), (Ok(0), false), "it wasn't taken");
    reader.taken_over();
    assert_eq!((reader.has_received(Some(sent)), reader.swallowed(&[])), (Ok(1), Ok(())), "it was");
    assert_eq!((reader.is_unsure(), reader.step()), ((false, false), Ok(Step::Empty)));
    reader.taken_over();
    assert_eq!(reader.is_unsure(), (false, false), "none was being taken");
}
