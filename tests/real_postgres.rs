//! PostgreSQL and pgbench through the relay: transactions that have to add up, and a connection for each.

mod process;
mod programs;

use process::Scratch;
use programs::data::MIB;
use programs::postgres::{assert_adds_up, pgbench, start};
use programs::relay::{Relay, number};
use programs::{client, said};

/// Runs clients through the relay.
fn through(relay: &Relay) -> impl Fn(&str, &[&str]) -> String {
    let port = relay.port();
    move |program, args| {
        let mut command = client(program);
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", "tester"]).args(args).arg("postgres");
        said(&mut command)
    }
}

#[test]
fn transactions_add_up() {
    let scratch = Scratch::new("pgbench");
    let Some(postgres) = start(&scratch) else { return };
    let relay = Relay::to(postgres.addr);
    let ask = through(&relay);
    ask("pgbench", &["-i", "-q"]);
    pgbench(&ask, &["-c", "16", "-j", "2", "-t", "100"], 1600);
    pgbench(&ask, &["-c", "8", "-t", "50", "-M", "prepared"], 400);
    // A connection for each transaction.
    pgbench(&ask, &["-c", "8", "-j", "2", "-t", "50", "-C"], 400);
    pgbench(&ask, &["-c", "32", "-j", "2", "-t", "100", "-S"], 3200);
    assert_adds_up(&ask, 2400);
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
    let ask = through(&relay);
    ask("pgbench", &["-i", "-q"]);
    pgbench(&ask, &["-c", "8", "-t", "50"], 400);
    let mut command = client("psql");
    command.args(["-h", &front, "-p", "5432", "-U", "tester", "--no-psqlrc", "-A", "-t", "-c"]);
    command.args(["SELECT length(repeat('midmile ', 1048576))", "postgres"]);
    assert_eq!(said(&mut command).trim(), (8 * MIB).to_string());
    assert_adds_up(&ask, 400);
    relay.settled();
}
