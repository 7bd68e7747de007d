//! PostgreSQL and pgbench through the relay: transactions that have to add up, and a connection for each.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

use process::{Scratch, until};
use programs::data::MIB;
use programs::relay::{Relay, number};
use programs::{Server, client, lacks, said, server};
use rustix::process::{Signal, geteuid};

/// Without these there's no PostgreSQL here.
const PROGRAMS: [&str; 4] = ["initdb", "postgres", "pgbench", "psql"];

/// Who runs the server if root runs the tests, for it refuses root: user and group.
fn postgres_user() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:"))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// As the user that may run the server.
fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

/// A running server with pgbench's tables.
struct Postgres {
    _server: Server,
    addr: SocketAddr,
    /// The directory of its Unix-domain socket.
    dir: String,
}

/// Starts it; `None` where it can't run.
fn start(scratch: &Scratch) -> Option<Postgres> {
    if lacks(&PROGRAMS) {
        return None;
    }
    let user = if geteuid().is_root() { Some(postgres_user()?) } else { None };
    let dir = scratch.path("pg");
    std::fs::create_dir(&dir).unwrap();
    if let Some((user, group)) = user {
        chown(&dir, Some(user), Some(group)).unwrap();
    }
    let data = format!("{dir}/data");
    let mut init = as_user(client("initdb"), user);
    init.args(["--pgdata", &data, "--username", "tester", "--auth", "trust", "--no-sync"]).current_dir(&dir);
    said(&mut init);
    let (mut running, addr) = Server::start(scratch, "postgres.log", |addr| {
        let mut command = as_user(server("postgres"), user);
        command.args(["-D", &data, "-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-k", &dir, "-F"]);
        command.current_dir(&dir);
        command
    });
    // An orderly end removes its shared memory.
    running.stop = Signal::INT;
    let postgres = Postgres { _server: running, addr, dir };
    let (host, port) = (addr.ip().to_string(), addr.port().to_string());
    until("PostgreSQL to be ready", || {
        let mut command = client("psql");
        command.args(["-h", &host, "-p", &port, "-U", "tester", "-c", "SELECT 1", "postgres"]);
        command.output().unwrap().status.success().then_some(())
    });
    Some(postgres)
}

/// One of the clients, through the relay.
fn through(relay: &Relay, program: &str, args: &[&str]) -> String {
    let mut command = client(program);
    command.args(["-h", "127.0.0.1", "-p", &relay.port(), "-U", "tester"]).args(args).arg("postgres");
    said(&mut command)
}

fn query(relay: &Relay, sql: &str) -> String {
    through(relay, "psql", &["--no-psqlrc", "-A", "-t", "-c", sql]).trim().to_owned()
}

/// Transactions by pgbench, all of which have to succeed.
fn pgbench(relay: &Relay, args: &[&str], transactions: u32) {
    // Without --no-vacuum each run begins by emptying the history.
    let said = through(relay, "pgbench", &[&["--no-vacuum"], args].concat());
    let all = format!("number of transactions actually processed: {transactions}/{transactions}\n");
    assert!(said.contains(&all) && said.contains("number of failed transactions: 0 "), "{said}");
}

/// The balances of accounts, tellers, branches and history agree, and `transactions` were done.
fn assert_adds_up(relay: &Relay, transactions: u32) {
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), \
                (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches), \
                (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history), \
                (SELECT count(*) FROM pgbench_history)";
    assert_eq!(query(relay, sums), format!("t|t|t|{transactions}"));
}

#[test]
fn transactions_add_up() {
    let scratch = Scratch::new("pgbench");
    let Some(postgres) = start(&scratch) else { return };
    let relay = Relay::to(postgres.addr);
    through(&relay, "pgbench", &["-i", "-q"]);
    pgbench(&relay, &["-c", "16", "-j", "2", "-t", "100"], 1600);
    pgbench(&relay, &["-c", "8", "-t", "50", "-M", "prepared"], 400);
    // A connection for each transaction.
    pgbench(&relay, &["-c", "8", "-j", "2", "-t", "50", "-C"], 400);
    pgbench(&relay, &["-c", "32", "-j", "2", "-t", "100", "-S"], 3200);
    assert_adds_up(&relay, 2400);
    assert!(number(&relay.settled(), "/totals/pairs_opened") > 400);
}

#[test]
fn over_unix_sockets_on_both_sides() {
    let scratch = Scratch::new("pg-unix");
    let Some(postgres) = start(&scratch) else { return };
    let to = format!("unix:{}/.s.PGSQL.{}", postgres.dir, postgres.addr.port());
    let front = scratch.path("");
    let listen = format!("unix:{front}.s.PGSQL.5432");
    let relay = Relay::between(&[("127.0.0.1:0", &to), (&listen, &to)], &[]);
    through(&relay, "pgbench", &["-i", "-q"]);
    pgbench(&relay, &["-c", "8", "-t", "50"], 400);
    let mut command = client("psql");
    command.args(["-h", &front, "-p", "5432", "-U", "tester", "--no-psqlrc", "-A", "-t", "-c"]);
    command.args(["SELECT length(repeat('midmile ', 1048576))", "postgres"]);
    assert_eq!(said(&mut command).trim(), (8 * MIB).to_string());
    assert_adds_up(&relay, 400);
    relay.settled();
}
