//! One direction of a link as a state machine without I/O: packets and the time go in, deliveries and the next deadline come out.
//!
//! ```text
//!  handle_packet ─► fate of each segment ─► queue ─► line (rate) ─► delay, jitter ─► poll_delivery
//!                   │ lost, overtakes       │ full: dropped
//! ```
//! Time is counted from the emulator's start. Nothing here reads a clock or draws from anything but its own seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use crate::packet::Packet;
use crate::seed::Seeded;
use crate::units::Rate;

/// Bytes that a direction may hold in all: on the line, and on their way. 10 Gbit/s over 200 ms is about as much.
const HELD_MAX: usize = 256 << 20;
const PICOSECONDS: u128 = 1_000_000_000_000;

/// What a direction does to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// From one end to the other, one way.
    pub delay: Duration,
    /// Bits a second of IP packets; as fast as they come if `None`.
    pub rate: Option<Rate>,
    /// Bytes that may wait for the line, the packet on it among them; only with a rate. Without it, as many as memory allows.
    pub queue: Option<u64>,
    /// Share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Up to this much is added to the delay of each packet, evenly spread; the order is kept.
    pub jitter: Duration,
    /// Share of packets that overtake those before them, 0 to 1.
    pub reorder: f64,
    /// How much earlier than the others such a packet arrives.
    pub overtake: Duration,
}

/// What a direction has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came in, each segment of a super-packet as one.
    pub packets: u64,
    /// Bytes that were passed on, as the wire counts them.
    pub bytes: u64,
    /// Packets that found the queue full.
    pub queue_drops: u64,
    /// Packets lost by chance, or because the link was cut.
    pub losses: u64,
    /// Packets handed over, a super-packet as one.
    pub deliveries: u64,
    /// By how much deliveries came after their time, all together.
    pub late: Duration,
    /// By how much the latest one did.
    pub late_max: Duration,
}

/// A packet that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it came into the direction.
    pub entered: Duration,
    /// When it is due at the other end.
    pub due: Duration,
    /// The packet with its prefix.
    pub bytes: Box<[u8]>,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Direction {
    shape: Shape,
    seeded: Seeded,
    /// When the line has sent all that waits, in picoseconds: a small packet's time isn't a whole number of anything larger.
    line_free_ps: u128,
    /// When the last packet that kept its place is due. No later one of these is due earlier.
    last_due: Duration,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// Bytes in `under_way`; at most `HELD_MAX` before the last packet.
    held: usize,
    /// Whether all that comes in is lost.
    cut: bool,
    /// Packets ever sent; keeps those that are due at the same time in order.
    sent: u64,
    counters: Counters,
}

/// A packet between its ends, ordered by when it is due.
#[derive(Debug)]
struct UnderWay {
    sent: u64,
    delivery: Delivery,
}

/// What chance does to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Lost,
    Overtakes,
}

impl Direction {
    /// A direction without packets; `seed` decides all that is left to chance.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            seeded: Seeded::new(seed),
            line_free_ps: 0,
            last_due: Duration::ZERO,
            under_way: BinaryHeap::new(),
            held: 0,
            cut: false,
            sent: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a packet in, or what chance and the queue leave of it.
    pub fn handle_packet(&mut self, now: Duration, bytes: &[u8]) {
        let packet = Packet::new(bytes);
        let segments = packet.segments();
        self.counters.packets += as_count(segments);
        let mut begin = 0;
        let mut fate = self.draw_fate();
        for end in 1..=segments {
            let next = if end < segments { self.draw_fate() } else { fate };
            if end == segments || next != fate {
                self.handle_run(now, &packet, begin..end, fate);
                begin = end;
                fate = next;
            }
        }
    }

    /// Cuts it, or mends it: while it is cut all that comes in is lost. What was under way still arrives.
    pub const fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// The next packet that is due, in the order in which they are.
    pub fn poll_delivery(&mut self, now: Duration) -> Option<Delivery> {
        let due = self.deadline()?;
        let late = now.checked_sub(due)?;
        let Reverse(UnderWay { delivery, .. }) = self.under_way.pop()?;
        self.held -= delivery.bytes.len();
        self.counters.deliveries += 1;
        self.counters.late += late;
        self.counters.late_max = self.counters.late_max.max(late);
        Some(delivery)
    }

    /// When [`Self::poll_delivery`] has something next; `None` while nothing is under way.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse(next)| next.delivery.due)
    }

    /// What it has done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes that wait for the line, the packet on it among them.
    fn backlog(&self, now: Duration) -> u128 {
        let Some(rate) = self.shape.rate else { return 0 };
        // Rounded up, so that the bound holds for what it stands for.
        (self.line_free_ps.saturating_sub(picoseconds(now)) * u128::from(rate.bits())).div_ceil(PICOSECONDS * 8)
    }

    fn draw_fate(&mut self) -> Fate {
        if self.cut || self.shape.loss > 0.0 && self.seeded.happens(self.shape.loss) {
            Fate::Lost
        } else if self.shape.reorder > 0.0 && self.seeded.happens(self.shape.reorder) {
            Fate::Overtakes
        } else {
            Fate::Pass
        }
    }

    /// Handles neighbouring segments that share a fate.
    fn handle_run(&mut self, now: Duration, packet: &Packet<'_>, run: Range<usize>, fate: Fate) {
        if fate == Fate::Lost {
            self.counters.losses += as_count(run.len());
            return;
        }
        let (fitting, wire) = self.fitting(now, packet, run.clone());
        self.counters.queue_drops += as_count(run.end - fitting);
        if fitting > run.start {
            let bytes = packet.cut(run.start..fitting);
            self.send(now, bytes, wire, fate);
        }
    }

    /// Up to where the segments of `run` fit into the queue, and the bytes that they are on the wire.
    fn fitting(&self, now: Duration, packet: &Packet<'_>, run: Range<usize>) -> (usize, u64) {
        if self.held > HELD_MAX {
            return (run.start, 0);
        }
        let limit = if self.shape.rate.is_some() { self.shape.queue.map(u128::from) } else { None };
        let backlog = self.backlog(now);
        let mut wire = 0;
        for segment in run.clone() {
            let more = wire + packet.wire_bytes(segment);
            if limit.is_some_and(|limit| backlog + u128::from(more) > limit) {
                return (segment, wire);
            }
            wire = more;
        }
        (run.end, wire)
    }

    fn send(&mut self, now: Duration, bytes: Box<[u8]>, wire: u64, fate: Fate) {
        let mut left_ps = picoseconds(now);
        if let Some(rate) = self.shape.rate {
            left_ps = left_ps.max(self.line_free_ps) + u128::from(wire) * 8 * PICOSECONDS / u128::from(rate.bits());
            self.line_free_ps = left_ps;
        }
        let jitter = if self.shape.jitter.is_zero() { Duration::ZERO } else { self.seeded.up_to(self.shape.jitter) };
        let mut due = from_picoseconds(left_ps) + self.shape.delay + jitter;
        if fate == Fate::Overtakes {
            due = due.saturating_sub(self.shape.overtake).max(from_picoseconds(left_ps));
        } else {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        self.held += bytes.len();
        self.sent += 1;
        self.counters.bytes += wire;
        let delivery = Delivery { entered: now, due, bytes };
        self.under_way.push(Reverse(UnderWay { sent: self.sent, delivery }));
    }
}

impl UnderWay {
    const fn key(&self) -> (Duration, u64) {
        (self.delivery.due, self.sent)
    }
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for UnderWay {}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

const fn picoseconds(time: Duration) -> u128 {
    time.as_nanos() * 1000
}

/// Rounded down to nanoseconds.
fn from_picoseconds(time: u128) -> Duration {
    Duration::from_nanos(u64::try_from(time / 1000).expect("an emulator runs for less than 500 years"))
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).expect("a count fits 64 bits")
}

#[cfg(test)]
mod tests;
