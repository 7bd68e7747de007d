//! Datagrams cost no allocation: a core on the kernel's sockets, counted by the allocator.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use midmile_engine::kernel::Kernel;
use midmile_engine::{Backend, Config, ConnError, ConnId, Core, Cx, DatagramId, DatagramOptions, Flow, Handler};

const ROUNDS: usize = 200;
const BURST: usize = 20;

/// Echoes so many datagrams, then stops.
struct Echo(usize);

impl<B: Backend> Handler<B> for Echo {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        cx.send_to(socket, flow, bytes).unwrap();
        self.0 -= 1;
        if self.0 == 0 {
            cx.stop();
        }
    }
}

fn converse(at: SocketAddr) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = [0; 1500];
    for round in 0..ROUNDS {
        for _ in 0..BURST {
            client.send_to(&bytes[..1 + 5 * round], at).unwrap();
        }
        for _ in 0..BURST {
            client.recv(&mut bytes).unwrap();
        }
    }
}

#[test]
fn datagrams_do_not_allocate() {
    let config = Config { conns_max: 1, blocks: 1, pipes_max: 1, ..Config::default() };
    let mut core = Core::new(Kernel::new().unwrap(), config, Echo(ROUNDS * BURST));
    let cx = core.parts().1;
    let socket = cx.bind("127.0.0.1:0".parse().unwrap(), &DatagramOptions::default()).unwrap();
    let at = cx.datagram_addr(socket).unwrap();
    let (go, told) = channel::<()>();
    let client = thread::spawn(move || {
        told.recv().unwrap();
        converse(at);
    });
    go.send(()).unwrap();
    // Counted on this thread alone.
    let counted = allocation_counter::measure(|| core.run().unwrap());
    client.join().unwrap();
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
