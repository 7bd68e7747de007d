//! How a direction goes back to TCP.

use midmile_friends::{Plain, Writer};

use super::Link;
use crate::end::Way;
use crate::leap;
use crate::lock::{self, Busy};
use crate::recall::recall;
use crate::sys::{AGAIN, Errno, ask, call, futex};

/// How often a doorbell is waited for that the peer has announced.
const OWED_LOOKS: u32 = 1000;

impl Link {
    /// Leaves the ring, for this once or for good.
    pub(crate) fn leave_ring(&self, fd: i32, writer: &Writer<'_>, why: Plain) {
        if let Ok(_held) = lock::of_writer(writer) {
            let _owed = writer.back_to_tcp(why);
            self.ring(fd, writer);
            self.tell(writer);
            self.settle(fd, Way::Out);
        }
    }

    /// Sends doorbells that are owed, ahead of data by TCP: a reader takes the first byte that comes for one.
    ///
    /// # Errors
    /// There's no room for them in the socket, and it mustn't wait, or not longer (`SO_SNDTIMEO`); what waiting came to; the connection's own.
    pub(crate) fn clear_debt(&self, fd: i32, writer: &Writer<'_>, waits: bool) -> Result<(), Errno> {
        loop {
            let Ok(_held) = lock::of_writer(writer) else { return Ok(()) };
            if writer.owed() == 0 || self.ring(fd, writer) {
                return Ok(());
            }
            drop(_held);
            if let Some(error) = self.kept_error() {
                return Err(Errno(error));
            }
            let limit = ask::limit(fd, libc::SO_SNDTIMEO)
                .map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
            if !waits || leap::asleep(self, || call::wait_for(fd, libc::POLLOUT, limit))? == 0 {
                return Err(AGAIN);
            }
        }
    }

    /// Both directions stay with TCP. What is in the ring is read first.
    pub(crate) fn stay_plain(&self, fd: i32, why: Plain) {
        self.send_plain(fd, why);
        self.receive_plain(fd, why);
    }

    /// What this end sends stays with TCP, from here on.
    pub(crate) fn send_plain(&self, fd: i32, why: Plain) {
        let Ok(writer) = self.writer() else { return };
        writer.demand(why);
        self.leave_ring(fd, &writer, why);
    }

    /// What this end receives comes by TCP from here on, behind what the ring holds. The peer's lock is taken for it, so that what the
    /// peer sends meanwhile isn't taken for data or the other way round.
    pub(crate) fn receive_plain(&self, fd: i32, why: Plain) {
        let Ok((segment, side)) = self.segment() else { return };
        let reader = segment.incoming(side);
        if matches!(why, Plain::Exec | Plain::Passed | Plain::Unknown | Plain::Option) && self.is_attached() {
            // What the ring holds is for who gets the socket, or for the kernel, which does what an option says. Before the demand, which the peer would meet by itself.
            let writer = segment.outgoing(side.other());
            if let Ok(_held) = lock::of_writer(&writer) {
                recall(fd, &segment, side, why);
            }
        }
        if reader.demand(why) {
            futex::wake(reader.writer_futex(), i32::MAX);
        }
        if !self.is_attached() {
            return;
        }
        let writer = segment.outgoing(side.other());
        for _ in 0..OWED_LOOKS {
            match lock::of_writer(&writer) {
                // Doorbells that it owes are its to send, ahead of its data.
                Ok(_held) if writer.back_to_tcp(why) == 0 => break,
                Ok(_held) => {}
                Err(Busy::Own | Busy::Broken(_)) => return,
            }
            call::give_way();
        }
        crate::receive::swallow_before_data(fd, self);
        if let Ok(_held) = lock::of_reader(&reader) {
            self.settle(fd, Way::In);
        }
    }
}
