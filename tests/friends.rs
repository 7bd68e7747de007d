//! `midmile friends attach`, `detach` and `status`: connections come to skip TCP, and go back to it, without a byte lost.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "friends/mod.rs"]
mod cgroup;
#[path = "netns/host.rs"]
mod host;
mod process;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use cgroup::{Cgroup, refused, script, until_gone};
use host::Host;
use process::{Running, get, run, text, until};
use rustix::process::Signal;

/// How often bytes flow while friends come and go.
const ROUNDS: usize = 4;

/// Connections with both ends in one process, which compares what goes in with what comes out.
struct Traffic {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Traffic {
    fn start(cgroup: &Cgroup, args: &[&str]) -> Self {
        Self::of(cgroup.within(script("traffic.py").args(args)))
    }

    fn of(mut command: Command) -> Self {
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut traffic = Self { child, said };
        let line = traffic.line();
        assert!(line == "flowing" || line == "waiting", "{line}");
        traffic
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends it, and says how many bytes came as they were sent.
    fn intact(mut self) -> u64 {
        writeln!(self.child.stdin.take().unwrap()).unwrap();
        let line = self.line();
        line.strip_prefix("intact ").unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until more bytes have skipped TCP than `than`.
fn until_more(cgroup: &Cgroup, than: u64) {
    until("bytes that skip TCP", || (cgroup.bytes() > than + 100_000).then_some(()));
}

#[test]
fn detached_while_bytes_flow_nothing_is_cut_or_lost() {
    let Some(cgroup) = Cgroup::new() else { return };
    for _ in 0..ROUNDS {
        let mut attached = cgroup.attach(&[]);
        let traffic = Traffic::start(&cgroup, &["flow"]);
        until_more(&cgroup, 0);
        let on = cgroup.attachment();
        assert_eq!(
            (&on["state"], on["ends"].as_u64(), on["pid"].as_u64()),
            (&"on".into(), Some(16), Some(attached.pid().into()))
        );
        assert!(cgroup.detach().contains("8 connections go on by TCP"));
        assert_eq!(attached.code(), Some(0));
        let before = cgroup.attachment();
        assert_eq!(before["state"], "left-over");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let after = cgroup.attachment();
        assert_eq!((&before["bytes"], &before["messages"]), (&after["bytes"], &after["messages"]));
        assert!(after["reasons"]["switched-off"].as_u64() >= Some(8), "{after}");
        let bytes = traffic.intact();
        assert!(bytes > before["bytes"].as_u64().unwrap(), "nothing went on by TCP: {bytes}");
        until_gone(&cgroup);
    }
}

#[test]
fn what_is_unread_when_they_go_is_read_later() {
    let Some(cgroup) = Cgroup::new() else { return };
    for ends_by in [Signal::TERM, Signal::INT, Signal::KILL] {
        let mut attached = cgroup.attach(&[]);
        let traffic = Traffic::start(&cgroup, &["unread"]);
        assert!(cgroup.bytes() >= 8 * 7000, "{:?}", cgroup.attachment());
        attached.signal(ends_by);
        assert_eq!(attached.code(), (ends_by != Signal::KILL).then_some(0));
        traffic.intact();
        until_gone(&cgroup);
    }
}

#[test]
fn killed_its_leftovers_are_found_and_ended() {
    let Some(cgroup) = Cgroup::new() else { return };
    let mut attached = cgroup.attach(&[]);
    let traffic = Traffic::start(&cgroup, &["flow"]);
    until_more(&cgroup, 0);
    attached.signal(Signal::KILL);
    assert_eq!(attached.code(), None);
    let left = cgroup.attachment();
    assert_eq!((&left["state"], left["ends"].as_u64()), (&"left-over".into(), Some(16)));
    // Friends stay friends, and new connections aren't made any.
    until_more(&cgroup, left["bytes"].as_u64().unwrap());
    Traffic::start(&cgroup, &["unread"]).intact();
    assert_eq!(cgroup.attachment()["ends"], 16);
    // Another one may be attached meanwhile: it has the new ones.
    let mut again = cgroup.attach(&[]);
    let newer = Traffic::start(&cgroup, &["flow"]);
    until("friends of the newer one", || {
        let all = cgroup.attachments();
        (all.len() == 2 && all.iter().all(|one| one["ends"] == 16 && one["bytes"].as_u64() > Some(100_000)))
            .then_some(())
    });
    assert!(cgroup.detach().contains("16 connections go on by TCP"));
    assert_eq!(again.code(), Some(0));
    let bytes = || cgroup.attachments().iter().map(|one| one["bytes"].as_u64().unwrap()).collect::<Vec<_>>();
    let before = bytes();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(bytes(), before);
    traffic.intact();
    newer.intact();
    until_gone(&cgroup);
    let (code, said) = refused(&["detach", "--cgroup", cgroup.path()]);
    assert!(code == 1 && said.contains("no friends are attached"), "{said}");
}

#[test]
fn only_listed_ports_are_made_friends() {
    let Some(cgroup) = Cgroup::new() else { return };
    let host = Host::new();
    let _attached = cgroup.attach(&["--ports", "7001,7002"]);
    let start = |port: &str| host.run(|| Traffic::start(&cgroup, &["unread", "--port", port]));
    start("7000").intact();
    let none = cgroup.attachment();
    // The eight, and the one by which each server has answered before.
    assert_eq!((none["ends_total"].as_u64(), none["reasons"]["port-not-listed"].as_u64()), (Some(0), Some(9)));
    for (number, port) in [(1, "7001"), (2, "7002")] {
        start(port).intact();
        assert_eq!(cgroup.attachment()["ends_total"].as_u64(), Some(16 * number));
    }
}

#[test]
fn the_same_ports_in_two_namespaces_are_two_servers() {
    let Some(cgroup) = Cgroup::new() else { return };
    let _attached = cgroup.attach(&[]);
    let hosts = [Host::new(), Host::new()];
    let start = |host: &Host| host.run(|| Traffic::start(&cgroup, &["flow", "--port", "7000"]));
    let traffic = hosts.each_ref().map(start);
    until_more(&cgroup, 0);
    assert_eq!(cgroup.attachment()["ends"], 32);
    traffic.into_iter().for_each(|traffic| assert!(traffic.intact() > 0));
}

#[test]
fn a_server_that_was_there_before_is_known_from_its_first_answer_on() {
    let Some(cgroup) = Cgroup::new() else { return };
    let mut command = script("traffic.py");
    command.arg("ask");
    let mut before = Traffic::of(cgroup.within(&command));
    let _attached = cgroup.attach(&[]);
    for ends in [0, 2] {
        writeln!(before.child.stdin.as_mut().unwrap()).unwrap();
        assert_eq!(before.line(), "answered");
        let status = cgroup.attachment();
        assert_eq!(status["ends_total"].as_u64(), Some(ends), "{status}");
        assert_eq!(status["reasons"]["server-unknown"], 1);
    }
}

#[test]
fn who_begins_to_wait_for_edges_is_sent_to_by_tcp() {
    let Some(cgroup) = Cgroup::new() else { return };
    let _attached = cgroup.attach(&[]);
    let mut traffic = Traffic::start(&cgroup, &["wait"]);
    let mut say = |who: &str| {
        let before = cgroup.bytes();
        writeln!(traffic.child.stdin.as_mut().unwrap(), "{who}").unwrap();
        assert_eq!(traffic.line(), "said");
        cgroup.bytes() - before
    };
    say("one who polls");
    let mut edges_and = |edges: &str, levels: &str| {
        assert_eq!(say(edges), 0, "{}", cgroup.attachment());
        say(levels);
        // Once what went by TCP is acknowledged.
        until("messages that skip TCP", || (say("") == 40).then_some(()));
    };
    // Beside an epoll that waits for levels; where one changes, the older of the two, and again the newer.
    edges_and("edges", "levels");
    edges_and("edges before", "levels before");
    edges_and("edges again", "none");
    assert_eq!(cgroup.attachment()["reasons"]["end-edges"], 3);
}

#[test]
fn a_gateway_counts_the_friends_of_its_host() {
    let Some(cgroup) = Cgroup::new() else { return };
    let _attached = cgroup.attach(&[]);
    Traffic::start(&cgroup, &["unread"]).intact();
    let relay = Running::start(&["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--admin", "127.0.0.1:0"]);
    let (_, page) = get(relay.admin(), "/metrics");
    let path = cgroup.path();
    let bytes = format!("midmile_friends_skipped_bytes_total{{cgroup=\"{path}\"}} {}", cgroup.bytes());
    let kept = format!("midmile_friends_kept_total{{cgroup=\"{path}\",reason=\"server-unknown\"}} 1");
    for line in [bytes, kept] {
        assert!(page.lines().any(|had| had == line), "{line} isn't in\n{page}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_mend() {
    let Some(cgroup) = Cgroup::new() else { return };
    for (path, mend) in [("/nonexistent", "write the directory of a cgroup"), ("/tmp", "isn't a cgroup of version 2")] {
        for command in ["attach", "detach"] {
            let (code, said) = refused(&[command, "--cgroup", path]);
            // Without anything attached there's nothing to compare a directory with.
            assert!(command == "detach" || (code == 2 && said.contains(mend)), "{said}");
        }
    }
    let ports = (1..=65).map(|port: u32| port.to_string()).collect::<Vec<_>>().join(",");
    let (code, said) = refused(&["attach", "--cgroup", cgroup.path(), "--ports", &ports]);
    assert!(code == 2 && said.contains("at most 64"), "{said}");
    let attached = cgroup.attach(&[]);
    let (code, said) = refused(&["attach", "--cgroup", cgroup.path()]);
    assert!(code == 1 && said.contains(&format!("by process {}", attached.pid())), "{said}");
    let status = run(&["friends", "status"]);
    assert!(text(&status.stdout).contains(&format!("{}: on, by process {}", cgroup.path(), attached.pid())));
    for (without, named) in [("-perfmon,-sys_admin", "CAP_PERFMON"), ("-all", "CAP_")] {
        let mut command = Command::new("setpriv");
        command.args(["--inh-caps=-all", &format!("--bounding-set={without}"), env!("CARGO_BIN_EXE_midmile")]);
        let output = command.args(["friends", "attach", "--cgroup", cgroup.path()]).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(named), "{said}");
    }
}
