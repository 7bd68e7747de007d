//! Ring friends: programs that nobody changed, run by `midmile friends run`. Each test sees in the figures that bytes went by the rings:
//! else it could pass because all stayed plain.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;
mod rings;

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use process::{Scratch, midmile, run, text};
use programs::data::{MIB, file, sum, sum_said};
use programs::nginx::{self, Site};
use programs::{Server, client, curl, lacks, said, server};
use rings::{Friends, script};

/// Asks all that the semantics tester asks, of connections that have become friends before.
fn semantics(name: &str, more: &[&str]) {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new(name);
    let mut asking = script("semantics.py");
    asking.args(more).env("FRIENDS_TEST_WARM_UP", "24");
    let said = text(&friends.with(&asking).output().unwrap().stdout);
    let plain = text(&asking.output().unwrap().stdout);
    let outcomes = |said: &str, which: &str| -> Vec<String> {
        said.lines().filter(|line| line.starts_with(which)).map(str::to_owned).collect()
    };
    assert_eq!(outcomes(&said, "fail "), Vec::<String>::new(), "{said}");
    assert_eq!(outcomes(&said, "skip "), outcomes(&plain, "skip "), "what TCP can be asked");
    assert!(said.lines().filter(|line| line.starts_with("pass ")).count() > 30, "{said}");
    friends.went_by_ring(10 * 1024 * 1024);
}

#[test]
fn tcp_keeps_its_promises() {
    semantics("ring-semantics", &[]);
}

#[test]
fn tcp_keeps_its_promises_to_sockets_that_dont_wait() {
    semantics("ring-semantics-nonblocking", &["--nonblocking"]);
}

/// Random calls on both ends; each byte is checked at its place.
fn stress(name: &str, seeds: std::ops::Range<u32>, more: &[&str]) -> Option<Friends> {
    if lacks(&["python3"]) {
        return None;
    }
    let friends = Friends::new(name);
    for seed in seeds {
        let mut command = script("stress.py");
        command.args(["--seed", &seed.to_string(), "--bytes", "1500000"]).args(more);
        let output = friends.after(2, &command).output().unwrap();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && said.contains(&format!("pass {seed}")), "{said}{complained}");
    }
    Some(friends)
}

#[test]
fn random_calls_on_both_ends_lose_and_reorder_nothing() {
    if let Some(friends) = stress("ring-stress", 100..104, &[]) {
        friends.went_by_ring(1_000_000);
    }
    // A hundred thousand calls and more.
    if let Some(friends) = stress("ring-stress-small", 150..152, &["--small"]) {
        friends.went_by_ring(1_000_000);
    }
}

#[test]
fn looks_before_sleeps_are_the_operators() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("ring-spin");
    for spin in ["0", "40", "auto"] {
        let asked = script("stress.py");
        let mut command = client("env");
        command.arg(format!("MIDMILE_FRIENDS_SPIN_US={spin}")).arg(asked.get_program()).args(asked.get_args());
        command.args(["--seed", "170", "--bytes", "1500000", "--connections", "2"]);
        let output = friends.after(2, &command).output().unwrap();
        assert!(text(&output.stdout).contains("pass 170"), "{spin}: {}", text(&output.stderr));
    }
    friends.went_by_ring(1_000_000);
    for wrong in ["none", "10001", "-1"] {
        let said = midmile(&["friends", "run", &format!("--spin-us={wrong}"), "--", "true"]).output().unwrap();
        assert!(
            said.status.code() == Some(2) && text(&said.stderr).contains("0 to 10000 microseconds"),
            "{}",
            text(&said.stderr)
        );
    }
}

#[test]
fn a_side_that_is_killed_leaves_a_true_beginning_and_an_end() {
    if let Some(friends) = stress("ring-stress-killed", 200..206, &["--connections", "2", "--kill"]) {
        // The side that was killed says nothing of its own.
        friends.went_by_ring(1_000_000);
    }
}

#[test]
fn one_end_alone_stays_plain() {
    if let Some(friends) = stress("ring-stress-alone", 300..302, &["--connections", "2", "--plain-client"]) {
        assert_eq!((friends.figure("ring_in_bytes"), friends.figure("friends")), (0, 0));
        // Nothing that nobody took up is left in the directory, but for the library.
        let left: Vec<_> =
            std::fs::read_dir(friends.scratch.path("run")).unwrap().map(|one| one.unwrap().path()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

/// Answers a client that hasn't got the library, as often as it's told.
const ALONE: &str = r#"
import os, socket, subprocess, sys
ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as end:
    for number in range(int(sys.argv[2])):
        end.sendall(b"%08d" % number)
        assert end.recv(8, socket.MSG_WAITALL) == b"%08d" % number
"""
with socket.create_server(("127.0.0.1", 0)) as listening:
    without = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    asking = subprocess.Popen([sys.executable, "-c", ASK, str(listening.getsockname()[1]), sys.argv[1]], env=without)
    end, _ = listening.accept()
    while question := end.recv(8):
        end.sendall(question)
    assert asking.wait() == 0
print("done")
"#;

#[test]
fn an_offer_that_nobody_takes_up_for_long_is_given_up() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("ring-unanswered");
    let mut command = client("python3");
    command.args(["-c", ALONE, "17000"]);
    assert_eq!(said(&mut friends.with(&command)).trim(), "done");
    assert_eq!((friends.figure("offered"), friends.figure("offers_expired")), (1, 1));
    // What was sent since, libc's own calls sent.
    let counted = friends.figure("tcp_out_bytes") / 8;
    assert!((16_000..16_900).contains(&counted), "{counted} sends");
}

fn redis(friends: &Friends) -> (Server, SocketAddr) {
    Server::start(&friends.scratch, "redis.log", |addr| {
        let mut command = server("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--dir", &friends.scratch.path("")]);
        command.args(["--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        friends.with(&command)
    })
}

fn redis_client(addr: SocketAddr, program: &str, args: &[&str]) -> Command {
    let mut command = client(program);
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]).args(args);
    command
}

#[test]
fn redis_counts_exactly_and_keeps_what_it_is_given() {
    if lacks(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let friends = Friends::new("ring-redis");
    let (redis, addr) = redis(&friends);
    let increments = ["-q", "-t", "incr", "-n", "20000", "-c", "50", "-P", "16"];
    said(&mut friends.with(&redis_client(addr, "redis-benchmark", &increments)));
    // Clients without the library beside those with it.
    said(&mut redis_client(addr, "redis-benchmark", &increments));
    let counter = said(&mut friends.with(&redis_client(addr, "redis-cli", &["GET", "counter:__rand_int__"])));
    assert_eq!(counter.trim(), "40000");
    said(&mut friends.with(&redis_client(
        addr,
        "redis-benchmark",
        &["-q", "-t", "set,get", "-n", "500", "-d", "300000"],
    )));
    said(&mut friends.with(&redis_client(addr, "redis-benchmark", &["-q", "-t", "incr", "-n", "1000", "-k", "0"])));
    let path = file(&friends.scratch, "value", 16 * MIB, 6);
    let set = redis_client(addr, "redis-cli", &["-x", "SET", "large"]);
    assert_eq!(said(friends.with(&set).stdin(File::open(&path).unwrap())).trim(), "OK");
    let with_line_break = sum_said(client("sh").args(["-c", "cat \"$1\" && echo", "sh", &path]));
    let get = redis_client(addr, "redis-cli", &["--raw", "GET", "large"]);
    assert_eq!(sum_said(&mut friends.with(&get)), with_line_break);
    drop(redis);
    // The pipelines' requests, and at least what the clients told of the large values.
    friends.went_by_ring(50_000_000);
}

#[test]
fn nginx_serves_files_and_many_small_answers() {
    if lacks(&["nginx", "curl", "wrk"]) {
        return;
    }
    let friends = Friends::new("ring-nginx");
    // What nginx writes itself goes by the ring.
    let directives = "sendfile off; location /small { return 200 \"hello\\n\"; }";
    let site = Site { directives, ..Site::default() };
    let (nginx, addr) = nginx::start_by(&friends.scratch, site, |command| friends.with(&command));
    let path = file(&friends.scratch, "data/large", 32 * MIB, 3);
    for _ in 0..3 {
        assert_eq!(sum_said(&mut friends.with(&curl(&[&format!("http://{addr}/large")]))), sum(&path));
    }
    // Without the library on one side.
    assert_eq!(sum_said(&mut curl(&[&format!("http://{addr}/large")])), sum(&path));
    let part = file(&friends.scratch, "data/part", 40_000, 4);
    let all = sum_said(client("sh").args(["-c", "for each in $(seq 60); do cat \"$1\"; done", "sh", &part]));
    assert_eq!(sum_said(&mut friends.with(&curl(&[&format!("http://{addr}/part?[1-60]")]))), all);
    let mut wrk = client("wrk");
    wrk.args(["-t", "1", "-c", "20", "-d", "1s", &format!("http://{addr}/small")]);
    let report = said(&mut friends.with(&wrk));
    assert!(report.contains("Requests/sec") && !report.contains("Socket errors"), "{report}");
    drop(nginx);
    friends.went_by_ring(100_000);
}

/// An echo server on asyncio and clients of its, in two processes.
const ASYNCIO: &str = r#"
import asyncio, os, sys
async def echo(reader, writer):
    while data := await reader.read(100000):
        writer.write(data)
        await writer.drain()
    writer.close()
async def ask(port, seed):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for turn in range(60):
        data = bytes([seed, turn]) * (20000 + turn * turn * 20)
        writer.write(data)
        await writer.drain()
        assert await reader.readexactly(len(data)) == data
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
async def server(writing):
    listening = await asyncio.start_server(echo, "127.0.0.1", 0)
    os.write(writing, str(listening.sockets[0].getsockname()[1]).encode())
    os.close(writing)
    await asyncio.sleep(60)
async def clients(port):
    await asyncio.gather(*(ask(port, seed) for seed in range(20)))
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    asyncio.run(server(writing))
os.close(writing)
asyncio.run(clients(int(os.read(reading, 10))))
os.kill(child, 15)
os.wait()
print("done")
"#;

#[test]
fn asyncio_gets_back_what_it_sends() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("ring-asyncio");
    let mut command = client("python3");
    command.args(["-c", ASYNCIO]);
    assert_eq!(said(&mut friends.with(&command)).trim(), "done");
    friends.went_by_ring(1_000_000);
}

/// Runs a script whose checks each say that they passed.
fn checks(name: &str, python: &str, least: usize) -> Option<Friends> {
    if lacks(&["python3"]) {
        return None;
    }
    let friends = Friends::new(name);
    let output = friends.with(&script(python)).output().unwrap();
    let said = text(&output.stdout);
    let failed: Vec<_> = said.lines().filter(|line| !line.starts_with("pass ")).collect();
    assert_eq!(failed, Vec::<&str>::new(), "{said}{}", text(&output.stderr));
    assert!(said.lines().count() >= least, "{said}");
    Some(friends)
}

#[test]
fn faults_that_were_found_once_stay_mended() {
    if let Some(friends) = checks("ring-faults", "faults.py", 23) {
        friends.went_by_ring(1_000_000);
        assert_eq!(friends.figure("unrung"), 0);
    }
}

#[test]
fn what_processes_do_to_themselves_is_borne() {
    if let Some(friends) = checks("ring-bounds", "bounds.py", 13) {
        // One of them has a connection reset that a peer spoilt.
        assert!(friends.figure("ring_in_bytes") > 1000);
    }
}

#[test]
fn locks_that_are_lent_come_back() {
    if let Some(friends) = checks("ring-lending", "lending.py", 12) {
        friends.went_by_ring(1_000_000);
        assert!(friends.figure("locks_recalled") > 100, "they weren't lent");
    }
}

/// A program in C of this name.
fn compiled(friends: &Friends, name: &str) -> String {
    let program = friends.scratch.path(name);
    let source = format!("{}/tests/friends/{name}.c", env!("CARGO_MANIFEST_DIR"));
    said(Command::new("cc").args(["-O2", "-pthread", "-o", &program, &source]));
    program
}

#[test]
fn what_threads_do_to_each_others_calls_is_as_on_tcp() {
    if lacks(&["cc"]) {
        return;
    }
    let friends = Friends::new("ring-threads");
    let program = compiled(&friends, "threads");
    for what in ["receive", "send", "answer", "ids"] {
        let mut command = Command::new(&program);
        command.arg(what);
        assert_eq!(said(&mut command), "pass\n", "TCP: {what}");
        assert_eq!(said(&mut friends.with(&command)), "pass\n", "{what}");
    }
    friends.went_by_ring(1000);
}

#[test]
fn calls_that_a_handler_leaves_or_interrupts_do_as_on_tcp() {
    if lacks(&["cc"]) {
        return;
    }
    let friends = Friends::new("ring-leaps");
    let program = compiled(&friends, "leaps");
    for what in ["leave", "wait", "cancel", "look"] {
        for stack in ["", "above"] {
            let mut command = Command::new(&program);
            command.arg(what).args(Some(stack).filter(|stack| !stack.is_empty()));
            assert_eq!(said(&mut command), "pass\n", "TCP: {what} {stack}");
            assert_eq!(said(&mut friends.with(&command)), "pass\n", "{what} {stack}");
        }
    }
    friends.went_by_ring(100_000_000);
    assert!(friends.figure("locks_taken_back") > 100, "no call was left inside");
    assert!(friends.figure("reentered") > 10, "no call was interrupted inside");
}

#[test]
fn epoll_hears_of_all_by_pipes() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("ring-doorbells");
    let output = friends.with(&script("doorbells.py")).output().unwrap();
    let said = text(&output.stdout);
    let failed: Vec<_> = said.lines().filter(|line| !line.starts_with("pass ")).collect();
    assert_eq!(failed, Vec::<&str>::new(), "{said}{}", text(&output.stderr));
    assert!(said.lines().count() >= 31, "{said}");
    friends.went_by_ring(100_000);
    assert!(friends.figure("pipe_bells") > 1000, "doorbells went by TCP");
}

#[test]
fn epoll_hears_of_all_where_the_peers_socket_is_withheld() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: no capabilities can be given up");
        return;
    }
    if let Some(friends) = checks("ring-withheld", "withheld.py", 7) {
        friends.went_by_ring(1000);
        assert_eq!(friends.figure("unrung"), 0);
    }
}

/// A client that opens connections to a server without the library, and keeps them or does what `MODE` says.
const OFFERS: &str = r#"
import os, resource, signal, socket, sys, threading
mode = sys.argv[1]
listening = socket.create_server(("127.0.0.1", 0), backlog=64)
child = os.fork()
if child == 0:
    os.environ.pop("LD_PRELOAD")
    os.set_inheritable(listening.fileno(), True)
    echo = """
import socket, sys, threading
def serve(end):
    while data := end.recv(100):
        end.sendall(data)
listening = socket.socket(fileno=int(sys.argv[1]))
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""
    os.execvp(sys.executable, [sys.executable, "-c", echo, str(listening.fileno())])
def dial():
    end = socket.create_connection(listening.getsockname())
    for _ in range(10):
        end.sendall(b"x")
        assert end.recv(1) == b"x"
    return end
try:
    if mode == "many":
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        ends = [dial() for _ in range(900)]
        for end in ends:
            end.sendall(b"again")
            assert end.recv(5) == b"again"
    elif mode == "exec":
        for _ in range(10):
            end = dial()
            other = os.fork()
            if other == 0:
                os.execvp("true", ["true"])
            os.waitpid(other, 0)
            end.close()
    elif mode == "killed":
        other = os.fork()
        if other == 0:
            end = dial()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(other, 0)
    print("done")
finally:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"#;

/// What's in the directory beside the library after such a client.
fn offers_left(name: &str, mode: &str) -> Option<(Friends, usize)> {
    if lacks(&["python3"]) {
        return None;
    }
    let friends = Friends::new(name);
    let mut command = client("python3");
    command.args(["-c", OFFERS, mode]);
    assert_eq!(said(&mut friends.with(&command)).trim(), "done");
    assert!(friends.figure("offered") > 0 || mode == "killed");
    let left = left_in(&friends);
    Some((friends, left))
}

fn left_in(friends: &Friends) -> usize {
    std::fs::read_dir(friends.scratch.path("run")).unwrap().count() - 1
}

#[test]
fn offers_that_nobody_takes_up_leave_the_program_its_descriptors() {
    if let Some((friends, left)) = offers_left("ring-offers-many", "many") {
        assert_eq!((left, friends.figure("offers_expired") >= 800), (0, true));
    }
}

#[test]
fn a_child_that_executes_something_leaves_no_offer_behind() {
    if let Some((_, left)) = offers_left("ring-offers-exec", "exec") {
        assert_eq!(left, 0);
    }
}

#[test]
fn an_offer_of_a_process_that_was_killed_is_swept_by_the_next_run() {
    if let Some((friends, left)) = offers_left("ring-offers-killed", "killed") {
        assert_eq!(left, 1);
        said(&mut friends.with(&Command::new("true")));
        assert_eq!(left_in(&friends), 0);
    }
}

#[test]
fn run_refuses_a_directory_that_others_may_use() {
    let scratch = Scratch::new("ring-refused");
    std::fs::create_dir(scratch.path("open")).unwrap();
    std::fs::set_permissions(scratch.path("open"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/tmp", scratch.path("link")).unwrap();
    for (directory, why) in [("open", "its mode has to be 700"), ("link", "it isn't a directory")] {
        let output = run(&["friends", "run", "--runtime-dir", &scratch.path(directory), "--", "true"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
}

#[test]
fn run_becomes_the_command_and_keeps_what_was_preloaded() {
    let friends = Friends::new("ring-run");
    let mut command = Command::new("sh");
    command.args(["-c", "echo $LD_PRELOAD; exit 7"]);
    let output = friends.with(&command).env("LD_PRELOAD", "/nowhere/libother.so").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let preloaded = text(&output.stdout);
    let (others, ours) = preloaded.trim().split_once(':').unwrap();
    assert!(ours.starts_with(&friends.scratch.path("run")) && others == "/nowhere/libother.so", "{preloaded}");
    let output = friends.with(&Command::new("no-such-program")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("can't run no-such-program"));
}
