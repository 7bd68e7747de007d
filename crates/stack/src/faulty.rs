//! A link that loses, doubles, reorders and spoils frames, both ways, from a seed: for tests.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use midmile_engine::{ConnError, Time, Waker};

use crate::link::{Figures, Hop, Link, Receive, Transmit};
use crate::random::Random;

/// Frames that are held back in one direction at most.
const HELD_MAX: usize = 64;
/// How soon they are looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How often what happens to a frame, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// It's lost.
    pub lost: u32,
    /// It comes twice.
    pub doubled: u32,
    /// It comes later than others behind it.
    pub late: u32,
    /// One of its bits is another.
    pub spoilt: u32,
}

/// A link with faults.
#[derive(Debug)]
pub struct Faulty<D> {
    link: D,
    rx: Way,
    tx: Way,
}

/// The faults of one direction.
#[derive(Debug)]
struct Way {
    faults: Faults,
    random: Random,
    held: VecDeque<Vec<u8>>,
    frame: Vec<u8>,
}

/// The half that receives.
#[derive(Debug)]
pub struct FaultyRx<'a, R> {
    inner: R,
    way: &'a mut Way,
}

/// The half that sends.
#[derive(Debug)]
pub struct FaultyTx<'a, T> {
    inner: T,
    way: &'a mut Way,
}

impl<D> Faulty<D> {
    /// `link` with faults. The same seed makes the same ones.
    pub fn new(link: D, faults: Faults, seed: u64) -> Self {
        let way = |seed| Way { faults, random: Random::Seeded(seed), held: VecDeque::new(), frame: Vec::new() };
        Self { link, rx: way(seed), tx: way(!seed) }
    }
}

impl Way {
    fn happens(&mut self, thousandths: u32) -> bool {
        self.random.below(1000) < thousandths
    }

    /// What becomes of the frame in `self.frame`: whether it goes on now.
    fn passes(&mut self) -> bool {
        let faults = self.faults;
        if self.happens(faults.lost) {
            return false;
        }
        if self.happens(faults.spoilt) && !self.frame.is_empty() {
            let place = self.random.below(u32::try_from(self.frame.len()).unwrap_or(u32::MAX)) as usize;
            self.frame[place] ^= 1 << self.random.below(8);
        }
        let room = self.held.len() < HELD_MAX;
        if room && self.happens(faults.doubled) {
            self.held.push_back(self.frame.clone());
        }
        if room && self.happens(faults.late) {
            self.held.push_back(std::mem::take(&mut self.frame));
            return false;
        }
        true
    }

    /// One that was held back, if it's time.
    fn release(&mut self) -> Option<Vec<u8>> {
        if self.held.is_empty() || !self.happens(500) { None } else { self.held.pop_front() }
    }
}

impl<R: Receive> Receive for FaultyRx<'_, R> {
    fn next_frame(&mut self) -> Option<&[u8]> {
        loop {
            let Some(frame) = self.inner.next_frame() else {
                self.way.frame = self.way.release()?;
                return Some(&self.way.frame);
            };
            self.way.frame.clear();
            self.way.frame.extend_from_slice(frame);
            if self.way.passes() {
                return Some(&self.way.frame);
            }
        }
    }
}

impl<T: Transmit> Transmit for FaultyTx<'_, T> {
    fn has_room(&mut self) -> bool {
        self.inner.has_room()
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.way.frame.clear();
        self.way.frame.resize(len, 0xA5);
        let answer = fill(&mut self.way.frame);
        if self.way.passes() {
            let frame = &self.way.frame;
            self.inner.send(frame.len(), |to| to.copy_from_slice(frame));
        }
        answer
    }

    fn flush(&mut self) {
        while self.inner.has_room()
            && let Some(frame) = self.way.release()
        {
            self.inner.send(frame.len(), |to| to.copy_from_slice(&frame));
        }
        self.inner.flush();
    }
}

impl<D: Link> Link for Faulty<D> {
    type Rx<'a>
        = FaultyRx<'a, D::Rx<'a>>
    where
        Self: 'a;
    type Tx<'a>
        = FaultyTx<'a, D::Tx<'a>>
    where
        Self: 'a;

    fn figures(&self) -> Figures {
        self.link.figures()
    }

    fn now(&self) -> Time {
        self.link.now()
    }

    fn halves(&mut self) -> (Self::Rx<'_>, Self::Tx<'_>) {
        let (rx, tx) = self.link.halves();
        (FaultyRx { inner: rx, way: &mut self.rx }, FaultyTx { inner: tx, way: &mut self.tx })
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let held = !self.rx.held.is_empty() || !self.tx.held.is_empty();
        let look = held.then_some(LOOK_EVERY);
        self.link.wait([timeout, look].into_iter().flatten().min())
    }

    fn is_stalled(&mut self) -> bool {
        self.link.is_stalled()
    }

    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()> {
        self.link.watch_waker(waker)
    }

    fn next_hop(&mut self, to: IpAddr) -> Result<Hop, ConnError> {
        self.link.next_hop(to)
    }
}
