//! iperf3 through the relay: its control connection and its data, in each mode.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use process::Scratch;
use programs::relay::{Relay, number};
use programs::{Server, client, lacks, said, server};

/// Runs iperf3 with `mode`; its report and the relay's status after it.
fn iperf3(name: &str, mode: &[&str]) -> Option<(serde_json::Value, serde_json::Value)> {
    if lacks(&["iperf3"]) {
        return None;
    }
    let scratch = Scratch::new(name);
    let (_server, addr) = Server::start(&scratch, "iperf3.log", |addr| {
        let mut command = server("iperf3");
        command.args(["--server", "--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        command
    });
    let relay = Relay::to(addr);
    let mut command = client("iperf3");
    command.args(["--client", "127.0.0.1", "--port", &relay.port(), "--time", "2", "--json"]).args(mode);
    let report: serde_json::Value = serde_json::from_str(&said(&mut command)).unwrap();
    assert!(report["error"].is_null(), "{report:#}");
    Some((report, relay.settled()))
}

/// Asserts that `key` of the report says something arrived, and that no more did than the relay counted in `direction`.
fn assert_carried(report: &serde_json::Value, status: &serde_json::Value, key: &str, direction: &str) {
    let received = number(report, &format!("/end/{key}/bytes"));
    let relayed = number(status, &format!("/totals/{direction}/bytes"));
    assert!(received > 0 && relayed >= received, "{key}: {received} of {relayed} bytes\n{status:#}");
}

#[test]
fn to_the_server() {
    let Some((report, status)) = iperf3("iperf-up", &[]) else { return };
    assert_carried(&report, &status, "sum_received", "upstream");
    assert_eq!(number(&status, "/totals/pairs_opened"), 2);
}

#[test]
fn from_the_server() {
    let Some((report, status)) = iperf3("iperf-down", &["--reverse"]) else { return };
    assert_carried(&report, &status, "sum_received", "downstream");
}

#[test]
fn both_ways() {
    let Some((report, status)) = iperf3("iperf-both", &["--bidir"]) else { return };
    assert_carried(&report, &status, "sum_received", "upstream");
    assert_carried(&report, &status, "sum_received_bidir_reverse", "downstream");
}

#[test]
fn eight_connections() {
    let Some((report, status)) = iperf3("iperf-eight", &["--parallel", "8"]) else { return };
    assert_carried(&report, &status, "sum_received", "upstream");
    assert_eq!(number(&status, "/totals/pairs_opened"), 9);
}
