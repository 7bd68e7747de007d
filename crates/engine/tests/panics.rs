//! A program that panics: its connection ends with a reset, the panic is counted, and the core goes on. In every upcall.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use midmile_engine::kernel::Kernel;
use midmile_engine::sim::{DialOutcome, RemoteId, Script, Sim};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, CoreId, Cx, Frame, Handler, Incoming, LegOptions, ListenerId, Mesh,
    MeterId, Upcall, Waker,
};

const MESSAGE: usize = 10;
/// More than there is room for at once.
const FLOOD: usize = 5000;

/// Echoes messages, and panics once: in one upcall about its first connection.
struct Touchy {
    panics_in: Option<Upcall>,
    /// Whether the connection has been taken in by then, where that's the question.
    admits_first: bool,
    reads_messages: bool,
    /// What it was told last of the connection that it panicked over.
    told: Option<ConnError>,
    accepted: u64,
    /// Connections that ended in order.
    finished: usize,
}

impl Touchy {
    const fn new(panics_in: Upcall) -> Self {
        let reads_messages = matches!(panics_in, Upcall::Frame | Upcall::Message);
        let panics_in = Some(panics_in);
        Self { panics_in, admits_first: false, reads_messages, told: None, accepted: 0, finished: 0 }
    }

    fn maybe(&mut self, upcall: Upcall, token: u64) {
        if token == 0 && self.panics_in == Some(upcall) {
            self.panics_in = None;
            panic!("a fault in {}", upcall.name());
        }
    }
}

impl<B: Backend> Handler<B> for Touchy {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let token = self.accepted;
        self.accepted += 1;
        if !self.admits_first {
            self.maybe(Upcall::Accept, token);
        }
        // There is room for all; where calls fail now and then, this one may.
        let Ok(conn) = cx.admit(incoming, token, MeterId::NONE) else { return };
        self.maybe(Upcall::Accept, token);
        if self.reads_messages {
            cx.read_messages(conn);
        } else {
            cx.read(conn);
        }
        if self.panics_in == Some(Upcall::HandOff) {
            // It comes back, for the simulation's can't travel.
            cx.hand_off(conn, CoreId(1)).unwrap();
        }
        if self.panics_in == Some(Upcall::Timer) {
            cx.set_timer(conn, Duration::from_millis(20));
        }
        if self.panics_in == Some(Upcall::Writable) {
            cx.send(conn, &[0; FLOOD]);
        }
    }

    fn on_accept_exhausted(&mut self, _cx: &mut Cx<B>, _listener: ListenerId) {
        self.maybe(Upcall::AcceptExhausted, 0);
    }

    fn on_connect(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64) {
        self.maybe(Upcall::Connect, token);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        self.maybe(Upcall::Data, token);
        cx.send(conn, bytes)
    }

    fn frame(&mut self, _conn: ConnId, token: u64, _bytes: &[u8]) -> Frame {
        self.maybe(Upcall::Frame, token);
        Frame::Message(MESSAGE)
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) {
        self.maybe(Upcall::Message, token);
        cx.send(conn, bytes);
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.maybe(Upcall::Writable, token);
        cx.read(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.maybe(Upcall::PeerClose, token);
        self.finished += 1;
        cx.close(conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64, error: ConnError) {
        self.maybe(Upcall::Error, token);
        if token == 0 {
            assert_eq!(self.told.replace(error), None, "an error is told once");
        }
    }

    fn on_hand_off(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.maybe(Upcall::HandOff, token);
        cx.read(conn);
    }

    fn on_hand_off_lost(&mut self, _cx: &mut Cx<B>, _from: CoreId, token: u64, _error: ConnError) {
        self.maybe(Upcall::HandOffLost, token);
    }

    fn on_timer(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64) {
        self.maybe(Upcall::Timer, token);
    }

    fn on_alarm(&mut self, _cx: &mut Cx<B>) {
        self.maybe(Upcall::Alarm, 0);
    }

    fn on_wake(&mut self, _cx: &mut Cx<B>) {
        self.maybe(Upcall::Wake, 0);
    }

    fn on_turn_end(&mut self, _cx: &mut Cx<B>) {
        self.maybe(Upcall::TurnEnd, 0);
    }
}

/// Two clients, the second long after the first; the core, and them.
fn world(handler: Touchy, first: Script, faults: bool) -> (Core<Sim, Touchy>, [RemoteId; 2]) {
    let config = Config { conns_max: 8, read_bytes: 256, blocks: 2, pipes_max: 0, ..Config::default() };
    let (_, mut seats) = Mesh::new(2, 8).unwrap();
    let mut core = Core::seated(Sim::new(3, faults), config, handler, seats.remove(0)).unwrap();
    let cx = core.parts().1;
    let (_, at) = cx.listen_at(&Addr::Inet(([10, 0, 0, 2], 0).into()), &LegOptions::default(), 16).unwrap();
    let second = Script { sends: 5 * MESSAGE, ..Script::default() };
    let first = cx.backend().client_to(&at, Duration::ZERO, first).unwrap();
    let second = cx.backend().client_to(&at, Duration::from_secs(1), second).unwrap();
    (core, [first, second])
}

fn run(core: &mut Core<Sim, Touchy>) {
    while core.parts().1.now().as_nanos() < 20_000_000_000 {
        core.turn().unwrap();
        core.parts().1.check();
    }
}

/// The one panicked over is gone, and the next one was served.
fn judge(core: &mut Core<Sim, Touchy>, clients: [RemoteId; 2], told: Option<ConnError>) {
    let (handler, cx) = core.parts();
    assert_eq!((handler.panics_in, handler.told, handler.finished), (None, told, 1));
    assert_eq!((cx.gauges().panics, cx.conns_open(), cx.gauges().blocks_leased), (1, 0, 0));
    let world = &*cx.backend();
    let [first, second] = clients.map(|client| world.remote(client));
    assert!(first.saw_reset() || first.has_reset(), "{first:?}");
    assert!(second.saw_end() && second.received() == second.sent(), "{second:?}");
}

#[test]
fn its_connection_is_told_and_reset() {
    let talking = Script { sends: 3 * MESSAGE, finishes: false, ..Script::default() };
    for upcall in [Upcall::Data, Upcall::Frame, Upcall::Message, Upcall::Timer, Upcall::Writable, Upcall::HandOff] {
        let first = Script { sends: if upcall == Upcall::Writable { 0 } else { talking.sends }, ..talking.clone() };
        let (mut core, clients) = world(Touchy::new(upcall), first, false);
        run(&mut core);
        judge(&mut core, clients, Some(ConnError::Panicked));
    }
    let ending = Script { sends: 3 * MESSAGE, finishes_last: false, ..Script::default() };
    let (mut core, clients) = world(Touchy::new(Upcall::PeerClose), ending, false);
    run(&mut core);
    judge(&mut core, clients, Some(ConnError::Panicked));
}

#[test]
fn one_that_was_just_accepted_is_reset_and_told_only_if_it_was_taken_in() {
    for (admits_first, told) in [(false, None), (true, Some(ConnError::Panicked))] {
        let handler = Touchy { admits_first, ..Touchy::new(Upcall::Accept) };
        let (mut core, clients) = world(handler, Script { finishes: false, ..Script::default() }, false);
        run(&mut core);
        let (handler, cx) = core.parts();
        assert_eq!((handler.panics_in, handler.told, handler.finished), (None, told, 1));
        assert_eq!((cx.gauges().panics, cx.conns_open()), (1, 0));
        let second = cx.backend().remote(clients[1]);
        assert!(second.saw_end() && second.received() == second.sent(), "{second:?}");
    }
}

#[test]
fn a_panic_over_an_error_is_the_last_word() {
    let failing = Script { sends: 3 * MESSAGE, resets_at: Some(15), ..Script::default() };
    let (mut core, clients) = world(Touchy::new(Upcall::Error), failing, false);
    run(&mut core);
    judge(&mut core, clients, None);
}

#[test]
fn a_dial_panicked_over_is_told_and_reset() {
    let (mut core, clients) = world(Touchy::new(Upcall::Connect), Script::default(), false);
    let cx = core.parts().1;
    let server = Addr::Inet(([10, 0, 0, 3], 1).into());
    let script = Script { finishes: false, ..Script::default() };
    cx.backend().server(&server, vec![DialOutcome::After(Duration::from_millis(5), script)]);
    cx.dial(&server, &LegOptions::default(), 0, MeterId::NONE).unwrap();
    run(&mut core);
    let (handler, cx) = core.parts();
    assert_eq!((handler.told, handler.finished), (Some(ConnError::Panicked), 2));
    assert_eq!((cx.gauges().panics, cx.conns_open()), (1, 0));
    let dialled = cx.backend().dialled(&server).next().unwrap();
    assert!(cx.backend().remote(dialled).saw_reset());
    assert!(clients.iter().all(|client| cx.backend().remote(*client).saw_end()));
}

#[test]
fn upcalls_about_no_connection_cost_none() {
    for upcall in [Upcall::Alarm, Upcall::Wake, Upcall::TurnEnd, Upcall::AcceptExhausted] {
        // Some call fails now and then, so that accepting does too.
        let faults = upcall == Upcall::AcceptExhausted;
        let (mut core, _) = world(Touchy::new(upcall), Script { sends: MESSAGE, ..Script::default() }, faults);
        let cx = core.parts().1;
        let waker = Waker::new().unwrap();
        cx.backend().watch_waker(&waker).unwrap();
        waker.wake();
        cx.set_alarm(Duration::from_millis(10));
        if faults {
            // Until it has come to that.
            let at = cx.listen_at(&Addr::Inet(([10, 0, 0, 2], 0).into()), &LegOptions::default(), 16).unwrap().1;
            for wait in 0..200 {
                let script = Script { sends: MESSAGE, ..Script::default() };
                cx.backend().client_to(&at, Duration::from_millis(20 * wait), script).unwrap();
            }
        }
        run(&mut core);
        let (handler, cx) = core.parts();
        assert_eq!((handler.panics_in, cx.gauges().panics), (None, 1), "{upcall:?}");
        assert!(handler.finished >= 2, "{upcall:?}: {}", handler.finished);
        assert_eq!(handler.told, None);
    }
}

#[test]
#[should_panic(expected = "a fault in on_data")]
fn a_panic_goes_on_where_that_is_asked_for() {
    let config = Config { conns_max: 8, catch_panics: false, ..Config::default() };
    let mut core = Core::new(Sim::new(3, false), config, Touchy::new(Upcall::Data));
    let cx = core.parts().1;
    let (_, at) = cx.listen_at(&Addr::Inet(([10, 0, 0, 2], 0).into()), &LegOptions::default(), 16).unwrap();
    cx.backend().client_to(&at, Duration::ZERO, Script { sends: MESSAGE, ..Script::default() }).unwrap();
    run(&mut core);
}

#[test]
fn its_peer_sees_a_reset_and_the_next_one_is_served() {
    struct Stops(Touchy);
    impl<B: Backend> Handler<B> for Stops {
        fn on_accept(&mut self, cx: &mut Cx<B>, listener: ListenerId, incoming: Incoming<B::Socket>) {
            self.0.on_accept(cx, listener, incoming);
        }
        fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
            self.0.on_data(cx, conn, token, bytes)
        }
        fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
            self.0.on_peer_close(cx, conn, token);
            cx.stop();
        }
        fn on_error(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, error: ConnError) {
            self.0.on_error(cx, conn, token, error);
        }
    }
    let mut core = Core::new(Kernel::new().unwrap(), Config::default(), Stops(Touchy::new(Upcall::Data)));
    let at = core.parts().1.listen_at(&Addr::Inet(([127, 0, 0, 1], 0).into()), &LegOptions::default(), 16).unwrap().1;
    let clients = thread::spawn(move || {
        let at = at.inet().unwrap();
        let mut first = TcpStream::connect(at).unwrap();
        first.write_all(b"hello").unwrap();
        let end = first.read(&mut [0; 8]).unwrap_err().kind();
        let mut second = TcpStream::connect(at).unwrap();
        second.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        second.read_exact(&mut echo).unwrap();
        (end, echo)
    });
    core.run().unwrap();
    assert_eq!(clients.join().unwrap(), (ErrorKind::ConnectionReset, *b"hello"));
    let (handler, cx) = core.parts();
    assert_eq!((handler.0.told, cx.gauges().panics), (Some(ConnError::Panicked), 1));
}
