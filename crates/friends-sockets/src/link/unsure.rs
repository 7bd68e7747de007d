//! Doorbells over which a thread was killed: whether they were sent, or taken, the kernel's counts say.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use midmile_friends::{Broken, Reader, Writer};

use super::Link;
use crate::sys::{ask, futex};
use crate::table;

/// Looks at the reader's pipe, and what lies between two: longer in all than a reader waits for a doorbell that was announced.
const LOOKS: u32 = 100;
const NAP: Duration = Duration::from_millis(1);

impl Link {
    /// Finds out what became of doorbells whose sender was killed, and says so to the writer. False: it can't be known, and the connection is reset.
    /// The caller holds the writer's lock.
    #[cold]
    pub(super) fn find_out(&self, fd: i32, writer: &Writer<'_>) -> bool {
        let (socket, pipe) = writer.is_unsure();
        let found = if socket { by_tcp(self, fd, writer) } else { Ok(()) };
        let found = if pipe { found.and_then(|()| by_pipe(self, writer)) } else { found };
        found.map_err(|broken| self.reset(fd, broken)).is_ok()
    }
}

/// Finds out what became of doorbells in the socket whose reader was killed, and says so; how many it had taken. The caller holds the
/// reader's lock.
pub(crate) fn taken_from_socket(fd: i32, reader: &Reader<'_>) -> Result<usize, Broken> {
    if reader.is_unsure().0 { reader.has_received(ask::received(fd)) } else { Ok(0) }
}

/// The same of those in this end's pipe.
pub(crate) fn taken_from_pipe(own: i32, reader: &Reader<'_>) -> Result<(), Broken> {
    if !reader.is_unsure().1 {
        return Ok(());
    }
    for _ in 0..LOOKS {
        let before = reader.pipe_announced();
        let holds = ask::unread(own).unwrap_or(0);
        match before.filter(|_| reader.pipe_announced() == before) {
            Some(announced) => return reader.pipe_holds(holds, announced),
            None => drop(futex::sleep(&AtomicU32::new(0), 0, NAP)),
        }
    }
    Err(Broken::Abandoned)
}

fn by_tcp(link: &Link, fd: i32, writer: &Writer<'_>) -> Result<(), Broken> {
    let end = table::find(fd).filter(|held| std::ptr::eq(&raw const held.link, link)).ok_or(Broken::Abandoned)?;
    match ask::sent(fd) {
        // The SYN of the side that connects was acknowledged too.
        Some(sent) => writer.has_sent(sent - u64::from(end.has_connected()).min(sent)),
        // It's over: the end itself wakes who waits.
        None => {
            writer.rang(writer.owed());
            Ok(())
        }
    }
}

fn by_pipe(link: &Link, writer: &Writer<'_>) -> Result<(), Broken> {
    for _ in 0..LOOKS {
        let before = writer.pipe_expects();
        let Some(holds) = link.bell.peers_holds(link) else {
            // It isn't to be had, as who rings next will find too.
            writer.pipe_missed();
            return Ok(());
        };
        match before.filter(|_| writer.pipe_expects() == before) {
            Some(expected) => return writer.pipe_holds(holds, expected),
            None => drop(futex::sleep(&AtomicU32::new(0), 0, NAP)),
        }
    }
    Err(Broken::Abandoned)
}
