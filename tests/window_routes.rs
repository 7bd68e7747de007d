//! Windows by routes, as an operator meets them: the routes come and go with the gateway and its file.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "netns/host.rs"]
mod host;
mod process;

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;

use host::Host;
use process::{Running, Scratch, midmile, until};
use rustix::process::Signal;

/// The peer's host, and another one.
const PEERS: [&str; 2] = ["10.78.0.2", "10.78.0.4"];
const OPEN: &str = "leg = { initial_window = \"1MiB\" }";

/// Its gateway's file: a peer, and a line of its table.
fn file(scratch: &Scratch, peer: &str, line: &str) -> String {
    let key = scratch.write("key", &"5f".repeat(32));
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let path = scratch.path("gateway.toml");
    let text = format!(
        "[gateway]\nname = \"a\"\nwindow_by = \"route\"\n[[peer]]\nname = \"b\"\nkey_file = \"{key}\"\naddress = \"{peer}:7000\"\n\
         pool_min = 0\n{line}\n[[listener]]\nlisten = \"127.0.0.1:0\"\nto = \"10.78.0.9:80\"\nvia = \"b\"\n"
    );
    write(&path, text).unwrap();
    path
}

/// The routes of midmile's in a host: by their protocol.
fn routes(host: &Host) -> String {
    host.command("ip route show table all proto 109")
}

fn start(host: &Host, file: &str) -> Running {
    let running = host.run(|| Running::spawn(midmile(&["gateway", "--config", file])));
    running.line();
    running
}

/// Has the gateway read its file again, for the `times`th time.
fn reload(gateway: &Running, times: usize) {
    gateway.signal(Signal::HUP);
    until("the reload", || (gateway.log().matches("\"reloaded\"").count() == times).then_some(()));
}

#[test]
fn routes_come_and_go_with_the_gateway_and_its_file() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and routes need root");
        return;
    }
    let (scratch, host) = (Scratch::new("window-routes"), Host::new());
    host.command("ip link add one type veth peer name other");
    host.command("ip addr add dev one 10.78.0.1/24");
    host.command("ip link set other up");
    host.command("ip link set one up");
    let before = host.command("ip route show table all");
    let open = |peer: &str| {
        // A mebibyte in segments of 1,448 bytes.
        let routes = routes(&host);
        assert!(routes.starts_with(peer) && routes.contains("initcwnd 725"), "{routes}");
        assert_eq!(routes.lines().count(), 1, "{routes}");
    };
    let gateway = start(&host, &file(&scratch, PEERS[0], OPEN));
    open(PEERS[0]);
    file(&scratch, PEERS[0], "");
    reload(&gateway, 1);
    assert_eq!(routes(&host), "");
    file(&scratch, PEERS[0], OPEN);
    reload(&gateway, 2);
    open(PEERS[0]);
    // A gateway that is killed leaves its route, which the next one removes.
    let mut killed = gateway;
    killed.signal(Signal::KILL);
    killed.code();
    open(PEERS[0]);
    let mut gateway = start(&host, &file(&scratch, PEERS[1], OPEN));
    open(PEERS[1]);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.code(), Some(0), "{}", gateway.log());
    assert_eq!(host.command("ip route show table all"), before);
}
