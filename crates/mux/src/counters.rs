//! What is counted, one copy a core and service.
//!
//! Each copy has one writer, its core, so an update is a plain load and store, never a locked instruction; readers add up the
//! copies.

use midmile_engine::Counter;
use midmile_wire::dns::Malformed;
use midmile_wire::frame::FrameError;

use crate::detour::Detour;
use crate::reason::{End, Refused};

/// Counters of one service on one core.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests: whole messages of clients that were taken.
    pub requests: Counter,
    /// Bytes of them.
    pub request_bytes: Counter,
    /// Answers of backends that were handed to their clients.
    pub answers: Counter,
    /// Bytes of them.
    pub answer_bytes: Counter,
    /// Requests that were sent again, because their upstream was lost or silent.
    pub retries: Counter,
    /// Requests that we answered ourselves because no backend did in time (DNS: SERVFAIL).
    pub servfails: Counter,
    /// Requests that went on alone because several connections were lost while they were out.
    pub suspects: Counter,
    /// Requests that we answered ourselves because they're of a kind that isn't carried (DNS: NOTIMP).
    pub declined: Counter,
    /// Requests that we answered ourselves because they aren't well formed (DNS: FORMERR), each at its [`Malformed::index`].
    pub malformed: [Counter; Malformed::COUNT],
    /// Requests that we answered ourselves, or that ended their client, because the core held as many as it may.
    pub requests_max: Counter,
    /// Answers to requests that had been answered otherwise, or whose client had gone.
    pub answers_late: Counter,
    /// Answers to no request: an id that wasn't asked under, another question, or no answer at all. They're dropped.
    pub answers_stray: Counter,
    /// Transfers of zones whose answers couldn't be followed to the last: they're over when none comes for the answer timeout.
    pub transfers_unclear: Counter,
    /// Times that a client wasn't read because it had as many transfers as it may.
    pub transfers_held: Counter,
    /// Requests that are under way now.
    pub requests_open: Counter,
    /// Clients admitted.
    pub clients_opened: Counter,
    /// Clients that are there now.
    pub clients_open: Counter,
    /// Upstreams that stand now.
    pub upstreams_open: Counter,
    /// Dials of upstreams.
    pub upstreams_dialled: Counter,
    /// Dials that failed.
    pub dials_failed: Counter,
    /// Upstreams that had stood and were lost, by either side's doing; those that a reload or a drain closed aren't counted.
    pub upstreams_lost: Counter,
    /// Requests that were sent as datagrams, each time to another backend or after a failure counted.
    pub datagrams: Counter,
    /// Datagrams that were sent once more, because no answer came soon.
    pub datagrams_again: Counter,
    /// Times that a backend took no datagrams: nobody was bound there, there was no way, or it left them all unanswered.
    pub datagrams_failed: Counter,
    /// Sockets for datagrams that are bound now.
    pub sockets_open: Counter,
    /// Sockets for datagrams that couldn't be bound.
    pub binds_failed: Counter,
    /// Requests that went by a connection though their backend is asked by datagrams, each at its [`Detour::index`].
    pub detours: [Counter; Detour::COUNT],
    /// Clients of which something came that is no message, each at its [`FrameError::index`].
    pub requests_misframed: [Counter; FrameError::COUNT],
    /// Connections to backends on which something came that is no message, each at its [`FrameError::index`].
    pub answers_misframed: [Counter; FrameError::COUNT],
    /// Clients ended, each at its [`End::index`].
    pub ends: [Counter; End::COUNT],
    /// Clients refused, each at its [`Refused::index`].
    pub refusals: [Counter; Refused::COUNT],
}
