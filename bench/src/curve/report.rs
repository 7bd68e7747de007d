//! The report of a curve: markdown for people, JSON for machines.

use serde_json::{Value, json};

use super::peers::Peer;
use super::rows::Kind;
use crate::comparison::Compared;
use crate::judgement::{self, Judgement};
use crate::machine::Machine;
use crate::report::row_json;
use crate::rows::Column;
use crate::table::{Heading, RowResults, cell, push};

/// Those that all are compared to.
const AGAINST: [&str; 2] = ["tokio", "epoll"];

/// All that a run found out.
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// The servers.
    pub(crate) peers: Vec<&'static Peer>,
    /// How the run was made, and what has to be known of it; one line each.
    pub(crate) notes: Vec<String>,
    /// The measurements.
    pub(crate) rows: Vec<RowResults<Kind>>,
    /// The targets.
    pub(crate) judgements: Vec<Judgement>,
}

impl Report {
    /// The report as people read it.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## curve: servers on the engine beside others\n\n{}\n\n", self.machine.line());
        for peer in &self.peers {
            push(&mut text, format_args!("- `{}`: {}\n", peer.name, peer.version()));
        }
        text.push('\n');
        for note in &self.notes {
            push(&mut text, format_args!("- {note}\n"));
        }
        for row in &self.rows {
            push(&mut text, format_args!("\n{}", self.row(row)));
        }
        push(&mut text, format_args!("\n### targets: {}\n\n", judgement::met(&self.judgements)));
        for judgement in &self.judgements {
            push(&mut text, format_args!("- {judgement}\n"));
        }
        text
    }

    fn row(&self, row: &RowResults<Kind>) -> String {
        let peers = self.peers.iter().filter(|peer| peer.has_place_in(row.row));
        let names: Vec<&str> = peers.map(|peer| peer.name).collect();
        let columns: Vec<&Column> = row.row.columns().iter().filter(|column| row.has(&names, column)).collect();
        let judged: Vec<(&Column, &str)> =
            row.row.judged_by().iter().flat_map(|column| AGAINST.map(|peer| (column, peer))).collect();
        let mut text = format!("### {} (median of {})\n\n| server |", row.row, row.rounds.len());
        for (column, peer) in &judged {
            push(&mut text, format_args!(" {} ÷ {peer} |", column.title));
        }
        for column in &columns {
            push(&mut text, format_args!(" {} |", column.title));
        }
        push(&mut text, format_args!(" remark |\n| --- |{} --- |\n", " ---: |".repeat(judged.len() + columns.len())));
        for name in names {
            push(&mut text, format_args!("| {name} |"));
            for (column, peer) in &judged {
                push(&mut text, format_args!(" {} |", cell(row.ratio(name, peer, column.key), column.digits)));
            }
            for column in &columns {
                push(&mut text, format_args!(" {} |", cell(row.median(name, column.key), column.digits)));
            }
            push(&mut text, format_args!(" {} |\n", row.remark(name)));
        }
        text
    }

    /// The report with every single measurement.
    pub(crate) fn json(&self) -> Value {
        let peers: Vec<Value> = self.peers.iter().map(|peer| json!([peer.name, peer.version()])).collect();
        json!({
            "machine": self.machine.json(),
            "servers": peers,
            "notes": self.notes,
            "rows": self.rows.iter().map(row_json).collect::<Vec<Value>>(),
            "targets": judgement::json(&self.judgements),
        })
    }
}
