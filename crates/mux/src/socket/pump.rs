//! The loop: connections' messages to the receivers' queue, senders' messages to connections.

mod sending;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use midmile_engine::kernel::Kernel;
use midmile_engine::{ConnError, ConnId, Cx, Frame, Handler, Key, MeterId, Slab};
use midmile_wire::frame::FrameError;

use crate::measure::measure;

use super::link::{Assembly, Link};
use super::queues::{Order, Parcel, Queues, Released, Room, Turn};
use super::{Ended, Received, Settings, Via};

/// The program of the loop.
#[derive(Debug)]
pub(super) struct Pump {
    settings: Settings,
    queues: Arc<Queues>,
    links: Slab<Link>,
    /// Connections on which a message may begin, the one that has been free for the longest in front; looked at again when they're taken.
    free: VecDeque<Key>,
    /// Messages for anybody.
    waiting: VecDeque<Parcel>,
    turn: Turn,
    /// What the receivers' queue has room for, less what this turn has brought.
    room: Room,
    /// There's none: no connection is read.
    full: bool,
    /// Connections on which a message has begun in this turn.
    begun: Vec<Key>,
}

impl Pump {
    pub(super) fn new(settings: Settings, queues: Arc<Queues>) -> Self {
        let room = Room { messages: settings.queue_messages, bytes: settings.queue_bytes };
        Self {
            queues,
            links: Slab::with_capacity(settings.conns_max),
            free: VecDeque::new(),
            waiting: VecDeque::new(),
            turn: Turn::default(),
            room,
            full: false,
            begun: Vec::new(),
            settings,
        }
    }

    fn attach(&mut self, cx: &mut Cx<Kernel>, fd: OwnedFd) -> io::Result<Via> {
        let full = |_| io::Error::new(io::ErrorKind::QuotaExceeded, "as many connections are attached as may be");
        let key = self.links.insert(Link::new()).map_err(full)?;
        match cx.adopt(fd, key.to_bits(), MeterId::NONE) {
            Ok(conn) => {
                if let Some(link) = self.links.get_mut(key) {
                    link.conn = conn;
                }
                if !self.full {
                    cx.read_messages(conn);
                }
                self.list(key);
                self.queues.counters.attached.add(1);
                Ok(Via(key))
            }
            Err(error) => {
                self.links.remove(key);
                Err(error)
            }
        }
    }

    fn detach(&mut self, cx: &mut Cx<Kernel>, via: Via, answer: SyncSender<io::Result<Released>>) {
        let Some(link) = self.links.get_mut(via.0).filter(|link| link.leaving.is_none()) else {
            // Nobody else has the other end, and it holds one answer.
            answer.send(Err(io::ErrorKind::NotFound.into())).ok();
            return;
        };
        link.leaving = Some(answer);
        if link.owed.is_none() {
            self.leave(cx, via.0);
        }
    }

    fn take_out(&mut self, key: Key) -> Option<Link> {
        let link = self.links.remove(key)?;
        if link.listed {
            self.free.retain(|other| *other != key);
        }
        Some(link)
    }

    /// Gives a connection back on which nothing is half sent.
    fn leave(&mut self, cx: &mut Cx<Kernel>, key: Key) {
        let Some(mut link) = self.take_out(key) else { return };
        let Some(answer) = link.leaving.take() else { return };
        let released = cx.release(link.conn).map_err(|_| {
            // It has failed meanwhile; nobody is told twice.
            cx.reset(link.conn);
            io::Error::from(io::ErrorKind::NotFound)
        });
        self.queues.counters.detached.add(u64::from(released.is_ok()));
        self.give_up_queue(link);
        answer.send(released).ok();
    }

    /// A connection has ended: its receivers are told, and its messages go elsewhere, or nowhere. Its socket is the caller's business.
    fn end(&mut self, key: Key, why: Ended) -> Option<ConnId> {
        let mut link = self.take_out(key)?;
        let conn = link.conn;
        if let Some((parcel, _)) = link.owed.take() {
            self.try_again(parcel);
        }
        if let Some(answer) = link.leaving.take() {
            answer.send(Err(io::ErrorKind::NotFound.into())).ok();
        }
        self.give_up_queue(link);
        self.queues.counters.of(why).add(1);
        self.turn.received.push(Received::Ended { via: Via(key), why });
        Some(conn)
    }

    /// The receivers' queue is full: no connection is read.
    fn stop_reading(&mut self, cx: &mut Cx<Kernel>) {
        self.full = true;
        self.queues.counters.rx_full.add(1);
        for key in self.links.keys() {
            if let Some(link) = self.links.get(key) {
                cx.pause(link.conn);
            }
        }
    }

    fn go_on_reading(&mut self, cx: &mut Cx<Kernel>) {
        self.full = false;
        let now = cx.now();
        for slot in 0..self.settings.conns_max {
            let Some(key) = self.links.key_at(slot) else { continue };
            let Some(link) = self.links.get_mut(key) else { continue };
            // It wasn't the peer who kept it waiting.
            if let Assembly::Since(since) = &mut link.assembly {
                *since = now;
            }
            cx.read_messages(link.conn);
        }
    }

    /// Has the timer run of connections on which a message has begun.
    fn time_begun(&mut self, cx: &mut Cx<Kernel>) {
        while let Some(key) = self.begun.pop() {
            if let Some(link) = self.links.get_mut(key)
                && link.assembly == Assembly::Begun
            {
                link.assembly = Assembly::Since(cx.now());
                self.time(cx, key);
            }
        }
    }

    /// Has the timer of a connection run out when it's next due.
    fn time(&mut self, cx: &mut Cx<Kernel>, key: Key) {
        let now = cx.now();
        let Some(link) = self.links.get(key) else { return };
        if let Some((due, _)) = link.due(&self.settings, !self.full, now) {
            cx.set_timer(link.conn, due.since(now));
        }
    }

    fn obey(&mut self, cx: &mut Cx<Kernel>) {
        for order in std::mem::take(&mut self.turn.orders) {
            match order {
                Order::Attach(fd, answer) => {
                    let attached = self.attach(cx, fd);
                    answer.send(attached).ok();
                }
                Order::Detach(via, answer) => self.detach(cx, via, answer),
            }
        }
    }

    /// Meets the others: hands over, takes, and reads on where there's room.
    fn meet(&mut self, cx: &mut Cx<Kernel>) {
        self.room = self.queues.exchange(&mut self.turn);
        let has_room = self.room.messages > 0 && self.room.bytes > 0;
        if self.full && has_room {
            self.go_on_reading(cx);
        } else if !self.full && !has_room {
            self.stop_reading(cx);
        }
    }

    /// What holds between turns.
    ///
    /// # Panics
    /// When something doesn't.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut listed = 0;
        for key in self.links.keys() {
            let link = self.links.get(key).expect("it's one of the keys");
            listed += usize::from(link.listed);
            assert!(link.owed.is_some() || link.queue.is_empty(), "a message waits for a free connection");
            assert!(link.owed.as_ref().is_none_or(|(parcel, at)| *at < parcel.bytes.len()), "a whole message is owed");
            assert!(link.is_free() || link.owed.is_some(), "a connection stays that may go");
            assert!(!link.is_free() || link.listed, "a free connection isn't found");
            assert_ne!(link.assembly, Assembly::Begun, "a message's time doesn't run");
        }
        let found = self.free.iter().filter(|key| self.links.get(**key).is_some()).count();
        assert_eq!(found, listed, "the free ones are listed once each");
        let any_free = self.links.keys().any(|key| self.links.get(key).is_some_and(Link::is_free));
        assert!(self.waiting.is_empty() || !any_free, "a message waits beside a free connection");
        assert!(self.turn.received.is_empty() && self.turn.done == 0, "something wasn't handed over");
    }

    /// Connections attached.
    #[cfg(test)]
    pub(super) const fn links(&self) -> usize {
        self.links.len()
    }

    /// Connections on which a message has begun.
    #[cfg(test)]
    pub(super) fn assembling(&self) -> usize {
        let links = self.links.keys().filter_map(|key| self.links.get(key));
        links.filter(|link| link.assembly != Assembly::None).count()
    }

    /// Messages that the loop has and that aren't out.
    #[cfg(test)]
    pub(super) fn unsent(&self) -> usize {
        let of_links = self.links.keys().filter_map(|key| self.links.get(key));
        let held = of_links.map(|link| link.queue.len() + usize::from(link.owed.is_some())).sum::<usize>();
        held + self.waiting.len() + self.turn.to_send.len()
    }
}

impl Handler<Kernel> for Pump {
    fn on_data(&mut self, _: &mut Cx<Kernel>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        // Only messages are asked for.
        bytes.len()
    }

    fn frame(&mut self, _: ConnId, token: u64, bytes: &[u8]) -> Frame {
        let key = Key::from_bits(token);
        let Some(link) = self.links.get_mut(key) else { return Frame::Broken };
        let fault = match measure(&self.settings.framing, self.settings.len_max(), bytes, &mut link.seen) {
            Ok(Some(len)) => return Frame::Message(len),
            Ok(None) => {
                if link.assembly == Assembly::None {
                    link.assembly = Assembly::Begun;
                    self.begun.push(key);
                }
                return Frame::More;
            }
            Err(FrameError::TooLong) => Ended::TooLong,
            Err(_) => Ended::Broken,
        };
        link.fault = Some(fault);
        Frame::Broken
    }

    fn on_message(&mut self, cx: &mut Cx<Kernel>, _: ConnId, token: u64, message: &[u8]) {
        let key = Key::from_bits(token);
        let Some(link) = self.links.get_mut(key) else { return };
        link.assembly = Assembly::None;
        let mut bytes = self.turn.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(message);
        self.queues.counters.rx_messages.add(1);
        self.queues.counters.rx_bytes.add(message.len() as u64);
        self.turn.received.push(Received::Message { via: Via(key), bytes });
        self.room.messages = self.room.messages.saturating_sub(1);
        self.room.bytes = self.room.bytes.saturating_sub(message.len());
        if !self.full && (self.room.messages == 0 || self.room.bytes == 0) {
            self.stop_reading(cx);
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<Kernel>, _: ConnId, token: u64) {
        self.send_on(cx, Key::from_bits(token));
    }

    fn on_peer_close(&mut self, cx: &mut Cx<Kernel>, conn: ConnId, token: u64) {
        let key = Key::from_bits(token);
        let Some(link) = self.links.get_mut(key) else { return };
        let why = if link.assembly == Assembly::None { Ended::Finished } else { Ended::Torn };
        if link.owed.is_some() && link.finished.is_none() {
            // The peer reads on, and gets the rest of its message.
            link.finished = Some(why);
        } else if self.end(key, why).is_some() {
            cx.close(conn);
        }
    }

    fn on_error(&mut self, _: &mut Cx<Kernel>, _: ConnId, token: u64, error: ConnError) {
        let key = Key::from_bits(token);
        let Some(link) = self.links.get(key) else { return };
        let why = match error {
            ConnError::TooLong => Ended::TooLong,
            ConnError::Broken => link.fault.unwrap_or(Ended::Broken),
            _ => Ended::Failed,
        };
        self.end(key, why);
    }

    fn on_timer(&mut self, cx: &mut Cx<Kernel>, conn: ConnId, token: u64) {
        let key = Key::from_bits(token);
        let Some(link) = self.links.get(key) else { return };
        match link.due(&self.settings, !self.full, cx.now()) {
            Some((due, why)) if due <= cx.now() => {
                if self.end(key, why).is_some() {
                    cx.reset(conn);
                }
            }
            // What it was set for is over, and something else has begun.
            _ => self.time(cx, key),
        }
    }

    fn on_wake(&mut self, _: &mut Cx<Kernel>) {
        // What was asked is met at the turn's end.
    }

    fn on_turn_end(&mut self, cx: &mut Cx<Kernel>) {
        self.time_begun(cx);
        self.meet(cx);
        self.obey(cx);
        self.dispatch(cx);
        // What that brought, and the room that it made.
        self.meet(cx);
        self.dispatch(cx);
        if self.turn.closed {
            for key in self.links.keys() {
                if let Some(link) = self.links.get(key) {
                    cx.close(link.conn);
                }
            }
            cx.stop();
        }
    }
}
