//! Nothing is allocated for an event by io_uring either: more connections at once than any list began with.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{
    Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MANY: usize = 1500;

/// Sends back what comes; speaks to all in one upcall if it's told to.
struct Echo {
    conns: Vec<ConnId>,
    speaks: bool,
}

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, incoming: Incoming<B::Socket>) {
        let conn = cx.admit(incoming, 0, MeterId::NONE).ok().expect("there is room for it");
        cx.read(conn);
        self.conns.push(conn);
    }
    fn on_alarm(&mut self, cx: &mut Cx<B>) {
        if std::mem::take(&mut self.speaks) {
            assert!(self.conns.iter().all(|conn| cx.send(*conn, b"!") == 1));
        }
    }
    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64, bytes: &[u8]) -> usize {
        cx.send(conn, bytes)
    }
    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.close(conn);
    }
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, error: ConnError) {
        panic!("{error}");
    }
}

/// Takes turns, without sleep, until as many connections are open.
fn turns_until(core: &mut Core<Uring, Echo>, open: usize) {
    let begun = Instant::now();
    while core.parts().1.conns_open() != open {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} are open", core.parts().1.conns_open());
        core.parts().1.set_alarm(Duration::ZERO);
        core.turn().unwrap();
    }
}

#[test]
fn a_crowd_that_speaks_at_once_and_goes_at_once_allocates_nothing() {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < 4 * MANY as u64) {
        return println!("SKIP: fewer than {} descriptors", 4 * MANY);
    }
    let current = limit.current.map(|now| now.max(4 * MANY as u64));
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    let ring = match Uring::new(UringConfig { send_blocks: 2048, ..UringConfig::default() }) {
        Ok(ring) => ring,
        Err(error) => return println!("SKIP: {error}"),
    };
    let config = Config { catch_panics: false, pipes_max: 0, ..Config::default() };
    let mut core = Core::new(ring, config, Echo { conns: Vec::with_capacity(MANY), speaks: false });
    let here = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let (_, at) = core.parts().1.listen_at(&here, &LegOptions::default(), 128).unwrap();
    let mut crowd = Vec::with_capacity(MANY);
    for open in 1..=MANY {
        let client = TcpStream::connect(at.inet().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        crowd.push(client);
        turns_until(&mut core, open);
    }
    let counted = allocation_counter::measure(|| {
        for client in &mut crowd {
            client.write_all(b"?").unwrap();
        }
        core.parts().0.speaks = true;
        let (mut heard, begun) = (0, Instant::now());
        while heard < 2 * MANY {
            assert!(begun.elapsed() < Duration::from_secs(30), "{heard} have heard");
            core.parts().1.set_alarm(Duration::ZERO);
            core.turn().unwrap();
            for client in &mut crowd {
                match client.read(&mut [0; 2]) {
                    Ok(bytes) => heard += bytes,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        }
        crowd.clear();
        turns_until(&mut core, 0);
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
