//! Messages by `midmile mux` and by a file with `framing`: DNS over TCP from clients to servers of this program's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod dns;
mod process;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use dns::{Answer, Client, Server, query};
use process::{PATIENCE, Running, Scratch, get, status, until};
use rustix::process::Signal;

/// `midmile mux` for DNS in front of `servers`, with more options.
fn mux(servers: &[&Server], more: &[&str]) -> (Running, SocketAddr) {
    let to: Vec<String> = servers.iter().map(|server| server.addr.to_string()).collect();
    let mut args = vec!["mux", "--framing", "dns", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    args.extend(to.iter().flat_map(|to| ["--to", to]));
    args.extend(more);
    let running = Running::start(&args);
    let listen = running.ready();
    (running, listen)
}

/// A figure of the only route.
fn figure(running: &Running, pointer: &str) -> u64 {
    let document = status(running.admin());
    let found = document["routes"][0].pointer(pointer).and_then(serde_json::Value::as_u64);
    found.unwrap_or_else(|| panic!("{pointer} isn't in {document}"))
}

/// Waits until a figure is what it should be.
fn comes_to(running: &Running, pointer: &str, wanted: u64) {
    until(&format!("{pointer} = {wanted}"), || (figure(running, pointer) == wanted).then_some(()));
}

#[test]
fn clients_with_equal_ids_get_their_own_answers_in_any_order() {
    let server = Server::start(1);
    server.hold("c");
    let (running, listen) = mux(&[&server], &["--cores", "1", "--upstreams-per-backend", "1"]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(listen)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        // Several in one write, all with ids that the others use too.
        let queries = (0..5).flat_map(|number| query(7 + number, &format!("c{index}.q{number}.test")));
        client.send(&queries.collect::<Vec<u8>>());
    }
    server.holds(100);
    assert_eq!(server.connections(), 1, "all clients share one connection");
    server.let_go();
    for (index, client) in clients.iter_mut().enumerate() {
        let answers = (0..5).map(|_| client.answer().unwrap()).map(|answer| (answer.id, answer));
        let by_id: BTreeMap<u16, Answer> = answers.collect();
        let wanted = (0..5).map(|number| {
            let name = format!("c{index}.q{number}.test");
            (7 + number, Answer { id: 7 + number, name, code: 0, server: Some(1) })
        });
        assert_eq!(by_id, wanted.collect());
    }
    comes_to(&running, "/messages/answers", 100);
    assert_eq!((figure(&running, "/messages/requests"), figure(&running, "/messages/open")), (100, 0));
    assert_eq!(figure(&running, "/pairs_open"), 20);
    let bytes: u64 = server.asked().iter().map(|name| name.len() as u64 + 20).sum();
    assert_eq!(figure(&running, "/upstream/bytes"), bytes);
}

#[test]
fn one_slow_answer_delays_no_other() {
    let server = Server::start(1);
    server.hold("slow");
    let (_running, listen) = mux(&[&server], &["--cores", "1", "--upstreams-per-backend", "1"]);
    let mut client = Client::connect(listen);
    client.send(&query(1, "slow.test"));
    server.holds(1);
    for id in 2..50 {
        assert_eq!(client.ask(id, "quick.test").id, id);
    }
    server.let_go();
    assert_eq!(client.answer().unwrap(), Answer { id: 1, name: "slow.test".into(), code: 0, server: Some(1) });
}

#[test]
fn queries_in_flight_at_a_server_that_dies_are_answered_by_another() {
    let (dying, other) = (Server::start(1), Server::start(2));
    dying.hold("");
    other.hold("");
    let (running, listen) = mux(&[&dying, &other], &["--answer-timeout", "30s", "--attempt-timeout", "30s"]);
    // As many as all of them may have open from the start.
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(listen)).collect();
    for client in &mut clients {
        client.send(&(0..5).flat_map(|id| query(id, &format!("n{id}.test"))).collect::<Vec<u8>>());
    }
    until("both servers asked", || (dying.asked().len() + other.asked().len() == 40).then_some(()));
    let orphaned = dying.asked().len() as u64;
    assert!(orphaned > 0, "all went to one server");
    dying.kill();
    other.holds(40);
    other.let_go();
    for client in &mut clients {
        let mut answers: Vec<Answer> = (0..5).map(|_| client.answer().unwrap()).collect();
        answers.sort_by_key(|answer| answer.id);
        let wanted = (0..5).map(|id| Answer { id, name: format!("n{id}.test"), code: 0, server: Some(2) });
        assert_eq!(answers, wanted.collect::<Vec<Answer>>());
    }
    assert_eq!(figure(&running, "/messages/retries"), orphaned);
    assert!(figure(&running, "/messages/upstreams/lost") > 0);
}

#[test]
fn a_query_that_no_server_answers_is_answered_servfail() {
    let server = Server::start(1);
    server.hold("");
    let (running, listen) = mux(&[&server], &["--answer-timeout", "300ms", "--attempt-timeout", "100ms"]);
    let mut client = Client::connect(listen);
    let wanted = |id, name: &str| Answer { id, name: name.into(), code: 2, server: None };
    assert_eq!(client.ask(77, "silent.test"), wanted(77, "silent.test"));
    server.kill();
    assert_eq!(client.ask(78, "dead.test"), wanted(78, "dead.test"));
    comes_to(&running, "/messages/servfails", 2);
}

#[test]
fn what_was_read_is_answered_before_the_end() {
    let server = Server::start(1);
    server.hold("");
    let (running, listen) = mux(&[&server], &[]);
    let mut client = Client::connect(listen);
    client.send(&[query(1, "a.test"), query(2, "b.test")].concat());
    client.finish();
    server.holds(2);
    server.let_go();
    let mut ids = [client.answer().unwrap().id, client.answer().unwrap().id];
    ids.sort_unstable();
    assert_eq!((ids, client.has_ended()), ([1, 2], true));
    comes_to(&running, "/ends/finished", 1);
    assert_eq!(figure(&running, "/pairs_open"), 0);
}

#[test]
fn clients_that_go_wrong_end_under_a_name_of_their_own() {
    let server = Server::start(1);
    let timeouts =
        ["--message-timeout", "200ms", "--idle-timeout", "400ms", "--clients-per-address", "3", "--cores", "1"];
    let (running, listen) = mux(&[&server], &timeouts);
    let [mut slow, mut idle, mut halved] = [(); 3].map(|()| Client::connect(listen));
    assert!(Client::connect(listen).was_reset(), "a fourth client of one address");
    slow.send(&[0]);
    assert_eq!(idle.ask(1, "a.test").code, 0);
    halved.send(&query(1, "half.test")[..9]);
    halved.finish();
    assert!(slow.answer_or_reset().is_none() && idle.answer().is_none() && halved.answer_or_reset().is_none());
    for (pointer, count) in [
        ("/ends/message-timeout", 1),
        ("/ends/idle-timeout", 1),
        ("/ends/message-cut", 1),
        ("/refusals/clients-per-address", 1),
        ("/pairs_open", 0),
        ("/pairs_opened", 3),
    ] {
        comes_to(&running, pointer, count);
    }
    let metrics = get(running.admin(), "/metrics").1;
    for line in
        ["midmile_mux_requests_total{route=\"127.0.0.1:0\"} 1", "midmile_mux_answers_total{route=\"127.0.0.1:0\"} 1"]
    {
        assert!(metrics.lines().any(|said| said == line), "{line} isn't in\n{metrics}");
    }
}

#[test]
fn clients_of_one_address_are_counted_on_all_cores_together() {
    let server = Server::start(1);
    let (running, listen) = mux(&[&server], &["--clients-per-address", "3", "--cores", "2"]);
    // Whose clients have gone makes room again, whichever core had them.
    for round in 1..=2 {
        let clients: Vec<Client> = (0..12).map(|_| Client::connect(listen)).collect();
        comes_to(&running, "/refusals/clients-per-address", 9 * round);
        comes_to(&running, "/pairs_opened", 3 * round);
        drop(clients);
        comes_to(&running, "/pairs_open", 0);
    }
}

#[test]
fn what_is_no_query_ends_its_client_by_a_name_of_its_own_once_what_was_asked_before_is_answered() {
    let server = Server::start(1);
    let (running, listen) = mux(&[&server], &["--cores", "1", "--log-clients"]);
    let (good, late) = (query(1, "good.test"), query(2, "late.test"));
    let mut response = query(3, "response.test");
    response[4] |= 0x80;
    let after = |bad: &[u8]| [bad, &late].concat();
    let kinds = [
        ("message-empty", after(&[0, 0])),
        ("message-short", after(&[0, 11, 0, 4, 1, 0, 0, 1, 0, 0, 0, 0, 0])),
        ("not-a-query", after(&response)),
        ("message-cut", query(5, "cut.test")[..20].to_vec()),
    ];
    for (reason, bytes) in &kinds {
        let mut client = Client::connect(listen);
        client.send(&[&good[..], bytes].concat());
        if *reason == "message-cut" {
            client.finish();
        }
        let answer = client.answer().unwrap_or_else(|| panic!("{reason}: what was asked before has no answer"));
        assert_eq!((answer.id, answer.code), (1, 0), "{reason}");
        assert!(client.has_ended(), "{reason}: it isn't ended in order");
        drop(client);
        comes_to(&running, &format!("/ends/{reason}"), 1);
        running.logged(&format!("\"end\":\"{reason}\""));
    }
    let metrics = get(running.admin(), "/metrics").1;
    for (reason, _) in &kinds {
        let line = format!("midmile_pairs_ended_total{{route=\"127.0.0.1:0\",reason=\"{reason}\"}} 1");
        assert!(metrics.lines().any(|said| said == line), "{line} isn't in\n{metrics}");
    }
    assert_eq!(server.asked(), ["good.test"; 4], "what came behind it was asked");
    assert_eq!(figure(&running, "/ends/message-broken"), 0);
}

/// A file with one listener in front of `servers`.
fn file(listen: SocketAddr, servers: &[&Server], more: &str) -> String {
    let to: Vec<String> = servers.iter().map(|server| server.addr.to_string()).collect();
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"dns\"\nlisten = \"{listen}\"\nto = {to:?}\nframing = \"dns\"\n{more}\n"
    )
}

/// Where its one listener is now.
fn listener(running: &Running) -> SocketAddr {
    let routes = status(running.admin())["routes"].clone();
    let open = routes.as_array().unwrap().iter().find(|route| route["retired"] != true).unwrap();
    open["listen"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_reload_leads_elsewhere_and_clients_go_on() {
    let (first, second) = (Server::start(1), Server::start(2));
    let scratch = Scratch::new("messages-reload");
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let path = scratch.write("m.toml", &file(any, &[&first], ""));
    let running = Running::start(&["gateway", "--config", &path]);
    let mut client = Client::connect(running.ready());
    assert_eq!(client.ask(1, "a.test").server, Some(1));
    first.hold("late");
    client.send(&query(2, "late.test"));
    first.holds(1);
    scratch.write("m.toml", &file(any, &[&second], "messages.idle_timeout = \"20s\""));
    running.signal(Signal::HUP);
    running.logged("reloaded");
    let mut other = Client::connect(listener(&running));
    until("an answer of the other server", || (other.ask(3, "b.test").server == Some(2)).then_some(()));
    first.let_go();
    assert_eq!(figure(&running, "/pairs_open"), 2);
    // What was under way is answered, by the one or the other.
    let answer = client.answer().unwrap();
    assert_eq!((answer.id, answer.code), (2, 0));
    // Without framing it's a relay, with a listener that promises more: the client that is there goes on, the next one has a connection
    // of its own.
    scratch.write("m.toml", &file(any, &[&first], "").replace("framing = \"dns\"\n", ""));
    running.signal(Signal::HUP);
    until("a second reload", || (running.log().matches("\"reloaded\"").count() == 2).then_some(()));
    assert_eq!(client.ask(4, "c.test").server, Some(2));
    let listen = listener(&running);
    let before = first.connections();
    assert_eq!(Client::connect(listen).ask(5, "d.test").server, Some(1));
    assert_eq!(first.connections(), before + 1);
}

#[test]
fn a_drain_answers_what_was_asked_and_lets_the_idle_go() {
    let server = Server::start(1);
    let (mut running, listen) = mux(&[&server], &["--idle-timeout", "5m", "--log-clients"]);
    let [mut idle, mut asking] = [(); 2].map(|()| Client::connect(listen));
    assert_eq!(idle.ask(1, "a.test").code, 0);
    server.hold("");
    asking.send(&query(2, "b.test"));
    server.holds(1);
    running.signal(Signal::TERM);
    assert!(idle.has_ended());
    server.let_go();
    assert_eq!(asking.answer().unwrap().id, 2);
    assert!(asking.has_ended());
    assert_eq!(running.code(), Some(0), "{}", running.log());
    let log = running.log();
    let ended: Vec<_> = log.lines().filter(|line| line.contains("\"pair ended\"")).collect();
    assert!(ended.len() == 2 && ended.iter().all(|line| line.contains("\"end\":\"answered\"")), "{log}");
}

#[test]
fn what_a_drain_has_no_time_for_is_cut() {
    let server = Server::start(1);
    server.hold("");
    let (mut running, listen) =
        mux(&[&server], &["--answer-timeout", "5m", "--attempt-timeout", "5m", "--drain-timeout", "100ms"]);
    let mut client = Client::connect(listen);
    client.send(&query(1, "a.test"));
    server.holds(1);
    running.signal(Signal::TERM);
    assert!(client.was_reset());
    assert_eq!(running.code(), Some(3), "{}", running.log());
}

#[test]
fn a_drain_serves_all_who_had_connected_before_it() {
    let server = Server::start(1);
    let (mut running, listen) = mux(&[&server], &["--cores", "1"]);
    // It stands still: the kernel completes the connections meanwhile.
    running.signal(Signal::STOP);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(listen)).collect();
    for client in &mut clients {
        client.send(&query(9, "a.test"));
    }
    running.signal(Signal::TERM);
    running.signal(Signal::CONT);
    let served =
        clients.iter_mut().filter_map(|client| client.answer_or_reset()).filter(|answer| answer.code == 0).count();
    assert_eq!(served, 100);
    assert_eq!(running.code(), Some(0), "{}", running.log());
}

#[test]
fn a_server_that_is_out_is_asked_nothing() {
    let (well, sick) = (Server::start(1), Server::start(2));
    sick.kill();
    let scratch = Scratch::new("messages-health");
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    // The first check is made at once, and whoever is slow isn't taken for dead.
    let health = "health = { every = \"10s\", timeout = \"10s\", fall = 1 }";
    let path = scratch.write("m.toml", &file(any, &[&sick, &well], health));
    let running = Running::start(&["gateway", "--config", &path]);
    let listen = running.ready();
    running.logged("backend is unhealthy");
    let mut client = Client::connect(listen);
    for id in 0..20 {
        assert_eq!(client.ask(id, "a.test").server, Some(1));
    }
    let document = status(running.admin());
    let shown: Vec<_> =
        document["routes"][0]["backends"].as_array().unwrap().iter().map(|one| &one["healthy"]).collect();
    assert_eq!(shown, [false, true]);
}

/// A server of lines: each is answered with what it says, behind `letter`.
fn line_server(letter: char) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
                lines.try_for_each(|line| back.write_all(format!("{letter} {line}\n").as_bytes()))
            });
        }
    });
    addr
}

#[test]
fn lines_are_answered_to_each_client_in_its_own_order() {
    let to = ['x', 'y'].map(|letter| line_server(letter).to_string());
    let running =
        Running::start(&["mux", "--framing", "line", "--listen", "127.0.0.1:0", "--to", &to[0], "--to", &to[1]]);
    let listen = running.ready();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(listen).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut back = BufReader::new(stream.try_clone().unwrap()).lines();
                for round in 0..50 {
                    let asked: Vec<String> = (0..7).map(|line| format!("{client} {round} {line}")).collect();
                    stream.write_all(format!("{}\n", asked.join("\n")).as_bytes()).unwrap();
                    let answered: Vec<String> = (0..7).map(|_| back.next().unwrap().unwrap().split_off(2)).collect();
                    assert_eq!(answered, asked);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}
