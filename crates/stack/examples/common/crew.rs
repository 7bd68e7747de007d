//! Cores that run the same program: they're ready together, and they end together.

use std::sync::{Mutex, MutexGuard, PoisonError};

use midmile_engine::Waker;

#[derive(Debug)]
pub(crate) struct Crew {
    cores: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the cores that can be reached.
    wakers: Vec<Waker>,
    ended: bool,
}

/// Ends the crew when it's dropped.
pub(crate) struct End<'a>(&'a Crew);

impl Default for Crew {
    fn default() -> Self {
        Self::of(1)
    }
}

impl Crew {
    pub(crate) fn of(cores: usize) -> Self {
        Self { cores, state: Mutex::default() }
    }

    /// Another core can be reached, and ends when `waker` wakes it; says whether it's the last of them.
    pub(crate) fn join(&self, waker: Waker) -> bool {
        let mut state = self.state();
        if state.ended {
            waker.wake();
        }
        state.wakers.push(waker);
        state.wakers.len() == self.cores
    }

    /// Wakes all cores, and those that join later.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.wakers.iter().for_each(Waker::wake);
    }

    pub(crate) const fn ended_by(&self) -> End<'_> {
        End(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
