//! Taking the locks of a segment: sleeping for them, recalling them where they are lent, taking them over from threads that were killed, and back
//! from calls that were left.

use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};
use std::time::Duration;

use midmile_friends::{Broken, Held, Lock, Owner, Place, Reader, Taken, Writer};

use crate::figures::{self, Figure};
use crate::leap;
use crate::process;
use crate::sys::{call, futex, threads};
use crate::thread::own;

/// Looks before sleeping: who holds a lock copies at most a piece of the ring and makes one system call.
const LOOKS: u32 = 200;
/// A sleep's end: then it's seen whether the owner lives.
const NAP: Duration = Duration::from_millis(5);
/// Naps on end that nobody ended: five seconds. Who has the lock makes no call that takes so long: it's stopped, or the word is a peer's
/// that wants us to wait.
const NAPS_MAX: u32 = 1000;
/// The same in nanoseconds, for who is interrupted in each nap.
const NAPS_TIME: u64 = 5_000_000_000;
/// A borrower that is inside: looks from which on this thread sleeps rather than leaves it the CPU, and after which it doesn't wait any more.
const YIELDS: u32 = 2 * LOOKS;
const RECALL_MAX: u32 = YIELDS + NAPS_MAX;
/// Looks in all, for a peer that wakes us again and again.
const LOOKS_MAX: u32 = 1 << 20;

/// Why a lock isn't had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// This thread has it: a signal's handler interrupted it there.
    Own,
    /// Who had it was killed where no one can take over, or doesn't give it back.
    Broken(Broken),
}

/// A lock that is held; given back when dropped.
#[derive(Debug)]
pub(crate) struct Guard<'m> {
    lock: Lock<'m>,
    taken: Taken,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.lock.unlock(self.taken) {
            futex::wake(self.lock.futex(), 1);
        }
    }
}

/// The lock of who writes. A part of its caller, as is [`Writer::put`]: together that makes small writes faster by a twentieth.
#[inline(always)]
pub(crate) fn of_writer<'m>(writer: &Writer<'m>) -> Result<Guard<'m>, Busy> {
    take(writer.lock(), || writer.taken_over())
}

/// The lock of who reads.
pub(crate) fn of_reader<'m>(reader: &Reader<'m>) -> Result<Guard<'m>, Busy> {
    take(reader.lock(), || reader.taken_over())
}

#[inline(always)]
fn take<'m>(lock: Lock<'m>, taken_over: impl Fn()) -> Result<Guard<'m>, Busy> {
    let (number, height) = own(|own| (own.number(), leap::height(own)));
    let owner = Owner::new(number).expect("threads' numbers are below 2^22");
    let before = lock.place();
    let place = Place::new(owner, height);
    lock.set_place(place);
    // A handler in this thread sees it in this order.
    compiler_fence(Ordering::SeqCst);
    let taken = match lock.try_lock(owner, false) {
        Ok(taken) => had(lock, taken, &taken_over),
        Err(held) if held.thread() != owner.thread() || leap::was_left(before.height(owner), height) => {
            wait(lock, owner, held, &taken_over)
        }
        Err(_) => {
            lock.set_place(before);
            figures::add(Figure::Reentered, 1);
            return Err(Busy::Own);
        }
    };
    lock.set_place(place);
    taken
}

/// The lock that was taken, once it's the caller's alone.
#[inline]
fn had<'m>(lock: Lock<'m>, taken: Taken, taken_over: &impl Fn()) -> Result<Guard<'m>, Busy> {
    let guard = Guard { lock, taken };
    if taken == Taken::Lent {
        recall(lock, taken_over)?;
    }
    Ok(guard)
}

/// Waits until the thread that the lock is lent to isn't inside.
#[cold]
fn recall(lock: Lock<'_>, taken_over: &impl Fn()) -> Result<(), Busy> {
    figures::add(Figure::LocksRecalled, 1);
    let barrier = || {
        threads::barrier();
    };
    let (mut borrower, mut looks) = (lock.recall(barrier), 0);
    while let Some(held) = borrower {
        match looks {
            0..LOOKS => std::hint::spin_loop(),
            LOOKS..YIELDS => call::give_way(),
            _ if !process::lives(held.thread()) => {
                lock.bury();
                taken_over();
                return Ok(());
            }
            YIELDS..RECALL_MAX => drop(futex::sleep(&AtomicU32::new(0), 0, NAP)),
            _ => return Err(Busy::Broken(Broken::Abandoned)),
        }
        looks += 1;
        borrower = lock.borrower();
    }
    Ok(())
}

/// Waits for a lock, which may be one that a call of this thread had that was left.
#[cold]
fn wait<'m>(lock: Lock<'m>, owner: Owner, mut held: Held, taken_over: &impl Fn()) -> Result<Guard<'m>, Busy> {
    let (mut looks, mut naps, mut since) = (0, 0, call::now());
    loop {
        looks += 1;
        if held.thread() == owner.thread() {
            figures::add(Figure::LocksTakenBack, 1);
            taken_over();
            if let Some(taken) = lock.take_back(held, owner) {
                return had(lock, taken, taken_over);
            }
        } else if looks < LOOKS {
            std::hint::spin_loop();
        } else if let Some(value) = lock.wait(held) {
            match futex::sleep(lock.futex(), value, NAP) {
                futex::Woken::Up => (naps, since) = (0, call::now()),
                futex::Woken::Late => naps += 1,
                futex::Woken::Interrupted if call::now().wrapping_sub(since) > NAPS_TIME => naps = NAPS_MAX + 1,
                futex::Woken::Interrupted => {}
            }
        }
        if naps > NAPS_MAX || looks > LOOKS_MAX {
            lock.forsake(held);
        }
        if naps > NAPS_MAX || looks > LOOKS_MAX || held.thread() == 0 {
            return Err(Busy::Broken(Broken::Abandoned));
        }
        match lock.try_lock(owner, looks >= LOOKS) {
            Ok(taken) => return had(lock, taken, taken_over),
            Err(now) => held = now,
        }
        if looks >= LOOKS
            && !process::lives(held.thread())
            && let Some(taken) = lock.take_over(held, owner)
        {
            let guard = had(lock, taken, taken_over)?;
            taken_over();
            return Ok(guard);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use midmile_friends::{CAPACITY_MIN, Segment, Side, segment_bytes};

    use super::*;
    use crate::sys::map::Mapping;

    /// Locks that are lent and recalled.
    const LOCKS: u32 = 4000;
    /// Takes by the borrower before the other comes, and after.
    const TAKES: u32 = 300;

    /// Adds one where two who are inside at once would lose one.
    fn add(writer: &Writer<'_>, count: &AtomicU32) {
        let _held = of_writer(writer).expect("its threads live");
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    fn lend_and_recall(segment: &Segment<'_>, start: &Barrier) {
        let count = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let writer = segment.outgoing(Side::Offering);
                (0..TAKES).for_each(|_| add(&writer, &count));
                start.wait();
                (0..TAKES).for_each(|_| add(&writer, &count));
            });
            let writer = segment.outgoing(Side::Offering);
            start.wait();
            (0..TAKES / 3).for_each(|_| std::hint::spin_loop());
            (0..TAKES).for_each(|_| add(&writer, &count));
        });
        assert_eq!(count.load(Relaxed), 3 * TAKES, "two had the lock at once");
    }

    #[test]
    fn a_lock_that_another_cpu_has_borrowed_is_recalled_from_there() {
        assert!(threads::are_reached(), "Linux 4.16");
        let (start, before) = (Barrier::new(2), figures::count(Figure::LocksRecalled));
        for _ in 0..LOCKS {
            let memory = Mapping::room(segment_bytes(CAPACITY_MIN).unwrap()).unwrap();
            memory.create(CAPACITY_MIN, [1, 2]).unwrap();
            let segment = memory.segment([1, 2]).unwrap();
            segment.may_recall(Side::Offering);
            segment.may_recall(Side::Attached);
            lend_and_recall(&segment, &start);
            memory.end();
        }
        assert!(figures::count(Figure::LocksRecalled) - before >= u64::from(LOCKS), "they weren't lent");
    }
}
