//! PostgreSQL, and pgbench, whose transactions have to add up.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::process::Command;

use rustix::process::{Signal, geteuid};

use super::{Server, client, lacks, said, server};
use crate::process::{Scratch, until};

/// Without these there's no PostgreSQL here.
const PROGRAMS: [&str; 4] = ["initdb", "postgres", "pgbench", "psql"];

/// Who runs the server if root runs the tests, for it refuses root: user and group.
pub(crate) type User = Option<(u32, u32)>;

/// The user of that name.
fn postgres_user() -> User {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:"))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// A command as the user that may run the server.
pub(crate) fn as_user(command: &Command, user: User) -> Command {
    let mut own = match user {
        Some((user, group)) => {
            let mut own = Command::new("setpriv");
            own.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
            own.arg(command.get_program());
            own
        }
        None => Command::new(command.get_program()),
    };
    own.args(command.get_args());
    own
}

/// A running server.
pub(crate) struct Postgres {
    _server: Server,
    pub(crate) addr: SocketAddr,
    /// The directory of its Unix-domain socket.
    pub(crate) dir: String,
    /// As whom it runs.
    pub(crate) user: User,
}

/// Starts it; `None` where it can't run.
pub(crate) fn start(scratch: &Scratch) -> Option<Postgres> {
    start_by(scratch, as_user)
}

/// As [`start`], by the command that `through` makes of its, as the user that may run it.
pub(crate) fn start_by(scratch: &Scratch, through: impl Fn(&Command, User) -> Command) -> Option<Postgres> {
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
    let mut init = client("initdb");
    init.args(["--pgdata", &data, "--username", "tester", "--auth", "trust", "--no-sync"]);
    said(as_user(&init, user).current_dir(&dir));
    let (mut running, addr) = Server::start(scratch, "postgres.log", |addr| {
        let mut command = server("postgres");
        command.args(["-D", &data, "-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-k", &dir, "-F"]);
        let mut command = through(&command, user);
        command.current_dir(&dir);
        command
    });
    // An orderly end removes its shared memory.
    running.stop = Signal::INT;
    let postgres = Postgres { _server: running, addr, dir, user };
    until("PostgreSQL to be ready", || {
        let mut command = postgres.client("psql", &["-c", "SELECT 1"]);
        command.output().unwrap().status.success().then_some(())
    });
    Some(postgres)
}

impl Postgres {
    /// One of the clients, straight to it.
    pub(crate) fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = client(program);
        command.args(["-h", &self.addr.ip().to_string(), "-p", &self.addr.port().to_string(), "-U", "tester"]);
        command.args(args).arg("postgres");
        command
    }
}

/// Transactions by pgbench, all of which have to succeed; `ask` runs a client with its arguments.
pub(crate) fn pgbench(ask: impl Fn(&str, &[&str]) -> String, args: &[&str], transactions: u32) {
    // Without --no-vacuum each run begins by emptying the history.
    let said = ask("pgbench", &[&["--no-vacuum"], args].concat());
    let all = format!("number of transactions actually processed: {transactions}/{transactions}\n");
    assert!(said.contains(&all) && said.contains("number of failed transactions: 0 "), "{said}");
}

/// The balances of accounts, tellers, branches and history agree, and `transactions` were done.
pub(crate) fn assert_adds_up(ask: impl Fn(&str, &[&str]) -> String, transactions: u32) {
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), \
                (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches), \
                (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history), \
                (SELECT count(*) FROM pgbench_history)";
    let said = ask("psql", &["--no-psqlrc", "-A", "-t", "-c", sums]);
    assert_eq!(said.trim(), format!("t|t|t|{transactions}"));
}
