//! Remotes that do nothing by themselves: a test acts for them, one step at a time. The world still decides how much passes at once
//! and when the program hears of it.

use std::time::Duration;

use super::remote::{Remote, RemoteId, Script};
use super::world::{Event, Sim};
use crate::addr::Addr;
use crate::backend::{Progress, Transfer};
use crate::error::ConnError;

impl Sim {
    /// A client that connects to the listener on `to` soon, and is acted for. Where nobody listens it's refused.
    pub fn hand_client(&mut self, to: &Addr, window: usize) -> RemoteId {
        let door = self.doors.iter().rposition(|door| door.addr == *to && door.open.get());
        let mut remote = Remote::by_hand(to.clone(), window, true);
        remote.saw_reset = door.is_none();
        let id = self.add(remote);
        if let Some(door) = door {
            let wait = Duration::from_micros(self.rng.up_to(3_000) as u64);
            self.schedule(wait, Event::Arrive { remote: id.0, door });
        }
        id
    }

    /// Has no accept find a descriptor from now on, or has them find some again.
    pub const fn starve(&mut self, starves: bool) {
        self.starves = starves;
    }

    /// Has no listener be watched anew from now on, for want of memory, or has them be again.
    pub const fn refuse_listeners(&mut self, refuses: bool) {
        self.refuses_listeners = refuses;
    }

    /// The remote sends what of `bytes` there's room for.
    ///
    /// # Errors
    /// When the program has reset the connection, or is gone: then this resets it.
    pub fn hand_send(&mut self, id: RemoteId, bytes: &[u8]) -> Transfer {
        let remote = &mut self.remotes[id.0];
        if !remote.open.get() {
            remote.saw_reset = true;
            remote.outbound.clear();
        }
        if remote.saw_reset {
            return Err(ConnError::Reset);
        }
        assert!(!remote.finished && !remote.dead, "a remote sends after its end");
        let room = if remote.connected { remote.script.window.saturating_sub(remote.inbound.len()) } else { 0 };
        let most = bytes.len().min(room);
        let count = if self.rng.one_in(3) { self.rng.up_to(most) } else { most };
        let remote = &mut self.remotes[id.0];
        remote.inbound.extend(&bytes[..count]);
        if count == 0 {
            return Ok(Progress::Blocked);
        }
        self.tell_soon(id);
        Ok(Progress::Moved(count))
    }

    /// The remote reads into `buf`.
    ///
    /// # Errors
    /// When the program has reset the connection, or dropped it before it was admitted, or closed it with bytes of the remote's unread
    /// (RFC 2525, 2.17).
    pub fn hand_recv(&mut self, id: RemoteId, buf: &mut [u8]) -> Transfer {
        let whole = !self.rng.one_in(3);
        let remote = &mut self.remotes[id.0];
        let most = buf.len().min(remote.on_the_wire());
        let count = if whole || most == 0 { most } else { self.rng.up_to(most).max(1) };
        let remote = &mut self.remotes[id.0];
        if !remote.open.get() && (!remote.inbound.is_empty() || remote.tag.is_none()) {
            remote.saw_reset |= !remote.saw_end;
            remote.outbound.clear();
        }
        if remote.saw_reset {
            return Err(ConnError::Reset);
        }
        if !remote.connected {
            return Ok(Progress::Blocked);
        }
        for (to, from) in buf.iter_mut().zip(remote.outbound.drain(..count)) {
            *to = from;
        }
        if count > 0 {
            if std::mem::take(&mut remote.owes_room) {
                self.tell_soon(id);
            }
            return Ok(Progress::Moved(count));
        }
        remote.saw_end |= remote.outbound.is_empty() && (remote.finished_towards || !remote.open.get());
        Ok(if remote.saw_end { Progress::Ended } else { Progress::Blocked })
    }

    /// The remote finishes sending.
    pub fn hand_finish(&mut self, id: RemoteId) {
        self.remotes[id.0].finished = true;
        self.tell_soon(id);
    }

    /// The remote ends the connection at once.
    pub fn hand_reset(&mut self, id: RemoteId) {
        let remote = &mut self.remotes[id.0];
        (remote.dead, remote.was_reset_by_itself) = (true, true);
        remote.error = Some(ConnError::Reset);
        remote.outbound.clear();
        self.tell_soon(id);
    }

    /// The remote closes its socket: what it sent arrives, and then the end, unless it leaves bytes unread. What the program sends
    /// from then on is answered by a reset.
    pub fn hand_close(&mut self, id: RemoteId) {
        let remote = &mut self.remotes[id.0];
        if !remote.outbound.is_empty() {
            return self.hand_reset(id);
        }
        (remote.finished, remote.left) = (true, true);
        self.tell_soon(id);
    }

    /// What a remote that is acted for does of itself: once it has left, it answers bytes with a reset.
    pub(super) fn step_by_hand(&mut self, id: RemoteId) {
        let remote = &mut self.remotes[id.0];
        if remote.left && !remote.outbound.is_empty() && !remote.dead {
            (remote.dead, remote.error) = (true, Some(ConnError::Reset));
            remote.outbound.clear();
            self.tell(id);
        } else if self.rng.one_in(10) {
            // Edges are told now and then though nothing has changed.
            self.tell(id);
        }
    }

    /// Lets the program hear of the socket, now or in a moment.
    fn tell_soon(&mut self, id: RemoteId) {
        if self.rng.one_in(4) {
            let wait = Duration::from_micros(self.rng.up_to(2_000) as u64);
            self.schedule(wait, Event::Tell { remote: id.0 });
        } else {
            self.tell(id);
        }
    }
}

impl Remote {
    /// One that does nothing by itself.
    pub(super) fn by_hand(meets: Addr, window: usize, connected: bool) -> Self {
        let script = Script { window, finishes: false, ..Script::default() };
        Self { by_hand: true, ..Self::new(script, meets, connected) }
    }
}
