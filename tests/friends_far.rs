//! What friends' programs cost connections that aren't local: the kernel's count of their runs.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "friends/mod.rs"]
mod cgroup;
mod netns;
mod process;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use cgroup::{Cgroup, script};
use process::{Running, text};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// The kernel's numbers of the two kinds of programs (linux/bpf.h, `enum bpf_prog_type`).
const SOCK_OPS: u32 = 13;
const SK_MSG: u32 = 16;
/// Runs that a connection may cost, at both ends together: the kernel asks of timeouts, windows and ECN before it tells that the
/// connection is established.
const RUNS_MAX: u64 = 12;

/// Has the kernel count runs of programs; sets it back at the end.
struct Counting(String);

impl Counting {
    fn begin() -> Self {
        let before = std::fs::read_to_string(STATS).unwrap();
        std::fs::write(STATS, "1").unwrap();
        Self(before)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        std::fs::write(STATS, &self.0).ok();
    }
}

/// How often the programs of a process have run, by their kinds.
fn runs(pid: u32) -> BTreeMap<u32, u64> {
    let mut runs = BTreeMap::new();
    for file in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().map_while(Result::ok) {
        let said = std::fs::read_to_string(file.path()).unwrap_or_default();
        let of = |name| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let (Some(kind), Some(count)) = (of("prog_type:"), of("run_cnt:")) {
            runs.insert(kind.parse().unwrap(), count.parse().unwrap());
        }
    }
    runs
}

#[test]
fn connections_that_are_not_local_cost_a_few_runs_and_their_messages_none() {
    let Some(cgroup) = Cgroup::new() else { return };
    let attached = cgroup.attach(&[]);
    let _counting = Counting::begin();
    let hosts = netns::row(2);
    for address in netns::right(0).map(|address| address.to_string()) {
        let mut serve = cgroup.within(script("far.py").args(["serve", &address]));
        serve.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let server = hosts[1].run(|| Running::of(serve.spawn().unwrap()));
        let line = server.line();
        let port = line.strip_prefix("port ").unwrap();
        let ask = |count: &str| {
            let before = runs(attached.pid());
            let mut asking: Command = cgroup.within(script("far.py").args(["ask", &address, port, count]));
            let output = hosts[0].run(|| asking.output().unwrap());
            assert_eq!(text(&output.stdout), "answered\n", "{}", text(&output.stderr));
            let after = runs(attached.pid());
            [SOCK_OPS, SK_MSG].map(|kind| after[&kind] - before[&kind])
        };
        for count in ["1", "1000"] {
            let [few, none] = ask(count);
            assert!((1..=RUNS_MAX).contains(&few), "{few} runs for a connection of {count} messages by {address}");
            assert_eq!(none, 0);
        }
    }
    assert_eq!(cgroup.attachment()["ends_total"], 0);
    // Friends' messages are counted, so those of the others would have been.
    let mut command = cgroup.within(script("traffic.py").arg("unread"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(text(&output.stdout).contains("intact"), "{}", text(&output.stderr));
    assert!(runs(attached.pid())[&SK_MSG] >= 24);
}
