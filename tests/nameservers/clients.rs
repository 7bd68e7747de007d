//! Programs that ask name servers, and what they are asked through.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::message::{self, A, Edns, Query, ask, connect};
use super::servers::{KEEPALIVE_MS, Kind, NameServer};
use super::zone::{self, HOSTS, ORIGIN, QUESTIONS_PER_HOST};
use crate::process::{Scratch, until};
use crate::programs::relay::{Relay, number};
use crate::programs::{client, connections_to, lacks, said};

/// Does it with each server that is installed, behind a multiplexor; `how` stands in front of its address.
pub(crate) fn with_each(
    how: &str,
    name: &str,
    kinds: &[Kind],
    more: &[&str],
    work: impl Fn(Kind, &NameServer, &Relay),
) {
    for &kind in kinds {
        if lacks(&[&[kind.program()], more].concat()) {
            continue;
        }
        let scratch = Scratch::new(&format!("mux-{name}-{}", kind.program()));
        let server = NameServer::start(kind, &scratch, "server");
        let mux = Relay::mux_to("dns", &[format!("{how}{}", server.addr)], &[]);
        work(kind, &server, &mux);
        mux.settled();
    }
}

/// kdig's words, without a second try.
pub(crate) fn kdig(port: &str, args: &[&str]) -> String {
    let mut command = client("kdig");
    said(command.args(["@127.0.0.1", "-p", port, "+tcp", "+retry=0", "+timeout=20"]).args(args))
}

/// A file of questions for dnsperf, and how many there are.
pub(crate) struct Questions {
    file: String,
    pub(crate) count: usize,
}

impl Questions {
    pub(crate) fn write(scratch: &Scratch, hosts: usize) -> Self {
        let file = scratch.write(&format!("questions-{hosts}"), &zone::for_dnsperf(hosts));
        Self { file, count: hosts * QUESTIONS_PER_HOST }
    }
}

/// Runs dnsperf, so often through the questions; each has to have its answer.
pub(crate) fn dnsperf(port: &str, questions: &Questions, runs: usize, more: &[&str]) {
    dnsperf_hears(port, questions, runs, "NOERROR", &[&["-t", "20"], more].concat());
}

/// The same; each has to have this answer code. An answer comes in time by dnsperf's own measure, unless `more` has another.
pub(crate) fn dnsperf_hears(port: &str, questions: &Questions, runs: usize, code: &str, more: &[&str]) {
    let all = runs * questions.count;
    let mut command = client("dnsperf");
    command.args(["-s", "127.0.0.1", "-p", port, "-m", "tcp", "-d", &questions.file, "-n", &runs.to_string()]);
    let said = said(command.args(more));
    for line in [
        format!("Queries completed:    {all} (100.00%)"),
        "Queries lost:         0 (0.00%)".to_owned(),
        format!("Response codes:       {code} {all} (100.00%)"),
    ] {
        assert!(said.contains(&line), "{more:?}: no {line:?} in {said}");
    }
    assert!(!said.contains("unexpected"), "{said}");
}

/// Where one server is left, each question of dnsperf's has its answer in time, and where none is SERVFAIL, also those that come later.
/// `how` stands in front of the servers' addresses.
pub(crate) fn is_told_of_an_outage(how: &str) {
    if lacks(&["knotd", "dnsperf"]) {
        return;
    }
    let scratch = Scratch::new(&format!("mux-outage{}", how.trim_end_matches(':')));
    let questions = Questions::write(&scratch, HOSTS / 100);
    let mut servers = ["a", "b"].map(|name| NameServer::start(Kind::Knot, &scratch, name));
    let mux = Relay::mux_to("dns", &servers.each_ref().map(|server| format!("{how}{}", server.addr)), &[]);
    let port = mux.port();
    dnsperf_hears(&port, &questions, 1, "NOERROR", &[]);
    servers[0].kill();
    // One is enough.
    dnsperf_hears(&port, &questions, 1, "NOERROR", &[]);
    servers[1].kill();
    for _ in 0..2 {
        dnsperf_hears(&port, &questions, 1, "SERVFAIL", &[]);
    }
    assert_eq!(mux.count("/routes/0/messages/servfails"), 2 * questions.count as u64);
    mux.settled();
}

/// The records of a transfer, without kdig's remarks.
pub(crate) fn transferred(port: &str, at: &str, args: &[&str]) -> Vec<String> {
    let mut command = client("kdig");
    command.args([&format!("@{at}"), "-p", port, "+tcp", "+retry=0", "+timeout=20"]).args(args);
    let said = said(&mut command);
    // A signature has its time in it.
    let is_record = |line: &&str| !line.is_empty() && !line.starts_with(';') && !line.contains("\tTSIG\t");
    let records = said.lines().filter(is_record);
    records.map(str::to_owned).collect()
}

/// What dig is told of how long its connection to `at` may idle.
fn told_to_idle(at: SocketAddr, option: &str) -> Vec<String> {
    let mut command = client("dig");
    command.args([&format!("@{}", at.ip()), "-p", &at.port().to_string(), "+tcp", "+tries=1", "+timeout=20"]);
    let said = said(command.args([option, &format!("host-1.{ORIGIN}"), "AAAA"]));
    assert!(said.contains("2001:db8::1"), "{said}");
    said.lines().filter(|line| line.contains("KEEPALIVE")).map(str::to_owned).collect()
}

/// Who asks how long a connection may idle is told our time, in place of the server's or where it says none (RFC 7828, 3.3.2); `how`
/// stands in front of the server's address.
pub(crate) fn is_told_our_time_to_idle(how: &str, kind: Kind) {
    if lacks(&[kind.program(), "dig"]) {
        return;
    }
    let scratch = Scratch::new(&format!("mux-keepalive{}-{}", how.trim_end_matches(':'), kind.program()));
    let server = NameServer::start(kind, &scratch, "server");
    let mux = Relay::mux_to("dns", &[format!("{how}{}", server.addr)], &["--idle-timeout", "2s"]);
    // Of the servers that the tests know it's the only one with this option.
    let says = kind == Kind::Unbound;
    let theirs = says.then(|| format!("; TCP KEEPALIVE: {}.0 secs", KEEPALIVE_MS / 1000));
    assert_eq!(told_to_idle(server.addr, "+keepalive"), Vec::from_iter(theirs), "{kind:?}");
    assert_eq!(told_to_idle(mux.addr(), "+keepalive"), ["; TCP KEEPALIVE: 2.0 secs"], "{kind:?}");
    assert!(told_to_idle(mux.addr(), "+nokeepalive").is_empty(), "{kind:?}: told without being asked");
    // But for that time the answer is the server's, byte for byte.
    let edns = Edns { datagram: 1232, dnssec: false, version: 0, option: false, keepalive: true };
    let query = Query { edns: Some(edns), ..Query::plain(&format!("host-1.{ORIGIN}"), A) };
    let [mut through, mut directly] = [mux.addr(), server.addr].map(connect);
    let (answer, mut expected) = (ask(&mut through, &query, 5), ask(&mut directly, &query, 5));
    let ours = message::keepalive(20);
    if says {
        let theirs = message::keepalive(KEEPALIVE_MS / 100);
        let at = expected.windows(theirs.len()).position(|bytes| bytes == theirs).unwrap();
        expected[at..at + theirs.len()].copy_from_slice(&ours);
    } else {
        // Its last record is EDNS without options; their length is at its end.
        let len_at = expected.len() - 2;
        assert_eq!(expected[len_at..], [0, 0], "{kind:?}: {expected:?}");
        expected[len_at..].copy_from_slice(&u16::try_from(ours.len()).unwrap().to_be_bytes());
        expected.extend(ours);
    }
    assert_eq!(answer, expected, "{kind:?}");
    // And so long it may idle.
    assert_eq!(message::next(&mut through), None);
    assert_eq!(number(&mux.settled(), "/totals/ends/idle-timeout"), 1);
    if !how.is_empty() {
        // The option means a connection, so both went by one.
        assert_eq!(mux.count("/routes/0/messages/datagrams/detours/keepalive"), 2);
    }
}

/// Says at its end that something is over.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// No question of dnsperf's is lost while two servers of a kind are killed and started again, one after the other; `how` stands in front
/// of their addresses.
pub(crate) fn survives_restarts(how: &str, kind: Kind) {
    if lacks(&[kind.program(), "dnsperf"]) {
        return;
    }
    let scratch = Scratch::new(&format!("mux-restarts{}-{}", how.trim_end_matches(':'), kind.program()));
    let questions = Questions::write(&scratch, HOSTS);
    let mut servers = ["a", "b"].map(|name| NameServer::start(kind, &scratch, name));
    let mux = Relay::mux_to("dns", &servers.each_ref().map(|server| format!("{how}{}", server.addr)), &[]);
    let in_use = |server: &NameServer| {
        until("connections to a backend", || (connections_to(server.addr) > 0).then_some(()));
    };
    servers.iter().for_each(in_use);
    let port = mux.port();
    let answers = || mux.count("/routes/0/messages/answers");
    let answered = |more: u64| {
        let before = answers();
        until("answers", || (answers() >= before + more).then_some(()));
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Set even if the test fails: the load would never end.
        let over_at_last = Over(&over);
        // About a second each, one after the other.
        let load = scope.spawn(|| {
            while !over.load(Relaxed) {
                dnsperf(&port, &questions, 2, &["-c", "10", "-q", "100", "-Q", "4000"]);
            }
        });
        for server in [0, 1, 0, 1] {
            answered(1000);
            servers[server].kill();
            answered(1000);
            servers[server].again(&scratch);
            in_use(&servers[server]);
        }
        answered(1000);
        drop(over_at_last);
        load.join().unwrap();
    });
    mux.settled();
}
