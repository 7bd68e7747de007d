//! The exposition obeys the rules that promtool and the OpenMetrics text format set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use midmile_engine::Addr;
use midmile_gateway::{Flow, Limits, WaitBy};

use super::*;
use crate::admin::status;

fn route(name: &str, retired: bool) -> RouteSnapshot {
    let mut buckets = [0; TIME_BOUNDS_US.len() + 1];
    (buckets[0], buckets[3], buckets[TIME_BOUNDS_US.len()]) = (1, 5, 2);
    let times = Times { buckets, sum_us: 2_500_000 };
    let mut ends = [0; End::COUNT];
    ends[End::ClientReset.index()] = 3;
    RouteSnapshot {
        name: name.into(),
        listen: Addr::Inet(([127, 0, 0, 1], 80).into()),
        pairs_open: 4,
        pairs_opened: 12,
        connected: 8,
        dial_retries: 1,
        early_dials: 3,
        early_used: 2,
        early_wasted: 1,
        early_declined: 1,
        ends,
        refusals: [7; Refusal::COUNT],
        upstream: Flow { copied_bytes: 100, spliced_bytes: 200 },
        downstream: Flow { copied_bytes: 1, spliced_bytes: 2 },
        connect: times,
        first_byte: times,
        backends: ["10.0.0.1:80", "unix:/a\"b\\c"]
            .map(|name| BackendSnapshot { name: name.into(), healthy: true, open: 2 })
            .into(),
        messages: (name == "dns").then_some(MessagesSnapshot {
            requests: 50,
            request_bytes: 2000,
            requests_open: 3,
            answers: 44,
            answer_bytes: 9000,
            retries: 2,
            servfails: 1,
            suspects: 2,
            declined: 1,
            malformed: [6; Malformed::COUNT],
            requests_max: 1,
            answers_late: 4,
            answers_stray: 5,
            transfers_unclear: 7,
            transfers_held: 8,
            requests_misframed: [3; FrameError::COUNT],
            answers_misframed: [4; FrameError::COUNT],
            upstreams_open: 6,
            upstreams_dialled: 9,
            dials_failed: 1,
            upstreams_lost: 2,
            datagrams: DatagramsSnapshot {
                sent: 30,
                again: 3,
                failed: 1,
                sockets_open: 8,
                binds_failed: 1,
                detours: [2; Detour::COUNT],
            },
        }),
        retired,
    }
}

fn peer() -> PeerSnapshot {
    PeerSnapshot {
        name: "mumbai".parse().unwrap(),
        ready: 8,
        under_way: 1,
        taken: 30,
        missed: 2,
        dials: 45,
        losses: [1; PoolLoss::COUNT],
        retries: 1,
        rtt_us: 218_000,
        sent_segments: 4000,
        retransmitted_segments: 10,
        delivery_rate: 50_000_000,
        delivery_rate_best: 60_000_000,
    }
}

fn view(routes: Vec<RouteSnapshot>) -> View {
    let uptime = Duration::from_millis(1500);
    let snapshot = Snapshot {
        uptime,
        cores: 2,
        routes,
        peers: vec![peer()],
        pipes: 3,
        pipes_leased: 2,
        pipes_missed: 1,
        turns: 9,
        panics: 0,
        stalls: 0,
        reports_lost: 0,
    };
    let limits = Limits {
        cores: 2,
        wait_by: WaitBy::Epoll,
        busy_poll: Duration::ZERO,
        pairs_max: 100,
        pooled_max: 0,
        upstreams_max: 0,
        message_max: 0,
        pipes_max: 10,
        pipe_bytes: 4096,
    };
    View::new(snapshot, false, limits)
}

fn exposed() -> String {
    super::encode(view(vec![
        route("web", false),
        route("db", false),
        route("web", true),
        route("dns", false),
        route("dns", true),
    ]))
    .unwrap()
}

/// One sample: its name, its labels, its value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A metric family, as declared.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

fn is_name(text: &str) -> bool {
    text.chars().enumerate().all(|(at, c)| c.is_ascii_lowercase() || c == '_' || (at > 0 && c.is_ascii_digit()))
        && !text.is_empty()
}

/// Reads labels; panics where a promtool would complain.
fn labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("label=\"value\"");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => value.push(chars.next().unwrap().1),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} is there twice");
        text = rest[end + 1..].trim_start_matches(',');
    }
    labels
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().expect("a number");
    let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
    Sample { name: name.to_owned(), labels: labels(rest.strip_suffix('}').unwrap()), value }
}

/// Reads an exposition by the rules: one HELP and TYPE a family, before its samples, and its samples together.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut current = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} is declared twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            let family = families.get_mut(name).unwrap();
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{name}");
            kind.clone_into(&mut family.kind);
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name == current && name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let sample = sample(line);
            assert!(sample.name.starts_with(&current), "{line} stands in {current}");
            families.get_mut(&current).unwrap().samples.push(sample);
        }
    }
    families
}

#[test]
fn it_obeys_the_rules_of_the_format() {
    let mut series = BTreeSet::new();
    for (name, family) in families(&exposed()) {
        assert!(is_name(&name) && name.starts_with("midmile_"), "{name}");
        assert!(family.help.ends_with('.') && !family.samples.is_empty(), "{name}: {}", family.help);
        assert!(!name.ends_with("_total") && !name.ends_with("_count") && !name.ends_with("_sum"), "{name}");
        for sample in &family.samples {
            let suffix = sample.name.strip_prefix(&name).unwrap();
            let allowed: &[&str] = match &*family.kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{name} is a {other}"),
            };
            assert!(allowed.contains(&suffix), "{sample:?} in a {}", family.kind);
            assert!(series.insert(format!("{}{:?}", sample.name, sample.labels)), "{sample:?} is there twice");
        }
    }
}

#[test]
fn histograms_are_cumulative_and_end_with_their_count() {
    let families = families(&exposed());
    for name in ["midmile_connect_seconds", "midmile_ttfb_seconds"] {
        assert_is_histogram(&families[name], name);
    }
}

fn assert_is_histogram(family: &Family, histogram: &str) {
    for route in ["web", "db"] {
        let of = |suffix: &str| {
            let name = format!("{histogram}_{suffix}");
            family.samples.iter().filter(move |sample| sample.name == name && sample.labels["route"] == route)
        };
        let buckets: Vec<_> = of("bucket").map(|sample| (sample.labels["le"].clone(), sample.value)).collect();
        assert_eq!(buckets.len(), TIME_BOUNDS_US.len() + 1);
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
        let bounds: Vec<f64> = buckets.iter().map(|(le, _)| le.parse().unwrap()).collect();
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{bounds:?}");
        let count = of("count").next().unwrap().value;
        assert_eq!(buckets.last().unwrap(), &("+Inf".to_owned(), count));
    }
    let sum = family.samples.iter().find(|sample| sample.name.ends_with("_sum") && sample.labels["route"] == "db");
    assert!((sum.unwrap().value - 2.5).abs() < 1e-9);
}

/// The one sample with these labels.
fn value(families: &BTreeMap<String, Family>, family: &str, wanted: &[(&str, &str)]) -> f64 {
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    families[family].samples.iter().find(|sample| sample.labels == wanted).unwrap().value
}

#[test]
fn a_retired_route_counts_with_the_one_that_has_its_name() {
    let families = families(&exposed());
    let check = |family: &str, labels: &[(&str, &str)], wanted: f64| {
        let found = value(&families, family, labels);
        assert!((found - wanted).abs() < 1e-9, "{family} {labels:?} is {found}");
    };
    check("midmile_pairs_open", &[("route", "web")], 8.0);
    check("midmile_pairs_open", &[("route", "db")], 4.0);
    check("midmile_pairs_ended", &[("route", "web"), ("reason", "client-reset")], 6.0);
    check("midmile_clients_refused", &[("route", "db"), ("reason", "pairs-max")], 7.0);
    let flow = |direction, by| [("route", "web"), ("direction", direction), ("by", by)];
    check("midmile_relayed_bytes", &flow("upstream", "splice"), 400.0);
    check("midmile_relayed_bytes", &flow("downstream", "copy"), 2.0);
    check("midmile_backend_pairs_open", &[("route", "web"), ("backend", "unix:/a\"b\\c")], 2.0);
    check("midmile_uptime_seconds", &[], 1.5);
    check("midmile_peer_rtt_seconds", &[("peer", "mumbai")], 0.218);
    check("midmile_peer_segments_retransmitted", &[("peer", "mumbai")], 10.0);
    check("midmile_peer_delivery_rate", &[("peer", "mumbai")], 50e6);
    check("midmile_mux_requests", &[("route", "dns")], 100.0);
    check("midmile_mux_upstreams_open", &[("route", "dns")], 12.0);
    check("midmile_mux_transfers_unclear", &[("route", "dns")], 14.0);
    check("midmile_mux_transfers_held", &[("route", "dns")], 16.0);
    let fault = |from| [("route", "dns"), ("from", from), ("reason", "fault")];
    check("midmile_mux_frame_errors", &fault("client"), 6.0);
    check("midmile_mux_frame_errors", &fault("backend"), 8.0);
    check("midmile_mux_datagrams", &[("route", "dns")], 60.0);
    check("midmile_mux_detours", &[("route", "dns"), ("reason", "truncated")], 4.0);
    check("midmile_early_used", &[("route", "web")], 4.0);
    check("midmile_early_wasted", &[("route", "web")], 2.0);
}

#[test]
fn the_status_document_has_what_was_promised() {
    let text = status::encode(&view(vec![route("web", false), route("dns", false)])).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["totals"]["pairs_open"], 8);
    assert_eq!(document["totals"]["upstream"]["bytes"], 600);
    let dns = document["routes"].as_array().unwrap().iter().find(|route| route["name"] == "dns").unwrap();
    assert_eq!((&dns["messages"]["requests"], &dns["messages"]["upstreams"]["open"]), (&50.into(), &6.into()));
    let misframed = &dns["messages"]["frame_errors"];
    assert_eq!((&misframed["client"]["not-resp"], &misframed["backend"]["too-long"]), (&3.into(), &4.into()));
    assert_eq!(document["pipes"]["leased"], 2);
    let web = document["routes"].as_array().unwrap().iter().find(|route| route["name"] == "web").unwrap();
    assert_eq!(web.get("messages"), None);
    assert_eq!(web["ends"]["client-reset"], 3);
    assert_eq!(web["refusals"]["pairs-max"], 7);
    assert_eq!(web["accept_to_connected"]["count"], 8);
    assert_eq!(web["accept_to_connected"]["buckets"][14]["up_to_us"], serde_json::Value::Null);
    assert_eq!(web["accept_to_first_byte"]["count"], 8);
    assert_eq!(web["backends"][0]["pairs_open"], 2);
    let mumbai = &document["peers"][0];
    assert_eq!((&mumbai["sent_segments"], &mumbai["retransmitted_segments"]), (&4000.into(), &10.into()));
    assert_eq!((&mumbai["delivery_rate"], &mumbai["delivery_rate_best"]), (&50_000_000.into(), &60_000_000.into()));
}

#[test]
fn legs_that_are_friends_are_counted() {
    assert!(!exposed().contains("midmile_friend_leg"));
    let mut view = view(Vec::new());
    view.own = [("friends", 2), ("ring_in_bytes", 70), ("tcp_out_bytes", 5)].into();
    let page = super::encode(view).unwrap();
    for line in [
        "midmile_friend_legs_total{} 2",
        "midmile_friend_leg_bytes_total{direction=\"in\",by=\"ring\"} 70",
        "midmile_friend_leg_bytes_total{direction=\"out\",by=\"tcp\"} 5",
        "midmile_friend_legs_broken_total{} 0",
    ] {
        assert!(page.lines().any(|one| one == line), "{line}\n{page}");
    }
}

#[test]
fn friends_are_counted_by_cgroup_and_reason() {
    assert!(!exposed().contains("midmile_friends"));
    let mut view = view(vec![]);
    let figures = |bytes| Figures { ends: 2, messages: 3, bytes, turns: 1, reasons: vec![(Reason::ReceiverFull, 5)] };
    view.friends = [("/a".to_owned(), figures(70)), ("/b".to_owned(), figures(80))].into();
    let text = super::encode(view).unwrap();
    for line in [
        "midmile_friends_ends_total{cgroup=\"/a\"} 2",
        "midmile_friends_messages_total{cgroup=\"/a\"} 3",
        "midmile_friends_skipped_bytes_total{cgroup=\"/b\"} 80",
        "midmile_friends_turns_total{cgroup=\"/b\"} 1",
        "midmile_friends_kept_total{cgroup=\"/a\",reason=\"receiver-full\"} 5",
    ] {
        assert!(text.lines().any(|had| had == line), "{line} isn't in\n{text}");
    }
}
