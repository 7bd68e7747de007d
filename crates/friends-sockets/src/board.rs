//! This process's board: what it tells of its friends, and the operator's wish. It's put up before the process's first friend is made, and
//! anew in a child after fork that uses one. Whoever looks finds it by its name among the descriptors of processes (`/proc/PID/fd`).
//!
//! A process without a board has no friends: else nobody could switch them off.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use midmile_friends::{BOARD_BYTES, Entry, Name, Wish};

use crate::figures::{self, Figure};
use crate::sys::map::{self, Owned};
use crate::sys::{Errno, board as memory, call};
use crate::{meeting, process, table};

/// No descriptor.
const NONE: i32 = -1;

/// The board's descriptor.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(NONE);
/// A thread puts the board up.
static BUSY: AtomicBool = AtomicBool::new(false);

/// What the operator wishes: one load. [`Wish::Unknown`] where there's no board yet.
#[inline]
pub(crate) fn wish() -> Wish {
    memory::head().wish()
}

/// Until when somebody watches what is sent, in seconds of the monotonic clock: one load.
#[inline]
pub(crate) fn tapped_until() -> u32 {
    memory::head().tapped_until()
}

/// A wish that isn't [`Wish::On`] was seen by a call on a friend: finds out what it comes to.
#[cold]
pub(crate) fn is_off() -> bool {
    if wish() == Wish::Unknown && !memory::is_up() && !put_up() && !BUSY.load(Ordering::Relaxed) {
        // A child after fork that can have none.
        figures::add(Figure::Unposted, 1);
        memory::head().found(Wish::Off);
    }
    wish() == Wish::Off
}

/// Whether a connection may become a friend now. Puts the board up before the first.
pub(crate) fn allows() -> bool {
    if !memory::is_up() && !put_up() {
        figures::add(Figure::Unposted, 1);
        return false;
    }
    // The file too: it stands before the boards are written to.
    let allowed = wish() == Wish::On && !meeting::is_off();
    if !allowed {
        figures::add(Figure::Off, 1);
    }
    allowed
}

/// Puts the board up; whether there's one now.
fn put_up() -> bool {
    if BUSY.swap(true, Ordering::Acquire) {
        // Another thread does, or this one, interrupted.
        return false;
    }
    // A child of vfork has its parent's memory, and descriptors of its own.
    let made = memory::is_up() || process::owns_tables() && make().is_ok();
    BUSY.store(false, Ordering::Release);
    made
}

fn make() -> Result<(), Errno> {
    let directory = meeting::directory()?;
    let file = map::make(c"midmile-friends-board", BOARD_BYTES)?;
    let process = u32::try_from(call::process()).expect("a process's number is positive");
    memory::put_up(&file, |head| head.begin(process, directory))?;
    table::hide(file.number());
    DESCRIPTOR.store(file.keep(), Ordering::Relaxed);
    // Whoever switches off writes the file first, and then looks for boards: if that one missed this, this sees the file.
    let found = if meeting::is_off() { Wish::Off } else { Wish::On };
    memory::head().found(found);
    // Friends that came from a parent.
    table::each_once(|_, held| {
        if held.is_friend() {
            held.link.post();
        }
    });
    Ok(())
}

/// This is a child after fork: the board is its parent's.
pub(crate) fn forked() {
    let inherited = DESCRIPTOR.swap(NONE, Ordering::Relaxed);
    if inherited >= 0 && memory::is_up() && process::owns_tables() {
        table::unhide(inherited);
        let file = Owned::again(inherited);
        if memory::identity() != map::identity(&file).unwrap_or_default() {
            // Closed where this library doesn't see it; the number is the program's.
            file.keep();
        }
    }
    memory::take_down();
    BUSY.store(false, Ordering::Relaxed);
}

/// The program puts a descriptor of its own where the board's stands: it goes elsewhere, or else can't be found any more.
pub(crate) fn make_way(fd: i32) {
    if DESCRIPTOR.load(Ordering::Relaxed) == fd && process::owns_tables() {
        let moved = map::elsewhere(fd).map_or(NONE, Owned::keep);
        DESCRIPTOR.store(moved, Ordering::Relaxed);
        if moved == NONE {
            // Nobody could switch its friends off.
            memory::head().demand_off();
        } else {
            table::hide(moved);
        }
    }
}

/// The entry of this number, where there's a board.
#[inline]
pub(crate) fn entry(number: u32) -> Option<&'static Entry> {
    memory::entry(usize::try_from(number).ok()?)
}

/// The entry of this number, for a connection of this name.
pub(crate) fn begin(number: u32, name: Name) -> Option<&'static Entry> {
    let entry = entry(number)?;
    memory::reach(usize::try_from(number).ok()?);
    entry.begin(name);
    Some(entry)
}
