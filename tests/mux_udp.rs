//! DNS over TCP through the multiplexor to backends that are asked over UDP: Knot, Unbound and NSD behind it, kdig and dnsperf before it.

mod nameservers;
mod process;
mod programs;

use std::net::UdpSocket;
use std::thread;

use nameservers::clients::{self, Questions, dnsperf, kdig, transferred};
use nameservers::message::{Edns, Query, ask_all, ask_by_datagram, datagrams_to, is_cut, rcode};
use nameservers::servers::{KEY, Kind, NameServer};
use nameservers::zone::{self, HOSTS, ORIGIN};
use process::Scratch;
use programs::between::between;
use programs::relay::{Relay, number};
use programs::{client, lacks};

/// Connections of the comparison, and questions on each.
const CONNECTIONS: u64 = 4;
const QUESTIONS: u16 = 800;
/// The longest answer that a datagram is asked to have.
const DATAGRAM_MAX: u16 = 1232;

/// Does it with each server that is installed, behind a multiplexor that asks it over UDP.
fn with_each(name: &str, kinds: &[Kind], more: &[&str], work: impl Fn(Kind, &NameServer, &Relay)) {
    clients::with_each("udp:", &format!("udp-{name}"), kinds, more, work);
}

/// Requests that went by a connection for that reason.
fn detours(mux: &Relay, why: &str) -> u64 {
    mux.count(&format!("/routes/0/messages/datagrams/detours/{why}"))
}

#[test]
fn every_answer_is_the_servers_own_by_a_datagram_or_where_that_is_cut_by_tcp() {
    with_each("same", &Kind::ALL, &[], |kind, server, mux| {
        let all: Vec<_> = (0..CONNECTIONS).map(|seed| zone::questions(seed, QUESTIONS)).collect();
        let through: Vec<_> = thread::scope(|scope| {
            let asking = all.iter().map(|questions| scope.spawn(|| ask_all(mux.addr(), questions)));
            let asking: Vec<_> = asking.collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        let socket = datagrams_to(server.addr);
        let (mut cut, mut shorter) = (0, 0);
        for (questions, through) in all.iter().zip(&through) {
            let by_tcp = ask_all(server.addr, questions);
            for (id, query) in questions {
                let lowered = query.edns.map(|edns| Edns { datagram: edns.datagram.min(DATAGRAM_MAX), ..edns });
                let by_datagram = ask_by_datagram(&socket, &Query { edns: lowered, ..query.clone() }, *id);
                // What a window has no room for goes by TCP.
                let by_either = through[id] == by_tcp[id] || (!is_cut(&by_datagram) && through[id] == by_datagram);
                let Query { name, kind: asked, flags, .. } = query;
                assert!(by_either, "{kind:?}, {name} {asked} with flags {flags:#06x}: {:?}", through[id]);
                cut += u64::from(is_cut(&by_datagram));
                // What a datagram leaves out without a word is additional (RFC 2181, 9): the answer itself is the same.
                if through[id] != by_tcp[id] {
                    shorter += 1;
                    let counts = |message: &[u8]| (rcode(message), message[4..10].to_vec());
                    assert_eq!(counts(&through[id]), counts(&by_tcp[id]), "{kind:?}, {} {}", query.name, query.kind);
                }
            }
        }
        assert!(cut > 100, "{cut} answers were cut");
        let went_round: u64 = ["truncated", "unavailable", "unanswered"].map(|why| detours(mux, why)).iter().sum();
        assert!(went_round >= cut, "{went_round} for {cut}: {:#}", mux.status());
        // Else nothing is compared.
        assert!(mux.count("/routes/0/messages/datagrams/sent") > u64::from(QUESTIONS) / 4);
        eprintln!("{kind:?}: {cut} answers were cut, {shorter} had less beside the answer");
    });
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_whole() {
    with_each("large", &Kind::ALL, &["kdig"], |kind, _, mux| {
        let said = kdig(&mux.port(), &[&format!("large.{ORIGIN}"), "TXT"]);
        assert!(said.contains("status: NOERROR;") && said.contains("(TCP)"), "{kind:?}: {said}");
        assert!(said.contains("ANSWER: 10;") && !said.contains(" tc"), "{kind:?}: {said}");
        assert_eq!((detours(mux, "truncated"), mux.count("/routes/0/messages/datagrams/sent")), (1, 1), "{kind:?}");
    });
}

#[test]
fn dnsperf_and_kdig_lose_nothing() {
    with_each("load", &Kind::ALL, &["dnsperf", "kdig"], |kind, _, mux| {
        let scratch = Scratch::new(&format!("mux-udp-questions-{}", kind.program()));
        let port = mux.port();
        let many = Questions::write(&scratch, HOSTS);
        dnsperf(&port, &many, 5, &["-c", "4", "-q", "400"]);
        dnsperf(&port, &many, 2, &["-c", "100", "-q", "100", "-D"]);
        let host = format!("host-7.{ORIGIN}");
        assert_eq!(kdig(&port, &["+short", &host, "AAAA"]), "2001:db8::7\n");
        let missing = kdig(&port, &[&format!("no.{ORIGIN}"), "A"]);
        assert!(missing.contains("status: NXDOMAIN;"), "{missing}");
        let datagrams = mux.count("/routes/0/messages/datagrams/sent");
        // What a window has no room for goes by TCP.
        assert!(datagrams > many.count as u64, "{kind:?}: {datagrams} datagrams");
        assert_eq!(mux.count("/routes/0/messages/servfails"), 0);
    });
}

#[test]
fn a_signed_question_goes_by_tcp_and_its_signature_holds() {
    with_each("signed", &[Kind::Knot], &["kdig"], |_, _, mux| {
        let mut command = client("kdig");
        command.args([
            "@127.0.0.1",
            "-p",
            &mux.port(),
            "+tcp",
            "+retry=0",
            "-y",
            KEY,
            &format!("host-9.{ORIGIN}"),
            "AAAA",
        ]);
        let output = command.output().unwrap();
        let said = process::text(&output.stdout) + &process::text(&output.stderr);
        assert!(said.contains("status: NOERROR;") && said.contains("TSIG PSEUDOSECTION"), "{said}");
        assert!(!said.contains("WARNING") && !said.contains("ERROR:"), "{said}");
        assert_eq!((detours(mux, "signed"), mux.count("/routes/0/messages/datagrams/sent")), (1, 0));
    });
}

#[test]
fn a_zone_is_transferred_whole() {
    with_each("transfer", &[Kind::Knot, Kind::Nsd], &["kdig"], |kind, server, mux| {
        let (port, ip) = (server.addr.port().to_string(), server.addr.ip().to_string());
        let direct = transferred(&port, &ip, &["AXFR", ORIGIN]);
        assert!(direct.len() > 6 * HOSTS, "{kind:?}: {} records", direct.len());
        assert!(transferred(&mux.port(), "127.0.0.1", &["AXFR", ORIGIN]) == direct, "{kind:?}");
        assert_eq!(detours(mux, "transfer"), 1);
    });
}

#[test]
fn who_asks_how_long_a_connection_may_idle_is_told_our_time() {
    for kind in Kind::ALL {
        clients::is_told_our_time_to_idle("udp:", kind);
    }
}

#[test]
fn no_question_is_lost_while_backends_are_killed_and_start_again() {
    for kind in Kind::ALL {
        clients::survives_restarts("udp:", kind);
    }
}

#[test]
fn where_no_backend_is_left_every_question_is_servfail_in_its_askers_time() {
    clients::is_told_of_an_outage("udp:");
}

/// Where TCP leads to the server and nothing hears datagrams, or, with somebody mute in their way, nothing answers them.
#[test]
fn a_backend_that_datagrams_do_not_reach_is_asked_over_tcp() {
    if lacks(&["knotd"]) {
        return;
    }
    let scratch = Scratch::new("mux-udp-none");
    let server = NameServer::start(Kind::Knot, &scratch, "server");
    for (mute, why) in [(false, "unavailable"), (true, "unanswered")] {
        let addr = between(server.addr, |_| true);
        let _mute = mute.then(|| UdpSocket::bind(addr).unwrap());
        let mux = Relay::mux_to("dns", &[format!("udp:{addr}")], &["--attempt-timeout", "400ms"]);
        let questions = zone::questions(400, 100);
        assert_eq!(ask_all(mux.addr(), &questions).len(), questions.len());
        assert!(detours(&mux, why) > 0, "{:#}", mux.status());
        let status = mux.settled();
        assert_eq!(number(&status, "/routes/0/messages/servfails"), 0, "{status:#}");
    }
}
