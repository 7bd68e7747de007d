//! Results of the rows: medians over rounds, ratios within rounds, markdown.
//!
//! The host's speed drifts by tens of per cent between rounds, so a ratio is always taken between two measurements of
//! the same round, and the median is over those ratios.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use crate::quiet::OTHERS_PERCENT_MAX;
use crate::rows::{Column, OTHERS, Row, Sample};

/// What a row of a comparison is: its title, and what is measured in it.
pub(crate) trait Heading: std::fmt::Display {
    /// The columns of its table.
    fn columns(&self) -> &'static [Column];

    /// How often it's measured in a run of so many rounds.
    fn rounds(&self, rounds: u32) -> u32;
}

impl Heading for Row {
    fn columns(&self) -> &'static [Column] {
        self.kind.columns()
    }

    fn rounds(&self, rounds: u32) -> u32 {
        self.kind.rounds(rounds)
    }
}

/// How one measurement went.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It has values.
    Measured(Sample),
    /// The peer has no part in this row, and why.
    Skipped(String),
    /// It went wrong, and how.
    Failed(String),
}

impl From<Result<Sample>> for Outcome {
    fn from(measured: Result<Sample>) -> Self {
        match measured {
            Ok(sample) => Self::Measured(sample),
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

impl Outcome {
    /// Itself as a line of progress.
    pub(crate) fn progress(&self, columns: &[Column]) -> String {
        match self {
            Self::Measured(sample) => {
                let values = columns.iter().filter_map(|column| {
                    Some(format!("{:.*} {}", column.digits, sample.get(column.key)?, column.title))
                });
                values.collect::<Vec<_>>().join(", ")
            }
            Self::Skipped(why) => format!("skipped: {why}"),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }

    /// Whether others ran beside the measurement.
    pub(crate) fn is_disturbed(&self) -> bool {
        match self {
            Self::Measured(sample) => sample.get(OTHERS.key).is_some_and(|&others| others > OTHERS_PERCENT_MAX),
            Self::Skipped(_) | Self::Failed(_) => false,
        }
    }
}

/// All measurements of a row.
pub(crate) struct RowResults<R = Row> {
    /// The row.
    pub(crate) row: R,
    /// For each round, outcomes by peer.
    pub(crate) rounds: Vec<BTreeMap<&'static str, Outcome>>,
}

impl<R: Heading> RowResults<R> {
    /// A row without measurements.
    pub(crate) const fn new(row: R) -> Self {
        Self { row, rounds: Vec::new() }
    }

    /// The median over rounds of a peer's value.
    pub(crate) fn median(&self, peer: &str, key: &str) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| value(round, peer, key)).collect())
    }

    /// The median over rounds of `subject`'s value divided by `peer`'s in the same round.
    pub(crate) fn ratio(&self, subject: &str, peer: &str, key: &str) -> Option<f64> {
        let of_round = |round| Some(value(round, subject, key)? / value(round, peer, key)?);
        median(self.rounds.iter().filter_map(of_round).collect())
    }

    /// Why a peer has no values, or how often it failed.
    pub(crate) fn remark(&self, peer: &str) -> String {
        let outcomes: Vec<&Outcome> = self.rounds.iter().filter_map(|round| round.get(peer)).collect();
        let failures: Vec<&String> = outcomes
            .iter()
            .filter_map(|outcome| if let Outcome::Failed(error) = outcome { Some(error) } else { None })
            .collect();
        if let Some(first) = failures.first() {
            return format!("failed in {} of {} rounds: {first}", failures.len(), outcomes.len());
        }
        match outcomes.first() {
            Some(Outcome::Skipped(why)) => format!("skipped: {why}"),
            _ => String::new(),
        }
    }

    /// The row's table, with a column that compares `subject` to each peer.
    pub(crate) fn markdown(&self, peers: &[&'static str], subject: &str) -> String {
        let columns: Vec<&Column> = self.row.columns().iter().filter(|column| self.has(peers, column)).collect();
        let mut text = format!("### {} (median of {})\n\n| proxy |", self.row, self.rounds.len());
        for column in &columns {
            push(&mut text, format_args!(" {} |", column.title));
        }
        if let Some(first) = columns.first() {
            push(&mut text, format_args!(" {subject} ÷ this, {} |", first.title));
        }
        push(&mut text, format_args!(" remark |\n| --- |{} --- |\n", " ---: |".repeat(columns.len() + 1)));
        for peer in peers {
            push(&mut text, format_args!("| {peer} |"));
            for column in &columns {
                push(&mut text, format_args!(" {} |", cell(self.median(peer, column.key), column.digits)));
            }
            let ratio = columns.first().and_then(|first| self.ratio(subject, peer, first.key));
            push(&mut text, format_args!(" {} | {} |\n", cell(ratio, 2), self.remark(peer)));
        }
        text
    }

    /// Whether any of `peers` has a value in the column.
    pub(crate) fn has(&self, peers: &[&str], column: &Column) -> bool {
        peers.iter().any(|peer| self.median(peer, column.key).is_some())
    }
}

/// Appends to a text.
pub(crate) fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).expect("a String takes all that is written to it");
}

/// A value as a cell of a table.
pub(crate) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A value of one round.
pub(crate) fn value(round: &BTreeMap<&'static str, Outcome>, peer: &str, key: &str) -> Option<f64> {
    match round.get(peer)? {
        Outcome::Measured(sample) => sample.get(key).copied().filter(|value| value.is_finite()),
        Outcome::Skipped(_) | Outcome::Failed(_) => None,
    }
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Gro;
    use crate::rows::Kind;

    fn results(rounds: &[(f64, f64)]) -> RowResults {
        let measured = |value| Outcome::Measured(Sample::from([("gbytes_per_second", value)]));
        let round = |&(a, b): &(f64, f64)| BTreeMap::from([("a", measured(a)), ("b", measured(b))]);
        let row = Row { kind: Kind::Bulk { conns: 1 }, gro: Gro::Off };
        RowResults { row, rounds: rounds.iter().map(round).collect() }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, f64::NAN, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // A host that doubles its speed in round two leaves every ratio alone.
        let results = results(&[(1.0, 2.0), (2.0, 4.0), (1.0, 2.0)]);
        assert_eq!(results.ratio("a", "b", "gbytes_per_second"), Some(0.5));
    }

    #[test]
    fn a_failed_round_is_said() {
        let mut results = results(&[(1.0, 2.0), (1.0, 2.0)]);
        results.rounds[1].insert("b", Outcome::Failed("it fell over".to_owned()));
        let markdown = results.markdown(&["a", "b"], "a");
        assert!(markdown.contains("failed in 1 of 2 rounds: it fell over"), "{markdown}");
    }
}
