//! Probes say what there is, and leave nothing.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

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
}

#[test]
fn the_idle_setting_is_that_of_the_namespace() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and BPF programs need root");
        return;
    }
    let ground = Ground::new();
    for (value, closes) in [("0", false), ("1", true)] {
        ground.gateway.set("ipv4/tcp_slow_start_after_idle", value);
        assert_eq!(ground.gateway.run(probe::slow_start_after_idle).unwrap(), closes);
    }
}

/// Set for the process that has no privileges.
const UNPRIVILEGED: &str = "MIDMILE_TEST_UNPRIVILEGED";

#[test]
fn without_privileges_the_mend_is_said() {
    if !rustix::process::geteuid().is_root() || std::env::var_os(UNPRIVILEGED).is_some() {
        for refused in [probe::syn_watch().map(drop), probe::windows()] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Unavailable::Privilege { .. }), "{error:?}");
            assert!(error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"), "{error}");
        }
        return;
    }
    // The same test again, as nobody.
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "without_privileges_the_mend_is_said", "--nocapture"]).env(UNPRIVILEGED, "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
