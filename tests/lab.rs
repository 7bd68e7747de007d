//! `midmile lab` as a user meets it: figures, files, and nothing left behind, however it ends.

#![expect(clippy::unwrap_used, reason = "a panic is how tests fail")]

mod process;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};

use process::{Scratch, midmile, run, text, until};
use rustix::process::{Pid, Signal, kill_process};

/// Prints why and answers true if this machine has no TUN device or forbids the lab.
fn cannot(output: &Output) -> bool {
    let stderr = text(&output.stderr);
    let root = rustix::process::geteuid().is_root();
    let lacking = stderr.contains("/dev/net/tun") || stderr.contains("os error 1)") || !root;
    let cannot = output.status.code() == Some(1) && lacking;
    if cannot {
        println!("SKIP: the lab's network isn't tried: {}", stderr.trim());
    }
    cannot
}

/// Whether a lab runs here at all.
fn possible() -> bool {
    let output = run(&["lab", "same-region", "--steps", "end-to-end", "--objects", "1MiB", "--repetitions", "1"]);
    let cannot = cannot(&output);
    assert!(cannot || output.status.success(), "{}", text(&output.stderr));
    !cannot
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> BTreeSet<u32> {
    let is_child = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|rest| rest.trim() == parent.to_string()))
    };
    pids().filter(is_child).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The network namespace of a process that lives.
fn network(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// A lab in the middle of a step with gateways: the lab, and the namespaces of its gateways.
fn started() -> (Child, BTreeSet<PathBuf>) {
    let mut lab = midmile(&["lab", "pathway", "--steps", "split", "--repetitions", "1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let own = network(lab.id());
    let networks = until("two gateways", || {
        assert!(lab.try_wait().unwrap().is_none(), "the lab has ended");
        let networks: BTreeSet<_> = children(lab.id()).into_iter().filter_map(network).collect();
        (networks.len() == 2 && !networks.contains(own.as_ref()?)).then_some(networks)
    });
    (lab, networks)
}

/// Waits until no process is in any of the namespaces, so that the kernel has taken them down.
fn assert_gone(networks: &BTreeSet<PathBuf>) {
    until("the gateways' end", || pids().filter_map(network).all(|network| !networks.contains(&network)).then_some(()));
}

#[test]
fn figures_come_as_table_json_and_page() {
    let scratch = Scratch::new("lab");
    let (json, html) = (scratch.path("figures.json"), scratch.path("report.html"));
    let output = midmile(&["lab", "same-region", "--steps", "end-to-end,split", "--repetitions", "2", "--json"])
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .unwrap();
    if cannot(&output) {
        return;
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).lines().any(|line| line.starts_with("split ")));
    let figures: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let (ttfb, download) =
            (row["ttfb_ms"]["median"].as_f64().unwrap(), row["download_ms"]["median"].as_f64().unwrap());
        // No answer can be there before two round trips of 2 ms.
        assert!(ttfb > 4.0 && download >= ttfb, "{row}");
    }
    let page = fs::read_to_string(html).unwrap();
    assert_eq!(page.matches("<svg ").count(), 2);
    assert!(page.contains("first data"));
}

#[test]
fn other_relays_stand_where_gateways_do() {
    let scratch = Scratch::new("lab-compare");
    let json = scratch.path("figures.json");
    let output = midmile(&["lab", "same-region", "--steps", "end-to-end", "--compare", "--repetitions", "1", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    if cannot(&output) {
        return;
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    let figures: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let measured = |step: &str| figures["rows"].as_array().unwrap().iter().filter(|row| row["step"] == step).count();
    assert_eq!(measured("end-to-end"), 2);
    let table = text(&output.stdout);
    for step in ["end-to-end-bbr", "haproxy", "nginx"] {
        match table.lines().find(|line| line.starts_with(&format!("left out: {step}: "))) {
            Some(line) => println!("SKIP: a step that is compared isn't tried: {line}"),
            None => assert_eq!(measured(step), 2, "{table}"),
        }
    }
}

#[test]
fn a_killed_lab_leaves_nothing() {
    if !possible() {
        return;
    }
    let (mut lab, networks) = started();
    lab.kill().unwrap();
    lab.wait().unwrap();
    assert_gone(&networks);
}

#[test]
fn an_interrupted_lab_leaves_nothing_and_says_so() {
    if !possible() {
        return;
    }
    let (lab, networks) = started();
    kill_process(Pid::from_child(&lab), Signal::INT).unwrap();
    let output = lab.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).trim_end().ends_with("interrupted"), "{}", text(&output.stderr));
    assert_gone(&networks);
}

#[test]
fn a_command_runs_inside_a_host() {
    let output = run(&["lab", "pathway", "--shell", "oregon", "--", "cat", "/proc/net/dev"]);
    if cannot(&output) {
        return;
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    let devices = text(&output.stdout);
    assert!(["lo:", "link0:", "link1:"].iter().all(|device| devices.contains(device)), "{devices}");
    assert_eq!(devices.lines().count(), 5, "two lines of heading and three devices: {devices}");
}

#[test]
fn a_client_of_the_users_is_told_where_to_go() {
    let output = run(&["lab", "same-region", "--steps", "end-to-end,split", "--with", "echo to {target}"]);
    if cannot(&output) {
        return;
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("to 10.250.0.2:80") && said.contains("to 10.1.0.2:80"), "{said}");
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_built() {
    for (args, said) in [
        (vec!["lab", "pathwey"], "there is no scenario \"pathwey\""),
        (vec!["lab", "--steps", "warp"], "no such step; there are: end-to-end, split"),
        (vec!["lab", "--objects", "moon"], "pathway has no object \"moon\"; there are: three-windows"),
        (vec!["lab", "--shell", "oregon", "--json", "x"], "cannot be used with"),
        (vec!["lab", "--shell", "moon"], "pathway has no host \"moon\"; there are: san-francisco, oregon"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
    let output = run(&["lab", "same-region", "--json", "/nowhere/figures.json"]);
    assert_eq!(output.status.code(), Some(1));
    // Without root the user namespace may be what fails first.
    assert!(text(&output.stderr).contains("can't "), "{}", text(&output.stderr));
    let list = run(&["lab", "--list"]);
    assert!(text(&list.stdout).lines().any(|line| line.starts_with("lossy-edge ")));
}

#[test]
fn the_kernels_links_serve_or_are_told_of_with_the_mend() {
    let scratch = Scratch::new("lab-netem");
    let html = scratch.path("report.html");
    let output = midmile(&["lab", "same-region", "--links", "netem", "--html"]).arg(&html).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--links tun"), "{}", text(&output.stderr));
    let steps = ["--steps", "end-to-end,split", "--objects", "1MiB", "--repetitions", "1"];
    let output = run(&[&["lab", "same-region", "--links", "netem"], &steps[..]].concat());
    let stderr = text(&output.stderr);
    if stderr.contains("this kernel has no netem") {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.contains("load the module sch_netem") && stderr.contains("--links tun"), "{stderr}");
    } else if !cannot(&output) {
        assert!(output.status.success(), "{stderr}");
        assert!(text(&output.stdout).contains("split"), "{}", text(&output.stdout));
    }
}
