//! A handler that doesn't return is counted and named while it's at it.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use midmile_engine::kernel::Kernel;
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId, Stall,
    Upcall, Watchdog,
};

/// Stays in `on_data` until it's let go.
struct Stuck {
    conn: Option<ConnId>,
    let_go: Receiver<()>,
}

impl<B: Backend> Handler<B> for Stuck {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let conn = cx.admit(incoming, 0, MeterId::NONE).ok().expect("there is room for it");
        self.conn = Some(conn);
        cx.read(conn);
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        self.let_go.recv().unwrap();
        bytes.len()
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, _: ConnId, _: u64) {
        cx.stop();
    }

    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, error: ConnError) {
        panic!("{error}");
    }
}

#[test]
fn a_handler_that_does_not_return_is_named_while_it_is_at_it() {
    let limit = Duration::from_millis(20);
    let (letting_go, let_go) = channel();
    let (telling, told) = channel();
    let config = Config { conns_max: 2, catch_panics: false, ..Config::default() };
    let mut core = Core::new(Kernel::new().unwrap(), config, Stuck { conn: None, let_go });
    let watchdog = Watchdog::start(vec![core.pulse()], limit, move |stall| telling.send(stall).unwrap()).unwrap();
    let at = core.parts().1.listen_at(&Addr::Inet(([127, 0, 0, 1], 0).into()), &LegOptions::default(), 4).unwrap().1;
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(at.inet().unwrap()).unwrap();
        stream.write_all(b"hello").unwrap();
        // A core that isn't let run looks stuck in any upcall.
        let of_data = || told.iter().find(|stall: &Stall| stall.upcall == Upcall::Data).unwrap();
        let noticed = of_data();
        // It was still at it: nothing else lets it go.
        letting_go.send(()).unwrap();
        let ended = of_data();
        // So that the core stops.
        drop(stream);
        (noticed, ended)
    });
    core.run().unwrap();
    let (noticed, ended) = client.join().unwrap();
    assert_eq!((noticed.core, noticed.upcall, noticed.conn), (0, Upcall::Data, core.parts().0.conn));
    assert!(noticed.lasted >= limit && !noticed.over, "{noticed:?}");
    assert!(ended.over && ended.upcall == Upcall::Data && ended.lasted >= noticed.lasted, "{ended:?}");
    assert!(watchdog.stalls() >= 1);
}
