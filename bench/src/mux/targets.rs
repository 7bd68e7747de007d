//! The targets that midmile is held to.

use super::peers::{AGAINST, BUSY, DIRECT, SUBJECT};
use super::rows::{Kind, P50, PER_CORE, PER_CPU, RATIO, SLOW_P99};
use crate::judgement::Judgement;
use crate::rows::Column;
use crate::table::{RowResults, median, value};

/// Answers of a proxy's CPU, of those of dnsdist's.
const PIPELINED_AT_LEAST: f64 = 2.0;
const VISIT_AT_LEAST: f64 = 1.5;
/// What is added to the median without a proxy, of what dnsdist adds.
const ADDED_AT_MOST: f64 = 0.5;
const CLIENTS_AT_LEAST: f64 = 1000.0;
const SLOW_P99_AT_MOST: f64 = 1.5;

/// Judges midmile in every row.
pub(crate) fn judge(rows: &[RowResults<Kind>]) -> Vec<Judgement> {
    rows.iter().flat_map(of_row).collect()
}

fn of_row(row: &RowResults<Kind>) -> Vec<Judgement> {
    let per_cpu = |at_least: f64| {
        [&PER_CPU, &PER_CORE].map(|column| {
            let text = format!("{} ≥ {at_least} × {AGAINST}", column.title);
            verdict(row, &text, row.ratio(SUBJECT, AGAINST, column.key), |ratio| ratio >= at_least)
        })
    };
    let own = |text: &str, column: &Column, met: fn(f64) -> bool| {
        vec![verdict(row, text, row.median(SUBJECT, column.key), met)]
    };
    match row.row {
        Kind::Alone => {
            let of = |peer| {
                let text = format!("{peer}: added p50 ≤ {ADDED_AT_MOST} × {AGAINST}'s");
                verdict(row, &text, added(row, peer), |ratio| ratio <= ADDED_AT_MOST)
            };
            [SUBJECT, BUSY].map(of).into()
        }
        Kind::Pipelined => per_cpu(PIPELINED_AT_LEAST).into(),
        Kind::Visit => per_cpu(VISIT_AT_LEAST).into(),
        Kind::Idle { .. } => own("clients : backend connections ≥ 1,000", &RATIO, |ratio| ratio >= CLIENTS_AT_LEAST),
        Kind::Slow { .. } => own("good clients' p99 ≤ 1.5 × without", &SLOW_P99, |ratio| ratio <= SLOW_P99_AT_MOST),
        Kind::Laggard => own("quick answers' p99 ≤ 1.5 × without", &SLOW_P99, |ratio| ratio <= SLOW_P99_AT_MOST),
        Kind::Many => Vec::new(),
    }
}

/// What one of ours adds to the median, of what the other adds, within each round.
fn added(row: &RowResults<Kind>, peer: &str) -> Option<f64> {
    let ratios = row.rounds.iter().filter_map(|round| {
        let [direct, ours, theirs] = [DIRECT, peer, AGAINST].map(|peer| value(round, peer, P50.key));
        Some((ours? - direct?) / (theirs? - direct?))
    });
    median(ratios.collect())
}

fn verdict(row: &RowResults<Kind>, text: &str, measured: Option<f64>, met: impl Fn(f64) -> bool) -> Judgement {
    Judgement::of(&format!("{}: {text}", row.row), measured, met).unless_disturbed(row, SUBJECT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::judgement::Verdict;
    use crate::rows::Sample;
    use crate::table::Outcome;

    fn row(kind: Kind, column: &Column, rounds: &[[f64; 3]]) -> RowResults<Kind> {
        let round = |values: &[f64; 3]| {
            let of = |(peer, &value)| (peer, Outcome::Measured(Sample::from([(column.key, value)])));
            [DIRECT, SUBJECT, AGAINST].into_iter().zip(values).map(of).collect::<BTreeMap<_, _>>()
        };
        RowResults { row: kind, rounds: rounds.iter().map(round).collect() }
    }

    #[test]
    fn what_is_added_is_compared_within_each_round() {
        // The second round is on a machine of half the speed.
        let rounds = [[40.0, 50.0, 65.0], [80.0, 100.0, 130.0]];
        let judgements = judge(&[row(Kind::Alone, &P50, &rounds)]);
        assert_eq!(judgements[0].verdict, Verdict::Pass, "{}", judgements[0].text);
        let judgements = judge(&[row(Kind::Alone, &P50, &[[40.0, 50.0, 55.0]])]);
        assert_eq!(judgements[0].verdict, Verdict::Fail, "{}", judgements[0].text);
    }

    #[test]
    fn what_was_not_measured_is_no_verdict() {
        let judgements = judge(&[row(Kind::Pipelined, &PER_CPU, &[[f64::NAN, 3.0, 1.0]])]);
        assert_eq!(
            judgements.iter().map(|judgement| judgement.verdict).collect::<Vec<_>>(),
            [Verdict::Pass, Verdict::Unknown]
        );
    }
}
