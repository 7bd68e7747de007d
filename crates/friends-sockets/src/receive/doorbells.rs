//! Taking doorbells out of the socket, ahead of data.

use midmile_friends::{Broken, Reader, Step};

use crate::link::{Link, NONBLOCKING, WATCHED, unsure};
use crate::lock;
use crate::sys::{AGAIN, call};
use crate::table;

/// Doorbells that are taken from the socket at once.
pub(super) const BELLS: usize = 64;

/// Milliseconds that a doorbell is waited for that was announced. Unread at the socket's end it would be a reset.
const BELL_LOOKS: u32 = 100;

/// How long a receive waits for a doorbell that was announced, in nanoseconds.
const BELL_PATIENCE_NS: u32 = 20_000_000;

/// Takes doorbells from the socket, as a step has said; how many had come. The reader's lock is held.
pub(crate) fn swallow(fd: i32, link: &Link, reader: &Reader<'_>, count: usize) -> Result<usize, Broken> {
    let before = unsure::taken_from_socket(fd, reader)?;
    let mut bells = [0; BELLS];
    let part = count.saturating_sub(before).min(BELLS);
    let answer = call::draw(fd, &mut bells[..part], false);
    if let Err(error) = answer
        && error != AGAIN
    {
        link.keep_error(error.0);
    }
    let taken = answer.unwrap_or(0);
    reader.swallowed(&bells[..taken])?;
    Ok(before + taken)
}

/// As [`swallow`], but waits for doorbells that were announced and haven't come: the peer is about to send them. One that came later would
/// make the socket readable for nothing, and there are programs that take EAGAIN for an error then.
pub(crate) fn await_bells(fd: i32, link: &Link, reader: &Reader<'_>, count: usize) -> Result<usize, Broken> {
    let taken = swallow(fd, link, reader, count)?;
    if taken >= count.min(BELLS) || !link.is(WATCHED | NONBLOCKING) || link.has_error() {
        return Ok(taken);
    }
    call::look_for(fd, libc::POLLIN, BELL_PATIENCE_NS);
    if !table::still(fd, link) {
        return Ok(taken);
    }
    let left = count - taken;
    match reader.step()? {
        Step::Bells(still) if still > 0 => Ok(taken + swallow(fd, link, reader, still.min(left))?),
        Step::Tcp => {
            reader.leave_tcp(0);
            Ok(taken)
        }
        _ => Ok(taken),
    }
}

/// Takes the doorbells that stand before TCP's data, where the ring is empty: from now on the kernel alone is read.
pub(crate) fn swallow_before_data(fd: i32, link: &Link) {
    let Ok(reader) = link.reader() else { return };
    let Ok(_held) = lock::of_reader(&reader) else { return };
    let mut looks = 0;
    loop {
        match reader.step() {
            Ok(Step::Bells(count)) => match swallow(fd, link, &reader, count) {
                // Announced and on its way: it comes in a moment, if the peer lives and has a CPU.
                Ok(0) if looks < BELL_LOOKS => {
                    looks += 1;
                    call::look_for(fd, libc::POLLIN, 1_000_000);
                }
                Ok(1..) => {}
                _ => return,
            },
            Ok(Step::Tcp) => return reader.leave_tcp(0),
            _ => return,
        }
    }
}
