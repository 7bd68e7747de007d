//! The reader of a direction.

mod pipe;
pub(crate) mod unsure;

use crate::attention::{ALWAYS, FUTEX, SLEEPER, WATCHED};
use crate::gate::{Gate, INSIDE};
use crate::layout::Flow;
use crate::lock::Lock;
use crate::memory::Area;
use crate::reason::{Broken, Plain};
use crate::sync::{AtomicU32, Ordering, fence};
use crate::writer::{Doze, FINISHED, LEFT, LOOKS_MAX, PIECE, between, distance};
use unsure::SOCKET;

/// A writer that sleeps is looked for each time that a whole such part of the ring has been taken.
const PARTS: u64 = 8;

/// Where the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// At least so many in the ring: [`Reader::take`] or [`Reader::peek`].
    Ring(usize),
    /// None in the ring, and so many doorbells are in the socket or on their way to it. Receive at most so many without waiting, and
    /// say [`Reader::swallowed`], even of none; then step again. Where none had come: treat it as [`Step::Empty`].
    Bells(usize),
    /// By TCP: the reader is inside. Receive without waiting, then [`Reader::leave_tcp`].
    Tcp,
    /// Nothing, and no byte of data can come by TCP but after a switch. Whether the connection has ended, the kernel knows: look with
    /// `MSG_PEEK`, and where it says the end, step once more, since the last bytes may have come in between.
    Empty,
}

/// What there is, without consuming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Bytes in the ring.
    pub ring: usize,
    /// Doorbells in the socket, or on their way to it, before any data there. Those that [`Reader::begin_swallow`] allows may be taken
    /// before the ring is empty.
    pub bells: u64,
    /// Doorbells in the pipe, or on their way to it.
    pub piped: u64,
    /// The ring's stretch is over: behind the ring's bytes and the doorbells the socket's bytes are data.
    pub tcp: bool,
}

/// What [`Reader::take`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a writer that isn't woken sleeps on"]
pub struct Take {
    /// Bytes that were taken. Fewer than asked for: the ring is empty, or the writer is to be woken first; then take the rest.
    pub count: usize,
    /// Wake all who sleep on [`Reader::writer_futex`].
    pub wake_writer: bool,
}

/// The reading end of a direction. The caller holds [`Reader::lock`] in every method that doesn't say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'m> {
    flow: &'m Flow,
    ring: Area<'m>,
    barrier: fn() -> bool,
}

impl<'m> Reader<'m> {
    pub(crate) fn new(flow: &'m Flow, ring: Area<'m>, barrier: fn() -> bool) -> Self {
        Self { flow, ring, barrier }
    }

    /// The lock that all who read this direction share.
    #[must_use]
    pub fn lock(&self) -> Lock<'m> {
        Lock::new(&self.flow.reader.lock)
    }

    /// The word that writers sleep on.
    #[must_use]
    pub fn writer_futex(&self) -> &'m AtomicU32 {
        &self.flow.room.wanted
    }

    /// From now on this end receives by the protocol; it has received so many bytes by TCP since the connection began. Once, and only when
    /// no thread of any process is inside a receive that began before.
    pub fn engage(&self, received: u64) {
        self.flow.signals.tcp_read.store(received, Ordering::Relaxed);
        self.flow.switch.engaged.store(1, Ordering::Release);
    }

    /// Where the next bytes are, in order: ring, doorbells, TCP.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn step(&self) -> Result<Step, Broken> {
        let tail = self.tail();
        if let Ok(ready) = distance(self.flow.reader.seen_head.load(Ordering::Relaxed), tail, self.ring.capacity())
            && ready > 0
        {
            return Ok(Step::Ring(ready));
        }
        for _ in 0..LOOKS_MAX {
            let (gate, view) = self.look()?;
            if view.ring > 0 {
                return Ok(Step::Ring(view.ring));
            }
            if view.bells > 0 {
                if self.let_go(view.bells)? {
                    self.begins(SOCKET);
                    return Ok(Step::Bells(usize::try_from(view.bells).unwrap_or(usize::MAX)));
                }
            } else if gate.ring() {
                return Ok(Step::Empty);
            } else if self.enter(gate)? {
                return Ok(Step::Tcp);
            }
        }
        Err(Broken::Gate)
    }

    /// Takes bytes from the ring, in order: as many as are there, or all that `into` has room for.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn take(&self, into: &mut [u8]) -> Result<Take, Broken> {
        self.consume(into.len(), |ring, tail, from, length| ring.read(tail, &mut into[from..from + length]))
    }

    /// Takes bytes from the ring and throws them away.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn skip(&self, count: usize) -> Result<Take, Broken> {
        self.consume(count, |_, _, _, _| {})
    }

    /// Copies bytes of the ring without taking them, from the `skip`th on. Answers how many.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn peek(&self, skip: usize, into: &mut [u8]) -> Result<usize, Broken> {
        let count = self.available()?.saturating_sub(skip).min(into.len());
        self.ring.read(self.tail().wrapping_add(skip as u64), &mut into[..count]);
        Ok(count)
    }

    /// Bytes in the ring. Needs no lock: without it the answer may be old.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn available(&self) -> Result<usize, Broken> {
        between(&self.flow.taken.tail, || {
            distance(self.flow.put.head.load(Ordering::Acquire), self.tail(), self.ring.capacity())
        })
    }

    /// What there is, for `FIONREAD`, `poll` and peeks over the end of a stretch.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn view(&self) -> Result<View, Broken> {
        self.look().map(|(_, view)| view)
    }

    /// Whether the ring's bytes are all: no doorbell stands, and no byte of TCP's comes behind them before the next look. Unlike
    /// [`Reader::view`] it doesn't touch what the writer writes for each piece.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let Flow { switch, signals, .. } = self.flow;
        let gate = Gate(switch.gate.load(Ordering::Acquire));
        gate.ring()
            && switch.bells_to.load(Ordering::Acquire) <= signals.tcp_read.load(Ordering::Acquire)
            && self.piped() == 0
    }

    /// Goes inside a receive of TCP's bytes. Needs no lock, and the receive may wait, as long as the reader wants no ring meanwhile.
    /// False: the ring has the turn, or a doorbell; nothing was entered.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn enter_tcp(&self) -> Result<bool, Broken> {
        let Flow { put, taken, switch, signals, .. } = self.flow;
        for _ in 0..LOOKS_MAX {
            let gate = Gate(switch.gate.load(Ordering::Acquire));
            let rung = switch.bells_to.load(Ordering::Acquire) > signals.tcp_read.load(Ordering::Acquire);
            // While the gate stays as it is, nothing is put; only another reader may take.
            let empty = put.head.load(Ordering::Acquire) == taken.tail.load(Ordering::Acquire);
            if gate.ring() || rung || !empty {
                return Ok(false);
            }
            if self.enter(gate)? {
                return Ok(true);
            }
        }
        Err(Broken::Gate)
    }

    /// Comes out of a receive, with so many bytes of data, maybe none. Needs no lock. Bytes that were only peeked at aren't counted.
    pub fn leave_tcp(&self, received: u64) {
        self.flow.signals.tcp_read.fetch_add(received, Ordering::Release);
        self.flow.switch.gate.fetch_sub(INSIDE, Ordering::Release);
    }

    /// The answer to [`Step::Bells`], or to [`View::bells`] after [`Reader::begin_swallow`]: these bytes were received.
    ///
    /// # Errors
    /// [`Broken::Bell`]: one isn't a doorbell.
    pub fn swallowed(&self, bells: &[u8]) -> Result<(), Broken> {
        self.flow.signals.tcp_read.fetch_add(bells.len() as u64, Ordering::Release);
        self.ends(SOCKET);
        if bells.iter().all(|&bell| bell == 0) { Ok(()) } else { Err(Broken::Bell) }
    }

    /// Doorbells will be taken from the socket though the ring isn't empty: allowed where [`View::tcp`] is true, at most
    /// [`View::bells`], and of a watched reader only where data stand behind them, or else the socket seems to hold nothing. Then
    /// [`Reader::swallowed`].
    pub fn begin_swallow(&self) {
        self.begins(SOCKET);
    }

    /// The kernel shows a byte in the socket, though a step said [`Step::Empty`]. `Ok`: it's explained now, step again.
    ///
    /// # Errors
    /// [`Broken::Stray`]: nobody announced it. Or [`Broken::Positions`].
    pub fn unannounced(&self) -> Result<(), Broken> {
        let view = self.view()?;
        if view.ring > 0 || view.bells > 0 || view.tcp { Ok(()) } else { Err(Broken::Stray) }
    }

    /// The caller will sleep by the futex. `None`: look again. Only in a stretch of the ring, and for a bounded time: then
    /// [`Reader::sleep_by_bell`], since a peer that was killed wakes nobody here.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn doze(&self) -> Result<Option<Doze<'m>>, Broken> {
        let word = &self.flow.signals.attention;
        word.fetch_or(FUTEX, Ordering::AcqRel);
        self.has_wished();
        let (gate, view) = self.look()?;
        // Either end has ended: what that comes to, the kernel knows.
        let ended = self.flow.switch.ends.load(Ordering::Acquire) != 0;
        let expected = word.load(Ordering::Relaxed);
        let quiet = view.ring == 0 && gate.ring() && !ended && expected & FUTEX != 0;
        Ok(quiet.then_some(Doze { word, expected }))
    }

    /// The caller will sleep in the kernel until a byte comes by TCP, by a look with `MSG_PEEK` or by `poll`; afterwards it says
    /// [`Reader::woke`]. False: look again, and there's nothing to say. Doorbells that could be swallowed have to be before, or else the
    /// sleep ends at once.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn sleep_by_bell(&self) -> Result<bool, Broken> {
        self.flow.signals.attention.fetch_add(SLEEPER, Ordering::AcqRel);
        self.has_wished();
        let quiet = self.view().map(|view| view.ring == 0);
        if quiet != Ok(true) {
            self.woke();
        }
        quiet
    }

    /// The caller that slept by doorbell is awake. Needs no lock.
    pub fn woke(&self) {
        self.flow.signals.attention.fetch_sub(SLEEPER, Ordering::AcqRel);
    }

    /// Readiness of the socket is looked at, from now on: the writer keeps a doorbell in the socket while the ring holds something. To be
    /// said before a receive answers that there is nothing; what it does then is one load. False: look again, there's something.
    /// A take that empties the ring is followed by a step, and by swallowing what that says: or else the socket seems readable.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn watch(&self) -> Result<bool, Broken> {
        let word = &self.flow.signals.attention;
        if word.load(Ordering::Relaxed) & WATCHED != 0 {
            return Ok(true);
        }
        word.fetch_or(WATCHED, Ordering::AcqRel);
        self.has_wished();
        self.view().map(|view| view.ring == 0)
    }

    /// Edges are waited for, from now on: the writer sends a doorbell for each piece. False: there's something already.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn watch_edges(&self) -> Result<bool, Broken> {
        self.flow.signals.attention.fetch_or(WATCHED | ALWAYS, Ordering::AcqRel);
        self.has_wished();
        self.view().map(|view| view.ring == 0)
    }

    /// Whether readiness is looked at, by whatever process that has this end.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.flow.signals.attention.load(Ordering::Relaxed) & WATCHED != 0
    }

    /// Nobody looks at readiness any more.
    pub fn unwatch(&self) {
        self.flow.signals.attention.fetch_and(!(WATCHED | ALWAYS), Ordering::AcqRel);
    }

    /// Demands that this direction goes by TCP for good: it does from the writer's next [`crate::Writer::way`] on, or at once where the
    /// caller takes the writer's lock and says [`crate::Writer::back_to_tcp`]. Needs no lock. The first reason counts. What is in the ring
    /// stays first. True: wake all who sleep on [`Reader::writer_futex`].
    #[must_use = "a writer that isn't woken sleeps on"]
    pub fn demand(&self, why: Plain) -> bool {
        crate::Writer::new(self.flow, self.ring).demand(why);
        fence(Ordering::SeqCst);
        self.writer_waits()
    }

    /// Whether the direction is plain TCP for good, and all that came before is consumed: the library may let go of it.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn is_plain(&self) -> Result<bool, Broken> {
        let (gate, view) = self.look()?;
        Ok(gate.last() && view.tcp && view.ring == 0 && view.bells == 0 && view.piped == 0)
    }

    /// The reading side was shut down or closed, by the call that the kernel knows: first that, then this. Needs no lock. True: wake all who
    /// sleep on [`Reader::writer_futex`].
    #[must_use = "a writer that isn't woken sleeps on"]
    pub fn leave(&self) -> bool {
        self.flow.switch.ends.fetch_or(LEFT, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.writer_waits()
    }

    /// Whether the writer has shut down or closed by the library. Needs no lock.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.flow.switch.ends.load(Ordering::Acquire) & FINISHED != 0
    }

    /// To be woken was just wished for in `attention`. From here on either a look sees what the writer did, or the writer sees the wish: `writer/calm.rs`.
    fn has_wished(&self) {
        fence(Ordering::SeqCst);
        if self.flow.switch.calm.load(Ordering::Relaxed) != 0 && !(self.barrier)() {
            // The writer has its fence from now on.
            self.flow.writer.lock.recalls_no_more();
            self.flow.switch.calm.store(0, Ordering::Relaxed);
        }
    }

    fn tail(&self) -> u64 {
        self.flow.taken.tail.load(Ordering::Relaxed)
    }

    /// What there is. The gate is loaded first: if it's even and still so when the reader goes inside, all bytes of the ring before it
    /// were seen. The head is loaded last: doorbells that were seen belong to bytes that were.
    fn look(&self) -> Result<(Gate, View), Broken> {
        let Flow { put, switch, signals, reader, .. } = self.flow;
        let gate = Gate(switch.gate.load(Ordering::Acquire));
        let bells_to = switch.bells_to.load(Ordering::Acquire);
        let piped = self.piped();
        let head = put.head.load(Ordering::Acquire);
        let ring = distance(head, self.tail(), self.ring.capacity())?;
        reader.seen_head.store(head, Ordering::Relaxed);
        let bells = bells_to.saturating_sub(signals.tcp_read.load(Ordering::Acquire));
        Ok((gate, View { ring, bells, piped, tcp: !gate.ring() }))
    }

    /// Lets go of the doorbells that were seen; from then on the writer rings again. True: the ring is still empty, they may be taken.
    /// False: they stay in the socket for the bytes that have come.
    fn let_go(&self, bells: u64) -> Result<bool, Broken> {
        let Flow { put, signals, .. } = self.flow;
        let until = signals.tcp_read.load(Ordering::Relaxed).wrapping_add(bells);
        signals.let_go.store(until, Ordering::Release);
        // Either the writer sees that none is left, or its bytes are seen here.
        fence(Ordering::SeqCst);
        Ok(distance(put.head.load(Ordering::Acquire), self.tail(), self.ring.capacity())? == 0)
    }

    /// Counts the reader as inside, unless the gate has changed.
    fn enter(&self, gate: Gate) -> Result<bool, Broken> {
        let entered = gate.entered().ok_or(Broken::Gate)?;
        let word = &self.flow.switch.gate;
        Ok(word.compare_exchange(gate.0, entered.0, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }

    /// Takes up to `wanted` bytes, piece by piece, each of which `copy` copies: from the ring's place on, to the place among those taken.
    fn consume(&self, wanted: usize, mut copy: impl FnMut(&Area<'m>, u64, usize, usize)) -> Result<Take, Broken> {
        let mut done = Take::default();
        while done.count < wanted && !done.wake_writer {
            let tail = self.tail();
            let length = self.ready_for(tail, (wanted - done.count).min(PIECE))?;
            if length == 0 {
                break;
            }
            copy(&self.ring, tail, done.count, length);
            let taken = tail.wrapping_add(length as u64);
            self.flow.taken.tail.store(taken, Ordering::Release);
            done.count += length;
            let part = (self.ring.capacity() as u64 / PARTS).max(1);
            if taken / part != tail / part {
                // A writer sleeps only where the ring was full for it, so a part's end always comes before the ring is empty.
                fence(Ordering::SeqCst);
                done.wake_writer = self.writer_waits();
            }
        }
        Ok(done)
    }

    /// Bytes that are ready, at most `wanted`. The writer's line is read only where what is known doesn't do.
    fn ready_for(&self, tail: u64, wanted: usize) -> Result<usize, Broken> {
        let capacity = self.ring.capacity();
        let seen = &self.flow.reader.seen_head;
        if let Ok(ready) = distance(seen.load(Ordering::Relaxed), tail, capacity)
            && ready >= wanted
        {
            return Ok(wanted);
        }
        let head = self.flow.put.head.load(Ordering::Acquire);
        let ready = distance(head, tail, capacity)?;
        seen.store(head, Ordering::Relaxed);
        Ok(ready.min(wanted))
    }

    fn writer_waits(&self) -> bool {
        let wanted = &self.flow.room.wanted;
        wanted.load(Ordering::Relaxed) != 0 && wanted.swap(0, Ordering::AcqRel) != 0
    }
}
