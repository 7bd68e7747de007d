//! Every order in which two threads' memory accesses can fall, as loom makes them: `ci/loom.sh` runs these.
//!
//! To sleep is only noted here: at the end nobody may sleep whom nothing wakes. Rings are of a few bytes; loom fails a model in which
//! one of them is read and written at once.
#![cfg(loom)]

mod locks;

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use midmile_friends::{Heap, Owner, Plain, Reader, Side, Step, Taken, Way, Writer};

/// Switches between threads where neither waits: enough for each of the protocol's races, and few enough for a minute.
const PREEMPTIONS: usize = 3;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

fn writer(heap: &Heap) -> Writer<'_> {
    heap.segment().outgoing(Side::Offering)
}

fn reader(heap: &Heap) -> Reader<'_> {
    heap.segment().incoming(Side::Attached)
}

fn engaged(capacity: usize) -> Arc<Heap> {
    let heap = Arc::new(Heap::new(capacity));
    writer(&heap).begin(0);
    reader(&heap).engage(0);
    heap
}

fn on_the_ring(capacity: usize) -> Arc<Heap> {
    let heap = engaged(capacity);
    assert_eq!(writer(&heap).way(), Ok(Way::Ring));
    heap
}

/// What the kernel has of a direction: a queue behind a lock, as the kernel's is.
#[derive(Default)]
struct Socket {
    queue: Mutex<VecDeque<u8>>,
    /// Doorbells in the pipe beside it.
    pipe: Mutex<u64>,
}

impl Socket {
    fn send(&self, bytes: &[u8]) {
        self.queue.lock().expect("nobody panics").extend(bytes);
    }

    fn recv(&self, most: usize) -> Vec<u8> {
        let mut queue = self.queue.lock().expect("nobody panics");
        let count = most.min(queue.len());
        queue.drain(..count).collect()
    }
}

/// Writes a byte by the way that there is.
fn write(writer: Writer<'_>, socket: &Socket, byte: u8) {
    if writer.way() == Ok(Way::Ring) {
        let put = writer.put(&[byte]).expect("both keep to the protocol");
        assert_eq!(put.taken, 1);
        if put.wake.bells > 0 {
            socket.send(&[0]);
            writer.rang(1);
        }
        if put.wake.pipe {
            *socket.pipe.lock().expect("nobody panics") += 1;
            writer.pipe_rang();
        }
    } else {
        send(writer, socket, byte);
    }
}

/// Writes a byte by TCP.
fn send(writer: Writer<'_>, socket: &Socket, byte: u8) {
    writer.begin_tcp();
    socket.send(&[byte]);
    assert!(!writer.sent(1).futex, "nobody sleeps by it");
}

/// A thread writes as `writes` says while this one, `watched` or not, looks so many times. Answers what was read by then.
fn race(
    heap: &Arc<Heap>,
    socket: &Arc<Socket>,
    looks: usize,
    watched: bool,
    writes: impl FnOnce(Writer<'_>, &Socket) + Send + 'static,
) -> Vec<u8> {
    assert!(!watched || reader(heap).watch() == Ok(true));
    // Both are threads that were spawned: loom finds no race between loads of the first thread and what comes after them.
    let (theirs, wire) = (heap.clone(), socket.clone());
    let other = thread::spawn(move || writes(writer(&theirs), &wire));
    let (ours, wire) = (heap.clone(), socket.clone());
    let looking = thread::spawn(move || {
        let mut got = Vec::new();
        for _ in 0..looks {
            read(reader(&ours), &wire, &mut got);
        }
        got
    });
    other.join().expect("it doesn't panic");
    looking.join().expect("it doesn't panic")
}

/// The rest, after what was read.
fn drained(heap: &Heap, socket: &Socket, mut got: Vec<u8>) -> Vec<u8> {
    while read(reader(heap), socket, &mut got) {}
    got
}

/// One look, and what follows from it. Answers whether there was anything.
fn read(reader: Reader<'_>, socket: &Socket, got: &mut Vec<u8>) -> bool {
    match reader.step().expect("both keep to the protocol") {
        Step::Ring(_) => {
            let mut buffer = [0; 4];
            let take = reader.take(&mut buffer).expect("both keep to the protocol");
            got.extend(&buffer[..take.count]);
            true
        }
        Step::Bells(most) => {
            let bells = socket.recv(most);
            reader.swallowed(&bells).expect("they are doorbells");
            !bells.is_empty()
        }
        Step::Tcp => {
            let bytes = socket.recv(4);
            reader.leave_tcp(bytes.len() as u64);
            got.extend(&bytes);
            !bytes.is_empty()
        }
        Step::Empty => swallow_piped(reader, socket),
    }
}

/// Takes what stands in the pipe. Answers whether anything did.
fn swallow_piped(reader: Reader<'_>, socket: &Socket) -> bool {
    let bells = reader.let_go_piped().expect("both keep to the protocol");
    if bells == 0 {
        return false;
    }
    let mut pipe = socket.pipe.lock().expect("nobody panics");
    let taken = bells.min(*pipe);
    *pipe -= taken;
    reader.pipe_taken(taken);
    taken > 0
}

#[test]
fn a_sleeper_by_the_futex_is_woken() {
    check(|| {
        let heap = on_the_ring(2);
        let theirs = heap.clone();
        let write = thread::spawn(move || writer(&theirs).put(&[1]).expect("room").wake.futex);
        let asleep = reader(&heap).doze().expect("both keep to the protocol").is_some();
        let woken = write.join().expect("it doesn't panic");
        assert!(woken || !asleep, "asleep, and nobody wakes it");
        assert_eq!(reader(&heap).step(), Ok(Step::Ring(1)));
    });
}

#[test]
fn a_sleeper_is_woken_by_a_writer_that_is_calm_or_just_becomes_so() {
    for before in 1..=3 {
        check(move || {
            let heap = on_the_ring(4);
            [Side::Offering, Side::Attached].into_iter().for_each(|side| heap.segment().may_recall(side));
            for _ in 1..before {
                assert!(!writer(&heap).put(&[1]).expect("room").wake.futex, "nobody sleeps");
                assert_eq!(reader(&heap).skip(1).expect("both keep to the protocol").count, 1);
            }
            let theirs = heap.clone();
            let write = thread::spawn(move || writer(&theirs).put(&[1]).expect("room").wake.futex);
            let asleep = reader(&heap).doze().expect("both keep to the protocol").is_some();
            assert!(write.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
        });
    }
}

#[test]
fn a_sleeper_by_the_futex_is_woken_where_tcp_takes_over() {
    check(|| {
        let heap = on_the_ring(2);
        let theirs = heap.clone();
        let write = thread::spawn(move || {
            let writer = writer(&theirs);
            assert_eq!(writer.back_to_tcp(Plain::Full), 0);
            writer.begin_tcp();
            writer.sent(1).futex
        });
        let asleep = reader(&heap).doze().expect("both keep to the protocol").is_some();
        assert!(write.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
    });
}

#[test]
fn a_sleeper_in_the_kernel_is_rung() {
    check(|| {
        let heap = on_the_ring(2);
        let theirs = heap.clone();
        let write = thread::spawn(move || writer(&theirs).put(&[1]).expect("room").wake.bells);
        let asleep = reader(&heap).sleep_by_bell().expect("both keep to the protocol");
        assert!(write.join().expect("it doesn't panic") == 1 || !asleep, "asleep, and no doorbell comes");
    });
}

#[test]
fn a_doorbell_stands_while_a_watched_ring_holds_something() {
    // The last look is the one that swallows, with bytes behind it or without.
    for looks in 1..=3 {
        check(move || {
            let (heap, socket) = (on_the_ring(4), Arc::new(Socket::default()));
            let got =
                race(&heap, &socket, looks, true, |writer, wire| (1..=2).for_each(|byte| write(writer, wire, byte)));
            let stands = !socket.queue.lock().expect("nobody panics").is_empty();
            assert!(
                stands || reader(&heap).available() == Ok(0),
                "the ring holds something and the socket says nothing"
            );
            assert_eq!(drained(&heap, &socket, got), [1, 2]);
            assert_eq!(reader(&heap).step(), Ok(Step::Empty));
            assert!(socket.recv(1).is_empty(), "the ring is empty and the socket says something");
        });
    }
}

#[test]
fn a_doorbell_stands_in_the_pipe_while_the_ring_holds_something() {
    for looks in 1..=3 {
        check(move || {
            let (heap, socket) = (on_the_ring(4), Arc::new(Socket::default()));
            assert_eq!(reader(&heap).watch_piped(false), Ok(true));
            let got =
                race(&heap, &socket, looks, false, |writer, wire| (1..=2).for_each(|byte| write(writer, wire, byte)));
            let stands = *socket.pipe.lock().expect("nobody panics") > 0;
            assert!(stands || reader(&heap).available() == Ok(0), "the ring holds something and the pipe says nothing");
            assert_eq!(drained(&heap, &socket, got), [1, 2]);
            assert_eq!(*socket.pipe.lock().expect("nobody panics"), 0, "the ring is empty and the pipe says something");
            assert!(socket.recv(1).is_empty(), "nobody asked for one by TCP");
        });
    }
}

#[test]
fn a_pipe_that_rests_is_silent_and_tells_afterwards_what_came_meanwhile() {
    check(|| {
        let (heap, socket) = (on_the_ring(4), Arc::new(Socket::default()));
        assert_eq!(reader(&heap).watch_piped(false), Ok(true));
        let (theirs, wire) = (heap.clone(), socket.clone());
        let other = thread::spawn(move || {
            let owner = Owner::new(1).expect("not 0");
            for byte in 1..=2 {
                writer(&theirs).lock().try_lock(owner, false).map(drop).expect("nobody else writes");
                write(writer(&theirs), &wire, byte);
                assert!(!writer(&theirs).lock().unlock(Taken::Owned), "nobody sleeps for it");
            }
        });
        let (ours, wire) = (heap.clone(), socket.clone());
        let resting = thread::spawn(move || {
            let silent = reader(&ours).rest_pipe();
            thread::yield_now();
            assert!(!silent || *wire.pipe.lock().expect("nobody panics") == 0, "a pipe that rests says something");
            if reader(&ours).resume_pipe().expect("both keep to the protocol") {
                *wire.pipe.lock().expect("nobody panics") += 1;
            }
        });
        other.join().expect("it doesn't panic");
        resting.join().expect("it doesn't panic");
        assert!(*socket.pipe.lock().expect("nobody panics") > 0, "the ring holds something and the pipe says nothing");
        assert_eq!(drained(&heap, &socket, Vec::new()), [1, 2]);
        assert_eq!(*socket.pipe.lock().expect("nobody panics"), 0, "the ring is empty and the pipe says something");
    });
}

#[test]
fn a_ring_whose_doorbell_moves_to_the_pipe_has_one() {
    check(|| {
        let (heap, socket) = (on_the_ring(4), Arc::new(Socket::default()));
        assert_eq!(reader(&heap).watch(), Ok(true));
        let (theirs, wire) = (heap.clone(), socket.clone());
        let other = thread::spawn(move || (1..=2).for_each(|byte| write(writer(&theirs), &wire, byte)));
        let (ours, wire) = (heap.clone(), socket.clone());
        let moving = thread::spawn(move || {
            let mut got = Vec::new();
            read(reader(&ours), &wire, &mut got);
            reader(&ours).watch_piped(false).expect("both keep to the protocol");
            got
        });
        other.join().expect("it doesn't panic");
        let got = moving.join().expect("it doesn't panic");
        let in_socket = !socket.queue.lock().expect("nobody panics").is_empty();
        let in_pipe = *socket.pipe.lock().expect("nobody panics") > 0;
        assert!(in_socket || in_pipe || reader(&heap).available() == Ok(0), "nothing tells of the ring");
        assert_eq!(drained(&heap, &socket, got), [1, 2]);
    });
}

#[test]
fn a_switch_meets_no_receive() {
    check(|| {
        let (heap, socket) = (engaged(4), Arc::new(Socket::default()));
        let got = race(&heap, &socket, 2, true, |writer, wire| (1..=2).for_each(|byte| write(writer, wire, byte)));
        assert_eq!(drained(&heap, &socket, got), [1, 2]);
    });
}

#[test]
fn bytes_keep_their_order_there_and_back() {
    for watched in [true, false] {
        check(move || {
            let (heap, socket) = (on_the_ring(4), Arc::new(Socket::default()));
            let got = race(&heap, &socket, 3, watched, |writer, wire| {
                write(writer, wire, 1);
                assert_eq!(writer.back_to_tcp(Plain::Full), 0);
                send(writer, wire, 2);
                write(writer, wire, 3);
            });
            assert_eq!(drained(&heap, &socket, got), [1, 2, 3]);
        });
    }
}

#[test]
fn the_end_comes_after_the_last_byte() {
    check(|| {
        let heap = on_the_ring(2);
        let ended = Arc::new(AtomicBool::new(false));
        let (theirs, end) = (heap.clone(), ended.clone());
        let write = thread::spawn(move || {
            let put = writer(&theirs).put(&[1]).expect("room").wake.futex;
            end.store(true, Ordering::Release);
            writer(&theirs).finish().futex || put
        });
        let reader = reader(&heap);
        let mut asleep = false;
        if reader.step() == Ok(Step::Empty) {
            if ended.load(Ordering::Acquire) {
                assert_eq!(reader.step(), Ok(Step::Ring(1)), "the end was told before the last byte");
            } else {
                asleep = reader.doze().expect("both keep to the protocol").is_some();
            }
        }
        assert!(write.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
    });
}

#[test]
fn an_end_wakes_who_sleeps() {
    check(|| {
        let heap = on_the_ring(2);
        let theirs = heap.clone();
        let write = thread::spawn(move || writer(&theirs).finish().futex);
        let asleep = reader(&heap).doze().expect("both keep to the protocol").is_some();
        assert!(write.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
    });
}

#[test]
fn a_writer_that_waits_for_room_is_woken() {
    check(|| {
        let heap = on_the_ring(16);
        assert_eq!(writer(&heap).put(&[1; 16]).expect("room").taken, 16);
        let theirs = heap.clone();
        let read = thread::spawn(move || {
            let reader = reader(&theirs);
            let woken = reader.skip(1).expect("there are").wake_writer;
            reader.skip(1).expect("there are").wake_writer || woken
        });
        let asleep = writer(&heap).wait_for_room().expect("both keep to the protocol").is_some();
        assert!(read.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
    });
}

#[test]
fn a_writer_that_fills_what_was_taken_is_woken_at_the_next_part() {
    check(|| {
        let heap = on_the_ring(16);
        assert_eq!(writer(&heap).put(&[1; 16]).expect("room").taken, 16);
        let theirs = heap.clone();
        let read = thread::spawn(move || {
            let reader = reader(&theirs);
            // Read, and not only skipped: the writer may write there again only afterwards.
            (0..2).fold(false, |woken, _| reader.take(&mut [0; 2]).expect("there are").wake_writer || woken)
        });
        let writer = writer(&heap);
        // If it fills the first part again, it sleeps for the second.
        assert!(writer.put(&[1; 2]).expect("both keep to the protocol").taken <= 2);
        let asleep = writer.wait_for_room().expect("both keep to the protocol").is_some();
        assert!(read.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
    });
}

#[test]
fn a_reader_that_leaves_wakes_the_writer() {
    check(|| {
        let heap = on_the_ring(2);
        assert_eq!(writer(&heap).put(&[1; 2]).expect("room").taken, 2);
        let theirs = heap.clone();
        let read = thread::spawn(move || reader(&theirs).leave());
        let asleep = writer(&heap).wait_for_room().expect("both keep to the protocol").is_some();
        assert!(read.join().expect("it doesn't panic") || !asleep, "asleep, and nobody wakes it");
    });
}

#[test]
fn a_demand_is_met_by_either_end() {
    check(|| {
        let heap = on_the_ring(2);
        let socket = Arc::new(Socket::default());
        let (theirs, wire) = (heap.clone(), socket.clone());
        let other = thread::spawn(move || {
            let writer = writer(&theirs);
            let locked = writer.lock().try_lock(Owner::new(1).expect("an id"), false).is_ok();
            if locked {
                write(writer, &wire, 1);
                assert!(!writer.lock().unlock(Taken::Owned));
            }
            locked
        });
        let reader = reader(&heap);
        assert!(!reader.demand(Plain::Drawn), "no writer sleeps");
        let peer = writer(&heap);
        let locked = peer.lock().try_lock(Owner::new(2).expect("an id"), false).is_ok();
        if locked {
            assert_eq!(peer.back_to_tcp(Plain::Drawn), 0);
            assert!(!peer.lock().unlock(Taken::Owned));
        }
        let settled = locked && reader.is_plain() == Ok(true);
        let wrote = other.join().expect("it doesn't panic");
        assert!(!settled || reader.available() == Ok(0), "it was TCP for good, and bytes came by the ring");
        let got = drained(&heap, &socket, Vec::new());
        assert_eq!(got, if wrote { vec![1] } else { vec![] });
    });
}

#[test]
fn who_looks_without_the_lock_sees_nothing_impossible() {
    check(|| {
        let heap = on_the_ring(2);
        assert_eq!(writer(&heap).put(&[1, 2]).expect("room").taken, 2);
        let (theirs, ours) = (heap.clone(), heap.clone());
        let read = thread::spawn(move || reader(&theirs).skip(1).expect("there are").count);
        let write = thread::spawn(move || writer(&ours).put(&[3]).expect("both keep to the protocol").taken);
        assert!(reader(&heap).available().expect("not impossible") <= 2);
        assert!(writer(&heap).unread().expect("not impossible") <= 2);
        assert_eq!(reader(&heap).enter_tcp(), Ok(false));
        read.join().expect("it doesn't panic");
        write.join().expect("it doesn't panic");
    });
}

#[test]
fn a_receive_without_the_lock_meets_no_doorbell() {
    check(|| {
        let (heap, socket) = (engaged(2), Arc::new(Socket::default()));
        let (theirs, wire) = (heap.clone(), socket.clone());
        let inside = thread::spawn(move || {
            let reader = reader(&theirs);
            let entered = reader.enter_tcp().expect("both keep to the protocol");
            let bytes = if entered { wire.recv(4) } else { Vec::new() };
            if entered {
                reader.leave_tcp(bytes.len() as u64);
            }
            bytes
        });
        assert_eq!(reader(&heap).watch(), Ok(true));
        write(writer(&heap), &socket, 1);
        let got = inside.join().expect("it doesn't panic");
        assert_eq!(drained(&heap, &socket, got), [1]);
    });
}
