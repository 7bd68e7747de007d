//! What the transport knows of the way to a connection's peer.

use std::time::Duration;

/// Figures of one connection's way, as its sender sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathInfo {
    /// The smoothed round trip (RFC 6298, section 2); zero before the first measurement.
    pub rtt: Duration,
    /// Segments with data that were sent since the connection began, retransmissions among them.
    pub sent_segments: u64,
    /// Those that were sent again.
    pub retransmitted_segments: u64,
    /// Bytes a second at which data was last delivered (draft-cheng-iccrg-delivery-rate-estimation); 0 before the first estimate.
    pub delivery_rate: u64,
    /// The sender had no more to send while the rate was measured: the way may well carry more.
    pub delivery_rate_limited: bool,
    /// Segments that are on their way, or lost: sent, and not acknowledged yet.
    pub unacknowledged_segments: u32,
    /// How often in a row the retransmission timer has run out (RFC 6298, section 5) since the peer last acknowledged anything new.
    pub timeouts: u8,
    /// Probes of a closed window (RFC 9293, section 3.8.6.1), or of keepalive, since anything last came from the peer.
    pub probes: u8,
    /// Since a segment with data last left, retransmissions among them.
    pub sent_ago: Duration,
    /// Since anything came from the peer: data, or an acknowledgement, be it of nothing new or of a closed window.
    pub heard_ago: Duration,
}
