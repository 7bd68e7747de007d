//! Where this process's board is mapped.
//!
//! A mapping stays for as long as the process does, and a child after fork puts its own in its parent's place: so what was handed out stays
//! memory, whoever still uses it.

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use midmile_friends::{BOARD_BYTES, Board, Entry, Head};

use super::map::{self, Identity, Owned};
use super::{Errno, errno, set_errno};

/// What is said and counted as long as there's no board.
static ALONE: Head = Head::new();
/// The board that is up.
static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());
/// Where one is mapped, be it the parent's.
static PLACE: AtomicUsize = AtomicUsize::new(0);
/// Which file it is.
static FILE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

#[inline]
fn board() -> Option<&'static Board> {
    let place = BOARD.load(Ordering::Acquire);
    // SAFETY: it's null, or `put_up` has mapped a whole board there, of a file that can't shrink, for good; it's made of atomics, for which
    // any bits are valid, whoever writes them.
    unsafe { place.as_ref() }
}

/// Whether there's a board.
pub(crate) fn is_up() -> bool {
    !BOARD.load(Ordering::Relaxed).is_null()
}

/// The board's head, or what stands for it.
#[inline]
pub(crate) fn head() -> &'static Head {
    board().map_or(&ALONE, |board| &board.head)
}

/// What was counted while there was no board, where there's one.
pub(crate) fn before() -> Option<&'static Head> {
    is_up().then_some(&ALONE)
}

/// An entry of the board's.
#[inline]
pub(crate) fn entry(number: usize) -> Option<&'static Entry> {
    board()?.entry(number)
}

/// Says that entries up to this one are in use.
pub(crate) fn reach(number: usize) {
    if let Some(board) = board() {
        board.reach(number);
    }
}

/// Which file the board is.
pub(crate) fn identity() -> Identity {
    Identity(FILE.each_ref().map(|word| word.load(Ordering::Relaxed)))
}

/// Maps the board, has `begin` say whose it is, and uses it from then on. One thread at a time.
pub(crate) fn put_up(file: &Owned, begin: impl FnOnce(&Head)) -> Result<(), Errno> {
    let identity = map::identity(file)?;
    let kept = errno();
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let place = PLACE.load(Ordering::Relaxed) as *mut libc::c_void;
    let flags = libc::MAP_SHARED | if place.is_null() { 0 } else { libc::MAP_FIXED };
    // SAFETY: a place of the kernel's choice; or that of the parent's board, as long as this one, which only boards' atomics are at.
    let start = unsafe { libc::mmap(place, BOARD_BYTES, access, flags, file.number(), 0) };
    let failed = Errno(errno());
    set_errno(kept);
    if start == libc::MAP_FAILED {
        return Err(failed);
    }
    PLACE.store(start as usize, Ordering::Relaxed);
    FILE.iter().zip(identity.0).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
    let start = start.cast::<Board>();
    // SAFETY: as in `board`; a page's start is aligned for it.
    begin(unsafe { &(*start).head });
    BOARD.store(start, Ordering::Release);
    Ok(())
}

/// The board that is mapped isn't this process's: a child after fork. Its figures begin anew, and it knows of no wish.
pub(crate) fn take_down() {
    BOARD.store(std::ptr::null_mut(), Ordering::Release);
    ALONE.forget();
}
