//! How many connections of a pool should wait ready: as many as came in the busiest time of late while one was made, and half as many
//! again.
//!
//! A mean doesn't do: whoever comes in a burst finds what the mean left. So takes are counted by short ticks, and the most that came
//! within the time that it takes to make a connection is kept, and forgotten slowly. That time is measured, from the dial to ready,
//! under the load that there is; a pause of the scheduler's is added to it.

use std::time::Duration;

/// How often the rate is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Ticks that are remembered: connections that take longer than that to make aren't made for a rate.
const TICKS: usize = 32;
/// For which nobody may get to run: this gateway, the other, or what is between them.
const PAUSE: Duration = Duration::from_millis(50);
/// Of 1, what the most that came loses in a tick: it is halved in four seconds.
const FORGOTTEN_SHARE: u32 = 64;
/// Likewise, how long one takes to make: halved in a second.
const MAKING_SHARE: u32 = 16;
/// Handshakes that may be under way though nobody comes.
const UNDER_WAY_MIN: u32 = 64;
/// Of 1, what a pool that holds more than it needs gives up in a tick.
const SURPLUS_SHARE: u32 = 64;

/// The rate at which a pool is drawn on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    /// Taken since the last tick.
    taken: u32,
    /// Taken in each of the last ticks, the newest at `newest`.
    ticks: [u32; TICKS],
    newest: usize,
    /// The most that came of late while one was made.
    most: u32,
    /// Those that became ready since the last tick, and how long they took together.
    made: u32,
    together: Duration,
    /// How long one took to make in the worst tick of late.
    making: Duration,
}

impl Demand {
    /// One was asked for.
    pub(crate) const fn note(&mut self) {
        self.taken = self.taken.saturating_add(1);
    }

    /// One has proved itself, `took` after its dial. Warming comes on top where there is any, and nobody who waits waits for it.
    pub(crate) fn made(&mut self, took: Duration) {
        self.made = self.made.saturating_add(1);
        self.together = self.together.saturating_add(took);
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self) {
        self.newest = (self.newest + 1) % TICKS;
        self.ticks[self.newest] = std::mem::take(&mut self.taken);
        // The mean within the tick: one that lost its SYN says nothing of the others.
        let mean = self.together.checked_div(std::mem::take(&mut self.made)).unwrap_or_default();
        self.together = Duration::ZERO;
        self.making = mean.max(self.making - self.making / MAKING_SHARE);
        let fades = self.most - (self.most / FORGOTTEN_SHARE).max(1).min(self.most);
        self.most = self.come(self.span()).max(fades);
    }

    /// Nobody has come for a while.
    pub(crate) const fn is_over(&self) -> bool {
        self.taken == 0 && self.most == 0
    }

    /// Ticks in which whoever comes is served from what is ready, before one more can be.
    fn span(&self) -> usize {
        let ticks = (self.making + PAUSE).as_micros().div_ceil(TICK.as_micros());
        usize::try_from(ticks).unwrap_or(TICKS).clamp(1, TICKS)
    }

    /// Taken within the last `ticks`, of which the newest is the last whole one.
    fn come(&self, ticks: usize) -> u32 {
        let back = (0..ticks).map(|back| self.ticks[(self.newest + TICKS - back) % TICKS]);
        back.fold(0, u32::saturating_add)
    }

    /// The most that have to be served while one is made. A burst counts at once, not only from the next tick on.
    fn needed(&self) -> u32 {
        self.most.max(self.come(self.span() - 1).saturating_add(self.taken))
    }

    /// Connections that should wait ready: between `min` and `max`.
    pub(crate) fn wanted(&self, min: u32, max: u32) -> u32 {
        let needed = self.needed();
        needed.saturating_add(needed / 2).clamp(min.min(max), max)
    }

    /// Handshakes that may be under way at once: as many as come while one is made, or fewer would become ready than are taken
    /// (Little's law), and a quarter and some to grow by. No more: they would crowd out what flows, and as each then takes longer, ask for more still.
    pub(crate) fn under_way_max(&self) -> u32 {
        let (span, making) = (TICK.as_micros() * self.span() as u128, self.making.as_micros());
        let come = u128::from(self.needed()) * making.min(span) / span;
        u32::try_from(come + come / 4).unwrap_or(u32::MAX).saturating_add(UNDER_WAY_MIN)
    }

    /// Of those that wait ready, how many should go at this tick where `wanted` are enough.
    pub(crate) const fn surplus(ready: u32, wanted: u32) -> u32 {
        ready.saturating_sub(wanted).div_ceil(SURPLUS_SHARE)
    }
}

#[cfg(test)]
mod tests;
