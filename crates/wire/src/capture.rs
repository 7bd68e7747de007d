//! Captures: what two programs said to each other, written as the packets that a TCP would have sent, in a file of pcapng
//! (draft-ietf-opsawg-pcapng) that Wireshark reads.
//!
//! For bytes that skip TCP there's no packet to see. Whoever carries them tells a [`Capture`] what happened ([`Event`]), and appends
//! what it writes to a file. The packets have checksums, sequence numbers and acknowledgements that fit each other, so a reader puts
//! both streams together as it does for any connection. They are made up all the same: segments are no larger than [`SEGMENT_MAX`],
//! an acknowledgement comes with the next bytes of the other side or after [`UNACKNOWLEDGED_MAX`], and windows are never full.
//!
//! ```
//! use midmile_wire::capture::{Capture, Event, Way, What};
//!
//! let mut file = Vec::new();
//! let mut capture = Capture::begin(&mut file);
//! let interface = capture.interface("friends", &mut file).expect("it is the first");
//! let way = Way { from: "127.0.0.1:40000".parse()?, to: "127.0.0.1:6379".parse()? };
//! for what in [What::Dialled, What::Bytes(b"PING\r\n"), What::Ended] {
//!     capture.tell(&Event { at: std::time::Duration::from_secs(1), interface, way, place: None, what }, &mut file);
//! }
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! It's forgotten when both sides have ended, or one has left. What is missing is said: where [`Event::place`] shows that bytes before weren't told, the sequence numbers leave room for them and the
//! next packet has a comment. Memory is bounded by [`FLOWS_MAX`]; what comes beyond is counted ([`Counts::untold`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

mod block;
mod flow;
mod packet;
#[cfg(test)]
mod tests;

use flow::Flow;

/// Bytes of a packet's payload at most.
pub const SEGMENT_MAX: usize = 16_384;
/// Bytes that may be written before an acknowledgement of them is. With a segment's it's less than a window, which is 65,535.
pub const UNACKNOWLEDGED_MAX: u32 = 32_768;
/// Connections that are followed at once, at most.
pub const FLOWS_MAX: usize = 65_536;
/// Interfaces that a capture has at most.
pub const INTERFACES_MAX: u32 = 1024;

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// Whose doing it is that is told.
    pub from: SocketAddr,
    /// The other end.
    pub to: SocketAddr,
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When, since 1970.
    pub at: Duration,
    /// Where: a number that [`Capture::interface`] gave. The same addresses on another interface are another connection.
    pub interface: u32,
    /// Which connection, and who did it.
    pub way: Way,
    /// How many bytes the direction had had before these, modulo 2³², counted from anywhere; `None` if they follow on those told before.
    /// Bytes that were told already aren't written again.
    pub place: Option<u32>,
    /// What.
    pub what: What<'a>,
}

/// See [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// The connection is established, and `from` dialled it. Where a connection doesn't begin so, it was there before.
    Dialled,
    /// The connection is established, and `from` accepted it; nothing is written.
    Accepted,
    /// These bytes were sent.
    Bytes(&'a [u8]),
    /// As many bytes were sent, and couldn't be had.
    Missing(u32),
    /// Nothing more will be sent.
    Ended,
    /// The connection was reset. Both sides may tell it, and the first does it.
    Reset,
    /// It goes on where we don't see it, which forgets it.
    Left,
}

/// What has come of events so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets written.
    pub packets: u64,
    /// Bytes of streams that are missing in between.
    pub missing: u64,
    /// Events that weren't written, because [`FLOWS_MAX`] connections were followed or the interface is unknown.
    pub untold: u64,
}

/// A capture that is being written. What its functions write is appended to `out`, in blocks that are whole.
#[derive(Debug)]
pub struct Capture {
    flows: HashMap<(u32, SocketAddr, SocketAddr), Flow>,
    interfaces: u32,
    counts: Counts,
}

impl Capture {
    /// Writes the file's beginning.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        block::section(out);
        Self { flows: HashMap::new(), interfaces: 0, counts: Counts::default() }
    }

    /// Adds a place where packets are seen, and says its number; `None` if there are [`INTERFACES_MAX`]. Of a long name the first 255
    /// bytes are kept.
    pub fn interface(&mut self, name: &str, out: &mut Vec<u8>) -> Option<u32> {
        let number = self.interfaces;
        if number == INTERFACES_MAX {
            return None;
        }
        self.interfaces += 1;
        block::interface(name, out);
        Some(number)
    }

    /// Writes what happened.
    pub fn tell(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let (key, is_first) = key(event);
        if !self.flows.contains_key(&key) {
            // The other side of one that was forgotten.
            if matches!(event.what, What::Ended | What::Reset | What::Left) {
                return;
            }
            if event.interface >= self.interfaces || self.flows.len() == FLOWS_MAX {
                self.counts.untold += 1;
                return;
            }
        }
        let flow = self.flows.entry(key).or_insert_with(|| Flow::new(event.at));
        flow.tell(event, is_first, &mut self.counts, out);
        if flow.is_over() {
            self.flows.remove(&key);
        }
    }

    /// Writes how much an interface saw, and how much of it was lost before it was told here.
    pub fn finish(&self, interface: u32, at: Duration, lost: u64, out: &mut Vec<u8>) {
        if interface < self.interfaces {
            block::statistics(interface, at, lost, out);
        }
    }

    /// What has come of events so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// By what a connection is found, from either end, and whether `from` is the first of both ends.
fn key(event: &Event<'_>) -> ((u32, SocketAddr, SocketAddr), bool) {
    let Way { from, to } = event.way;
    if from <= to { ((event.interface, from, to), true) } else { ((event.interface, to, from), false) }
}
