//! What TCP promises to programs, asked by `tests/friends/semantics.py` on plain TCP and by each way of friends: the same checks have to
//! pass, but for those that `docs/friends.md` names as differences.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "friends/mod.rs"]
mod cgroup;
mod process;

use std::collections::BTreeMap;
use std::process::Command;

use cgroup::{Cgroup, script};
use process::{Running, text};

/// What differs by eBPF, for sockets that don't wait. `docs/friends.md` says why of each.
const EBPF_DIFFERENCES: [&str; 9] = [
    "a_low_water_mark_over_what_is_there",
    "closing_without_having_read_resets",
    "counts_of_the_connection",
    "peeking_from_an_offset_into_what_is_there",
    "sockets_that_wait_after_an_exchange",
    "splicing_what_is_there",
    "throwing_away",
    "urgent_data",
    "what_waits_is_told_however_much",
];

/// And what differs now and then.
const EBPF_CHANCES: [&str; 1] = ["shutting_down_beside_who_sends"];

/// Reasons to go by TCP that the checks bring about.
const ASKED_FOR: [&str; 15] = [
    "end-blocking",
    "end-edges",
    "found-waiting",
    "inq",
    "low-water",
    "not-accepted",
    "other-end-absent",
    "paced",
    "peek-offset",
    "receiver-full",
    "receiver-messages",
    "sender-ended",
    "timestamps",
    "urgent",
    "zerocopy",
];

#[derive(Clone, Copy, PartialEq)]
enum Sockets {
    Blocking,
    Nonblocking,
}

/// What each check came to: pass, skip or fail, and why.
type Outcomes = BTreeMap<String, (String, String)>;

/// Asks everything; `through` makes the command go by its way.
fn ask(sockets: Sockets, through: impl Fn(&Command) -> Command) -> Outcomes {
    let mut asking = script("semantics.py");
    if sockets == Sockets::Nonblocking {
        asking.arg("--nonblocking");
    }
    let mut command = through(&asking);
    let said = text(&command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap().stdout);
    let mut outcomes = Outcomes::new();
    for line in said.lines() {
        let (outcome, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{said}"));
        let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
        outcomes.insert(name.to_owned(), (outcome.to_owned(), why.to_owned()));
    }
    assert!(outcomes.len() > 50, "{said}");
    outcomes
}

/// Asserts that all checks pass but those in `differences`, which fail, and those in `chances`, which may; a difference that is gone is to be taken
/// out of the list.
fn expect(way: &str, outcomes: &Outcomes, differences: &[&str], chances: &[&str]) {
    let failed: BTreeMap<_, _> = outcomes.iter().filter(|(_, (outcome, _))| outcome == "fail").collect();
    let named = |name: &&str| differences.contains(name) || chances.contains(name);
    let unexpected: Vec<_> = failed.iter().filter(|(name, _)| !named(&name.as_str())).collect();
    let passed: Vec<_> = differences.iter().filter(|name| !failed.keys().any(|failed| failed == *name)).collect();
    assert!(
        unexpected.is_empty() && passed.is_empty(),
        "{way}: failed: {unexpected:?}; no difference any more: {passed:?}"
    );
}

/// What plain TCP can't be asked here, another way can't be asked either.
fn expect_as_plain(plain: &Outcomes, other: &Outcomes) {
    let skips = |of: &Outcomes| -> Vec<String> {
        of.iter().filter(|(_, (outcome, _))| outcome == "skip").map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(skips(plain), skips(other));
}

fn as_it_is(command: &Command) -> Command {
    let mut plain = Command::new(command.get_program());
    plain.args(command.get_args());
    plain
}

/// Asks on plain TCP, and by eBPF in a cgroup, which is returned with what is attached to it; `None` where that can't be had.
fn ask_both(sockets: Sockets, differences: &[&str], chances: &[&str]) -> Option<(Cgroup, Running)> {
    let plain = ask(sockets, as_it_is);
    expect("TCP", &plain, &[], &[]);
    let cgroup = Cgroup::new()?;
    let attached = cgroup.attach(&[]);
    let ebpf = ask(sockets, |command| cgroup.within(command));
    expect("eBPF", &ebpf, differences, chances);
    expect_as_plain(&plain, &ebpf);
    Some((cgroup, attached))
}

#[test]
fn sockets_that_do_not_wait() {
    let Some((cgroup, _attached)) = ask_both(Sockets::Nonblocking, &EBPF_DIFFERENCES, &EBPF_CHANCES) else { return };
    assert!(cgroup.bytes() > 10 << 20, "hardly a byte skipped TCP: {}", cgroup.attachment());
    // A check asks for each of these, and it has to be what sent it by TCP.
    for reason in ASKED_FOR {
        assert!(cgroup.count(reason) > 0, "{reason}: {}", cgroup.attachment());
    }
}

#[test]
fn sockets_that_wait_stay_on_tcp() {
    let Some((cgroup, _attached)) = ask_both(Sockets::Blocking, &[], &[]) else { return };
    let status = cgroup.attachment();
    assert_eq!((&status["bytes"], &status["ends_total"]), (&0.into(), &0.into()), "{status}");
}

#[test]
fn the_page_names_each_difference() {
    let page = include_str!("../docs/friends.md");
    for name in EBPF_DIFFERENCES.iter().chain(&EBPF_CHANCES) {
        assert!(page.contains(&format!("`{name}`")), "docs/friends.md lacks {name}");
    }
}
