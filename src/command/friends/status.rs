//! `midmile friends status`: what is attached, asked of the kernel, and ring friends, asked of their processes.

use std::fmt::Write as _;

use bytesize::ByteSize;
use midmile_kernel::{Attachment, Figures, Holder};
use serde::Serialize;
use std::collections::BTreeMap;

use super::rings::Rings;
use crate::cli::FriendsStatusArgs;
use crate::exit::{Failure, Outcome};

pub(crate) fn run(args: &FriendsStatusArgs) -> Outcome {
    let (told, unknown) = match Attachment::all() {
        Ok(all) => (all.iter().map(Told::of).collect::<Result<Vec<_>, _>>()?, None),
        // Only root may ask the kernel; ring friends are the user's own.
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let document = Document { attachments: &told, attachments_unknown: unknown, rings: Rings::look()? };
    let text = if args.json { json(&document)? } else { document.report() };
    super::super::print(text.as_bytes())
}

/// All that is told.
#[derive(Debug, Serialize)]
struct Document<'a> {
    attachments: &'a [Told],
    /// Why the kernel couldn't be asked for attachments.
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments_unknown: Option<String>,
    rings: Rings,
}

impl Document<'_> {
    fn report(&self) -> String {
        let attached = match &self.attachments_unknown {
            Some(why) => format!("attachments can't be listed: {why}\n"),
            None => report(self.attachments),
        };
        format!("{attached}{}", self.rings)
    }
}

/// An attachment, as it is told.
#[derive(Debug, Serialize)]
struct Told {
    cgroup: String,
    /// `on`; `ending`, between detach and the process's end; `left-over`, of a process that is gone, for connections that were friends.
    state: &'static str,
    pid: u32,
    /// Ends of connections that are friends now; a connection has two.
    ends: usize,
    ends_total: u64,
    messages: u64,
    bytes: u64,
    turns: u64,
    /// How often each reason kept from it; those that never did are left out.
    reasons: BTreeMap<&'static str, u64>,
}

impl Told {
    fn of(attachment: &Attachment) -> Result<Self, Failure> {
        let figures =
            attachment.figures().map_err(|error| Failure::Run(format!("the counters of friends: {error}")))?;
        let is_on = attachment.is_on().map_err(|error| super::failure(&error))?;
        let (state, pid) = match attachment.holder() {
            Holder::Running(pid) => (if is_on { "on" } else { "ending" }, pid),
            Holder::Gone(pid) => ("left-over", pid),
        };
        let Figures { ends: ends_total, messages, bytes, turns, reasons } = figures;
        let reasons = reasons.into_iter().filter(|(_, count)| *count > 0);
        Ok(Self {
            cgroup: attachment.path().display().to_string(),
            state,
            pid,
            ends: attachment.ends(),
            ends_total,
            messages,
            bytes,
            turns,
            reasons: reasons.map(|(reason, count)| (reason.name(), count)).collect(),
        })
    }
}

/// Connections that have so many ends here.
pub(super) fn connections(ends: usize) -> String {
    match ends.div_ceil(2) {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    }
}

fn json(document: &Document<'_>) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(document);
    text.map(|text| text + "\n").map_err(|error| Failure::Run(format!("can't write JSON: {error}")))
}

fn report(told: &[Told]) -> String {
    if told.is_empty() {
        return "no friends are attached\n".to_owned();
    }
    let mut text = String::new();
    for one in told {
        let size = ByteSize::b(one.bytes).display().iec();
        let written = writeln!(
            text,
            "{}: {}, by process {}\n  {} now, {} ends since then\n  {size} in {} messages skipped TCP",
            one.cgroup,
            one.state,
            one.pid,
            connections(one.ends),
            one.ends_total,
            one.messages,
        );
        let mut reasons = one.reasons.iter();
        let written =
            written.and_then(|()| reasons.try_for_each(|(reason, count)| writeln!(text, "  {reason}: {count}")));
        written.expect("writing to a string never fails");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told {
            cgroup: "/sys/fs/cgroup/a".to_owned(),
            state: "on",
            pid: 7,
            ends: 3,
            ends_total: 8,
            messages: 5,
            bytes: 2048,
            turns: 4,
            reasons: BTreeMap::from([("receiver-full", 9)]),
        }
    }

    #[test]
    fn the_report_says_how_much_skips_tcp_and_why_the_rest_does_not() {
        let report = report(&[told()]);
        for said in
            ["/sys/fs/cgroup/a: on, by process 7", "2 connections now", "2.0 KiB in 5 messages", "receiver-full: 9"]
        {
            assert!(report.contains(said), "{report}");
        }
        assert_eq!(super::report(&[]), "no friends are attached\n");
    }

    #[test]
    fn the_document_has_the_same() {
        let attachments = [told()];
        let mut document = Document { attachments: &attachments, attachments_unknown: None, rings: Rings::default() };
        let json: serde_json::Value = serde_json::from_str(&json(&document).unwrap()).unwrap();
        assert_eq!(json["attachments"][0]["reasons"]["receiver-full"], 9);
        assert!(json.get("attachments_unknown").is_none() && json["rings"]["connections"].is_array());
        document.attachments_unknown = Some("not root".to_owned());
        assert_eq!(document.report(), "attachments can't be listed: not root\nno process has ring friends\n");
    }
}
