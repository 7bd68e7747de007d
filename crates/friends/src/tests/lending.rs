//! Locks that are lent to a thread, and recalled.

use crate::{Heap, Lock, Owner, Place, Segment, Side, Taken};

/// More takes in a row than it needs for a lock to be lent.
const OFTEN: u32 = 100;

fn owner(thread: u32) -> Owner {
    Owner::new(thread).expect("an id")
}

fn take(lock: Lock<'_>, thread: u32) -> Taken {
    let taken = lock.try_lock(owner(thread), false).expect("it's free");
    assert!(!lock.unlock(taken), "nobody sleeps");
    taken
}

/// How the last of many takes in a row was.
fn often(lock: Lock<'_>, thread: u32) -> Taken {
    (1..OFTEN).for_each(|_| assert!(take(lock, thread) != Taken::Lent));
    take(lock, thread)
}

/// The writer's lock, after both ends have said that they can recall, lent to this thread.
fn lent<'m>(segment: &Segment<'m>, thread: u32) -> Lock<'m> {
    segment.may_recall(Side::Offering);
    segment.may_recall(Side::Attached);
    let lock = segment.outgoing(Side::Offering).lock();
    assert_eq!(often(lock, thread), Taken::Borrowed);
    lock
}

#[test]
fn a_lock_is_lent_to_who_takes_it_often_where_both_ends_can_recall() {
    let heap = Heap::new(4096);
    let segment = heap.create();
    let lock = segment.incoming(Side::Offering).lock();
    assert_eq!(often(lock, 7), Taken::Owned);
    segment.may_recall(Side::Offering);
    assert_eq!(often(lock, 7), Taken::Owned, "the other end can't");
    segment.may_recall(Side::Attached);
    for turn in 0..OFTEN {
        assert_eq!(take(lock, 1 + turn % 2), Taken::Owned, "two threads in turn");
    }
    assert_eq!(often(lock, 7), Taken::Borrowed);
    assert!(!lock.is_held());
}

#[test]
fn a_lent_lock_is_recalled_once_and_waited_for() {
    let heap = Heap::new(4096);
    let lock = lent(&heap.create(), 7);
    let borrowed = lock.try_lock(owner(7), false);
    assert_eq!(borrowed, Ok(Taken::Borrowed));
    assert!(lock.is_held());
    // A handler that interrupts the borrower finds that it's its own.
    assert_eq!(lock.try_lock(owner(7), false).expect_err("it's held").thread(), 7);

    assert_eq!(lock.try_lock(owner(8), false), Ok(Taken::Lent));
    let mut barriers = 0;
    let held = lock.recall(|| barriers += 1).expect("the borrower is inside");
    assert_eq!((held.thread(), barriers), (7, 1));
    assert_eq!(lock.try_lock(owner(7), false).expect_err("it's held").thread(), 7, "and so does one after the recall");
    assert_eq!(lock.borrower(), Some(held));
    assert!(!lock.unlock(Taken::Borrowed));
    assert_eq!(lock.borrower(), None);

    // The borrower comes by the word, and waits there.
    let held = lock.try_lock(owner(7), false).expect_err("the other has it");
    assert_eq!(held.thread(), 8);
    assert!(lock.wait(held).is_some());
    assert!(lock.unlock(Taken::Lent), "one sleeps");
    assert_eq!(often(lock, 7), Taken::Owned, "it's lent once");
    assert_eq!(take(lock, 8), Taken::Owned, "and recalled once");
}

#[test]
fn a_recall_that_was_not_finished_is_made_again() {
    let heap = Heap::new(4096);
    let lock = lent(&heap.create(), 7);
    // Killed between the word and the barrier: who takes over knows nothing of what the borrower has seen.
    assert_eq!(lock.try_lock(owner(8), false), Ok(Taken::Lent));
    let stopped = std::panic::catch_unwind(|| lock.recall(|| panic!("killed here")));
    assert!(stopped.is_err());
    let held = lock.try_lock(owner(9), false).expect_err("it's held");
    assert_eq!(lock.take_over(held, owner(9)), Some(Taken::Lent));
    let mut barriers = 0;
    assert_eq!(lock.recall(|| barriers += 1), None);
    assert_eq!(barriers, 1);
}

#[test]
fn a_borrower_that_was_killed_inside_is_buried() {
    let heap = Heap::new(4096);
    let lock = lent(&heap.create(), 7);
    assert_eq!(lock.try_lock(owner(7), false), Ok(Taken::Borrowed));
    assert_eq!(lock.try_lock(owner(8), false), Ok(Taken::Lent));
    assert!(lock.recall(|| ()).is_some());
    lock.bury();
    assert_eq!(lock.borrower(), None);
    assert!(!lock.unlock(Taken::Lent) && !lock.is_held());
    assert_eq!(take(lock, 9), Taken::Owned);
}

#[test]
fn a_lock_that_its_thread_left_taken_is_had_back() {
    let heap = Heap::new(4096);
    let lock = heap.create().outgoing(Side::Offering).lock();
    let back = |lock: Lock<'_>| {
        let held = lock.try_lock(owner(7), false).expect_err("it was left");
        assert_eq!(held.thread(), 7);
        lock.take_back(held, owner(7))
    };
    assert_eq!(lock.try_lock(owner(7), false), Ok(Taken::Owned));
    assert_eq!(back(lock), Some(Taken::Owned));
    assert!(lock.unlock(Taken::Owned), "who slept for it is woken");
    assert!(!lock.is_held());

    let lock = lent(&heap.create(), 7);
    assert_eq!(lock.try_lock(owner(7), false), Ok(Taken::Borrowed));
    assert_eq!(back(lock), Some(Taken::Borrowed));
    assert!(!lock.unlock(Taken::Borrowed));
    assert_eq!(take(lock, 7), Taken::Borrowed, "it's lent still");

    // One who recalls waits for the call that was left: it has the lock, and not the thread that comes back.
    assert_eq!(lock.try_lock(owner(7), false), Ok(Taken::Borrowed));
    assert_eq!(lock.try_lock(owner(8), false), Ok(Taken::Lent));
    assert_eq!(lock.recall(|| {}).map(crate::Held::thread), Some(7));
    assert_eq!(back(lock), None);
    assert_eq!(lock.borrower(), None);
    assert_eq!(lock.try_lock(owner(7), false).expect_err("the other has it").thread(), 8);
    assert!(!lock.unlock(Taken::Lent));
    assert_eq!(take(lock, 7), Taken::Owned);
}

#[test]
fn where_a_call_stands_only_its_own_thread_is_told() {
    let heap = Heap::new(4096);
    let lock = heap.create().outgoing(Side::Offering).lock();
    assert_eq!(lock.place().height(owner(7)), None, "nobody has said");
    lock.set_place(Place::new(owner(7), u32::MAX));
    assert_eq!((lock.place().height(owner(7)), lock.place().height(owner(8))), (Some(u32::MAX), None));
}
