//! Taking the locks of a segment: sleeping for them, and taking them over from threads that were killed.

use std::time::Duration;

use midmile_friends::{Broken, Held, Lock, Owner, Reader, Writer};

use crate::figures::{self, Figure};
use crate::sys::{call, futex};

/// Looks before sleeping: who holds a lock copies at most a piece of the ring and makes one system call.
const LOOKS: u32 = 200;
/// A sleep's end: then it's seen whether the owner lives.
const NAP: Duration = Duration::from_millis(5);
/// Naps on end that nobody ended: five seconds. Who has the lock makes no call that takes so long: it's stopped, or the word is a peer's
/// that wants us to wait.
const NAPS_MAX: u32 = 1000;
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
pub(crate) struct Guard<'m>(Lock<'m>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.0.unlock() {
            futex::wake(self.0.futex(), 1);
        }
    }
}

/// The lock of who writes.
pub(crate) fn of_writer<'m>(writer: &Writer<'m>) -> Result<Guard<'m>, Busy> {
    take(writer.lock(), || writer.taken_over())
}

/// The lock of who reads.
pub(crate) fn of_reader<'m>(reader: &Reader<'m>) -> Result<Guard<'m>, Busy> {
    take(reader.lock(), || reader.taken_over())
}

fn take<'m>(lock: Lock<'m>, check: impl Fn() -> Result<(), Broken>) -> Result<Guard<'m>, Busy> {
    let owner = Owner::new(call::thread()).expect("threads' numbers are below 2^22");
    match lock.try_lock(owner, false) {
        Ok(()) => Ok(Guard(lock)),
        Err(held) => wait(lock, owner, held, check),
    }
}

#[cold]
fn wait<'m>(
    lock: Lock<'m>,
    owner: Owner,
    mut held: Held,
    check: impl Fn() -> Result<(), Broken>,
) -> Result<Guard<'m>, Busy> {
    let (mut looks, mut naps) = (0, 0);
    loop {
        if held.thread() == owner.thread() {
            figures::add(Figure::Reentered, 1);
            return Err(Busy::Own);
        }
        looks += 1;
        if looks < LOOKS {
            std::hint::spin_loop();
        } else if let Some(value) = lock.wait(held) {
            match futex::sleep(lock.futex(), value, NAP) {
                futex::Woken::Up => naps = 0,
                futex::Woken::Late => naps += 1,
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
            Ok(()) => return Ok(Guard(lock)),
            Err(now) => held = now,
        }
        if looks >= LOOKS && !call::lives(held.thread()) && lock.take_over(held, owner) {
            let guard = Guard(lock);
            return check().map(|()| guard).map_err(Busy::Broken);
        }
    }
}
