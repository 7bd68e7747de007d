//! What a program may ask of its connections and of the core.

use super::Cx;
use crate::addr::Addr;
use crate::backend::Backend;
use crate::handler::ConnId;
use crate::path::PathInfo;
use crate::time::Time;

/// What a core's pools hold, and how far its loop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Pipes that exist, leased or ready.
    pub pipes: usize,
    /// Pipes that hold bytes.
    pub pipes_leased: usize,
    /// Times that a bulk direction found no pipe and was copied.
    pub pipes_missed: u64,
    /// Blocks that hold bytes.
    pub blocks_leased: usize,
    /// Turns of the loop.
    pub turns: u64,
    /// Upcalls in which the program panicked.
    pub panics: u64,
    /// Connections that came from another core and found no room here, or no descriptor.
    pub hand_offs_lost: u64,
}

impl<B: Backend> Cx<B> {
    /// When bytes last came from the connection or went to it; when it was made, if none did.
    #[must_use]
    pub fn last_active(&self, id: ConnId) -> Time {
        self.conns.get(id).map_or(Time::ZERO, |conn| conn.active)
    }

    /// Bytes received on the connection and forwarded to another; what the program used itself isn't counted.
    #[must_use]
    pub fn handed_on(&self, id: ConnId) -> u64 {
        self.conns.get(id).map_or(0, |conn| conn.handed_on)
    }

    /// When the first of them was; `None` before. It's begun anew with [`Cx::handed_on`].
    #[must_use]
    pub fn first_handed_on(&self, id: ConnId) -> Option<Time> {
        let conn = self.conns.get(id)?;
        (conn.handed_on > 0).then_some(conn.first_handed_on)
    }

    /// Bytes read from the connection that wait to be offered again, between upcalls. Those that are still in the transport aren't among
    /// them.
    #[must_use]
    pub fn left_over(&self, id: ConnId) -> usize {
        self.conns.get(id).and_then(|conn| conn.stash.as_ref()).map_or(0, |stash| stash.bytes().len())
    }

    /// What the transport knows of the way to the peer, for connections that have a way. A system call on the kernel: not for each event.
    #[must_use]
    pub fn path(&self, id: ConnId) -> Option<PathInfo> {
        self.backend.path(&self.conns.get(id)?.socket)
    }

    /// Bytes sent on the connection that aren't on the wire yet.
    #[must_use]
    pub fn unsent(&self, id: ConnId) -> usize {
        self.conns.get(id).map_or(0, |conn| self.backend.unsent(&conn.socket))
    }

    /// Bytes sent on the connection that its peer hasn't acknowledged yet: while they get fewer, the peer lives.
    #[must_use]
    pub fn unacknowledged(&self, id: ConnId) -> usize {
        self.conns.get(id).map_or(0, |conn| self.backend.unacknowledged(&conn.socket))
    }

    /// This end's address.
    #[must_use]
    pub fn local_addr(&self, id: ConnId) -> Option<Addr> {
        self.conns.get(id).and_then(|conn| self.backend.local_addr(&conn.socket))
    }

    /// Connections that are open.
    #[must_use]
    pub const fn conns_open(&self) -> usize {
        self.conns.len()
    }

    /// Room for connections; in a mesh, others may take it meanwhile.
    #[must_use]
    pub fn conns_free(&self) -> usize {
        let here = self.config.conns_max as usize - self.conns.len();
        self.seat.as_ref().map_or(here, |seat| here.min(seat.conns.left() as usize))
    }

    /// What the pools hold, and how far the loop has come.
    #[must_use]
    pub const fn gauges(&self) -> Gauges {
        Gauges {
            pipes: self.pipes.existing(),
            pipes_leased: self.pipes.leased(),
            pipes_missed: self.pipes.missed,
            blocks_leased: self.blocks.leased(),
            turns: self.turns,
            panics: self.panics,
            hand_offs_lost: self.hand_offs_lost,
        }
    }
}
