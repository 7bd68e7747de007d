//! The report of a run: markdown for people, JSON for machines.

use serde_json::{Value, json};

use crate::judgement::{self, Judgement};
use crate::machine::Machine;
use crate::rows::Row;
use crate::table::{Heading, Outcome, RowResults};

/// All that a run found out.
pub(crate) struct Report<R = Row> {
    /// The command that made it.
    pub(crate) title: &'static str,
    /// Where.
    pub(crate) machine: Machine,
    /// Peer and version, or why there is none.
    pub(crate) peers: Vec<(&'static str, String)>,
    /// The peer the others are compared to.
    pub(crate) subject: String,
    /// How the run was made.
    pub(crate) settings: String,
    /// The measurements.
    pub(crate) rows: Vec<RowResults<R>>,
    /// The targets.
    pub(crate) judgements: Vec<Judgement>,
}

impl<R: Heading> Report<R> {
    /// The report as people read it.
    pub(crate) fn markdown(&self) -> String {
        let versions: Vec<String> = self.peers.iter().map(|(name, version)| format!("{name}: {version}")).collect();
        let mut sections = vec![
            format!("## {}: {} beside its peers", self.title, self.subject),
            format!("{}\\\n{}\\\n{}", self.machine.line(), versions.join(" · "), self.settings),
        ];
        let names: Vec<&'static str> = self.peers.iter().map(|(name, _)| *name).collect();
        sections.extend(self.rows.iter().map(|row| row.markdown(&names, &self.subject).trim_end().to_owned()));
        sections.push(format!("### targets: {} by {}", judgement::met(&self.judgements), self.subject));
        let lines: Vec<String> = self.judgements.iter().map(|judgement| format!("- {judgement}")).collect();
        sections.push(lines.join("\n"));
        sections.join("\n\n") + "\n"
    }

    /// The report with every single measurement.
    pub(crate) fn json(&self) -> Value {
        let peers: Vec<Value> = self.peers.iter().map(|(name, version)| json!([name, version])).collect();
        let rows: Vec<Value> = self.rows.iter().map(row_json).collect();
        json!({
            "machine": self.machine.json(),
            "peers": peers,
            "subject": self.subject,
            "settings": self.settings,
            "rows": rows,
            "targets": judgement::json(&self.judgements),
        })
    }
}

/// A row with every single measurement.
pub(crate) fn row_json<R: Heading>(results: &RowResults<R>) -> Value {
    let rounds: Vec<Value> = results
        .rounds
        .iter()
        .map(|round| round.iter().map(|(peer, outcome)| ((*peer).to_owned(), outcome_json(outcome))).collect())
        .collect();
    json!({ "row": results.row.to_string(), "rounds": rounds })
}

fn outcome_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Measured(sample) => json!(sample),
        Outcome::Skipped(why) => json!({ "skipped": why }),
        Outcome::Failed(why) => json!({ "failed": why }),
    }
}
