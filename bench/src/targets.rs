//! The targets that the subject of the run is held to, and whether it meets them.

use crate::judgement::{Judgement, NOT_MEASURED, Verdict};
use crate::rows::Kind;
use crate::table::RowResults;

/// What a value or a ratio must be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// subject ÷ peer, for each peer named, is at least this.
    RatioAtLeast(f64),
    /// subject ÷ peer is at most this.
    RatioAtMost(f64),
    /// subject ÷ peer is less than this.
    RatioBelow(f64),
    /// The subject's own value is at least this.
    ValueAtLeast(f64),
    /// The subject's own value is at most this.
    ValueAtMost(f64),
}

/// One target.
struct Target {
    what: &'static str,
    /// The first of these that the host can measure.
    keys: &'static [&'static str],
    against: &'static [&'static str],
    bound: Bound,
}

/// A latency this much above a peer's is still called no worse: histogram buckets are 0.8 % wide, and p99 of the same
/// program differs by more between two runs.
const NO_WORSE: f64 = 1.05;
const FORCED_SPLICE: &[&str] = &["haproxy-splice"];
const HAPROXIES: &[&str] = &["haproxy", "haproxy-splice"];
const RR_PEERS: &[&str] = &["haproxy", "haproxy-splice", "nginx", "realm", "realm-pipe"];
const ALL_PEERS: &[&str] = &["haproxy", "haproxy-splice", "nginx", "realm", "realm-pipe", "socat"];
const CYCLES: &[&str] = &["cycles_per_request", "system_cpu_us_per_request"];
const PROXY_CPU: &[&str] = &["proxy_cpu_s_per_gb"];
const RATE: &[&str] = &["requests_per_second"];
/// What the proxy's CPU could do if the load were not the limit.
const CORE_RATE: &[&str] = &["requests_per_core_second"];
const THROUGHPUT: &[&str] = &["gbytes_per_second"];

/// A target against peers.
const fn ratio(
    what: &'static str,
    keys: &'static [&'static str],
    against: &'static [&'static str],
    bound: Bound,
) -> Target {
    Target { what, keys, against, bound }
}

/// A target of the subject's own.
const fn value(what: &'static str, keys: &'static [&'static str], bound: Bound) -> Target {
    Target { what, keys, against: &[], bound }
}

const BULK: [Target; 5] = [
    ratio("throughput ≥ 0.97 × floor", THROUGHPUT, &["floor"], Bound::RatioAtLeast(0.97)),
    ratio("throughput ≥ best haproxy", THROUGHPUT, HAPROXIES, Bound::RatioAtLeast(1.0)),
    ratio("throughput ≥ 1.15 × realm", THROUGHPUT, &["realm"], Bound::RatioAtLeast(1.15)),
    ratio("proxy CPU per GB ≤ 1.05 × floor", PROXY_CPU, &["floor"], Bound::RatioAtMost(1.05)),
    ratio("proxy CPU per GB < haproxy-splice", PROXY_CPU, FORCED_SPLICE, Bound::RatioBelow(1.0)),
];
const RR: [Target; 4] = [
    ratio("requests/s ≥ 1.05 × best peer", RATE, RR_PEERS, Bound::RatioAtLeast(1.05)),
    ratio("requests/s per proxy core ≥ 1.05 × best peer", CORE_RATE, RR_PEERS, Bound::RatioAtLeast(1.05)),
    ratio("p99 no worse than any peer's", &["p99_us"], RR_PEERS, Bound::RatioAtMost(NO_WORSE)),
    ratio("cycles per request the lowest", CYCLES, ALL_PEERS, Bound::RatioBelow(1.0)),
];
const CRR: [Target; 4] = [
    ratio("connections/s ≥ 1.6 × haproxy", RATE, &["haproxy"], Bound::RatioAtLeast(1.6)),
    ratio("connections/s ≥ 1.3 × nginx", RATE, &["nginx"], Bound::RatioAtLeast(1.3)),
    ratio("connections/s per proxy core ≥ 1.6 × haproxy", CORE_RATE, &["haproxy"], Bound::RatioAtLeast(1.6)),
    ratio("connections/s per proxy core ≥ 1.3 × nginx", CORE_RATE, &["nginx"], Bound::RatioAtLeast(1.3)),
];
const IDLE: [Target; 1] = [value("user memory ≤ 1 KiB a pair", &["anon_bytes_per_pair"], Bound::ValueAtMost(1024.0))];

/// The targets of a row.
fn targets(kind: Kind, pair_bound_mib: f64) -> Vec<Target> {
    let bound = Bound::ValueAtMost(pair_bound_mib);
    let neighbour = Bound::ValueAtLeast(0.9);
    match kind {
        Kind::Bulk { .. } => BULK.into(),
        Kind::Rr { conns: 64.. } => RR.into(),
        Kind::Crr { .. } => CRR.into(),
        Kind::Idle { .. } => IDLE.into(),
        Kind::Slow => vec![
            value("in flight within --pair-bound", &["in_flight_mib"], bound),
            value("neighbour keeps ≥ 0.9", &["neighbour_ratio"], neighbour),
        ],
        Kind::Rr { .. } | Kind::Fair { .. } => Vec::new(),
    }
}

/// Judges `subject` in every row by every target that applies.
pub(crate) fn judge(rows: &[RowResults], subject: &str, pair_bound_mib: f64) -> Vec<Judgement> {
    rows.iter()
        .flat_map(|results| {
            let targets = targets(results.row.kind, pair_bound_mib);
            targets.into_iter().map(|target| target.judge(results, subject))
        })
        .collect()
}

impl Target {
    fn judge(&self, results: &RowResults, subject: &str) -> Judgement {
        let measured = self.keys.iter().find_map(|key| Some((*key, self.worst(results, subject, key)?)));
        let met = measured.as_ref().map(|(_, (value, _))| self.bound.holds(*value));
        let by = measured.map(|(key, (value, peer))| format!("{value:.3}{peer} by {key}"));
        let by = by.unwrap_or_else(|| NOT_MEASURED.to_owned());
        let judgement = Judgement { verdict: Verdict::of(met), text: format!("{}: {}: {by}", results.row, self.what) };
        judgement.unless_disturbed(results, subject)
    }

    /// The value or ratio that is furthest from the bound, and the peer it is against.
    fn worst(&self, results: &RowResults, subject: &str, key: &str) -> Option<(f64, String)> {
        if self.against.is_empty() {
            return Some((results.median(subject, key)?, String::new()));
        }
        let others = self.against.iter().filter(|peer| **peer != subject);
        let ratios = others.filter_map(|peer| Some((results.ratio(subject, peer, key)?, format!(" × {peer}"))));
        let least = matches!(self.bound, Bound::RatioAtLeast(_));
        ratios.min_by(|(a, _), (b, _)| if least { a.total_cmp(b) } else { b.total_cmp(a) })
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::RatioAtLeast(bound) | Self::ValueAtLeast(bound) => value >= bound,
            Self::RatioAtMost(bound) | Self::ValueAtMost(bound) => value <= bound,
            Self::RatioBelow(bound) => value < bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lab::Gro;
    use crate::rows::{Row, Sample};
    use crate::table::Outcome;

    fn bulk(values: &[(&'static str, f64)]) -> RowResults {
        let round: BTreeMap<_, _> = values
            .iter()
            .map(|&(peer, value)| (peer, Outcome::Measured(Sample::from([("gbytes_per_second", value)]))))
            .collect();
        RowResults { row: Row { kind: Kind::Bulk { conns: 1 }, gro: Gro::Off }, rounds: vec![round] }
    }

    fn verdict(rows: &[RowResults], what: &str) -> Verdict {
        let judgements = judge(rows, "midmile", 16.0);
        judgements.iter().find(|judgement| judgement.text.contains(what)).unwrap().verdict
    }

    #[test]
    fn the_best_of_two_peers_counts() {
        let rows = [bulk(&[("midmile", 1.0), ("haproxy", 0.5), ("haproxy-splice", 1.1), ("floor", 1.0)])];
        assert_eq!(verdict(&rows, "best haproxy"), Verdict::Fail);
        assert_eq!(verdict(&rows, "× floor"), Verdict::Pass);
    }

    #[test]
    fn an_absent_peer_is_no_verdict() {
        assert_eq!(verdict(&[bulk(&[("midmile", 1.0)])], "realm"), Verdict::Unknown);
    }
}
