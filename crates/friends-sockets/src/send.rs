//! Sending on a friend: by the ring, or by TCP.

use libc::{MSG_DONTWAIT, MSG_NOSIGNAL};
use midmile_friends::{Broken, Plain, Way, Writer};

use crate::copying::LARGE;
use crate::end::{self, End};
use crate::figures::{self, Figure};
use crate::link::{KILLED, Link, NONBLOCKING};
use crate::lock::{self, Busy};
use crate::sleep::{self, Sleep, Woken};
use crate::sys::user::Buffers;
use crate::sys::{AGAIN, Answer, Errno, STALE, call};
use crate::{leap, table, tap};

/// Flags that mean the same by the ring; others are the kernel's to honour.
const KNOWN: i32 = MSG_DONTWAIT | MSG_NOSIGNAL | libc::MSG_MORE | libc::MSG_EOR | libc::MSG_DONTROUTE;

/// Small buffers of one call go into the ring together, up to so many bytes.
const GATHER: usize = 4096;

/// What a turn under the lock came to.
enum Turn {
    /// The call is answered: with what was sent before, if anything was.
    Done,
    /// The ring is full, and the call may wait.
    Full,
    /// By TCP, sleeping: the send has begun and is to be ended.
    Sleep,
    /// What the program is told if nothing was sent.
    Failed(Errno),
}

/// One send.
struct Send<'a, 'b> {
    fd: i32,
    link: &'a Link,
    writer: Writer<'a>,
    buffers: &'a mut Buffers<'b>,
    flags: i32,
    sent: usize,
    /// It's much, of which it's noted how fast it went.
    is_large: bool,
}

/// Sends the program's buffers, as send(2) does.
pub fn send(fd: i32, end: &End, buffers: &mut Buffers<'_>, flags: i32) -> Answer {
    let link = &end.link;
    link.heed(fd);
    if flags & !KNOWN != 0 {
        link.send_plain(fd, reason(flags));
    }
    let writer = link.writer().map_err(|broken| link.reset(fd, broken))?;
    let is_large = buffers.left() >= LARGE;
    let answer = Send { fd, link, writer, buffers, flags, sent: 0, is_large }.run();
    if answer == Err(Errno(libc::EPIPE)) && flags & MSG_NOSIGNAL == 0 {
        call::raise_sigpipe();
    }
    answer
}

/// Why a send with these flags goes by TCP.
fn reason(flags: i32) -> Plain {
    if flags & libc::MSG_OOB != 0 {
        Plain::Urgent
    } else if flags & libc::MSG_ZEROCOPY != 0 {
        Plain::Zerocopy
    } else {
        Plain::Unknown
    }
}

impl Send<'_, '_> {
    fn run(&mut self) -> Answer {
        if let Some(error) = self.link.kept_error() {
            return Err(Errno(error));
        }
        self.link.gathering.stop();
        let blocking = self.flags & MSG_DONTWAIT == 0 && !self.link.is(NONBLOCKING);
        let mut sleep = Sleep::begin(self.link);
        if !self.link.is_attached() {
            self.link.still_offers(self.fd);
        } else if self.link.lookout.is_due_at_send() {
            if !self.link.is_of(self.fd) {
                return Err(STALE);
            }
            self.look_after_peer();
        }
        if self.link.is(KILLED) {
            return Err(Errno(libc::EPIPE));
        }
        if blocking && self.writer.may_catch_up() {
            self.link.catching_up.wait(&self.writer)?;
        }
        loop {
            let turn = match lock::of_writer(&self.writer) {
                // Closed by another thread: its number may be another's.
                Ok(_held) if !table::still(self.fd, self.link) => return self.failed(Errno(libc::EBADF)),
                Ok(_held) => self.turn(blocking),
                Err(Busy::Own) => return sleep::reentered(blocking),
                Err(Busy::Broken(broken)) => Err(broken),
            };
            match turn.map_err(|broken| self.link.reset(self.fd, broken))? {
                Turn::Done => return Ok(self.sent),
                Turn::Failed(error) => return self.failed(error),
                Turn::Full => {
                    if let Err(error) = self.wait_for_room(&mut sleep) {
                        return self.failed(error);
                    }
                }
                Turn::Sleep => match self.by_tcp_sleeping() {
                    Err(error) => return self.failed(error),
                    // The kernel's send ended early: a signal, a time limit, or an error that it tells by the next.
                    Ok(whole) if !whole || self.buffers.left() == 0 => return Ok(self.sent),
                    Ok(_) => {}
                },
            }
        }
    }

    /// What is told of an error: nothing, where bytes were sent before. TCP tells it again.
    fn failed(&self, error: Errno) -> Answer {
        if self.sent > 0 {
            return Ok(self.sent);
        }
        if error == Errno(libc::ECONNRESET) {
            self.link.mark(KILLED, true);
        }
        Err(self.link.seen(self.fd, error))
    }

    /// A peer that was killed reads nothing more, and only the kernel knows: it's asked now and then.
    #[cold]
    fn look_after_peer(&self) {
        let events = call::look_at(self.fd, libc::POLLRDHUP);
        let over = events & (libc::POLLERR | libc::POLLHUP) != 0;
        let killed = events & libc::POLLRDHUP != 0 && self.link.reader().is_ok_and(|reader| !reader.finished());
        if killed && self.writer.unread().is_ok_and(|bytes| bytes > 0) {
            // What was sent since would have been answered by a reset.
            self.link.mark(KILLED, true);
        }
        if over || killed {
            self.link.send_plain(self.fd, Plain::Left);
        }
    }

    /// Moves what it can. The writer's lock is held.
    fn turn(&mut self, blocking: bool) -> Result<Turn, Broken> {
        loop {
            if self.writer.way()? == Way::Tcp {
                return Ok(self.by_tcp(blocking));
            }
            if self.by_ring()? {
                return Ok(Turn::Done);
            }
            if blocking {
                return Ok(Turn::Full);
            }
            // The rest follows by TCP, whose buffer and readiness the program knows.
            let _owed = self.writer.back_to_tcp(Plain::Full);
            self.link.ring(self.fd, &self.writer);
        }
    }

    /// Puts bytes into the ring; whether all are in it.
    fn by_ring(&mut self) -> Result<bool, Broken> {
        let before = self.sent;
        if self.buffers.are_several() {
            self.together()?;
        }
        while let Some(bytes) = self.buffers.outgoing() {
            let is_past = self.is_large && self.link.copying.is_past();
            let put = if is_past { self.writer.put_past(bytes)? } else { self.writer.put(bytes)? };
            self.link.rouse(self.fd, &self.writer, put.wake);
            self.buffers.advance(put.taken);
            self.sent += put.taken;
            if put.taken == 0 || self.buffers.left() == 0 {
                break;
            }
        }
        figures::add(Figure::RingOut, (self.sent - before) as u64);
        if self.is_large {
            self.link.copying.put(self.sent - before);
        }
        self.link.tell(&self.writer);
        tap::tell(self.link, self.buffers, before, self.sent - before, true);
        Ok(self.buffers.left() == 0)
    }

    /// Puts small buffers in one piece: the peer is told once, and sees the parts of a message together.
    #[inline(never)]
    fn together(&mut self) -> Result<(), Broken> {
        let mut whole = [0; GATHER];
        if let Some(length) = self.buffers.gather(&mut whole) {
            let put = self.writer.put(&whole[..length])?;
            self.link.rouse(self.fd, &self.writer, put.wake);
            self.buffers.advance(put.taken);
            self.sent += put.taken;
        }
        Ok(())
    }

    /// Sends by TCP what goes at once; or begins a send that sleeps.
    fn by_tcp(&mut self, blocking: bool) -> Turn {
        self.writer.begin_tcp();
        if self.writer.owed() > 0 && !self.link.ring(self.fd, &self.writer) && !blocking {
            self.ended(0);
            return Turn::Failed(AGAIN);
        }
        self.link.unhurry(self.fd);
        if blocking {
            return Turn::Sleep;
        }
        let answer = call::send_now(self.fd, self.buffers, self.flags);
        self.ended(*answer.as_ref().unwrap_or(&0));
        match answer {
            Ok(_) => Turn::Done,
            Err(error) => Turn::Failed(error),
        }
    }

    /// A send by TCP has ended. The writer's lock is held.
    fn ended(&mut self, count: usize) {
        let wake = self.writer.sent(count as u64);
        self.link.rouse(self.fd, &self.writer, wake);
        figures::add(Figure::TcpOut, count as u64);
        self.link.tell(&self.writer);
        tap::tell(self.link, self.buffers, self.sent, count, false);
        self.sent += count;
        if table::still(self.fd, self.link) {
            self.link.settle(self.fd, end::Way::Out);
        }
    }

    /// Sleeps until there is room in the ring, or leaves that where there's none for too long.
    #[inline(never)]
    fn wait_for_room(&self, sleep: &mut Sleep) -> Result<(), Errno> {
        let (link, writer) = (self.link, &self.writer);
        match leap::asleep(link, || sleep.until_room(link, writer, writer.capacity()))? {
            // Its number may be another's.
            Woken::Late if !table::still(self.fd, link) => return Err(Errno(libc::EBADF)),
            Woken::Look => {}
            Woken::Late => link.leave_ring(self.fd, writer, Plain::Full),
        }
        Ok(())
    }

    /// Sends by TCP without the lock, and sleeps as the socket says; whether the kernel took all it was given. The send has begun.
    #[inline(never)]
    fn by_tcp_sleeping(&mut self) -> Result<bool, Errno> {
        let flags = self.flags | MSG_NOSIGNAL;
        let answer = self
            .link
            .clear_debt(self.fd, &self.writer, true)
            .and_then(|()| leap::asleep(self.link, || call::send_sleeping(self.fd, self.buffers, flags)));
        let count = answer.as_ref().map_or(0, |(count, _)| *count);
        // Without the lock it isn't counted, and the direction stays with TCP for good: as it should, where a handler interrupted.
        if let Ok(_held) = lock::of_writer(&self.writer) {
            self.ended(count);
        } else {
            self.sent += count;
        }
        answer.map(|(_, whole)| whole)
    }
}
