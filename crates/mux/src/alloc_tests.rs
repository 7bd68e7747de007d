//! Messages cost no allocation once everything is warm: a real mux on the kernel's sockets, counted by the allocator.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use allocation_counter::AllocationInfo;
use midmile_engine::kernel::Kernel;
use midmile_engine::{Addr, Config, Core, LegOptions, Waker};

use crate::sim_tests::{Owner, answer_to, cut_answer_to, query, service, with_datagrams};
use crate::{Bounds, Counters, Detour, End, Matching, Mux, Transport};

const CLIENTS: usize = 8;
const QUERIES: usize = 50;

/// Reads one message, without the length in front; `None` at the end.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) {
    let len = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&len, message].concat()).unwrap();
}

/// The same by datagrams too, at the same address. Every fifth answer is cut.
fn backend_by_datagrams() -> SocketAddr {
    let at = backend();
    let socket = UdpSocket::bind(at).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        for number in 0_u64.. {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            let query = &buffer[..len];
            let answer = if number % 5 == 0 { cut_answer_to(query) } else { answer_to(query) };
            socket.send_to(&answer, from).unwrap();
        }
    });
    at
}

/// A server that answers each query, those that come together in the wrong order.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut kept: Option<Vec<u8>> = None;
                while let Some(query) = read_message(&mut stream) {
                    write_message(&mut stream, &answer_to(&query));
                    if let Some(before) = kept.replace(query) {
                        // Told twice: nobody waits for it any more.
                        write_message(&mut stream, &answer_to(&before));
                    }
                }
            });
        }
    });
    at
}

/// One client: queries sent together, all with the same few ids.
fn visit(to: SocketAddr, number: usize) {
    let mut stream = TcpStream::connect(to).unwrap();
    let name = |at: usize| format!("c{number}q{at}");
    for at in 0..QUERIES {
        let id = u16::try_from(at % 3).unwrap();
        stream.write_all(&query(id, &name(at), 1)).unwrap();
    }
    let mut left: Vec<usize> = (0..QUERIES).collect();
    while !left.is_empty() {
        let answer = read_message(&mut stream).unwrap();
        let is_to = |at: &usize| answer == answer_to(&query(u16::try_from(at % 3).unwrap(), &name(*at), 1)[2..]);
        let place = left.iter().position(is_to).expect("another answer, or one again");
        left.remove(place);
    }
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
        let visits: Vec<_> = (0..CLIENTS).map(|number| thread::spawn(move || visit(at, number))).collect();
        visits.into_iter().for_each(|visit| visit.join().unwrap());
        drop(telling);
    });
    done
}

fn serve(core: &mut Core<Kernel, Owner>, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) || core.parts().0.mux.clients() > 0 {
        core.turn().unwrap();
    }
}

/// What serving clients costs, once others have been served.
fn cost_of(backends: [SocketAddr; 2], transport: Transport) -> (AllocationInfo, Arc<Counters>) {
    let waker = Waker::new().unwrap();
    let mut kernel = Kernel::new().unwrap();
    midmile_engine::Backend::watch_waker(&mut kernel, &waker).unwrap();
    let config = Config { conns_max: 100, read_bytes: 65_537, ..Config::default() };
    let mut core = Core::new(kernel, config, Owner::new(Mux::new(50, 100)));
    let counters = Arc::new(Counters::default());
    let (owner, cx) = core.parts();
    let (_, at) = cx.listen_at(&Addr::Inet(([127, 0, 0, 1], 0).into()), &LegOptions::default(), 128).unwrap();
    let at = at.inet().unwrap();
    let bounds = Bounds { outstanding_per_client: 20, ..Bounds::default() };
    let service = service(&backends.map(Addr::from), Matching::Id, bounds);
    let service = with_datagrams(service, |_| transport == Transport::Udp);
    owner.service = Some(owner.mux.serve(cx, Arc::new(service), counters.clone(), Arc::default()));
    owner.ended.reserve(10 * CLIENTS);
    for _ in 0..2 {
        serve(&mut core, &send_clients(at, &waker));
    }
    let done = send_clients(at, &waker);
    let counted = allocation_counter::measure(|| serve(&mut core, &done));
    assert_eq!(counters.ends[End::Finished.index()].value(), 3 * CLIENTS as u64);
    assert_eq!(counters.answers.value(), (3 * CLIENTS * QUERIES) as u64);
    assert_eq!((counters.servfails.value(), counters.upstreams_dialled.value()), (0, 4));
    (counted, counters)
}

#[test]
fn messages_cost_no_allocation() {
    let (counted, counters) = cost_of([backend(), backend()], Transport::Tcp);
    assert!(counters.answers_stray.value() + counters.answers_late.value() > 0, "the backends said nothing twice");
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn datagrams_cost_no_allocation() {
    let (counted, counters) = cost_of([backend_by_datagrams(), backend_by_datagrams()], Transport::Udp);
    let all = (3 * CLIENTS * QUERIES) as u64;
    assert_eq!(counters.datagrams.value(), all);
    assert!(counters.detours[Detour::Truncated.index()].value() > all / 10, "nothing was cut");
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
