//! Sleeping in a call of the program's until the peer has done something.
//!
//! First it looks for as long as the operator allows; then it sleeps by the futex, which the peer wakes cheaply; after 10 ms it sleeps
//! in the kernel on the socket, which wakes for all that it would without us: signals, time limits, cancellation, the peer's death.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use midmile_friends::{Reader, Writer};

use crate::link::{Link, ROUSED};
use crate::lock::{self, Busy};
use crate::looks::Hope;
use crate::settings::{self, Spin};
use crate::sys::{AGAIN, Answer, Errno, INTERRUPTED, call, futex};
use crate::table;

/// How long to sleep by the futex.
const DOZE: Duration = Duration::from_millis(10);
/// How long to sleep for room in the ring. A reader at work takes an eighth of it sooner; one that's busy elsewhere would have the
/// program wait where TCP has room.
const DOZE_FOR_ROOM: Duration = Duration::from_micros(200);
/// Such sleeps in one call at the end of which the reader had taken something, but less than an eighth.
const SLOW_DOZES: u32 = 4;

/// Bytes by TCP after which a sender that may wait does so for its reader, that the ring can be had again: at first, and at most. Twice as many
/// each time that it was in vain.
const CATCH_UP_MIN: u64 = 4 << 20;
const CATCH_UP_MAX: u64 = 1 << 30;
/// Naps of such a wait. What TCP's buffers hold is read in less time altogether.
const CATCH_UP_NAP: Duration = Duration::from_micros(50);
const CATCH_UP_NAPS: u32 = 60;
/// When a sender waits for its reader to catch up. While bytes go by TCP faster than they are read, the ring is never had.
pub(crate) struct CatchUp {
    hope: Hope,
    /// Bytes sent by TCP when it last waited, and after how many more it waits again.
    waited_at: AtomicU64,
    after: AtomicU64,
}

impl CatchUp {
    pub(crate) const fn new() -> Self {
        let (waited_at, after) = (AtomicU64::new(0), AtomicU64::new(CATCH_UP_MIN));
        Self { hope: Hope::new(), waited_at, after }
    }

    /// Before a send that may wait, of a direction that is with TCP and needn't be.
    ///
    /// # Errors
    /// Interrupted.
    pub(crate) fn wait(&self, writer: &Writer<'_>) -> Result<(), Errno> {
        let caught_up = || writer.is_caught_up();
        let (sent, after) = (writer.sent_by_tcp(), self.after.load(Ordering::Relaxed));
        if self.hope.give_way(caught_up) || sent.wrapping_sub(self.waited_at.load(Ordering::Relaxed)) < after {
            return Ok(());
        }
        let (nap, mut naps) = (AtomicU32::new(0), 0);
        while naps < CATCH_UP_NAPS && futex::are_restarted() && !caught_up() {
            naps += 1;
            if futex::sleep_as_called(&nap, 0, CATCH_UP_NAP) == futex::Woken::Interrupted {
                return Err(INTERRUPTED);
            }
        }
        self.waited_at.store(sent, Ordering::Relaxed);
        let next = if naps < CATCH_UP_NAPS { CATCH_UP_MIN } else { (after * 2).min(CATCH_UP_MAX) };
        self.after.store(next, Ordering::Relaxed);
        Ok(())
    }
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There may be something.
    Look,
    /// The time is over: a receive's own limit, or that for room in the ring.
    Late,
}

/// The sleeps of one call.
pub(crate) struct Sleep {
    /// The call's own limit.
    limit: Option<Duration>,
    /// When the first sleep began, in nanoseconds; 0: there was none.
    began: u64,
    spun: bool,
    dozed: bool,
    /// Sleeps for room during which the reader took little.
    slow: u32,
}

/// What a call is told whose thread was interrupted inside this very connection, by the signal whose handler calls.
pub(crate) fn reentered(blocking: bool) -> Answer {
    Err(if blocking { INTERRUPTED } else { AGAIN })
}

impl Sleep {
    pub(crate) fn begin(link: &Link) -> Self {
        Self { limit: link.limit(), began: 0, spun: false, dozed: !futex::are_restarted() || link.is(ROUSED), slow: 0 }
    }

    /// Whether the next sleep is by the futex.
    pub(crate) fn may_doze(&self) -> bool {
        !self.dozed
    }

    /// What remains of the limit; `None`: no limit.
    fn rest(&mut self) -> Option<Duration> {
        let limit = self.limit?;
        let now = call::now();
        if self.began == 0 {
            self.began = now;
        }
        Some(limit.saturating_sub(Duration::from_nanos(now - self.began)))
    }

    /// Whether the call's own limit is over.
    pub(crate) fn is_over(&mut self) -> bool {
        self.rest().is_some_and(|rest| rest.is_zero())
    }

    /// Sleeps until there may be something to receive.
    ///
    /// # Errors
    /// What the kernel says instead: interrupted, or the connection's error.
    pub(crate) fn until_something(&mut self, fd: i32, link: &Link, reader: &Reader<'_>) -> Result<Woken, Errno> {
        let rest = self.rest();
        if rest.is_some_and(|rest| rest.is_zero()) {
            return Ok(Woken::Late);
        }
        if !self.spun {
            self.spun = true;
            let (there_is, beside) = (|| reader.available() != Ok(0), link.is_beside_peer());
            if !beside && settings::spin() != Spin::For(0) {
                link.gathering.rest(|| reader.available().unwrap_or(0));
            }
            if link.receiving.is_wanted() && link.receiving.look(u64::MAX, beside, there_is) {
                return Ok(Woken::Look);
            }
        }
        if !self.dozed {
            if let Some(woken) = self.doze(link, reader, rest)? {
                call::cancel();
                return Ok(woken);
            }
            self.dozed = true;
        }
        if !table::still(fd, link) {
            return Ok(Woken::Look);
        }
        link.mark(ROUSED, false);
        let rest = self.rest();
        self.by_bell(fd, reader, rest)
    }

    /// Sleeps by the futex; `None` where the kernel has to be asked.
    fn doze(&mut self, link: &Link, reader: &Reader<'_>, rest: Option<Duration>) -> Result<Option<Woken>, Errno> {
        let doze = match lock::of_reader(reader) {
            Ok(_held) => reader.doze(),
            Err(Busy::Own | Busy::Broken(_)) => return Ok(Some(Woken::Look)),
        };
        let Ok(Some(doze)) = doze else {
            // Bytes may have come; else the writer has ended, or bytes come by TCP.
            return Ok((reader.available() != Ok(0)).then_some(Woken::Look));
        };
        let woken = match rest {
            None => futex::sleep_as_called(doze.word, doze.expected, DOZE),
            Some(rest) => futex::sleep(doze.word, doze.expected, rest.min(DOZE)),
        };
        match woken {
            futex::Woken::Up => Ok(Some(Woken::Look)),
            futex::Woken::Late => Ok(None),
            futex::Woken::Interrupted => {
                // The kernel hasn't been asked. Were each call interrupted before it is, the program would never hear of an end that nobody told of here.
                link.mark(ROUSED, true);
                Err(INTERRUPTED)
            }
        }
    }

    /// Sleeps in the kernel.
    fn by_bell(&mut self, fd: i32, reader: &Reader<'_>, rest: Option<Duration>) -> Result<Woken, Errno> {
        let quiet = match lock::of_reader(reader) {
            Ok(_held) => reader.sleep_by_bell(),
            Err(Busy::Own | Busy::Broken(_)) => return Ok(Woken::Look),
        };
        if quiet != Ok(true) {
            return Ok(Woken::Look);
        }
        let answer = match rest {
            None => match call::wait_sleeping(fd) {
                // That the socket doesn't wait was said after the program's call had begun.
                Err(AGAIN) => call::wait_for(fd, libc::POLLIN, -1).map(|_| Woken::Look),
                answer => answer.map(|_| Woken::Look),
            },
            Some(rest) => {
                let milliseconds = i32::try_from(rest.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
                call::wait_for(fd, libc::POLLIN, milliseconds)
                    .map(|events| if events == 0 { Woken::Late } else { Woken::Look })
            }
        };
        reader.woke();
        answer
    }

    /// Sleeps until there's room in the ring. Late: the reader doesn't read, or is slow, and the bytes had better go by TCP.
    ///
    /// # Errors
    /// Interrupted.
    pub(crate) fn until_room(&mut self, link: &Link, writer: &Writer<'_>, full: usize) -> Result<Woken, Errno> {
        let is_drained = || writer.unread().is_ok_and(|unread| unread < full / 2);
        let beside = link.is_beside_peer();
        if link.sending.is_wanted() && link.sending.look(u64::MAX, beside, is_drained) {
            return Ok(Woken::Look);
        }
        if !futex::are_restarted() {
            return Ok(Woken::Late);
        }
        let doze = match lock::of_writer(writer) {
            Ok(_held) => writer.wait_for_room(),
            Err(Busy::Own | Busy::Broken(_)) => return Ok(Woken::Late),
        };
        let Ok(Some(doze)) = doze else { return Ok(Woken::Look) };
        match futex::sleep_as_called(doze.word, doze.expected, DOZE_FOR_ROOM) {
            futex::Woken::Up => Ok(Woken::Look),
            futex::Woken::Late => {
                self.slow += 1;
                let reads = writer.unread().is_ok_and(|unread| unread < full);
                Ok(if reads && self.slow <= SLOW_DOZES { Woken::Look } else { Woken::Late })
            }
            futex::Woken::Interrupted => Err(INTERRUPTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use midmile_friends::{Segment, Side, Way, segment_bytes};

    use super::*;
    use crate::sys::map::Mapping;
    use crate::sys::threads;

    /// Sleeps, each beside a piece that is put at about the same time.
    const SLEEPS: u32 = 3_000;
    const CAPACITY: usize = 4096;
    /// Pieces that make a writer calm, and one that has just woken its reader too.
    const PIECES: usize = (1 << 12) + 100;
    /// Bytes of the piece that is put then: the lines were read by the other CPU, so they take a while to be in the cache.
    const LAST: usize = 100;

    fn until(word: &AtomicU32, value: u32) {
        for look in 0.. {
            if word.load(Ordering::Acquire) == value {
                return;
            }
            if look < 10_000 { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }

    /// Puts all of them, as there's room; whether the reader was to be woken.
    fn put(writer: &Writer<'_>, mut bytes: &[u8]) -> bool {
        let mut wakes = false;
        while !bytes.is_empty() {
            let put = writer.put(bytes).expect("nobody scribbles");
            (wakes, bytes) = (wakes || put.wake.futex, &bytes[put.taken..]);
            (put.taken == 0).then(thread::yield_now);
        }
        wakes
    }

    /// Takes bytes of the ring, `left` at most.
    fn take(reader: &Reader<'_>, left: usize) -> usize {
        let mut into = [0; LAST];
        reader.take(&mut into[..left.min(LAST)]).expect("nobody scribbles").count
    }

    /// Both come to the same turn, put and fall asleep; answers how often the reader was asleep and the writer's to wake.
    fn put_and_sleep(segment: &Segment<'_>) -> usize {
        let (written, slept) = (AtomicU32::new(0), AtomicU32::new(0));
        let woken = thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let writer = segment.outgoing(Side::Offering);
                let woken = (1..=SLEEPS).map(|turn| {
                    for _ in 0..PIECES {
                        put(&writer, b"x");
                    }
                    written.store(turn, Ordering::Release);
                    // Mostly at the same time as the wish; now and then after the sleep has begun.
                    for step in 0..if turn % 8 > 0 { turn % 64 } else { 10_000 } {
                        std::hint::black_box(step);
                    }
                    let woken = put(&writer, &[b'y'; LAST]);
                    until(&slept, turn);
                    woken
                });
                woken.collect::<Vec<_>>()
            });
            let reader = segment.incoming(Side::Attached);
            let asleep = (1..=SLEEPS).map(|turn| {
                let mut left = PIECES + LAST;
                while left > LAST {
                    left -= take(&reader, left);
                }
                until(&written, turn);
                let asleep = reader.doze().expect("nobody scribbles").is_some();
                slept.store(turn, Ordering::Release);
                while left > 0 {
                    left -= take(&reader, left);
                }
                asleep
            });
            let asleep: Vec<_> = asleep.collect();
            writing.join().expect("it doesn't panic").into_iter().zip(asleep).collect::<Vec<_>>()
        });
        let lost = woken.iter().filter(|(woken, asleep)| *asleep && !*woken).count();
        assert_eq!(lost, 0, "of {SLEEPS} asleep, and nobody wakes them");
        woken.iter().filter(|(woken, asleep)| *woken && *asleep).count()
    }

    #[test]
    fn who_falls_asleep_is_seen_by_a_calm_writer_on_another_cpu() {
        assert!(threads::are_reached(), "Linux 4.16");
        let memory = Mapping::room(segment_bytes(CAPACITY).unwrap()).unwrap();
        memory.create(CAPACITY, [1, 2]).unwrap();
        let segment = memory.segment([1, 2]).unwrap();
        [Side::Offering, Side::Attached].into_iter().for_each(|side| segment.may_recall(side));
        segment.outgoing(Side::Offering).begin(0);
        segment.incoming(Side::Attached).engage(0);
        assert_eq!(segment.outgoing(Side::Offering).way(), Ok(Way::Ring));
        assert!(put_and_sleep(&segment) > 0, "nobody slept");
        memory.end();
    }
}
