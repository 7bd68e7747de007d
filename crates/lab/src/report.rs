//! What a run found: a table for people, JSON for programs. The page for browsers is made of the same.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::direction::Counters;
use crate::emulator::{LinkCounters, Sighting};
use crate::scenario::Scenario;
use crate::steps::Step;
use crate::visit::Visit;

/// Links that are later than this make figures of their own.
const LATE_MAX: Duration = Duration::from_millis(2);

/// Median, least and most of some durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The one in the middle; of two, their mean.
    pub median: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// One object on one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What stood between client and server.
    pub step: Step,
    /// What was fetched.
    pub object: String,
    /// Until the client's connection stood.
    pub connect: Spread,
    /// Until the first byte.
    pub ttfb: Spread,
    /// Until the last.
    pub download: Spread,
    /// From the first byte's departure at the server to the last one's arrival, over gateways: the last after the first, and the
    /// delays of the links.
    pub one_way: Option<Spread>,
    /// The least time that the last byte can take: see [`Scenario::limit`].
    pub limit: Duration,
}

/// Steps that weren't run, each with the reason.
pub type LeftOut = Vec<(Step, String)>;

/// A visit and the packets that the links saw of it.
#[derive(Clone, Debug)]
pub struct TracedVisit {
    /// What stood between client and server.
    pub step: Step,
    /// What was fetched.
    pub object: String,
    /// What it took.
    pub visit: Visit,
    /// In the order of arrival.
    pub sightings: Vec<Sighting>,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where.
    pub scenario: Scenario,
    /// By step, then by object.
    pub rows: Vec<Row>,
    /// One visit of each step, if that was asked for.
    pub traces: Vec<TracedVisit>,
    /// What the links did on each step: those of the row, then the direct one.
    pub links: Vec<(Step, Vec<LinkCounters>)>,
    /// Steps that can't be had here, and why.
    pub left_out: LeftOut,
    /// How long nothing had happened before each visit, if that was asked for.
    pub idle: Option<Duration>,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    scenario: &'a str,
    rows: Vec<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    step: Step,
    object: &'a str,
    ttfb_ms: JsonSpread,
    download_ms: JsonSpread,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_way_ms: Option<JsonSpread>,
    limit_ms: f64,
}

#[derive(Serialize)]
struct JsonSpread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one duration; of none, nothing.
    pub(crate) fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = durations.collect();
        sorted.sort_unstable();
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: (low + high) / 2, min: *min, max: *max }
    }
}

impl Row {
    /// How many times the limit its median download took.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.download.median.as_secs_f64() / self.limit.as_secs_f64()
    }
}

impl Report {
    /// One table: for each object, the steps.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}: {}\n", self.scenario.name, self.scenario.title);
        for object in &self.scenario.objects {
            let visits = if object.repetitions == 1 {
                "1 visit".to_owned()
            } else {
                format!("median of {}", object.repetitions)
            };
            let head = format!("{}, {visits}", object.name);
            line(&mut text, format_args!("\n{head:<30}{:>12}{:>14}{:>12}{:>9}", "TTFB", "download", "limit", "ratio"));
            for row in self.rows.iter().filter(|row| row.object == object.name) {
                let (ttfb, download) = (shown(row.ttfb.median), shown(row.download.median));
                let (limit, ratio) = (shown(row.limit), row.ratio());
                line(&mut text, format_args!("{:<30}{ttfb:>12}{download:>14}{limit:>12}{ratio:>9.2}", row.step.name()));
                if let (Some(idle), Some(one_way)) = (self.idle, row.one_way) {
                    let (median, min, max) = (shown(one_way.median), shown(one_way.min), shown(one_way.max));
                    line(&mut text, format_args!("  idle for {idle:?}, one way: {median} ({min} to {max})"));
                }
            }
        }
        if !self.left_out.is_empty() {
            text.push('\n');
        }
        for (step, why) in &self.left_out {
            line(&mut text, format_args!("left out: {step}: {why}"));
        }
        let late = self.lateness();
        if late > LATE_MAX {
            let late = shown(late);
            line(
                &mut text,
                format_args!(
                    "\nthe links were late by {late} on average: the machine is too busy for these figures to count"
                ),
            );
        }
        text
    }

    /// By how much the links were late, on average, in the worst direction of all links and steps.
    #[must_use]
    pub fn lateness(&self) -> Duration {
        let all = self.links.iter().flat_map(|(_, links)| links).flat_map(|link| [link.to_server, link.to_client]);
        all.filter(|counters| counters.deliveries > 0).map(mean_lateness).max().unwrap_or_default()
    }

    /// The figures, in milliseconds.
    ///
    /// # Errors
    /// None that a report can cause: the writer's own.
    pub fn json(&self) -> serde_json::Result<String> {
        let rows = self.rows.iter().map(|row| JsonRow {
            step: row.step,
            object: &row.object,
            ttfb_ms: row.ttfb.into(),
            download_ms: row.download.into(),
            one_way_ms: row.one_way.filter(|_| self.idle.is_some()).map(Into::into),
            limit_ms: milliseconds(row.limit),
        });
        let report = JsonReport { scenario: &self.scenario.name, rows: rows.collect() };
        serde_json::to_string_pretty(&report).map(|text| text + "\n")
    }
}

impl From<Spread> for JsonSpread {
    fn from(spread: Spread) -> Self {
        let Spread { median, min, max } = spread;
        Self { median: milliseconds(median), min: milliseconds(min), max: milliseconds(max) }
    }
}

/// By how much a direction's deliveries came after their time, on average.
pub(crate) fn mean_lateness(counters: Counters) -> Duration {
    let deliveries = u32::try_from(counters.deliveries.max(1)).unwrap_or(u32::MAX);
    counters.late / deliveries
}

/// With tenths: the lab is no more exact than that.
pub(crate) fn shown(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn line(text: &mut String, more: std::fmt::Arguments<'_>) {
    writeln!(text, "{more}").expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let scenario = Scenario::load("pathway").unwrap();
        let spread = Spread::of([3, 1, 2].into_iter().map(Duration::from_millis));
        let limit = Duration::from_micros(302_800);
        let row = Row {
            step: Step::Split,
            object: "1MiB".to_owned(),
            connect: spread,
            ttfb: spread,
            download: spread,
            one_way: Some(spread),
            limit,
        };
        Report { scenario, rows: vec![row], traces: Vec::new(), links: Vec::new(), left_out: Vec::new(), idle: None }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = |times: &[u64]| Spread::of(times.iter().copied().map(Duration::from_millis)).median;
        assert_eq!(spread(&[5, 1, 9]), Duration::from_millis(5));
        assert_eq!(spread(&[4, 1, 2, 9]), Duration::from_millis(3));
        assert_eq!(spread(&[]), Duration::ZERO);
    }

    #[test]
    fn json_has_the_agreed_keys() {
        let value: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        let expected = serde_json::json!({"scenario": "pathway", "rows": [{
            "step": "split", "object": "1MiB",
            "ttfb_ms": {"median": 2.0, "min": 1.0, "max": 3.0},
            "download_ms": {"median": 2.0, "min": 1.0, "max": 3.0},
            "limit_ms": 302.8,
        }]});
        assert_eq!(value, expected);
    }

    #[test]
    fn the_table_has_the_row() {
        let table = report().table();
        assert!(table.lines().any(|line| line.starts_with("split") && line.contains("302.8 ms")), "{table}");
    }
}
