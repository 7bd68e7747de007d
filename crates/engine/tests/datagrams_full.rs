//! A socket that is full: its datagrams wait for an address on the link that nobody answers for, in a network namespace of their own.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use midmile_engine::kernel::Kernel;
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{
    Backend, Config, ConnError, ConnId, Core, Cx, DatagramId, DatagramOptions, Flow, Handler, SendToError,
};

/// Set where the test runs in its namespace.
const INSIDE: &str = "MIDMILE_TEST_INSIDE";
const DATAGRAMS: u32 = 200;
const BYTES: usize = 1000;
/// The neighbour, and where its packets go.
const NEIGHBOUR: &str = "192.0.2.2";
const ITS_MAC: &str = "02:00:00:00:00:02";

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}: {status}");
}

/// Sends until the socket is full; then the neighbour turns up, and it sends the rest. Room is told of once for each refusal.
struct Sender {
    socket: Option<DatagramId>,
    to: SocketAddr,
    sent: u32,
    refused: usize,
    told: usize,
}

impl Sender {
    fn go_on<B: Backend>(&mut self, cx: &mut Cx<B>) {
        while self.sent < DATAGRAMS {
            match cx.send_to(self.socket.unwrap(), Flow::to(self.to), &[7; BYTES]) {
                Ok(()) => self.sent += 1,
                Err(SendToError::Full) => {
                    self.refused += 1;
                    if self.told == 0 {
                        ip(&format!("neigh replace {NEIGHBOUR} lladdr {ITS_MAC} dev near nud permanent"));
                    }
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        cx.stop();
    }
}

impl<B: Backend> Handler<B> for Sender {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_datagrams_writable(&mut self, cx: &mut Cx<B>, _socket: DatagramId) {
        self.told += 1;
        assert_eq!(self.told, self.refused, "room is told of, and nobody lacks any");
        self.go_on(cx);
    }

    fn on_alarm(&mut self, cx: &mut Cx<B>) {
        self.go_on(cx);
    }
}

fn inside() {
    ip("link add near type veth peer name far");
    ip("addr add 192.0.2.1/24 dev near");
    ip("link set near up");
    ip("link set far up");
    is_full_for_a_while(Kernel::new().unwrap());
    match Uring::new(UringConfig::default()) {
        Ok(uring) => is_full_for_a_while(uring),
        Err(error) => println!("SKIP: a full socket isn't tried by io_uring: {error}"),
    }
}

fn is_full_for_a_while(backend: impl Backend) {
    let to = format!("{NEIGHBOUR}:9").parse().unwrap();
    let handler = Sender { socket: None, to, sent: 0, refused: 0, told: 0 };
    let config = Config { conns_max: 1, blocks: 1, pipes_max: 1, ..Config::default() };
    let mut core = Core::new(backend, config, handler);
    let (handler, cx) = core.parts();
    let options =
        DatagramOptions { send_buffer: Some(16 * 1024), outbox_bytes: 8 * 1024, ..DatagramOptions::default() };
    let socket = cx.bind("192.0.2.1:0".parse().unwrap(), &options).unwrap();
    handler.socket = Some(socket);
    cx.set_alarm(Duration::ZERO);
    core.run().unwrap();
    let (handler, cx) = core.parts();
    assert!(handler.told > 0, "it was never full");
    assert_eq!(handler.told, handler.refused);
    let counts = cx.datagram_counts(socket);
    assert_eq!((counts.failed, counts.exhausted), (0, 0));
    assert!(counts.refused > 0 && counts.sent <= u64::from(DATAGRAMS), "{counts:?}");
    ip(&format!("neigh del {NEIGHBOUR} dev near"));
}

#[test]
fn a_full_socket_says_so_and_says_when_there_is_room() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let can = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("SKIP: a full socket isn't tried: no network namespace can be made");
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "a_full_socket_says_so_and_says_when_there_is_room"]).env(INSIDE, "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // What it skips is a skip of this test's.
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.starts_with("SKIP:"))
        .for_each(|line| println!("{line}"));
}
