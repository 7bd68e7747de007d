//! SYNs are announced, each connection once, within the bounds, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use midmile_kernel::{
    Bound, Device, Devices, EVENTS_PER_DRAIN, Hook, LISTENERS_MAX, ListenersError, SynConfig, SynCounters, SynEvent,
    SynWatch, Unavailable,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

mod ground;
mod packet;

use ground::{CLIENT_DEVICE, CLIENT_V4, CLIENT_V6, GATEWAY, GATEWAY_DEVICE, GATEWAY_V4, GATEWAY_V6, Ground};
use packet::{OPTIONS, Packet, RawSender, SYN, UDP};

/// How long anything may take before a test gives up. Long: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// The program in the kernel.
const PROGRAM: &str = "midmile_syn";
/// A port that is announced; nobody listens unless a test does.
const PORT: u16 = 4080;

/// Hosts, and a watch on the gateway's device; none, and the reason printed, where it can't be had.
fn watched(config: &SynConfig) -> Option<(Ground, SynWatch)> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: network namespaces and BPF programs need root");
        return None;
    }
    let ground = Ground::new();
    match watch(&ground, config) {
        Ok(watch) => Some((ground, watch)),
        Err(error) => {
            println!("SKIP: {error}");
            None
        }
    }
}

fn watch(ground: &Ground, config: &SynConfig) -> Result<SynWatch, Unavailable> {
    let devices = Devices::These(vec![Device::Name(GATEWAY_DEVICE.to_owned())]);
    ground.gateway.run(|| SynWatch::attach(&devices, config))
}

/// All that a test can send fits.
fn roomy() -> SynConfig {
    let bound = Bound::new(1_000_000, 1_000_000);
    SynConfig { source: bound, all: bound, ..SynConfig::default() }
}

/// Announces SYNs to [`PORT`] of every address of the gateway.
fn to_port(config: SynConfig) -> SynConfig {
    SynConfig { listeners: vec![(Ipv6Addr::UNSPECIFIED, PORT).into()], ..config }
}

/// The next `count` events, waited for.
fn events(watch: &mut SynWatch, count: usize) -> Vec<SynEvent> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while events.len() < count {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{} of {count} events came: {:?}", events.len(), watch.counters());
        poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&Timespec::try_from(left).unwrap())).unwrap();
        watch.drain(|event| events.push(event));
    }
    events
}

/// The counters, once `count` SYNs in all have been counted.
fn counted(watch: &SynWatch, count: u64) -> SynCounters {
    until("the counters", || {
        let counters = watch.counters().unwrap();
        let SynCounters { announced, retransmitted, over_source, over_all, ring_full, table_full } = counters;
        let all = announced + retransmitted + over_source + over_all + ring_full + table_full;
        assert!(all <= count, "{counters:?}");
        (all == count).then_some(counters)
    })
}

/// Looks until `look` sees something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sends packets from the client's host, in their order.
fn send(ground: &Ground, packets: &[Packet]) {
    ground.client.run(|| {
        let sender = RawSender::new();
        packets.iter().for_each(|packet| sender.send(packet));
    });
}

/// Sends many packets, no faster than they are counted: a queue on their way might drop some. So might the client's, until it has found
/// its neighbour: the first goes alone.
fn flood(ground: &Ground, watch: &SynWatch, packets: &[Packet]) -> SynCounters {
    let mut sent = 0;
    let (first, others) = packets.split_at(1);
    for packets in [first].into_iter().chain(others.chunks(200)) {
        send(ground, packets);
        sent += u64::try_from(packets.len()).unwrap();
        counted(watch, sent);
    }
    counted(watch, sent)
}

fn client(port: u16) -> SocketAddr {
    (CLIENT_V4, port).into()
}

fn gateway() -> SocketAddr {
    (GATEWAY_V4, PORT).into()
}

#[test]
fn a_connection_is_announced_once_before_it_is_accepted() {
    let Some((ground, mut watch)) = watched(&roomy()) else { return };
    let listeners = ground.gateway.run(|| GATEWAY.map(|ip| TcpListener::bind((ip, 0)).unwrap()));
    watch.set_listeners(listeners.iter().map(|listener| listener.local_addr().unwrap())).unwrap();
    for listener in &listeners {
        let address = listener.local_addr().unwrap();
        let stream = ground.client.run(|| TcpStream::connect(address).unwrap());
        let (_accepted, peer) = listener.accept().unwrap();
        let [event] = events(&mut watch, 1).try_into().unwrap();
        assert_eq!((event.client, event.listener), (stream.local_addr().unwrap(), address));
        assert_eq!(event.client, peer);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let age = Duration::try_from(now).unwrap().checked_sub(event.at).unwrap();
        assert!(age < PATIENCE, "{age:?}");
        assert_eq!(watch.drain(|event| panic!("{event:?}")), 0);
    }
    assert_eq!(counted(&watch, 2), SynCounters { announced: 2, ..SynCounters::default() });
}

#[test]
fn a_wildcard_listener_is_announced_on_every_address() {
    let Some((ground, mut watch)) = watched(&to_port(roomy())) else { return };
    let listener = ground.gateway.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    for ip in GATEWAY {
        ground.client.run(|| TcpStream::connect((ip, PORT)).unwrap());
        listener.accept().unwrap();
        assert_eq!(events(&mut watch, 1)[0].listener, (ip, PORT).into());
    }
    // IPv4 alone, where that is said.
    watch.set_listeners([(Ipv4Addr::UNSPECIFIED, PORT).into()]).unwrap();
    for ip in GATEWAY.into_iter().rev() {
        ground.client.run(|| TcpStream::connect((ip, PORT)).unwrap());
        listener.accept().unwrap();
    }
    assert_eq!(events(&mut watch, 1)[0].listener, gateway());
}

#[test]
fn a_retransmitted_syn_is_not_announced_again() {
    // It doesn't count against the bounds either: they let two through.
    let Some((ground, mut watch)) = watched(&to_port(SynConfig { all: Bound::new(1, 2), ..roomy() })) else { return };
    let first = Packet::syn(client(5000), gateway(), 7);
    let next = Packet { seq: 8, ..first };
    send(&ground, &[first, first, first, first, next, first]);
    let counters = counted(&watch, 6);
    assert_eq!(counters, SynCounters { announced: 2, retransmitted: 4, ..SynCounters::default() });
    let seqs: Vec<_> = events(&mut watch, 2).iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [7, 8]);
}

#[test]
fn a_burst_of_one_source_stops_at_its_bound() {
    let source = Bound::new(1, 5);
    let Some((ground, watch)) = watched(&to_port(SynConfig { source, ..roomy() })) else { return };
    let began = Instant::now();
    // Addresses of one /24, and of one /48.
    let from_v4 = |n: u8| SocketAddr::from((Ipv4Addr::new(10, 9, 8, n), 5000));
    let from_v6 = |n: u8| SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, n.into(), 0, 0, 0, 9), 5000));
    for n in 0..50 {
        send(&ground, &[Packet::syn(from_v4(n), gateway(), 1), Packet::syn(from_v6(n), (GATEWAY_V6, PORT).into(), 1)]);
    }
    let counters = counted(&watch, 100);
    let refilled = began.elapsed().as_secs() + 1;
    assert!((10..=10 + 2 * refilled).contains(&counters.announced), "{counters:?}");
    assert_eq!(counters.over_source, 100 - counters.announced, "{counters:?}");
    // The neighbours are let in.
    let neighbours = [
        Packet::syn((Ipv4Addr::new(10, 9, 9, 1), 5000).into(), gateway(), 1),
        Packet::syn((Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9), 5000).into(), (GATEWAY_V6, PORT).into(), 1),
    ];
    send(&ground, &neighbours);
    assert_eq!(counted(&watch, 102).announced, counters.announced + 2);
}

#[test]
fn a_flood_from_everywhere_stops_at_the_bound_of_all() {
    let all = Bound::new(1, 40);
    let config = to_port(SynConfig { all, ..roomy() });
    let Some((ground, mut watch)) = watched(&config) else { return };
    let began = Instant::now();
    let packets: Vec<_> = (0..20_000_u32)
        .map(|n| Packet::syn((Ipv4Addr::from(0x0b00_0000 + n * 256), 5000).into(), gateway(), n))
        .collect();
    let counters = flood(&ground, &watch, &packets);
    let refilled = began.elapsed().as_secs() + 1;
    assert!((40..=40 + refilled).contains(&counters.announced), "{counters:?}");
    assert_eq!(counters.over_all, 20_000 - counters.announced, "{counters:?}");
    let announced = usize::try_from(counters.announced).unwrap();
    assert_eq!(events(&mut watch, announced).len(), announced);
}

#[test]
fn a_full_ring_is_counted_and_what_it_held_is_told_in_turns() {
    /// Events that the ring has room for: 256 KiB, and each takes 56 bytes and a header of 8.
    const ROOM: u64 = 4096;
    let Some((ground, mut watch)) = watched(&to_port(roomy())) else { return };
    let packets: Vec<_> = (0..5000).map(|n| Packet::syn(client(5000), gateway(), n)).collect();
    let counters = flood(&ground, &watch, &packets);
    assert_eq!(counters.announced + counters.ring_full, 5000, "{counters:?}");
    assert!((ROOM - 1..=ROOM).contains(&counters.announced), "{counters:?}");
    assert_eq!(watch.drain(|_| ()), EVENTS_PER_DRAIN);
    let mut told = EVENTS_PER_DRAIN;
    loop {
        match watch.drain(|_| ()) {
            0 => break,
            more => told += more,
        }
    }
    assert_eq!(u64::try_from(told).unwrap(), counters.announced);
    // One that found no room is announced when it is sent again.
    send(&ground, &packets[4999..]);
    assert_eq!(events(&mut watch, 1)[0].seq, 4999);
}

#[test]
fn switched_off_it_is_silent() {
    let Some((ground, mut watch)) = watched(&to_port(roomy())) else { return };
    watch.set_enabled(false).unwrap();
    send(&ground, &[Packet::syn(client(5000), gateway(), 1)]);
    // Packets of one host come in order: what comes after it shows that the first was seen.
    let listener = ground.gateway.run(|| TcpListener::bind((GATEWAY_V4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    ground.client.run(|| TcpStream::connect(address).unwrap());
    assert_eq!(watch.counters().unwrap(), SynCounters::default());
    watch.set_enabled(true).unwrap();
    send(&ground, &[Packet::syn(client(5000), gateway(), 2)]);
    assert_eq!(events(&mut watch, 1)[0].seq, 2);
    assert_eq!(counted(&watch, 1).announced, 1);
}

#[test]
fn what_begins_no_connection_is_passed_over() {
    let Some((ground, mut watch)) = watched(&to_port(roomy())) else { return };
    let good = Packet::syn(client(5000), gateway(), 1);
    let good_v6 = Packet::syn((CLIENT_V6, 5000).into(), (GATEWAY_V6, PORT).into(), 1);
    let (fin, rst, ack) = (0x01, 0x04, 0x10);
    let mut packets: Vec<_> =
        [0, ack, rst, SYN | ack, SYN | fin, SYN | rst].map(|flags| Packet { flags, ..good }).to_vec();
    packets.extend([
        Packet { fragment: 0x2000, ..good },
        Packet { fragment: 1, ..good },
        Packet { protocol: UDP, ..good },
        Packet { to: (GATEWAY_V4, PORT + 1).into(), ..good },
        // Taken for TCP, the extension header and this number would be a SYN to the port.
        Packet { protocol: OPTIONS, seq: 0x0002_0000, ..good_v6 },
    ]);
    send(&ground, &packets);
    // Congestion notification (RFC 3168) is asked for in a SYN, and IPv4 options are none of ours.
    let (ece, cwr) = (0x40, 0x80);
    let good =
        [Packet { flags: SYN | ece | cwr, seq: 2, ..good }, Packet { option_words: 10, seq: 3, ..good }, good_v6];
    send(&ground, &good);
    let seqs: Vec<_> = events(&mut watch, 3).iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [2, 3, 1]);
    assert_eq!(counted(&watch, 3).announced, 3);
}

#[test]
fn what_a_router_forwards_is_not_announced_unless_it_is_transparent() {
    let Some((ground, mut watch)) = watched(&to_port(roomy())) else { return };
    ground.gateway.command("sysctl -qw net.ipv4.ip_forward=1");
    ground.gateway.command(&format!("ip route add 10.202.0.0/24 via 10.201.0.3 dev {GATEWAY_DEVICE}"));
    ground.client.command(&format!("ip route add 10.202.0.0/24 via {GATEWAY_V4}"));
    let beyond: SocketAddr = "10.202.0.9:4080".parse().unwrap();
    send(&ground, &[Packet::syn(client(5000), beyond, 1), Packet::syn(client(5000), gateway(), 2)]);
    assert_eq!(events(&mut watch, 1)[0].listener, gateway());
    drop(watch);
    let config = to_port(SynConfig { transparent: true, ..roomy() });
    let mut watch = self::watch(&ground, &config).unwrap();
    send(&ground, &[Packet::syn(client(5000), beyond, 3)]);
    assert_eq!(events(&mut watch, 1)[0].listener, beyond);
}

#[test]
fn a_device_without_link_headers_is_watched_too() {
    let Some((ground, watch)) = watched(&to_port(roomy())) else { return };
    drop(watch);
    let mut socat = Command::new("socat");
    socat.args(["-u", "STDIN", "TUN:10.203.0.1/24,iff-no-pi,up,tun-name=t0"]).stdin(Stdio::piped());
    let mut socat = ground.gateway.run(|| socat.spawn().unwrap());
    let device = Device::Name("t0".to_owned());
    let config = to_port(roomy());
    let mut watch = until("the device", || {
        match ground.gateway.run(|| SynWatch::attach(&Devices::These(vec![device.clone()]), &config)) {
            Ok(watch) => Some(watch),
            Err(Unavailable::NoDevice { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    });
    let from: SocketAddr = "10.203.0.2:5000".parse().unwrap();
    let to: SocketAddr = "10.203.0.1:4080".parse().unwrap();
    let mut stdin = socat.stdin.take().unwrap();
    // The device may not be up yet when the first comes.
    let event = until("the event", || {
        std::io::Write::write_all(&mut stdin, &Packet::syn(from, to, 9).bytes()).unwrap();
        let mut seen = None;
        watch.drain(|event| seen = Some(event));
        seen
    });
    assert_eq!((event.client, event.listener, event.seq), (from, to, 9));
    drop(stdin);
    socat.wait().unwrap();
}

/// The programs on the gateway's device by TCX links.
fn links(ground: &Ground) -> usize {
    ground.gateway.run(|| SchedClassifier::query_tcx(GATEWAY_DEVICE, TcAttachType::Ingress).unwrap().1.len())
}

#[test]
fn dropped_it_is_gone() {
    let Some((ground, watch)) = watched(&to_port(roomy())) else { return };
    if watch.hook() == Some(Hook::Tcx) {
        assert_eq!(links(&ground), 1);
        drop(watch);
        assert_eq!(links(&ground), 0);
    } else {
        println!("SKIP: this kernel has no TCX links");
    }
}

#[test]
fn the_classic_hook_serves_and_leaves_no_filter() {
    let config = to_port(SynConfig { hook: Some(Hook::Clsact), ..roomy() });
    let Some((ground, mut watch)) = watched(&config) else { return };
    let filters = || ground.gateway.command(&format!("tc filter show dev {GATEWAY_DEVICE} ingress"));
    assert!(filters().contains(PROGRAM), "{}", filters());
    send(&ground, &[Packet::syn(client(5000), gateway(), 1)]);
    assert_eq!(events(&mut watch, 1)[0].client, client(5000));
    // A second finds the queueing discipline there.
    let second = self::watch(&ground, &config).unwrap();
    ground.gateway.run(move || drop(second));
    assert!(filters().contains(PROGRAM));
    ground.gateway.run(move || drop(watch));
    assert!(!filters().contains(PROGRAM), "{}", filters());
}

/// Set for the process that is killed.
const KILLED: &str = "MIDMILE_TEST_KILLED";

#[test]
fn killed_it_is_gone_as_well() {
    if std::env::var_os(KILLED).is_some() {
        let _watch = SynWatch::attach(&Devices::All, &to_port(roomy())).unwrap();
        println!("attached");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let Some((ground, watch)) = watched(&to_port(roomy())) else { return };
    if watch.hook() != Some(Hook::Tcx) {
        println!("SKIP: this kernel has no TCX links");
        return;
    }
    drop(watch);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed_it_is_gone_as_well", "--nocapture"]).env(KILLED, "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ground.gateway.run(|| command.spawn().unwrap());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("attached")));
    assert_eq!(links(&ground), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel closes the last descriptors a moment after the process is gone.
    until("the end of the link", || (links(&ground) == 0).then_some(()));
}

#[test]
fn all_devices_are_watched_and_those_not_there_are_named() {
    let Some((ground, watch)) = watched(&to_port(roomy())) else { return };
    drop(watch);
    let watch = ground.gateway.run(|| SynWatch::attach(&Devices::All, &roomy())).unwrap();
    assert!(["lo", GATEWAY_DEVICE].iter().all(|name| watch.devices().contains(&(*name).to_owned())), "{watch:?}");
    let other = Devices::These(vec![Device::Name(CLIENT_DEVICE.to_owned())]);
    let error = ground.gateway.run(|| SynWatch::attach(&other, &roomy())).unwrap_err();
    assert!(matches!(&error, Unavailable::NoDevice { device } if device == CLIENT_DEVICE), "{error}");
}

#[test]
fn listeners_are_replaced_and_bounded() {
    let Some((ground, mut watch)) = watched(&to_port(roomy())) else { return };
    let many = |count: usize| (0..u16::try_from(count).unwrap()).map(|n| SocketAddr::from((Ipv4Addr::UNSPECIFIED, n)));
    let error = watch.set_listeners(many(LISTENERS_MAX + 1)).unwrap_err();
    assert!(matches!(error, ListenersError::TooMany { max: LISTENERS_MAX, .. }), "{error}");
    // Those before stay; then others take their place, as many as there may be.
    send(&ground, &[Packet::syn(client(5000), gateway(), 1)]);
    assert_eq!(events(&mut watch, 1)[0].listener, gateway());
    watch.set_listeners(many(LISTENERS_MAX)).unwrap();
    let ip = IpAddr::from(GATEWAY_V4);
    send(&ground, &[Packet::syn(client(5000), gateway(), 2), Packet::syn(client(5000), (ip, 80).into(), 3)]);
    assert_eq!(events(&mut watch, 1)[0].seq, 3);
}
