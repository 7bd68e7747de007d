//! A listener of io_uring's that is about to be closed: the kernel accepts ahead of the program there.

use std::net::TcpStream;

use midmile_engine::uring::{Socket, Uring, UringConfig};
use midmile_engine::{Addr, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId};

/// At its first client takes all who have connected, as who is about to close a listener does.
struct Closing {
    taken: usize,
}

impl Handler<Uring> for Closing {
    fn on_accept(&mut self, cx: &mut Cx<Uring>, listener: ListenerId, _: Incoming<Socket>) {
        self.taken += 1;
        while cx.take_incoming(listener).is_some() {
            self.taken += 1;
        }
        cx.stop();
    }
    fn on_data(&mut self, _: &mut Cx<Uring>, _: ConnId, _: u64, _: &[u8]) -> usize {
        0
    }
    fn on_peer_close(&mut self, _: &mut Cx<Uring>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<Uring>, _: ConnId, _: u64, _: ConnError) {}
}

#[test]
fn who_closes_a_listener_finds_those_too_whom_no_event_has_told_of() {
    const CLIENTS: usize = 40;
    let ahead = UringConfig { accepted_max: 2, completions: 32, submissions: 16, ..UringConfig::default() };
    let ring = match Uring::new(ahead) {
        Ok(ring) => ring,
        Err(error) => return println!("SKIP: {error}"),
    };
    let config = Config { accept_batch: 1, ..Config::default() };
    let mut core = Core::new(ring, config, Closing { taken: 0 });
    let any = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (_, at) = core.parts().1.listen_at(&any, &LegOptions::default(), 64).unwrap();
    let _clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(at.inet().unwrap()).unwrap()).collect();
    core.run().unwrap();
    assert_eq!(core.parts().0.taken, CLIENTS);
}
