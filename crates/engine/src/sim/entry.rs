//! Ways into the world: listeners that the program opens itself, the clients that come by them, and calls from outside.

use std::time::Duration;

use super::remote::{RemoteId, Script};
use super::silence::Liveness;
use super::world::{Event, Sim, SimListener};
use crate::addr::Addr;
use crate::backend::Ready;
use crate::core::WAKE;
use crate::error::ListenError;
use crate::options::LegOptions;

/// The port of the first listener that leaves the choice to the world.
const PORT_FIRST: usize = 40_000;

impl Sim {
    /// A listener of the program's own making.
    pub(super) fn listener_at(&mut self, at: &Addr, options: &LegOptions) -> Result<(SimListener, Addr), ListenError> {
        let mut at = at.clone();
        if let Addr::Inet(addr) = &mut at
            && addr.port() == 0
        {
            let port = PORT_FIRST + self.doors.len();
            addr.set_port(u16::try_from(port).map_err(|_| ListenError::InUse)?);
        }
        if !options.shared && self.doors.iter().any(|door| door.addr == at && door.open.get()) {
            return Err(ListenError::InUse);
        }
        let listener = self.listener(at.clone());
        self.doors[listener.index].liveness = Liveness::of(options);
        Ok((listener, at))
    }

    /// A client that connects after `wait` to whoever listens at `to` first; `None` if nobody does now.
    pub fn client_to(&mut self, to: &Addr, wait: Duration, script: Script) -> Option<RemoteId> {
        let door = self.doors.iter().position(|door| door.addr == *to && door.open.get())?;
        Some(self.arrive(door, wait, script))
    }

    pub(super) fn arrive(&mut self, door: usize, wait: Duration, script: Script) -> RemoteId {
        let id = self.remote_at(door, script);
        self.schedule(wait, Event::Arrive { remote: id.0, door });
        id
    }

    /// Puts a wake into the batch for each waker that was called since the last look.
    pub(super) fn hear_wakers(&mut self) {
        for (waker, heard) in &mut self.wakers {
            let rung = waker.rung();
            if rung != std::mem::replace(heard, rung) {
                self.batch.push(woken());
            }
        }
    }
}

const fn woken() -> Ready {
    Ready { tag: WAKE, readable: true, writable: false, peer_finished: false, failed: false }
}
