//! DNS over TCP through the multiplexor: Knot, Unbound and NSD behind it, kdig, dig and dnsperf before it.

mod nameservers;
mod process;
mod programs;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use nameservers::clients::{self, Questions, dnsperf, kdig, transferred};
use nameservers::message::{self, A, Query, TXT, ask, ask_all, connect};
use nameservers::servers::{KEY, Kind, NameServer, SLOW};
use nameservers::zone::{self, HOSTS, ORIGIN};
use process::ends::reset;
use process::{Scratch, until};
use programs::between::between;
use programs::relay::{Relay, number};
use programs::{client, connections_to, lacks, raise_descriptors, said};

/// Connections of the comparison, and questions on each.
const CONNECTIONS: u64 = 8;
const QUESTIONS: u16 = 800;
/// Long answers that a client asks for and doesn't take.
const UNREAD: u16 = 500;
/// Malformed questions that a client asks on one connection.
const MALFORMED: u16 = 50;
/// Senders that never finish a message, as many as there are descriptors for beside those that are in use otherwise, and what each may cost.
const SENDERS: usize = 10_000;
const SPARE_DESCRIPTORS: usize = 400;
const SENDER_BYTES_MAX: u64 = 2048;

/// Does it with each server that is installed, behind a multiplexor that asks it over TCP.
fn with_each(name: &str, kinds: &[Kind], more: &[&str], work: impl Fn(Kind, &NameServer, &Relay)) {
    clients::with_each("", name, kinds, more, work);
}

#[test]
fn every_answer_is_byte_for_byte_the_direct_one() {
    with_each("same", &Kind::ALL, &[], |kind, server, mux| {
        let through = mux.addr();
        thread::scope(|scope| {
            for seed in 0..CONNECTIONS {
                // All connections ask under the same ids, each something else.
                let asking = move || {
                    let questions = zone::questions(seed, QUESTIONS);
                    (ask_all(through, &questions), questions)
                };
                let asking = scope.spawn(asking);
                scope.spawn(move || {
                    let (answers, questions) = asking.join().unwrap();
                    let direct = ask_all(server.addr, &questions);
                    for (id, query) in &questions {
                        let [answer, direct] = [&answers, &direct].map(|answers| &answers[id]);
                        assert!(
                            answer == direct,
                            "{kind:?}, {} {} with flags {:#06x}: {answer:?}\ndirectly: {direct:?}",
                            query.name,
                            query.kind,
                            query.flags,
                        );
                    }
                });
            }
        });
    });
}

#[test]
fn the_questions_of_the_comparison_have_answers_of_all_kinds() {
    let kind = Kind::Knot;
    if lacks(&[kind.program()]) {
        return;
    }
    let scratch = Scratch::new("mux-kinds");
    let server = NameServer::start(kind, &scratch, "server");
    let answers = ask_all(server.addr, &zone::questions(0, QUESTIONS));
    let mut rcodes = BTreeMap::<u8, usize>::new();
    answers.values().for_each(|answer| *rcodes.entry(message::rcode(answer)).or_default() += 1);
    // NOERROR, NXDOMAIN and REFUSED (RFC 1035, 4.1.1).
    assert!([0, 3, 5].iter().all(|rcode| rcodes.get(rcode).is_some_and(|&count| count > 10)), "{rcodes:?}");
    let longest = answers.values().map(Vec::len).max().unwrap();
    assert!(longest > 60_000, "{longest}");
}

#[test]
fn all_that_was_asked_before_a_half_close_is_answered() {
    with_each("half", &[Kind::Knot], &[], |_, _, mux| {
        let questions = zone::questions(100, QUESTIONS);
        let mut stream = connect(mux.addr());
        let mut asking = stream.try_clone().unwrap();
        let bytes: Vec<u8> = questions.iter().flat_map(|(id, query)| query.framed(*id)).collect();
        let asking = thread::spawn(move || {
            asking.write_all(&bytes).unwrap();
            asking.shutdown(Shutdown::Write).unwrap();
        });
        let answers = std::iter::from_fn(|| message::next(&mut stream));
        let mut ids: Vec<u16> = answers.map(|answer| message::id(&answer)).collect();
        asking.join().unwrap();
        let mut asked: Vec<u16> = questions.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        asked.sort_unstable();
        assert_eq!(ids, asked);
        mux.finished();
    });
}

#[test]
fn dnsperf_and_kdig_lose_nothing() {
    with_each("load", &Kind::ALL, &["dnsperf", "kdig"], |kind, _, mux| {
        let scratch = Scratch::new(&format!("mux-questions-{}", kind.program()));
        let port = mux.port();
        let (many, few) = (Questions::write(&scratch, HOSTS), Questions::write(&scratch, HOSTS / 10));
        dnsperf(&port, &many, 5, &["-c", "4", "-q", "400"]);
        dnsperf(&port, &many, 2, &["-c", "100", "-q", "100", "-D"]);
        // A connection for each question, of which dnsperf makes a few hundred a second.
        dnsperf(&port, &few, 1, &["-c", "10", "-q", "10", "-O", "num-queries-per-conn=1"]);
        let host = format!("host-7.{ORIGIN}");
        assert_eq!(kdig(&port, &["+short", &host, "AAAA"]), "2001:db8::7\n");
        assert_eq!(kdig(&port, &["+short", "+edns", &format!("x.wild.{ORIGIN}"), "TXT"]), "\"whoever you are\"\n");
        let missing = kdig(&port, &[&format!("no.{ORIGIN}"), "A"]);
        assert!(missing.contains("status: NXDOMAIN;") && missing.contains("(TCP)"), "{missing}");
    });
}

#[test]
fn a_signed_question_has_an_answer_whose_signature_holds() {
    with_each("signed", &[Kind::Knot], &["kdig"], |_, _, mux| {
        let host = format!("host-9.{ORIGIN}");
        let signed = |key: &str| {
            let mut command = client("kdig");
            let port = mux.port();
            command.args(["@127.0.0.1", "-p", &port, "+tcp", "+retry=0", "+timeout=20", "-y", key, &host, "AAAA"]);
            let output = command.output().unwrap();
            process::text(&output.stdout) + &process::text(&output.stderr)
        };
        let good = signed(KEY);
        assert!(good.contains("status: NOERROR;") && good.contains("2001:db8::9"), "{good}");
        assert!(good.contains("TSIG PSEUDOSECTION"), "{good}");
        assert!(!good.contains("WARNING") && !good.contains("ERROR:") && !good.contains("failed"), "{good}");
        let bad = signed(&KEY.replace(":bWlk", ":AAAA"));
        assert!(bad.contains("BADSIG"), "a wrong key isn't found out: {bad}");
    });
}

#[test]
fn a_zone_is_transferred_whole() {
    // Unbound doesn't hand zones on.
    with_each("transfer", &[Kind::Knot, Kind::Nsd], &["kdig"], |kind, server, mux| {
        let (port, ip) = (server.addr.port().to_string(), server.addr.ip().to_string());
        let mut sorts = vec![vec!["AXFR", ORIGIN]];
        if kind == Kind::Knot {
            sorts.push(vec!["-y", KEY, "AXFR", ORIGIN]);
        }
        for args in sorts {
            let direct = transferred(&port, &ip, &args);
            assert!(direct.len() > 6 * HOSTS, "{kind:?}, {args:?}: {} records", direct.len());
            // Meanwhile others are asked and answered.
            thread::scope(|scope| {
                let others = scope.spawn(|| ask_all(mux.addr(), &zone::questions(200, QUESTIONS)));
                assert!(transferred(&mux.port(), "127.0.0.1", &args) == direct, "{kind:?}, {args:?}");
                assert_eq!(others.join().unwrap().len(), usize::from(QUESTIONS));
            });
        }
    });
}

#[test]
fn a_transfers_connection_goes_with_its_last_message() {
    for kind in [Kind::Knot, Kind::Nsd] {
        if lacks(&[kind.program(), "kdig"]) {
            continue;
        }
        let scratch = Scratch::new(&format!("mux-transfers-{}", kind.program()));
        let server = NameServer::start(kind, &scratch, "server");
        server.update(&scratch);
        // Nothing is over by a silence before the test is.
        let patient =
            ["--cores", "1", "--upstreams-per-backend", "1", "--attempt-timeout", "5m", "--answer-timeout", "5m"];
        let mux = Relay::mux("dns", &[server.addr], &patient);
        mux.counts("/routes/0/messages/upstreams/open", 1);
        let (port, ip) = (server.addr.port().to_string(), server.addr.ip().to_string());
        // The whole zone; what has changed since the first version, which NSD has no record of; and that nothing has since the second.
        let changed = if kind == Kind::Knot { 5..10 } else { 6 * HOSTS..usize::MAX };
        let mut sorts = vec![
            (vec!["AXFR", ORIGIN], 6 * HOSTS..usize::MAX),
            (vec!["IXFR=1", ORIGIN], changed.clone()),
            (vec!["IXFR=2", ORIGIN], 1..2),
        ];
        if kind == Kind::Knot {
            sorts.push((vec!["-y", KEY, "AXFR", ORIGIN], 6 * HOSTS..usize::MAX));
            sorts.push((vec!["-y", KEY, "IXFR=1", ORIGIN], changed));
        }
        for ((args, records), transfers) in sorts.into_iter().zip(1..) {
            let direct = transferred(&port, &ip, &args);
            assert!(records.contains(&direct.len()), "{kind:?}, {args:?}: {} records", direct.len());
            assert!(transferred(&mux.port(), "127.0.0.1", &args) == direct, "{kind:?}, {args:?}");
            mux.counts("/routes/0/messages/upstreams/open", 1);
            assert_eq!(mux.count("/routes/0/messages/upstreams/dialled"), 1 + transfers, "each has one of its own");
        }
        // An error is all that there is.
        let dialled = mux.count("/routes/0/messages/upstreams/dialled");
        let mut asking = connect(mux.addr());
        let elsewhere = ask(&mut asking, &Query::plain("elsewhere.example.", message::AXFR), 7);
        assert_ne!(message::rcode(&elsewhere), 0, "{kind:?}");
        mux.counts("/routes/0/messages/upstreams/open", 1);
        assert_eq!(mux.count("/routes/0/messages/upstreams/dialled"), dialled + 1);
        drop(asking);
        let status = mux.finished();
        for figure in ["open", "servfails", "transfers_unclear", "upstreams/lost"] {
            assert_eq!(number(&status, &format!("/routes/0/messages/{figure}")), 0, "{kind:?}: {status:#}");
        }
    }
}

/// What dig says of records and answer codes.
fn dig(port: &str, at: &str, args: &[&str]) -> Vec<String> {
    let mut command = client("dig");
    command.args([&format!("@{at}"), "-p", port, "+tcp", "+keepopen", "+tries=1", "+timeout=20"]).args(args);
    let said = said(&mut command);
    // Ids, times and addresses are each connection's own.
    let is_same = |line: &&str| !line.starts_with(';') || line.contains("flags:");
    said.lines().filter(is_same).map(str::to_owned).collect()
}

#[test]
fn dig_is_told_the_same_as_directly() {
    with_each("dig", &[Kind::Knot, Kind::Nsd], &["dig"], |kind, server, mux| {
        let (port, ip) = (server.addr.port().to_string(), server.addr.ip().to_string());
        let names: Vec<String> =
            (0..10).flat_map(|host| ["host", "no", "alias"].map(|name| format!("{name}-{host}.{ORIGIN}"))).collect();
        let many: Vec<&str> = names.iter().flat_map(|name| [name, "AAAA"]).collect();
        for (args, lines) in [(many, 2 * names.len()), (vec!["AXFR", ORIGIN], 6 * HOSTS), (vec!["IXFR=1", ORIGIN], 1)] {
            let direct = dig(&port, &ip, &args);
            assert!(direct.len() >= lines, "{kind:?}: {direct:#?}");
            assert!(dig(&mux.port(), "127.0.0.1", &args) == direct, "{kind:?}, {args:?}");
        }
        let status = mux.finished();
        assert_eq!(number(&status, "/totals/pairs_opened"), 3, "all of a command's questions on one connection");
        assert_eq!(number(&status, "/routes/0/messages/requests"), names.len() as u64 + 2);
    });
}

#[test]
fn who_asks_how_long_a_connection_may_idle_is_told_our_time() {
    for kind in Kind::ALL {
        clients::is_told_our_time_to_idle("", kind);
    }
}

#[test]
fn no_question_is_lost_while_backends_are_killed_and_start_again() {
    for kind in Kind::ALL {
        clients::survives_restarts("", kind);
    }
}

#[test]
fn where_no_backend_is_left_every_question_is_servfail_in_its_askers_time() {
    clients::is_told_of_an_outage("");
}

#[test]
fn questions_that_servers_close_on_take_nobody_elses_connection() {
    if lacks(&["knotd"]) {
        return;
    }
    let scratch = Scratch::new("mux-malformed");
    let server = NameServer::start(Kind::Knot, &scratch, "server");
    let mux = Relay::mux("dns", &[server.addr], &["--cores", "1"]);
    let good = Query::plain(&format!("host-1.{ORIGIN}"), A);
    // Two questions, none, a label of 64 bytes, a pointer to itself; each by what is changed of a good one behind its length.
    let kinds: [&[(usize, u8)]; 4] = [&[(7, 2)], &[(7, 0)], &[(14, 64)], &[(14, 0xc0), (15, 12)]];
    let malformed = |id: u16| {
        let mut bytes = good.framed(id);
        kinds[usize::from(id) % kinds.len()].iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes
    };
    for id in [0, 2, 3] {
        let mut direct = connect(server.addr);
        direct.write_all(&malformed(id)).unwrap();
        assert_eq!(message::next(&mut direct), None, "Knot doesn't close on {id}");
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Set even if the test fails.
        let over_at_last = clients::Over(&over);
        let asks_badly = scope.spawn(|| {
            let mut asked = 0;
            while asked == 0 || !over.load(Relaxed) {
                let mut stream = connect(mux.addr());
                stream.write_all(&(0..MALFORMED).flat_map(malformed).collect::<Vec<u8>>()).unwrap();
                for id in 0..MALFORMED {
                    let answer = message::next(&mut stream).expect("an answer to each");
                    // FORMERR (RFC 1035, 4.1.1).
                    assert_eq!((message::id(&answer), message::rcode(&answer)), (id, 1));
                }
                asked += u64::from(MALFORMED);
            }
            asked
        });
        for seed in 400..404 {
            assert_eq!(ask_all(mux.addr(), &zone::questions(seed, QUESTIONS)).len(), usize::from(QUESTIONS));
        }
        drop(over_at_last);
        let asked = asks_badly.join().unwrap();
        let status = mux.settled();
        let count = |figure: &str| number(&status, &format!("/routes/0/messages/{figure}"));
        assert_eq!(["upstreams/lost", "retries", "servfails", "suspects"].map(count), [0; 4], "{status:#}");
        assert_eq!(count("malformed/questions") + count("malformed/question"), asked, "{status:#}");
    });
}

#[test]
fn one_slow_answer_delays_no_other() {
    if lacks(&["unbound"]) {
        return;
    }
    let scratch = Scratch::new("mux-slow-answer");
    let server = NameServer::start(Kind::Unbound, &scratch, "server");
    // All share one connection to it, and nobody's time is over before the test's.
    let alone = ["--cores", "1", "--upstreams-per-backend", "1", "--attempt-timeout", "2m", "--answer-timeout", "2m"];
    let mux = Relay::mux("dns", &[server.addr], &alone);
    let mut waits = connect(mux.addr());
    let slow = Query { flags: message::RD, ..Query::plain(&format!("host.{SLOW}"), A) };
    waits.write_all(&slow.framed(1)).unwrap();
    until("the slow question", || (mux.count("/routes/0/messages/open") == 1).then_some(()));
    // The same client's others come by, and those of other clients.
    let host = Query::plain(&format!("host-1.{ORIGIN}"), A);
    for id in 2..100 {
        let answer = ask(&mut waits, &host, id);
        assert_eq!((message::id(&answer), message::rcode(&answer)), (id, 0));
    }
    assert_eq!(ask_all(mux.addr(), &zone::questions(300, QUESTIONS)).len(), usize::from(QUESTIONS));
    assert_eq!(mux.count("/routes/0/messages/open"), 1, "the slow one still has no answer");
    assert_eq!(connections_to(server.addr), 1);
    reset(waits);
    mux.settled();
}

#[test]
fn a_client_that_never_reads_is_ended_and_nobody_else_notices() {
    if lacks(&["knotd"]) {
        return;
    }
    let scratch = Scratch::new("mux-unread");
    let server = NameServer::start(Kind::Knot, &scratch, "server");
    let mux = Relay::mux("dns", &[server.addr], &["--cores", "1", "--idle-timeout", "1s"]);
    // Its answers are far more than both sockets hold.
    let large = Query::plain(&format!("large.{ORIGIN}"), TXT);
    let asked: Vec<u8> = (0..UNREAD).flat_map(|id| large.framed(id)).collect();
    let mut mute = connect(mux.addr());
    mute.write_all(&asked).unwrap();
    let question = Query::plain(&format!("host-1.{ORIGIN}"), A);
    let mut good = connect(mux.addr());
    until("the end of who takes nothing", || {
        let answer = ask(&mut good, &question, 1);
        assert_eq!(message::rcode(&answer), 0);
        (mux.ends("answers-unread") == 1).then_some(())
    });
    drop(good);
    let status = mux.settled();
    assert_eq!(number(&status, "/totals/ends/finished"), 1, "{status:#}");
    // What it was owed is given up by a reset, never by an end that looks like the answers' own.
    let mut buffer = [0; 65_536];
    let last = std::iter::repeat_with(|| mute.read(&mut buffer)).find(|read| !matches!(read, Ok(1..)));
    assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn senders_that_never_finish_a_message_are_cut_and_nobody_else_notices() {
    if lacks(&["knotd"]) {
        return;
    }
    let senders = SENDERS.min(raise_descriptors() - SPARE_DESCRIPTORS);
    if senders < SENDERS {
        eprintln!("{senders} senders, not {SENDERS}: there are no more descriptors");
    }
    let scratch = Scratch::new("mux-slow");
    let server = NameServer::start(Kind::Knot, &scratch, "server");
    // What the backend hears by the only connection to it.
    let heard = Arc::new(AtomicUsize::new(0));
    let counts = heard.clone();
    let backend = between(server.addr, move |bytes| {
        counts.fetch_add(bytes.len(), Relaxed);
        true
    });
    let timeouts = ["--message-timeout", "2s", "--idle-timeout", "1m", "--cores", "1", "--upstreams-per-backend", "1"];
    let clients_max = (senders + 1).to_string();
    let mux = Relay::mux("dns", &[backend], &[&timeouts[..], &["--clients-max", &clients_max]].concat());
    let mut good = connect(mux.addr());
    let question = Query::plain(&format!("host-1.{ORIGIN}"), A);
    let mut asked = 0;
    let mut asks = || {
        asked += 1;
        let answer = ask(&mut good, &question, asked);
        assert_eq!((message::id(&answer), message::rcode(&answer)), (asked, 0));
        asked
    };
    asks();
    let before = mux.resident_kib();
    let mut slow: Vec<_> = (0..senders).map(|_| connect(mux.addr())).collect();
    let (mut most, mut count) = (before, 0);
    // The length of the longest message, and then that message, a byte a round: a timeout between two bytes would never be over.
    for byte in [0xFF; 2].into_iter().chain(std::iter::repeat(0)) {
        // Those that were cut refuse to be written to.
        slow.retain_mut(|sender| sender.write_all(&[byte]).is_ok());
        count = asks();
        most = most.max(mux.resident_kib());
        if mux.ends("message-timeout") == senders as u64 {
            break;
        }
    }
    drop(good);
    let status = mux.settled();
    let each = (most - before) * 1024 / senders as u64;
    eprintln!("{senders} senders took {each} bytes each");
    assert!(each <= SENDER_BYTES_MAX, "{each} bytes for each of {senders} senders");
    assert_eq!(number(&status, "/totals/ends/message-timeout"), senders as u64, "{status:#}");
    // Half a message is nobody's but ours.
    assert_eq!(number(&status, "/routes/0/messages/requests"), u64::from(count), "{status:#}");
    assert_eq!(number(&status, "/routes/0/messages/upstreams/dialled"), 1, "{status:#}");
    assert_eq!(heard.load(Relaxed), question.framed(0).len() * usize::from(count));
}
