//! What epoll tells of a socket and of the pipe beside it, in one.

use libc::{EPOLLIN, EPOLLRDNORM, epoll_event};

use super::any;

/// What epoll has told, with what it says of a socket and of its pipe in one: how many are left.
pub fn merge(events: &mut [epoll_event]) -> usize {
    /// Places of a table; twice the events that are noted in it.
    const PLACES: usize = 512;
    let count = events.len();
    if count < 2 || !any() {
        return count;
    }
    let mut places = [u16::MAX; PLACES];
    let mut kept = 0;
    for index in 0..count {
        let event = events[index];
        match find(&places, &events[..kept], event.u64) {
            // One of them says no more than a pipe does.
            Ok(first) if is_bell(events[first].events) || is_bell(event.events) => {
                events[first].events |= event.events;
                continue;
            }
            Err(place) if kept < PLACES / 2 => places[place] = u16::try_from(kept).unwrap_or(u16::MAX),
            _ => {}
        }
        events[kept] = event;
        kept += 1;
    }
    kept
}

/// Whether a pipe of ours may have told this.
fn is_bell(events: u32) -> bool {
    events & !(EPOLLIN | EPOLLRDNORM).cast_unsigned() == 0
}

/// The first event with this data.
///
/// # Errors
/// There's none: where it would be noted.
fn find(places: &[u16], events: &[epoll_event], data: u64) -> Result<usize, usize> {
    let hash = data.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut place = usize::try_from(hash).unwrap_or(0) % places.len();
    loop {
        let index = usize::from(places[place]);
        match events.get(index) {
            None => return Err(place),
            Some(event) if { event.u64 } == data => return Ok(index),
            Some(_) => place = (place + 1) % places.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::OWN;
    use super::*;

    fn event(events: u32, data: u64) -> epoll_event {
        epoll_event { events, u64: data }
    }

    #[test]
    fn a_socket_and_its_pipe_are_told_once() {
        OWN.fetch_add(1, Ordering::Relaxed);
        let (readable, both) = (EPOLLIN.cast_unsigned(), (EPOLLIN | libc::EPOLLOUT).cast_unsigned());
        let writable = libc::EPOLLOUT.cast_unsigned();
        let mut told =
            [event(writable, 1), event(readable, 2), event(readable, 1), event(writable, 3), event(writable, 2)];
        let left = merge(&mut told);
        let seen: Vec<(u32, u64)> = told[..left].iter().map(|one| (one.events, one.u64)).collect();
        assert_eq!(seen, [(both, 1), (both, 2), (writable, 3)]);
        // Of more than are noted, some stay as they are.
        let mut many: Vec<epoll_event> = (0..1000).map(|data| event(readable, data % 500)).collect();
        let left = merge(&mut many);
        assert!((500..1000).contains(&left));
        assert!((0..500).all(|data| many[..left].iter().any(|one| { one.u64 } == data)));
        // What two sockets say that the program gave the same data isn't a pipe's.
        let mut two = [event(both, 7), event(writable, 7)];
        assert_eq!(merge(&mut two), 2);
    }
}
