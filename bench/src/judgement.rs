//! What is said of a target: whether it is met.

use std::fmt;

use serde_json::{Value, json};

use crate::quiet::OTHERS_PERCENT_MAX;
use crate::rows::OTHERS;
use crate::table::{Heading, RowResults};

/// Whether a target is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Pass,
    /// It isn't.
    Fail,
    /// There is nothing to judge by.
    Unknown,
}

impl Verdict {
    /// Of what is known to be met or missed, or of what isn't known.
    pub(crate) const fn of(met: Option<bool>) -> Self {
        match met {
            Some(true) => Self::Pass,
            Some(false) => Self::Fail,
            None => Self::Unknown,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Unknown => "n/a ",
        })
    }
}

/// What stands for a value that there isn't.
pub(crate) const NOT_MEASURED: &str = "not measured";

/// A target's verdict in a row.
pub(crate) struct Judgement {
    /// Whether it is met.
    pub(crate) verdict: Verdict,
    /// Row, target and the number it was judged by.
    pub(crate) text: String,
}

impl Judgement {
    /// Judges a value, if there is one.
    pub(crate) fn of(text: &str, measured: Option<f64>, met: impl Fn(f64) -> bool) -> Self {
        let by = measured.map_or_else(|| NOT_MEASURED.to_owned(), |value| format!("{value:.3}"));
        Self { verdict: Verdict::of(measured.map(met)), text: format!("{text}: {by}") }
    }

    /// A verdict on a machine that was busy with something else while `subject` was measured is worth little; the reader is told.
    pub(crate) fn unless_disturbed<R: Heading>(mut self, results: &RowResults<R>, subject: &str) -> Self {
        if let Some(others) = results.median(subject, OTHERS.key).filter(|&others| others > OTHERS_PERCENT_MAX) {
            self.text += &format!(" (DISTURBED: others used {others:.0} % of a CPU)");
        }
        self
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verdict, self.text)
    }
}

/// How many targets are met, of those that could be judged.
pub(crate) fn met(judgements: &[Judgement]) -> String {
    let passed = judgements.iter().filter(|judgement| judgement.verdict == Verdict::Pass).count();
    let judged = judgements.iter().filter(|judgement| judgement.verdict != Verdict::Unknown).count();
    format!("{passed} of {judged} met")
}

/// Judgements for machines.
pub(crate) fn json(judgements: &[Judgement]) -> Vec<Value> {
    let one =
        |judgement: &Judgement| json!({ "verdict": judgement.verdict.to_string().trim(), "text": judgement.text });
    judgements.iter().map(one).collect()
}
