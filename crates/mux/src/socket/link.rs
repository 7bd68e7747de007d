//! A connection, as the loop sees it.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use midmile_engine::{ConnId, Key, Time};
use midmile_wire::frame::Seen;

use super::queues::{Parcel, Released};
use super::{Ended, Settings};

/// How far the message has come that comes by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assembly {
    /// None has begun.
    None,
    /// One has, in this turn.
    Begun,
    /// One has, at this time.
    Since(Time),
}

/// A connection.
///
/// ```text
///  free (in the pump's queue of those) ──► reserved: `owed` is some ──► free
///       └──────────────┬─────────────────────────┘
///                      ▼
///           leaving, or finished: nothing new is sent; gone once nothing is owed
/// ```
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) seen: Seen,
    pub(super) assembly: Assembly,
    /// What the framer found, for which it ends.
    pub(super) fault: Option<Ended>,
    /// A message of which so many bytes are out: it's reserved for that, since then.
    pub(super) owed: Option<(Parcel, usize)>,
    pub(super) owed_since: Time,
    /// Messages for this connection alone.
    pub(super) queue: VecDeque<Parcel>,
    /// It stands among the free ones; checked when it's taken from there.
    pub(super) listed: bool,
    /// Who awaits it back.
    pub(super) leaving: Option<SyncSender<io::Result<Released>>>,
    /// Its peer has finished sending.
    pub(super) finished: Option<Ended>,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            conn: Key::NONE,
            seen: Seen::default(),
            assembly: Assembly::None,
            fault: None,
            owed: None,
            owed_since: Time::ZERO,
            queue: VecDeque::new(),
            listed: false,
            leaving: None,
            finished: None,
        }
    }

    /// When what it does has taken too long, and how it ends then. A message whose bytes aren't read for now has its whole time yet.
    pub(super) fn due(&self, settings: &Settings, reads: bool, now: Time) -> Option<(Time, Ended)> {
        let within = |since: Time, most: Duration, why| (!most.is_zero()).then(|| (since.after(most), why));
        let comes = match self.assembly {
            Assembly::Since(since) => {
                within(if reads { since } else { now }, settings.message_timeout, Ended::TimedOut)
            }
            Assembly::None | Assembly::Begun => None,
        };
        let goes = self.owed.as_ref().and_then(|_| within(self.owed_since, settings.send_timeout, Ended::Untaken));
        comes.into_iter().chain(goes).min_by_key(|(at, _)| *at)
    }

    /// Whether another message may begin on it.
    pub(super) const fn is_free(&self) -> bool {
        self.owed.is_none() && self.leaving.is_none() && self.finished.is_none()
    }
}
