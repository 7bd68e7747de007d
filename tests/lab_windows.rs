//! Windows in a WAN of the lab's, opened by each way: what comes at once on a pool connection is as much as the path holds.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;

use process::{Scratch, run, text};

/// One way over the trunk, in milliseconds.
const DELAY_MS: u32 = 60;

/// 200 kB in 150 segments: three round trips of the trunk more with a window of ten, none with one of the path's worth.
fn scenario(scratch: &Scratch) -> String {
    let link = "{ delay = \"0.2ms\" }";
    scratch.write(
        "windows.toml",
        &format!(
            r#"
            title = "windows"
            hosts = ["client", "near", "far", "server"]
            link = [{link}, {{ delay = "{DELAY_MS}ms", rate = "100Mbit", queue = "4MiB" }}, {link}]
            direct = {{ delay = "{DELAY_MS}ms" }}
            object = [{{ name = "three-windows", bytes = "200kB", repetitions = 3 }}]
            "#
        ),
    )
}

/// Round trips of the trunk from the first byte of the object to the last, the best of some; `None`, and the reason printed,
/// where the machine allows no such thing.
fn round_trips(step: &str, windows: &str) -> Option<f64> {
    let scratch = Scratch::new(&format!("windows-{step}-{windows}"));
    let (file, json) = (scenario(&scratch), scratch.path("figures.json"));
    let output = run(&["lab", &file, "--steps", step, "--windows", windows, "--idle", "2s", "--json", &json]);
    let stderr = text(&output.stderr);
    let root = rustix::process::geteuid().is_root();
    if !output.status.success() && (stderr.contains("/dev/net/tun") || stderr.contains("os error 1)") || !root) {
        println!("SKIP: the lab's network isn't tried: {}", stderr.trim());
        return None;
    }
    assert!(output.status.success(), "{stderr}");
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let best = |what: &str| figures["rows"][0][what]["min"].as_f64().unwrap();
    Some((best("download_ms") - best("ttfb_ms")) / f64::from(2 * DELAY_MS))
}

/// The doctor's words on how windows are opened.
fn doctor() -> String {
    let output = run(&["doctor", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = said["findings"].as_array().unwrap();
    let windows = findings.iter().find(|finding| finding["feature"] == "windows").unwrap();
    windows["found"].as_str().unwrap().to_owned()
}

fn opens(windows: &str) {
    let Some(round_trips) = round_trips("window", windows) else { return };
    assert!(round_trips < 1.5, "{round_trips} round trips by {windows}");
}

#[test]
fn without_a_window_a_response_takes_round_trips() {
    let Some(round_trips) = round_trips("pool", "auto") else { return };
    assert!(round_trips > 2.0, "{round_trips} round trips");
}

#[test]
fn a_response_comes_at_once_by_ebpf() {
    let said = doctor();
    if said.starts_with("by eBPF") {
        opens("ebpf");
    } else {
        println!("SKIP: windows by eBPF aren't tried: {said}");
    }
}

#[test]
fn a_response_comes_at_once_by_routes() {
    opens("route");
}

#[test]
fn a_response_comes_at_once_by_padding() {
    opens("traffic");
}
