//! A request: whose it is, its bytes, and where it is.

use midmile_engine::{Key, Time};
use midmile_wire::dns::transfer::Transfer;

use crate::chunks::Chain;
use crate::detour::By;
use crate::onward::SENDS_MAX;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// On no upstream. Invariant: it stands among those of its client that wait, or among the transfers that do.
    Waiting,
    /// On an upstream, and it may be sent on another yet. Invariant: it stands among those sent.
    Sent,
    /// The same, and the answer should have come by now. Invariant: it stands among the late.
    Late,
    /// Sent as a datagram, which goes once more if no answer comes soon. Invariant: it stands among those posted.
    Posted,
    /// Sent as a datagram twice, and it may be sent on another upstream yet. Invariant: it stands among those posted again.
    Reposted,
    /// On an upstream, and stays there.
    Settled,
}

/// What of a DNS query matters for how its answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The id that its client gave it.
    pub(crate) id: u16,
    /// It has the option that asks how long the connection may idle (RFC 7828).
    pub(crate) keepalive: bool,
}

/// A request that isn't answered.
#[derive(Debug)]
pub(crate) struct Request {
    /// Whose it is; that client may have ended.
    pub(crate) client: Key,
    /// Its service's place among them.
    pub(crate) service: u32,
    /// Its bytes, as they came.
    pub(crate) bytes: Chain,
    pub(crate) state: State,
    /// The upstream that it was sent on last, and to which place that led, if that's still one. An answer may come from one before as
    /// well.
    pub(crate) upstream: Key,
    pub(crate) place: Option<usize>,
    /// What its client's answer has of it (DNS).
    pub(crate) asked: Asked,
    /// How it may go.
    pub(crate) by: By,
    /// Where in it its sender says how long a datagram may be that it takes; 0 if nowhere.
    pub(crate) size_at: u16,
    /// The id under which it was last sent as a datagram.
    pub(crate) posted_id: u16,
    /// How often it was sent, and how often it had no answer for the attempt timeout.
    pub(crate) sends: u8,
    pub(crate) silences: u8,
    /// How many connections were lost while it was out on them.
    pub(crate) losses: u8,
    /// Until when it waits after the last of them, if it goes alone.
    pub(crate) rests_until: Time,
    /// It may be sent again: it means no more when it comes twice.
    pub(crate) repeatable: bool,
    /// Which of them is the last, while it's on an upstream; `None` where that can't be known.
    pub(crate) following: Option<Box<Transfer>>,
    /// It's to go to the place again that it was sent to last, if that has room.
    pub(crate) returns: bool,
    /// It has had one.
    pub(crate) answered: bool,
    /// From when its time runs: its coming, or a transfer's last answer. Requests stand in the order of it among a service's.
    pub(crate) since: Time,
    /// When it was sent last.
    pub(crate) sent_at: Time,
}

impl Request {
    /// Whether it's a zone's transfer: it may have many answers.
    pub(crate) fn is_transfer(&self) -> bool {
        self.by == By::Own
    }

    /// Whether another backend may get it as well, because the one that has it is silent.
    pub(crate) fn may_go_again(&self) -> bool {
        self.repeatable && !matches!(self.by, By::Own | By::Lone) && self.silences < SENDS_MAX
    }
}
