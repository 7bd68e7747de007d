//! A cable between two stacks in one thread, with a clock of its own: for tests and fuzzers.
//!
//! Nothing happens between calls. [`Cable::advance`] moves the clock to the next frame's arrival, or to when an end last said that it
//! would wake; so a run is the same each time, and takes no longer than its work.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use midmile_engine::{ConnError, Time, Waker};

use crate::link::{Figures, Hop, Link, LinkAddress, Receive, Transmit};

/// Frames that are on their way in one direction at most.
const FRAMES_MAX: usize = 256;

/// The cable: two directions and the clock.
#[derive(Clone, Debug)]
pub struct Cable {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    now: Time,
    delay: Duration,
    /// Frames on their way to each end, and when they arrive.
    ways: [VecDeque<(Time, Vec<u8>)>; 2],
    /// When each end wakes by itself.
    wakes: [Option<Time>; 2],
}

/// One end.
#[derive(Debug)]
pub struct CableEnd {
    rx: CableRx,
    tx: CableTx,
    figures: Figures,
    addresses: Vec<IpAddr>,
    peer: LinkAddress,
}

/// The half that receives.
#[derive(Debug)]
pub struct CableRx {
    cable: Cable,
    side: usize,
    frame: Vec<u8>,
}

/// The half that sends.
#[derive(Debug)]
pub struct CableTx {
    cable: Cable,
    side: usize,
}

impl Cable {
    /// A cable on which a frame takes `delay`.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        let state = State { now: Time::ZERO, delay, ways: Default::default(), wakes: [None; 2] };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Its ends, for stacks with these addresses. With `ethernet`, frames have headers.
    #[must_use]
    pub fn ends(&self, mtu: usize, ethernet: bool, addresses: [Vec<IpAddr>; 2]) -> [CableEnd; 2] {
        let [one, other] = addresses;
        [(0, one), (1, other)].map(|(side, addresses)| {
            let mac = |side: usize| [2, 0, 0, 0, 0, u8::from(side == 1)];
            CableEnd {
                rx: CableRx { cable: self.clone(), side, frame: Vec::new() },
                tx: CableTx { cable: self.clone(), side },
                figures: Figures { mtu, address: ethernet.then(|| mac(side)), verifies: true },
                addresses,
                peer: mac(1 - side),
            }
        })
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.state().now
    }

    /// Moves the clock to the next thing that happens. False if nothing ever will.
    #[must_use]
    pub fn advance(&self) -> bool {
        let mut state = self.state();
        let arrivals = state.ways.iter().filter_map(|way| way.front().map(|(at, _)| *at));
        let Some(next) = arrivals.chain(state.wakes.iter().copied().flatten()).min() else { return false };
        state.now = state.now.max(next);
        let now = state.now;
        for wake in &mut state.wakes {
            *wake = wake.filter(|at| *at > now);
        }
        true
    }

    /// Puts a frame on its way to the end at `side`, 0 or 1, as if the other had sent it.
    pub fn inject(&self, side: usize, frame: Vec<u8>) {
        let mut state = self.state();
        let at = state.now.after(state.delay);
        if state.ways[side].len() < FRAMES_MAX {
            state.ways[side].push_back((at, frame));
        }
    }

    /// Takes the next frame on its way to the end at `side` off the cable.
    #[must_use]
    pub fn intercept(&self, side: usize) -> Option<Vec<u8>> {
        self.state().ways[side].pop_front().map(|(_, frame)| frame)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receive for CableRx {
    fn next_frame(&mut self) -> Option<&[u8]> {
        let mut state = self.cable.state();
        let now = state.now;
        let way = &mut state.ways[self.side];
        if way.front().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, frame) = way.pop_front()?;
        drop(state);
        self.frame = frame;
        Some(&self.frame)
    }
}

impl Transmit for CableTx {
    fn has_room(&mut self) -> bool {
        self.cable.state().ways[1 - self.side].len() < FRAMES_MAX
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        // Whoever leaves a byte unwritten shows it.
        let mut frame = vec![0xA5; len];
        let answer = fill(&mut frame);
        self.cable.inject(1 - self.side, frame);
        answer
    }

    fn flush(&mut self) {}
}

impl Link for CableEnd {
    type Rx<'a> = &'a mut CableRx;
    type Tx<'a> = &'a mut CableTx;

    fn figures(&self) -> Figures {
        self.figures
    }

    fn now(&self) -> Time {
        self.rx.cable.now()
    }

    fn halves(&mut self) -> (&mut CableRx, &mut CableTx) {
        (&mut self.rx, &mut self.tx)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut state = self.rx.cable.state();
        state.wakes[self.rx.side] = timeout.map(|wait| state.now.after(wait));
        Ok(false)
    }

    fn watch_waker(&mut self, _: &Waker) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn next_hop(&mut self, to: IpAddr) -> Result<Hop, ConnError> {
        let source = self.addresses.iter().find(|address| address.is_ipv4() == to.is_ipv4());
        let source = source.copied().ok_or(ConnError::Unreachable)?;
        Ok(Hop { source, link: Some(self.peer) })
    }
}
