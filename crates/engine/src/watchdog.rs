//! Handlers that don't return: a core that waits for one serves nobody, and can't say so itself.
//!
//! A core writes down which upcall it's in, by plain stores to a cache line of its own ([`Pulse`]). A thread looks at all of them now and
//! then, and tells of an upcall that it has seen for too long ([`Stall`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::handler::ConnId;
use crate::slab::Key;
use crate::upcall::Upcall;

/// What a core is doing. Clones show the same core.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Beat>);

/// On cache lines of its own (two, for processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Beat {
    /// The upcall's number since the start, above its kind in the lowest 8 bits; 0 between upcalls.
    upcall: AtomicU64,
    conn: AtomicU64,
}

impl Pulse {
    /// The core calls the program, for the `serial`th time. Only the core may call it.
    #[inline]
    pub(crate) fn enter(&self, serial: u64, upcall: Upcall, conn: ConnId) {
        self.0.conn.store(conn.to_bits(), Relaxed);
        // No instruction more than a relaxed store on x86; elsewhere the handle is there when the upcall is.
        self.0.upcall.store(serial << 8 | u64::from(upcall as u8), Release);
    }

    /// The program has returned. Only the core may call it.
    #[inline]
    pub(crate) fn leave(&self) {
        self.0.upcall.store(0, Relaxed);
    }

    fn look(&self) -> (u64, ConnId) {
        let upcall = self.0.upcall.load(Acquire);
        (upcall, Key::from_bits(self.0.conn.load(Relaxed)))
    }
}

/// An upcall that doesn't return, or didn't for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The core, by its place among those that the watchdog was given.
    pub core: u16,
    /// What was called.
    pub upcall: Upcall,
    /// What it was called about, if it was a connection.
    pub conn: Option<ConnId>,
    /// For how long it has been seen: up to half the limit less than it lasts.
    pub lasted: Duration,
    /// It has returned. Each stall is told when it's noticed, and again when it's over.
    pub over: bool,
}

/// A thread that watches cores. Dropping it ends it.
#[derive(Debug)]
pub struct Watchdog {
    over: Arc<AtomicBool>,
    stalls: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches `cores` and calls `tell`, on a thread of its own, about upcalls that don't return within `limit`. It looks twice within
    /// that; a machine that doesn't let the core's thread run looks the same to it, so choose a limit well above such pauses.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(cores: Vec<Pulse>, limit: Duration, mut tell: impl FnMut(Stall) + Send + 'static) -> io::Result<Self> {
        let (over, stalls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut watch = Watch::new(cores, limit);
        let (ends, counted) = (over.clone(), stalls.clone());
        let run = move || {
            let start = Instant::now();
            while !ends.load(Acquire) {
                watch.look(start.elapsed(), &mut |stall| {
                    counted.fetch_add(u64::from(!stall.over), Relaxed);
                    tell(stall);
                });
                std::thread::park_timeout(limit / 2);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(run)?;
        Ok(Self { over, stalls, thread: Some(thread) })
    }

    /// Stalls since the start, those under way among them.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Relaxed)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // What a panic of `tell` had to say has been said.
            thread.join().ok();
        }
    }
}

/// What was seen of a core.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    upcall: u64,
    since: Duration,
    told: Option<Stall>,
}

/// The watchdog without its clock and thread.
#[derive(Debug)]
struct Watch {
    cores: Vec<(Pulse, Seen)>,
    limit: Duration,
}

impl Watch {
    fn new(cores: Vec<Pulse>, limit: Duration) -> Self {
        Self { cores: cores.into_iter().map(|core| (core, Seen::default())).collect(), limit }
    }

    fn look(&mut self, now: Duration, tell: &mut impl FnMut(Stall)) {
        for (core, (pulse, seen)) in (0..).zip(&mut self.cores) {
            let (upcall, conn) = pulse.look();
            let lasted = now.saturating_sub(seen.since);
            if upcall != seen.upcall {
                if let Some(stall) = seen.told {
                    tell(Stall { lasted, over: true, ..stall });
                }
                *seen = Seen { upcall, since: now, told: None };
            } else if upcall != 0
                && seen.told.is_none()
                && lasted >= self.limit
                && let Some(upcall) = Upcall::ALL.get((upcall & 0xFF) as usize).copied()
            {
                let conn = Some(conn).filter(|conn| *conn != Key::NONE);
                let stall = Stall { core, upcall, conn, lasted, over: false };
                seen.told = Some(stall);
                tell(stall);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    /// What a look says that comes so many milliseconds after the start.
    fn look(watch: &mut Watch, ms: u64) -> Vec<Stall> {
        let mut told = Vec::new();
        watch.look(Duration::from_millis(ms), &mut |stall| told.push(stall));
        told
    }

    #[test]
    fn an_upcall_is_told_once_it_has_lasted_and_again_when_it_is_over() {
        let pulse = Pulse::default();
        let conn = Key::from_bits(7 << 32 | 3);
        let mut watch = Watch::new(vec![Pulse::default(), pulse.clone()], LIMIT);
        assert_eq!(look(&mut watch, 0), []);
        pulse.enter(1, Upcall::Message, conn);
        for ms in [500, 1000, 1499] {
            assert_eq!(look(&mut watch, ms), []);
        }
        let stall = Stall { core: 1, upcall: Upcall::Message, conn: Some(conn), lasted: LIMIT, over: false };
        assert_eq!(look(&mut watch, 1500), [stall]);
        assert_eq!(look(&mut watch, 9000), []);
        pulse.leave();
        assert_eq!(look(&mut watch, 9500), [Stall { lasted: Duration::from_secs(9), over: true, ..stall }]);
        assert_eq!(look(&mut watch, 20_000), []);
    }

    #[test]
    fn many_short_upcalls_are_no_long_one_and_sleep_is_none() {
        let pulse = Pulse::default();
        let mut watch = Watch::new(vec![pulse.clone()], LIMIT);
        for serial in 1..100 {
            // The same upcall about the same connection each time that it's looked.
            pulse.enter(serial, Upcall::Data, Key::NONE);
            assert_eq!(look(&mut watch, 500 * serial), []);
        }
        pulse.leave();
        assert_eq!(look(&mut watch, 100_000), []);
        assert_eq!(look(&mut watch, 200_000), []);
    }

    #[test]
    fn each_upcall_is_found_by_its_number() {
        for (index, upcall) in Upcall::ALL.iter().enumerate() {
            assert_eq!((*upcall as u8 as usize, upcall.name().is_empty()), (index, false));
        }
    }
}
