//! A connection, as the loop sees it.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::SyncSender;

use midmile_engine::{ConnId, Key, Time};
use midmile_wire::frame::Seen;

use super::Ended;
use super::queues::{Parcel, Released};

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
    /// A message of which so many bytes are out: it's reserved for that.
    pub(super) owed: Option<(Parcel, usize)>,
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
            queue: VecDeque::new(),
            listed: false,
            leaving: None,
            finished: None,
        }
    }

    /// Whether another message may begin on it.
    pub(super) const fn is_free(&self) -> bool {
        self.owed.is_none() && self.leaving.is_none() && self.finished.is_none()
    }
}
