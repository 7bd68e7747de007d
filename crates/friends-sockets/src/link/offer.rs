//! The offer of a segment: taken up, taken back, or given up after long.

use std::sync::atomic::Ordering;

use midmile_friends::{Plain, State};

use super::{Link, NONE};
use crate::figures::{self, Figure};
use crate::meeting;
use crate::sys::map::Owned;
use crate::table;

/// The program has put another in its place.
const LOST: i32 = -2;
/// Sends after which a peer that has the library has looked for an offer, however much it receives at once: so often it looks, at each doubling.
const UNANSWERED_MAX: u32 = 1 << 14;

impl Link {
    /// Whether the peer shares the segment. The first to see it lets go of the offer.
    pub(crate) fn is_attached(&self) -> bool {
        if self.offered.load(Ordering::Relaxed) == NONE {
            return true;
        }
        let attached = self.segment().is_ok_and(|(segment, _)| segment.state() == Some(State::Attached));
        if attached && self.close_offer() {
            self.share();
            figures::add(Figure::Friends, 1);
        }
        attached
    }

    /// Closes the descriptor that was kept for the peer; whether there was one.
    pub(super) fn close_offer(&self) -> bool {
        let offered = self.offered.swap(NONE, Ordering::Relaxed);
        if offered < 0 {
            return false;
        }
        table::unhide(offered);
        drop(Owned::again(offered));
        true
    }

    /// The descriptor that was kept for the peer will be another's.
    pub(crate) fn lose_offer(&self, fd: i32) {
        if self.offered.load(Ordering::Relaxed) == fd
            && let Ok((segment, _)) = self.segment()
            && (segment.advance(State::Offered, State::Withdrawn) || segment.state() == Some(State::Attached))
        {
            self.offered.compare_exchange(fd, LOST, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }

    /// A send while nobody has taken the offer up: after so many nobody will, and libc's own calls cost less.
    pub(crate) fn still_offers(&self, fd: i32) {
        let sends = self.unanswered.load(Ordering::Relaxed);
        self.unanswered.store(sends + 1, Ordering::Relaxed);
        if sends == UNANSWERED_MAX {
            self.expire(fd);
        }
    }

    /// Takes an offer back that nobody has taken up, before the socket is closed.
    pub(crate) fn withdraw(&self) {
        if self.offered.load(Ordering::Relaxed) == NONE {
            return;
        }
        let withdrawn = self.segment().is_ok_and(|(segment, _)| segment.advance(State::Offered, State::Withdrawn));
        self.close_offer();
        if withdrawn {
            meeting::remove(&self.name());
        }
    }

    /// Nobody has taken the offer up for long, and others need its place: the connection stays plain.
    pub(crate) fn expire(&self, fd: i32) {
        let offered = self.segment().is_ok_and(|(segment, _)| segment.state() == Some(State::Offered));
        if self.offered.load(Ordering::Relaxed) != NONE && offered && self.is_of(fd) {
            figures::add(Figure::Expired, 1);
            self.withdraw();
            self.stay_plain(fd, Plain::Left);
        }
    }
}
