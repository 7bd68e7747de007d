//! Chosen legs begin with an open window, and no other does.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use midmile_kernel::{LEGS_MAX, SEGMENTS_MAX, Side, WindowError, Windows};

mod ground;

use ground::{GATEWAY, GATEWAY_V4, GATEWAY_V6, Ground, Host};

/// Segments of the system's window (RFC 6928).
const SYSTEM: u32 = 10;

/// Hosts, and the program for each, the client's first; none, and the reason printed, where it can't be had.
fn opened() -> Option<(Ground, [Windows; 2])> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and BPF programs need root");
        return None;
    }
    let ground = Ground::new();
    let attached = [&ground.client, &ground.gateway].map(|host| host.run(Windows::attach));
    match attached {
        [Ok(client), Ok(gateway)] => Some((ground, [client, gateway])),
        [Err(error), _] | [_, Err(error)] => {
            println!("SKIP: {error}");
            None
        }
    }
}

/// A connection from the client's host to a listener on the gateway's.
struct Connection {
    dialled: TcpStream,
    accepted: TcpStream,
}

impl Connection {
    fn open(ground: &Ground, to: SocketAddr, listener: &TcpListener) -> Self {
        let dialled = ground.client.run(|| TcpStream::connect(to).unwrap());
        let (accepted, _) = listener.accept().unwrap();
        Self { dialled, accepted }
    }

    /// The windows of both ends: dialled, accepted.
    fn segments(&self, ground: &Ground) -> (u32, u32) {
        (window_of(&ground.client, &self.dialled), window_of(&ground.gateway, &self.accepted))
    }
}

/// A socket's window, which `ss` reads by `TCP_INFO` for us.
fn window_of(host: &Host, stream: &TcpStream) -> u32 {
    let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let said = host.command(&format!("ss -tinHO sport = :{} and dport = :{}", local.port(), peer.port()));
    let cwnd = said.split_whitespace().find_map(|word| word.strip_prefix("cwnd:"));
    cwnd.unwrap_or_else(|| panic!("no window in: {said}")).parse().unwrap()
}

fn listen(ground: &Ground, ip: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = ground.gateway.run(|| TcpListener::bind((ip, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn both_sides_of_a_leg_in_the_map_begin_with_its_window() {
    let Some((ground, [mut client, mut gateway])) = opened() else { return };
    for ip in GATEWAY {
        let (listener, address) = listen(&ground, ip);
        let (_other, elsewhere) = listen(&ground, ip);
        gateway.set(Side::Accepted, address, 50).unwrap();
        client.set(Side::Dialled, elsewhere, 60).unwrap();
        let connection = Connection::open(&ground, address, &listener);
        assert_eq!(connection.segments(&ground), (SYSTEM, 50), "{ip}");
        gateway.clear(Side::Accepted, address).unwrap();
        client.set(Side::Dialled, address, 1000).unwrap();
        let connection = Connection::open(&ground, address, &listener);
        assert_eq!(connection.segments(&ground), (1000, SYSTEM), "{ip}");
        client.clear(Side::Dialled, address).unwrap();
        let connection = Connection::open(&ground, address, &listener);
        assert_eq!(connection.segments(&ground), (SYSTEM, SYSTEM), "{ip}");
    }
    for windows in [client, gateway] {
        let counters = windows.counters().unwrap();
        assert_eq!((counters.opened, counters.refused), (2, 0));
    }
}

#[test]
fn the_same_address_in_another_namespace_is_another_leg() {
    let Some((ground, [mut client, mut gateway])) = opened() else { return };
    let (listener, address) = listen(&ground, GATEWAY_V4.into());
    client.set(Side::Accepted, address, 50).unwrap();
    gateway.set(Side::Dialled, address, 60).unwrap();
    assert_eq!(Connection::open(&ground, address, &listener).segments(&ground), (SYSTEM, SYSTEM));
}

#[test]
fn a_wildcard_holds_for_every_address_and_yields_to_one_of_its_own() {
    let Some((ground, [mut client, mut gateway])) = opened() else { return };
    // One socket for both families: its IPv4 connections have mapped addresses.
    let (listener, address) = listen(&ground, Ipv6Addr::UNSPECIFIED.into());
    let port = address.port();
    gateway.set(Side::Accepted, address, 30).unwrap();
    gateway.set(Side::Accepted, (GATEWAY_V6, port).into(), 40).unwrap();
    client.set(Side::Dialled, (Ipv4Addr::UNSPECIFIED, port).into(), 50).unwrap();
    let v4 = Connection::open(&ground, (GATEWAY_V4, port).into(), &listener);
    assert_eq!(v4.segments(&ground), (50, 30));
    let v6 = Connection::open(&ground, (GATEWAY_V6, port).into(), &listener);
    assert_eq!(v6.segments(&ground), (SYSTEM, 40));
    // A wildcard goes whole.
    gateway.clear(Side::Accepted, address).unwrap();
    let v4 = Connection::open(&ground, (GATEWAY_V4, port).into(), &listener);
    assert_eq!(v4.segments(&ground), (50, SYSTEM));
}

#[test]
fn dropped_it_opens_no_more() {
    let Some((ground, [mut client, mut gateway])) = opened() else { return };
    let (listener, address) = listen(&ground, GATEWAY_V4.into());
    gateway.set(Side::Accepted, address, 50).unwrap();
    // Another one of the same cgroup neither takes its place nor goes with it.
    client.set(Side::Dialled, address, 60).unwrap();
    assert_eq!(Connection::open(&ground, address, &listener).segments(&ground), (60, 50));
    drop(gateway);
    assert_eq!(Connection::open(&ground, address, &listener).segments(&ground), (60, SYSTEM));
    drop(client);
    assert_eq!(Connection::open(&ground, address, &listener).segments(&ground), (SYSTEM, SYSTEM));
}

#[test]
fn windows_and_legs_are_bounded() {
    let Some((_, [mut windows, _])) = opened() else { return };
    let address = |port: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap()));
    for segments in [0, SEGMENTS_MAX + 1] {
        let error = windows.set(Side::Dialled, address(1), segments).unwrap_err();
        assert!(matches!(error, WindowError::Segments { .. }), "{error}");
    }
    for port in 0..LEGS_MAX {
        windows.set(Side::Dialled, address(port), SEGMENTS_MAX).unwrap();
    }
    let error = windows.set(Side::Dialled, address(LEGS_MAX), 10).unwrap_err();
    assert!(matches!(error, WindowError::Full), "{error}");
    // One that is there may change, and one that isn't may be cleared.
    windows.set(Side::Dialled, address(0), 10).unwrap();
    windows.clear(Side::Accepted, address(0)).unwrap();
}
