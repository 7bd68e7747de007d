//! The status document as it's read: what `/status.json` says, of which more may come. A newer midmile may say more, an older one
//! less: what isn't there counts as nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Document {
    pub(super) version: String,
    pub(super) state: String,
    pub(super) uptime_secs: f64,
    pub(super) cores: u32,
    pub(super) pairs_max: u64,
    pub(super) totals: Counts,
    pub(super) routes: Vec<Route>,
    #[serde(default)]
    pub(super) peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Route {
    pub(super) name: String,
    pub(super) listen: String,
    #[serde(default)]
    pub(super) retired: bool,
    #[serde(flatten)]
    pub(super) counts: Counts,
    #[serde(default)]
    pub(super) backends: Vec<Backend>,
    #[serde(default)]
    pub(super) messages: Option<Messages>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Messages {
    pub(super) requests: u64,
    pub(super) open: u64,
    pub(super) answers: u64,
    #[serde(default)]
    pub(super) retries: u64,
    #[serde(default)]
    pub(super) servfails: u64,
    #[serde(default)]
    pub(super) answers_late: u64,
    #[serde(default)]
    pub(super) answers_stray: u64,
    pub(super) upstreams: Upstreams,
}

#[derive(Debug, Deserialize)]
pub(super) struct Upstreams {
    pub(super) open: u64,
    #[serde(default)]
    pub(super) lost: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) healthy: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    pub(super) pairs_open: u64,
    pub(super) pairs_opened: u64,
    pub(super) pairs_connected: u64,
    #[serde(default)]
    pub(super) early_dials: u64,
    #[serde(default)]
    pub(super) early_used: u64,
    #[serde(default)]
    pub(super) early_wasted: u64,
    #[serde(default)]
    pub(super) early_declined: u64,
    pub(super) upstream: Bytes,
    pub(super) downstream: Bytes,
    pub(super) ends: BTreeMap<String, u64>,
    pub(super) refusals: BTreeMap<String, u64>,
    pub(super) accept_to_connected: Histogram,
    #[serde(default)]
    pub(super) accept_to_first_byte: Histogram,
}

#[derive(Debug, Deserialize)]
pub(super) struct Bytes {
    pub(super) bytes: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) ready: u64,
    pub(super) under_way: u64,
    pub(super) taken: u64,
    pub(super) missed: u64,
    #[serde(default)]
    pub(super) losses: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) rtt_us: Option<u64>,
    #[serde(default)]
    pub(super) sent_segments: u64,
    #[serde(default)]
    pub(super) retransmitted_segments: u64,
    #[serde(default)]
    pub(super) delivery_rate: Option<u64>,
    #[serde(default)]
    pub(super) delivery_rate_best: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Histogram {
    pub(super) buckets: Vec<Bucket>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Bucket {
    /// The last bucket has none.
    pub(super) up_to_us: Option<u64>,
    /// Of this bucket alone.
    pub(super) count: u64,
}

/// The bucket that a share of the times is within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// They took so many microseconds at most.
    UpTo(u64),
    /// They took longer than any bound, of which this is the last.
    Beyond(u64),
}

impl Histogram {
    /// What `percent` of the times are within; `None` without any.
    pub(super) fn within(&self, percent: u128) -> Option<Within> {
        let all: u128 = self.buckets.iter().map(|bucket| u128::from(bucket.count)).sum();
        let (mut below, mut bound) = (0, 0);
        for bucket in self.buckets.iter().filter(|_| all > 0) {
            below += u128::from(bucket.count);
            let Some(up_to_us) = bucket.up_to_us else { return Some(Within::Beyond(bound)) };
            if below * 100 >= all * percent {
                return Some(Within::UpTo(up_to_us));
            }
            bound = up_to_us;
        }
        None
    }
}

/// A document with a bit of everything.
#[cfg(test)]
pub(super) fn sample() -> serde_json::Value {
    let times = |counts: [u64; 3]| {
        let bounds = [Some(1_000_u64), Some(250_000), None];
        let buckets =
            bounds.iter().zip(counts).map(|(bound, count)| serde_json::json!({"up_to_us": bound, "count": count}));
        serde_json::json!({ "count": counts.iter().sum::<u64>(), "sum_us": 7, "buckets": buckets.collect::<Vec<_>>() })
    };
    let counts = serde_json::json!({
        "pairs_open": 4, "pairs_opened": 120, "pairs_connected": 110, "dial_retries": 0,
        "early_dials": 10, "early_used": 8, "early_wasted": 2, "early_declined": 1,
        "upstream": {"bytes": 3000, "copied_bytes": 3000, "spliced_bytes": 0},
        "downstream": {"bytes": 6_442_450_944_u64, "copied_bytes": 0, "spliced_bytes": 6_442_450_944_u64},
        "ends": {"finished": 100, "client-reset": 0, "unclaimed": 2},
        "refusals": {"pairs-max": 0, "not-allowed": 3},
        "accept_to_connected": times([90, 20, 0]),
        "accept_to_first_byte": times([0, 50, 50]),
    });
    let mut web = counts.clone();
    web["name"] = "web".into();
    web["listen"] = "0.0.0.0:80".into();
    web["backends"] = serde_json::json!([{"name": "10.0.0.1:80", "healthy": false, "pairs_open": 0}]);
    web["messages"] = serde_json::json!({
        "requests": 600, "open": 3, "answers": 590, "retries": 4, "servfails": 5, "declined": 0, "requests_max_reached": 0,
        "answers_late": 1, "answers_stray": 1, "upstreams": {"open": 4, "dialled": 6, "dials_failed": 0, "lost": 2},
    });
    let mut quiet = counts.clone();
    quiet["name"] = "quiet\u{1b}[2J".into();
    quiet["listen"] = "unix:@quiet".into();
    quiet["retired"] = true.into();
    quiet["accept_to_connected"] = times([0, 0, 0]);
    serde_json::json!({
        "version": "0.1.0", "state": "accepting", "uptime_secs": 60.0, "cores": 2, "pairs_max": 1000, "turns": 5,
        "totals": counts, "routes": [web, quiet],
        "peers": [{
            "name": "mumbai", "ready": 8, "under_way": 1, "taken": 30, "missed": 2, "dials": 45,
            "losses": {"died": 0, "handshake": 3}, "retries": 1, "rtt_us": 218_340,
            "sent_segments": 4000, "retransmitted_segments": 10, "delivery_rate": 50_000_000, "delivery_rate_best": 60_000_000,
        }, { "name": "new", "ready": 0, "under_way": 0, "taken": 0, "missed": 0 }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_within_the_bucket_that_completes_them() {
        let of = |counts: [u64; 3]| {
            let bounds = [Some(100), Some(200), None];
            let buckets = bounds.into_iter().zip(counts).map(|(up_to_us, count)| Bucket { up_to_us, count });
            let histogram = Histogram { buckets: buckets.collect() };
            [50, 99].map(|percent| histogram.within(percent))
        };
        assert_eq!(of([0, 0, 0]), [None, None]);
        assert_eq!(of([50, 50, 0]), [Some(Within::UpTo(100)), Some(Within::UpTo(200))]);
        assert_eq!(of([99, 0, 1]), [Some(Within::UpTo(100)), Some(Within::UpTo(100))]);
        assert_eq!(of([10, 0, 90]), [Some(Within::Beyond(200)), Some(Within::Beyond(200))]);
        assert_eq!(of([u64::MAX, u64::MAX, u64::MAX]), [Some(Within::UpTo(200)), Some(Within::Beyond(200))]);
    }
}
