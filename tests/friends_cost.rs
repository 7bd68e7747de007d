//! What the library of `midmile friends run` costs connections that gain nothing by it: instructions and system calls, as valgrind counts
//! them. These are the same on any machine, where times are not.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod netns;
mod process;
mod programs;
mod rings;

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use process::{Running, Scratch, text};
use programs::{client, lacks};
use rings::{Friends, script};
use rustix::process::geteuid;

/// Instructions of the library's that a call on a connection may cost that isn't local. An exchange of 1,000 bytes by veth takes two
/// processes 20 µs of CPU and more, in eight calls: at the usual two or three instructions a nanosecond this is less than a hundredth. Pythons differ by
/// a few, for how often they wait.
const INSTRUCTIONS_MAX: u64 = 50;
/// The same of a connection for one exchange, which takes each end's process 25 µs of CPU and more.
const INSTRUCTIONS_OF_ONE_MAX: u64 = 500;
/// Exchanges, or connections, of the two runs that are compared: what a run costs beside them is in both.
const FEW: u64 = 50;
const MANY: u64 = 350;

/// What a program cost.
#[derive(Debug)]
struct Cost {
    /// Instructions within the library.
    instructions: u64,
    /// System calls by their names, but for those about memory, which Python makes when it likes, and the clock.
    calls: BTreeMap<String, i64>,
}

impl Cost {
    /// Runs a script beneath valgrind, as `run` does it, and adds up.
    fn of(scratch: &Scratch, script: &[String], run: impl FnOnce(&mut Command) -> Output) -> Self {
        let (instructions_to, calls_to) = (scratch.path("instructions"), scratch.path("calls"));
        let mut counted = client("valgrind");
        counted.args(["--tool=callgrind", "--trace-syscalls=yes"]);
        counted.args([format!("--callgrind-out-file={instructions_to}"), format!("--log-file={calls_to}")]);
        // Nothing between: what finds Python may be a script.
        counted.arg(python()).args(script).env("PYTHONHASHSEED", "0").env("PYTHONDONTWRITEBYTECODE", "1");
        let output = run(&mut counted);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        let read = |path: &str| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        let mut cost = Self { instructions: instructions(&read(&instructions_to)), calls: BTreeMap::new() };
        calls(&read(&calls_to)).for_each(|name| *cost.calls.entry(name.to_owned()).or_default() += 1);
        cost
    }

    /// What it is more than the other.
    fn beyond(&self, other: &Self) -> Self {
        let mut calls = self.calls.clone();
        other.calls.iter().for_each(|(name, count)| *calls.entry(name.clone()).or_default() -= count);
        calls.retain(|_, count| *count != 0);
        Self { instructions: self.instructions - other.instructions, calls }
    }
}

/// The interpreter itself.
fn python() -> String {
    let output = client("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    text(&output.stdout).trim().to_owned()
}

/// A script of `tests/friends`, with what it's told.
fn told(name: &str, args: &[&str]) -> Vec<String> {
    let script = format!("{}/tests/friends/{name}", env!("CARGO_MANIFEST_DIR"));
    [script.as_str()].iter().chain(args).map(|word| (*word).to_owned()).collect()
}

/// The library's own instructions, of what callgrind has written (its manual has the format).
fn instructions(said: &str) -> u64 {
    // Names come once, with a number that stands for them later.
    let (mut library, mut within, mut sum) = (None, false, 0);
    let mut lines = said.lines();
    while let Some(line) = lines.next() {
        if let Some(object) = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob=")) {
            let number = object.split(' ').next();
            if object.contains("/libmidmile_friends-") {
                library = number;
            }
            if line.starts_with("ob=") {
                within = number == library;
            }
        } else if line.starts_with("calls=") {
            // The line after it is what was called, with what that cost.
            lines.next();
        } else if within && line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            sum += line.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

/// The names of the system calls that valgrind tells of.
fn calls(said: &str) -> impl Iterator<Item = &str> {
    // Outside valgrind the clock is no system call (vdso(7)).
    const OTHER: [&str; 6] = ["brk", "mmap", "munmap", "mremap", "madvise", "clock_gettime"];
    let parts = said.split("SYSCALL[").skip(1).filter_map(|part| part.split("sys_").nth(1));
    parts.filter_map(|part| part.split([' ', '(']).next()).filter(|name| !OTHER.contains(name))
}

/// What a script costs more with the library than without, for `MANY` − `FEW` of what it's told to do.
fn added(friends: &Friends, script: impl Fn(&str) -> Vec<String>, run: impl Fn(&mut Command) -> Output + Copy) -> Cost {
    let grown = |with: bool| {
        let [few, many] = [FEW, MANY].map(|count| {
            Cost::of(&friends.scratch, &script(&count.to_string()), |command| {
                if with { run(&mut friends.with(command)) } else { run(command) }
            })
        });
        many.beyond(&few)
    };
    let (with, without) = (grown(true), grown(false));
    assert_eq!(without.instructions, 0, "the library was where it shouldn't have been");
    assert!(with.instructions > 0, "the library wasn't there");
    with.beyond(&without)
}

/// What a script of `far.py` costs more with the library: on the left host, with the other end at a server of the right one. `ask` gets the server's
/// address and port, and how often.
fn added_far(friends: &Friends, ask: impl Fn([&str; 3]) -> Vec<String>) -> Cost {
    let hosts = netns::row(2);
    let [address, _] = netns::right(0).map(|address| address.to_string());
    let mut serve = script("far.py");
    serve.args(["serve", &address]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = hosts[1].run(|| Running::of(serve.spawn().unwrap()));
    let line = server.line();
    let port = line.strip_prefix("port ").unwrap();
    let added =
        added(friends, |count| ask([&address, port, count]), |command| hosts[0].run(|| command.output().unwrap()));
    assert_eq!((friends.figure("offered"), friends.figure("friends")), (0, 0));
    friends.went_by_ring(0);
    added
}

fn lacks_hosts() -> bool {
    if !geteuid().is_root() {
        println!("SKIP: network namespaces and their rules need root");
        return true;
    }
    lacks(&["python3", "valgrind"])
}

#[test]
fn a_connection_that_is_not_local_costs_a_few_instructions_a_call_and_no_system_call() {
    if lacks_hosts() {
        return;
    }
    let friends = Friends::new("friends-cost-far");
    let added = added_far(&friends, |[address, port, count]| told("far.py", &["ask", address, port, count]));
    // Python waits by poll before each send and each receive.
    let each = added.instructions / ((MANY - FEW) * 4);
    println!("{each} instructions a call");
    assert!(each <= INSTRUCTIONS_MAX, "{each} instructions a call");
    assert_eq!(added.calls, BTreeMap::new());
}

#[test]
fn connections_for_one_exchange_with_another_host_cost_a_few_instructions_and_no_system_call() {
    if lacks_hosts() {
        return;
    }
    let friends = Friends::new("friends-cost-visit");
    let [own, _] = netns::left(0).map(|address| address.to_string());
    let dialled = added_far(&friends, |[address, port, count]| told("far.py", &["visit", address, port, count]));
    let accepted =
        added_far(&friends, |[address, port, count]| told("far.py", &["visited", address, port, &own, count]));
    for (which, added) in [("dialled", dialled), ("accepted", accepted)] {
        let each = added.instructions / (MANY - FEW);
        println!("{each} instructions a connection that was {which}");
        assert!(each <= INSTRUCTIONS_OF_ONE_MAX, "{each} instructions a connection that was {which}");
        // Whether it's this host is asked of a peer once in ten seconds: more often in the longer run.
        let seldom = i64::try_from((MANY - FEW) / 10).unwrap();
        let calls = added.calls.into_iter().filter(|(name, count)| name != "getsockname" || *count > seldom);
        assert_eq!(calls.collect::<Vec<_>>(), [], "{which}");
    }
    assert!(friends.figure("plain_far") >= 2 * (FEW + MANY));
}

#[test]
fn a_connection_that_soon_ends_costs_one_system_call_for_each_registration() {
    if lacks(&["python3", "valgrind"]) {
        return;
    }
    let friends = Friends::new("friends-cost-short");
    let added = added(&friends, |count| told("visits.py", &[count]), |command| command.output().unwrap());
    // Both ends are registered with epoll, which the library has to know of the very socket (SO_COOKIE).
    let registrations = i64::try_from(2 * (MANY - FEW)).unwrap();
    assert_eq!(added.calls, BTreeMap::from([("getsockopt".to_owned(), registrations)]));
    println!("{} instructions a connection", added.instructions / (MANY - FEW));
}
