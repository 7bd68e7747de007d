//! The lab's table, bounded: a step that takes a round trip more than it should is a failure, however well its bytes arrive.

mod process;

use process::{Scratch, run, text};

/// What the median visit of each step may take to the object's last byte, in milliseconds: CLAIMS.md's figure and a third of a
/// round trip of the shortest way, so that a busy machine passes and one more round trip doesn't.
const LAST_BYTE_MS_MAX: [(&str, f64); 6] = [
    ("split", 771.0 + SLACK_MS),
    ("early-dial", 714.0 + SLACK_MS),
    ("pool", 524.0 + SLACK_MS),
    ("window", 334.0 + SLACK_MS),
    ("edge-windows", 307.2 + SLACK_MS),
    ("fast-open", 279.0 + SLACK_MS),
];

/// The shortest round trip of the pathway takes 28 ms.
const SLACK_MS: f64 = 10.0;

#[test]
fn no_step_takes_a_round_trip_more_than_it_should() {
    let scratch = Scratch::new("lab-table");
    let json = scratch.path("figures.json");
    let steps = LAST_BYTE_MS_MAX.map(|(step, _)| step).join(",");
    let output = run(&[
        "lab",
        "pathway",
        "--steps",
        &steps,
        "--objects",
        "three-windows",
        "--repetitions",
        "7",
        "--json",
        &json,
    ]);
    let stderr = text(&output.stderr);
    let root = rustix::process::geteuid().is_root();
    if !output.status.success() && (stderr.contains("/dev/net/tun") || stderr.contains("os error 1)") || !root) {
        println!("SKIP: the lab's network isn't tried: {}", stderr.trim());
        return;
    }
    assert!(output.status.success(), "{stderr}");
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    for (step, most) in LAST_BYTE_MS_MAX {
        let row = rows.iter().find(|row| row["step"] == step).unwrap();
        let median = row["download_ms"]["median"].as_f64().unwrap();
        assert!(median <= most, "{step}: {median} ms to the last byte, {most} at most\n{}", text(&output.stdout));
    }
}
