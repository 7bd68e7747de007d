//! The way between the program's own ends, which can be cut, and what their sockets tell of it.

use std::time::Duration;

use super::remote::RemoteId;
use super::world::Sim;
use crate::path::PathInfo;

/// The first retransmission timeout (RFC 6298, section 2.4, has it longer); each later one is twice as long.
const RTO: Duration = Duration::from_millis(250);

impl Sim {
    /// Cuts the way between the program's own ends: nothing crosses it until it is restored, and nobody is told.
    pub fn cut(&mut self) {
        self.cut_since = Some(self.now);
    }

    /// Has the way between the program's own ends carry again.
    pub fn restore(&mut self) {
        self.cut_since = None;
    }

    /// What the kernel would tell. A round trip is a step of the remote's each way, nothing is lost, and each byte is a segment.
    pub(super) fn path_of(&self, id: RemoteId) -> PathInfo {
        let remote = &self.remotes[id.0];
        let base = PathInfo {
            rtt: 2 * remote.script.pace,
            sent_segments: remote.handed_over,
            heard_ago: self.now.since(remote.heard),
            sent_ago: self.now.since(remote.sent_at),
            ..PathInfo::default()
        };
        if remote.outbound.is_empty() {
            return base;
        }
        // Where the other end has no room left, nothing is on its way; an answered probe leaves no trace.
        let closed = remote.twin.is_some_and(|twin| {
            let twin = &self.remotes[twin.0];
            twin.inbound.len() >= twin.script.window
        });
        let unacknowledged_segments = if closed { 0 } else { u32::try_from(remote.outbound.len()).unwrap_or(u32::MAX) };
        let Some(cut) = self.cut_since.filter(|_| remote.twin.is_some()) else {
            return PathInfo { unacknowledged_segments, ..base };
        };
        let (tries, last) = tries(self.now.since(remote.sent_at.max(cut)));
        let timeouts = if closed { 0 } else { tries };
        let probes = if closed { tries } else { 0 };
        let sent_ago = if closed { base.sent_ago } else { last.min(base.sent_ago) };
        PathInfo { unacknowledged_segments, timeouts, probes, sent_ago, ..base }
    }
}

/// How often the retransmission timer has run out after `elapsed`, and since when the last time.
fn tries(elapsed: Duration) -> (u8, Duration) {
    let (mut tries, mut left, mut wait) = (0, elapsed, RTO);
    while left >= wait {
        left -= wait;
        wait *= 2;
        tries += 1;
    }
    (tries, left)
}
