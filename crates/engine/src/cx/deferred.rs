//! What is done for a connection a little later, and the queues of connections.

use std::collections::VecDeque;
use std::time::Duration;

use super::Cx;
use crate::backend::Backend;
use crate::conn::{Ahead, Conn};
use crate::handler::ConnId;
use crate::slab::Slab;

/// How long bytes that don't fill a segment wait for more ([`Ahead::Gathers`]): a burst's segments come closer together at 50 Mbit/s.
const GATHER_WAIT: Duration = Duration::from_micros(500);

/// Puts `entry` into a queue with room for twice as many as there are connections. Where it's full, entries go whose connections are
/// gone: half of them at least, so that it never grows, and is seldom looked through.
pub(crate) fn push_live<B: Backend, T>(
    queue: &mut VecDeque<T>,
    entry: T,
    conns: &Slab<Conn<B>>,
    of: impl Fn(&T) -> ConnId,
) {
    if queue.len() == queue.capacity() {
        queue.retain(|entry| conns.get(of(entry)).is_some());
    }
    queue.push_back(entry);
}

impl<B: Backend> Cx<B> {
    /// Has [`Cx::begin_deferred`] look at the connection at the end of the next turn.
    pub(super) fn defer(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !std::mem::replace(&mut conn.deferred, true)
        {
            push_live(&mut self.deferred, (self.turns, id), &self.conns, |(_, id)| *id);
        }
    }

    /// Dials that found no first bytes in the turn after theirs go out without, and so does what was gathered for more that didn't come.
    pub(crate) fn begin_deferred(&mut self) {
        let now = self.backend.now();
        while let Some((turn, id)) = self.deferred.front().copied()
            && turn < self.turns
        {
            self.deferred.pop_front();
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.deferred = false;
            if conn.ahead == Ahead::Gathers {
                if now.since(conn.active) < GATHER_WAIT {
                    self.defer(id);
                } else {
                    conn.ahead = Ahead::None;
                    self.backend.push(&mut conn.socket);
                }
            } else if let Err(error) = self.backend.begin(&mut conn.socket) {
                conn.fail(error);
                self.enqueue(id);
            }
        }
    }

    /// How long the loop may sleep before [`Cx::begin_deferred`] has something to do.
    pub(crate) fn deferred_wait(&self) -> Option<Duration> {
        let (_, id) = self.deferred.front()?;
        let gathers = self.conns.get(*id).is_some_and(|conn| conn.ahead == Ahead::Gathers);
        Some(if gathers { GATHER_WAIT } else { Duration::ZERO })
    }
}
