//! The figures of a listener whose messages are carried, added up over the cores.

use std::sync::Arc;

use midmile_engine::Counter;
use midmile_mux::{Counters, Detour};
use midmile_wire::dns::Malformed;
use midmile_wire::frame::FrameError;

use crate::counters::RouteCounters;

/// What a listener carries by messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessagesSnapshot {
    /// Whole messages of clients that were taken.
    pub requests: u64,
    /// Bytes of them.
    pub request_bytes: u64,
    /// Requests that wait for their answers.
    pub requests_open: u64,
    /// Answers of backends that were handed to their clients.
    pub answers: u64,
    /// Bytes of them.
    pub answer_bytes: u64,
    /// Requests that were sent again, because their connection to a backend was lost or silent.
    pub retries: u64,
    /// Requests that midmile answered itself because no backend did in time.
    pub servfails: u64,
    /// Requests that went on alone because several connections were lost while they were out.
    pub suspects: u64,
    /// Requests that midmile answered itself because they're of a kind that isn't carried.
    pub declined: u64,
    /// Requests that midmile answered itself because they aren't well formed, each at its [`Malformed::index`].
    pub malformed: [u64; Malformed::COUNT],
    /// Requests that found a core with as many as it may hold.
    pub requests_max: u64,
    /// Answers that came when their request had been answered otherwise, or its client had gone.
    pub answers_late: u64,
    /// Answers to no request.
    pub answers_stray: u64,
    /// Transfers of zones whose answers couldn't be followed to the last.
    pub transfers_unclear: u64,
    /// Times that a client wasn't read because it had as many transfers as it may.
    pub transfers_held: u64,
    /// Connections to backends that stand.
    pub upstreams_open: u64,
    /// Dials of backends.
    pub upstreams_dialled: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Connections to backends that had stood and were lost.
    pub upstreams_lost: u64,
    /// Clients of which something came that is no message, each at its [`FrameError::index`].
    pub requests_misframed: [u64; FrameError::COUNT],
    /// Connections to backends on which something came that is no message, each at its [`FrameError::index`].
    pub answers_misframed: [u64; FrameError::COUNT],
    /// What went as datagrams.
    pub datagrams: DatagramsSnapshot,
}

/// What a listener carries by datagrams to its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramsSnapshot {
    /// Requests that were sent as datagrams.
    pub sent: u64,
    /// Those that were sent once more, because no answer came soon.
    pub again: u64,
    /// Times that a backend took none, or left all unanswered.
    pub failed: u64,
    /// Sockets for them.
    pub sockets_open: u64,
    /// Sockets that couldn't be bound.
    pub binds_failed: u64,
    /// Requests that went by a connection though their backend is asked by datagrams, each at its [`Detour::index`].
    pub detours: [u64; Detour::COUNT],
}

impl DatagramsSnapshot {
    fn absorb(&mut self, from: &Self) {
        self.sent += from.sent;
        self.again += from.again;
        self.failed += from.failed;
        self.sockets_open += from.sockets_open;
        self.binds_failed += from.binds_failed;
        self.detours.iter_mut().zip(&from.detours).for_each(|(sum, count)| *sum += count);
    }
}

impl MessagesSnapshot {
    /// The sums over the cores.
    pub(super) fn of(cores: &[Arc<RouteCounters>]) -> Self {
        let sum_of =
            |of: &dyn Fn(&Counters) -> u64| cores.iter().fold(0, |sum: u64, core| sum.wrapping_add(of(&core.mux)));
        let sum = |of: fn(&Counters) -> &Counter| sum_of(&|core| of(core).value());
        Self {
            requests: sum(|core| &core.requests),
            request_bytes: sum(|core| &core.request_bytes),
            requests_open: sum(|core| &core.requests_open),
            answers: sum(|core| &core.answers),
            answer_bytes: sum(|core| &core.answer_bytes),
            retries: sum(|core| &core.retries),
            servfails: sum(|core| &core.servfails),
            suspects: sum(|core| &core.suspects),
            declined: sum(|core| &core.declined),
            malformed: std::array::from_fn(|index| sum_of(&|core| core.malformed[index].value())),
            requests_max: sum(|core| &core.requests_max),
            answers_late: sum(|core| &core.answers_late),
            answers_stray: sum(|core| &core.answers_stray),
            transfers_unclear: sum(|core| &core.transfers_unclear),
            transfers_held: sum(|core| &core.transfers_held),
            upstreams_open: sum(|core| &core.upstreams_open),
            upstreams_dialled: sum(|core| &core.upstreams_dialled),
            dials_failed: sum(|core| &core.dials_failed),
            upstreams_lost: sum(|core| &core.upstreams_lost),
            requests_misframed: std::array::from_fn(|index| sum_of(&|core| core.requests_misframed[index].value())),
            answers_misframed: std::array::from_fn(|index| sum_of(&|core| core.answers_misframed[index].value())),
            datagrams: DatagramsSnapshot {
                sent: sum(|core| &core.datagrams),
                again: sum(|core| &core.datagrams_again),
                failed: sum(|core| &core.datagrams_failed),
                sockets_open: sum(|core| &core.sockets_open),
                binds_failed: sum(|core| &core.binds_failed),
                detours: std::array::from_fn(|index| sum_of(&|core| core.detours[index].value())),
            },
        }
    }

    /// Adds the counts of `from`.
    pub fn absorb(&mut self, from: &Self) {
        self.requests += from.requests;
        self.request_bytes += from.request_bytes;
        self.requests_open += from.requests_open;
        self.answers += from.answers;
        self.answer_bytes += from.answer_bytes;
        self.retries += from.retries;
        self.servfails += from.servfails;
        self.suspects += from.suspects;
        self.declined += from.declined;
        self.malformed.iter_mut().zip(&from.malformed).for_each(|(sum, count)| *sum += count);
        self.requests_max += from.requests_max;
        self.answers_late += from.answers_late;
        self.answers_stray += from.answers_stray;
        self.transfers_unclear += from.transfers_unclear;
        self.transfers_held += from.transfers_held;
        self.upstreams_open += from.upstreams_open;
        self.upstreams_dialled += from.upstreams_dialled;
        self.dials_failed += from.dials_failed;
        self.upstreams_lost += from.upstreams_lost;
        self.requests_misframed.iter_mut().zip(&from.requests_misframed).for_each(|(sum, count)| *sum += count);
        self.answers_misframed.iter_mut().zip(&from.answers_misframed).for_each(|(sum, count)| *sum += count);
        self.datagrams.absorb(&from.datagrams);
    }
}
