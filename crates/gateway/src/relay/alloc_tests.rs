//! The data path doesn't allocate: a real relay on the kernel's sockets, counted by the allocator.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use midmile_engine::kernel::{self, Kernel};
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{Addr, Allowance, Config, Core, Waker};
use midmile_wire::proxy::Version;

use super::{Order, Parts, Relay};
use crate::backend::{Backend, BackendSet, Balance};
use crate::counters::{CoreCounters, RouteCounters};
use crate::plan::Route;
use crate::reason::End;
use crate::serving::DoorId;

const VISITS: usize = 20;
const BULK_BYTES: usize = 1 << 20;

type Relaying<B> = Core<B, Relay<kernel::Listener>>;

/// A server that answers all it's sent, each connection to its end.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                std::io::copy(&mut stream, &mut out).ok();
                out.shutdown(Shutdown::Write).ok();
            });
        }
    });
    addr
}

/// Bytes that differ from place to place.
fn bulk() -> Vec<u8> {
    (0..BULK_BYTES).map(|at| (at.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()[0]).collect()
}

/// One client: small exchanges, then bulk, then its end; reads to the end of the answer.
fn visit(to: SocketAddr) {
    let mut stream = TcpStream::connect(to).unwrap();
    let mut small = [7; 64];
    for _ in 0..10 {
        stream.write_all(&small).unwrap();
        stream.read_exact(&mut small).unwrap();
    }
    let mut writer = stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        let bulk = bulk();
        writer.write_all(&bulk).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        bulk
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&sending.join().unwrap()), "other bytes came back");
}

fn route(server: SocketAddr) -> Route {
    let backend = Arc::new(Backend::new("echo", vec![server.into()], 1));
    Route {
        send_proxy: Some(Version::V1),
        pairs_max: 100,
        ..Route::plain(
            "r",
            Addr::Inet(([127, 0, 0, 1], 0).into()),
            BackendSet::new(vec![backend], Balance::LeastConnections, None),
        )
    }
}

fn relay<B>(mut backend: B, waker: &Waker, counters: &Arc<RouteCounters>) -> (Relaying<B>, SocketAddr)
where
    B: midmile_engine::Backend<Listener = kernel::Listener>,
{
    backend.watch_waker(waker).unwrap();
    let ((_, orders), (_, syns)) = (channel(), sync_channel(1));
    let (reports, _) = sync_channel(1);
    let parts = Parts {
        core: 0,
        pairs: Arc::new(Allowance::new(100, 1)),
        pooled_max: 0,
        counters: Arc::new(CoreCounters::default()),
        orders,
        syns,
        reports,
    };
    let config = Config { conns_max: 200, ..Config::default() };
    let mut core = Core::new(backend, config, Relay::new(parts));
    let route = Arc::new(route(echo_server()));
    let (mut listeners, at) = kernel::listen(&route.listen, &route.client, &[0], false).unwrap();
    let listener = listeners.pop().unwrap();
    let (relay, cx) = core.parts();
    relay.obey(
        cx,
        Order::Open {
            door: DoorId(0),
            listener,
            route,
            counters: counters.clone(),
            census: Arc::default(),
            pairs: Arc::new(Allowance::new(100, 1)),
        },
    );
    (core, at.inet().unwrap())
}

/// Sends clients, each on a thread of its own, and wakes the core when all are done.
fn send_clients(at: SocketAddr, waker: &Waker) -> Arc<AtomicBool> {
    /// Says so when it's dropped, which a client that fails does as well.
    struct Done(Arc<AtomicBool>, Waker);
    impl Drop for Done {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
            self.1.wake();
        }
    }
    let done = Arc::new(AtomicBool::new(false));
    let telling = Done(done.clone(), waker.clone());
    thread::spawn(move || {
        let visits: Vec<_> = (0..VISITS).map(|_| thread::spawn(move || visit(at))).collect();
        visits.into_iter().for_each(|visit| visit.join().unwrap());
        drop(telling);
    });
    done
}

/// Turns the core until the clients are done and their pairs have ended.
fn serve<B>(core: &mut Relaying<B>, done: &AtomicBool)
where
    B: midmile_engine::Backend<Listener = kernel::Listener>,
{
    while !done.load(Ordering::Acquire) || core.parts().0.pairs_open() > 0 {
        core.turn().unwrap();
    }
}

fn the_data_path_does_not_allocate<B>(backend: B)
where
    B: midmile_engine::Backend<Listener = kernel::Listener>,
{
    let waker = Waker::new().unwrap();
    let counters = Arc::new(RouteCounters::default());
    let (mut core, at) = relay(backend, &waker, &counters);
    // Pipes are made when they are first needed.
    serve(&mut core, &send_clients(at, &waker));
    let done = send_clients(at, &waker);
    let counted = allocation_counter::measure(|| serve(&mut core, &done));
    assert_eq!(counters.ends[End::Finished.index()].value(), 2 * VISITS as u64);
    assert!(counters.upstream.spliced_bytes() > 0, "bulk wasn't spliced");
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn the_data_path_by_epoll_does_not_allocate() {
    the_data_path_does_not_allocate(Kernel::new().unwrap());
}

/// Every byte of the clients' comes back through it, small and bulk.
#[test]
fn the_data_path_by_io_uring_does_not_allocate() {
    match Uring::new(UringConfig::default()) {
        Ok(ring) => the_data_path_does_not_allocate(ring),
        Err(error) => println!("SKIP: {error}"),
    }
}
