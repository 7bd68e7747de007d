//! Remotes that stop answering, and how long the program's kernel waits for an answer.

use std::time::Duration;

use super::remote::RemoteId;
use super::world::{Event, SYN_WAIT, Sim};
use crate::error::ConnError;
use crate::options::{LegOptions, Probing};
use crate::time::Time;

/// Probes that keepalive sends, as the kernel's backends have it.
const PROBES: u32 = 3;

/// How long a connection lives without an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Liveness {
    /// `TCP_USER_TIMEOUT`.
    patience: Option<Duration>,
    probing: Option<Probing>,
}

impl Liveness {
    pub(super) fn of(options: &LegOptions) -> Self {
        let probing = |idle| Probing { after: idle, every: (idle / PROBES).max(Duration::from_secs(1)), count: PROBES };
        Self { patience: options.user_timeout, probing: options.keepalive.map(probing) }
    }
}

impl Sim {
    /// The remote answers nothing from now on, and nobody is told: what is sent to it is never taken. Only what the program has set for
    /// its leg finds that out (`user_timeout`, keepalive).
    pub fn hand_vanish(&mut self, id: RemoteId) {
        let remote = &mut self.remotes[id.0];
        (remote.vanished, remote.unanswered) = (Some(self.now), self.now);
        self.await_answer(id);
    }

    pub(super) fn set_liveness(&mut self, id: RemoteId, liveness: Liveness) {
        self.remotes[id.0].liveness = liveness;
        self.await_answer(id);
    }

    pub(super) fn set_probes(&mut self, id: RemoteId, probing: Option<Probing>) {
        self.remotes[id.0].liveness.probing = probing;
        self.await_answer(id);
    }

    /// The program's socket has taken so many bytes, which are in its queue.
    pub(super) fn note_sent(&mut self, id: RemoteId, count: usize) {
        let remote = &mut self.remotes[id.0];
        (remote.handed_over, remote.sent_at) = (remote.handed_over + count as u64, self.now);
        if count == 0 {
            return;
        }
        remote.held = 0;
        if remote.outbound.len() == count {
            remote.unanswered = self.now;
            self.await_answer(id);
        }
    }

    /// Notes when the remote's silence is too long.
    pub(super) fn await_answer(&mut self, id: RemoteId) {
        if let Some(at) = self.gives_up_at(id) {
            self.schedule(at.since(self.now), Event::Expire { remote: id.0 });
        }
    }

    /// The remote's silence may be too long by now. It was looked at again for all that has been set or sent since, so others follow.
    pub(super) fn expire(&mut self, id: RemoteId) {
        if self.gives_up_at(id).is_none_or(|at| at > self.now) {
            return;
        }
        let remote = &mut self.remotes[id.0];
        (remote.dead, remote.error) = (true, Some(ConnError::TimedOut));
        remote.outbound.clear();
        self.tell(id);
    }

    /// When the program's kernel gives up on one that has vanished. Probes ask only where nothing else waits for an answer.
    fn gives_up_at(&self, id: RemoteId) -> Option<Time> {
        let remote = &self.remotes[id.0];
        let since = remote.vanished.filter(|_| !remote.dead && remote.open.get())?;
        if !remote.connected {
            // The kernel looks first when the SYN is to be sent again.
            return remote.liveness.patience.map(|patience| since.after(patience.max(SYN_WAIT)));
        }
        if remote.outbound.is_empty() {
            return remote.liveness.probing.map(|Probing { after, every, count }| since.after(after + every * count));
        }
        remote.liveness.patience.map(|patience| remote.unanswered.after(patience))
    }
}
