//! Redis through the relay: many clients, pipelines, large values, new connections, over TCP and a Unix-domain socket.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::fs::File;
use std::process::Command;

use process::Scratch;
use programs::data::{MIB, file, sum_said};
use programs::relay::{Relay, number};
use programs::{Server, client, lacks, said, server};

/// Without these there's no Redis here.
const PROGRAMS: [&str; 3] = ["redis-server", "redis-cli", "redis-benchmark"];

/// A server that keeps nothing, with `more` arguments.
fn redis(scratch: &Scratch, more: &[&str]) -> Command {
    let mut command = server("redis-server");
    command.args(["--save", "", "--appendonly", "no", "--dir", &scratch.path("")]).args(more);
    command
}

fn start(scratch: &Scratch) -> (Server, std::net::SocketAddr) {
    Server::start(scratch, "redis.log", |addr| {
        redis(scratch, &["--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()])
    })
}

fn cli(relay: &Relay, args: &[&str]) -> Command {
    let mut command = client("redis-cli");
    command.args(["-p", &relay.port()]).args(args);
    command
}

/// Runs the benchmark, and asserts that nothing went wrong.
fn benchmark(relay: &Relay, args: &[&str]) {
    let mut command = client("redis-benchmark");
    command.args(["-p", &relay.port(), "-q"]).args(args);
    let output = command.output().unwrap();
    programs::succeeded(&command, &output);
    let (stdout, stderr) = (process::text(&output.stdout), process::text(&output.stderr));
    assert!(stdout.contains("requests per second") && !stderr.contains("Error"), "{command:?}: {stdout}{stderr}");
}

/// Counts by 200 clients with pipelines, and sees that nothing was lost or done twice.
fn count_exactly(relay: &Relay) {
    benchmark(relay, &["-t", "incr", "-n", "40000", "-c", "200", "-P", "16"]);
    assert_eq!(said(&mut cli(relay, &["GET", "counter:__rand_int__"])).trim(), "40000");
}

#[test]
fn many_clients_and_pipelines() {
    if lacks(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new("redis-many");
    let (_redis, addr) = start(&scratch);
    let relay = Relay::to(addr);
    count_exactly(&relay);
    benchmark(&relay, &["-t", "ping,set,get,lpush,lrange_100,mset", "-n", "5000", "-c", "50"]);
    benchmark(&relay, &["-t", "set,get", "-n", "2000", "-c", "500", "-d", "4096"]);
    relay.settled();
}

#[test]
fn a_connection_for_each_request() {
    if lacks(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new("redis-churn");
    let (_redis, addr) = start(&scratch);
    let relay = Relay::to(addr);
    benchmark(&relay, &["-t", "incr", "-n", "3000", "-c", "20", "-k", "0"]);
    assert_eq!(said(&mut cli(&relay, &["GET", "counter:__rand_int__"])).trim(), "3000");
    assert!(number(&relay.settled(), "/totals/pairs_opened") >= 3000);
}

#[test]
fn a_large_value_comes_back_as_it_was() {
    if lacks(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new("redis-large");
    let (_redis, addr) = start(&scratch);
    let relay = Relay::to(addr);
    let path = file(&scratch, "value", 64 * MIB, 6);
    assert_eq!(said(cli(&relay, &["-x", "SET", "large"]).stdin(File::open(&path).unwrap())).trim(), "OK");
    assert_eq!(said(&mut cli(&relay, &["STRLEN", "large"])).trim(), (64 * MIB).to_string());
    // redis-cli ends an answer with a line break of its own.
    let with_line_break = sum_said(client("sh").args(["-c", "cat \"$1\" && echo", "sh", &path]));
    assert_eq!(sum_said(&mut cli(&relay, &["--raw", "GET", "large"])), with_line_break);
    relay.finished();
}

#[test]
fn a_hundred_thousand_commands_in_one_breath() {
    if lacks(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new("redis-pipe");
    let (_redis, addr) = start(&scratch);
    let relay = Relay::to(addr);
    let commands: String = (0..100_000).map(|index| format!("SET key:{index} value:{index}\r\n")).collect();
    let path = scratch.write("commands", &commands);
    let answer = said(cli(&relay, &["--pipe"]).stdin(File::open(path).unwrap()));
    assert!(answer.contains("errors: 0, replies: 100000"), "{answer}");
    assert_eq!(said(&mut cli(&relay, &["DBSIZE"])).trim(), "100000");
    relay.finished();
}

#[test]
fn over_a_unix_socket_behind_the_relay() {
    if lacks(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new("redis-unix");
    let socket = scratch.path("redis.sock");
    let command = redis(&scratch, &["--port", "0", "--unixsocket", &socket]);
    let _redis = Server::start_unix(&scratch, "redis.log", &socket, command);
    let relay = Relay::to(format!("unix:{socket}"));
    count_exactly(&relay);
    benchmark(&relay, &["-t", "set,get", "-n", "2000", "-c", "50", "-d", "100000"]);
    relay.settled();
}

#[test]
fn over_a_unix_socket_before_the_relay() {
    if lacks(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new("redis-unix-client");
    let (_redis, addr) = start(&scratch);
    let socket = scratch.path("relay.sock");
    let relay = Relay::between(&[(&format!("unix:{socket}"), &addr.to_string())], &[]);
    let mut command = client("redis-benchmark");
    said(command.args(["-s", &socket, "-q", "-t", "incr", "-n", "20000", "-c", "200", "-P", "16"]));
    let mut get = client("redis-cli");
    assert_eq!(said(get.args(["-s", &socket, "GET", "counter:__rand_int__"])).trim(), "20000");
    relay.settled();
}
