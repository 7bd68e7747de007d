//! `/status.json`: a snapshot for people and scripts.

use std::collections::BTreeMap;

use midmile_gateway::{
    DatagramsSnapshot, End, Flow, MessagesSnapshot, PeerSnapshot, PoolLoss, Refusal, RouteSnapshot, TIME_BOUNDS_US,
    Times, WaitBy,
};
use midmile_mux::Detour;
use midmile_wire::dns::Malformed;
use midmile_wire::frame::FrameError;
use serde::Serialize;

use super::view::View;

/// The document, with a line break at its end.
pub(super) fn encode(view: &View) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(&Status::new(view))?;
    text.push('\n');
    Ok(text)
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    state: &'static str,
    uptime_secs: f64,
    cores: u16,
    wait_by: &'static str,
    pairs_max: u32,
    pipes: Pipes,
    turns: u64,
    panics: u64,
    stalls: u64,
    pair_reports_lost: u64,
    totals: Counts,
    routes: Vec<RouteStatus<'a>>,
    peers: Vec<PeerStatus>,
}

#[derive(Serialize)]
struct PeerStatus {
    name: String,
    /// Trunk connections that wait ready, and those on the way there.
    ready: u64,
    under_way: u64,
    /// Pairs that took one, and those that found none and waited.
    taken: u64,
    missed: u64,
    dials: u64,
    losses: BTreeMap<&'static str, u64>,
    retries: u64,
    /// Microseconds; absent before the first handshake.
    rtt_us: Option<u64>,
    /// On trunk connections whose pair has ended; with data.
    sent_segments: u64,
    retransmitted_segments: u64,
    /// Bytes a second; absent before the first estimate.
    delivery_rate: Option<u64>,
    delivery_rate_best: Option<u64>,
}

impl PeerStatus {
    fn new(peer: &PeerSnapshot) -> Self {
        Self {
            name: peer.name.to_string(),
            ready: peer.ready,
            under_way: peer.under_way,
            taken: peer.taken,
            missed: peer.missed,
            dials: peer.dials,
            losses: PoolLoss::ALL.iter().map(|loss| (loss.name(), peer.losses[loss.index()])).collect(),
            retries: peer.retries,
            rtt_us: known(peer.rtt_us),
            sent_segments: peer.sent_segments,
            retransmitted_segments: peer.retransmitted_segments,
            delivery_rate: known(peer.delivery_rate),
            delivery_rate_best: known(peer.delivery_rate_best),
        }
    }
}

/// A figure that is 0 until it's known.
fn known(figure: u64) -> Option<u64> {
    (figure > 0).then_some(figure)
}

#[derive(Serialize)]
struct Pipes {
    max: u32,
    exist: u64,
    leased: u64,
    missed: u64,
}

#[derive(Serialize)]
struct RouteStatus<'a> {
    name: &'a str,
    listen: String,
    /// Whether the listener is gone and only its last pairs remain.
    retired: bool,
    #[serde(flatten)]
    counts: Counts,
    backends: Vec<BackendStatus<'a>>,
    /// Only where messages are carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<MessagesStatus>,
}

#[derive(Serialize)]
struct MessagesStatus {
    requests: u64,
    /// Those that wait for their answers.
    open: u64,
    answers: u64,
    retries: u64,
    servfails: u64,
    suspects: u64,
    declined: u64,
    /// Requests that aren't well formed, by why.
    malformed: BTreeMap<&'static str, u64>,
    requests_max_reached: u64,
    answers_late: u64,
    answers_stray: u64,
    transfers_unclear: u64,
    transfers_held: u64,
    /// What was no message, by the framer's reason.
    frame_errors: FrameErrors,
    upstreams: Upstreams,
    datagrams: Datagrams,
}

/// Connections on which something came that is no message.
#[derive(Serialize)]
struct FrameErrors {
    client: BTreeMap<&'static str, u64>,
    backend: BTreeMap<&'static str, u64>,
}

impl FrameErrors {
    fn new(messages: &MessagesSnapshot) -> Self {
        let named = |counts: [u64; FrameError::COUNT]| {
            FrameError::ALL.iter().map(|error| (error.name(), counts[error.index()])).collect()
        };
        Self { client: named(messages.requests_misframed), backend: named(messages.answers_misframed) }
    }
}

/// What goes to backends as datagrams.
#[derive(Serialize)]
struct Datagrams {
    sent: u64,
    resent: u64,
    failed: u64,
    sockets_open: u64,
    binds_failed: u64,
    /// Requests that went by a connection instead.
    detours: BTreeMap<&'static str, u64>,
}

impl Datagrams {
    fn new(datagrams: &DatagramsSnapshot) -> Self {
        Self {
            sent: datagrams.sent,
            resent: datagrams.again,
            failed: datagrams.failed,
            sockets_open: datagrams.sockets_open,
            binds_failed: datagrams.binds_failed,
            detours: Detour::ALL.iter().map(|why| (why.name(), datagrams.detours[why.index()])).collect(),
        }
    }
}

#[derive(Serialize)]
struct Upstreams {
    open: u64,
    dialled: u64,
    dials_failed: u64,
    lost: u64,
}

impl MessagesStatus {
    fn new(messages: &MessagesSnapshot) -> Self {
        Self {
            requests: messages.requests,
            open: messages.requests_open,
            answers: messages.answers,
            retries: messages.retries,
            servfails: messages.servfails,
            suspects: messages.suspects,
            declined: messages.declined,
            malformed: Malformed::ALL.iter().map(|why| (why.name(), messages.malformed[why.index()])).collect(),
            requests_max_reached: messages.requests_max,
            answers_late: messages.answers_late,
            answers_stray: messages.answers_stray,
            transfers_unclear: messages.transfers_unclear,
            transfers_held: messages.transfers_held,
            frame_errors: FrameErrors::new(messages),
            upstreams: Upstreams {
                open: messages.upstreams_open,
                dialled: messages.upstreams_dialled,
                dials_failed: messages.dials_failed,
                lost: messages.upstreams_lost,
            },
            datagrams: Datagrams::new(&messages.datagrams),
        }
    }
}

#[derive(Serialize)]
struct BackendStatus<'a> {
    name: &'a str,
    healthy: bool,
    pairs_open: u32,
}

#[derive(Serialize)]
struct Counts {
    pairs_open: u64,
    pairs_opened: u64,
    pairs_connected: u64,
    dial_retries: u64,
    early_dials: u64,
    early_used: u64,
    early_wasted: u64,
    early_declined: u64,
    upstream: Bytes,
    downstream: Bytes,
    ends: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<&'static str, u64>,
    accept_to_connected: Histogram,
    accept_to_first_byte: Histogram,
}

#[derive(Default, Serialize)]
struct Bytes {
    bytes: u64,
    copied_bytes: u64,
    spliced_bytes: u64,
}

#[derive(Serialize)]
struct Histogram {
    count: u64,
    sum_us: u64,
    buckets: Vec<Bucket>,
}

#[derive(Serialize)]
struct Bucket {
    /// Upper bound, inclusive; the last bucket has none.
    up_to_us: Option<u64>,
    /// Of this bucket alone.
    count: u64,
}

impl<'a> Status<'a> {
    fn new(view: &'a View) -> Self {
        let snapshot = &view.snapshot;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            state: if view.draining { "draining" } else { "accepting" },
            uptime_secs: snapshot.uptime.as_secs_f64(),
            cores: snapshot.cores,
            wait_by: match view.limits.wait_by {
                WaitBy::Epoll => "epoll",
                WaitBy::IoUring => "io_uring",
            },
            pairs_max: view.limits.pairs_max,
            pipes: Pipes {
                max: view.limits.pipes_max,
                exist: snapshot.pipes,
                leased: snapshot.pipes_leased,
                missed: snapshot.pipes_missed,
            },
            turns: snapshot.turns,
            panics: snapshot.panics,
            stalls: snapshot.stalls,
            pair_reports_lost: snapshot.reports_lost,
            totals: Counts::new(&snapshot.routes.iter().collect::<Vec<_>>()),
            routes: snapshot.routes.iter().map(RouteStatus::new).collect(),
            peers: snapshot.peers.iter().map(PeerStatus::new).collect(),
        }
    }
}

impl<'a> RouteStatus<'a> {
    fn new(route: &'a RouteSnapshot) -> Self {
        let backends = route.backends.iter().map(|backend| BackendStatus {
            name: &backend.name,
            healthy: backend.healthy,
            pairs_open: backend.open,
        });
        Self {
            name: &route.name,
            listen: route.listen.to_string(),
            retired: route.retired,
            counts: Counts::new(&[route]),
            backends: backends.collect(),
            messages: route.messages.as_ref().map(MessagesStatus::new),
        }
    }
}

impl Counts {
    /// The sums over `routes`.
    fn new(routes: &[&RouteSnapshot]) -> Self {
        let sum = |value: &dyn Fn(&RouteSnapshot) -> u64| routes.iter().map(|route| value(route)).sum::<u64>();
        let ends = End::ALL.iter().map(|end| (end.name(), sum(&|route| route.ends[end.index()])));
        let refusals =
            Refusal::ALL.iter().map(|refusal| (refusal.name(), sum(&|route| route.refusals[refusal.index()])));
        Self {
            pairs_open: sum(&|route| route.pairs_open),
            pairs_opened: sum(&|route| route.pairs_opened),
            pairs_connected: sum(&|route| route.connected),
            dial_retries: sum(&|route| route.dial_retries),
            early_dials: sum(&|route| route.early_dials),
            early_used: sum(&|route| route.early_used),
            early_wasted: sum(&|route| route.early_wasted),
            early_declined: sum(&|route| route.early_declined),
            upstream: Bytes::new(routes.iter().map(|route| &route.upstream)),
            downstream: Bytes::new(routes.iter().map(|route| &route.downstream)),
            ends: ends.collect(),
            refusals: refusals.collect(),
            accept_to_connected: Histogram::new(routes.iter().map(|route| &route.connect)),
            accept_to_first_byte: Histogram::new(routes.iter().map(|route| &route.first_byte)),
        }
    }
}

impl Histogram {
    fn new<'a>(times: impl Iterator<Item = &'a Times>) -> Self {
        let mut sum = Times::default();
        times.for_each(|times| sum.absorb(times));
        let bounds = TIME_BOUNDS_US.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(sum.buckets).map(|(up_to_us, count)| Bucket { up_to_us, count }).collect();
        Self { count: sum.buckets.iter().sum(), sum_us: sum.sum_us, buckets }
    }
}

impl Bytes {
    fn new<'a>(flows: impl Iterator<Item = &'a Flow>) -> Self {
        flows.fold(Self::default(), |sum, flow| Self {
            bytes: sum.bytes + flow.copied_bytes + flow.spliced_bytes,
            copied_bytes: sum.copied_bytes + flow.copied_bytes,
            spliced_bytes: sum.spliced_bytes + flow.spliced_bytes,
        })
    }
}
