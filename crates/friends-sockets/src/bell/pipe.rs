//! The pipes themselves: one of ours, in which the peer rings, and the peer's, in which this end does.

use std::sync::atomic::{AtomicI32, Ordering};

use libc::POLLIN;
use midmile_friends::{Broken, Pipe, Reader};

use super::{Bell, NONE, PIPES, is_room};
use crate::figures::{self, Figure};
use crate::link::{Link, unsure};
use crate::meeting;
use crate::sys::map::{self, Owned};
use crate::sys::{Answer, Errno, ask, call};
use crate::table;

/// Doorbells that are taken by one call, and in one turn: as many as a pipe holds.
const BELLS: usize = 64;
const PIPE_MAX: usize = 1 << 16;
/// How long a doorbell is waited for that was announced, in nanoseconds.
const PATIENCE_NS: u32 = 20_000_000;

/// A pipe for an end, and how its peer finds it.
pub(super) fn make() -> Result<(Owned, Pipe), Errno> {
    let (read, _write) = map::pipe()?;
    let file = meeting::open_pipe(meeting::pipe_of(&read)?)?;
    let pipe = meeting::pipe_of(&file)?;
    Ok((file, pipe))
}

/// Takes so many doorbells from a pipe, if they are there; how many it took. A peer may say any number: no more than a pipe holds.
fn read_out(pipe: i32, count: usize) -> usize {
    let mut taken = 0;
    while taken < count.min(PIPE_MAX) {
        let mut bells = [0; BELLS];
        let part = (count - taken).min(BELLS);
        let got = call::read_pipe(pipe, &mut bells[..part]).unwrap_or(0);
        taken += got;
        if got < part {
            break;
        }
    }
    taken
}

impl Bell {
    pub(super) fn keep(&self, place: &AtomicI32, file: Owned) -> i32 {
        PIPES.fetch_add(1, Ordering::Relaxed);
        table::hide(file.number());
        let number = file.keep();
        place.store(number, Ordering::Release);
        number
    }

    /// Opens the peer's pipe, if it has offered one. The writer's lock is held.
    pub(crate) fn meet(&self, link: &Link) {
        if let Ok((segment, side)) = link.segment()
            && segment.bell(side.other()).is_some()
            && !segment.is_bell_answered(side.other())
            && is_room()
        {
            let taken = self.open(link).is_ok();
            segment.answer_bell(side.other(), taken);
        }
    }

    /// The peer's pipe, opened anew where this process hasn't got it.
    fn open(&self, link: &Link) -> Result<i32, Errno> {
        let peer = self.peer.load(Ordering::Relaxed);
        if peer != NONE {
            return Ok(peer);
        }
        let none = Errno(libc::ENOENT);
        let (segment, side) = link.segment().map_err(|_| none)?;
        let pipe = segment.bell(side.other()).ok_or(none)?;
        Ok(self.keep(&self.peer, meeting::open_pipe(pipe)?))
    }

    /// Doorbells that stand in the peer's pipe, if that is to be had. The writer's lock is held.
    pub(crate) fn peers_holds(&self, link: &Link) -> Option<u64> {
        self.open(link).ok().and_then(ask::unread)
    }

    /// Rings the peer. The writer's lock is held.
    pub(crate) fn ring(&self, link: &Link) -> Answer {
        let rung = call::write_pipe(self.open(link)?, &[0])?;
        figures::add(Figure::PipeBells, 1);
        Ok(rung)
    }

    /// Takes what stands in the pipe, where the ring is empty; whether it is. The reader's lock is held.
    pub(crate) fn swallow(&self, reader: &Reader<'_>) -> Result<bool, Broken> {
        self.deputy.hush();
        let own = self.own.load(Ordering::Relaxed);
        unsure::taken_from_pipe(own, reader)?;
        if reader.piped() == 0 {
            return Ok(true);
        }
        let count = usize::try_from(reader.let_go_piped()?).unwrap_or(usize::MAX);
        if count == 0 {
            return Ok(false);
        }
        let mut taken = read_out(own, count);
        if taken < count && own != NONE {
            // Announced, and about to be written: one that came later would tell of nothing.
            call::look_for(own, POLLIN, PATIENCE_NS);
            taken += read_out(own, count - taken);
        }
        reader.pipe_taken(taken as u64);
        Ok(true)
    }
}
