//! Sequences of operations from a seed: attach, detach, whole and cut messages both ways, peers that end, fail or don't read, receivers that
//! don't take. After every step the loop's invariants are checked; at the end, that no message was lost, doubled, cut or out of order.
//!
//! `MIDMILE_SIM_SEED=S` runs one seed, `MIDMILE_SIM_SEEDS=N` so many.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use midmile_engine::sim::Rng;

use super::super::{Arc, Core, Kernel, Order, Pump, Queues, build, sync_channel};
use super::{Duration, Framing, Outgoing, Received, Settings, Via, message, settings};

/// Connections at once.
const CONNS: u32 = 4;

/// The far end of a connection.
struct Peer {
    via: Via,
    stream: UnixStream,
    /// The rest of what it's sending.
    rest: Vec<u8>,
    sent: u32,
    /// What it has read.
    got: Vec<u8>,
}

/// What receivers know of a connection.
#[derive(Default)]
struct Told {
    messages: u32,
    ended: bool,
}

struct World {
    rng: Rng,
    queues: Arc<Queues>,
    core: Core<Kernel, Pump>,
    peers: Vec<Peer>,
    told: HashMap<Via, Told>,
    settings: Settings,
    next_ticket: u64,
    /// Messages that senders gave, and that nobody has seen nor been told of.
    given: HashSet<u64>,
}

/// The numbers of the whole messages in `got`, and whether nothing is behind them.
fn tickets(got: &[u8]) -> (Vec<u64>, bool) {
    let (mut got, mut tickets) = (got, Vec::new());
    while let Some((len, rest)) = got.split_first_chunk::<2>() {
        let Some((body, rest)) = rest.split_at_checked(u16::from_be_bytes(*len).into()) else { break };
        tickets.push(u64::from_be_bytes(body[..8].try_into().unwrap()));
        got = rest;
    }
    (tickets, got.is_empty())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let settings = Settings {
            conns_max: CONNS,
            queue_messages: 1 + rng.up_to(6),
            queue_bytes: 16 + rng.up_to(200),
            unsent_messages: 1 + rng.up_to(6),
            ..settings()
        };
        let (queues, core) = build(settings.clone()).unwrap();
        let (given, told) = (HashSet::new(), HashMap::new());
        Self { rng, queues, core, peers: Vec::new(), told, settings, next_ticket: 0, given }
    }

    /// A turn of the loop, which ends soon, and what holds after it.
    fn turn(&mut self) {
        self.core.parts().1.set_alarm(Duration::from_millis(1));
        self.core.turn().unwrap();
        let (pump, _) = self.core.parts();
        pump.check();
        assert!(pump.unsent() <= self.settings.unsent_messages, "more is unsent than may be");
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.peers.is_empty()).then(|| self.rng.up_to(self.peers.len() - 1))
    }

    fn attach(&mut self) {
        let (near, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let (answer, answered) = sync_channel(1);
        self.queues.post(Order::Attach(near.into(), answer));
        let answer = loop {
            self.turn();
            if let Ok(answer) = answered.try_recv() {
                break answer;
            }
        };
        match answer {
            Ok(via) => {
                assert!(self.told.insert(via, Told::default()).is_none(), "a handle is used again");
                self.peers.push(Peer { via, stream, rest: Vec::new(), sent: 0, got: Vec::new() });
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
                assert!(self.core.parts().0.links() == CONNS as usize, "there's room");
            }
        }
    }

    fn detach(&mut self) {
        let Some(at) = self.pick() else { return };
        let (answer, answered) = sync_channel(1);
        self.queues.post(Order::Detach(self.peers[at].via, answer));
        let answer = loop {
            self.turn();
            if let Ok(answer) = answered.try_recv() {
                break answer;
            }
            // A message is half out: its reader has to take it.
            self.read(at);
        };
        let (near, rest) = answer.unwrap();
        // What was begun is given back, and nothing of it was told.
        let Ok(None) = Framing::Dns.measure(&rest, &mut midmile_wire::frame::Seen::default()) else {
            // Whole ones may wait as well, where receivers are full.
            return drop((near, self.peers.swap_remove(at)));
        };
        drop(near);
        let peer = self.peers.swap_remove(at);
        self.judge(peer);
    }

    /// A peer sends some of a message.
    fn send_from(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if peer.rest.is_empty() {
            let fill = vec![7; self.rng.up_to(50)];
            peer.rest = message(&[&peer.sent.to_be_bytes()[..], &fill].concat());
            peer.sent += 1;
        }
        let part = 1 + self.rng.up_to(peer.rest.len() - 1);
        match peer.stream.write(&peer.rest[..part]) {
            Ok(written) => drop(peer.rest.drain(..written)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    fn read(&mut self, at: usize) {
        let mut buffer = vec![0; 100_000];
        let peer = &mut self.peers[at];
        if let Ok(read) = peer.stream.read(&mut buffer) {
            peer.got.extend_from_slice(&buffer[..read]);
        }
    }

    /// A program sends.
    fn send(&mut self) {
        let to_one = self.rng.one_in(2);
        let via = self.pick().filter(|_| to_one).map(|at| self.peers[at].via);
        let len = if self.rng.one_in(4) { 60_000 } else { 8 + self.rng.up_to(100) };
        let ticket = self.next_ticket;
        let mut body = vec![0; len];
        body[..8].copy_from_slice(&ticket.to_be_bytes());
        let outgoing = Outgoing { bytes: &message(&body), via, idempotent: self.rng.one_in(2), ticket };
        if self.queues.put(&[outgoing], Some(Duration::ZERO)).unwrap() == 1 {
            self.given.insert(ticket);
            self.next_ticket += 1;
        }
    }

    /// A program receives.
    fn receive(&mut self) {
        let (mut items, most) = (Vec::new(), 1 + self.rng.up_to(4));
        self.queues.take(&mut items, most, Some(Duration::ZERO)).unwrap();
        for item in items {
            match item {
                Received::Message { via, bytes } => {
                    let told = self.told.get_mut(&via).unwrap();
                    assert!(!told.ended, "a message after the end");
                    assert_eq!(bytes[2..6], told.messages.to_be_bytes(), "lost, doubled or out of order");
                    assert_eq!(bytes.len(), 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), "cut");
                    told.messages += 1;
                }
                Received::Ended { via, .. } => {
                    assert!(!std::mem::replace(&mut self.told.get_mut(&via).unwrap().ended, true), "ended twice");
                }
                Received::Unsent { ticket } => {
                    assert!(self.given.remove(&ticket), "{ticket}: told, and sent or told before")
                }
            }
        }
    }

    /// What a peer got, to the end: whole messages, each for the first time.
    fn judge(&mut self, mut peer: Peer) {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(read @ 1..) = peer.stream.read(&mut buffer) {
            peer.got.extend_from_slice(&buffer[..read]);
        }
        let (tickets, whole) = tickets(&peer.got);
        assert!(whole, "a message was cut");
        for ticket in tickets {
            assert!(self.given.remove(&ticket), "{ticket} came twice, or was told unsent");
        }
    }

    /// A peer goes without a word: what is under way to it is lost, as everywhere.
    fn vanish(&mut self) {
        let Some(at) = self.pick() else { return };
        let peer = self.peers.swap_remove(at);
        for ticket in tickets(&peer.got).0 {
            assert!(self.given.remove(&ticket), "{ticket} came twice, or was told unsent");
        }
    }

    fn step(&mut self) {
        match self.rng.up_to(15) {
            0 => self.attach(),
            1 if self.rng.one_in(4) => self.detach(),
            2 if self.rng.one_in(6) => self.vanish(),
            3..=7 => {
                if let Some(at) = self.pick() {
                    self.send_from(at);
                }
            }
            8..=9 => {
                if let Some(at) = self.pick() {
                    self.read(at);
                }
            }
            10..=12 => self.send(),
            _ => self.receive(),
        }
        self.turn();
    }

    /// All that is under way comes to its end.
    fn finish(mut self) {
        let all_told = |world: &Self| {
            let told = |peer: &Peer| peer.rest.is_empty() && world.told[&peer.via].messages == peer.sent;
            world.peers.iter().all(told)
        };
        let mut rounds = 0;
        while !all_told(&self) || (!self.peers.is_empty() && self.core.parts().0.unsent() > 0) {
            rounds += 1;
            assert!(rounds < 5000, "something is stuck");
            for at in 0..self.peers.len() {
                if !self.peers[at].rest.is_empty() {
                    self.send_from(at);
                }
                self.read(at);
            }
            self.turn();
            self.receive();
        }
        assert!(self.peers.iter().all(|peer| !self.told[&peer.via].ended), "one has ended that is there");
        for peer in std::mem::take(&mut self.peers) {
            self.judge(peer);
        }
    }
}

#[test]
fn a_message_that_came_in_time_ends_nothing_later() {
    let mut world = World::new(1);
    let timeout = Duration::from_millis(200);
    (world.queues, world.core) = build(Settings { message_timeout: timeout, ..settings() }).unwrap();
    world.settings = settings();
    world.attach();
    world.peers[0].stream.write_all(&message(&[0; 4])[..3]).unwrap();
    while world.core.parts().0.assembling() == 0 {
        world.turn();
    }
    world.peers[0].stream.write_all(&message(&[0; 4])[3..]).unwrap();
    while world.core.parts().0.assembling() == 1 {
        world.turn();
    }
    // The timer of then fires now.
    let begun = std::time::Instant::now();
    while begun.elapsed() < timeout + Duration::from_millis(50) {
        world.turn();
    }
    for _ in 0..3 {
        world.receive();
    }
    let told = &world.told[&world.peers[0].via];
    assert!(told.messages == 1 && !told.ended);
}

#[test]
fn sequences_of_operations() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("MIDMILE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MIDMILE_SIM_SEEDS").unwrap_or(40),
    };
    for seed in seeds {
        println!("MIDMILE_SIM_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
        }
        world.finish();
    }
}
