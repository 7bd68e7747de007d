//! The segment: both flows, and who holds the ends.

#[cfg(not(loom))]
use core::sync::atomic::AtomicU8;

use crate::layout::{DATA_AT, Flow, Shared};
#[cfg(not(loom))]
use crate::layout::{MAGIC, VERSION};
use crate::memory::Area;
use crate::reason::BadSegment;
use crate::sync::Ordering;
use crate::tally::Tally;
use crate::{Reader, Writer};

/// Smallest capacity of a ring, in bytes.
pub const CAPACITY_MIN: usize = 64;
/// Capacity of a ring where nobody says otherwise, in bytes.
pub const CAPACITY_DEFAULT: usize = 256 * 1024;
/// Largest capacity of a ring, in bytes.
pub const CAPACITY_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a segment with two rings of `capacity` bytes: how long the shared memory has to be.
///
/// # Errors
/// [`BadSegment::Capacity`]: not a power of two from [`CAPACITY_MIN`] to [`CAPACITY_MAX`].
pub fn segment_bytes(capacity: usize) -> Result<usize, BadSegment> {
    if !capacity.is_power_of_two() || !(CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity) {
        return Err(BadSegment::Capacity);
    }
    Ok(DATA_AT + 2 * capacity)
}

/// What the other end says of a pipe that was offered.
const TAKEN: u32 = 1;
const REFUSED: u32 = 2;

/// A process and its descriptor in one word.
fn joined(process: u32, descriptor: u32) -> u64 {
    u64::from(descriptor) << 32 | u64::from(process)
}

/// The two again; `None` for 0, which nobody has said.
fn halves(place: u64) -> Option<(u32, u32)> {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    (place != 0).then_some((half(place), half(place >> 32)))
}

/// Which end of the connection this is: the one that made the segment, or the one that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Made the segment.
    Offering,
    /// Found it.
    Attached,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Offering => Self::Attached,
            Self::Attached => Self::Offering,
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// What became of the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Nobody has attached.
    Offered = 1,
    /// The other end has.
    Attached = 2,
    /// The offer was taken back before anyone attached.
    Withdrawn = 3,
}

/// Where a pipe may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipe {
    /// The process that has it.
    pub process: i32,
    /// Its descriptor there.
    pub descriptor: i32,
    /// Its inode.
    pub file: u64,
}

/// A view of a segment. Cheap to copy; all of a process's threads may use it at once, under the locks that [`Writer`] and [`Reader`]
/// name.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'m> {
    shared: &'m Shared,
    rings: [Area<'m>; 2],
    barrier: fn() -> bool,
}

impl<'m> Segment<'m> {
    #[cfg(loom)]
    pub(crate) fn of(shared: &'m Shared, rings: [Area<'m>; 2]) -> Self {
        Self { shared, rings, barrier: nothing }
    }

    /// Makes a segment in `memory`, shared, sealed against shrinking and all 0: the offering end's first act.
    ///
    /// # Errors
    /// [`BadSegment::Alignment`], [`BadSegment::Capacity`], [`BadSegment::Length`].
    #[cfg(not(loom))]
    pub fn create(memory: &'m [AtomicU8], capacity: usize, nonce: [u64; 2]) -> Result<Self, BadSegment> {
        let (shared, rings) = crate::memory::view(memory, capacity)?;
        let header = &shared.header;
        for (word, half) in header.nonce.iter().zip(nonce) {
            word.store(half, Ordering::Relaxed);
        }
        header.capacity.store(capacity as u64, Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.state.store(State::Offered as u32, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(Self { shared, rings, barrier: nothing })
    }

    /// Opens a segment that the peer has made. The capacity is what the length says, and the header has to agree; it's never read again.
    ///
    /// # Errors
    /// Any [`BadSegment`].
    #[cfg(not(loom))]
    pub fn open(memory: &'m [AtomicU8], nonce: [u64; 2]) -> Result<Self, BadSegment> {
        let segment = Self::again(memory)?;
        let (header, capacity) = (&segment.shared.header, segment.capacity());
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(BadSegment::Magic);
        }
        if header.version.load(Ordering::Relaxed) != VERSION {
            return Err(BadSegment::Version);
        }
        if header.capacity.load(Ordering::Relaxed) != capacity as u64 {
            return Err(BadSegment::Length);
        }
        let told = [header.nonce[0].load(Ordering::Relaxed), header.nonce[1].load(Ordering::Relaxed)];
        if told != nonce {
            return Err(BadSegment::Nonce);
        }
        Ok(segment)
    }

    /// The segment that was opened in this memory before. Nothing that its header says is used any more, so it isn't asked again.
    ///
    /// # Errors
    /// [`BadSegment::Alignment`], [`BadSegment::Capacity`], [`BadSegment::Length`].
    #[cfg(not(loom))]
    #[inline]
    pub fn again(memory: &'m [AtomicU8]) -> Result<Self, BadSegment> {
        let capacity = memory.len().checked_sub(DATA_AT).ok_or(BadSegment::Length)? / 2;
        if !capacity.is_power_of_two() {
            return Err(BadSegment::Capacity);
        }
        crate::memory::parts(memory, capacity).map(|(shared, rings)| Self { shared, rings, barrier: nothing })
    }

    /// The same, whose readers have this barrier: it has each CPU that runs a thread which may write carry out its stores and loads so far,
    /// those of other processes too; false: by waiting long enough, the kernel refuses. Who says [`Segment::may_recall`] of a side needs it there.
    #[must_use]
    pub const fn with_barrier(self, barrier: fn() -> bool) -> Self {
        Self { barrier, ..self }
    }

    /// Bytes of each ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rings[0].capacity()
    }

    /// Moves the offer on: from `from` to `to`. False: it isn't in `from`, or someone was faster.
    #[must_use]
    pub fn advance(&self, from: State, to: State) -> bool {
        let state = &self.shared.header.state;
        state.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// What became of the offer; `None` for what no end writes.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        let state = self.shared.header.state.load(Ordering::Acquire);
        [State::Offered, State::Attached, State::Withdrawn].into_iter().find(|&known| known as u32 == state)
    }

    /// One more process holds this end: at attach, and for a child. Answers how many did before.
    pub fn hold(&self, side: Side) -> u32 {
        self.shared.sides[side.index()].holders.fetch_add(1, Ordering::AcqRel)
    }

    /// A process has closed this end. True: it was the last that the count knows.
    #[must_use]
    pub fn release(&self, side: Side) -> bool {
        self.shared.sides[side.index()].holders.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Processes that hold this end. One that was killed is still counted.
    #[must_use]
    pub fn holders(&self, side: Side) -> u32 {
        self.shared.sides[side.index()].holders.load(Ordering::Acquire)
    }

    /// Says that who holds this end can recall what is lent ([`crate::Lock`]), and be asleep to a writer that is calm
    /// ([`Segment::with_barrier`]): once, before it takes any of the locks.
    pub fn may_recall(&self, side: Side) {
        for flow in &self.shared.flows {
            flow.writer.lock.may_recall(side.index());
            flow.reader.lock.may_recall(side.index());
        }
    }

    /// Says where this end's socket may be found: a process and its descriptor. The last to say so counts.
    pub fn placed(&self, side: Side, process: u32, descriptor: u32) {
        self.shared.sides[side.index()].place.store(joined(process, descriptor), Ordering::Release);
    }

    /// Where an end's socket may be found, as a process and its descriptor. It may have gone from there, and a hostile peer says anything:
    /// who looks there sees whether it's the socket.
    #[must_use]
    pub fn place(&self, side: Side) -> Option<(u32, u32)> {
        halves(self.shared.sides[side.index()].place.load(Ordering::Acquire))
    }

    /// Offers a pipe to the other end, for the doorbells of what comes in to `side`. False: its numbers are no process's and descriptor's.
    #[must_use]
    pub fn offer_bell(&self, side: Side, pipe: Pipe) -> bool {
        let words = &self.shared.sides[side.index()];
        let (Ok(process), Ok(descriptor)) = (u32::try_from(pipe.process), u32::try_from(pipe.descriptor)) else {
            return false;
        };
        words.bell_file.store(pipe.file, Ordering::Relaxed);
        words.bell.store(joined(process, descriptor), Ordering::Release);
        true
    }

    /// The pipe that `side` has offered. A hostile peer says anything, and that of a fair one may be closed: who opens it sees whether it's a
    /// pipe, and this one.
    #[must_use]
    pub fn bell(&self, side: Side) -> Option<Pipe> {
        let words = &self.shared.sides[side.index()];
        let (process, descriptor) = halves(words.bell.load(Ordering::Acquire))?;
        let file = words.bell_file.load(Ordering::Relaxed);
        Some(Pipe { process: i32::try_from(process).ok()?, descriptor: i32::try_from(descriptor).ok()?, file })
    }

    /// Whether the other end of `side` has said if it can open the pipe.
    #[must_use]
    pub fn is_bell_answered(&self, side: Side) -> bool {
        self.shared.sides[side.index()].bell_answer.load(Ordering::Relaxed) != 0
    }

    /// The other end of `side` has opened its pipe, or can't.
    pub fn answer_bell(&self, side: Side, taken: bool) {
        self.shared.sides[side.index()].bell_answer.store(if taken { TAKEN } else { REFUSED }, Ordering::Release);
    }

    /// Whether the other end has opened the pipe that `side` offered: [`Reader::watch_piped`] may be said.
    #[must_use]
    pub fn is_bell_taken(&self, side: Side) -> bool {
        self.shared.sides[side.index()].bell_answer.load(Ordering::Acquire) == TAKEN
    }

    /// Says on which CPU this end waits; whether the other end last waited on the same. Then to look for what that does is vain: it runs only when
    /// this one doesn't. A hostile peer says anything, and has this end choose worse.
    #[must_use]
    pub fn waits_on(&self, side: Side, cpu: u32) -> bool {
        let (own, other) = (&self.shared.sides[side.index()].cpu, &self.shared.sides[side.other().index()].cpu);
        let told = cpu.wrapping_add(1);
        if own.load(Ordering::Relaxed) != told {
            own.store(told, Ordering::Relaxed);
        }
        other.load(Ordering::Relaxed) == told
    }

    /// The writer of what goes out from `side`. A reader that demands TCP uses its peer's, under its lock.
    #[must_use]
    pub fn outgoing(&self, side: Side) -> Writer<'m> {
        Writer::new(self.flow(side), self.rings[side.index()])
    }

    /// The reader of what comes in to `side`.
    #[must_use]
    pub fn incoming(&self, side: Side) -> Reader<'m> {
        let from = side.other();
        Reader::new(self.flow(from), self.rings[from.index()], self.barrier)
    }

    /// What was counted of what goes out from `side`.
    #[must_use]
    pub fn tally(&self, side: Side) -> Tally {
        Tally::of(self.flow(side))
    }

    fn flow(&self, from: Side) -> &'m Flow {
        &self.shared.flows[from.index()]
    }
}

/// The barrier of who says nothing of one.
fn nothing() -> bool {
    true
}
