//! The writer of a direction.

mod calm;
mod unsure;

use crate::attention::{ALWAYS, FUTEX, PIPED, WATCHED};
use crate::gate::{FINAL, Gate};
use crate::layout::Flow;
use crate::lock::Lock;
use crate::memory::Area;
use crate::reason::{Broken, Plain};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::tally::add;

/// Most bytes that are copied before the other end is told, so that both copy at once.
pub(crate) const PIECE: usize = 32 * 1024;
/// Pieces from which on the lines behind them are fetched for the next: what is shorter is as likely a request as a part of a stream.
const FETCHED_FROM: usize = 128;
/// How often a look is repeated because others changed what it is about. Ends that keep to the protocol can't do so as often in a row.
pub(crate) const LOOKS_MAX: usize = 1000;
/// The writer has shut down or closed, by the library.
pub(crate) const FINISHED: u32 = 1;
/// The reader has shut down or closed, by the library.
pub(crate) const LEFT: u32 = 2;

/// How the next bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// [`Writer::put`].
    Ring,
    /// A send by TCP, from [`Writer::begin_tcp`] to [`Writer::sent`].
    Tcp,
}

/// What the reader needs, now: the caller does it before it gives the lock back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a reader that isn't woken sleeps on"]
pub struct Wake {
    /// Wake all who sleep on [`Writer::reader_futex`].
    pub futex: bool,
    /// Send so many bytes of value 0 by TCP, without waiting, and say [`Writer::rang`].
    pub bells: u32,
    /// Write a byte to the reader's pipe, without waiting, and say [`Writer::pipe_rang`] or [`Writer::pipe_missed`].
    pub pipe: bool,
}

/// What [`Writer::put`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// Bytes that are in the ring now. Fewer than there were: the ring is full, or the reader is to be woken first; then put the rest.
    pub taken: usize,
    /// What the reader needs.
    pub wake: Wake,
}

/// Where to sleep: on this word, as a futex that processes share, while it has this value, and for a bounded time.
#[derive(Clone, Copy, Debug)]
pub struct Doze<'m> {
    /// The futex.
    pub word: &'m AtomicU32,
    /// Its value as long as nothing has happened.
    pub expected: u32,
}

/// The writing end of a direction. The caller holds [`Writer::lock`] in every method that doesn't say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'m> {
    flow: &'m Flow,
    ring: Area<'m>,
}

impl<'m> Writer<'m> {
    pub(crate) fn new(flow: &'m Flow, ring: Area<'m>) -> Self {
        Self { flow, ring }
    }

    /// Bytes that the ring holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// The lock that all who write this direction share.
    #[must_use]
    pub fn lock(&self) -> Lock<'m> {
        Lock::new(&self.flow.writer.lock)
    }

    /// The word that readers sleep on.
    #[must_use]
    pub fn reader_futex(&self) -> &'m AtomicU32 {
        &self.flow.signals.attention
    }

    /// Says how many bytes this end has sent by TCP since the connection began, once, before anything else. From then on each send is
    /// told.
    pub fn begin(&self, sent: u64) {
        self.flow.writer.tcp_sent.store(sent, Ordering::Relaxed);
        self.flow.switch.begun.store(1, Ordering::Release);
    }

    /// How the next bytes go. This is where a direction takes the ring: when the reader is engaged, has consumed all that was sent, isn't
    /// inside a receive, and nobody demands TCP. It's also where a demand is met.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn way(&self) -> Result<Way, Broken> {
        let gate = self.gate();
        if gate.last() {
            return Ok(Way::Tcp);
        }
        if let Some(why) = self.obstacle() {
            self.settle(why, true);
            return Ok(Way::Tcp);
        }
        if gate.ring() || self.take_ring(gate)? { Ok(Way::Ring) } else { Ok(Way::Tcp) }
    }

    /// Puts as many of `bytes` into the ring as have room. The reader sees them piece by piece; where it has to be woken, the call ends
    /// early, so that it copies while the rest is put.
    ///
    /// # Errors
    /// [`Broken::Positions`]; [`Broken::Gate`] where [`Writer::way`] didn't say [`Way::Ring`] under this very lock.
    #[inline(always)]
    pub fn put(&self, bytes: &[u8]) -> Result<Put, Broken> {
        self.put_by::<false>(bytes)
    }

    /// The same past this processor's caches, in which nobody will look for it again: for much, where a reader on another CPU takes it from memory
    /// faster than from them.
    ///
    /// # Errors
    /// As [`Writer::put`].
    #[inline(never)]
    pub fn put_past(&self, bytes: &[u8]) -> Result<Put, Broken> {
        self.put_by::<true>(bytes)
    }

    #[inline(always)]
    fn put_by<const PAST: bool>(&self, bytes: &[u8]) -> Result<Put, Broken> {
        if !self.gate().ring() {
            return Err(Broken::Gate);
        }
        let head_word = &self.flow.put.head;
        let (mut taken, mut head) = (0, head_word.load(Ordering::Relaxed));
        while taken < bytes.len() {
            let wanted = (bytes.len() - taken).min(PIECE);
            let length = wanted.min(self.room_for(head, wanted)?);
            if length == 0 {
                break;
            }
            if PAST {
                self.ring.write_past(head, &bytes[taken..taken + length]);
            } else {
                self.ring.write(head, &bytes[taken..taken + length]);
            }
            head = head.wrapping_add(length as u64);
            head_word.store(head, Ordering::Release);
            taken += length;
            if !PAST && length >= FETCHED_FROM {
                self.ring.fetch_for_writing(head);
            }
            if let Some(wake) = self.look_at_reader() {
                return Ok(Put { taken, wake });
            }
        }
        Ok(Put { taken, wake: Wake::default() })
    }

    /// So many of the doorbells that were asked for have been sent. Those that couldn't be (the socket's buffer is full) stay owed: they
    /// are asked for again with the next wake, and have to go before any data by TCP.
    pub fn rang(&self, count: u32) {
        self.flow.writer.owed.store(self.owed().saturating_sub(count), Ordering::Relaxed);
    }

    /// The byte has been written to the reader's pipe.
    pub fn pipe_rang(&self) {
        self.flow.writer.pipe_owed.store(0, Ordering::Relaxed);
    }

    /// The byte couldn't be written to the reader's pipe: it's full, which it stays, since fewer are taken from it at once than it holds;
    /// or it isn't to be had, and then [`Writer::keep_rung`] is to be said.
    pub fn pipe_missed(&self) {
        // The reader takes what stands there, however many it expects.
        self.flow.switch.piped.fetch_sub(u64::from(self.pipe_owed()), Ordering::Release);
        self.flow.writer.pipe_owed.store(0, Ordering::Relaxed);
    }

    /// Doorbells that are owed. Send them by TCP before data, and say [`Writer::rang`].
    #[must_use]
    pub fn owed(&self) -> u32 {
        unsure::count(&self.flow.writer.owed)
    }

    /// A send by TCP begins. The lock may be given back meanwhile; the direction stays with TCP until it's [`Writer::sent`]. A process
    /// that is killed in between leaves it there for good.
    pub fn begin_tcp(&self) {
        self.flow.writer.sending.fetch_add(1, Ordering::Relaxed);
    }

    /// The send that began has sent so many bytes, maybe none. A reader that fell asleep by the futex in the ring's stretch is woken.
    pub fn sent(&self, count: u64) -> Wake {
        add(&self.flow.writer.tcp_sent, count);
        self.flow.writer.sending.fetch_sub(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Wake { futex: self.clear_futex(), ..Wake::default() }
    }

    /// Whether the ring could be taken as soon as the reader has consumed what was sent by TCP.
    #[must_use]
    pub fn may_catch_up(&self) -> bool {
        let (gate, switch) = (self.gate(), &self.flow.switch);
        let standing = || switch.begun.load(Ordering::Acquire) != 0 && switch.engaged.load(Ordering::Acquire) != 0;
        !gate.ring() && !gate.last() && standing() && self.obstacle().is_none() && !self.is_caught_up()
    }

    /// Bytes sent by TCP since the connection began. Needs no lock.
    #[must_use]
    pub fn sent_by_tcp(&self) -> u64 {
        self.flow.writer.tcp_sent.load(Ordering::Relaxed)
    }

    /// Whether the reader has consumed what was sent by TCP.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.flow.signals.tcp_read.load(Ordering::Acquire) >= self.sent_by_tcp()
    }

    /// From here on bytes go by TCP: for good if the reason lasts, or else until the reader has consumed all. Answers how many doorbells
    /// are owed: they go first. Also for a reader's end, under the writer's lock, to have its demand met at once.
    #[must_use = "doorbells that are owed go before data"]
    pub fn back_to_tcp(&self, why: Plain) -> u32 {
        self.settle(why, why.lasting());
        self.owed()
    }

    /// Demands that this direction goes by TCP for good: it does from the next [`Writer::way`] on. Needs no lock. The first reason
    /// counts.
    pub fn demand(&self, why: Plain) {
        // A demand that was made before stays.
        let relaxed = Ordering::Relaxed;
        self.flow.switch.demand.compare_exchange(0, why.code(), Ordering::Release, relaxed).map_or_else(drop, drop);
    }

    /// The reader's readiness is looked at from now on, and the ring may hold something that no doorbell stands for: how many doorbells are
    /// to be sent. Also for a reader's end, under the writer's lock, after [`crate::Reader::watch`] said false. None where data stand
    /// behind the ring, which make the socket readable themselves.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    #[must_use = "a reader that isn't told sleeps on"]
    pub fn attract(&self) -> Result<u32, Broken> {
        if !self.has_sent_behind() && self.owed() == 0 && self.is_unrung() && self.unread()? > 0 {
            self.announce();
        }
        Ok(self.owed())
    }

    /// Whether data may have been sent by TCP behind what the ring holds, or are on their way. The lock is held.
    #[must_use]
    pub fn has_sent_behind(&self) -> bool {
        let Flow { switch, signals, writer, .. } = self.flow;
        let told = switch.bells_to.load(Ordering::Relaxed).max(signals.tcp_read.load(Ordering::Acquire));
        writer.sending.load(Ordering::Relaxed) != 0 || writer.tcp_sent.load(Ordering::Relaxed) > told
    }

    /// From now on the writer keeps a doorbell in the socket while the ring holds something, as after [`crate::Reader::watch`]: for a
    /// writer that its reader may soon not be able to ask. How many doorbells are to be sent.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    #[must_use = "a reader that isn't told sleeps on"]
    pub fn keep_rung(&self) -> Result<u32, Broken> {
        self.flow.signals.attention.fetch_or(WATCHED, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.attract()
    }

    /// The ring is full and the caller will sleep until there is room. `None`: look again, there is room, or the reader has gone. The
    /// reader wakes it at an eighth of the ring, so sleep for a bounded time and then ask [`Writer::way`] again.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn wait_for_room(&self) -> Result<Option<Doze<'m>>, Broken> {
        let word = &self.flow.room.wanted;
        word.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let gone = self.flow.switch.ends.load(Ordering::Acquire) & LEFT != 0;
        let head = self.flow.put.head.load(Ordering::Relaxed);
        let full = self.room_for(head, self.ring.capacity())? == 0;
        Ok((full && !gone).then_some(Doze { word, expected: 1 }))
    }

    /// Bytes in the ring that the reader hasn't taken. Needs no lock: without it the answer may be old.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn unread(&self) -> Result<usize, Broken> {
        between(&self.flow.put.head, || {
            let tail = self.flow.taken.tail.load(Ordering::Acquire);
            distance(self.flow.put.head.load(Ordering::Relaxed), tail, self.ring.capacity())
        })
    }

    /// The writing side was shut down or closed, by the call that the kernel knows: first that, then this. Needs no lock. Doorbells
    /// aren't needed: the end wakes all who wait in the kernel.
    pub fn finish(&self) -> Wake {
        self.flow.switch.ends.fetch_or(FINISHED, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        Wake { futex: self.clear_futex(), ..Wake::default() }
    }

    /// Whether the reader has closed or shut down by the library. Needs no lock.
    #[must_use]
    pub fn left(&self) -> bool {
        self.flow.switch.ends.load(Ordering::Acquire) & LEFT != 0
    }

    /// What the reader needs for what the ring holds, asked once more: after [`Writer::is_unsure`] was cleared up.
    pub fn wake_again(&self) -> Wake {
        // A doorbell behind data by TCP would have those taken for doorbells too.
        if self.gate().ring() {
            self.rouse(self.flow.signals.attention.load(Ordering::Relaxed))
        } else {
            Wake::default()
        }
    }

    /// Copies the direction's counters to where a board has them: `counts` are bytes by the ring, bytes by TCP, doorbells and wakes. The
    /// reasons are copied only where the way was switched since `gate` was.
    #[cfg(not(loom))]
    pub(crate) fn tell(&self, counts: [&AtomicU64; 4], gate: &AtomicU64, returns: &[AtomicU64]) {
        let flow = self.flow;
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let bells = read(&flow.writer.bells);
        let told =
            [read(&flow.put.head), read(&flow.writer.tcp_sent).wrapping_sub(bells), bells, read(&flow.writer.wakes)];
        counts.iter().zip(told).for_each(|(place, count)| place.store(count, Ordering::Relaxed));
        let switched = crate::gate::Gate(read(&flow.switch.gate)).alone().0;
        if read(gate) != switched {
            returns.iter().zip(&flow.writer.returns).for_each(|(to, from)| to.store(read(from), Ordering::Relaxed));
            gate.store(switched, Ordering::Relaxed);
        }
    }

    fn gate(&self) -> Gate {
        Gate(self.flow.switch.gate.load(Ordering::Acquire))
    }

    /// Why the direction must not go by the ring any more.
    fn obstacle(&self) -> Option<Plain> {
        let switch = &self.flow.switch;
        let demand = switch.demand.load(Ordering::Acquire);
        if demand != 0 {
            return Some(Plain::from_code(demand));
        }
        (switch.ends.load(Ordering::Acquire) & LEFT != 0).then_some(Plain::Left)
    }

    /// Switches to the ring where that's allowed.
    fn take_ring(&self, gate: Gate) -> Result<bool, Broken> {
        let Flow { put, taken, switch, signals, writer, .. } = self.flow;
        let standing = switch.begun.load(Ordering::Acquire) != 0 && switch.engaged.load(Ordering::Acquire) != 0;
        let busy = gate.inside() != 0 || writer.sending.load(Ordering::Relaxed) != 0 || self.owed() != 0;
        if !standing || busy {
            return Ok(false);
        }
        let sent = writer.tcp_sent.load(Ordering::Relaxed);
        let read = signals.tcp_read.load(Ordering::Acquire);
        if read > sent {
            self.settle(Plain::Miscounted, true);
            return Ok(false);
        }
        let tail = taken.tail.load(Ordering::Acquire);
        if read != sent || distance(put.head.load(Ordering::Relaxed), tail, self.ring.capacity())? != 0 {
            return Ok(false);
        }
        // It fails where a reader has gone inside since `gate` was loaded, or someone else demands.
        let exchanged = switch.gate.compare_exchange(gate.0, gate.switched().0, Ordering::AcqRel, Ordering::Relaxed);
        Ok(exchanged.is_ok())
    }

    /// Goes back to TCP, or stays there for good.
    fn settle(&self, why: Plain, last: bool) {
        let gate = self.gate();
        let word = &self.flow.switch.gate;
        if gate.ring() {
            // Nobody is inside in an odd epoch, so nobody else changes the word.
            word.store(gate.switched().0 | if last { FINAL } else { 0 }, Ordering::Release);
        } else if last && !gate.last() {
            word.fetch_or(FINAL, Ordering::AcqRel);
        } else {
            return;
        }
        add(&self.flow.writer.returns[why.index()], 1);
    }

    /// Room in the ring: at least `wanted` bytes, or all there is. The reader's line is read only where what is known doesn't do.
    fn room_for(&self, head: u64, wanted: usize) -> Result<usize, Broken> {
        let capacity = self.ring.capacity();
        let seen = &self.flow.writer.seen_tail;
        if let Ok(filled) = distance(head, seen.load(Ordering::Relaxed), capacity)
            && capacity - filled >= wanted
        {
            return Ok(capacity - filled);
        }
        let tail = self.flow.taken.tail.load(Ordering::Acquire);
        let filled = distance(head, tail, capacity)?;
        seen.store(tail, Ordering::Relaxed);
        Ok(capacity - filled)
    }

    /// What a reader with this attention needs, now that there are bytes in the ring.
    fn rouse(&self, attention: u32) -> Wake {
        let futex = self.clear_futex();
        let each = attention & ALWAYS != 0;
        // Threads that sleep in the kernel do so on the socket.
        if attention & !(FUTEX | ALWAYS | PIPED) != 0 && self.owed() == 0 && (each || self.is_unrung()) {
            self.announce();
        }
        if attention & PIPED != 0 && self.pipe_owed() == 0 && (each || self.is_pipe_unrung()) {
            self.announce_piped();
        }
        Wake { futex, bells: self.owed(), pipe: self.pipe_owed() > 0 }
    }

    /// Whether no doorbell stands in the socket. One that the reader hasn't let go of stays there until the ring is empty.
    fn is_unrung(&self) -> bool {
        let Flow { switch, signals, .. } = self.flow;
        let gone = signals.let_go.load(Ordering::Acquire).max(signals.tcp_read.load(Ordering::Acquire));
        gone >= switch.bells_to.load(Ordering::Relaxed)
    }

    fn pipe_owed(&self) -> u32 {
        unsure::count(&self.flow.writer.pipe_owed)
    }

    /// Whether no doorbell stands in the pipe.
    fn is_pipe_unrung(&self) -> bool {
        let Flow { switch, signals, .. } = self.flow;
        let gone = signals.pipe_let_go.load(Ordering::Acquire).max(signals.pipe_read.load(Ordering::Acquire));
        gone >= switch.piped.load(Ordering::Relaxed)
    }

    /// As [`Writer::announce`], for the pipe.
    fn announce_piped(&self) {
        self.flow.writer.pipe_owed.store(1, Ordering::Relaxed);
        self.flow.switch.piped.fetch_add(1, Ordering::Release);
    }

    /// A doorbell is owed from now on. Announced before it's sent, so that a reader that sees it in its socket may take it.
    fn announce(&self) {
        let Flow { switch, writer, .. } = self.flow;
        add(&writer.tcp_sent, 1);
        add(&writer.bells, 1);
        writer.owed.store(1, Ordering::Relaxed);
        switch.bells_to.store(writer.tcp_sent.load(Ordering::Relaxed), Ordering::Release);
    }

    /// True: someone slept by the futex.
    fn clear_futex(&self) -> bool {
        let word = &self.flow.signals.attention;
        let slept = word.load(Ordering::Relaxed) & FUTEX != 0 && word.fetch_and(!FUTEX, Ordering::AcqRel) & FUTEX != 0;
        if slept {
            // `finish` comes here without the lock.
            self.flow.writer.wakes.fetch_add(1, Ordering::Relaxed);
        }
        slept
    }
}

/// What `look` answers where `position`, which only grows, was the same before and after: so that the other position, which is loaded in
/// between, belongs to it.
///
/// # Errors
/// As `look`, or [`Broken::Positions`]: it never stood still.
pub(crate) fn between(position: &AtomicU64, look: impl Fn() -> Result<usize, Broken>) -> Result<usize, Broken> {
    for _ in 0..LOOKS_MAX {
        let before = position.load(Ordering::Acquire);
        let answer = look();
        fence(Ordering::Acquire);
        if position.load(Ordering::Relaxed) == before {
            return answer;
        }
    }
    Err(Broken::Positions)
}

/// Bytes from `tail` to `head`.
///
/// # Errors
/// [`Broken::Positions`]: more than the ring holds.
pub(crate) fn distance(head: u64, tail: u64, capacity: usize) -> Result<usize, Broken> {
    usize::try_from(head.wrapping_sub(tail)).ok().filter(|&bytes| bytes <= capacity).ok_or(Broken::Positions)
}
