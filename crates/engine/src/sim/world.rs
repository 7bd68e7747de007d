//! The world: remotes, listeners, the calendar, and how events reach the program.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::datagrams::Mail;
use super::remote::{Remote, RemoteId, Script};
use super::rng::Rng;
use super::silence::Liveness;
use crate::addr::Addr;
use crate::backend::{Dialled, Progress, Ready, Tag, Transfer};
use crate::error::ConnError;
use crate::time::Time;
use crate::waker::Waker;

/// How long bytes wait for more at most.
const HELD: Duration = Duration::from_millis(200);
/// Until a SYN that wasn't answered is sent again (RFC 6298, section 2.1).
pub(super) const SYN_WAIT: Duration = Duration::from_secs(1);

/// How a dial goes.
#[derive(Clone, Debug)]
pub enum DialOutcome {
    /// It stands when the call returns.
    AtOnce(Script),
    /// It stands after a while.
    After(Duration, Script),
    /// The call itself fails.
    FailsAtOnce(ConnError),
    /// It fails after a while.
    FailsAfter(Duration, ConnError),
    /// It stands after a while, and a test acts for the remote, with room for so many bytes each way.
    ByHand(Duration, usize),
    /// Nobody ever answers: it fails by `user_timeout`, if that is set.
    Silent,
    /// It stands after a while, and leads to the program's own listener at an address: two sockets of the program talk to each
    /// other, with room for so many bytes each way.
    Loops(Duration, Addr, usize),
}

/// The program's end of a connection. Dropping it closes it, as it does with the kernel's.
#[derive(Debug)]
pub struct SimSocket {
    pub(super) remote: RemoteId,
    open: Rc<Cell<bool>>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.open.set(false);
    }
}

/// A listener. Dropping it closes it: those in its queue are reset, as the kernel does.
#[derive(Debug)]
pub struct SimListener {
    pub(super) index: usize,
    open: Rc<Cell<bool>>,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.open.set(false);
    }
}

#[derive(Debug)]
pub(super) struct Door {
    pub(super) tag: Option<Tag>,
    pub(super) addr: Addr,
    pub(super) queue: VecDeque<RemoteId>,
    pub(super) open: Rc<Cell<bool>>,
    /// Of those that come by it.
    pub(super) liveness: Liveness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A client connects to a listener.
    Arrive { remote: usize, door: usize },
    /// A remote takes a step.
    Step { remote: usize },
    /// A dial comes to stand.
    Stand { remote: usize },
    /// A dial fails.
    Fail { remote: usize },
    /// The program hears of a socket.
    Tell { remote: usize },
    /// What waited for more goes out by itself.
    Release { remote: usize },
    /// A remote may have been silent for too long.
    Expire { remote: usize },
    /// A datagram arrives.
    Letter { letter: usize },
}

/// The world, as a backend.
#[derive(Debug)]
pub struct Sim {
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) faults: bool,
    pub(super) remotes: Vec<Remote>,
    pub(super) doors: Vec<Door>,
    pub(super) batch: Vec<Ready>,
    /// Those that may wake the program, and how often each had been called at the last look.
    pub(super) wakers: Vec<(Waker, u64)>,
    /// Since when the way between the program's own ends is cut.
    pub(super) cut_since: Option<Time>,
    /// No accept finds a descriptor.
    pub(super) starves: bool,
    /// No listener is watched anew.
    pub(super) refuses_listeners: bool,
    servers: BTreeMap<String, Vec<DialOutcome>>,
    dialled: Vec<(String, RemoteId)>,
    calendar: BinaryHeap<Reverse<(Time, u64, Event)>>,
    pending: Vec<RemoteId>,
    pub(super) mail: Mail,
    serial: u64,
}

impl Sim {
    /// An empty world. With `faults`, system calls fail now and then.
    #[must_use]
    pub fn new(seed: u64, faults: bool) -> Self {
        Self {
            now: Time::ZERO,
            rng: Rng::new(seed),
            faults,
            remotes: Vec::new(),
            doors: Vec::new(),
            batch: Vec::new(),
            wakers: Vec::new(),
            cut_since: None,
            starves: false,
            refuses_listeners: false,
            servers: BTreeMap::new(),
            dialled: Vec::new(),
            calendar: BinaryHeap::new(),
            pending: Vec::new(),
            mail: Mail::default(),
            serial: 0,
        }
    }

    /// A listener on `addr`.
    pub fn listener(&mut self, addr: Addr) -> SimListener {
        let open = Rc::new(Cell::new(true));
        let liveness = Liveness::default();
        self.doors.push(Door { tag: None, addr, queue: VecDeque::new(), open: open.clone(), liveness });
        SimListener { index: self.doors.len() - 1, open }
    }

    /// A client that connects to `listener` after `wait`.
    pub fn client(&mut self, listener: &SimListener, wait: Duration, script: Script) -> RemoteId {
        self.arrive(listener.index, wait, script)
    }

    /// What dials to `addr` lead to, one after another; the last goes for all that follow. Dials elsewhere are refused.
    pub fn server(&mut self, addr: &Addr, outcomes: Vec<DialOutcome>) {
        self.servers.insert(addr.to_string(), outcomes);
    }

    /// A remote.
    #[must_use]
    pub fn remote(&self, id: RemoteId) -> &Remote {
        &self.remotes[id.0]
    }

    /// The remotes that dials to `addr` have reached, in order, established or not.
    pub fn dialled(&self, addr: &Addr) -> impl Iterator<Item = RemoteId> {
        let name = addr.to_string();
        self.dialled.iter().filter(move |(to, _)| *to == name).map(|(_, id)| *id)
    }

    /// Nothing more will ever happen by itself.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.calendar.is_empty() && self.pending.is_empty() && !self.mail.has_news()
    }

    /// A remote that comes by a listener.
    pub(super) fn remote_at(&mut self, door: usize, script: Script) -> RemoteId {
        let meets = self.doors[door].addr.clone();
        self.add(Remote::new(script, meets, true))
    }

    pub(super) fn add(&mut self, remote: Remote) -> RemoteId {
        self.remotes.push(remote);
        RemoteId(self.remotes.len() - 1)
    }

    pub(super) fn schedule(&mut self, wait: Duration, event: Event) {
        self.serial += 1;
        self.calendar.push(Reverse((self.now.after(wait), self.serial, event)));
    }

    pub(super) fn dial_remote(&mut self, to: &Addr) -> Result<(SimSocket, Dialled), ConnError> {
        let name = to.to_string();
        let outcome = match self.servers.get_mut(&name) {
            None => DialOutcome::FailsAtOnce(ConnError::Refused),
            Some(outcomes) if outcomes.len() > 1 => outcomes.remove(0),
            Some(outcomes) => outcomes[0].clone(),
        };
        let (script, wait, error) = match outcome {
            DialOutcome::FailsAtOnce(error) => return Err(error),
            DialOutcome::AtOnce(script) => (script, None, None),
            DialOutcome::After(wait, script) => (script, Some(wait), None),
            DialOutcome::FailsAfter(wait, error) => (Script::default(), Some(wait), Some(error)),
            DialOutcome::Silent => (Script::default(), None, Some(ConnError::TimedOut)),
            DialOutcome::ByHand(wait, window) => {
                return Ok((self.dial_by_hand(name, to, wait, window), Dialled::Pending));
            }
            DialOutcome::Loops(wait, listener, window) => {
                return Ok((self.dial_own(to, wait, &listener, window)?, Dialled::Pending));
            }
        };
        let at_once = wait.is_none() && error.is_none();
        let id = self.add(Remote::new(script, to.clone(), at_once));
        self.dialled.push((name, id));
        self.remotes[id.0].error = error.filter(|_| wait.is_some());
        match (wait, error) {
            (Some(wait), None) => self.schedule(wait, Event::Stand { remote: id.0 }),
            (Some(wait), Some(_)) => self.schedule(wait, Event::Fail { remote: id.0 }),
            (None, None) => self.wake(id),
            (None, Some(_)) => self.hand_vanish(id),
        }
        Ok((self.socket(id), if at_once { Dialled::Connected } else { Dialled::Pending }))
    }

    fn dial_by_hand(&mut self, name: String, to: &Addr, wait: Duration, window: usize) -> SimSocket {
        let id = self.add(Remote::by_hand(to.clone(), window, false));
        self.dialled.push((name, id));
        self.schedule(wait, Event::Stand { remote: id.0 });
        self.socket(id)
    }

    /// Connects two sockets of the program: one that is dialled, and one that its listener accepts.
    fn dial_own(&mut self, to: &Addr, wait: Duration, listener: &Addr, window: usize) -> Result<SimSocket, ConnError> {
        let door = self.doors.iter().position(|door| door.addr == *listener).ok_or(ConnError::Refused)?;
        let script = Script { window, ..Script::default() };
        let near = self.add(Remote::new(script.clone(), to.clone(), false));
        let far = self.add(Remote::new(script, listener.clone(), true));
        (self.remotes[near.0].twin, self.remotes[far.0].twin) = (Some(far), Some(near));
        self.schedule(wait, Event::Stand { remote: near.0 });
        self.schedule(wait, Event::Arrive { remote: far.0, door });
        Ok(self.socket(near))
    }

    /// Carries what the program sent at one end of its own connection to the other end.
    fn carry(&mut self, id: RemoteId, twin: RemoteId) {
        let step = self.rng.up_to(self.remotes[id.0].script.window.max(1));
        let to = &self.remotes[twin.0];
        let (room, listens) = (to.script.window.saturating_sub(to.inbound.len()), to.open.get());
        let from = &mut self.remotes[id.0];
        let count = step.min(from.on_the_wire()).min(room);
        let bytes: Vec<u8> = from.outbound.drain(..count).collect();
        let gives_up = from.saw_reset || (!from.open.get() && !from.inbound.is_empty());
        let finishes = from.outbound.is_empty() && (from.finished_towards || !from.open.get());
        from.passed_on = gives_up || (finishes && !from.open.get());
        let made_room = count > 0 && std::mem::take(&mut from.owes_room);
        // Bytes for somebody who is gone are answered by a reset.
        let rejected = (count > 0 || !from.outbound.is_empty()) && !listens && !from.dead;
        if rejected {
            (from.dead, from.error) = (true, Some(ConnError::Reset));
            from.outbound.clear();
        }
        if made_room || rejected {
            self.tell(id);
        }
        if count > 0 {
            (self.remotes[id.0].heard, self.remotes[twin.0].heard) = (self.now, self.now);
        }
        let to = &mut self.remotes[twin.0];
        to.inbound.extend(bytes);
        let ends = !to.dead && !to.finished;
        if ends && gives_up {
            (to.dead, to.error) = (true, Some(ConnError::Reset));
            to.outbound.clear();
        } else if ends && finishes {
            to.finished = true;
        }
        if count > 0 || (ends && (gives_up || finishes)) {
            self.tell(twin);
        }
    }

    /// The program's end of the remote's connection.
    pub(super) fn socket(&self, id: RemoteId) -> SimSocket {
        SimSocket { remote: id, open: self.remotes[id.0].open.clone() }
    }

    /// Lets the remote take a step soon.
    fn wake(&mut self, id: RemoteId) {
        let remote = &mut self.remotes[id.0];
        if !remote.scheduled && !remote.is_over() {
            remote.scheduled = true;
            let pace = remote.script.pace;
            self.schedule(pace, Event::Step { remote: id.0 });
        }
    }

    /// Lets the program hear of the socket.
    pub(super) fn tell(&mut self, id: RemoteId) {
        if !self.pending.contains(&id) {
            self.pending.push(id);
        }
    }

    /// Moves to the next event of the calendar, not beyond `until`. False when there was nothing to do.
    pub(super) fn advance(&mut self, until: Time) -> bool {
        let next = self.calendar.peek().map(|Reverse((at, ..))| *at);
        if next.is_none_or(|at| at > until) {
            self.now = self.now.max(until);
            return false;
        }
        if let Some(Reverse((at, _, event))) = self.calendar.pop() {
            self.now = self.now.max(at);
            self.happen(event);
        }
        true
    }

    fn happen(&mut self, event: Event) {
        if let (Event::Arrive { remote, .. } | Event::Stand { remote }, true) = (event, self.cut_since.is_some())
            && self.remotes[remote].twin.is_some()
        {
            // The SYN is sent again.
            return self.schedule(SYN_WAIT, event);
        }
        match event {
            Event::Arrive { remote, door } => {
                self.doors[door].queue.push_back(RemoteId(remote));
                self.wake(RemoteId(remote));
            }
            Event::Stand { remote } => {
                self.remotes[remote].connected = true;
                if let Some(twin) = self.remotes[remote].twin {
                    self.wake(twin);
                }
                self.tell(RemoteId(remote));
                self.wake(RemoteId(remote));
            }
            Event::Fail { remote } => {
                self.remotes[remote].dead = true;
                self.tell(RemoteId(remote));
            }
            Event::Tell { remote } => self.tell(RemoteId(remote)),
            Event::Release { remote } => self.remotes[remote].held = 0,
            Event::Expire { remote } => self.expire(RemoteId(remote)),
            Event::Letter { letter } => self.hand_in(letter),
            Event::Step { remote } => self.step(RemoteId(remote)),
        }
    }

    fn step(&mut self, id: RemoteId) {
        let remote = &mut self.remotes[id.0];
        remote.scheduled = false;
        if remote.by_hand {
            return self.step_by_hand(id);
        }
        if let Some(twin) = remote.twin {
            if self.cut_since.is_none() {
                self.carry(id, twin);
            }
            return self.wake(id);
        }
        let (read_step, send_step) = (remote.script.read_step, remote.script.send_step);
        let (read, sent) = (self.rng.up_to(read_step), self.rng.up_to(send_step.max(1)));
        let remote = &mut self.remotes[id.0];
        let made_room = remote.read(read) && remote.owes_room;
        let news = if remote.open.get() { remote.send(id, sent) } else { remote.meet_nobody() };
        if made_room {
            remote.owes_room = false;
        }
        if (made_room || news || self.rng.one_in(50)) && self.remotes[id.0].open.get() {
            self.tell(id);
        }
        // One that has nothing left to do wakes again when the program sends; until the program lets go there may be more.
        if !self.remotes[id.0].is_over() {
            self.wake(id);
        }
    }

    /// Makes the next batch of events: some of those that pend, in any order.
    pub(super) fn gather(&mut self) {
        self.batch.clear();
        self.hear_wakers();
        for door in self.doors.iter_mut().filter(|door| !door.open.get()) {
            for id in door.queue.drain(..) {
                let remote = &mut self.remotes[id.0];
                remote.open.set(false);
                remote.saw_reset = true;
            }
        }
        for door in &self.doors {
            if let (Some(tag), false) = (door.tag, door.queue.is_empty()) {
                self.batch.push(Ready { tag, readable: true, writable: false, peer_finished: false, failed: false });
            }
        }
        self.mail.gather(&mut self.batch);
        let count = self.pending.len().min(1 + self.rng.up_to(3));
        for _ in 0..count {
            let at = self.rng.up_to(self.pending.len() - 1);
            let id = self.pending.swap_remove(at);
            if let Some(ready) = self.ready_of(id) {
                self.batch.push(ready);
            }
        }
    }

    fn ready_of(&self, id: RemoteId) -> Option<Ready> {
        let remote = &self.remotes[id.0];
        let tag = remote.tag.filter(|_| remote.open.get())?;
        let room = remote.outbound.len() < remote.script.window;
        Some(Ready {
            tag,
            readable: !remote.inbound.is_empty() || remote.finished || remote.dead,
            writable: remote.connected && (room || remote.dead),
            peer_finished: remote.finished || remote.dead,
            failed: remote.dead && remote.error.is_some(),
        })
    }

    pub(super) fn read(&mut self, id: RemoteId, buf: &mut [u8], take: bool) -> Transfer {
        let remote = &mut self.remotes[id.0];
        if remote.inbound.is_empty() {
            return match remote.error.filter(|_| remote.dead) {
                Some(error) => {
                    remote.error = None;
                    Err(error)
                }
                None if remote.dead || remote.finished => Ok(Progress::Ended),
                None => Ok(Progress::Blocked),
            };
        }
        let count = buf.len().min(remote.inbound.len());
        for (to, from) in buf.iter_mut().zip(&remote.inbound) {
            *to = *from;
        }
        if take {
            remote.inbound.drain(..count);
            self.wake(id);
        }
        Ok(Progress::Moved(count))
    }

    /// Has the last `count` bytes that the program sent wait for more, for as long as the kernel would.
    pub(super) fn hold(&mut self, id: RemoteId, count: usize) {
        self.remotes[id.0].held = count;
        self.schedule(HELD, Event::Release { remote: id.0 });
    }

    /// How many of `wanted` bytes the socket takes. Where it isn't all, an event follows once there is room.
    pub(super) fn room(&mut self, id: RemoteId, wanted: usize) -> Result<usize, ConnError> {
        let remote = &mut self.remotes[id.0];
        if remote.dead {
            return Err(remote.error.take().unwrap_or(ConnError::Reset));
        }
        assert!(!remote.finished_towards, "bytes are sent after the end");
        let free = remote.script.window.saturating_sub(remote.outbound.len());
        // Now and then a socket has less room than it seems, and says so only later. An empty one of the program's own has all of it,
        // as the kernel's would.
        let fresh = remote.twin.is_some() && remote.outbound.is_empty();
        let tight = self.rng.one_in(8) && !fresh;
        let room = if tight { self.rng.up_to(free) } else { free }.min(wanted);
        if room < wanted {
            self.remotes[id.0].owes_room = true;
            if room < free {
                let wait = Duration::from_micros(100 + self.rng.up_to(5_000) as u64);
                self.schedule(wait, Event::Tell { remote: id.0 });
            }
        }
        self.wake(id);
        Ok(room)
    }
}
