//! What lies where in a segment: version 3.
//!
//! ```text
//!    0  header      magic, version, capacity, nonce, state       written once by the offering end; the state by both
//!  128  side 0, 1   what an end tells of itself                  128 bytes each
//!  384  flow 0      from the offering end to the attached one    1024 bytes: lines below
//! 1408  flow 1      from the attached end to the offering one
//! 4096  the ring of flow 0, then the ring of flow 1              `capacity` bytes each
//! ```
//!
//! Each word has one side that writes it, but for the locks, `gate`, the futex words and the counts of those who are inside. Words that
//! one side writes often and the other reads stand on lines of their own: 128 bytes, because processors fetch lines in pairs. All words
//! are little or big endian as the machine is: both ends are on it. Memory full of zeros is a segment's, but for the header.

use crate::lock::LockWords;
use crate::sync::{AtomicU32, AtomicU64};

/// `midmile` and a byte that isn't text.
#[cfg(not(loom))]
pub(crate) const MAGIC: u64 = u64::from_be_bytes(*b"\xf1midmile");
/// Version of the layout and of the protocol.
#[cfg(not(loom))]
pub(crate) const VERSION: u32 = 4;
/// Where the rings begin.
pub(crate) const DATA_AT: usize = 4096;
/// Room for the counters of reasons; there are fewer.
pub(crate) const REASONS_MAX: usize = 16;

/// What is written once.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Header {
    /// Written last: what it covers stands when it's seen.
    pub(crate) magic: AtomicU64,
    pub(crate) nonce: [AtomicU64; 2],
    /// Bytes of each ring.
    pub(crate) capacity: AtomicU64,
    pub(crate) version: AtomicU32,
    /// [`crate::State`].
    pub(crate) state: AtomicU32,
}

/// What an end tells of itself, beyond the two flows.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct SideWords {
    /// Processes that hold the end.
    pub(crate) holders: AtomicU32,
    /// Where the socket may be found: a process, and above it a descriptor. 0: nowhere.
    pub(crate) place: AtomicU64,
    /// Where its pipe for doorbells may be found, in the same way.
    pub(crate) bell: AtomicU64,
    /// Which pipe it is, by its inode: descriptors' numbers come again.
    pub(crate) bell_file: AtomicU64,
    /// 1 once the other end has opened it, 2 if it couldn't.
    pub(crate) bell_answer: AtomicU32,
    /// The CPU on which it last waited for the other end, and one; 0: it hasn't.
    pub(crate) cpu: AtomicU32,
}

/// One direction.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Flow {
    pub(crate) put: PutLine,
    pub(crate) taken: TakenLine,
    pub(crate) switch: SwitchLine,
    pub(crate) signals: SignalLine,
    pub(crate) room: RoomLine,
    pub(crate) writer: WriterLines,
    pub(crate) reader: ReaderLine,
}

/// Written by the writer for each piece, read by the reader when it has no more.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct PutLine {
    /// Bytes ever put into the ring.
    pub(crate) head: AtomicU64,
}

/// Written by the reader for each piece, read by the writer when it sees no room.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct TakenLine {
    /// Bytes ever taken from the ring.
    pub(crate) tail: AtomicU64,
}

/// Read by both at each call, written seldom.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct SwitchLine {
    /// Epoch, whether it's the last one, and how many readers are inside a receive of TCP's bytes: [`crate::gate`].
    pub(crate) gate: AtomicU64,
    /// Bytes sent by TCP before here that weren't read yet are doorbells, or else all before was read: written by the writer.
    pub(crate) bells_to: AtomicU64,
    /// Doorbells announced for the reader's pipe, ever: written by the writer.
    pub(crate) piped: AtomicU64,
    /// The code of the reason for which someone demands TCP, or 0.
    pub(crate) demand: AtomicU32,
    /// 1 once the reader has said that it receives by the protocol.
    pub(crate) engaged: AtomicU32,
    /// 1 once the writer has said how much it has sent.
    pub(crate) begun: AtomicU32,
    /// Bits: the writer has ended in order, the reader has gone.
    pub(crate) ends: AtomicU32,
    /// 1 while the writer looks at `attention` without a fence: written by it, and by a reader that can't have a barrier any more.
    pub(crate) calm: AtomicU32,
}

/// Written by the reader seldom, read by the writer after each piece.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct SignalLine {
    /// How the reader is to be woken: [`crate::attention`]. A futex.
    pub(crate) attention: AtomicU32,
    /// Bytes received by TCP: data and doorbells.
    pub(crate) tcp_read: AtomicU64,
    /// Doorbells before this place won't be left in the socket while the ring holds something.
    pub(crate) let_go: AtomicU64,
    /// Doorbells taken from the pipe.
    pub(crate) pipe_read: AtomicU64,
    /// As `let_go`, of those in the pipe.
    pub(crate) pipe_let_go: AtomicU64,
}

/// Written by the writer when it waits, read by the reader now and then.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct RoomLine {
    /// 1: a writer sleeps until there is room. A futex.
    pub(crate) wanted: AtomicU32,
}

/// The writer's own: the reader has no use for it.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct WriterLines {
    pub(crate) lock: LockWords,
    /// Sends by TCP that have begun and aren't counted.
    pub(crate) sending: AtomicU32,
    /// Doorbells that were announced and aren't sent.
    pub(crate) owed: AtomicU32,
    /// Doorbells that were announced for the pipe and aren't written to it.
    pub(crate) pipe_owed: AtomicU32,
    /// Pieces in a row that woke nobody.
    pub(crate) calm_pieces: AtomicU32,
    /// The tail as last seen.
    pub(crate) seen_tail: AtomicU64,
    /// Bytes sent by TCP: data and doorbells.
    pub(crate) tcp_sent: AtomicU64,
    /// Doorbells announced, ever.
    pub(crate) bells: AtomicU64,
    /// Futex wakes, ever.
    pub(crate) wakes: AtomicU64,
    /// Returns to TCP, by reason.
    pub(crate) returns: [AtomicU64; REASONS_MAX],
}

/// The reader's own: the writer has no use for it.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct ReaderLine {
    pub(crate) lock: LockWords,
    /// Bits: whether doorbells are taken from the socket, or the pipe, and aren't counted; whether one was killed at that.
    pub(crate) swallowing: AtomicU32,
    /// The head as last seen.
    pub(crate) seen_head: AtomicU64,
}

/// All but the rings.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Shared {
    pub(crate) header: Header,
    pub(crate) sides: [SideWords; 2],
    pub(crate) flows: [Flow; 2],
}

#[cfg(not(loom))]
const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Flow>() == 1024 && align_of::<Shared>() == 128);
    assert!(offset_of!(Shared, sides) == 128 && offset_of!(Shared, flows) == 384);
    assert!(offset_of!(Flow, taken) == 128 && offset_of!(Flow, switch) == 256 && offset_of!(Flow, signals) == 384);
    assert!(offset_of!(Flow, room) == 512 && offset_of!(Flow, writer) == 640 && offset_of!(Flow, reader) == 896);
    assert!(offset_of!(Header, capacity) == 24 && offset_of!(Header, version) == 32);
    assert!(size_of::<Shared>() <= DATA_AT && crate::Plain::ALL.len() <= REASONS_MAX);
};
