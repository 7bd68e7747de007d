//! Windows by routes: what begins with an open window, and that nothing is left or lost.

#![expect(clippy::unwrap_used, reason = "a panic is how tests fail")]

use std::net::{IpAddr, TcpListener, TcpStream};

use midmile_kernel::{ROUTE_PROTOCOL, RouteError, Routes, probe};

mod ground;

use ground::{CLIENT, GATEWAY, GATEWAY_V4, GATEWAY_V6, Ground, Host};

/// What `ip` prints for the routes of both families.
fn routes(host: &Host) -> String {
    let shown = [host.command("ip route show table all"), host.command("ip -6 route show table all")].concat();
    // What expires is counted down.
    shown.lines().filter(|line| !line.contains("expires")).fold(String::new(), |all, line| all + line + "\n")
}

fn ours(host: &Host) -> Vec<String> {
    let mark = format!("proto {ROUTE_PROTOCOL}");
    routes(host).lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
}

/// The window that a connection from the client begins with.
fn window(ground: &Ground, to: IpAddr) -> u32 {
    let listener = ground.gateway.run(|| TcpListener::bind((to, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let _stream = ground.client.run(|| TcpStream::connect(address).unwrap());
    let said = ground.client.command(&format!("ss -tinHO dport = :{}", address.port()));
    let cwnd = said.split_whitespace().find_map(|word| word.strip_prefix("cwnd:"));
    cwnd.unwrap_or_else(|| panic!("no window in: {said}")).parse().unwrap()
}

/// Whether namespaces can be made here; prints why if not.
fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: network namespaces and routes need root");
    }
    root
}

#[test]
fn connections_to_a_host_begin_with_its_window_until_the_route_goes() {
    if !possible() {
        return;
    }
    let ground = Ground::new();
    let before = routes(&ground.client);
    let mut set = ground.client.run(Routes::open).unwrap();
    for to in GATEWAY {
        assert_eq!(window(&ground, to), 10);
        set.set(to, 300).unwrap();
        assert_eq!(window(&ground, to), 300, "{to}");
        set.set(to, 400).unwrap();
        assert_eq!(window(&ground, to), 400, "{to}");
    }
    assert_eq!(set.hosts().count(), 2);
    set.clear(GATEWAY_V4.into()).unwrap();
    assert_eq!((window(&ground, GATEWAY[0]), window(&ground, GATEWAY[1])), (10, 400));
    drop(set);
    assert_eq!(window(&ground, GATEWAY_V6.into()), 10);
    assert_eq!(ours(&ground.client), [""; 0]);
    assert_eq!(routes(&ground.client), before);
}

#[test]
fn a_route_leads_where_the_one_before_led() {
    if !possible() {
        return;
    }
    let ground = Ground::new();
    let client = &ground.client;
    client.command("ip addr add 10.201.0.9/32 dev c0");
    client.command(&format!("ip route add 192.0.2.0/24 via {GATEWAY_V4} src 10.201.0.9 mtu 1400 initcwnd 20 table 77"));
    client.command("ip rule add to 192.0.2.0/24 lookup 77");
    client.command(&format!("ip -6 route add 2001:db8::/32 via {GATEWAY_V6} mtu 1400"));
    let mut set = client.run(Routes::open).unwrap();
    for to in ["192.0.2.7", "2001:db8::7"] {
        set.set(to.parse().unwrap(), 500).unwrap();
        let said = client.command(&format!("ip route get {to}"));
        for part in ["dev c0", "via", "initcwnd 500", "mtu 1400"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("initcwnd 20"), "{said}");
    }
    assert!(client.command("ip route get 192.0.2.7").contains("src 10.201.0.9"));
    assert!(client.command("ip route show table 77").contains("192.0.2.7"), "{}", routes(client));
}

#[test]
fn what_a_killed_process_left_is_removed_and_others_routes_stay() {
    if !possible() {
        return;
    }
    let ground = Ground::new();
    let client = &ground.client;
    let theirs = format!("{} dev c0 proto static initcwnd 12", GATEWAY[0]);
    client.command(&format!("ip route add {theirs}"));
    client.command(&format!("ip route add 10.201.0.77 dev c0 proto {ROUTE_PROTOCOL} initcwnd 99"));
    client.command(&format!("ip -6 route add fd20::77 dev c0 proto {ROUTE_PROTOCOL} initcwnd 99"));
    let mut set = client.run(Routes::open).unwrap();
    assert_eq!(ours(client), [""; 0]);
    assert!(matches!(set.set(GATEWAY[0], 50), Err(RouteError::Taken(_))));
    assert_eq!(window(&ground, GATEWAY[0]), 12);
    // One that is on this host has no route that could say anything.
    for here in [CLIENT[0], CLIENT[1], "127.0.0.1".parse().unwrap()] {
        assert!(matches!(set.set(here, 50), Err(RouteError::NoRoute(_))), "{here}");
    }
    assert!(matches!(set.set("198.51.100.1".parse().unwrap(), 50), Err(RouteError::NoRoute(_))));
    assert!(matches!(client.run(Routes::open), Err(RouteError::Owned)), "one process sets them");
    drop(set);
    assert!(routes(client).contains("initcwnd 12"));
    drop(client.run(Routes::open).unwrap());
}

#[test]
fn who_may_set_routes_is_found_out_without_setting_one() {
    if !possible() {
        return;
    }
    let ground = Ground::new();
    let before = routes(&ground.client);
    ground.client.run(probe::routes).unwrap();
    assert_eq!(routes(&ground.client), before);
    let refused = ground.client.run(|| {
        // This thread alone, which ends with the call.
        rustix::thread::set_capabilities(
            None,
            rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            },
        )
        .unwrap();
        probe::routes()
    });
    assert!(matches!(refused, Err(RouteError::Privilege)), "{refused:?}");
}
