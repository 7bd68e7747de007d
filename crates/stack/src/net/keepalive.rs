//! Keepalive: a silent peer is asked whether it's there (RFC 1122, 4.2.3.6), as on Linux after one time at first and then more often.
//! smoltcp has one interval for both, and a connection at rest no socket to ask with; so the questions are made here.

use std::time::Duration;

use midmile_engine::{Key, LegOptions, Probing, Time};

use super::Net;
use super::flow::{Flow, Phase, millis};
use crate::link::{LinkAddress, Transmit};

/// Questions without an answer that end a connection whose leg says no more than when they begin, as on the kernel.
const QUESTIONS: u32 = 3;
/// The kernel's times are whole seconds.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// When a silent peer is asked, and how often it was. Unless anything is said, never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keepalive {
    /// Milliseconds without a sign of it before the first question, and those between two.
    after_ms: u32,
    every_ms: u32,
    /// Questions without an answer that end the connection; none is asked if it's 0.
    count: u8,
    /// Those that have left since the last sign of it, and when the last one did.
    asked: u8,
    asked_at: Time,
}

impl Keepalive {
    /// What a leg's options say: first after its idle time, and then three times as often.
    pub(crate) fn of(options: &LegOptions) -> Self {
        let probing = |idle| Probing { after: idle, every: idle / QUESTIONS, count: QUESTIONS };
        Self::probing(options.keepalive.map(probing).as_ref())
    }

    /// As it's asked for; `None` switches it off.
    pub(crate) fn probing(probing: Option<&Probing>) -> Self {
        let Some(probing) = probing else { return Self::default() };
        Self {
            after_ms: millis(probing.after.max(EVERY_MIN)),
            every_ms: millis(probing.every.max(EVERY_MIN)),
            count: u8::try_from(probing.count).unwrap_or(u8::MAX).max(1),
            ..Self::default()
        }
    }
}

impl Flow {
    /// Something came that could be its peer's, who is to be reached at `link`.
    pub(super) fn note_heard(&mut self, now: Time, link: LinkAddress) {
        (self.heard, self.keepalive.asked, self.link) = (now, 0, link);
    }

    /// When its peer is to be asked, if nothing comes from it before; nobody is asked who has something to acknowledge.
    pub(super) fn asks_at(&self) -> Option<Time> {
        let asks = matches!(self.phase, Phase::Queued(_) | Phase::Held) && self.owed_since.is_none() && !self.over;
        let Keepalive { after_ms, every_ms, count, asked, asked_at } = self.keepalive;
        let next = || if asked == 0 { after(self.heard, after_ms) } else { after(asked_at, every_ms) };
        (asks && asked < count).then(next)
    }

    /// When there has been no answer to the last question for as long as one may take.
    pub(super) fn unanswered_at(&self) -> Option<Time> {
        let Keepalive { every_ms, count, asked, asked_at, .. } = self.keepalive;
        (count > 0 && asked >= count).then(|| after(asked_at, every_ms))
    }
}

impl Net {
    /// Asks the peer of a connection whether it's there, if it's time: by a number that it has had already, which it answers.
    pub(super) fn ask_if_due<T: Transmit>(&mut self, key: Key, tx: &mut T) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(key) else { return };
        if flow.asks_at().is_none_or(|at| at > now) {
            return;
        }
        flow.keepalive.asked += 1;
        flow.keepalive.asked_at = now;
        self.acknowledge_again(key, 1, tx);
    }
}

fn after(time: Time, ms: u32) -> Time {
    time.after(Duration::from_millis(ms.into()))
}
