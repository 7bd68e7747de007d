//! A database, and servers whose languages bring a runtime of their own, unchanged: on plain TCP, by each way of friends, and what friends
//! can't carry stays on TCP.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "friends/mod.rs"]
mod cgroup;
mod process;
mod programs;
#[expect(dead_code, reason = "each test program uses a part of it")]
mod rings;

use std::os::unix::fs::chown;
use std::process::Command;

use cgroup::Cgroup;
use process::{Running, Scratch};
use programs::data::{MIB, file, sum, sum_said};
use programs::postgres::{Postgres, User, as_user, assert_adds_up, pgbench, start_by};
use programs::{Server, client, curl, lacks, said, server};
use rings::Friends;

/// How programs' connections go.
enum Way {
    Tcp(Scratch),
    Rings(Friends),
    Ebpf { scratch: Scratch, cgroup: Cgroup, _attached: Running },
}

impl Way {
    /// All that can be had here.
    fn all(name: &str) -> impl Iterator<Item = Self> {
        let ebpf = move || {
            let cgroup = Cgroup::new()?;
            let (scratch, attached) = (Scratch::new(&format!("friends-{name}-ebpf")), cgroup.attach(&[]));
            Some(Self::Ebpf { scratch, cgroup, _attached: attached })
        };
        let tcp = std::iter::once_with(move || Self::Tcp(Scratch::new(&format!("friends-{name}-tcp"))));
        let rings = std::iter::once_with(move || Self::Rings(Friends::new(&format!("ring-{name}"))));
        tcp.chain(rings).chain(std::iter::once_with(ebpf).flatten())
    }

    fn scratch(&self) -> &Scratch {
        match self {
            Self::Tcp(scratch) | Self::Ebpf { scratch, .. } => scratch,
            Self::Rings(friends) => &friends.scratch,
        }
    }

    /// The command, that way.
    fn of(&self, command: &Command) -> Command {
        self.of_user(command, None)
    }

    /// The same as another user. For rings that one has to be able to run midmile, and have the directory.
    fn of_user(&self, command: &Command, user: User) -> Command {
        match self {
            Self::Tcp(_) => as_user(command, user),
            Self::Rings(friends) if user.is_none() => friends.with(command),
            Self::Rings(friends) => {
                let (run, own) = (friends.with(command), self.lend(user));
                let mut lent = Command::new(own);
                lent.args(run.get_args());
                as_user(&lent, user)
            }
            Self::Ebpf { cgroup, .. } => cgroup.within(&as_user(command, user)),
        }
    }

    /// Gives a user the directories, and a copy of midmile, whose path it gets.
    fn lend(&self, user: User) -> String {
        let copy = self.scratch().path("midmile");
        if !std::path::Path::new(&copy).exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_midmile"), &copy).unwrap();
            self.scratch().write("log", "");
            let (user, group) = user.unzip();
            for path in ["run", "log"] {
                chown(self.scratch().path(path), user, group).unwrap();
            }
        }
        copy
    }

    /// Asserts that so many bytes went by the ring, or past TCP, if it's one of the two ways.
    fn carried(&self, by_ring: u64, past_tcp: u64) {
        match self {
            Self::Tcp(_) => {}
            Self::Rings(friends) => friends.went_by_ring(by_ring.try_into().unwrap()),
            Self::Ebpf { cgroup, .. } => assert!(cgroup.bytes() >= past_tcp, "{}", cgroup.attachment()),
        }
    }
}

fn path(name: &str) -> String {
    format!("{}/tests/friends/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Clients in the server's language, and curl before them, have back what they send. Both are started by `run`.
fn gives_back_what_it_is_sent(way: &Way, run: &[&str]) {
    let (program, args) = run.split_first().unwrap();
    let (running, addr) = Server::start(way.scratch(), "server.log", |addr| {
        let mut command = server(program);
        command.args(args).args(["serve", &addr.ip().to_string(), &addr.port().to_string()]);
        way.of(&command)
    });
    // By the first answer it's known how the server waits.
    let large = file(way.scratch(), "large", 8 * MIB, 5);
    let url = format!("http://{addr}/");
    let back = curl(&["--header", "Expect:", "--data-binary", &format!("@{large}"), &url]);
    assert_eq!(sum_said(&mut way.of(&back)), sum(&large));
    let mut asking = client(program);
    asking.args(args).args(["ask", &addr.ip().to_string(), &addr.port().to_string()]);
    assert_eq!(said(&mut way.of(&asking)), "done\n");
    drop(running);
}

#[test]
fn node_gives_back_what_it_is_sent() {
    if lacks(&["node", "curl"]) {
        return;
    }
    for way in Way::all("node") {
        gives_back_what_it_is_sent(&way, &["node", &path("http.js")]);
        // It waits by levels: by eBPF too.
        way.carried(10 * MIB, 10 * MIB);
    }
}

#[test]
fn java_gives_back_what_it_is_sent() {
    if lacks(&["javac", "java", "curl"]) {
        return;
    }
    for way in Way::all("java") {
        // Else it listens by IPv6, for both.
        gives_back_what_it_is_sent(&way, &["java", "-Djava.net.preferIPv4Stack=true", &path("Http.java")]);
        way.carried(5 * MIB, 0);
    }
}

#[test]
fn go_makes_its_own_system_calls_and_stays_on_tcp() {
    if lacks(&["caddy", "hey", "curl"]) {
        return;
    }
    for way in Way::all("go") {
        let scratch = way.scratch();
        std::fs::create_dir(scratch.path("site")).unwrap();
        let large = file(scratch, "site/large", 8 * MIB, 5);
        let (running, addr) = Server::start(scratch, "caddy.log", |addr| {
            let routes = serde_json::json!([{"handle": [{"handler": "file_server", "root": scratch.path("site")}]}]);
            let http = serde_json::json!({"servers": {"own": {"listen": [addr.to_string()], "routes": routes}}});
            let admin = serde_json::json!({"disabled": true, "config": {"persist": false}});
            let config = serde_json::json!({"admin": admin, "apps": {"http": http}});
            let config = scratch.write("caddy.json", &config.to_string());
            let mut command = server("caddy");
            command.args(["run", "--config", &config]);
            way.of(&command)
        });
        let url = format!("http://{addr}/large");
        assert_eq!(sum_said(&mut way.of(&curl(&[&url]))), sum(&large));
        let mut asking = client("hey");
        asking.args(["-n", "200", "-c", "10", &url]);
        let report = said(&mut way.of(&asking));
        assert!(report.contains("[200]\t200 responses"), "{report}");
        drop(running);
        way.carried(0, 0);
    }
}

/// A client's answer, that way.
fn ask(way: &Way, postgres: &Postgres) -> impl Fn(&str, &[&str]) -> String {
    move |program, args| said(&mut way.of_user(&postgres.client(program, args), postgres.user))
}

#[test]
fn postgres_transactions_add_up() {
    for way in Way::all("postgres") {
        let Some(postgres) = start_by(way.scratch(), |command, user| way.of_user(command, user)) else { return };
        let ask = ask(&way, &postgres);
        ask("pgbench", &["-i", "-q"]);
        pgbench(&ask, &["-c", "16", "-j", "2", "-t", "100"], 1600);
        // A connection for each transaction, and statements that are sent once.
        pgbench(&ask, &["-c", "8", "-j", "2", "-t", "25", "-C"], 200);
        pgbench(&ask, &["-c", "32", "-j", "2", "-t", "100", "-S", "-M", "prepared"], 3200);
        assert_adds_up(&ask, 1800);
        let long = ask("psql", &["--no-psqlrc", "-A", "-t", "-c", "SELECT length(repeat('midmile ', 1048576))"]);
        assert_eq!(long.trim(), (8 * MIB).to_string());
        drop(ask);
        drop(postgres);
        way.carried(MIB, 0);
    }
}
