//! Connections that move from core to core while they are used: bytes come once, in order, on whichever core they are.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use midmile_engine::kernel::Kernel;
use midmile_engine::sim::{Script, Sim};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, CoreId, Cx, Gauges, HandOffError, Handler, Incoming, LegOptions,
    ListenerId, Mesh, MeterId, Seat,
};

const CORES: u16 = 3;
const CLIENTS: usize = 6;
const CONNS_MAX: u32 = 100;
/// Bytes that each client sends, and then receives.
const SENT: u64 = 1 << 20;
const ANSWERED: u64 = 4 << 20;

/// What all cores know.
#[derive(Default)]
struct Shared {
    /// How far each connection has come, by its token.
    received: [AtomicU64; CLIENTS],
    answered: [AtomicU64; CLIENTS],
    accepted: AtomicU64,
    hops: AtomicU64,
    over: AtomicBool,
}

fn content(token: u64, place: u64) -> u8 {
    ((place ^ token << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).to_be_bytes()[7]
}

/// Takes a stream in, some bytes at a time, then sends one; and sends the connection away every now and then.
struct Wanderer {
    shared: Arc<Shared>,
    dice: u64,
    piece: Vec<u8>,
}

impl Wanderer {
    fn new(shared: &Arc<Shared>, seed: u64) -> Self {
        Self { shared: shared.clone(), dice: seed + 1, piece: Vec::new() }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    fn maybe_hand_off<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, one_in: u64) {
        if self.roll(one_in) == 0 {
            let to = CoreId(u16::try_from(self.roll(CORES.into())).unwrap());
            cx.hand_off(conn, to).unwrap();
            assert_eq!(cx.hand_off(conn, to), Err(HandOffError::NotStanding), "it's on its way");
            // It is too late for these.
            cx.read(conn);
            cx.set_timer(conn, Duration::ZERO);
        }
    }

    fn answer<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let index = usize::try_from(token).unwrap();
        loop {
            let from = self.shared.answered[index].load(SeqCst);
            if from == ANSWERED {
                return cx.close(conn);
            }
            let to = ANSWERED.min(from + 10_000);
            self.piece.clear();
            self.piece.extend((from..to).map(|place| content(token, place)));
            let sent = cx.send(conn, &self.piece) as u64;
            self.shared.answered[index].store(from + sent, SeqCst);
            if sent < to - from {
                return self.maybe_hand_off(cx, conn, 2);
            }
        }
    }
}

impl<B: Backend> Handler<B> for Wanderer {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let token = self.shared.accepted.fetch_add(1, SeqCst);
        let conn = cx.admit(incoming, token, MeterId::NONE).ok().expect("there is room for all");
        cx.read(conn);
        self.maybe_hand_off(cx, conn, 2);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        let index = usize::try_from(token).unwrap();
        let place = self.shared.received[index].load(SeqCst);
        let used = usize::try_from(1 + self.roll(bytes.len() as u64)).unwrap();
        let right = (place..).zip(&bytes[..used]).all(|(place, byte)| *byte == content(token, place));
        assert!(right, "other bytes than were sent");
        self.shared.received[index].store(place + used as u64, SeqCst);
        self.maybe_hand_off(cx, conn, 3);
        // What is left over is to be offered again at once.
        cx.read(conn);
        used
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let index = usize::try_from(token).unwrap();
        // All but what was left over, which can't be, for it's asked for each time.
        assert_eq!((self.shared.received[index].load(SeqCst), cx.left_over(conn)), (SENT, 0));
        self.answer(cx, conn, token);
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.answer(cx, conn, token);
    }

    fn on_hand_off(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        self.shared.hops.fetch_add(1, SeqCst);
        cx.read(conn);
    }

    fn on_timer(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64) {
        panic!("a timer was set on a connection that was leaving");
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64, error: ConnError) {
        panic!("{token}: {error}");
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        if self.shared.over.load(SeqCst) {
            cx.stop();
        }
    }

    fn on_turn_end(&mut self, cx: &mut Cx<B>) {
        cx.check();
    }
}

fn config() -> Config {
    Config {
        conns_max: 50,
        read_bytes: 5000,
        blocks: 2,
        pipes_max: 0,
        busy_poll: Duration::from_micros(50),
        catch_panics: false,
        ..Config::default()
    }
}

fn visit(at: SocketAddr, token: u64) {
    let mut stream = TcpStream::connect(at).unwrap();
    let bytes: Vec<u8> = (0..SENT).map(|place| content(token, place)).collect();
    let mut left = &bytes[..];
    for step in (1..3000).cycle() {
        let count = left.len().min(step);
        stream.write_all(&left[..count]).unwrap();
        left = &left[count..];
        if left.is_empty() {
            break;
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len() as u64, ANSWERED);
    assert!((0..).zip(&answer).all(|(place, byte)| *byte == content(token, place)), "another answer than was sent");
}

fn run(
    seat: Seat<<Kernel as Backend>::Parcel>,
    shared: &Arc<Shared>,
    told: &std::sync::mpsc::Sender<SocketAddr>,
) -> Gauges {
    let id = seat.core();
    let handler = Wanderer::new(shared, id.0.into());
    let mut core = Core::seated(Kernel::new().unwrap(), config(), handler, seat).unwrap();
    assert_eq!(core.parts().1.core(), Some(id));
    if id == CoreId(0) {
        let at = Addr::Inet(([127, 0, 0, 1], 0).into());
        // Small buffers, so that answers wait for room.
        let options = LegOptions { send_buffer: Some(20_000), ..LegOptions::default() };
        let (_, at) = core.parts().1.listen_at(&at, &options, 64).unwrap();
        told.send(at.inet().unwrap()).unwrap();
    }
    core.run().unwrap();
    let cx = core.parts().1;
    assert_eq!(cx.conns_open(), 0);
    cx.gauges()
}

#[test]
fn no_byte_is_lost_or_reordered_when_connections_wander() {
    let shared = Arc::<Shared>::default();
    let (mesh, seats) = Mesh::new(CORES, CONNS_MAX).unwrap();
    let (told, at) = channel();
    let cores: Vec<_> = seats
        .into_iter()
        .map(|seat| {
            let (shared, told) = (shared.clone(), told.clone());
            thread::spawn(move || run(seat, &shared, &told))
        })
        .collect();
    drop(told);
    let at = at.recv().unwrap();
    // One after another comes, so that the tokens are known; they stay together.
    let mut clients = Vec::new();
    for token in 0..CLIENTS as u64 {
        clients.push(thread::spawn(move || visit(at, token)));
        while shared.accepted.load(SeqCst) == token {
            assert!(!cores[0].is_finished(), "the first core is gone");
            thread::yield_now();
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    shared.over.store(true, SeqCst);
    (0..CORES).for_each(|core| mesh.wake(CoreId(core)));
    let gauges: Vec<Gauges> = cores.into_iter().map(|core| core.join().unwrap()).collect();
    assert!(shared.hops.load(SeqCst) > 100, "they hardly moved: {}", shared.hops.load(SeqCst));
    assert!(gauges.iter().all(|core| core.hand_offs_lost == 0 && core.blocks_leased == 0), "{gauges:?}");
    assert_eq!(mesh.conns().left(), CONNS_MAX);
}

/// A core that sends its first connection to another, wakes that, and stops when it is woken itself.
#[derive(Default)]
struct Sender {
    conn: Option<ConnId>,
    came_back: bool,
    woken: usize,
}

impl<B: Backend> Handler<B> for Sender {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let conn = cx.admit(incoming, 1, MeterId::NONE).ok().expect("there is room for it");
        assert_eq!(cx.hand_off(conn, CoreId(9)), Err(HandOffError::NoCore));
        self.conn = Some(conn);
        cx.read(conn);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        if !self.came_back {
            cx.hand_off(conn, CoreId(1)).unwrap();
            cx.wake(CoreId(1));
            return 0;
        }
        assert!(bytes.starts_with(b"hello"));
        bytes.len()
    }

    fn on_hand_off(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        assert_eq!((token, cx.core()), (1, Some(CoreId(0))));
        self.came_back = true;
        cx.read(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.close(conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, error: ConnError) {
        panic!("{error}");
    }

    fn on_wake(&mut self, _cx: &mut Cx<B>) {
        self.woken += 1;
    }
}

#[test]
fn where_it_cant_go_it_comes_back_with_what_was_left_over() {
    let (_mesh, mut seats) = Mesh::new(2, 10).unwrap();
    let other = seats.pop().unwrap();
    let mut other = Core::seated(Sim::new(2, false), config(), Sender::default(), other).unwrap();
    let mut core = Core::seated(Sim::new(1, false), config(), Sender::default(), seats.pop().unwrap()).unwrap();
    let cx = core.parts().1;
    let (_, at) = cx.listen_at(&Addr::Inet(([10, 0, 0, 2], 0).into()), &LegOptions::default(), 16).unwrap();
    let script = Script { preamble: b"hello".to_vec(), ..Script::default() };
    let client = cx.backend().client_to(&at, Duration::ZERO, script).unwrap();
    while !core.parts().1.backend().remote(client).saw_end() {
        assert!(core.parts().1.now().as_nanos() < 60_000_000_000, "it stands still");
        core.turn().unwrap();
        core.parts().1.check();
    }
    assert!(core.parts().0.came_back);
    other.turn().unwrap();
    assert_eq!((core.parts().0.woken, other.parts().0.woken), (0, 1));
}

/// Hands over what comes, or keeps count of what it's told of.
struct Narrow {
    to: Option<CoreId>,
    came: Vec<u64>,
    lost: Vec<(CoreId, u64, ConnError)>,
}

impl<B: Backend> Handler<B> for Narrow {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let token = self.came.len() as u64;
        let conn = cx.admit(incoming, token, MeterId::NONE).ok().expect("there is room for all");
        cx.hand_off(conn, self.to.unwrap()).unwrap();
        self.came.push(token);
    }

    fn on_data(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.close(conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64, error: ConnError) {
        panic!("{token}: {error}");
    }

    fn on_hand_off(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64) {
        self.came.push(token);
    }

    fn on_hand_off_lost(&mut self, _cx: &mut Cx<B>, from: CoreId, token: u64, error: ConnError) {
        self.lost.push((from, token, error));
    }
}

#[test]
fn a_full_core_is_told_which_it_lost_and_their_peers_see_a_reset() {
    let (mesh, mut seats) = Mesh::new(2, 10).unwrap();
    let narrow = |to| Narrow { to, came: Vec::new(), lost: Vec::new() };
    let full = Config { conns_max: 1, ..config() };
    let mut other = Core::seated(Kernel::new().unwrap(), full, narrow(None), seats.pop().unwrap()).unwrap();
    let first = narrow(Some(CoreId(1)));
    let mut core = Core::seated(Kernel::new().unwrap(), config(), first, seats.pop().unwrap()).unwrap();
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (_, at) = core.parts().1.listen_at(&at, &LegOptions::default(), 16).unwrap();
    let mut clients = [(); 3].map(|()| TcpStream::connect(at.inet().unwrap()).unwrap());
    while core.parts().0.came.len() < clients.len() || core.parts().1.conns_open() > 0 {
        core.turn().unwrap();
    }
    while other.parts().0.came.len() + other.parts().0.lost.len() < clients.len() {
        other.turn().unwrap();
    }
    let told = other.parts().0;
    assert_eq!((told.came.len(), told.lost.len()), (1, 2));
    assert!(told.lost.iter().all(|lost| lost.0 == CoreId(0) && lost.2 == ConnError::Exhausted), "{:?}", told.lost);
    let mut tokens: Vec<u64> = told.came.iter().copied().chain(told.lost.iter().map(|lost| lost.1)).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2]);
    let resets = told.lost.iter().map(|lost| usize::try_from(lost.1).unwrap());
    for client in resets.collect::<Vec<_>>() {
        let error = clients[client].read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!((other.parts().1.gauges().hand_offs_lost, other.parts().1.conns_open()), (2, 1));
    assert_eq!(mesh.conns().left(), 9, "those that were lost count no more");
}

#[test]
fn one_core_may_hold_all_connections_of_its_mesh_and_no_more() {
    let (mesh, seats) = Mesh::new(2, 7).unwrap();
    let mut cores: Vec<_> = seats
        .into_iter()
        .map(|seat| Core::seated(Sim::new(1, false), config(), Sender::default(), seat).unwrap())
        .collect();
    let to = Addr::Inet(([10, 0, 0, 3], 1).into());
    let dial = |core: &mut Core<Sim, Sender>| {
        let cx = core.parts().1;
        cx.backend().server(&to, vec![midmile_engine::sim::DialOutcome::Silent]);
        cx.dial(&to, &LegOptions::default(), 0, MeterId::NONE)
    };
    // What the other core has used and given back doesn't stay with it.
    let conns: Vec<_> = (0..7).map(|_| dial(&mut cores[0]).unwrap()).collect();
    assert_eq!((dial(&mut cores[1]), cores[1].parts().1.conns_free()), (Err(ConnError::Exhausted), 0));
    conns.into_iter().for_each(|conn| cores[0].parts().1.reset(conn));
    assert_eq!(mesh.conns().left(), 7);
    let conns: Vec<_> = (0..7).map(|_| dial(&mut cores[1]).unwrap()).collect();
    assert_eq!(dial(&mut cores[0]), Err(ConnError::Exhausted));
    assert_eq!(dial(&mut cores[1]), Err(ConnError::Exhausted));
    // A dial that fails at once keeps nothing.
    conns.into_iter().for_each(|conn| cores[1].parts().1.reset(conn));
    let nobody = Addr::Inet(([10, 0, 0, 4], 1).into());
    let refused = cores[0].parts().1.dial(&nobody, &LegOptions::default(), 0, MeterId::NONE);
    assert_eq!((refused, mesh.conns().left()), (Err(ConnError::Refused), 7));
}
