//! Probes say what there is, and leave nothing.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};
use midmile_kernel::{Hook, Unavailable, probe};

mod ground;

use ground::Ground;

#[test]
fn what_can_be_had_is_found_and_nothing_is_left() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and BPF programs need root");
        return;
    }
    let ground = Ground::new();
    match ground.gateway.run(probe::syn_watch) {
        Ok(Hook::Tcx) => {
            let programs = ground.gateway.run(|| SchedClassifier::query_tcx("lo", TcAttachType::Ingress).unwrap().1);
            assert_eq!(programs.len(), 0);
        }
        Ok(Hook::Clsact) => {}
        Err(error) => println!("SKIP: {error}"),
    }
    assert!(!ground.gateway.command("tc qdisc show dev lo").contains("clsact"));
    if let Err(error) = probe::windows() {
        println!("SKIP: {error}");
    }
    if let Err(error) = probe::friends() {
        println!("SKIP: {error}");
    }
}

#[test]
fn the_idle_setting_is_that_of_the_namespace() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and BPF programs need root");
        return;
    }
    let ground = Ground::new();
    for (value, closes) in [("0", false), ("1", true)] {
        ground.gateway.command(&format!("sysctl -qw net.ipv4.tcp_slow_start_after_idle={value}"));
        assert_eq!(ground.gateway.run(probe::slow_start_after_idle).unwrap(), closes);
    }
}

/// Set for a process with fewer privileges.
const STRIPPED: &str = "MIDMILE_TEST_STRIPPED";

/// Runs a test again as root with these capabilities (setpriv(1)) and no other; `None` in that process.
fn stripped(test: &str, capabilities: &str) -> Option<()> {
    if std::env::var_os(STRIPPED).is_some() {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and BPF programs need root");
        return Some(());
    }
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", &format!("--bounding-set=-all{capabilities}")]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(STRIPPED, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said.lines().filter(|line| line.starts_with("SKIP")).for_each(|line| println!("{line}"));
    Some(())
}

#[test]
fn without_privileges_the_mend_is_said() {
    if stripped("without_privileges_the_mend_is_said", "").is_some() {
        return;
    }
    for refused in [probe::syn_watch().map(drop), probe::windows()] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Unavailable::Privilege { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"), "{error}");
    }
}

#[test]
fn the_two_capabilities_that_are_named_suffice() {
    if stripped("the_two_capabilities_that_are_named_suffice", ",+bpf,+net_admin").is_some() {
        return;
    }
    for probed in [probe::syn_watch().map(drop), probe::windows()] {
        if let Err(error) = probed {
            assert!(!matches!(error, Unavailable::Privilege { .. }), "{error:?}");
            println!("SKIP: {error}");
        }
    }
}
