//! Datagrams in the simulated world: whatever is lost, doubled, late or refused, a program that asks again gets through, and each
//! datagram is accounted for.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::net::SocketAddr;
use std::time::Duration;

use midmile_engine::sim::{Sim, Weather};
use midmile_engine::{
    Backend, Config, ConnError, ConnId, Core, Cx, DatagramId, DatagramOptions, Flow, Handler, SendToError,
};

const ROUNDS: u32 = 30;
const AGAIN: Duration = Duration::from_millis(50);

/// Asks by number on one socket and answers on another, one question after the other, each until it's answered.
#[derive(Default)]
struct StopAndWait {
    asks: Option<DatagramId>,
    answers: Option<DatagramId>,
    to: Option<SocketAddr>,
    /// The question that waits for its answer.
    round: u32,
    /// Questions answered, at least one each.
    answered: Vec<u32>,
    handed_over: u64,
}

impl StopAndWait {
    fn ask<B: Backend>(&mut self, cx: &mut Cx<B>) {
        cx.set_alarm(AGAIN);
        // Some by several datagrams, so that batches are partial.
        for _ in 0..1 + self.round % 5 {
            self.send(cx, self.asks.unwrap(), Flow::to(self.to.unwrap()), self.round);
        }
    }

    fn send<B: Backend>(&mut self, cx: &mut Cx<B>, by: DatagramId, flow: Flow, round: u32) {
        match cx.send_to(by, flow, &round.to_be_bytes()) {
            Ok(()) => self.handed_over += 1,
            Err(error) => assert_eq!(error, SendToError::Full),
        }
    }
}

impl<B: Backend> Handler<B> for StopAndWait {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        let number = u32::from_be_bytes(bytes.try_into().unwrap());
        if Some(socket) == self.answers {
            self.answered[number as usize] += 1;
            self.send(cx, socket, flow, number);
        } else if number == self.round {
            assert_eq!(Some(flow.peer), self.to, "the answer came from elsewhere");
            self.round += 1;
            if self.round == ROUNDS { cx.stop() } else { self.ask(cx) }
        }
    }

    fn on_alarm(&mut self, cx: &mut Cx<B>) {
        self.ask(cx);
    }
}

const CONFIG: Config = Config { conns_max: 4, blocks: 4, pipes_max: 4, loop_bytes: 1024 * 1024, ..Config::DEFAULT };

/// Binds, whatever the faults.
fn bind(cx: &mut Cx<Sim>, at: &str) -> DatagramId {
    let options = DatagramOptions { outbox_bytes: 64, ..DatagramOptions::default() };
    (0..10).find_map(|_| cx.bind(at.parse().unwrap(), &options).ok()).unwrap()
}

fn gets_through(seed: u64) {
    let mut sim = Sim::new(seed, true);
    let delay_max = Duration::from_millis(20);
    let weather = Weather { lost_one_in: 4, doubled_one_in: 5, delay_max, queue_max: 3, room: 4, ..Weather::default() };
    sim.set_weather(weather);
    let answered = vec![0; ROUNDS as usize];
    let mut core = Core::new(sim, CONFIG, StopAndWait { answered, ..StopAndWait::default() });
    let (handler, cx) = core.parts();
    let asks = bind(cx, "192.0.2.1:0");
    // Bound to all addresses, it answers from the one that was asked.
    let answers = bind(cx, "0.0.0.0:53");
    (handler.asks, handler.answers) = (Some(asks), Some(answers));
    handler.to = Some("192.0.2.2:53".parse().unwrap());
    core.parts().1.set_alarm(Duration::ZERO);
    core.run().unwrap();
    let (handler, cx) = core.parts();
    assert!(handler.answered.iter().all(|times| *times > 0), "a question was never asked");
    cx.check();
    let [asks, answers] = [asks, answers].map(|id| cx.datagram_counts(id));
    let accounted = [asks, answers].map(|counts| counts.sent + counts.exhausted + counts.failed);
    let left = handler.handed_over - accounted.iter().sum::<u64>();
    assert!(left <= 2 * 16, "{left} datagrams of four bytes are left in outboxes of 64 bytes");
    let told: u32 = handler.answered.iter().sum();
    assert_eq!(answers.received, u64::from(told));
}

#[test]
fn a_program_that_asks_again_gets_through() {
    let seeds = std::env::var("MIDMILE_SIM_SEEDS").map_or(300, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| gets_through(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}

/// Sends as much as there's room for, and goes on when room is told of.
struct Bulk {
    socket: Option<DatagramId>,
    to: SocketAddr,
    sent: u32,
    told: usize,
}

const BULK: u32 = 1000;

impl Bulk {
    fn go_on<B: Backend>(&mut self, cx: &mut Cx<B>) {
        while self.sent < BULK {
            match cx.send_to(self.socket.unwrap(), Flow::to(self.to), &self.sent.to_be_bytes()) {
                Ok(()) => self.sent += 1,
                Err(error) => return assert_eq!(error, SendToError::Full),
            }
        }
    }
}

impl<B: Backend> Handler<B> for Bulk {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_datagrams_writable(&mut self, cx: &mut Cx<B>, _socket: DatagramId) {
        self.told += 1;
        self.go_on(cx);
    }

    fn on_alarm(&mut self, cx: &mut Cx<B>) {
        self.go_on(cx);
    }
}

#[test]
fn bulk_that_waits_for_room_loses_nothing_to_a_full_socket() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed, false);
        let to: SocketAddr = "198.51.100.1:9".parse().unwrap();
        sim.set_weather(Weather { room: 7, ..Weather::default() });
        let mut core = Core::new(sim, CONFIG, Bulk { socket: None, to, sent: 0, told: 0 });
        let (handler, cx) = core.parts();
        let socket = bind(cx, "192.0.2.1:0");
        handler.socket = Some(socket);
        cx.set_alarm(Duration::ZERO);
        let mut turns = 0;
        while core.parts().1.backend().posted(to).len() < BULK as usize {
            core.turn().unwrap();
            core.parts().1.check();
            turns += 1;
            assert!(turns < 100_000, "seed {seed}: no progress");
        }
        let (handler, cx) = core.parts();
        assert!(handler.told > 0, "seed {seed}: it was never full");
        let counts = cx.datagram_counts(socket);
        assert_eq!((counts.sent, counts.failed, counts.exhausted), (u64::from(BULK), 0, 0));
        assert!(counts.refused > 0);
        let mut came: Vec<_> = cx.backend().posted(to).iter().map(|(_, bytes)| bytes.clone()).collect();
        came.sort();
        assert!(came.into_iter().eq((0..BULK).map(|number| number.to_be_bytes().to_vec())));
    }
}

#[test]
fn a_stranger_is_heard_and_answered_from_the_address_it_asked() {
    struct Upper;
    impl<B: Backend> Handler<B> for Upper {
        fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
            bytes.len()
        }
        fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
        fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}
        fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
            cx.send_to(socket, flow, &bytes.to_ascii_uppercase()).unwrap();
        }
    }
    let mut core = Core::new(Sim::new(1, false), CONFIG, Upper);
    let cx = core.parts().1;
    bind(cx, "0.0.0.0:7");
    let [stranger, asked] = ["198.51.100.1:9", "192.0.2.77:7"].map(|at| at.parse().unwrap());
    cx.backend().post(Duration::from_millis(3), stranger, asked, b"hello".to_vec());
    while !core.parts().1.backend().is_quiet() {
        core.turn().unwrap();
    }
    assert_eq!(core.parts().1.backend().posted(stranger), [(asked, b"HELLO".to_vec())]);
}
