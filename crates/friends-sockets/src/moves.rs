//! Bytes that the kernel moves between a friend and something else: splice and sendfile.

use midmile_friends::{Plain, Reader, Step};

use crate::end::End;
use crate::figures::{self, Figure};
use crate::link::NONBLOCKING;
use crate::lock;
use crate::receive;
use crate::sleep::reentered;
use crate::sys::{AGAIN, Answer, Errno, call};
use crate::table;

/// Bytes that are copied at once. They stand on the stack, which may be a thread's smallest (16 KiB).
const PART: usize = 4096;

/// Bytes go into the socket by `act`, libc's own call, which may wait as the socket does if it `waits`.
pub fn out(fd: i32, end: &End, waits: bool, act: impl FnOnce() -> Answer) -> Answer {
    let link = &end.link;
    let writer = link.writer().map_err(|broken| link.reset(fd, broken))?;
    let waits = waits && !link.is(NONBLOCKING);
    {
        let Ok(_held) = lock::of_writer(&writer) else { return reentered(waits) };
        let _owed = writer.back_to_tcp(Plain::Splice);
        writer.begin_tcp();
    }
    let answer = link.clear_debt(fd, &writer, waits).and_then(|()| {
        link.unhurry(fd);
        act()
    });
    let count = *answer.as_ref().unwrap_or(&0) as u64;
    if let Ok(_held) = lock::of_writer(&writer) {
        let wake = writer.sent(count);
        link.rouse(fd, &writer, wake);
        figures::add(Figure::TcpOut, count);
        link.tell(&writer);
    }
    answer
}

/// Bytes go from the socket into a pipe: by `act`, libc's own call, or what the ring holds by a copy. At most `count` bytes.
pub fn into_pipe(fd: i32, end: &End, pipe: i32, count: usize, waits: bool, act: impl Fn() -> Answer) -> Answer {
    let link = &end.link;
    link.receive_plain(fd, Plain::Drawn);
    let reader = link.reader().map_err(|broken| link.reset(fd, broken))?;
    let waits = waits && !link.is(NONBLOCKING);
    loop {
        let step = match lock::of_reader(&reader) {
            Ok(_held) if !table::still(fd, link) => return Err(Errno(libc::EBADF)),
            Ok(_held) => reader.step().and_then(|step| match step {
                Step::Bells(bells) => receive::swallow(fd, link, &reader, bells).map(|_| step),
                _ => Ok(step),
            }),
            Err(_) => return reentered(waits),
        };
        match step.map_err(|broken| link.reset(fd, broken))? {
            Step::Tcp => {
                let answer = act();
                reader.leave_tcp(*answer.as_ref().unwrap_or(&0) as u64);
                return answer;
            }
            Step::Ring(_) if count == 0 => return Ok(0),
            Step::Ring(_) => match copy(&reader, pipe, count) {
                Err(AGAIN) if waits => drop(call::wait_for(pipe, libc::POLLOUT, -1)?),
                Ok(0) => {}
                answer => return answer,
            },
            Step::Bells(_) | Step::Empty if !waits => return Err(AGAIN),
            // The peer switches with its next send, or a doorbell is on its way.
            Step::Bells(_) | Step::Empty => drop(call::wait_sleeping(fd)?),
        }
    }
}

/// Copies bytes of the ring into a pipe, as many as it takes at once.
fn copy(reader: &Reader<'_>, pipe: i32, count: usize) -> Answer {
    let mut bytes = [0; PART];
    let mut copied = 0;
    let Ok(_held) = lock::of_reader(reader) else { return Ok(0) };
    while copied < count {
        let length = (count - copied).min(PART);
        let Ok(length) = reader.peek(0, &mut bytes[..length]) else { break };
        match call::write_now(pipe, &bytes[..length]) {
            _ if length == 0 => break,
            Err(error) if copied == 0 => return Err(error),
            Err(_) => break,
            Ok(written) => {
                receive::skip(reader, written);
                copied += written;
            }
        }
    }
    figures::add(Figure::RingIn, copied as u64);
    Ok(copied)
}
