//! The targets that our servers are held to. Where we have several backends of a kind, the one that does best in the row is judged:
//! it's the one an operator would choose for that load.

use super::peers::{Peer, Side};
use super::rows::Kind;
use crate::judgement::Judgement;
use crate::table::{RowResults, median, value};

/// A target of a row: what, by which column, against whom, on which of our sides, at most how much.
struct Target {
    key: &'static str,
    against: &'static str,
    side: Side,
    at_most: f64,
}

const COST: &str = "server_cpu_us_per_request";
/// The rate with all connections, of that with [`FLAT_FROM`].
const FLAT_AT_LEAST: f64 = 0.85;
const FLAT_FROM: usize = 1000;
const IDLE_BYTES_MAX: f64 = 512.0;
/// A latency this much above another's is still called no worse: a bucket of the histogram is 0.8 % wide, and the same program
/// differs by more between two runs.
const NO_WORSE: f64 = 1.05;

/// Below another's by the width of a bucket.
const BELOW: f64 = 0.99;

const fn target(key: &'static str, against: &'static str, side: Side, at_most: f64) -> Target {
    Target { key, against, side, at_most }
}

fn targets(kind: Kind) -> Vec<Target> {
    match kind {
        Kind::Ask { conns: conns @ (64 | 1000) } => vec![
            target(COST, "tokio", Side::Kernel, 0.70),
            target(COST, "epoll", Side::Kernel, 0.72),
            target(COST, "tokio", Side::Stack, if conns == 64 { 0.34 } else { 0.30 }),
        ],
        Kind::Visit => vec![target(COST, "tokio", Side::Kernel, 0.60), target(COST, "tokio", Side::Stack, 0.30)],
        Kind::Alone => {
            vec![target("p50_us", "epoll", Side::Kernel, NO_WORSE), target("p50_us", "epoll", Side::Busy, BELOW)]
        }
        Kind::Ask { .. } | Kind::Setup { .. } => Vec::new(),
    }
}

/// Judges our servers in every row.
pub(crate) fn judge(rows: &[RowResults<Kind>], peers: &[&Peer]) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for row in rows {
        judgements.extend(targets(row.row).iter().map(|target| target.judge(row, peers)));
    }
    let ours = || peers.iter().filter(|peer| matches!(peer.side, Side::Kernel | Side::Stack));
    judgements.extend(ours().filter_map(|peer| flat(rows, peer)));
    let mut setups = rows.iter().filter(|row| matches!(row.row, Kind::Setup { .. }));
    if let Some(most) = setups.next_back() {
        judgements.extend(ours().map(|peer| {
            let bytes = most.median(peer.name, "anon_bytes_per_conn");
            let text = format!("{}: {}: user memory ≤ {IDLE_BYTES_MAX} B a connection", most.row, peer.name);
            Judgement::of(&text, bytes, |bytes| bytes <= IDLE_BYTES_MAX)
        }));
    }
    judgements
}

impl Target {
    fn judge(&self, row: &RowResults<Kind>, peers: &[&Peer]) -> Judgement {
        let ours = peers.iter().filter(|peer| peer.side == self.side);
        let ratios = ours.filter_map(|peer| Some((row.ratio(peer.name, self.against, self.key)?, peer.name)));
        let best = ratios.min_by(|(a, _), (b, _)| a.total_cmp(b));
        let name = best.map_or("none", |(_, name)| name);
        let text = format!("{}: {name}: {} ≤ {} × {}", row.row, self.key, self.at_most, self.against);
        Judgement::of(&text, best.map(|(ratio, _)| ratio), |ratio| ratio <= self.at_most)
    }
}

/// Whether the rate stays with more connections, within each round.
fn flat(rows: &[RowResults<Kind>], peer: &Peer) -> Option<Judgement> {
    let asks = |row: &&RowResults<Kind>| matches!(row.row, Kind::Ask { conns } if conns >= FLAT_FROM);
    let from = rows.iter().find(|row| row.row == Kind::Ask { conns: FLAT_FROM })?;
    let most = rows.iter().rfind(asks).filter(|most| most.row != from.row)?;
    let rate = |round| value(round, peer.name, "requests_per_second");
    let ratios = most.rounds.iter().zip(&from.rounds).filter_map(|(most, from)| Some(rate(most)? / rate(from)?));
    let text = format!("{}: {}: rate ≥ {FLAT_AT_LEAST} × that with {FLAT_FROM}", most.row, peer.name);
    Some(Judgement::of(&text, median(ratios.collect()), |ratio| ratio >= FLAT_AT_LEAST))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::curve::peers::PEERS;
    use crate::judgement::Verdict;
    use crate::rows::Sample;
    use crate::table::Outcome;

    fn row(kind: Kind, key: &'static str, rounds: &[&[(&'static str, f64)]]) -> RowResults<Kind> {
        let measured = |&(peer, value): &(&'static str, f64)| (peer, Outcome::Measured(Sample::from([(key, value)])));
        let round = |values: &&[(&'static str, f64)]| values.iter().map(measured).collect::<BTreeMap<_, _>>();
        RowResults { row: kind, rounds: rounds.iter().map(round).collect() }
    }

    fn verdicts(rows: &[RowResults<Kind>], what: &str) -> Vec<Verdict> {
        let judgements = judge(rows, &PEERS);
        judgements.iter().filter(|judgement| judgement.text.contains(what)).map(|judgement| judgement.verdict).collect()
    }

    #[test]
    fn the_better_of_our_backends_is_judged() {
        let costs: &[_] = &[("tokio", 10.0), ("epoll", 9.0), ("midmile-epoll", 9.0), ("midmile-uring", 6.5)];
        let rows = [row(Kind::Ask { conns: 64 }, COST, &[costs])];
        assert_eq!(verdicts(&rows, "0.7 × tokio"), [Verdict::Pass]);
        assert_eq!(verdicts(&rows, "0.72 × epoll"), [Verdict::Fail]);
        // The stack wasn't measured.
        assert_eq!(verdicts(&rows, "0.34 × tokio"), [Verdict::Unknown]);
    }

    #[test]
    fn a_rate_that_falls_with_connections_is_found_within_each_round() {
        let rate = "requests_per_second";
        // The machine doubles its speed in the second round.
        let few = row(Kind::Ask { conns: 1000 }, rate, &[&[("midmile-epoll", 10.0)], &[("midmile-epoll", 20.0)]]);
        let most = row(Kind::Ask { conns: 20_000 }, rate, &[&[("midmile-epoll", 8.0)], &[("midmile-epoll", 16.0)]]);
        let flat = "midmile-epoll: rate ≥";
        assert_eq!(verdicts(&[few, most], flat), [Verdict::Fail]);
    }
}
