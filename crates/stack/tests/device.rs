//! Devices are as they were once a stack is gone, however that came; and those that can't be used are named, with the mend.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod world;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId,
};
use midmile_kernel::XdpMode;
use midmile_stack::{Stack, StackConfig, Xdp, XdpConfig, XdpDevice, XdpError};
use rustix::process::{Pid, Signal, kill_process};
use world::{Host, PEER_V4, STACK_V4, TunGround, VethGround, config};

/// Has the test that holds a device do so.
const HOLD: &str = "MIDMILE_STACK_TEST_HOLDS";
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that does nothing.
struct Silent;

impl<B: Backend> Handler<B> for Silent {
    fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, incoming: Incoming<B::Socket>) {
        cx.refuse(incoming);
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.close(conn);
    }

    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}
}

fn skips() -> bool {
    let why = world::lacks_network();
    if let Some(why) = &why {
        println!("SKIP: {why}");
    }
    why.is_some()
}

/// Whether a program is attached to the device, as `ip link` tells it.
fn is_attached(host: &Host, device: &str) -> bool {
    let told = host.command(&format!("ip -details link show dev {device}"));
    told.contains("xdp") || told.contains("prog/")
}

fn open(host: &Host, device: &str, queue: u32) -> XdpError {
    host.run(|| XdpDevice::attach(device, None).and_then(|device| device.open(queue, &XdpConfig::default(), &config())))
        .map(drop)
        .unwrap_err()
}

#[test]
fn what_cannot_be_used_is_named_and_left_alone() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    let error = open(&ground.host, "s0", 7);
    assert!(matches!(error, XdpError::NoQueue { queues: 1, queue: 7, .. }), "{error}");
    let error = open(&ground.host, "missing", 0).to_string();
    assert!(error.contains("no device missing") && error.contains("ip link"), "{error}");
    // The address is the other end's.
    let error = open(&ground.peer, "p0", 0);
    assert!(matches!(&error, XdpError::NotItsAddress { device, .. } if device == "p0"), "{error}");
    let few = XdpConfig { rx_frames: 100, ..XdpConfig::default() };
    let error = ground.host.run(|| XdpDevice::attach("s0", None).unwrap().open(0, &few, &config()).map(drop));
    assert!(matches!(error, Err(XdpError::Frames(100))));
    assert!(!is_attached(&ground.host, "s0") && !is_attached(&ground.peer, "p0"));
    let tun = TunGround::new();
    let link = tun.link();
    let error = open(&tun.host, "t0", 0).to_string();
    assert!(error.contains("t0 isn't an Ethernet device"), "{error}");
    assert!(!is_attached(&tun.host, "t0"));
    drop(link);
}

#[test]
fn a_device_that_another_program_has_is_refused() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    let held = ground.link(Some(XdpMode::Native));
    for mode in [None, Some(XdpMode::Generic)] {
        let error = ground.host.run(|| XdpDevice::attach("s0", mode)).map(drop).unwrap_err().to_string();
        assert!(error.contains("another XDP program is there") && error.contains("ip link"), "{error}");
    }
    assert!(is_attached(&ground.host, "s0"), "the other is untouched");
    drop(held);
    assert!(!is_attached(&ground.host, "s0"));
}

#[test]
fn a_driver_without_xdp_is_served_by_the_generic_path() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    ground.peer.command("ip link set p0 mtu 9000");
    ground.host.command("ip link set s0 mtu 9000");
    // A veth's native XDP has no room for so long packets.
    let device = ground.host.run(|| XdpDevice::attach("s0", None)).unwrap();
    assert_eq!(device.mode(), XdpMode::Generic);
    drop(device);
    let error = ground.host.run(|| XdpDevice::attach("s0", Some(XdpMode::Native))).unwrap_err().to_string();
    assert!(error.contains("no XDP on s0") && error.contains("MTU"), "{error}");
    assert!(!is_attached(&ground.host, "s0"));
}

#[test]
fn checksums_are_left_to_the_kernel_on_a_veth() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let link = ground.link(Some(mode));
        assert!(link.is_zero_copy() || link.leaves_checksums(), "{mode:?}");
    }
}

#[test]
fn other_ports_stay_the_kernels() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    let _link = ground.link(None);
    let listener = ground.host.run(|| TcpListener::bind((STACK_V4, 0)).unwrap());
    let at = listener.local_addr().unwrap();
    assert!(!world::LISTEN.contains(&at.port()));
    ground.peer.run(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap());
    listener.accept().unwrap();
    // And so does the other way, and what isn't TCP.
    let listener = ground.peer.run(|| TcpListener::bind((PEER_V4, 0)).unwrap());
    let at = listener.local_addr().unwrap();
    ground.host.run(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap());
    let port = *world::LISTEN.start();
    let datagrams = ground.host.run(|| UdpSocket::bind((STACK_V4, port)).unwrap());
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    ground.peer.run(|| UdpSocket::bind((PEER_V4, 0)).unwrap().send_to(b"x", (STACK_V4, port)).unwrap());
    assert_eq!(datagrams.recv(&mut [0; 9]).unwrap(), 1);
}

#[test]
fn queues_are_those_in_use_and_packets_by_one_that_nobody_opened_are_counted() {
    const SENDERS: u64 = 64;
    if skips() {
        return;
    }
    let ground = VethGround::new();
    let (at, from) = (Ipv4Addr::new(10, 203, 0, 2), Ipv4Addr::new(10, 203, 0, 1));
    let there = ground.host.pid();
    ground.peer.command(&format!(
        "ip link add p1 numtxqueues 2 numrxqueues 2 type veth peer name s1 numtxqueues 4 numrxqueues 4 netns {there}"
    ));
    ground.host.command("ethtool --set-channels s1 rx 2 tx 2");
    for (host, device, address) in [(&ground.peer, "p1", from), (&ground.host, "s1", at)] {
        host.command(&format!("ip address add {address}/24 dev {device}"));
        host.command(&format!("ip link set {device} up"));
    }
    let stack = StackConfig { addresses: vec![at.into()], ..config() };
    let device = ground.host.run(|| XdpDevice::attach("s1", None)).unwrap();
    assert_eq!(device.queues(), 2, "it may use four");
    let error = ground.host.run(|| device.open(2, &XdpConfig::default(), &stack)).map(drop).unwrap_err();
    assert!(matches!(error, XdpError::NoQueue { queues: 2, queue: 2, .. }), "{error}");
    let _queue = ground.host.run(|| device.open(0, &XdpConfig::default(), &stack)).unwrap();
    let to = (at, *world::DATAGRAMS.start());
    let senders: Vec<_> = (0..SENDERS).map(|_| ground.peer.run(|| UdpSocket::bind((from, 0)).unwrap())).collect();
    let deadline = Instant::now() + PATIENCE;
    // The peer spreads its flows over both. What it sends before it knows the neighbour may be lost.
    while device.taken().unwrap() == 0 || device.astray().unwrap() == 0 {
        assert!(Instant::now() < deadline, "taken {}, astray {}", device.taken().unwrap(), device.astray().unwrap());
        // The kernel answers what it gets by the other queue: nobody is there.
        senders.iter().for_each(|sender| drop(sender.send_to(b"x", to)));
    }
}

#[test]
fn a_device_that_is_removed_ends_the_core_with_its_name() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    let link = ground.link(None);
    let stack = Stack::new(link, config()).unwrap();
    let mut core = Core::new(stack, Config::default(), Silent);
    core.turn().unwrap();
    ground.host.command("ip link delete s0");
    let began = Instant::now();
    let error = loop {
        match core.turn() {
            Err(error) => break error.to_string(),
            Ok(()) => assert!(began.elapsed() < PATIENCE, "a stack without a device goes on"),
        }
    };
    assert!(error.contains("s0 was removed"), "{error}");
}

/// Takes all connections, and keeps them.
struct Keeper(Vec<ConnId>);

impl<B: Backend> Handler<B> for Keeper {
    fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, incoming: Incoming<B::Socket>) {
        self.0.extend(cx.admit(incoming, 0, MeterId::NONE).ok());
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.close(conn);
    }

    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, error: ConnError) {
        panic!("{error}");
    }
}

/// What the kernel says of one of its connections: `field` of `ss`, in bytes.
fn told_by_kernel(ground: &VethGround, stream: &TcpStream, field: &str) -> usize {
    let port = stream.local_addr().unwrap().port();
    let told = ground.peer.command(&format!("ss -tinH sport = :{port}"));
    let value = told.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field}: {told}")).parse().unwrap()
}

#[test]
fn a_changed_mtu_is_followed() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    let stack = Stack::new(ground.link(None), config()).unwrap();
    let mut core = Core::new(stack, Config::default(), Keeper(Vec::new()));
    let at = Addr::Inet((STACK_V4, *world::LISTEN.start()).into());
    let at = core.parts().1.listen_at(&at, &LegOptions::default(), 16).unwrap().1.inet().unwrap();
    let connected = |core: &mut Core<Stack<Xdp>, Keeper>| {
        let before = core.parts().0.0.len();
        thread::scope(|scope| {
            let client = scope.spawn(|| ground.peer.run(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap()));
            while core.parts().0.0.len() == before {
                core.parts().1.set_alarm(Duration::ZERO);
                core.turn().unwrap();
            }
            client.join().unwrap()
        })
    };
    let segment = |mtu: usize| mtu - 40;
    let mut old = connected(&mut core);
    assert_eq!(told_by_kernel(&ground, &old, "mss"), segment(3000));
    for mtu in [1200, 2000] {
        ground.host.command(&format!("ip link set s0 mtu {mtu}"));
        let began = Instant::now();
        while told_by_kernel(&ground, &connected(&mut core), "mss") != segment(mtu) {
            assert!(began.elapsed() < PATIENCE, "new connections are told of another MTU");
        }
        // One that stood before sends shorter segments too, or longer ones again.
        let conn = core.parts().0.0[0];
        assert_eq!(core.parts().1.send(conn, &[0; 10_000]), 10_000);
        let mut unread = 10_000;
        old.set_nonblocking(true).unwrap();
        while unread > 0 {
            core.parts().1.set_alarm(Duration::ZERO);
            core.turn().unwrap();
            unread -= old.read(&mut [0; 10_000]).unwrap_or(0);
            assert!(began.elapsed() < PATIENCE, "{unread} bytes never come");
        }
        assert_eq!(told_by_kernel(&ground, &old, "rcvmss"), segment(mtu));
    }
}

/// Not a test by itself: another one starts it as a process, to be killed.
#[test]
fn holds_a_device() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let device = XdpDevice::attach("s0", None).unwrap();
    let _queue =
        device.open(0, &XdpConfig { rx_frames: 64, tx_frames: 64, ..XdpConfig::default() }, &config()).unwrap();
    println!("held");
    loop {
        thread::park();
    }
}

fn holder(ground: &VethGround) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "holds_a_device", "--nocapture"]).env(HOLD, "1").stdout(Stdio::piped());
    let mut child = ground.host.run(|| command.spawn().unwrap());
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("held")), "it holds the device");
    child
}

#[test]
fn a_process_that_is_killed_leaves_its_device_clean() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    for signal in [Signal::TERM, Signal::KILL, Signal::INT] {
        let mut child = holder(&ground);
        assert!(is_attached(&ground.host, "s0"));
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while is_attached(&ground.host, "s0") {
            assert!(Instant::now() < deadline, "{signal:?}: the program is still attached");
        }
    }
}
