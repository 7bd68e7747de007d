//! Both ends of a direction over a model of its TCP connection: every step of every thread in an order that a seed or a fuzzer decides.
//!
//! The agents are what a library around system calls is: each step of theirs is one call of ours, or one system call of the
//! modelled kernel. Nothing times out, so a wake-up that is lost stops the world, and the world notices. Each byte says its place in the
//! stream, and none is 0, so a doorbell that is taken for data, or data that is swallowed, is noticed at once.

mod dice;
mod receiver;
mod sender;

use std::collections::VecDeque;

use crate::{Heap, Plain, Segment, Side};
pub(crate) use dice::Dice;
use receiver::{Receiver, Style};
use sender::Sender;

/// More steps than any run needs; a world that takes them all goes round in a circle.
const STEPS_MAX: usize = 400_000;

/// The TCP connection of one direction, and what was sent and received.
#[derive(Debug)]
struct World<'m> {
    segment: Segment<'m>,
    /// Sent and not arrived.
    wire: VecDeque<u8>,
    /// Arrived and not received.
    queue: VecDeque<u8>,
    /// Doorbells in the reader's pipe, which has room for few.
    pipe: usize,
    /// The writer's end of the stream: sent, arrived.
    fin: (bool, bool),
    /// Most bytes in wire and queue.
    room: usize,
    /// Bytes of data: to be written in all, in calls under way or done, written, read.
    total: usize,
    claimed: usize,
    produced: usize,
    consumed: usize,
    /// Arrivals, for those who wait for edges.
    edges: usize,
    /// Futex wakes of the readers, and of the writers.
    wakes: (usize, usize),
    senders_left: usize,
}

impl<'m> World<'m> {
    fn writer(&self) -> crate::Writer<'m> {
        self.segment.outgoing(Side::Offering)
    }

    fn reader(&self) -> crate::Reader<'m> {
        self.segment.incoming(Side::Attached)
    }

    /// The kernel's send, which never waits. Answers how many bytes it took.
    fn send(&mut self, bytes: &[u8], dice: &mut Dice<'_>) -> usize {
        let room = self.room.saturating_sub(self.wire.len() + self.queue.len());
        let most = bytes.len().min(room);
        let taken = if most > 1 && dice.one_in(3) { dice.up_to(most) } else { most };
        self.wire.extend(&bytes[..taken]);
        taken
    }

    /// The kernel's receive, which never waits. `None`: nothing is there. None of a positive number: the end.
    fn recv(&mut self, most: usize, dice: &mut Dice<'_>) -> Option<Vec<u8>> {
        if self.queue.is_empty() {
            return self.fin.1.then(Vec::new);
        }
        let most = most.min(self.queue.len());
        let count = if most > 1 && dice.one_in(3) { dice.up_to(most) } else { most };
        Some(self.queue.drain(..count).collect())
    }

    /// Some bytes arrive, or the end.
    fn deliver(&mut self, dice: &mut Dice<'_>) {
        let count = dice.below(self.wire.len() + 1).max(usize::from(!self.wire.is_empty()));
        self.queue.extend(self.wire.drain(..count));
        if self.wire.is_empty() && self.fin.0 {
            self.fin.1 = true;
        }
        self.edges += 1;
    }

    fn arriving(&self) -> bool {
        !self.wire.is_empty() || self.fin.0 != self.fin.1
    }

    fn readable(&self) -> bool {
        !self.queue.is_empty() || self.fin.1
    }

    /// The next bytes of the stream.
    fn produce(&self, count: usize) -> Vec<u8> {
        (self.produced..self.produced + count).map(byte_at).collect()
    }

    /// These bytes were given to the program.
    fn consume(&mut self, bytes: &[u8]) {
        self.compare(0, bytes);
        self.consumed += bytes.len();
    }

    /// These are the bytes of the stream, from the `skip`th unread one on.
    fn compare(&self, skip: usize, bytes: &[u8]) {
        for (offset, &byte) in bytes.iter().enumerate() {
            let place = self.consumed + skip + offset;
            assert!(place < self.produced, "byte {place} was read and never written: {byte}");
            assert_eq!(byte, byte_at(place), "byte {place} of the stream");
        }
    }
}

/// The byte at a place in the stream. Never 0.
fn byte_at(place: usize) -> u8 {
    u8::try_from(1 + place % 251).expect("at most 251")
}

/// A world from a seed.
#[cfg(test)]
pub(crate) fn run_seed(seed: u32) -> crate::Tally {
    run(&mut Dice::new(seed, &[]))
}

/// A world whose first decisions are the fuzzer's.
#[cfg(fuzzing)]
pub fn fuzz(tape: &[u8]) {
    run(&mut Dice::new(7, tape));
}

fn run(dice: &mut Dice<'_>) -> crate::Tally {
    let capacity = 64 << dice.below(4);
    let heap = Heap::new(capacity);
    let mut senders: Vec<Sender> = (0..dice.up_to(2)).map(Sender::new).collect();
    let piped = dice.one_in(3);
    let readers = dice.up_to(2);
    let mut receivers: Vec<Receiver> =
        (0..readers).map(|id| Receiver::new(id, Style::any(dice).by(piped), readers == 1)).collect();
    let mut world = World {
        segment: heap.create(),
        wire: VecDeque::new(),
        queue: VecDeque::new(),
        pipe: 0,
        fin: (false, false),
        room: dice.up_to(400),
        total: dice.below(6000),
        claimed: 0,
        produced: 0,
        consumed: 0,
        edges: 0,
        wakes: (0, 0),
        senders_left: senders.len(),
    };
    world.writer().begin(0);
    world.reader().engage(0);
    for receiver in &receivers {
        receiver.engage(&world);
    }
    let demands = dice.one_in(4);
    for _ in 0..STEPS_MAX {
        if demands && dice.one_in(500) && world.reader().demand(Plain::Drawn) {
            world.wakes.1 += 1;
        }
        if !turn(&mut world, &mut senders, &mut receivers, dice) {
            break;
        }
        check(&world, &senders, &receivers);
    }
    judge(&world, &senders, &receivers);
    world.segment.tally(Side::Offering)
}

/// One step of one that can make one. False: nobody can.
fn turn(world: &mut World<'_>, senders: &mut [Sender], receivers: &mut [Receiver], dice: &mut Dice<'_>) -> bool {
    let able: Vec<usize> = (0..=senders.len() + receivers.len())
        .filter(|&who| match who.checked_sub(1) {
            None => world.arriving(),
            Some(index) if index < senders.len() => senders[index].able(world),
            Some(index) => receivers[index - senders.len()].able(world),
        })
        .collect();
    if able.is_empty() {
        return false;
    }
    match able[dice.below(able.len())].checked_sub(1) {
        None => world.deliver(dice),
        Some(index) if index < senders.len() => senders[index].step(world, dice),
        Some(index) => receivers[index - senders.len()].step(world, dice),
    }
    true
}

/// Holds after each step.
fn check(world: &World<'_>, senders: &[Sender], receivers: &[Receiver]) {
    let quiet = senders.iter().all(Sender::outside) && receivers.iter().all(Receiver::outside);
    let something = world.produced > world.consumed;
    if quiet && something && receivers.iter().any(Receiver::watches) {
        assert!(
            world.pipe > 0 || world.readable() || world.arriving(),
            "there is something to read, and readiness doesn't say so"
        );
    }
}

/// Holds at the end.
fn judge(world: &World<'_>, senders: &[Sender], receivers: &[Receiver]) {
    let finished = senders.iter().all(Sender::finished) && receivers.iter().all(Receiver::finished);
    assert!(finished, "the world stands still, or goes round: {world:?} {senders:?} {receivers:?}");
    assert_eq!((world.produced, world.consumed), (world.total, world.total), "bytes written and read");
    assert_eq!(world.queue.len(), 0, "bytes in the socket that nobody wants");
    let tally = world.segment.tally(Side::Offering);
    assert_eq!(tally.ring_bytes + tally.tcp_bytes, world.total as u64, "each byte is counted once");
}
