//! A running `midmile`: ready lines, draining, reloading, health, the admin server.

mod process;

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener};

use process::{PATIENCE, Running, Scratch, connect, echo, exchange, get, status, until};
use rustix::process::Signal;

/// A relay from a port of its choice to `to`, and where it listens.
fn relay(to: SocketAddr, more: &[&str]) -> (Running, SocketAddr) {
    let to = to.to_string();
    let relay = Running::start(&[&["relay", "--listen", "127.0.0.1:0", "--to", &to], more].concat());
    let listen = relay.ready();
    (relay, listen)
}

/// Whether the other end is gone: an end or a reset, whichever comes.
fn is_cut(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0) | Err(_))
}

#[test]
fn each_listener_has_its_ready_line_and_relays() {
    let (a, b) = (echo(b'a').to_string(), echo(b'b').to_string());
    let second = match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => "[::1]:0",
        Err(error) => {
            eprintln!("SKIP: IPv6 isn't tried: {error}");
            "127.0.0.1:0"
        }
    };
    let args = ["relay", "--listen", "127.0.0.1:0", "--to", &a, "--listen", second, "--to", &b];
    let relay = Running::start(&args);
    for (to, letter) in [(a, b'a'), (b, b'b')] {
        let line = relay.line();
        let listen = line.strip_prefix("ready listen=").and_then(|rest| rest.strip_suffix(&format!(" to={to}")));
        let listen: SocketAddr = listen.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        assert_ne!(listen.port(), 0);
        let (mut stream, greeted) = connect(listen);
        assert_eq!(greeted, letter);
        exchange(&mut stream, "there and back");
    }
}

#[test]
fn a_drain_without_pairs_ends_at_once_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut relay, _) = relay(echo(b'a'), &["--drain-timeout", "1h"]);
        relay.signal(signal);
        assert_eq!(relay.code(), Some(0), "{}", relay.log());
    }
}

#[test]
fn one_that_was_killed_leaves_its_port_to_the_next() {
    let target = echo(b'a');
    let (mut first, listen) = relay(target, &[]);
    let (mut stream, _) = connect(listen);
    first.signal(Signal::KILL);
    assert_eq!(first.code(), None);
    assert!(is_cut(&mut stream));
    let second = Running::start(&["relay", "--listen", &listen.to_string(), "--to", &target.to_string()]);
    assert_eq!(second.ready(), listen);
    exchange(&mut connect(listen).0, "again");
}

#[test]
fn a_drain_waits_for_open_pairs_and_accepts_no_more() {
    let (mut relay, listen) = relay(echo(b'a'), &["--drain-timeout", "1h", "--log-pairs"]);
    let (mut stream, _) = connect(listen);
    relay.signal(Signal::TERM);
    relay.logged("draining");
    until("the listener's end", || TcpStream::connect(listen).is_err().then_some(()));
    exchange(&mut stream, "still here");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(relay.code(), Some(0), "{}", relay.log());
    // Connections of the look at the listener may have a line too.
    let line = relay.logged("\"upstream_bytes\":10");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["message"], &line["end"]), (&"pair ended".into(), &"finished".into()));
    assert_eq!(line["downstream_bytes"], 11, "{line}");
    let [connected, first_byte, lasted] =
        ["connected_ms", "first_byte_ms", "lasted_ms"].map(|time| line[time].as_f64().unwrap());
    assert!(connected <= first_byte && first_byte <= lasted, "{line}");
}

#[test]
fn the_drain_timeout_cuts_what_is_open_with_3() {
    let (mut relay, listen) = relay(echo(b'a'), &["--drain-timeout", "50ms"]);
    let (mut stream, _) = connect(listen);
    relay.signal(Signal::TERM);
    assert!(is_cut(&mut stream));
    assert_eq!(relay.code(), Some(3), "{}", relay.log());
    let line: serde_json::Value = serde_json::from_str(&relay.logged("pairs were cut")).unwrap();
    assert_eq!(line["cut"], 1, "{line}");
}

#[test]
fn a_second_signal_cuts_at_once() {
    let (mut relay, listen) = relay(echo(b'a'), &["--drain-timeout", "1h"]);
    let (mut stream, _) = connect(listen);
    relay.signal(Signal::TERM);
    relay.logged("draining");
    relay.signal(Signal::TERM);
    assert!(is_cut(&mut stream));
    assert_eq!(relay.code(), Some(3), "{}", relay.log());
}

/// A listener of a configuration file.
fn listener(name: &str, to: &[SocketAddr]) -> String {
    let to: Vec<_> = to.iter().map(ToString::to_string).collect();
    format!("[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nto = {to:?}\n")
}

#[test]
fn a_reload_swaps_backends_and_listeners_and_leaves_pairs_alone() {
    let scratch = Scratch::new("reload");
    let (a, b) = (echo(b'a'), echo(b'b'));
    let file = scratch.write("m.toml", &(listener("one", &[a]) + &listener("gone", &[a])));
    let gateway = Running::start(&["gateway", "--config", &file]);
    let (one, gone) = (gateway.ready(), gateway.ready());
    let (mut old, letter) = connect(one);
    let (mut old_gone, _) = connect(gone);
    assert_eq!(letter, b'a');
    scratch.write("m.toml", &(listener("one", &[b]) + &listener("two", &[b, a])));
    gateway.signal(Signal::HUP);
    let line = gateway.line();
    assert!(line.ends_with(&format!(" to={b},{a}")), "{line}");
    gateway.logged("reloaded");
    until("the new backend", || (connect(one).1 == b'b').then_some(()));
    until("the end of the listener that is gone", || TcpStream::connect(gone).is_err().then_some(()));
    exchange(&mut old, "as before");
    exchange(&mut old_gone, "as before");
}

#[test]
fn a_reload_with_mistakes_changes_nothing() {
    let scratch = Scratch::new("mistakes");
    let file = scratch.write("m.toml", &listener("one", &[echo(b'a')]));
    let gateway = Running::start(&["gateway", "--config", &file]);
    let one = gateway.ready();
    scratch.write("m.toml", "[[listener]]\nlisten = \"127.0.0.1\"\n");
    gateway.signal(Signal::HUP);
    assert!(gateway.logged("m.toml:2: listener.listen").contains("the old configuration stays"));
    assert!(gateway.logged("m.toml:1: listener.to").contains("the old configuration stays"));
    let (mut stream, _) = connect(one);
    exchange(&mut stream, "as before");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[[listener]]\nlisten = \"{}\"\nto = \"a:1\"\n", taken.local_addr().unwrap())
        .replace("a:1", "127.0.0.1:1");
    scratch.write("m.toml", &(listener("one", &[echo(b'c')]) + &more));
    gateway.signal(Signal::HUP);
    gateway.logged("can't listen on");
    assert_eq!(connect(one).1, b'a');
}

#[test]
fn a_relay_takes_a_hangup_for_a_reload() {
    let (mut relay, listen) = relay(echo(b'a'), &[]);
    let (mut stream, _) = connect(listen);
    relay.signal(Signal::HUP);
    relay.logged("reloaded");
    exchange(&mut stream, "as before");
    drop(stream);
    relay.signal(Signal::TERM);
    assert_eq!(relay.code(), Some(0), "{}", relay.log());
}

#[test]
fn a_backend_that_does_not_accept_is_left_out_until_it_does() {
    let scratch = Scratch::new("health");
    let socket = scratch.path("b.sock");
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"one\"\nlisten = \"127.0.0.1:0\"\nto = [\"{}\", \"unix:{socket}\"]\n\
         health = {{ every = \"20ms\", timeout = \"20ms\", rise = 2, fall = 2 }}\n",
        echo(b'a')
    );
    let file = scratch.write("m.toml", &text);
    let gateway = Running::start(&["gateway", "--config", &file]);
    let (listen, admin) = (gateway.ready(), gateway.admin());
    let healthy = |index: usize| status(admin)["routes"][0]["backends"][index]["healthy"].as_bool().unwrap();
    until("the sick backend's verdict", || (!healthy(1)).then_some(()));
    assert!(healthy(0));
    gateway.logged("backend is unhealthy");
    for _ in 0..4 {
        assert_eq!(connect(listen).1, b'a');
    }
    // The verdict outlives a reload, and the backend comes back once it accepts.
    gateway.signal(Signal::HUP);
    gateway.logged("reloaded");
    assert!(!healthy(1));
    let _socket = UnixListener::bind(&socket).unwrap();
    until("the backend's return", || healthy(1).then_some(()));
    gateway.logged("backend is healthy again");
}

#[test]
fn the_admin_server_says_how_it_goes() {
    let (mut relay, listen) = relay(echo(b'a'), &["--admin", "127.0.0.1:0", "--drain-timeout", "1h"]);
    let admin = relay.admin();
    let (mut stream, _) = connect(listen);
    exchange(&mut stream, "0123456789");
    let document = until("the bytes in the status, while they flow", || {
        let document = status(admin);
        (document["totals"]["upstream"]["bytes"] == 10 && document["totals"]["downstream"]["bytes"] == 11)
            .then_some(document)
    });
    assert_eq!((&document["state"], &document["totals"]["pairs_open"]), (&"accepting".into(), &1.into()));
    assert_eq!(document["routes"][0]["backends"][0]["pairs_open"], 1);
    assert_eq!(document["totals"]["accept_to_connected"]["count"], 1);
    let (head, body) = get(admin, "/metrics");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n") && body.contains("midmile_relayed_bytes_total{route="), "{body}");
    assert!(get(admin, "/healthz").0.starts_with("http/1.1 200"));
    assert!(get(admin, "/readyz").0.starts_with("http/1.1 200"));
    assert!(get(admin, "/nowhere").0.starts_with("http/1.1 404"));
    relay.signal(Signal::TERM);
    until("not ready", || get(admin, "/readyz").0.starts_with("http/1.1 503").then_some(()));
    assert!(get(admin, "/healthz").0.starts_with("http/1.1 200"));
    assert_eq!(status(admin)["state"], "draining");
    drop(stream);
    assert_eq!(relay.code(), Some(0), "{}", relay.log());
}

#[test]
fn a_service_manager_that_asks_is_told() {
    let scratch = Scratch::new("notify");
    let path = scratch.path("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut state = [0; 64];
        let len = socket.recv(&mut state).unwrap();
        process::text(&state[..len])
    };
    let mut command = process::midmile(&["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut relay = Running::spawn(command);
    assert_eq!(told(), "READY=1");
    relay.ready();
    relay.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(relay.code(), Some(0), "{}", relay.log());
}

#[test]
fn a_slow_admin_client_hurts_nobody() {
    let (relay, listen) = relay(echo(b'a'), &["--admin", "127.0.0.1:0"]);
    let admin = relay.admin();
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(admin).unwrap()).collect();
    assert!(get(admin, "/healthz").0.starts_with("http/1.1 200"));
    let (mut stream, _) = connect(listen);
    exchange(&mut stream, "unharmed");
    // They are cut by and by.
    for mut silent in silent {
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(silent.read(&mut [0]).ok(), Some(0));
    }
}
