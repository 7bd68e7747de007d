//! Locks, lent and not.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread;
use midmile_friends::{Owner, Side, Taken};

use super::{check, engaged, on_the_ring, reader, writer};

#[test]
fn a_lock_has_one_owner_and_forgets_no_sleeper() {
    check(|| {
        let heap = engaged(2);
        let inside = Arc::new(AtomicUsize::new(0));
        let (theirs, count) = (heap.clone(), inside.clone());
        let other = thread::spawn(move || {
            let lock = writer(&theirs).lock();
            let locked = lock.try_lock(Owner::new(1).expect("an id"), false).is_ok();
            locked && {
                assert_eq!(count.fetch_add(1, Ordering::Relaxed), 0, "two owners");
                count.fetch_sub(1, Ordering::Relaxed);
                lock.unlock(Taken::Owned)
            }
        });
        let lock = writer(&heap).lock();
        let mut asleep = false;
        match lock.try_lock(Owner::new(2).expect("an id"), false) {
            Ok(_) => {
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two owners");
                inside.fetch_sub(1, Ordering::Relaxed);
                assert!(!lock.unlock(Taken::Owned), "nobody sleeps");
            }
            Err(held) => asleep = lock.wait(held).is_some(),
        }
        assert!(other.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
    });
}

#[test]
fn a_lock_that_is_lent_has_one_owner() {
    check(|| {
        let heap = on_the_ring(4);
        let segment = heap.segment();
        segment.may_recall(Side::Offering);
        segment.may_recall(Side::Attached);
        let owner = Owner::new(1).expect("an id");
        let lock = segment.outgoing(Side::Offering).lock();
        while lock.try_lock(owner, false).map(|taken| (taken, lock.unlock(taken))) != Ok((Taken::Borrowed, false)) {}
        let (theirs, ours) = (heap.clone(), heap.clone());
        let borrower = thread::spawn(move || {
            let mut put = 0;
            for byte in 1..=2 {
                // By the word, once it's recalled, it isn't waited for here.
                let Ok(taken) = writer(&theirs).lock().try_lock(owner, false) else { continue };
                assert_ne!(taken, Taken::Lent);
                put += writer(&theirs).put(&[byte]).expect("both keep to the protocol").taken;
                assert!(!writer(&theirs).lock().unlock(taken), "nobody sleeps for it");
            }
            put
        });
        let recaller = thread::spawn(move || {
            let lock = writer(&ours).lock();
            let Ok(taken) = lock.try_lock(Owner::new(2).expect("an id"), false) else { return 0 };
            if taken == Taken::Lent && lock.recall(|| fence(Ordering::SeqCst)).is_some() {
                return 0;
            }
            let put = writer(&ours).put(&[3]).expect("both keep to the protocol").taken;
            assert!(!lock.unlock(taken), "nobody sleeps for it");
            put
        });
        let put = borrower.join().expect("it doesn't panic") + recaller.join().expect("it doesn't panic");
        // Loom fails where both have written to one place; and what either has put is there.
        assert_eq!(reader(&heap).available(), Ok(put));
    });
}
