//! Receiving on a friend: by the ring, by TCP, or asleep until there's something.

mod doorbells;

use doorbells::BELLS;
pub(crate) use doorbells::{await_bells, swallow, swallow_before_data};
use libc::{MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use midmile_friends::{Broken, Plain, Reader, Step, View, Writer};

use crate::end::{End, Way};
use crate::figures::{self, Figure};
use crate::leap;
use crate::link::{KILLED, Link, NONBLOCKING, WATCHED, unsure};
use crate::lock::{self, Busy};
use crate::sleep::{self, Woken};
use crate::sys::user::Buffers;
use crate::sys::{AGAIN, Answer, Errno, INTERRUPTED, STALE, ask, call, futex};
use crate::table;

/// Looks whether the writer is done with a piece, and how many of those before others are let run, if the writer is on another CPU.
const WRITER_LOOKS: u32 = 2000;
const ALONE: u32 = 200;

/// Flags that this module understands; others are the kernel's to honour.
const KNOWN: i32 = MSG_DONTWAIT
    | MSG_PEEK
    | MSG_TRUNC
    | MSG_WAITALL
    | libc::MSG_NOSIGNAL
    | libc::MSG_CMSG_CLOEXEC
    | libc::MSG_OOB
    | libc::MSG_ERRQUEUE;

/// What a turn under the lock came to.
enum Turn {
    /// The call is answered: with what was received before, if anything was.
    Done,
    /// There's nothing, until a byte comes one way or the other.
    Nothing,
    /// What the program is told if it got no bytes.
    Failed(Errno),
}

/// One receive.
struct Receive<'a, 'b> {
    fd: i32,
    link: &'a Link,
    reader: Reader<'a>,
    buffers: &'a mut Buffers<'b>,
    flags: i32,
    received: usize,
    /// Where the ring is empty the call sleeps by the futex, and needs not to ask the kernel before.
    dozes: bool,
}

/// Receives into the program's buffers, as recv(2) does.
pub fn receive(fd: i32, end: &End, buffers: &mut Buffers<'_>, flags: i32) -> Answer {
    let link = &end.link;
    link.heed(fd);
    if flags & !KNOWN != 0 {
        link.receive_plain(fd, Plain::Unknown);
    }
    if flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
        // Beside the stream: urgent data and errors are with TCP in any case.
        return call::receive_sleeping(fd, buffers, flags);
    }
    let reader = link.reader().map_err(|broken| link.reset(fd, broken))?;
    let blocking = flags & MSG_DONTWAIT == 0 && !link.is(NONBLOCKING);
    if link.is_attached() && blocking {
        link.settle_bells(fd);
    }
    let mut one = Receive { fd, link, reader, buffers, flags, received: 0, dozes: false };
    one.run(blocking)
}

impl Receive<'_, '_> {
    fn run(&mut self, blocking: bool) -> Answer {
        let (mut sleep, mut over) = (sleep::Sleep::begin(self.link), false);
        loop {
            if blocking && !self.link.is_attached() && self.reader.enter_tcp().is_ok_and(|entered| entered) {
                return self.before_the_ring();
            }
            self.dozes = blocking && sleep.may_doze() && !self.link.is(KILLED);
            let turn = match lock::of_reader(&self.reader) {
                // Closed by another thread: its number may be another's.
                Ok(_held) if !table::still(self.fd, self.link) => return self.gone(),
                Ok(_held) => self.turn(),
                Err(Busy::Own) => return sleep::reentered(blocking),
                Err(Busy::Broken(broken)) => Err(broken),
            };
            match turn.map_err(|broken| self.link.reset(self.fd, broken))? {
                Turn::Done => {
                    self.link.gathering.received(self.received);
                    return Ok(self.received);
                }
                Turn::Failed(error) => return self.failed(error),
                Turn::Nothing if self.received > 0 && !self.wants_all(blocking) => return Ok(self.received),
                Turn::Nothing if !blocking => return self.failed(AGAIN),
                Turn::Nothing => {}
            }
            if self.flags & MSG_PEEK != 0 && self.buffers.left() < self.wanted() {
                // All that is there was seen, and more is waited for: nothing wakes such a look (MSG_PEEK with MSG_WAITALL).
                if sleep.is_over() || over {
                    return Ok(self.received);
                }
                // What came before the end is looked at once more.
                let ends = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
                match call::wait_for(self.fd, libc::POLLRDHUP, 1) {
                    Ok(events) => over = events & ends != 0,
                    Err(_) => return Ok(self.received),
                }
                self.start_over();
                continue;
            }
            match leap::asleep(self.link, || sleep.until_something(self.fd, self.link, &self.reader)) {
                Ok(Woken::Look) => {}
                // A receive of no bytes waits all the same, and then has what it asked for.
                Ok(Woken::Late) if self.wanted() == 0 => return Ok(0),
                Ok(Woken::Late) => return self.failed(AGAIN),
                Err(error) => match self.end_of_sleep(error) {
                    Some(answer) => return answer,
                    None => self.link.keep_error(error.0),
                },
            }
        }
    }

    /// The peer hasn't attached: the ring isn't used before it does, so this receive may sleep as it would without us.
    fn before_the_ring(&mut self) -> Answer {
        let answer = leap::asleep(self.link, || call::receive_sleeping(self.fd, self.buffers, self.flags));
        let counted = if self.flags & MSG_PEEK == 0 { *answer.as_ref().unwrap_or(&0) } else { 0 };
        self.reader.leave_tcp(counted as u64);
        figures::add(Figure::TcpIn, counted as u64);
        answer
    }

    fn wants_all(&self, blocking: bool) -> bool {
        blocking && self.flags & MSG_WAITALL != 0 && self.buffers.left() > 0
    }

    fn wanted(&self) -> usize {
        self.buffers.left() + self.received
    }

    fn start_over(&mut self) {
        self.buffers.rewind();
        self.received = 0;
    }

    /// The error, unless bytes were received: then it's told by the next call.
    fn failed(&self, error: Errno) -> Answer {
        if self.received == 0 {
            // A reset is told once; then it's the end, and sends fail.
            self.link.mark(KILLED, error == Errno(libc::ECONNRESET) || self.link.is(KILLED));
            return Err(self.link.seen(self.fd, error));
        }
        if error != AGAIN && error != INTERRUPTED && error != STALE {
            self.link.keep_error(error.0);
        }
        Ok(self.received)
    }

    /// The descriptor isn't this end any more.
    fn gone(&self) -> Answer {
        if self.received > 0 { Ok(self.received) } else { Err(Errno(libc::EBADF)) }
    }

    /// What a sleep that failed comes to; `None` if there may be bytes that came before.
    fn end_of_sleep(&self, error: Errno) -> Option<Answer> {
        let passing = error == INTERRUPTED || error == AGAIN;
        let more = !passing && self.reader.available().is_ok_and(|bytes| bytes > 0);
        (!more).then(|| self.failed(error))
    }

    /// Moves what there is. The reader's lock is held.
    fn turn(&mut self) -> Result<Turn, Broken> {
        if self.flags & MSG_PEEK != 0 {
            return self.peek();
        }
        loop {
            match self.reader.step()? {
                Step::Ring(_) => {
                    self.take_ring()?;
                    // Fewer bytes than asked for tell a program that there are no more: so TCP's, behind the ring's last, belong to it too.
                    let alone = self.reader.is_alone();
                    let more = self.flags & MSG_WAITALL != 0 || !alone && self.reader.view()?.tcp;
                    if self.buffers.left() == 0 || !more {
                        if !alone || self.is_watched() {
                            self.emptied()?;
                        }
                        return Ok(Turn::Done);
                    }
                }
                Step::Bells(count) => {
                    if await_bells(self.fd, self.link, &self.reader, count)? == 0
                        && let Some(turn) = self.kernel_says()?
                    {
                        return Ok(turn);
                    }
                }
                Step::Tcp => {
                    if let Some(turn) = self.take_tcp() {
                        return Ok(turn);
                    }
                }
                Step::Empty if self.dozes && !self.link.has_error() => return Ok(Turn::Nothing),
                Step::Empty => {
                    if let Some(turn) = self.kernel_says()? {
                        return Ok(turn);
                    }
                }
            }
        }
    }

    fn take_ring(&mut self) -> Result<(), Broken> {
        let before = self.received;
        while self.buffers.left() > 0 {
            let take = if self.flags & MSG_TRUNC != 0 {
                self.reader.skip(self.buffers.left())?
            } else {
                let Some(into) = self.buffers.incoming() else { break };
                self.reader.take(into)?
            };
            if take.wake_writer {
                futex::wake(self.reader.writer_futex(), i32::MAX);
            } else if take.count == 0 {
                break;
            }
            self.buffers.advance(take.count);
            self.received += take.count;
        }
        figures::add(Figure::RingIn, (self.received - before) as u64);
        Ok(())
    }

    /// Whether readiness is looked at, be it in another process that has the end too.
    fn is_watched(&self) -> bool {
        self.link.is(WATCHED | NONBLOCKING) || self.reader.is_watched()
    }

    /// Where the ring was emptied, no doorbell of what was read stays in the socket, which would seem readable; and the next byte rings,
    /// if readiness is looked at.
    fn emptied(&self) -> Result<(), Broken> {
        let mut view = self.reader.view()?;
        if view.ring == 0 && self.is_watched() {
            view = self.after_writer(view)?;
        }
        if view.ring == 0
            && view.bells > 0
            && let Step::Bells(count) = self.reader.step()?
        {
            await_bells(self.fd, self.link, &self.reader, count)?;
        }
        if view.ring == 0 {
            self.link.bell.swallow(&self.reader)?;
            self.link.bell.tend(self.link, &self.reader);
        }
        Ok(())
    }

    /// The writer publishes bytes before it announces their doorbell, and rings anew for them though another still stands, if that was let go of.
    /// One that has the lock may be between the two: waits until it's done, so that all doorbells of what was read are seen.
    fn after_writer(&self, view: View) -> Result<View, Broken> {
        let Ok((segment, side)) = self.link.segment() else { return Ok(view) };
        let (writer, mut view) = (segment.outgoing(side.other()), view);
        // On one CPU its doorbell has woken this end before it was done.
        let beside = writer.lock().is_held() && self.link.is_beside_peer();
        for look in 0..WRITER_LOOKS {
            if view.ring > 0 || !writer.lock().is_held() {
                break;
            }
            let_run(look, beside);
            view = self.reader.view()?;
        }
        // What it did before it gave the lock back.
        if view.ring == 0 { self.reader.view() } else { Ok(view) }
    }

    /// Receives TCP's bytes; `None` to go on. The step has said [`Step::Tcp`].
    fn take_tcp(&mut self) -> Option<Turn> {
        if self.received > 0 && ask::at_mark(self.fd) {
            // No receive goes over the mark of urgent data (tcp(7)).
            self.reader.leave_tcp(0);
            return Some(Turn::Done);
        }
        // Nothing else would take them any more.
        self.link.bell.swallow(&self.reader).ok();
        let answer = call::receive_now(self.fd, self.buffers, self.flags & MSG_TRUNC);
        self.reader.leave_tcp(*answer.as_ref().unwrap_or(&0) as u64);
        self.link.settle(self.fd, Way::In);
        match answer {
            Ok(0) => Some(self.ended()),
            Ok(count) => {
                figures::add(Figure::TcpIn, count as u64);
                self.received += count;
                (self.buffers.left() == 0 || self.flags & MSG_WAITALL == 0).then_some(Turn::Done)
            }
            Err(AGAIN) if self.received > 0 && self.flags & MSG_WAITALL == 0 => Some(Turn::Done),
            Err(AGAIN) => self.quiet(),
            Err(error) => Some(Turn::Failed(error)),
        }
    }

    /// Nothing is there. Before that is said, readiness that is looked at has to work.
    fn quiet(&self) -> Option<Turn> {
        if let Some(error) = self.link.kept_error() {
            return Some(Turn::Failed(Errno(error)));
        }
        let watched = if self.link.bell.is_piped() {
            self.link.bell.swallow(&self.reader).unwrap_or(true)
        } else {
            !self.link.is(WATCHED | NONBLOCKING) || self.reader.watch().unwrap_or(true)
        };
        watched.then_some(Turn::Nothing)
    }

    /// What the kernel knows where the ring is empty; `None` to look again.
    fn kernel_says(&mut self) -> Result<Option<Turn>, Broken> {
        if self.received > 0 && self.flags & MSG_WAITALL == 0 {
            return Ok(Some(Turn::Done));
        }
        let mut byte = [0];
        let said = call::draw(self.fd, &mut byte, true);
        if said != Err(AGAIN) && !self.link.is_of(self.fd) {
            return Ok(Some(Turn::Failed(STALE)));
        }
        match said {
            Ok(0) if self.reader.available()? > 0 => Ok(None),
            Ok(0) => Ok(Some(self.ended())),
            Ok(_) => self.reader.unannounced().map(|()| None),
            Err(AGAIN) => Ok(self.quiet()),
            Err(error) if self.reader.available()? > 0 => {
                self.link.keep_error(error.0);
                Ok(None)
            }
            Err(error) => Ok(Some(Turn::Failed(error))),
        }
    }

    /// The connection's end, after the last byte.
    fn ended(&self) -> Turn {
        if let Some(error) = self.link.kept_error() {
            return Turn::Failed(Errno(error));
        }
        // A peer that neither closed nor shut down by the library, with our bytes unread, was killed: TCP resets then (RFC 9293, 3.6).
        let unread = self.link.writer().is_ok_and(|writer| writer.unread().is_ok_and(|bytes| bytes > 0));
        if unread && !self.reader.finished() && !self.link.is(KILLED) {
            return Turn::Failed(Errno(libc::ECONNRESET));
        }
        Turn::Done
    }

    /// Looks without taking, over the ring's end into TCP's bytes.
    fn peek(&mut self) -> Result<Turn, Broken> {
        unsure::taken_from_socket(self.fd, &self.reader)?;
        let view = self.reader.view()?;
        if view.ring == 0 {
            return self.peek_at_tcp();
        }
        while let Some(into) = self.buffers.incoming() {
            let count = if self.flags & MSG_TRUNC != 0 {
                view.ring.saturating_sub(self.received).min(into.len())
            } else {
                self.reader.peek(self.received, into)?
            };
            if count == 0 {
                break;
            }
            self.buffers.advance(count);
            self.received += count;
        }
        if self.buffers.left() > 0 && view.tcp && ask::unread(self.fd).is_some_and(|bytes| bytes > view.bells) {
            self.reader.begin_swallow();
            let mut left = usize::try_from(view.bells).unwrap_or(usize::MAX);
            let mut bells = [0; BELLS];
            loop {
                let part = left.min(BELLS);
                let count = call::draw(self.fd, &mut bells[..part], false).unwrap_or(0);
                self.reader.swallowed(&bells[..count])?;
                left -= count;
                if left == 0 || count == 0 {
                    break;
                }
                self.reader.begin_swallow();
            }
            if left == 0
                && let Ok(count) = call::receive_now(self.fd, self.buffers, self.flags & (MSG_PEEK | MSG_TRUNC))
            {
                self.received += count;
            }
        }
        Ok(if self.buffers.left() == 0 || self.flags & MSG_WAITALL == 0 { Turn::Done } else { Turn::Nothing })
    }

    /// Looks where the ring is empty.
    fn peek_at_tcp(&mut self) -> Result<Turn, Broken> {
        loop {
            let turn = match self.reader.step()? {
                Step::Ring(_) => return self.peek(),
                Step::Bells(count) if swallow(self.fd, self.link, &self.reader, count)? > 0 => None,
                Step::Bells(_) | Step::Empty => self.kernel_says()?,
                Step::Tcp => {
                    let answer = call::receive_now(self.fd, self.buffers, self.flags & (MSG_PEEK | MSG_TRUNC));
                    self.reader.leave_tcp(0);
                    match answer {
                        Ok(0) => Some(self.ended()),
                        Ok(count) => {
                            self.received += count;
                            let enough = self.buffers.left() == 0 || self.flags & MSG_WAITALL == 0;
                            Some(if enough { Turn::Done } else { Turn::Nothing })
                        }
                        Err(AGAIN) => self.quiet(),
                        Err(error) => Some(Turn::Failed(error)),
                    }
                }
            };
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
    }
}

/// Between two looks at a writer that is to be done soon; `beside`: on this CPU.
fn let_run(look: u32, beside: bool) {
    if look < ALONE && !beside { std::hint::spin_loop() } else { call::give_way() }
}

/// Waits until a writer is done that has its lock now.
pub(crate) fn await_writer(writer: &Writer<'_>) {
    for look in 0..WRITER_LOOKS {
        if !writer.lock().is_held() {
            return;
        }
        let_run(look, false);
    }
}

/// Takes bytes that were copied out of the ring.
pub(crate) fn skip(reader: &Reader<'_>, count: usize) {
    let mut left = count;
    while left > 0
        && let Ok(take) = reader.skip(left)
        && (take.count > 0 || take.wake_writer)
    {
        left -= take.count;
        if take.wake_writer {
            futex::wake(reader.writer_futex(), i32::MAX);
        }
    }
}
