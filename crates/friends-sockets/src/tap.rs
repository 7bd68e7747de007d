//! A tap: while somebody watches, what friends send is told by a pipe in the runtime directory. Nothing waits for who watches: what finds
//! no room there is counted, and missing.

use midmile_friends::{RECORD_BYTES_MAX, RECORD_MAX, Record, Told};

use crate::figures::{self, Figure};
use crate::link::Link;
use crate::sys::map::{self, Owned};
use crate::sys::user::Buffers;
use crate::sys::{Errno, call};
use crate::{board, meeting};

/// Tells of `count` bytes of the program's, from the `from`th of its buffers on, which were sent and told on the board. The writer's lock
/// is held. Where nobody watches: one load.
#[inline]
pub(crate) fn tell(link: &Link, buffers: &Buffers<'_>, from: usize, count: usize, ring: bool) {
    if board::tapped_until() != 0 {
        sent(link, buffers, from, count, ring);
    }
}

/// Tells that an end is closed.
#[inline]
pub(crate) fn tell_over(link: &Link) {
    if board::tapped_until() != 0 && watched() {
        say(link, 0, |saying| tell_one(saying, Told::Over));
    }
}

/// Whether who watches has said so of late.
fn watched() -> bool {
    call::now() / 1_000_000_000 < u64::from(board::tapped_until())
}

#[cold]
fn sent(link: &Link, buffers: &Buffers<'_>, from: usize, count: usize, ring: bool) {
    if count == 0 || !watched() {
        return;
    }
    let message = u32::try_from(count).unwrap_or(u32::MAX);
    say(link, count as u64, |saying| {
        let mut first = true;
        buffers.each(from, count, |part| {
            part.chunks(RECORD_BYTES_MAX).try_for_each(|bytes| {
                let message = if std::mem::take(&mut first) { message } else { 0 };
                tell_one(saying, Told::Bytes { bytes, message, ring })?;
                saying.place += bytes.len() as u64;
                Ok(())
            })
        })
    });
}

/// A pipe, and what is said by it.
struct Saying {
    pipe: Owned,
    name: midmile_friends::Name,
    place: u64,
}

fn say(link: &Link, count: u64, act: impl FnOnce(&mut Saying) -> Result<(), Errno>) {
    let Some(entry) = link.entry() else { return };
    let place = entry.sent_bytes().wrapping_sub(count);
    let said = meeting::tap().and_then(|pipe| act(&mut Saying { pipe, name: link.name(), place }));
    if said.is_err() {
        figures::add(Figure::Untold, 1);
    }
}

/// Writes a record, whole or not at all.
fn tell_one(saying: &Saying, what: Told<'_>) -> Result<(), Errno> {
    let mut bytes = [0; RECORD_MAX];
    let at = std::time::Duration::from_nanos(call::since_1970());
    let length = Record { at, name: saying.name, place: saying.place, what }.write(&mut bytes);
    map::write(&saying.pipe, &bytes[..length]).map(drop)
}
