//! The sans-IO core of *ring friends*: two processes on one host that hold the ends of a TCP connection, and carry its bytes through
//! memory that they share. The connection itself stays: its handshake, its addresses, its end.
//!
//! ```text
//!            ┌────────────────────── Segment: memory that both have mapped ──────────────────────┐
//!   Writer ──┤  words: gate, head, tail, attention, …     ring of `capacity` bytes               ├── Reader
//!      │     └───────────────────────────────────────────────────────────────────────────────────┘      │
//!      └── TCP: data in its stretches, doorbells in the ring's ──────────────────────────────────────────┘
//!                         the other direction is the same, the other way round
//! ```
//!
//! What this is: the words, the copies, and the decisions. No system call, no clock, no thread, no allocation.
//!
//! What this is not: whoever sends, receives, sleeps and wakes. That's the caller, who holds a socket's end, and by whom each answer
//! ([`Way`], [`Wake`], [`Step`], [`Doze`]) is carried out.
//!
//! # The protocol
//! A direction is a row of *stretches*, by TCP and by the ring in turn. It begins with TCP. The writer alone switches.
//!
//! - **To the ring** where the reader has consumed all: the ring is empty, and what was received by TCP is what was sent. And where no reader is
//!   *inside* a receive, no send is under way, and nobody demands TCP. The stretch's epoch and the number of readers inside are one word, the
//!   *gate*: a reader goes inside by changing it from the very value that it looked at, and so does the writer that switches. Whichever is
//!   second fails and looks again. So a receive of TCP's bytes never meets a doorbell.
//! - **Back to TCP** at any time. The ring is used no more until all is consumed again, so its head says where the stretch ended, and
//!   at most one stretch of the ring and one of TCP behind it are outstanding.
//! - **A reader's order** follows: bytes of the ring, then doorbells, then TCP, whatever the epoch.
//! - **Doorbells** are bytes of value 0 on the TCP connection in a stretch of the ring. The writer *announces* one before it sends it:
//!   `bells_to` counts the TCP bytes up to and with the last doorbell, and stands still in a stretch of TCP. What the reader hasn't
//!   received of those are doorbells, and the reader never receives more than that as such. One that was announced is owed, and goes before any data.
//! - **Readiness.** While a watched ring holds a byte, a doorbell stands in the socket. The reader that sees the ring empty *lets go* of the doorbells
//!   that it has seen, and looks again; only if it's still empty it swallows them. The writer, after each piece, rings if all were let go
//!   of. Each does its store, a fence, and then its look, so one of the two sees the other.
//! - **Sleep.** The reader sets its *attention* and looks again; the writer publishes its bytes and looks at the attention. A writer that
//!   waits for room does the same the other way, but the reader looks only at each eighth of the ring: a full ring has such a place ahead.
//! - **A demand** for TCP holds from the writer's next call on. A reader that can't wait takes the writer's lock and switches itself.
//! - **Ends** are the connection's: the kernel tells them, and wakes who waits there. The end is true only where the ring is empty on a look after it.
//! - **Killed holders.** The locks have their owners. One killed inside a send or a receive by TCP leaves a count raised, so that its direction
//!   stays with TCP, where nothing has to be known. One killed in the middle of a copy has published nothing. One killed between a doorbell, sent
//!   or taken, and its count leaves a mark, and the next who has to do with doorbells asks the kernel whether it was.
//!
//! # Trust
//! The peer may write anything anywhere at any time. No position leads outside a ring ([`Broken::Positions`]); no loop waits for a peer; all
//! else that it can spoil is the connection that it could have spoilt by its own bytes.
//!
//! # The caller's part
//! - Who writes holds the writer's lock, who reads the reader's, never while it sleeps. Methods that need none say so.
//! - A send: [`Writer::way`]; [`Way::Ring`]: [`Writer::put`], carry out the [`Wake`], go on with the rest; nothing taken: wait for room or
//!   [`Writer::back_to_tcp`]. [`Way::Tcp`]: [`Writer::begin_tcp`], what is owed, the send, [`Writer::sent`].
//! - A receive: [`Reader::step`] until it has bytes or knows that there are none, and does what each [`Step`] says.
//! - Before it answers that there's nothing, or sleeps: [`Reader::watch`], [`Reader::doze`], [`Reader::sleep_by_bell`].
//! - Doorbells are sent with `TCP_NODELAY` in force, or else the second waits for the acknowledgement of the first.
//!
//! # Modules
//! `segment`: the view and the offer. `writer`, `reader`: the contract above. `lock`: locks that processes share, and lend to a thread. `reason`: why TCP, what's
//! broken. `tally`: counters. `board`, `figure`, `name`: what a process tells of its friends. `told`: records for a tap. `layout`: what lies where. `gate`, `attention`:
//! two words. `memory`: the unsafe code. `sync`: atomics, or loom's.

#![deny(unsafe_code)]

mod attention;
#[cfg(not(loom))]
mod board;
mod figure;
mod gate;
mod layout;
mod lock;
mod memory;
#[cfg(all(any(test, fuzzing), not(loom)))]
mod model;
mod name;
mod reader;
mod reason;
mod segment;
mod sync;
mod tally;
mod told;
mod writer;

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
pub use board::{
    BOARD_BYTES, Board, ENTRIES, ENTRY_BYTES, Entry, EntryTold, HEAD_BYTES, Head, HeadTold, TAP_AT, WISH_AT, Wish,
};
pub use figure::Figure;
pub use lock::{Held, Lock, Owner, Place, Taken};
#[cfg(any(test, fuzzing, loom))]
pub use memory::Heap;
/// A modelled world whose decisions are the fuzzer's.
#[cfg(all(fuzzing, not(loom)))]
pub use model::fuzz as fuzz_friends;
pub use name::Name;
pub use reader::{Reader, Step, Take, View};
pub use reason::{BadSegment, Broken, Plain};
pub use segment::{CAPACITY_DEFAULT, CAPACITY_MAX, CAPACITY_MIN, Pipe, Segment, Side, State, segment_bytes};
pub use tally::Tally;
pub use told::{BadRecord, RECORD_BYTES_MAX, RECORD_MAX, Record, Told};
pub use writer::{Doze, Put, Wake, Way, Writer};
