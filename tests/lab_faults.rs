//! Faults between gateways in a WAN of the lab's: clients go on, or are told within the time that `docs/operations.md` states.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use midmile_lab::server::Server;
use midmile_lab::visit;
use process::ends::{reset, until_reset};
use process::{PATIENCE, exchange, until};
use programs::wan::{Gateway, Lines, READY, SERVER_LINK, TRUNK, Wan, near_addr};

/// What a busy machine may add to any time that is stated.
const MARGIN: Duration = Duration::from_secs(3);
/// How long the trunk is cut in the first test.
const CUT: Duration = Duration::from_secs(5);
/// A trunk whose legs find out soon: `keepalive` and three probes, and what is sent unanswered.
const SOON: &str = "leg = { keepalive = \"1s\", user_timeout = \"3s\" }";
/// The longer of both.
const SOON_MAX: Duration = Duration::from_secs(4);
/// The far gateway's time for a dial, where a test sets it.
const DIAL: Duration = Duration::from_secs(1);

/// How long a cut lasts that nobody sits out.
const MINUTE: Duration = Duration::from_secs(60);
/// When a peer is taken for dead by default: `dead_after`, and a quarter of it at most. What was acknowledged last may have been just
/// before the cut, or a round trip after it.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(18);
const DEAD_AFTER_MAX: Duration = Duration::from_secs(25);
/// How long a receiver stands still: five times as long as a peer may be silent there.
const STILL: Duration = Duration::from_secs(15);

/// A server's side of a connection through the gateways, and the client's.
fn pair(wan: &Wan, server: &std::net::TcpListener) -> (TcpStream, TcpStream) {
    let mut client = wan.connect();
    client.write_all(b"?").unwrap();
    let mut stream = Wan::accept(server);
    stream.read_exact(&mut [0]).unwrap();
    // By now the near gateway knows that the server's connection stands.
    stream.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    (client, stream)
}

/// An end, or a reset.
fn hears_the_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Fetches from the lab's server; each byte is checked.
fn fetch(wan: &Wan, bytes: u64) -> visit::Visit {
    visit::from(wan.topology.client(), near_addr(), bytes, "reno", false).unwrap()
}

#[test]
fn a_download_goes_on_after_the_trunk_was_cut_for_five_seconds() {
    let of_trunk = ", rate = \"100Mbit\", queue = \"1MiB\"";
    let Some(wan) = Wan::new("lab-cut", [5, 10, 1], of_trunk) else { return };
    let _server = Server::start(wan.topology.server(), "reno").unwrap();
    let (near, far) = wan.gateways(Lines::default());
    let (visit, cut_for) = thread::scope(|scope| {
        let visit = scope.spawn(|| fetch(&wan, 16 << 20));
        wan.carries(2 << 20);
        wan.topology.emulator().cut(TRUNK);
        let began = Instant::now();
        // What was under way arrives meanwhile.
        thread::sleep(CUT / 2);
        let carried = wan.trunk_bytes();
        thread::sleep(CUT / 2);
        assert_eq!(wan.trunk_bytes(), carried, "it is cut");
        wan.topology.emulator().restore(TRUNK);
        (visit.join().unwrap(), began.elapsed())
    });
    assert!(visit.download > cut_for, "{visit:?}");
    // A sender's next try comes at the latest when as much time again has gone by; the rest takes a second or two.
    assert!(visit.download < cut_for * 2 + Duration::from_secs(2) + MARGIN, "{visit:?}");
    near.settled();
    far.settled();
    assert_eq!((near.ends("finished"), far.ends("finished")), (1, 1));
}

#[test]
fn a_trunk_that_stays_cut_resets_clients_in_time_and_is_found_again() {
    let Some(wan) = Wan::new("lab-cut-long", [5, 10, 1], "") else { return };
    let server = wan.listen();
    let lines = Lines { listener: "timeouts = { dial = \"1s\" }", peer: SOON, trunk: SOON, ..Lines::default() };
    let (near, far) = wan.gateways(lines);
    let (mut idle, _idle_server) = pair(&wan, &server);
    let (mut sends, _busy_server) = pair(&wan, &server);
    near.ready();

    wan.topology.emulator().cut(TRUNK);
    let began = Instant::now();
    sends.write_all(b"nobody acknowledges this").unwrap();
    until_reset(&mut sends);
    let sends_took = began.elapsed();
    until_reset(&mut idle);
    let idle_took = began.elapsed();
    assert!(sends_took < SOON_MAX + MARGIN && idle_took < SOON_MAX + MARGIN, "{sends_took:?}, {idle_took:?}");
    // The pool has noticed as well, and who comes now is told when the dial's time is over.
    near.counts("/peers/0/ready", 0);
    assert!(near.count("/peers/0/losses/died") >= READY, "{:#}", near.status());
    assert!(wan.reset_client() < Duration::from_secs(1) + MARGIN);
    near.settled();
    far.settled();
    assert_eq!(near.ends("trunk-dead"), 2, "{:#}", near.status());
    assert_eq!(far.ends("trunk-dead"), 2, "{:#}", far.status());

    wan.topology.emulator().restore(TRUNK);
    near.ready();
    let (mut client, mut stream) = pair(&wan, &server);
    stream.write_all(b"again").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn a_client_that_takes_a_connection_of_a_trunk_just_cut_is_reset_in_time() {
    let Some(wan) = Wan::new("lab-cut-stale", [5, 10, 1], "") else { return };
    let _server = wan.listen();
    let lines = Lines { listener: "timeouts = { dial = \"2s\" }", peer: SOON, trunk: SOON, ..Lines::default() };
    let (near, far) = wan.gateways(lines);
    wan.topology.emulator().cut(TRUNK);
    let took = wan.reset_client();
    assert!(took < SOON_MAX + MARGIN, "{took:?}");
    near.settled();
    assert_eq!(near.count("/totals/pairs_opened"), 1);
    assert_eq!(far.count("/totals/pairs_opened"), 0);
}

/// When a stream's other side was reset, as seen by sending to it, or receiving from it, until then.
fn ended(mut stream: TcpStream, sends: bool) -> Instant {
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut block = vec![7; 65_536];
    let error = loop {
        match if sends { stream.write(&block) } else { stream.read(&mut block) } {
            Ok(0) => panic!("an end is no reset"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error}");
    Instant::now()
}

#[test]
fn a_trunk_cut_for_a_minute_resets_all_in_time_by_default_and_serves_again() {
    let Some(wan) = Wan::new("lab-cut-minute", [5, 10, 1], ", rate = \"100Mbit\", queue = \"1MiB\"") else { return };
    let server = wan.listen();
    let (near, far) = wan.gateways(Lines::default());
    let (downloads, sends) = pair(&wan, &server);
    let (uploads, receives) = pair(&wan, &server);
    let new_clients = thread::scope(|scope| {
        let ends = [(downloads, false), (sends, true), (uploads, true), (receives, false)]
            .map(|(stream, sends)| scope.spawn(move || ended(stream, sends)));
        wan.carries(2 << 20);
        wan.topology.emulator().cut(TRUNK);
        let began = Instant::now();
        let mut new_clients = 0;
        while began.elapsed() < MINUTE / 2 {
            let took = wan.reset_client();
            assert!(took < DEAD_AFTER_MAX + MARGIN, "{took:?}");
            new_clients += 1;
        }
        for end in ends {
            let took = end.join().unwrap() - began;
            assert!(took > DEAD_AFTER_MIN && took < DEAD_AFTER_MAX + MARGIN, "{took:?}");
        }
        thread::sleep(MINUTE.saturating_sub(began.elapsed()));
        wan.topology.emulator().restore(TRUNK);
        new_clients
    });
    near.settled();
    far.settled();
    assert_eq!(far.ends("trunk-dead"), 2, "{:#}", far.status());
    assert_eq!(near.ends("trunk-dead") + near.ends("trunk-unavailable"), 2 + new_clients, "{:#}", near.status());
    assert!(near.ends("trunk-dead") > 2, "new clients took what waited ready: {:#}", near.status());
    serves_again(&wan, &server, [&near, &far]);
}

#[test]
fn who_stands_still_or_rests_for_longer_than_a_peer_may_be_silent_is_not_cut() {
    let Some(wan) = Wan::new("lab-still", [5, 10, 1], "") else { return };
    let server = wan.listen();
    let soon = "leg = { dead_after = \"3s\" }";
    let (near, far) = wan.gateways(Lines { peer: soon, trunk: soon, ..Lines::default() });
    let (mut still, mut sends) = pair(&wan, &server);
    let (mut rests, mut rests_too) = pair(&wan, &server);
    sends.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    // Until nothing holds more: both gateways and all kernels on the way.
    let (block, mut sent) = ([7; 65_536], 0);
    while let Ok(count) = sends.write(&block) {
        sent += count;
    }
    let carried = wan.trunk_bytes();
    thread::sleep(STILL);
    assert!(wan.trunk_bytes() - carried < 100_000, "it stands still");
    assert_eq!((near.ends("trunk-dead"), far.ends("trunk-dead")), (0, 0));
    drop(sends);
    let mut received = Vec::new();
    still.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
    rests_too.write_all(b"!").unwrap();
    rests.read_exact(&mut [0]).unwrap();
    drop((still, rests, rests_too));
    near.settled();
    far.settled();
    assert_eq!((near.ends("trunk-dead"), far.ends("trunk-dead")), (0, 0));
}

/// The pool fills, and a pair opens, carries and ends as before the fault.
fn serves_again(wan: &Wan, server: &TcpListener, gateways: [&Gateway<'_>; 2]) {
    gateways[0].ready();
    let (mut client, mut stream) = pair(wan, server);
    stream.write_all(b"again").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    drop((client, stream));
    gateways.into_iter().for_each(Gateway::settled);
}

#[test]
fn a_far_gateway_that_is_killed_ends_its_clients_at_once_and_is_found_again() {
    let Some(wan) = Wan::new("lab-far-killed", [5, 10, 1], "") else { return };
    let server = wan.listen();
    let (near, far) = wan.gateways(Lines::default());
    let (mut client, mut stream) = pair(&wan, &server);
    near.ready();
    let began = Instant::now();
    drop(far);
    hears_the_end(&mut client);
    hears_the_end(&mut stream);
    assert!(began.elapsed() < MARGIN, "{:?}", began.elapsed());
    drop((client, stream));
    near.counts("/peers/0/ready", 0);
    for _ in 0..3 {
        let took = wan.reset_client();
        assert!(took < MARGIN, "{took:?}");
    }
    assert_eq!(near.ends("trunk-unavailable"), 3, "{:#}", near.status());

    let far = wan.start(1, &wan.files(Lines::default()).1);
    serves_again(&wan, &server, [&near, &far]);
    assert_eq!(near.ends("trunk-unavailable"), 3, "none but those that came meanwhile");
}

#[test]
fn a_near_gateway_that_is_killed_ends_both_sides_at_once_and_serves_again() {
    let Some(wan) = Wan::new("lab-near-killed", [5, 10, 1], "") else { return };
    let server = wan.listen();
    let (near, far) = wan.gateways(Lines::default());
    let (mut client, mut stream) = pair(&wan, &server);
    let began = Instant::now();
    drop(near);
    hears_the_end(&mut client);
    hears_the_end(&mut stream);
    assert!(began.elapsed() < MARGIN, "{:?}", began.elapsed());
    drop((client, stream));
    far.settled();

    let near = wan.start(0, &wan.files(Lines::default()).0);
    serves_again(&wan, &server, [&near, &far]);
}

#[test]
fn what_a_server_behind_the_trunk_does_reaches_the_client() {
    let Some(wan) = Wan::new("lab-servers", [5, 10, 1], "") else { return };
    let (near, far) = wan.gateways(Lines { trunk: "timeouts = { dial = \"1s\" }", ..Lines::default() });
    // Nobody listens: a reset once the way there and back is over.
    let took = wan.reset_client();
    assert!(took < MARGIN, "{took:?}");
    assert_eq!((near.ends("far-dial-refused"), far.ends("dial-refused")), (1, 1), "{:#}", far.status());

    // Resetting: after the bytes before it.
    let server = wan.listen();
    let (mut client, mut stream) = pair(&wan, &server);
    stream.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let began = Instant::now();
    reset(stream);
    assert_eq!(until_reset(&mut client), b"");
    assert!(began.elapsed() < MARGIN, "{:?}", began.elapsed());
    drop(client);
    until("a reset", || (far.ends("server-reset") == 1).then_some(()));

    // Silent: the far gateway's dial is given its time, and no more.
    wan.topology.emulator().cut(SERVER_LINK);
    let took = wan.reset_client();
    assert!(took >= DIAL && took < DIAL + MARGIN, "{took:?}");
    assert_eq!((near.ends("far-dial-timeout"), far.ends("dial-timeout")), (1, 1), "{:#}", far.status());
    wan.topology.emulator().restore(SERVER_LINK);
    let (mut client, stream) = pair(&wan, &server);
    let echo = thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
    exchange(&mut client, "as before");
    drop(client);
    echo.join().unwrap().unwrap();
    near.settled();
    far.settled();
    assert_eq!(near.ends("server-reset"), 1, "{:#}", near.status());
    assert_eq!((near.count("/peers/0/retries"), far.count("/totals/pairs_opened")), (0, 4), "{:#}", far.status());
}

#[test]
fn a_wrong_key_resets_clients_at_once_and_is_counted_on_both_sides() {
    let Some(wan) = Wan::new("lab-key", [5, 10, 1], "") else { return };
    let _server = wan.listen();
    let (near, far) = wan.gateways(Lines { wrong_key: true, ..Lines::default() });
    let took = wan.reset_client();
    assert!(took < MARGIN, "{took:?}");
    until("the end to be counted", || (near.ends("trunk-unavailable") == 1).then_some(()));
    assert!(near.count("/peers/0/losses/handshake") >= 1, "{:#}", near.status());
    until("the refusal to be counted", || (far.count("/totals/refusals/trunk-key") >= 1).then_some(()));
    assert_eq!(far.count("/totals/pairs_opened"), 0, "it reached no dial");
}
