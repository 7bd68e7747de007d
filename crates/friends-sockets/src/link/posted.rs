//! What the board says of a friend, and what the operator wishes of it.

use std::sync::atomic::Ordering;

use midmile_friends::{Entry, Name, Plain, State, Wish, Writer};

use super::{Link, NONBLOCKING, NONE, SHARED};
use crate::board;
use crate::sys::{ask, futex};

/// A mark: the peer was asked for TCP, because the operator has switched friends off.
const ASKED_OFF: u32 = 512;

impl Link {
    /// Says which connection it is, and which entry on the board tells of it.
    pub(crate) fn is_called(&self, entry: u32, name: Name) {
        self.name.iter().zip(name.to_words()).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
        self.entry.store(entry + 1, Ordering::Relaxed);
        self.post();
    }

    /// What the connection is called.
    pub(crate) fn name(&self) -> Name {
        Name::from_words(self.name.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// The entry on the board that tells of it.
    pub(crate) fn entry(&self) -> Option<&'static Entry> {
        board::entry(self.entry.load(Ordering::Relaxed).checked_sub(1)?)
    }

    /// Puts it on the board.
    pub(crate) fn post(&self) {
        if let Some(number) = self.entry.load(Ordering::Relaxed).checked_sub(1)
            && let Some(entry) = board::begin(number, self.name())
            && self.offered.load(Ordering::Relaxed) == NONE
            && self.segment().is_ok_and(|(segment, _)| segment.state() == Some(State::Attached))
        {
            entry.attached();
        }
    }

    /// Takes it off the board.
    pub(super) fn unpost(&self) {
        self.entry().inspect(|entry| entry.end());
        self.entry.store(0, Ordering::Relaxed);
    }

    /// Says on the board that the peer shares the segment.
    pub(crate) fn share(&self) {
        self.entry().inspect(|entry| entry.attached());
    }

    /// The operator has switched friends off: what this end sends goes by TCP from here on, and the peer is asked to send so too.
    #[cold]
    pub(crate) fn switch_off(&self, fd: i32) {
        if !board::is_off() || self.is(ASKED_OFF) {
            return;
        }
        self.mark(ASKED_OFF, true);
        self.send_plain(fd, Plain::Off);
        if let Ok(reader) = self.reader()
            && reader.demand(Plain::Off)
        {
            futex::wake(reader.writer_futex(), i32::MAX);
        }
    }

    /// Looks at what the operator wishes, and at what other processes may have said of the socket: two loads.
    #[inline]
    pub(crate) fn heed(&self, fd: i32) {
        if board::wish() != Wish::On {
            self.switch_off(fd);
        }
        if self.is(SHARED) {
            self.ask_again(fd);
        }
    }

    /// Other processes have the socket too, or had it: whether its calls wait, and how long, is the open file's and the socket's.
    #[cold]
    fn ask_again(&self, fd: i32) {
        // Before it's asked: who has it now may say something else meanwhile.
        self.mark(SHARED, !self.is_held_once());
        self.mark(NONBLOCKING, ask::flags(fd) & libc::O_NONBLOCK != 0);
        self.limit_is(ask::limit(fd, libc::SO_RCVTIMEO));
    }

    /// Tells of what this end sends. The writer's lock is held.
    #[inline]
    pub(crate) fn tell(&self, writer: &Writer<'_>) {
        if let Some(entry) = self.entry() {
            entry.tell(writer);
        }
    }
}
