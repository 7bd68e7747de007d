//! Whether the peer of a trunk connection is still there, by what its socket tells at looks that are a quarter of the limit apart.
//!
//! One look is never enough: after a long rest nothing has been heard for as long, while bytes have just been sent. So a peer is
//! taken for dead only if look after look, for the whole limit, bytes or probes went unanswered. Looks are counted, not the clock
//! alone: a host that was stopped for a while and runs on has missed looks, not acknowledgements.

use std::time::Duration;

use midmile_engine::{PathInfo, Probing};

/// Looks within a limit.
const LOOKS: u32 = 4;
/// Fewest retransmissions, or probes, in a row that nothing answered: one or two may be lost on a way that is alive.
const UNANSWERED_MIN: u8 = 3;

/// How long a peer may leave what it is sent unanswered, if nothing else was asked for.
pub const DEAD_AFTER: Duration = Duration::from_secs(20);

/// What was seen of one leg.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// Looks in a row that saw something unanswered, and heard nothing since the one before.
    silent: u16,
    /// Its keepalive is the watch's, not the operator's.
    probing: bool,
}

/// What becomes of a leg's keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keepalive {
    /// A leg that bytes crossed lately, and that is quiet now: whoever waits for more sends nothing that could go unanswered, so the
    /// kernel asks whether the peer is there.
    Watch(Probing),
    /// It has rested for long: as the operator wants it.
    Own,
}

impl Watch {
    /// Nothing was seen yet.
    pub(crate) const NEW: Self = Self { silent: 0, probing: false };

    /// Between two looks at a leg whose peer may be silent for `limit`; less does no harm.
    pub(crate) fn every(limit: Duration) -> Duration {
        limit / LOOKS
    }

    /// Takes in what a look showed, at least `every` after the one before. True if the peer is dead: for `limit`, and `every` at
    /// most, it was sent to, again and again, and nothing at all has come.
    ///
    /// Whoever acknowledges lives, also one that has closed its window: what was sent last has been answered then, or there is
    /// nothing on its way and no probe open.
    pub(crate) fn look(&mut self, every: Duration, limit: Duration, path: Option<&PathInfo>) -> bool {
        let Some(path) = path.filter(|path| is_unanswered(path)) else {
            self.silent = 0;
            return false;
        };
        self.silent = if path.heard_ago >= every { self.silent.saturating_add(1) } else { 1 };
        let tried = path.timeouts.max(path.probes) >= UNANSWERED_MIN;
        every * u32::from(self.silent - 1) >= limit && tried && path.heard_ago >= limit
    }

    /// What becomes of the keepalive of a leg that no byte has crossed for `rest`; `None`: nothing.
    pub(crate) fn keepalive(&mut self, rest: Duration, limit: Duration) -> Option<Keepalive> {
        let change = keepalive(rest, limit, self.probing);
        self.probing ^= change.is_some();
        change
    }
}

/// Limits for which a quiet leg is probed; who is quiet for longer is idle.
const RESTS: u32 = 4;
/// Probes that fit into a limit, at least: more than may be lost in a row on a way that is alive.
const PROBES: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// How a leg is to be probed that no byte has crossed for `rest`; `None`: as it is.
fn keepalive(rest: Duration, limit: Duration, probing: bool) -> Option<Keepalive> {
    let after = Watch::every(limit);
    if rest >= limit * RESTS {
        return probing.then_some(Keepalive::Own);
    }
    if probing || rest < after {
        return None;
    }
    let whole = |time: Duration| Duration::from_secs(time.as_secs()).max(SECOND);
    let (after, every) = (whole(after), whole(limit / PROBES));
    let fit = limit.saturating_sub(after).as_secs() / every.as_secs();
    let count = u32::try_from(fit).unwrap_or(PROBES).clamp(u32::from(UNANSWERED_MIN), PROBES);
    Some(Keepalive::Watch(Probing { after, every, count }))
}

/// Something was sent after the peer was last heard, and not answered. A segment that was sent again to a closed window, and
/// answered, is unacknowledged for up to two minutes until the next try (`TCP_RTO_MAX`): nothing has left since the answer.
fn is_unanswered(path: &PathInfo) -> bool {
    (path.unacknowledged_segments > 0 && path.sent_ago < path.heard_ago) || path.probes > 0
}

#[cfg(test)]
mod tests;
