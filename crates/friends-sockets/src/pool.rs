//! All ends, and which of them are free. The one that was freed last is taken first: its memory is near, where a connection that soon ends
//! would touch another's each time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::end::End;

/// Ends at once; beyond them connections stay plain.
const ENDS: usize = 1 << 14;

const _: () = assert!(ENDS <= midmile_friends::ENTRIES);

/// No end; ends are numbered from 1.
const NONE: u32 = 0;

static POOL: [End; ENDS] = [const { End::new() }; ENDS];
/// The end that was freed last, below a count of changes: who took and freed it meanwhile is told apart by that.
static FREED: AtomicU64 = AtomicU64::new(NONE as u64);
/// For each end that is free the one that was freed before it.
static BEFORE: [AtomicU32; ENDS] = [const { AtomicU32::new(NONE) }; ENDS];
/// Ends at or above it were never used.
static USED: AtomicU32 = AtomicU32::new(0);

/// The end of a number; other numbers are none.
pub(crate) fn numbered(number: u32) -> Option<&'static End> {
    POOL.get(usize::try_from(number.wrapping_sub(1)).ok()?)
}

/// An end's number; at most as many as there are entries on a board.
pub(crate) fn number(end: &End) -> u32 {
    let before = std::ptr::from_ref(end).addr() - POOL.as_ptr().addr();
    u32::try_from(before / size_of::<End>()).expect("ends are of the pool, which is small") + 1
}

/// The number of a free end, which is the caller's to take.
pub(crate) fn pop() -> Option<u32> {
    loop {
        let head = FREED.load(Ordering::Acquire);
        let Some(before) = link(low(head)) else { break };
        if changed(head, before.load(Ordering::Relaxed)) {
            return Some(low(head));
        }
    }
    let used = |used| (used < count()).then_some(used + 1);
    USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, used).ok().map(|before| before + 1)
}

/// An end is free.
pub(crate) fn push(end: &End) {
    let number = number(end);
    let before = link(number).expect("an end has a number");
    loop {
        let head = FREED.load(Ordering::Relaxed);
        before.store(low(head), Ordering::Relaxed);
        if changed(head, number) {
            return;
        }
    }
}

/// All ends that were ever used.
pub(crate) fn used() -> &'static [End] {
    &POOL[..USED.load(Ordering::Relaxed) as usize]
}

fn count() -> u32 {
    u32::try_from(ENDS).expect("a small number")
}

/// Where it stands what was freed before an end.
fn link(number: u32) -> Option<&'static AtomicU32> {
    BEFORE.get(usize::try_from(number).ok()?.checked_sub(1)?)
}

/// The number in the low half of a word.
fn low(head: u64) -> u32 {
    u32::try_from(head & u64::from(u32::MAX)).expect("the other half is cut off")
}

/// Puts another first; whether nobody else did.
fn changed(head: u64, first: u32) -> bool {
    let next = (head >> 32).wrapping_add(1) << 32 | u64::from(first);
    FREED.compare_exchange_weak(head, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_was_freed_last_is_taken_first_and_nothing_twice() {
        let free = |number: u32| push(numbered(number).expect("it was taken"));
        let (first, second) = (pop().expect("there are many"), pop().expect("there are many"));
        assert_ne!(first, second);
        assert_eq!(number(numbered(first).expect("it was taken")), first);
        free(second);
        free(first);
        assert_eq!([pop(), pop()], [Some(first), Some(second)]);
        let rest: HashSet<u32> = std::iter::from_fn(pop).collect();
        assert_eq!((rest.len(), used().len()), (ENDS - 2, ENDS));
        assert!(!rest.contains(&first) && !rest.contains(&second));
        // Threads take and free the same few.
        rest.iter().take(3).copied().for_each(free);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        if let Some(number) = pop() {
                            let end = numbered(number).expect("it was taken");
                            assert!(end.take(None), "nobody else has it");
                            end.forget();
                        }
                    }
                });
            }
        });
        let left: HashSet<u32> = std::iter::from_fn(pop).collect();
        assert_eq!(left.len(), 3);
    }
}
