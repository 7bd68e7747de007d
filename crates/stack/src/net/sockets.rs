//! What the engine asks of connections and listeners.

use std::net::SocketAddr;

use midmile_engine::backend::{Progress, Ready, Tag, Transfer};
use midmile_engine::{ConnError, Key, LegOptions, Probing};
use smoltcp::socket::tcp::{RecvError, State};

use super::door::Door;
use super::flow::{self, Flow, Phase};
use super::keepalive::Keepalive;
use super::{EVENTS, Net};

/// How long bytes wait for more that were sent ahead of them: as long as on Linux (`tcp_probe0_base`).
const HOLD: std::time::Duration = std::time::Duration::from_millis(200);

/// Why there's no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// One is there already, or no port is free.
    InUse,
    /// The address or the port isn't one that the stack was given.
    NotGiven,
    /// There's no such congestion control here.
    NoCongestionControl,
    /// There are as many listeners as may be.
    TooMany,
}

/// What came of an accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// A connection.
    One(Key, SocketAddr),
    /// One that has failed meanwhile.
    Failed,
    /// Nothing waits.
    Empty,
}

impl Net {
    /// Listens; says by which number, and where: port 0 stands for a free one of those given.
    pub(crate) fn listen(
        &mut self,
        at: SocketAddr,
        options: &LegOptions,
        backlog: u32,
    ) -> Result<(u32, SocketAddr), Closed> {
        let mut at = at;
        let congestion = flow::congestion(options.congestion.as_deref()).ok_or(Closed::NoCongestionControl)?;
        if !at.ip().is_unspecified() && !self.is_ours(at) {
            return Err(Closed::NotGiven);
        }
        if at.port() == 0 {
            let ports = self.config.listen_ports.iter().cloned().flatten();
            let free = ports.filter(|port| *port != 0 && !self.is_taken(SocketAddr::new(at.ip(), *port)));
            at.set_port(free.min().ok_or(Closed::InUse)?);
        }
        if !self.config.may_listen(at.port()) {
            return Err(Closed::NotGiven);
        }
        if self.is_taken(at) {
            return Err(Closed::InUse);
        }
        let door = Door::new(at, options, congestion, backlog);
        let free = self.doors.iter().position(Option::is_none);
        let index = match free {
            Some(index) => {
                self.doors[index] = Some(door);
                index
            }
            None if self.doors.len() < self.config.listeners_max as usize => {
                self.doors.push(Some(door));
                self.doors.len() - 1
            }
            None => return Err(Closed::TooMany),
        };
        Ok((u32::try_from(index).expect("the limit is a u32"), at))
    }

    fn is_taken(&self, at: SocketAddr) -> bool {
        self.doors.iter().flatten().any(|door| door.at == at)
    }

    /// Ends a listener: those that wait for it are reset, half-open ones are forgotten.
    pub(crate) fn unlisten(&mut self, index: u32) {
        let Some(door) = self.doors.get_mut(index as usize).and_then(Option::take) else { return };
        for key in door.queue {
            if self.flows.get(key).is_some_and(|flow| flow.phase == Phase::Queued(index)) {
                self.abort(key);
            }
        }
        for key in std::mem::take(&mut self.half_open) {
            match self.flows.get(key).map(|flow| flow.phase) {
                Some(Phase::HalfOpen(other)) if other == index => self.release(key),
                Some(Phase::HalfOpen(_)) => self.half_open.push_back(key),
                _ => {}
            }
        }
    }

    /// Lets a listener report, or no longer.
    pub(crate) fn watch_door(&mut self, index: u32, tag: Option<Tag>) {
        if let Some(Some(door)) = self.doors.get_mut(index as usize) {
            door.tag = tag;
        }
    }

    pub(crate) fn accept(&mut self, index: u32) -> Accepted {
        let Some(Some(door)) = self.doors.get_mut(index as usize) else { return Accepted::Empty };
        let Some(key) = door.queue.pop_front() else { return Accepted::Empty };
        match self.flows.get_mut(key) {
            Some(flow) if flow.phase == Phase::Queued(index) => {
                flow.phase = Phase::Held;
                Accepted::One(key, flow.tuple.peer())
            }
            _ => Accepted::Failed,
        }
    }

    /// Lets a connection report, beginning with how it stands.
    pub(crate) fn watch(&mut self, key: Key, tag: Tag) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.tag = Some(tag);
            self.tell(key);
        }
    }

    /// Makes the events of a poll, and says how many there are.
    pub(crate) fn gather(&mut self) -> usize {
        self.batch.clear();
        for door in self.doors.iter().flatten() {
            if let (Some(tag), false) = (door.tag, door.queue.is_empty()) {
                self.batch.push(Ready { tag, readable: true, writable: false, peer_finished: false, failed: false });
            }
        }
        while self.batch.len() < EVENTS
            && let Some(key) = self.news.pop_front()
        {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            flow.news = false;
            if let Some(tag) = flow.tag.filter(|_| flow.phase == Phase::Held) {
                self.batch.push(ready_of(flow, tag));
            }
        }
        self.batch.len()
    }

    /// Whether [`Net::gather`] has something to tell.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty() || self.doors.iter().flatten().any(|door| door.tag.is_some() && !door.queue.is_empty())
    }

    /// One more event, not of a connection's.
    pub(crate) fn add_event(&mut self, event: Ready) {
        self.batch.push(event);
    }

    pub(crate) fn event(&self, index: usize) -> Ready {
        self.batch[index]
    }

    pub(crate) fn recv(&mut self, key: Key, buf: &mut [u8]) -> Transfer {
        let Some(flow) = self.flows.get_mut(key) else { return Err(ConnError::Reset) };
        if flow.is_connecting() {
            return Ok(Progress::Blocked);
        }
        match flow.with_tcp(|tcp| tcp.recv_slice(buf)) {
            Some(Ok(0)) if flow.recv_queue() == 0 => end_of(flow),
            Some(Ok(bytes)) => {
                // The window may have opened.
                self.mark(key);
                Ok(Progress::Moved(bytes))
            }
            Some(Err(RecvError::Finished | RecvError::InvalidState)) | None => end_of(flow),
        }
    }

    pub(crate) fn peek(&mut self, key: Key, buf: &mut [u8]) -> Transfer {
        let Some(flow) = self.flows.get_mut(key) else { return Err(ConnError::Reset) };
        if flow.is_connecting() {
            return Ok(Progress::Blocked);
        }
        match flow.with_tcp(|tcp| tcp.peek_slice(buf)) {
            Some(Ok(bytes)) if bytes > 0 => Ok(Progress::Moved(bytes)),
            _ => end_of(flow),
        }
    }

    pub(crate) fn discard(&mut self, key: Key, len: usize) -> Result<(), ConnError> {
        let mut left = len;
        while left > 0 {
            let Some(flow) = self.flows.get_mut(key) else { return Err(ConnError::Reset) };
            let take = |bytes: &mut [u8]| {
                let count = bytes.len().min(left);
                (count, count)
            };
            match flow.with_tcp(|tcp| tcp.recv(take)) {
                Some(Ok(bytes)) if bytes > 0 => left -= bytes,
                _ => return Err(ConnError::Reset),
            }
        }
        self.mark(key);
        Ok(())
    }

    /// Takes bytes to send; they leave when the connection is settled. `more` says that others follow soon.
    pub(crate) fn send(&mut self, key: Key, bytes: &[u8], more: bool) -> Transfer {
        let until = self.now.after(HOLD);
        let Some(flow) = self.awake(key) else { return Err(ConnError::Reset) };
        if flow.over {
            return Err(flow.failed.take().unwrap_or(ConnError::Reset));
        }
        if flow.is_connecting() {
            flow.owes_room = true;
            return Ok(Progress::Blocked);
        }
        let Some(Ok(taken)) = flow.with_tcp(|tcp| tcp.send_slice(bytes)) else { return Err(ConnError::Reset) };
        flow.owes_room |= taken < bytes.len();
        flow.held_until = (more && taken == bytes.len()).then_some(until);
        if taken == 0 {
            return Ok(Progress::Blocked);
        }
        flow.taken = flow.taken.wrapping_add(u32::try_from(taken).expect("a buffer is smaller"));
        self.mark(key);
        Ok(Progress::Moved(taken))
    }

    /// Has what waits for more leave.
    pub(crate) fn push(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.held_until = None;
            self.mark(key);
        }
    }

    pub(crate) fn shutdown(&mut self, key: Key) -> Result<(), ConnError> {
        let Some(flow) = self.awake(key) else { return Err(ConnError::Reset) };
        if flow.over {
            // Whoever waits for its end in peace has sent his own.
            return flow.failed.take().map_or(Ok(()), Err);
        }
        flow.held_until = None;
        if flow.phase == Phase::Resolving || flow.state() == State::SynSent {
            flow.finishes = true;
        } else {
            flow.with_tcp(|tcp| tcp.close());
        }
        self.mark(key);
        Ok(())
    }

    /// The program lets go of it: what was sent still reaches the peer, and then the end. Where it hasn't read all that came, the peer
    /// sees a reset instead (RFC 1122, 4.2.2.13): it would take its bytes for read otherwise.
    pub(crate) fn close(&mut self, key: Key) {
        let Some(flow) = self.awake(key) else { return };
        flow.tag = None;
        if flow.over && flow.state() == State::Closed && flow.listed {
            // Its reset hasn't left yet.
            flow.phase = Phase::Orphan;
        } else if flow.over || flow.phase == Phase::Resolving || flow.state() == State::SynSent {
            self.release(key);
        } else if flow.recv_queue() > 0 {
            self.abort(key);
        } else {
            flow.phase = Phase::Orphan;
            flow.held_until = None;
            flow.with_tcp(|tcp| tcp.close());
        }
        self.mark(key);
    }

    /// The program ends it with a reset.
    pub(crate) fn reset(&mut self, key: Key) {
        if self.flows.get(key).is_some_and(|flow| flow.over && flow.listed) {
            self.close(key);
        } else {
            self.abort(key);
        }
    }

    pub(crate) fn take_error(&mut self, key: Key) -> Option<ConnError> {
        self.flows.get_mut(key)?.failed.take()
    }

    pub(crate) fn unsent(&self, key: Key) -> usize {
        self.flows.get(key).map_or(0, Flow::unsent)
    }

    pub(crate) fn unacknowledged(&self, key: Key) -> usize {
        self.flows.get(key).map_or(0, Flow::send_queue)
    }

    pub(crate) fn local_addr(&self, key: Key) -> Option<SocketAddr> {
        self.flows.get(key).map(|flow| flow.tuple.local())
    }

    pub(crate) fn peer_addr(&self, key: Key) -> Option<SocketAddr> {
        self.flows.get(key).map(|flow| flow.tuple.peer())
    }

    pub(crate) fn set_keepalive(&mut self, key: Key, options: &LegOptions) {
        let patience = options.user_timeout.unwrap_or(self.config.patience);
        if let Some(flow) = self.flows.get_mut(key) {
            flow.patience_ms = flow::millis(patience);
            flow.keepalive = Keepalive::of(options);
            self.mark(key);
        }
    }

    pub(crate) fn set_probing(&mut self, key: Key, probing: Option<&Probing>) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.keepalive = Keepalive::probing(probing);
            self.mark(key);
        }
    }
}

/// What a reader finds who has read everything.
fn end_of(flow: &mut Flow) -> Transfer {
    if let Some(error) = flow.failed.take() {
        return Err(error);
    }
    Ok(if flow.over || flow.has_end() { Progress::Ended } else { Progress::Blocked })
}

fn ready_of(flow: &Flow, tag: Tag) -> Ready {
    let room = flow.tcp().is_none_or(|tcp| tcp.may_send() && tcp.send_queue() < tcp.send_capacity());
    let end = flow.over || flow.has_end();
    Ready {
        tag,
        readable: flow.recv_queue() > 0 || end,
        writable: (room && !flow.is_connecting()) || flow.over,
        peer_finished: end,
        failed: flow.failed.is_some(),
    }
}
