//! Hosts, links and traffic for real. Where TUN devices or privileges are missing, the tests say so and pass.

#![expect(clippy::unwrap_used, reason = "a panic is how tests fail")]

use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use midmile_lab::netns::Host;
use midmile_lab::scenario::Scenario;
use midmile_lab::server::Server;
use midmile_lab::steps::Step;
use midmile_lab::topology::{HostOptions, Topology};
use midmile_lab::visit;

/// A path whose direct link is what the tests use.
fn scenario(direct: &str) -> Scenario {
    let text = format!(
        r#"
        title = "test"
        hosts = ["client", "gateway", "server"]
        link = [{{ delay = "1ms" }}, {{ delay = "1ms" }}]
        direct = {{ {direct} }}
        object = [{{ name = "any", bytes = "1kB", repetitions = 1 }}]
        "#
    );
    Scenario::parse("test", &text).unwrap()
}

/// The running scenario, or `None` where the machine doesn't allow one.
fn build(scenario: &Scenario) -> Option<(Topology, Server)> {
    let root = rustix::process::geteuid().is_root();
    match Topology::build(scenario, HostOptions::default()) {
        Ok(topology) => {
            let server = Server::start(topology.server(), "reno").unwrap();
            Some((topology, server))
        }
        // As root with the device, anything else that fails is a failure.
        Err(error)
            if !root
                || format!("{error:#}").contains("/dev/net/tun")
                || format!("{error:#}").contains("os error 1)") =>
        {
            println!("SKIP: the lab's network isn't tried: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn a_connection_takes_a_round_trip() {
    let Some((topology, _server)) = build(&scenario("delay = \"5ms\"")) else { return };
    let visit = visit::from(topology.client(), Step::EndToEnd.target(), 10_000, "reno", false).unwrap();
    assert!(visit.connect >= Duration::from_millis(10), "{visit:?}");
    assert!(visit.ttfb >= Duration::from_millis(20), "{visit:?}");
}

#[test]
fn every_byte_arrives_through_loss_and_reordering() {
    let link = "delay = \"2ms\", rate = \"200Mbit\", queue = \"1MiB\", loss = 0.02, jitter = \"500us\", reorder = 0.01";
    let Some((topology, _server)) = build(&scenario(link)) else { return };
    let bytes = 4 << 20;
    visit::from(topology.client(), Step::EndToEnd.target(), bytes, "reno", false).unwrap();
    let counters = topology.close().unwrap();
    let direct = counters.last().unwrap().to_client;
    assert!(direct.bytes > bytes && direct.losses > 0, "{direct:?}");
    assert!(counters[0].to_client.bytes < 10_000, "the traffic took another way: {counters:?}");
}

#[test]
fn hosts_reach_each_other_over_the_row() {
    let Some((topology, _server)) = build(&scenario("delay = \"1ms\"")) else { return };
    // The server's address on the last link of the row, which the gateway routes.
    let to = std::net::SocketAddrV4::new(midmile_lab::topology::address(1, 2), 80);
    visit::from(topology.client(), to, 100_000, "reno", false).unwrap();
    let counters = topology.close().unwrap();
    assert!(counters[0].to_client.bytes > 100_000 && counters[1].to_client.bytes > 100_000, "{counters:?}");
}

#[test]
fn fast_open_saves_the_handshake() {
    let Some((topology, _server)) = build(&scenario("delay = \"50ms\"")) else { return };
    let visit = || visit::from(topology.client(), Step::EndToEnd.target(), 1000, "reno", true).unwrap();
    let (first, second) = (visit(), visit());
    assert!(first.ttfb >= Duration::from_millis(200), "{first:?}");
    assert!(second.ttfb < Duration::from_millis(200), "{second:?}");
}

#[test]
fn a_child_ends_with_its_host() {
    let Ok(host) = Host::new("lonely") else {
        println!("SKIP: the lab's network isn't tried: no network namespaces");
        return;
    };
    let mut command = Command::new("sleep");
    command.arg("600").stdin(Stdio::null());
    let mut child = host.spawn(command).unwrap();
    assert!(child.try_wait().unwrap().is_none(), "it runs");
    drop(host);
    // The kernel has told it to die; waiting ends when it has.
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_host_has_a_network_of_its_own() {
    let Ok(host) = Host::new("apart") else {
        println!("SKIP: the lab's network isn't tried: no network namespaces");
        return;
    };
    let inside = host.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_ne!(inside, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    let held = format!("/proc/self/fd/{}", host.namespace().as_raw_fd());
    let devices = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
    assert!(std::fs::exists(held).unwrap());
    assert_eq!(devices.lines().count(), 3, "two lines of heading and lo: {devices}");
}
