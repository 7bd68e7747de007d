//! Programs that nobody here wrote, unchanged, with friends on for their cgroup.

#[path = "friends/mod.rs"]
mod cgroup;
mod process;
mod programs;

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;

use cgroup::{Cgroup, until_gone};
use process::Scratch;
use programs::data::{MIB, file, sum, sum_said};
use programs::nginx::{self, Site};
use programs::{Server, client, curl, lacks, said, server};

fn redis(cgroup: &Cgroup, scratch: &Scratch) -> (Server, SocketAddr) {
    Server::start(scratch, "redis.log", |addr| {
        let mut command = server("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--dir", &scratch.path("")]);
        command.args(["--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        cgroup.within(&command)
    })
}

/// A client of Redis that comes with it, in the cgroup.
fn redis_client(cgroup: &Cgroup, addr: SocketAddr, program: &str, args: &[&str]) -> Command {
    let mut command = client(program);
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]).args(args);
    cgroup.within(&command)
}

#[test]
fn redis_counts_exactly_and_keeps_what_it_is_given() {
    if lacks(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let Some(cgroup) = Cgroup::new() else { return };
    let mut attached = cgroup.attach(&[]);
    let scratch = Scratch::new("friends-redis");
    let (server, addr) = redis(&cgroup, &scratch);
    let benchmark = |args: &[&str]| {
        let said = said(&mut redis_client(&cgroup, addr, "redis-benchmark", args));
        assert!(said.contains("requests per second"), "{said}");
    };
    // The server is known from its first answer on.
    said(&mut redis_client(&cgroup, addr, "redis-cli", &["PING"]));
    benchmark(&["-q", "-t", "incr", "-n", "40000", "-c", "200", "-P", "16"]);
    let mut cli = redis_client(&cgroup, addr, "redis-cli", &["GET", "counter:__rand_int__"]);
    assert_eq!(said(&mut cli).trim(), "40000");
    let requests = 40_000 * "*2\r\n$4\r\nINCR\r\n$20\r\ncounter:__rand_int__\r\n".len();
    assert!(cgroup.bytes() > u64::try_from(requests / 2).unwrap(), "{}", cgroup.attachment());
    // Connections that come and go, and values that fill the receiver's buffer.
    benchmark(&["-q", "-t", "incr", "-n", "2000", "-c", "20", "-k", "0"]);
    benchmark(&["-q", "-t", "set,get", "-n", "500", "-c", "20", "-d", "300000"]);
    // redis-cli waits in its calls: it stays on TCP, and gets its bytes.
    let path = file(&scratch, "value", 16 * MIB, 6);
    let mut set = redis_client(&cgroup, addr, "redis-cli", &["-x", "SET", "large"]);
    assert_eq!(said(set.stdin(File::open(&path).unwrap())).trim(), "OK");
    let with_line_break = sum_said(client("sh").args(["-c", "cat \"$1\" && echo", "sh", &path]));
    assert_eq!(sum_said(&mut redis_client(&cgroup, addr, "redis-cli", &["--raw", "GET", "large"])), with_line_break);
    drop(server);
    cgroup.detach();
    assert_eq!(attached.code(), Some(0));
    until_gone(&cgroup);
}

#[test]
fn redis_goes_on_while_friends_come_and_go() {
    if lacks(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let Some(cgroup) = Cgroup::new() else { return };
    let scratch = Scratch::new("friends-redis-switch");
    let (_server, addr) = redis(&cgroup, &scratch);
    let mut command = redis_client(&cgroup, addr, "redis-benchmark", &["-q", "-t", "incr", "-n", "150000", "-c", "50"]);
    let output = std::thread::scope(|scope| {
        // The server was there before: its first answers, to another client, tell what it is.
        let mut attached = cgroup.attach(&[]);
        said(&mut redis_client(&cgroup, addr, "redis-cli", &["PING"]));
        let running = scope.spawn(|| said(&mut command));
        process::until("bytes that skip TCP", || (cgroup.bytes() > 500_000).then_some(()));
        assert!(cgroup.detach().contains("go on by TCP"));
        assert_eq!(attached.code(), Some(0));
        running.join().unwrap()
    });
    assert!(output.contains("requests per second"), "{output}");
    let mut cli = redis_client(&cgroup, addr, "redis-cli", &["GET", "counter:__rand_int__"]);
    assert_eq!(said(&mut cli).trim(), "150000");
}

#[test]
fn nginx_waits_for_edges_and_stays_on_tcp() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let Some(cgroup) = Cgroup::new() else { return };
    let _attached = cgroup.attach(&[]);
    let scratch = Scratch::new("friends-nginx");
    let (_server, addr) = nginx::start_by(&scratch, Site::default(), |command| cgroup.within(&command));
    for size in [1, 1000, 100_000, 20 * MIB] {
        let path = file(&scratch, &format!("data/{size}"), size, 3);
        assert_eq!(sum_said(&mut cgroup.within(&curl(&[&format!("http://{addr}/{size}")]))), sum(&path));
    }
    // One connection for many requests.
    let many = format!("http://{addr}/{{1,1000,100000}}?[1-30]");
    said(&mut cgroup.within(&curl(&["--output", "/dev/null", &many])));
    let upload = file(&scratch, "upload", 10 * MIB, 4);
    let target = format!("http://{addr}/put/upload");
    said(&mut cgroup.within(&curl(&["--upload-file", &upload, &target])));
    assert_eq!(sum(&scratch.path("put/upload")), sum(&upload));
    // It waits for edges: it is found out by its first answer, and left alone.
    assert_eq!(cgroup.bytes(), 0);
    assert!(cgroup.count("server-edges") >= 5, "{}", cgroup.attachment());
}
