//! A client: its connection, what it's owed, and how long it may do what it does.

use std::net::IpAddr;
use std::time::Duration;

use midmile_engine::{Addr, ConnId, Key, Time};
use midmile_wire::frame::Seen;

use crate::chunks::Chain;
use crate::list::List;
use crate::prospect::Prospect;
use crate::reason::End;
use crate::service::{Bounds, Matching};
use crate::serving::Serving;
use crate::turns::ROWS;

/// How long a client that parts has to close its side.
pub(crate) const PARTING_WAIT: Duration = Duration::from_secs(1);

/// How many requests of a client may be out at first, and at least. Some backends read no more of a connection that has a few dozen slow
/// queries out (Unbound: 32), so nobody may put so many on one before it's known whether they're slow.
const ALLOWANCE_FIRST: u16 = 10;
const ALLOWANCE_LEAST: u16 = 4;

/// A client. Invariant: `outstanding` is the number of requests whose client it is, and `transfers` that of those which are transfers.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) conn: ConnId,
    /// Its place among the services.
    pub(crate) service: u32,
    /// The owner's name for it.
    pub(crate) owner: u64,
    /// What is known of the message that comes.
    pub(crate) seen: Seen,
    /// What it's owed and couldn't be sent yet.
    pub(crate) out: Chain,
    /// Requests that aren't answered yet.
    pub(crate) outstanding: u16,
    /// How many of them are transfers.
    pub(crate) transfers: u16,
    /// Those that wait, by how they may go, and in which rows it stands for them.
    pub(crate) waiting: [List; ROWS],
    pub(crate) lined_up: [bool; ROWS],
    /// Bytes of its requests.
    pub(crate) kept: usize,
    /// How many may be out on connections.
    pub(crate) allowance: u16,
    /// How long each answer is taken to be that it waits for.
    pub(crate) prospect: Prospect,
    /// It's read.
    pub(crate) reading: bool,
    /// It waits until there's room for requests. Invariant: it stands among the starved.
    pub(crate) starved: bool,
    /// It stands among those to be flushed.
    pub(crate) queued: bool,
    /// It stands among those whose message has begun in this turn.
    pub(crate) noted: bool,
    /// The beginning of a message has come.
    pub(crate) partial: bool,
    /// Since when, once that was noted.
    pub(crate) begun: Option<Time>,
    /// No more is read: it ends for this reason once it has all its answers.
    pub(crate) ending: Option<End>,
    /// It has finished sending.
    pub(crate) finished: bool,
    /// It has all its answers and been sent our end; what it still sends is dropped, so that no reset overtakes the answers
    /// (RFC 2525, 2.17).
    pub(crate) parting: bool,
    /// When it was last sent an answer or its last request came, and when some of what it's owed last went out.
    pub(crate) active: Time,
    pub(crate) took: Time,
    /// When its timer runs out.
    pub(crate) timer_at: Time,
    /// How many of its requests are on an upstream, and on which: others go there as well until those are answered
    /// ([`crate::Matching::Order`]). Invariant: [`Key::NONE`] if none is.
    pub(crate) carried: u16,
    pub(crate) upstream: Key,
    /// Under which it's counted, if clients of an address are.
    pub(crate) origin: Option<Origin>,
}

impl Client {
    pub(crate) fn new(service: u32, owner: u64, origin: Option<Origin>, prospect: Prospect, now: Time) -> Self {
        Self {
            conn: Key::NONE,
            service,
            owner,
            seen: Seen::default(),
            out: Chain::EMPTY,
            outstanding: 0,
            transfers: 0,
            waiting: [List::EMPTY; ROWS],
            lined_up: [false; ROWS],
            kept: 0,
            allowance: ALLOWANCE_FIRST,
            prospect,
            reading: true,
            starved: false,
            queued: false,
            noted: false,
            partial: false,
            begun: None,
            ending: None,
            finished: false,
            parting: false,
            active: now,
            took: now,
            timer_at: now,
            carried: 0,
            upstream: Key::NONE,
            origin,
        }
    }

    /// When it's to be looked at again, and the end that it has if nothing has changed by then.
    pub(crate) fn due(&self, bounds: &Bounds, now: Time) -> (Time, Option<End>) {
        let unread = (!self.out.is_empty()).then(|| (self.took.after(bounds.idle_timeout), End::AnswersUnread));
        let slow = self.begun.map(|begun| (begun.after(bounds.message_timeout), End::MessageTimeout));
        if self.parting {
            (self.took.after(PARTING_WAIT), self.ending)
        } else if let Some((due, end)) = unread.into_iter().chain(slow).min_by_key(|(due, _)| *due) {
            (due, Some(end))
        } else if self.outstanding > 0 || self.ending.is_some() || !self.reading {
            (now.after(bounds.idle_timeout), None)
        } else {
            (self.active.after(bounds.idle_timeout), Some(End::IdleTimeout))
        }
    }

    /// Whether one more of its requests may be sent. In order, and where datagrams go, none stands in another's way for long.
    pub(crate) fn may_send(&self, serving: &Serving) -> bool {
        self.has_allowance(serving, 0)
    }

    /// The same where so many stand in no list yet.
    pub(crate) fn has_allowance(&self, serving: &Serving, unlisted: usize) -> bool {
        let waiting: usize = self.waiting.iter().map(List::len).sum::<usize>() + unlisted;
        let out = usize::from(self.outstanding - self.transfers).saturating_sub(waiting);
        out < usize::from(self.allowance) || serving.has_datagrams || serving.service.matching == Matching::Order
    }

    /// One of its requests was answered in good time: one more may be out.
    pub(crate) fn note_prompt(&mut self, bounds: &Bounds) {
        self.allowance = self.allowance.saturating_add(1).min(bounds.outstanding_per_client.max(ALLOWANCE_FIRST));
    }

    /// One of its requests is late: one less may be out.
    pub(crate) fn note_late(&mut self) {
        self.allowance = ALLOWANCE_LEAST.max(self.allowance - 1);
    }

    /// Bytes that it's owed, with those that its outstanding requests may bring.
    pub(crate) fn may_be_owed(&self) -> usize {
        self.prospect.of(self.outstanding).saturating_add(self.out.len())
    }

    /// It isn't read for now; a message that has begun isn't its fault then.
    pub(crate) const fn stop_reading(&mut self) {
        (self.reading, self.partial, self.begun) = (false, false, None);
    }
}

/// Where clients are from, as far as they're counted together: an IPv4 address, or an IPv6 address's first 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(u64);

impl Origin {
    /// `None` for those who come by a socket file.
    pub(crate) fn of(addr: &Addr) -> Option<Self> {
        Some(Self(match addr.inet()?.ip().to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // Nothing that begins with 32 zeros is an address in use, so the two kinds don't meet.
            IpAddr::V6(ip) => u64::from_be_bytes(*ip.octets().first_chunk().expect("16 bytes")),
        }))
    }
}
