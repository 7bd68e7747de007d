//! Two stacks at the ends of a cable with a clock of its own: what one sends the other reads, whatever the cable does to frames.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::net::IpAddr;
use std::time::Duration;

use midmile_engine::backend::{Backend, Progress, Ready, Tag};
use midmile_engine::{Addr, ConnError, LegOptions};
use midmile_stack::cable::{Cable, CableEnd};
use midmile_stack::faulty::{Faults, Faulty};
use midmile_stack::link::Link;
use midmile_stack::{Listener, Socket, Stack, StackConfig};

const DOOR: Tag = Tag(1);
const CONN: Tag = Tag(2);
const MTU: usize = 1500;

fn addresses(side: u8, v4: bool) -> Vec<IpAddr> {
    let text = if v4 { format!("10.9.0.{}", side + 1) } else { format!("fd09::{}", side + 1) };
    vec![text.parse().unwrap()]
}

fn config(side: u8, v4: bool) -> StackConfig {
    StackConfig {
        addresses: addresses(side, v4),
        listen_ports: vec![80..=89],
        flows_max: 64,
        half_open_max: 8,
        waits_max: 16,
        receive_bytes: 8192,
        send_bytes: 8192,
        ..StackConfig::default()
    }
}

fn byte(seed: u64, at: usize) -> u8 {
    let mixed = (at as u64 ^ seed << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u8::try_from(mixed >> 56).unwrap()
}

/// One end of a connection, which sends `total` bytes and then its end, and reads to the other's.
struct End<D: Link> {
    stack: Stack<D>,
    listener: Option<Listener>,
    socket: Option<Socket>,
    seed: u64,
    total: usize,
    /// More is to be sent later.
    holds: bool,
    sent: usize,
    received: Vec<u8>,
    finished: bool,
    ended: bool,
    failed: Option<ConnError>,
    readable: bool,
    writable: bool,
}

impl<D: Link> End<D> {
    fn new(stack: Stack<D>, seed: u64, total: usize) -> Self {
        Self {
            stack,
            listener: None,
            socket: None,
            seed,
            total,
            holds: false,
            sent: 0,
            received: Vec::new(),
            finished: false,
            ended: false,
            failed: None,
            readable: false,
            writable: false,
        }
    }

    fn listen(&mut self, at: &Addr) -> Addr {
        let (listener, at) = self.stack.listen(at, &LegOptions::default(), 4).unwrap();
        self.stack.watch_listener(&listener, DOOR).unwrap();
        self.listener = Some(listener);
        at
    }

    fn dial(&mut self, to: &Addr) {
        let (socket, _) = self.stack.dial(to, &LegOptions::default()).unwrap();
        self.stack.watch(&socket, CONN).unwrap();
        self.socket = Some(socket);
    }

    fn is_over(&self) -> bool {
        (self.finished && self.ended) || self.failed.is_some()
    }

    fn turn(&mut self) {
        let events = self.stack.poll(None).unwrap();
        for index in 0..events {
            self.take(self.stack.ready(index));
        }
        self.work();
        self.stack.check();
    }

    fn take(&mut self, ready: Ready) {
        if ready.tag == DOOR {
            let listener = self.listener.as_ref().unwrap();
            if let Ok((socket, _)) = self.stack.accept(listener) {
                self.stack.watch(&socket, CONN).unwrap();
                self.socket = Some(socket);
            }
            return;
        }
        self.readable |= ready.readable || ready.peer_finished;
        self.writable |= ready.writable;
        if ready.failed
            && let Some(socket) = &mut self.socket
        {
            self.failed = self.stack.take_error(socket);
        }
    }

    fn work(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        while self.readable && self.failed.is_none() && !self.ended {
            let mut buf = [0; 1000];
            match self.stack.recv(socket, &mut buf) {
                Ok(Progress::Moved(bytes)) => self.received.extend_from_slice(&buf[..bytes]),
                Ok(Progress::Blocked) => self.readable = false,
                Ok(Progress::Ended) => self.ended = true,
                Err(error) => self.failed = Some(error),
            }
        }
        while self.writable && self.failed.is_none() && self.sent < self.total {
            let chunk: Vec<u8> = (self.sent..self.total.min(self.sent + 3000)).map(|at| byte(self.seed, at)).collect();
            match self.stack.send(socket, &chunk) {
                Ok(Progress::Moved(bytes)) => {
                    self.sent += bytes;
                    self.writable = bytes == chunk.len();
                }
                Ok(_) => self.writable = false,
                Err(error) => self.failed = Some(error),
            }
        }
        if self.writable && self.sent == self.total && !self.holds && !self.finished && self.failed.is_none() {
            self.stack.shutdown(socket).unwrap();
            self.finished = true;
        }
    }
}

fn pair<D: Link>(seed: u64, v4: bool, make: impl Fn(CableEnd, u64) -> D) -> (Cable, [End<D>; 2], Addr) {
    let cable = Cable::new(Duration::from_millis(10));
    let ends = cable.ends(MTU, seed.is_multiple_of(2), [addresses(0, v4), addresses(1, v4)]);
    let mut side = 0;
    let mut ends = ends.map(|end| {
        let link = make(end, seed ^ u64::from(side) << 40);
        let stack = Stack::with_seed(link, config(side, v4), seed + u64::from(side)).unwrap();
        side += 1;
        End::new(stack, seed + u64::from(side), 0)
    });
    let at = ends[1].listen(&Addr::Inet((addresses(1, v4)[0], 0).into()));
    (cable, ends, at)
}

/// Takes turns until both are over; the clock mustn't go beyond `patience`.
fn run<D: Link>(cable: &Cable, ends: &mut [End<D>; 2], patience: Duration, until: impl Fn(&[End<D>; 2]) -> bool) {
    while !until(ends) {
        for end in ends.iter_mut() {
            end.turn();
        }
        let goes_on = cable.advance() || until(ends);
        let now = Duration::from_nanos(cable.now().as_nanos());
        assert!(goes_on && now < patience, "stuck after {now:?}: {:?}", ends.each_ref().map(|end| end.stack.gauges()));
    }
}

fn crosses(seed: u64, faults: Faults, total: usize, parts: usize) {
    let v4 = !seed.is_multiple_of(3);
    let (cable, mut ends, at) = pair(seed, v4, |end, seed| Faulty::new(end, faults, seed));
    ends[0].dial(&at);
    // In parts, with silences between them in which the connection rests.
    for part in 1..=parts {
        (0..2).for_each(|side| ends[side].total = total * part / parts / (side + 1));
        ends.iter_mut().for_each(|end| end.holds = part < parts);
        let arrived = |ends: &[End<_>; 2]| (0..2).all(|side| ends[side].received.len() == ends[1 - side].total);
        let rest = |ends: &[End<_>; 2]| ends.iter().all(|end| end.stack.gauges().resting == 1);
        let failed = |ends: &[End<_>; 2]| ends.iter().any(|end| end.failed.is_some());
        if part < parts {
            run(&cable, &mut ends, Duration::from_hours(5), |ends| failed(ends) || (arrived(ends) && rest(ends)));
        }
    }
    run(&cable, &mut ends, Duration::from_hours(5), |ends| ends.iter().all(End::is_over));
    for (reader, writer) in [(0, 1), (1, 0)] {
        assert_eq!(ends[reader].failed, None, "seed {seed}");
        assert_eq!(ends[reader].received.len(), ends[writer].total, "seed {seed}");
        let good = ends[reader].received.iter().enumerate().all(|(at, got)| *got == byte(ends[writer].seed, at));
        assert!(good, "seed {seed}: other bytes arrive than were sent");
    }
    for end in &mut ends {
        end.stack.close(end.socket.take().unwrap());
    }
    let gone = |ends: &[End<Faulty<CableEnd>>; 2]| ends.iter().all(|end| end.stack.gauges().flows == 0);
    run(&cable, &mut ends, Duration::from_hours(6), gone);
}

#[test]
fn bytes_cross_a_good_cable() {
    for seed in 0..6 {
        crosses(seed, Faults::default(), 200_000, 1);
    }
}

#[test]
fn bytes_cross_a_bad_cable() {
    for seed in 0..120 {
        crosses(seed, Faults { lost: 30, doubled: 30, late: 60, spoilt: 20 }, 60_000, 1);
    }
}

#[test]
fn bytes_cross_a_terrible_cable() {
    for seed in 100..136 {
        crosses(seed, Faults { lost: 100, doubled: 100, late: 200, spoilt: 30 }, 20_000, 1);
    }
}

/// Seeds with which all acknowledgements of both got lost at once, and neither took the other's any more.
#[test]
fn both_ends_may_send_again_at_once() {
    for seed in [59, 61, 138, 199, 244] {
        crosses(seed, Faults { lost: 30, doubled: 30, late: 60, spoilt: 20 }, 60_000, 1);
    }
    for seed in [132, 154, 170, 185] {
        crosses(seed, Faults { lost: 100, doubled: 100, late: 200, spoilt: 30 }, 20_000, 1);
    }
}

#[test]
fn bytes_cross_with_silences_between_them() {
    for seed in 200..206 {
        crosses(seed, Faults::default(), 200_000, 5);
    }
    for seed in 206..266 {
        crosses(seed, Faults { lost: 30, doubled: 30, late: 60, spoilt: 20 }, 60_000, 12);
    }
}
