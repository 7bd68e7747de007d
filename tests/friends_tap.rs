//! `midmile friends tap`: what skips TCP, as tshark sees it.

#[path = "friends/mod.rs"]
mod cgroup;
mod process;
mod programs;
mod tapped;

use std::process::Stdio;

use cgroup::{Cgroup, refused, script};
use process::{Running, Scratch, midmile, text};
use programs::{Server, client, lacks, said, server};
use rustix::process::Signal;
use tapped::{end, tshark};

/// Begins a tap, and waits until it sees what is sent.
fn tap(cgroup: &Cgroup, args: &[&str]) -> Running {
    let running = Running::spawn(midmile(&[&["friends", "tap", "--cgroup", cgroup.path()], args].concat()));
    running.logged(&format!("tapping cgroup={}", cgroup.path()));
    running
}

/// What is wrong with a capture in tshark's eyes. That a connection has left friends is said by a window.
fn wrong(file: &str) -> String {
    let flags =
        "(tcp.analysis.flags && !tcp.analysis.window_update) || tcp.checksum.status==0 || ip.checksum.status==0";
    tshark(file, &["-Y", flags])
}

#[test]
fn tshark_sees_what_redis_was_asked() {
    if lacks(&["redis-server", "redis-cli", "redis-benchmark", "tshark"]) {
        return;
    }
    let Some(cgroup) = Cgroup::new() else { return };
    let _attached = cgroup.attach(&[]);
    let scratch = Scratch::new("friends-tap-redis");
    let (_server, addr) = Server::start(&scratch, "redis.log", |addr| {
        let mut command = server("redis-server");
        command.args(["--save", "", "--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        cgroup.within(&command)
    });
    let redis = |program: &str, args: &[&str]| {
        let mut command = client(program);
        command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]).args(args);
        said(&mut cgroup.within(&command))
    };
    redis("redis-cli", &["PING"]);
    let file = scratch.path("redis.pcapng");
    let tapped = tap(&cgroup, &["--ports", &addr.port().to_string(), "-w", &file]);
    redis(
        "redis-benchmark",
        &["-q", "-c", "4", "-n", "400", "-r", "1", "SET", "key:__rand_int__", "value-of-the-test"],
    );
    redis("redis-benchmark", &["-q", "-c", "4", "-n", "400", "GET", "key:000000000000"]);
    let summary = end(tapped);
    assert!(summary.contains("missing: 0 bytes, 0 records lost, 0 not followed"), "{summary}");
    assert_eq!(wrong(&file), "");
    let decode = format!("tcp.port=={},resp", addr.port());
    let count = |filter: &str| tshark(&file, &["-d", &decode, "-Y", filter]).lines().count();
    // It may ask a few times more than it's told to.
    for asked in ["GET", "SET"] {
        assert!((400..420).contains(&count(&format!("resp.bulk_string.value == \"{asked}\""))), "{asked}");
    }
    assert!(count("tcp.flags.syn==1 && tcp.flags.ack==0") >= 8);
    assert!(count("tcp.flags.fin==1") >= 16);
    let streams = tshark(&file, &["-Y", "tcp contains \"value-of-the-test\"", "-T", "fields", "-e", "tcp.stream"]);
    let stream = streams.lines().last().unwrap();
    let followed = tshark(&file, &["-q", "-z", &format!("follow,tcp,ascii,{stream}")]).replace('\r', "");
    for text in ["GET\n$16\nkey:000000000000\n", "$17\nvalue-of-the-test\n"] {
        assert!(followed.contains(text), "{followed}");
    }
}

#[test]
fn each_byte_is_there_whichever_way_it_went() {
    if lacks(&["tshark"]) {
        return;
    }
    let Some(cgroup) = Cgroup::new() else { return };
    let _attached = cgroup.attach(&[]);
    let scratch = Scratch::new("friends-tap-bytes");
    let file = scratch.path("all.pcapng");
    let tapped = tap(&cgroup, &["-w", &file]);
    let mut command = cgroup.within(script("traffic.py").arg("unread"));
    let output = text(&command.stdin(Stdio::null()).output().unwrap().stdout);
    let bytes: usize = output.trim().rsplit_once("intact ").unwrap().1.parse().unwrap();
    let summary = end(tapped);
    assert!(summary.contains("missing: 0 bytes, 0 records lost"), "{summary}");
    assert_eq!(wrong(&file), "");
    let lengths = tshark(&file, &["-T", "fields", "-e", "tcp.len"]);
    let seen: usize = lengths.lines().map(|len| len.parse::<usize>().unwrap()).sum();
    // Each of the eight connections says hello before.
    assert_eq!(seen, bytes + 8 * 5);
    assert!(cgroup.count("not-accepted") + cgroup.bytes() > 0);
}

#[test]
fn lines_say_by_which_way_and_one_watches_at_a_time() {
    let Some(cgroup) = Cgroup::new() else { return };
    let _attached = cgroup.attach(&[]);
    let mut killed = tap(&cgroup, &[]);
    let (code, said) = refused(&["tap", "--cgroup", cgroup.path()]);
    assert!(code == 1 && said.contains(&format!("by process {}", killed.pid())), "{said}");
    killed.signal(Signal::KILL);
    assert_eq!(killed.code(), None);
    let watching = tap(&cgroup, &[]);
    let mut command = cgroup.within(script("traffic.py").arg("unread"));
    assert!(text(&command.stdin(Stdio::null()).output().unwrap().stdout).contains("intact"));
    let mut lines = Vec::new();
    while lines.iter().filter(|line: &&String| line.ends_with(": end")).count() < 8 {
        lines.push(watching.line());
    }
    assert!(lines.iter().any(|line| line.ends_with(": 7000 bytes past TCP")), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.ends_with(": dialled")).count(), 8, "{lines:#?}");
    assert!(end(watching).contains("0 records lost"));
    let ports = (1..=17).map(|port: u32| port.to_string()).collect::<Vec<_>>().join(",");
    let (code, said) = refused(&["tap", "--cgroup", cgroup.path(), "--ports", &ports]);
    assert!(code == 2 && said.contains("at most 16"), "{said}");
}
