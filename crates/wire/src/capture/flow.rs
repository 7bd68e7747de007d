//! A connection in a capture: sequence numbers and acknowledgements that fit each other.

use std::time::Duration;

use super::packet::{ACK, FIN, PSH, Packet, RST, SYN};
use super::{Counts, Event, SEGMENT_MAX, UNACKNOWLEDGED_MAX, Way, What, block};

const LEFT: &str = "midmile: goes on by TCP alone, where it isn't seen here";

/// Most bytes that are told twice: those of a message that TCP took a part of, which the kernel makes no longer than 544 KiB (`TAP_PIECES_MAX`, friends_tap.h).
const AGAIN_MAX: u32 = 1 << 20;

/// One side's stream.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The sequence number of its next byte.
    next: u32,
    /// What to add to a place for its sequence number; `None` before a place was told.
    shift: Option<u32>,
    /// Bytes written since the other side's last acknowledgement.
    unacknowledged: u32,
    /// Bytes right before `next` that are missing, of which no packet has said so.
    missing: u32,
    has_ended: bool,
}

/// Both sides.
#[derive(Debug)]
pub(super) struct Flow {
    streams: [Stream; 2],
    was_reset: bool,
    has_left: bool,
}

/// Where packets go to that an event brings about.
struct To<'a> {
    at: Duration,
    interface: u32,
    /// From the side whose event it is.
    way: Way,
    /// That side.
    own: usize,
    counts: &'a mut Counts,
    out: &'a mut Vec<u8>,
}

impl Flow {
    /// One that the event is the first of. Its numbers begin where a clock is, as in RFC 9293, section 3.4.1: a reader tells a new connection
    /// from an old one of the same ports by them.
    pub(super) fn new(at: Duration) -> Self {
        let clock = u32::try_from(at.as_nanos() % (1 << 32)).expect("it was cut to 32 bits");
        let stream = |next| Stream { next, shift: None, unacknowledged: 0, missing: 0, has_ended: false };
        Self { streams: [stream(clock), stream(!clock)], was_reset: false, has_left: false }
    }

    /// Whether nothing more will come of it.
    pub(super) fn is_over(&self) -> bool {
        self.has_left || self.streams.iter().all(|stream| stream.has_ended)
    }

    /// Writes an event of the first end's, or of the second's.
    pub(super) fn tell(&mut self, event: &Event<'_>, is_first: bool, counts: &mut Counts, out: &mut Vec<u8>) {
        let own = usize::from(!is_first);
        let Event { at, interface, way, place, what } = *event;
        let mut to = To { at, interface, way, own, counts, out };
        if what == What::Dialled {
            *self = Self::new(at);
            self.packet(own, SYN, &[], None, &mut to);
            self.packet(1 - own, SYN | ACK, &[], None, &mut to);
            self.packet(own, ACK, &[], None, &mut to);
        }
        let known = self.streams[own].find(place, to.counts);
        match what {
            What::Dialled | What::Accepted => {}
            What::Bytes(bytes) => {
                let fresh = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
                fresh.chunks(SEGMENT_MAX).for_each(|bytes| self.send(own, bytes, &mut to));
            }
            What::Missing(count) => self.streams[own].skip(count.saturating_sub(known), to.counts),
            What::Ended => self.end(own, known, &mut to),
            What::Reset => {
                if !self.was_reset {
                    self.packet(own, RST | ACK, &[], None, &mut to);
                }
                self.was_reset = true;
                self.streams[own].has_ended = true;
            }
            What::Left => {
                self.packet(own, ACK, &[], Some(LEFT), &mut to);
                self.has_left = true;
            }
        }
    }

    fn send(&mut self, own: usize, bytes: &[u8], to: &mut To<'_>) {
        self.packet(own, PSH | ACK, bytes, None, to);
        if self.streams[own].unacknowledged >= UNACKNOWLEDGED_MAX {
            self.packet(1 - own, ACK, &[], None, to);
        }
    }

    /// The end of a side, of whose last bytes so many were told and not sent: it learnt of that, and gave up.
    fn end(&mut self, own: usize, unsent: u32, to: &mut To<'_>) {
        if std::mem::replace(&mut self.streams[own].has_ended, true) {
            return;
        }
        let comment = (unsent > 0).then(|| format!("midmile: the last {unsent} bytes were offered, and not sent"));
        self.packet(own, FIN | ACK, &[], comment.as_deref(), to);
        self.packet(1 - own, ACK, &[], None, to);
    }

    fn packet(&mut self, sender: usize, flags: u8, payload: &[u8], comment: Option<&str>, to: &mut To<'_>) {
        let has_ack = flags & ACK != 0;
        let ack = if has_ack { self.streams[1 - sender].next } else { 0 };
        let stream = &mut self.streams[sender];
        let gap = match std::mem::take(&mut stream.missing) {
            0 => None,
            missing => Some(format!("midmile: {missing} bytes before this weren't captured")),
        };
        let Way { from, to: peer } = to.way;
        let way = if sender == to.own { to.way } else { Way { from: peer, to: from } };
        // An acknowledgement that says nothing new would look like one that asks for what was lost.
        let narrower = u16::from(comment == Some(LEFT));
        let packet = Packet { way, seq: stream.next, ack, flags, narrower, payload };
        block::packet(to.interface, to.at, &packet, gap.as_deref().or(comment), to.out);
        to.counts.packets += 1;
        let bytes = u32::try_from(payload.len()).expect("a segment is short");
        stream.next = stream.next.wrapping_add(bytes).wrapping_add(u32::from(flags & (SYN | FIN) != 0));
        stream.unacknowledged += bytes;
        if has_ack {
            self.streams[1 - sender].unacknowledged = 0;
        }
    }
}

impl Stream {
    /// Goes to the place where an event stands, if that is told; says how many bytes after it are there already.
    fn find(&mut self, place: Option<u32>, counts: &mut Counts) -> u32 {
        let Some(place) = place else { return 0 };
        let shift = *self.shift.get_or_insert(self.next.wrapping_sub(place));
        let ahead = place.wrapping_add(shift).wrapping_sub(self.next);
        // Offered again is no more than one message; all else was lost, however much.
        if ahead.wrapping_neg() <= AGAIN_MAX && ahead > 0 {
            return ahead.wrapping_neg();
        }
        self.skip(ahead, counts);
        0
    }

    fn skip(&mut self, count: u32, counts: &mut Counts) {
        self.next = self.next.wrapping_add(count);
        self.missing = self.missing.saturating_add(count);
        counts.missing += u64::from(count);
    }
}
