//! A relay whose legs ask to be friends, between programs that nobody changed: what goes through is what was sent, whoever asked, and by
//! rings where both did.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;
mod rings;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};

use process::{Running, get, run, text, until};
use programs::{Server, client, lacks, said, server};
use rings::{Friends, script};
use rustix::process::Signal;

/// What the script checks, each with a connection of its own.
const CHECKS: [&str; 7] = [
    "streams_both_ways",
    "small_exchanges",
    "one_side_finishes",
    "a_reset_is_a_reset",
    "who_reads_late_reads_all",
    "what_waits_at_a_close_comes",
    "a_killed_client_leaves_a_true_beginning",
];

/// Clients and a server, in one process, and the relay between them.
struct Relayed {
    friends: Friends,
    orders: ChildStdin,
    script: Running,
    relay: Running,
    admin: SocketAddr,
}

impl Relayed {
    /// `asks`: whether client and server are run as friends too.
    fn start(name: &str, asks: bool, relay: impl FnOnce(&Friends, &str) -> Running) -> Self {
        let friends = Friends::new(name);
        let command = script("relayed.py");
        let mut command = if asks { friends.with(&command) } else { command };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let script = Running::of(child);
        let port = script.line().strip_prefix("listening ").unwrap().to_owned();
        let relay = relay(&friends, &format!("127.0.0.1:{port}"));
        let ready = relay.ready();
        let admin = relay.admin();
        let mut relayed = Self { friends, orders, script, relay, admin };
        relayed.is_at(ready);
        relayed
    }

    /// Where connections are made from now on.
    fn is_at(&mut self, addr: SocketAddr) {
        writeln!(self.orders, "relay {}", addr.port()).unwrap();
    }

    fn by_relay(name: &str, asks: bool) -> Self {
        Self::start(name, asks, |friends, to| {
            let directory = friends.scratch.path("run");
            let legs = ["--friends", "--friends-dir", &directory];
            Running::start(
                &[&["relay", "--listen", "127.0.0.1:0", "--to", to, "--admin", "127.0.0.1:0"], &legs[..]].concat(),
            )
        })
    }

    fn check(&mut self, check: &str) {
        writeln!(self.orders, "{check}").unwrap();
        let said = self.script.line();
        assert_eq!(said, format!("pass {check}"), "{}{}", self.script.log(), self.relay.log());
    }

    /// A figure of the relay's; 0 where it isn't told.
    fn metric(&self, sample: &str) -> u64 {
        let (_, page) = get(self.admin, "/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    fn ring(&self, direction: &str) -> u64 {
        self.metric(&format!("midmile_friend_leg_bytes_total{{direction=\"{direction}\",by=\"ring\"}}"))
    }

    /// Ends all in order.
    fn quit(mut self) -> Friends {
        drop(self.orders);
        assert_eq!(self.script.code(), Some(0), "{}", self.script.log());
        self.relay.signal(Signal::TERM);
        assert_eq!(self.relay.code(), Some(0), "{}", self.relay.log());
        self.friends
    }
}

/// What is left in the runtime directory beside the library.
fn left(friends: &Friends) -> Vec<String> {
    let names = std::fs::read_dir(friends.scratch.path("run")).unwrap();
    let names = names.map(|one| one.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with("libmidmile_friends")).collect()
}

#[test]
fn what_goes_through_is_what_was_sent_and_goes_by_rings() {
    if lacks(&["python3"]) {
        return;
    }
    let mut relayed = Relayed::by_relay("relay-friends", true);
    for check in CHECKS {
        relayed.check(check);
    }
    assert!(
        relayed.metric("midmile_friend_legs_total{}") >= 2 * 8,
        "{}",
        relayed.metric("midmile_friend_legs_total{}")
    );
    let ring = (relayed.ring("in"), relayed.ring("out"));
    assert!(ring.0 > 1 << 20 && ring.1 > 1 << 20, "{ring:?}");
    assert_eq!(relayed.metric("midmile_friend_legs_broken_total{}"), 0);
    let friends = relayed.quit();
    friends.went_by_ring(1 << 20);
    assert_eq!(left(&friends), Vec::<String>::new());
}

#[test]
fn who_did_not_ask_is_served_by_tcp_and_spliced() {
    if lacks(&["python3"]) {
        return;
    }
    let mut relayed = Relayed::by_relay("relay-friends-alone", false);
    for check in CHECKS {
        relayed.check(check);
    }
    assert_eq!((relayed.metric("midmile_friend_legs_total{}"), relayed.ring("in"), relayed.ring("out")), (0, 0, 0));
    let (_, page) = get(relayed.admin, "/metrics");
    let spliced =
        page.lines().filter(|line| line.starts_with("midmile_relayed_bytes_total") && line.contains("splice"));
    let spliced: u64 = spliced.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert!(spliced > 10 << 20, "{spliced}");
    let friends = relayed.quit();
    assert_eq!(left(&friends), Vec::<String>::new());
}

fn switch(friends: &Friends, how: &str) {
    let output = run(&["friends", how, "--runtime-dir", &friends.scratch.path("run")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn friends_are_switched_off_and_on_while_bytes_flow() {
    if lacks(&["python3"]) {
        return;
    }
    let mut relayed = Relayed::by_relay("relay-friends-off", true);
    relayed.check("flow_begins");
    let pid = u64::from(relayed.relay.pid());
    let status: serde_json::Value = serde_json::from_slice(&run(&["friends", "status", "--json"]).stdout).unwrap();
    let ends =
        status["rings"]["connections"].as_array().unwrap().iter().flat_map(|one| one["ends"].as_array().unwrap());
    assert_eq!(ends.filter(|end| end["pid"] == pid).count(), 2, "{status}");
    switch(&relayed.friends, "off");
    relayed.check("flow_goes_on");
    let before = (relayed.ring("in"), relayed.ring("out"));
    assert!(before.0 > 0 && before.1 > 0, "{before:?}");
    relayed.check("flow_goes_on");
    assert_eq!((relayed.ring("in"), relayed.ring("out")), before);
    relayed.check("flow_ends");
    relayed.check("small_exchanges");
    assert_eq!((relayed.ring("in"), relayed.ring("out")), before);
    switch(&relayed.friends, "on");
    relayed.check("small_exchanges");
    assert!(relayed.ring("in") > before.0 && relayed.ring("out") > before.1);
    relayed.quit();
}

#[test]
fn a_drain_lets_friends_end_in_their_own_time() {
    if lacks(&["python3"]) {
        return;
    }
    let mut relayed = Relayed::by_relay("relay-friends-drain", true);
    relayed.check("flow_begins");
    relayed.relay.signal(Signal::TERM);
    until("it drains", || (relayed.metric("midmile_draining") == 1).then_some(()));
    relayed.check("flow_goes_on");
    relayed.check("flow_ends");
    assert_eq!(relayed.relay.code(), Some(0), "{}", relayed.relay.log());
}

#[test]
fn a_reload_lets_listeners_ask_and_cuts_nothing() {
    if lacks(&["python3"]) {
        return;
    }
    let config = |friends: &Friends, to: &str, asks: bool| {
        let directory = friends.scratch.path("run");
        let text = format!(
            "admin.listen = \"127.0.0.1:0\"\ngateway.friends_dir = \"{directory}\"\n[[listener]]\nname = \"one\"\n\
             listen = \"127.0.0.1:0\"\nto = \"{to}\"\nclient.friends = {asks}\nserver.friends = {asks}\n"
        );
        friends.scratch.write("midmile.toml", &text)
    };
    let mut backend = String::new();
    let mut relayed = Relayed::start("relay-friends-reload", true, |friends, to| {
        backend = to.to_owned();
        Running::start(&["gateway", "--config", &config(friends, to, false)])
    });
    relayed.check("flow_begins");
    assert_eq!(relayed.ring("in"), 0);
    config(&relayed.friends, &backend, true);
    relayed.relay.signal(Signal::HUP);
    relayed.relay.logged("reloaded");
    // What stood stays as it was.
    relayed.check("flow_goes_on");
    assert_eq!(relayed.ring("in"), 0);
    relayed.check("flow_ends");
    let ready = relayed.relay.ready();
    relayed.is_at(ready);
    relayed.check("small_exchanges");
    assert!(relayed.ring("in") > 0 && relayed.ring("out") > 0);
    relayed.quit();
}

#[test]
fn redis_by_way_of_a_relay_counts_exactly() {
    if lacks(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let friends = Friends::new("relay-friends-redis");
    let (redis, addr) = Server::start(&friends.scratch, "redis.log", |addr| {
        let mut command = server("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--dir", &friends.scratch.path("")]);
        command.args(["--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        friends.with(&command)
    });
    let (to, directory) = (addr.to_string(), friends.scratch.path("run"));
    let relay =
        Running::start(&["relay", "--listen", "127.0.0.1:0", "--to", &to, "--friends", "--friends-dir", &directory]);
    let port = relay.ready().port().to_string();
    let ask = |program: &str, args: &[&str]| -> Command {
        let mut command = client(program);
        command.args(["-p", &port]).args(args);
        command
    };
    let increments = ["-q", "-t", "incr", "-n", "20000", "-c", "20", "-P", "8"];
    said(&mut friends.with(&ask("redis-benchmark", &increments)));
    // Clients that didn't ask, beside those that did.
    said(&mut ask("redis-benchmark", &increments));
    let counter = said(&mut friends.with(&ask("redis-cli", &["GET", "counter:__rand_int__"])));
    assert_eq!(counter.trim(), "40000");
    said(&mut friends.with(&ask("redis-benchmark", &["-q", "-t", "set,get", "-n", "300", "-d", "300000"])));
    drop(redis);
    friends.went_by_ring(10_000_000);
}

#[test]
fn what_contradicts_friends_is_refused() {
    let output = run(&["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--friends-dir", "/tmp"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--friends"), "{}", text(&output.stderr));
    let friends = Friends::new("relay-friends-wrong");
    let config = "gateway.wait_by = \"io_uring\"\n[[listener]]\nlisten = \"unix:/tmp/no.sock\"\nto = \"127.0.0.1:1\"\n\
                  client.friends = true\nserver.friends = true\nserver.fast_open = true\n";
    let output = run(&["check", "--config", &friends.scratch.write("wrong.toml", config)]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for contradiction in ["client.friends: contradicts listen", "wait_by", "contradicts fast_open"] {
        assert!(said.contains(contradiction), "{said}");
    }
    // A directory that others may use.
    let open = friends.scratch.path("open");
    std::fs::create_dir(&open).unwrap();
    let legs = ["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--friends", "--friends-dir", &open];
    let output = run(&legs);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("its mode has to be 700"), "{}", text(&output.stderr));
}
