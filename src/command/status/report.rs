//! The status document for people: totals, a line a route, a line a peer, and what went otherwise than it should.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::document::{Counts, Document, Histogram, Peer, Route, Within};
use table::Table;

mod table;

/// Where there's nothing to say.
const NONE: &str = "-";

/// The report, with a line break at its end.
pub(super) fn of(document: &Document) -> String {
    let up = Duration::try_from_secs_f64(document.uptime_secs).unwrap_or_default();
    let mut text = totals(document, up);
    text.push_str(&routes(&document.routes, up));
    if document.routes.iter().any(|route| route.messages.is_some()) {
        text.push_str(&messages(&document.routes, up));
    }
    if !document.peers.is_empty() {
        text.push_str(&peers(&document.peers));
    }
    text.push_str(&matters(document));
    text
}

fn totals(document: &Document, up: Duration) -> String {
    let Document { version, state, cores, pairs_max, totals, .. } = document;
    let lasted = humantime::format_duration(Duration::from_secs(up.as_secs()));
    let (upstream, downstream) = (totals.upstream.bytes, totals.downstream.bytes);
    format!(
        "midmile {}: {} for {lasted}, loops: {cores}\n\
         pairs: {} open of at most {pairs_max}, {} opened ({} a second), {} connected\n\
         bytes: {} to servers ({} a second), {} to clients ({} a second)\n\n",
        plain(version),
        plain(state),
        totals.pairs_open,
        totals.pairs_opened,
        tenths_a_second(totals.pairs_opened, up),
        totals.pairs_connected,
        size(upstream),
        size(a_second(upstream, up)),
        size(downstream),
        size(a_second(downstream, up)),
    )
}

fn routes(routes: &[Route], up: Duration) -> String {
    let mut table = Table::new(
        &["ROUTE", "LISTENS AT"],
        &["OPEN", "OPENED", "A SECOND", "TO SERVERS", "TO CLIENTS", "CONNECT P50", "P99", "FIRST BYTE P50", "P99"],
    );
    for route in routes {
        let Counts { pairs_open, pairs_opened, upstream, downstream, .. } = &route.counts;
        let (connect, first_byte) = (&route.counts.accept_to_connected, &route.counts.accept_to_first_byte);
        table.add([
            plain(&route.name),
            if route.retired { "closed".to_owned() } else { plain(&route.listen) },
            pairs_open.to_string(),
            pairs_opened.to_string(),
            tenths_a_second(*pairs_opened, up),
            size(upstream.bytes),
            size(downstream.bytes),
            share(connect, 50),
            share(connect, 99),
            share(first_byte, 50),
            share(first_byte, 99),
        ]);
    }
    table.text()
}

fn messages(routes: &[Route], up: Duration) -> String {
    let mut table = Table::new(
        &["MESSAGES"],
        &["REQUESTS", "A SECOND", "UNANSWERED", "ANSWERS", "SENT AGAIN", "SERVFAIL", "DROPPED", "UPSTREAMS", "LOST"],
    );
    for (route, messages) in routes.iter().filter_map(|route| Some((route, route.messages.as_ref()?))) {
        table.add([
            plain(&route.name),
            messages.requests.to_string(),
            tenths_a_second(messages.requests, up),
            messages.open.to_string(),
            messages.answers.to_string(),
            messages.retries.to_string(),
            messages.servfails.to_string(),
            messages.answers_late.saturating_add(messages.answers_stray).to_string(),
            messages.upstreams.open.to_string(),
            messages.upstreams.lost.to_string(),
        ]);
    }
    format!("\n{}", table.text())
}

fn peers(peers: &[Peer]) -> String {
    let mut table =
        Table::new(&["PEER"], &["RTT", "SENT AGAIN", "DELIVERY RATE", "BEST", "READY", "UNDER WAY", "TAKEN", "MISSED"]);
    for peer in peers {
        table.add([
            plain(&peer.name),
            peer.rtt_us.map_or_else(|| NONE.to_owned(), time),
            loss(peer),
            peer.delivery_rate.map_or_else(|| NONE.to_owned(), bits),
            peer.delivery_rate_best.map_or_else(|| NONE.to_owned(), bits),
            peer.ready.to_string(),
            peer.under_way.to_string(),
            peer.taken.to_string(),
            peer.missed.to_string(),
        ]);
    }
    format!("\n{}", table.text())
}

/// Ends, refusals, early dials, lost trunk connections, and backends that are out; nothing of what never happened.
fn matters(document: &Document) -> String {
    let Counts { early_dials, early_used, early_wasted, early_declined, ends, refusals, .. } = &document.totals;
    let mut lines = vec![("ended", counts(ends)), ("refused", counts(refusals))];
    if early_dials.saturating_add(*early_declined) > 0 {
        let said = format!("begun {early_dials}, used {early_used}, wasted {early_wasted}, declined {early_declined}");
        lines.push(("early dials", Some(said)));
    }
    let losses =
        document.peers.iter().filter_map(|peer| Some(format!("{} ({})", plain(&peer.name), counts(&peer.losses)?)));
    lines.push(("lost before use", listed(losses)));
    let out = document.routes.iter().flat_map(|route| {
        let out = route.backends.iter().filter(|backend| !backend.healthy);
        out.map(|backend| format!("{} of {}", plain(&backend.name), plain(&route.name)))
    });
    lines.push(("backends out", listed(out)));
    let mut text = String::new();
    for (what, said) in lines.into_iter().filter_map(|(what, said)| Some((what, said?))) {
        let gap = if text.is_empty() { "\n" } else { "" };
        writeln!(text, "{gap}{what}: {said}").expect("a string takes all");
    }
    text
}

/// Those that aren't zero, the most frequent first.
fn counts(of: &BTreeMap<String, u64>) -> Option<String> {
    let mut some: Vec<_> = of.iter().filter(|(_, count)| **count > 0).collect();
    some.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    listed(some.into_iter().map(|(name, count)| format!("{} {count}", plain(name))))
}

fn listed(items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<_> = items.collect();
    (!items.is_empty()).then(|| items.join(", "))
}

/// A text from elsewhere without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// `count` in `up`, as so many a second.
fn a_second(count: u64, up: Duration) -> u64 {
    u64::try_from(u128::from(count) * 1000 / up.as_millis().max(1)).unwrap_or(u64::MAX)
}

/// With one decimal.
fn tenths_a_second(count: u64, up: Duration) -> String {
    let tenths = a_second(count.saturating_mul(10), up);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A time of so many microseconds, in the unit that suits it.
fn time(us: u64) -> String {
    let (unit, name) = match us {
        0..1_000 => return format!("{us} us"),
        1_000..1_000_000 => (1_000, "ms"),
        _ => (1_000_000, "s"),
    };
    match (us / unit, us % unit * 10 / unit) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenths) => format!("{whole}.{tenths} {name}"),
    }
}

/// The bound that `percent` of the times keep.
fn share(times: &Histogram, percent: u128) -> String {
    match times.within(percent) {
        None => NONE.to_owned(),
        Some(Within::UpTo(us)) => format!("<= {}", time(us)),
        Some(Within::Beyond(us)) => format!("> {}", time(us)),
    }
}

/// A rate in bytes a second, as bits: as paces are written.
fn bits(bytes_a_second: u64) -> String {
    let bits = u128::from(bytes_a_second) * 8;
    let (unit, name) = match bits {
        0..1_000_000 => (1_000, "kbit/s"),
        1_000_000..1_000_000_000 => (1_000_000, "Mbit/s"),
        _ => (1_000_000_000, "Gbit/s"),
    };
    format!("{}.{} {name}", bits / unit, bits % unit * 10 / unit)
}

/// The share of segments that had to be sent again.
fn loss(peer: &Peer) -> String {
    if peer.sent_segments == 0 {
        return NONE.to_owned();
    }
    let hundredths = u128::from(peer.retransmitted_segments) * 10_000 / u128::from(peer.sent_segments);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::super::document::sample;
    use super::*;

    #[test]
    fn a_report_says_what_the_document_says() {
        let report = of(&serde_json::from_value(sample()).unwrap());
        let wanted = "\
midmile 0.1.0: accepting for 1m, loops: 2
pairs: 4 open of at most 1000, 120 opened (2.0 a second), 110 connected
bytes: 2.9 KiB to servers (50 B a second), 6.0 GiB to clients (102.4 MiB a second)

ROUTE      LISTENS AT  OPEN  OPENED  A SECOND  TO SERVERS  TO CLIENTS  CONNECT P50        P99  FIRST BYTE P50       P99
web        0.0.0.0:80     4     120       2.0     2.9 KiB     6.0 GiB      <= 1 ms  <= 250 ms       <= 250 ms  > 250 ms
quiet?[2J  closed         4     120       2.0     2.9 KiB     6.0 GiB            -          -       <= 250 ms  > 250 ms

MESSAGES  REQUESTS  A SECOND  UNANSWERED  ANSWERS  SENT AGAIN  SERVFAIL  DROPPED  UPSTREAMS  LOST
web            600      10.0           3      590           4         5        2          4     2

PEER         RTT  SENT AGAIN  DELIVERY RATE          BEST  READY  UNDER WAY  TAKEN  MISSED
mumbai  218.3 ms      0.25 %   400.0 Mbit/s  480.0 Mbit/s      8          1     30       2
new            -           -              -             -      0          0      0       0

ended: finished 100, unclaimed 2
refused: not-allowed 3
early dials: begun 10, used 8, wasted 2, declined 1
lost before use: mumbai (handshake 3)
backends out: 10.0.0.1:80 of web
";
        assert_eq!(report, wanted);
    }

    #[test]
    fn what_never_happened_isnt_mentioned() {
        let mut quiet = sample();
        for counts in ["ends", "refusals"] {
            quiet["totals"][counts] = serde_json::json!({"finished": 0});
        }
        for count in ["early_dials", "early_declined"] {
            quiet["totals"][count] = 0.into();
        }
        quiet["peers"] = serde_json::json!([]);
        quiet["routes"] = serde_json::json!([]);
        let report = of(&serde_json::from_value(quiet).unwrap());
        assert!(report.lines().last().unwrap().starts_with("ROUTE"), "{report}");
    }

    #[test]
    fn figures_have_the_unit_that_suits_them() {
        let times = [(0, "0 us"), (999, "999 us"), (2_500, "2.5 ms"), (250_000, "250 ms"), (5_000_000, "5 s")];
        assert_eq!(times.map(|(us, _)| time(us)), times.map(|(_, text)| text));
        let rates = [(0, "0.0 kbit/s"), (12_345, "98.7 kbit/s"), (60_000_000, "480.0 Mbit/s")];
        assert_eq!(rates.map(|(rate, _)| bits(rate)), rates.map(|(_, text)| text));
        assert_eq!(tenths_a_second(u64::MAX, Duration::ZERO), "1844674407370955161.5");
    }
}
