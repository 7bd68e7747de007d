//! A comparison: in every round of a row each peer has its turn.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::choice::Named;
use crate::quiet::Patience;
use crate::table::{Heading, Outcome, RowResults};

/// What a comparison may take, as the command line says.
pub(crate) struct Effort {
    /// A smoke run: one round, no patience.
    pub(crate) quick: bool,
    /// Rounds, if not the default.
    pub(crate) rounds: Option<u32>,
    /// Seconds to spend on waiting for quiet and measuring again, if not the default.
    pub(crate) patience: Option<u64>,
}

/// Whoever may be measured in rows of a kind.
pub(crate) trait Compared<R>: Named {
    /// Whether it has a place in a row; if not, its table doesn't have it either.
    fn has_place_in(&self, row: R) -> bool;
}

/// Whom to compare, and how often.
pub(crate) struct Comparison<P: 'static> {
    /// Those compared, in the order of the tables.
    pub(crate) peers: Vec<&'static P>,
    /// How often each is measured in a row that doesn't say otherwise.
    pub(crate) rounds: u32,
    patience: Patience,
}

impl<P> Comparison<P> {
    /// Nothing is measured yet.
    pub(crate) fn new(peers: Vec<&'static P>, effort: &Effort) -> Self {
        let (rounds, patience) = if effort.quick { (1, 0) } else { (5, 120) };
        let patience = Patience::new(Duration::from_secs(effort.patience.unwrap_or(patience)));
        Self { peers, rounds: effort.rounds.unwrap_or(rounds), patience }
    }

    /// Measures a row, all its rounds on end.
    pub(crate) fn row<R>(&self, row: R, measure: impl Fn(R, &'static P) -> Outcome) -> RowResults<R>
    where
        R: Heading + Copy,
        P: Compared<R>,
    {
        let mut results = RowResults::new(row);
        for round in 0..row.rounds(self.rounds) {
            let outcomes = self.round(row, round, &format!("{row} · round {}", round + 1), &measure);
            results.rounds.push(outcomes);
        }
        results
    }

    /// Measures rows, all of them in every round, so that a drift of the machine's speed meets all alike.
    pub(crate) fn rows<R>(
        &self,
        rows: impl IntoIterator<Item = R>,
        measure: impl Fn(R, &'static P) -> Outcome,
    ) -> Vec<RowResults<R>>
    where
        R: Heading + Copy,
        P: Compared<R>,
    {
        let mut rows: Vec<RowResults<R>> = rows.into_iter().map(RowResults::new).collect();
        for round in 0..self.rounds {
            for results in rows.iter_mut().filter(|results| round < results.row.rounds(self.rounds)) {
                let row = results.row;
                let outcomes = self.round(row, round, &format!("round {} · {row}", round + 1), &measure);
                results.rounds.push(outcomes);
            }
        }
        rows
    }

    fn round<R>(
        &self,
        row: R,
        round: u32,
        progress: &str,
        measure: impl Fn(R, &'static P) -> Outcome,
    ) -> BTreeMap<&'static str, Outcome>
    where
        R: Heading + Copy,
        P: Compared<R>,
    {
        let mut outcomes = BTreeMap::new();
        for peer in self.order(round).into_iter().filter(|peer| peer.has_place_in(row)) {
            let what = format!("{row} · {}", peer.name());
            let outcome = self.patience.measure(&what, || measure(row, peer));
            eprintln!("{progress} · {}: {}", peer.name(), outcome.progress(row.columns()));
            outcomes.insert(peer.name(), outcome);
        }
        outcomes
    }

    /// Every round starts with another peer, so that none is always the first after a pause.
    fn order(&self, round: u32) -> Vec<&'static P> {
        let mut order = self.peers.clone();
        let first = usize::try_from(round).unwrap_or(0) % order.len().max(1);
        order.rotate_left(first);
        order
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fmt;

    use super::*;
    use crate::rows::Column;

    struct Peer(&'static str);

    impl Named for Peer {
        fn name(&self) -> &'static str {
            self.0
        }
    }

    /// One is measured once, however many rounds there are.
    #[derive(Clone, Copy, PartialEq)]
    enum Row {
        Often,
        Once,
    }

    impl fmt::Display for Row {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(if *self == Self::Often { "often" } else { "once" })
        }
    }

    impl Heading for Row {
        fn columns(&self) -> &'static [Column] {
            &[]
        }

        fn rounds(&self, rounds: u32) -> u32 {
            if *self == Self::Often { rounds } else { 1 }
        }
    }

    impl Compared<Row> for Peer {
        fn has_place_in(&self, row: Row) -> bool {
            row == Row::Often || self.0 != "b"
        }
    }

    fn comparison() -> Comparison<Peer> {
        let effort = Effort { quick: true, rounds: Some(2), patience: None };
        Comparison::new(vec![&Peer("a"), &Peer("b"), &Peer("c")], &effort)
    }

    #[test]
    fn each_round_asks_everybody_in_every_row_and_begins_with_another() {
        let asked = RefCell::new(String::new());
        let results = comparison().rows([Row::Often, Row::Once], |row, peer| {
            asked.borrow_mut().push_str(&format!("{row} {}, ", peer.0));
            Outcome::Skipped("a test".to_owned())
        });
        assert_eq!(asked.into_inner(), "often a, often b, often c, once a, once c, often b, often c, often a, ");
        assert_eq!(results.iter().map(|results| results.rounds.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_row_by_itself_has_its_rounds_on_end() {
        let asked = RefCell::new(String::new());
        let results = comparison().row(Row::Often, |_, peer| {
            asked.borrow_mut().push_str(peer.0);
            Outcome::Skipped("a test".to_owned())
        });
        assert_eq!((asked.into_inner().as_str(), results.rounds.len()), ("abcbca", 2));
    }
}
