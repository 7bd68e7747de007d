//! Transparent interception, in network namespaces: a client connects to the server, and gateways on the way take the connection.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod netns;
mod process;

use std::fs::Permissions;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::thread;

use netns::{Host, left, right, row};
use process::{PATIENCE, Running, Scratch, midmile, status, text, until};
use rustix::process::Signal;

/// Where the gateway listens; its namespace is its own.
const LISTEN: &str = "[::]:8443";
/// What an own table of nftables needs, and the right to it.
const NFT: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

/// Hosts in a row; none, and the reason printed, where it can't be had.
fn hosts(count: u8) -> Option<Vec<Host>> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and their rules need root");
        return None;
    }
    if !NFT.iter().any(|nft| Path::new(nft).exists()) {
        println!("SKIP: nft is not installed");
        return None;
    }
    Some(row(count))
}

/// A server that tells each client the address that it sees, on a port of every address.
fn server(host: &Host) -> u16 {
    let listener = host.run(|| TcpListener::bind("[::]:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let peer = stream.peer_addr().unwrap();
            // A client that is gone already fails its own test.
            write!(stream, "{}", SocketAddr::new(peer.ip().to_canonical(), peer.port())).ok();
        }
    });
    port
}

/// Connects from `host`: its own address, and the one that the server saw.
fn seen(host: &Host, server: SocketAddr) -> (SocketAddr, SocketAddr) {
    host.run(|| {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        (stream.local_addr().unwrap(), said.parse().unwrap())
    })
}

/// A listener's table that intercepts `port` of `addresses`.
fn intercepting(addresses: [IpAddr; 2], port: u16, more: &str) -> String {
    let destinations = addresses.map(|address| SocketAddr::new(address, port).to_string());
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"all\"\nlisten = \"{LISTEN}\"\nto = \"original\"\ntransparent = \
         true\nintercept = {destinations:?}\n{more}\n"
    )
}

/// Starts a gateway in `host` that sets its rules, and waits until it's ready.
fn start(host: &Host, file: &str, ready: usize) -> Running {
    let gateway = host.run(|| Running::spawn(midmile(&["gateway", "--config", file, "--apply"])));
    for _ in 0..ready {
        gateway.line();
    }
    gateway
}

/// All that may have been set in `host`.
fn rules(host: &Host) -> String {
    ["nft list ruleset", "ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip -6 route show table all"]
        .map(|line| host.command(line))
        .concat()
}

/// A route's figure in a gateway's status document.
fn refused(host: &Host, gateway: &Running) -> u64 {
    let status = host.run(|| status(gateway.admin()));
    status["routes"][0]["refusals"]["not-intercepted"].as_u64().unwrap()
}

#[test]
fn an_intercepted_client_is_served_and_the_server_sees_the_gateway() {
    let Some(hosts) = hosts(3) else { return };
    let [client, gateway, far] = &hosts[..] else { panic!("three hosts") };
    let port = server(far);
    let scratch = Scratch::new("transparent-plain");
    let file = scratch.write("g.toml", &intercepting(right(1), port, ""));
    let running = start(gateway, &file, 1);
    for (server, near) in right(1).into_iter().zip(left(1)) {
        let (_, saw) = seen(client, (server, port).into());
        assert_eq!(saw.ip(), near);
    }
    let opened = gateway.run(|| status(running.admin()))["routes"][0]["pairs_opened"].as_u64();
    assert_eq!(opened, Some(2));
}

#[test]
fn with_spoof_client_the_server_sees_the_clients_address_and_port() {
    let Some(hosts) = hosts(3) else { return };
    let [client, gateway, far] = &hosts[..] else { panic!("three hosts") };
    let port = server(far);
    let scratch = Scratch::new("transparent-spoof");
    let file = scratch.write("g.toml", &intercepting(right(1), port, "server.spoof_client = true"));
    let running = start(gateway, &file, 1);
    for server in right(1) {
        let (client, saw) = seen(client, (server, port).into());
        assert_eq!(saw, client);
    }
    let opened = gateway.run(|| status(running.admin()))["routes"][0]["pairs_opened"].as_u64();
    assert_eq!(opened, Some(2));
}

#[test]
fn a_trunk_takes_the_destination_along_and_the_far_gateway_shows_the_client() {
    let Some(hosts) = hosts(4) else { return };
    let [client, near, far, last] = &hosts[..] else { panic!("four hosts") };
    let port = server(last);
    let scratch = Scratch::new("transparent-trunk");
    let key = scratch.write("key", &"5a".repeat(32));
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let allow = right(2).map(|address| SocketAddr::new(address, port).to_string());
    let of_far = format!(
        "[gateway]\nname = \"far\"\n[[peer]]\nname = \"near\"\nkey_file = \"{key}\"\n[[trunk]]\nlisten = \"0.0.0.0:7000\"\npeers = \
         \"near\"\nallow = {allow:?}\nserver.spoof_client = true\n"
    );
    let of_near = format!(
        "{}[gateway]\nname = \"near\"\n[[peer]]\nname = \"far\"\naddress = \"{}:7000\"\nkey_file = \"{key}\"\n",
        intercepting(right(2), port, "via = \"far\""),
        right(1)[0]
    );
    let _far = start(far, &scratch.write("far.toml", &of_far), 1);
    let _near = start(near, &scratch.write("near.toml", &of_near), 1);
    for server in right(2) {
        let (client, saw) = seen(client, (server, port).into());
        assert_eq!(saw, client);
    }
}

#[test]
fn the_servers_of_intercepted_clients_are_dialled_at_the_syn() {
    let Some(hosts) = hosts(3) else { return };
    let [client, gateway, far] = &hosts[..] else { panic!("three hosts") };
    let port = server(far);
    let scratch = Scratch::new("transparent-early");
    let network = format!("[\"10.77.1.0/24:{port}\"]");
    let text = intercepting(right(1), port, "early_dial = true\nserver.spoof_client = true");
    let lines = text.lines().map(|line| {
        if line.starts_with("intercept") { format!("intercept = {network}\n") } else { format!("{line}\n") }
    });
    let running = start(gateway, &scratch.write("g.toml", &lines.collect::<String>()), 1);
    if running.log().contains("no early dial") {
        println!("SKIP: the SYN program can't be had: {}", running.log());
        return;
    }
    let figure = |name: &str| gateway.run(|| status(running.admin()))["routes"][0][name].as_u64().unwrap();
    // The handshake isn't finished before the onward connection was seen.
    client.command("nft add table inet t");
    client.command("nft add chain inet t c { type filter hook input priority 0; }");
    client.command("nft add rule inet t c tcp flags & (syn|ack) == syn|ack drop");
    thread::scope(|scope| {
        let visit = scope.spawn(|| seen(client, (right(1)[0], port).into()));
        until("an early dial", || (figure("early_dials") == 1).then_some(()));
        client.command("nft delete table inet t");
        let (client, saw) = visit.join().unwrap();
        assert_eq!(saw, client);
    });
    assert_eq!(figure("early_used"), 1);
}

#[test]
fn who_connects_to_the_listener_itself_is_refused_and_counted() {
    let Some(hosts) = hosts(3) else { return };
    let [client, gateway, far] = &hosts[..] else { panic!("three hosts") };
    let port = server(far);
    let scratch = Scratch::new("transparent-own");
    let file = scratch.write("g.toml", &intercepting(right(1), port, ""));
    let running = start(gateway, &file, 1);
    for own in right(0) {
        client.run(|| {
            // The reset may come before anything is read.
            let answer = TcpStream::connect_timeout(&(own, 8443).into(), PATIENCE).and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read(&mut [0])
            });
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    }
    until("both refusals", || (refused(gateway, &running) == 2).then_some(()));
    // Another of the server's ports is nobody's business: it's forwarded.
    let other = server(far);
    let (client, saw) = seen(client, (right(1)[0], other).into());
    assert_eq!(saw, client);
}

#[test]
fn the_rules_go_when_the_gateway_does_and_what_a_killed_one_left_is_replaced() {
    let Some(hosts) = hosts(3) else { return };
    let [client, gateway, far] = &hosts[..] else { panic!("three hosts") };
    let port = server(far);
    let scratch = Scratch::new("transparent-rules");
    let file = scratch.write("g.toml", &intercepting(right(1), port, "server.spoof_client = true"));
    gateway.command("nft add table inet other");
    let before = rules(gateway);
    let mut killed = start(gateway, &file, 1);
    let set = rules(gateway);
    assert!(set.contains("tproxy") && set.contains("lookup 28009"), "{set}");
    killed.signal(Signal::KILL);
    killed.code();
    assert_eq!(rules(gateway), set);
    let mut again = start(gateway, &file, 1);
    assert_eq!(rules(gateway), set);
    let (client, saw) = seen(client, (right(1)[0], port).into());
    assert_eq!(saw, client);
    let second = gateway.run(|| midmile(&["gateway", "--config", &file, "--apply"]).output().unwrap());
    let told =
        "midmile: --apply: another midmile has set its rules here; end it, or give one process all the listeners\n";
    assert_eq!((second.status.code(), text(&second.stderr)), (Some(1), told.to_owned()));
    again.signal(Signal::TERM);
    assert_eq!(again.code(), Some(0));
    assert_eq!(rules(gateway), before);
}

#[test]
fn what_is_printed_sets_what_apply_sets_and_may_run_again() {
    let Some(hosts) = hosts(3) else { return };
    let [client, gateway, far] = &hosts[..] else { panic!("three hosts") };
    let port = server(far);
    let scratch = Scratch::new("transparent-printed");
    let file = scratch.write("g.toml", &intercepting(right(1), port, "server.spoof_client = true"));
    let mut applied = start(gateway, &file, 1);
    let set = rules(gateway);
    applied.signal(Signal::TERM);
    applied.code();
    let script =
        scratch.write("rules.sh", &text(&process::run(&["gateway", "--config", &file, "--print-rules"]).stdout));
    for _ in 0..2 {
        gateway.command(&format!("sh -e {script}"));
        assert_eq!(rules(gateway), set);
    }
    let running = gateway.run(|| Running::start(&["gateway", "--config", &file]));
    running.line();
    let (client, saw) = seen(client, (right(1)[0], port).into());
    assert_eq!(saw, client);
}

#[test]
fn rules_follow_a_reload() {
    let Some(hosts) = hosts(3) else { return };
    let [client, gateway, far] = &hosts[..] else { panic!("three hosts") };
    let (port, other) = (server(far), server(far));
    let scratch = Scratch::new("transparent-reload");
    let file = scratch.write("g.toml", &intercepting(right(1), port, ""));
    let running = start(gateway, &file, 1);
    let sees_gateway = |port: u16| seen(client, (right(1)[0], port).into()).1.ip() == left(1)[0];
    assert!(sees_gateway(port) && !sees_gateway(other));
    scratch.write("g.toml", &intercepting(right(1), other, ""));
    running.signal(Signal::HUP);
    running.logged("\"reloaded\"");
    assert!(sees_gateway(other) && !sees_gateway(port));
}

#[test]
fn a_start_that_fails_leaves_no_rules_behind() {
    let Some(hosts) = hosts(2) else { return };
    let gateway = &hosts[1];
    let scratch = Scratch::new("transparent-failed");
    let taken = gateway.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let taken = taken.local_addr().unwrap();
    let more = format!("[[listener]]\nlisten = \"{taken}\"\nto = \"10.0.0.1:80\"");
    let file = scratch.write("g.toml", &intercepting(right(1), 80, &more));
    let before = rules(gateway);
    let failed =
        |file: &str| -> Output { gateway.run(|| midmile(&["gateway", "--config", file, "--apply"]).output().unwrap()) };
    let mut killed = start(gateway, &scratch.write("good.toml", &intercepting(right(1), 80, "")), 1);
    killed.signal(Signal::KILL);
    killed.code();
    assert_ne!(rules(gateway), before);
    let output = failed(&file);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(rules(gateway), before);
}

#[test]
fn without_the_capability_the_mend_is_one_line() {
    let Some(hosts) = hosts(2) else { return };
    let scratch = Scratch::new("transparent-denied");
    let file = scratch.write("g.toml", &intercepting(right(1), 80, ""));
    let output = hosts[1].run(|| {
        let mut command = std::process::Command::new("setpriv");
        command.args([
            "--bounding-set=-net_admin,-net_raw",
            env!("CARGO_BIN_EXE_midmile"),
            "gateway",
            "--config",
            &file,
        ]);
        command.output().unwrap()
    });
    let told = format!(
        "midmile: listener all: can't listen on {LISTEN}: a transparent listener needs CAP_NET_ADMIN; run as root, or give it (setcap, \
         AmbientCapabilities=)\n"
    );
    // The log may say other things of this host.
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.ends_with(&told), "{said}");
}
