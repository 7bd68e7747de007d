//! The report as one HTML page that needs nothing else: pictures, table, scenario.

use std::fmt::Write;
use std::time::Duration;

use crate::direction::Counters;
use crate::report::{Report, Row, mean_lateness, shown};
use crate::waterfall;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1020px;margin:2em auto;padding:0 1em;color:#1f2328;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}
table{border-collapse:collapse;width:100%}td,th{padding:.3em .6em;border-bottom:1px solid #d0d7de;text-align:right}
td:first-child,th:first-child{text-align:left}tr.object th{text-align:left;background:#f6f8fa}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}.grid{stroke:#d8dee4;stroke-width:.6}
.host{stroke:#8c959f;stroke-width:1}.packet{stroke-width:1.8}.tick{fill:#656d76;text-anchor:middle}
pre{background:#f6f8fa;padding:1em;overflow:auto}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre,tr.object th{background:#161b22}svg text{fill:#e6edf3}}
";

impl Report {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let (name, title) = (escaped(&self.scenario.name), escaped(&self.scenario.title));
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>midmile lab: {name}</title>\n<style>{STYLE}</style></head>\n<body><h1>midmile lab: {name}</h1>\n<p>{title}</p>\n"
        );
        self.put_table(&mut page);
        self.put_pictures(&mut page);
        self.put_links(&mut page);
        put(
            &mut page,
            format_args!("<h2>The scenario</h2>\n<pre>{}</pre>\n</body></html>\n", escaped(&self.scenario.text)),
        );
        page
    }

    fn put_table(&self, page: &mut String) {
        page.push_str("<h2>Medians</h2>\n<table><tr><th>step</th><th>connect</th><th>TTFB</th><th>download</th><th>from – to</th><th>limit</th><th>ratio</th></tr>\n");
        for object in &self.scenario.objects {
            let name = escaped(&object.name);
            put(
                page,
                format_args!(
                    "<tr class=\"object\"><th colspan=\"7\">{name}: {} bytes, {} times</th></tr>\n",
                    object.bytes, object.repetitions
                ),
            );
            for row in self.rows.iter().filter(|row| row.object == object.name) {
                put_row(page, row);
            }
        }
        page.push_str("</table>\n");
        for (step, why) in &self.left_out {
            put(page, format_args!("<p>Left out: {step}: {}</p>\n", escaped(why)));
        }
        page.push_str("<p>The limit: the client's handshake with what is nearest, one round trip over the whole path, and the bytes at the rate of the slowest link; no handshake with Fast Open.</p>\n");
    }

    fn put_pictures(&self, page: &mut String) {
        let Some(span) = self.traces.iter().map(|trace| trace.visit.download).max() else { return };
        let span = span.max(Duration::from_millis(1)).mul_f64(1.05);
        put(
            page,
            format_args!("<h2>One visit on each step, as the links saw it</h2>\n<p>{}</p>\n", waterfall::legend()),
        );
        for trace in &self.traces {
            let (step, object) = (trace.step, escaped(&trace.object));
            let (ttfb, download) = (shown(trace.visit.ttfb), shown(trace.visit.download));
            put(
                page,
                format_args!(
                    "<h3>{step}: {}</h3>\n<p>{object}: first byte after {ttfb}, last after {download}</p>\n",
                    escaped(step.about())
                ),
            );
            put(page, format_args!("{}\n", waterfall::draw(trace, &self.scenario, span)));
        }
    }

    fn put_links(&self, page: &mut String) {
        page.push_str("<h2>What the links did</h2>\n<table><tr><th>step, link</th><th>packets</th><th>bytes</th><th>queue full</th><th>lost</th><th>late, mean</th><th>late, most</th></tr>\n");
        for (step, links) in &self.links {
            put(page, format_args!("<tr class=\"object\"><th colspan=\"7\">{step}</th></tr>\n"));
            for (place, link) in links.iter().enumerate() {
                let name = if place < self.scenario.links.len() { format!("link{place}") } else { "direct".to_owned() };
                put_link(page, &format!("{name}, to the server"), link.to_server);
                put_link(page, &format!("{name}, to the client"), link.to_client);
            }
        }
        page.push_str("</table>\n");
    }
}

fn put_link(page: &mut String, name: &str, counters: Counters) {
    let Counters { packets, bytes, queue_drops, losses, late_max, .. } = counters;
    let (mean, most) = (shown(mean_lateness(counters)), shown(late_max));
    put(page, format_args!("<tr><td>{name}</td><td>{packets}</td><td>{bytes}</td>"));
    put(page, format_args!("<td>{queue_drops}</td><td>{losses}</td><td>{mean}</td><td>{most}</td></tr>\n"));
}

fn put_row(page: &mut String, row: &Row) {
    let (connect, ttfb, download) = (shown(row.connect.median), shown(row.ttfb.median), shown(row.download.median));
    let (min, max, limit) = (shown(row.download.min), shown(row.download.max), shown(row.limit));
    put(page, format_args!("<tr><td>{}</td><td>{connect}</td><td>{ttfb}</td><td>{download}</td>", row.step));
    put(page, format_args!("<td>{min} – {max}</td><td>{limit}</td><td>{:.2}</td></tr>\n", row.ratio()));
}

/// Text that may come from a user's file.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn put(page: &mut String, more: std::fmt::Arguments<'_>) {
    write!(page, "{more}").expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn a_files_text_stays_text() {
        let mut scenario = Scenario::load("same-region").unwrap();
        scenario.title = "<script>alert(1)</script>".to_owned();
        let report = Report {
            scenario,
            rows: Vec::new(),
            traces: Vec::new(),
            links: Vec::new(),
            left_out: Vec::new(),
            idle: None,
        };
        let page = report.html();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
        assert!(!page.contains("http://") && !page.contains("https://"), "the page needs something else");
    }
}
