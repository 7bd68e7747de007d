//! Clients and servers that don't behave, and too little of everything: each a named, counted end, and nobody else notices.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use midmile_engine::kernel;
use process::{PATIENCE, Running, Scratch, connect, echo, exchange, until};
use programs::mute::{full, silent};
use programs::relay::Relay;
use programs::said;
use rustix::net::sockopt;
use rustix::process::geteuid;

/// A gateway on one core with one listener to `to`, by `timeouts`, and another to an echo.
fn gateway(name: &str, to: SocketAddr, timeouts: &str) -> Relay {
    let scratch = Scratch::new(name);
    let echo = echo(b'o');
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[limits]\ncores = 1\n\
         [[listener]]\nname = \"one\"\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\ntimeouts = {{ {timeouts} }}\n\
         [[listener]]\nname = \"other\"\nlisten = \"127.0.0.1:0\"\nto = \"{echo}\"\n"
    );
    Relay::of(Running::start(&["gateway", "--config", &scratch.write("m.toml", &text)]), 2)
}

fn client(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asserts that the relay cuts the connection.
fn assert_cut(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

/// Asserts that a new connection is cut at once: perhaps before this side has seen that it stands.
fn assert_refused(addr: SocketAddr) {
    match TcpStream::connect(addr) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_cut(&mut stream);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Exchanges with another pair of the same core until `stream` is cut.
fn cut_while_others_go_on(relay: &Relay, stream: &mut TcpStream) {
    let (mut other, _) = connect(relay.addr_of(1));
    stream.set_nonblocking(true).unwrap();
    until("the cut", || {
        exchange(&mut other, "unharmed");
        let answer = stream.read(&mut [0]);
        let waits = answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        (!waits).then_some(())
    });
    exchange(&mut other, "unharmed");
}

#[test]
fn a_client_that_never_sends_is_cut_by_the_idle_timeout() {
    let relay = gateway("idle", silent(), "idle = \"1s\"");
    let mut stream = client(relay.addr());
    cut_while_others_go_on(&relay, &mut stream);
    relay.settled();
    assert_eq!(relay.ends("idle-timeout"), 1);
}

#[test]
fn a_server_that_never_finishes_is_cut_by_the_half_closed_timeout() {
    let relay = gateway("half", silent(), "half_closed = \"1s\"");
    let mut stream = client(relay.addr());
    stream.write_all(b"all I have to say").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    cut_while_others_go_on(&relay, &mut stream);
    relay.settled();
    assert_eq!(relay.ends("half-closed-timeout"), 1);
}

#[test]
fn a_server_that_does_not_answer_is_given_up_by_the_dial_timeout() {
    let (to, _socket, _queue) = full();
    let relay = gateway("dial", to, "dial = \"1s\"");
    let mut stream = client(relay.addr());
    cut_while_others_go_on(&relay, &mut stream);
    relay.settled();
    assert_eq!(relay.ends("dial-timeout"), 1);
}

#[test]
fn a_client_that_goes_away_while_its_server_is_dialled_is_forgotten() {
    let (to, _socket, _queue) = full();
    let relay = gateway("gone", to, "dial = \"1h\"");
    let stream = client(relay.addr());
    relay.counts("/totals/pairs_open", 1);
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    relay.settled();
    assert_eq!(relay.ends("client-gone"), 1);
}

#[test]
fn pairs_beyond_the_limit_are_refused_and_the_others_go_on() {
    let relay = Relay::with(echo(b'e'), &["--cores", "1", "--pairs-max", "3"]);
    let mut held: Vec<_> = (0..3).map(|_| connect(relay.addr()).0).collect();
    for _ in 0..5 {
        assert_refused(relay.addr());
    }
    for stream in &mut held {
        exchange(stream, "unharmed");
    }
    assert_eq!(relay.count("/totals/refusals/pairs-max"), 5);
    held.pop();
    relay.counts("/totals/pairs_open", 2);
    exchange(&mut connect(relay.addr()).0, "there's room again");
    drop(held);
    relay.finished();
}

/// `midmile` below a limit of 256 descriptors that it can't raise, whoever runs the tests.
fn below_256(args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256; exec \"$@\"", "sh"]);
    if geteuid().is_root() {
        command.args(["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]);
    }
    command.arg(env!("CARGO_BIN_EXE_midmile")).args(args).env_remove("MIDMILE_LOG");
    command
}

#[test]
fn few_descriptors_are_shared_out_and_never_run_out() {
    let to = echo(b'e').to_string();
    let args = ["relay", "--listen", "127.0.0.1:0", "--to", &to, "--admin", "127.0.0.1:0", "--cores", "1"];
    let relay = Relay::of(Running::spawn(below_256(&args)), 1);
    let most = relay.count("/pairs_max");
    assert!((50..100).contains(&most), "{most}");
    let mut held: Vec<_> = (0..most).map(|_| connect(relay.addr()).0).collect();
    for _ in 0..20 {
        assert_refused(relay.addr());
    }
    for stream in &mut held {
        exchange(stream, "unharmed");
    }
    let refusals = relay.status()["totals"]["refusals"].clone();
    assert_eq!((&refusals["pairs-max"], &refusals["descriptors"]), (&20.into(), &0.into()));
    drop(held);
    relay.settled();
    exchange(&mut connect(relay.addr()).0, "as before");
}

/// Lets a relay have `more` descriptors than it has, and no more; or all again.
fn limit_descriptors(relay: &Relay, more: Option<u64>) {
    let pid = relay.running.pid().to_string();
    let lowest_free = || (0..).find(|number| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists());
    let limit = more.map_or("1000".to_owned(), |more| (lowest_free().unwrap_or(0_u64) + more).to_string());
    said(programs::client("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]));
}

#[test]
fn without_a_descriptor_clients_wait_and_pairs_go_on() {
    let relay = Relay::with(echo(b'e'), &["--cores", "1", "--pairs-max", "100"]);
    let (mut held, _) = connect(relay.addr());
    limit_descriptors(&relay, Some(0));
    let mut waiting = client(relay.addr());
    for _ in 0..100 {
        exchange(&mut held, "unharmed");
    }
    limit_descriptors(&relay, None);
    let mut letter = [0];
    waiting.read_exact(&mut letter).unwrap();
    exchange(&mut waiting, "late");
    assert!(relay.count("/totals/refusals/descriptors") >= 1, "{:#}", relay.status());
    drop((held, waiting));
    relay.finished();
}

#[test]
fn a_dial_without_a_descriptor_is_a_named_end_and_pairs_go_on() {
    let relay = Relay::with(echo(b'e'), &["--cores", "1", "--pairs-max", "100"]);
    let (mut held, _) = connect(relay.addr());
    limit_descriptors(&relay, Some(1));
    assert_refused(relay.addr());
    exchange(&mut held, "unharmed");
    limit_descriptors(&relay, None);
    exchange(&mut connect(relay.addr()).0, "as before");
    assert_eq!(relay.ends("dial-exhausted"), 1, "{:#}", relay.status());
    drop(held);
    relay.settled();
}

#[test]
fn one_core_alone_serves_as_many_pairs_as_the_process_may_hold() {
    let cpus = kernel::allowed_cpus().unwrap();
    let [first, _, ..] = cpus[..] else {
        println!("SKIP: two cores need two CPUs");
        return;
    };
    let relay = Relay::with(echo(b'e'), &["--cores", "2", "--pairs-max", "6"]);
    // What this thread sends over loopback is received on its CPU, whose core accepts it.
    kernel::pin_to(first).unwrap();
    let held: Vec<TcpStream> = (0..6).map(|_| connect(relay.addr()).0).collect();
    assert_refused(relay.addr());
    assert_eq!(relay.count("/totals/refusals/pairs-max"), 1, "{:#}", relay.status());
    drop(held);
    relay.settled();
    exchange(&mut connect(relay.addr()).0, "as before");
}
