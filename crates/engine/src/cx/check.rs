//! What holds between connections, pools and queue at all times.

use super::Cx;
use crate::backend::Backend;
use crate::conn::Reading;

impl<B: Backend> Cx<B> {
    /// Asserts, between turns, the invariants between connections, pools, queue and sockets for datagrams. Simulation and fuzzing call it each step.
    ///
    /// # Panics
    /// When one of them doesn't hold.
    pub fn check(&self) {
        self.datagrams.check();
        let (mut blocks, mut pipes) = (0, 0);
        for id in self.conns.keys() {
            let Some(conn) = self.conns.get(id) else { continue };
            blocks += usize::from(conn.stash.is_some());
            pipes += usize::from(conn.pipe.is_some());
            assert!(conn.stash.is_none() || conn.pipe_bytes == 0, "bytes wait in two places");
            assert_eq!(conn.pipe.is_some(), conn.pipe_bytes > 0, "a pipe is kept without bytes");
            if let Reading::Forward(sink) = conn.reading {
                assert!(self.conns.get(sink).is_some_and(|sink| sink.source == id), "a sink doesn't know its source");
            }
            if let Some(source) = self.conns.get(conn.source) {
                assert_eq!(source.reading, Reading::Forward(id), "a source doesn't know its sink");
            }
            let leaves = self.departures.iter().filter(|(leaving, _)| *leaving == id).count();
            assert_eq!(leaves, usize::from(conn.leaving), "a connection doesn't know that it leaves");
            assert!(!conn.leaving || conn.reading == Reading::Paused, "a connection that leaves is read");
            assert!(!conn.queued || self.queue.contains(&id), "a connection believes that it's queued");
        }
        let twice = 2 * self.config.conns_max as usize;
        assert!(
            self.queue.len().max(self.deferred.len()).max(self.departures.len()) <= twice,
            "a queue has outgrown its room"
        );
        let rest = |id: &crate::slab::Key| self.listeners.get(*id).is_some_and(|listening| listening.rests);
        assert_eq!(self.listeners.keys().filter(rest).count(), self.resting.len(), "a listener rests for ever");
        assert_eq!((blocks, pipes), (self.blocks.leased(), self.pipes.leased()), "a block or a pipe has leaked");
    }
}
