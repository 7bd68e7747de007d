//! Senders' messages on their way to connections.

use midmile_engine::Cx;
use midmile_engine::Key;
use midmile_engine::kernel::Kernel;

use super::super::link::Link;
use super::super::queues::Parcel;
use super::super::{Received, Via};
use super::Pump;

impl Pump {
    /// Has a free connection found.
    pub(super) fn list(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key)
            && link.is_free()
            && !std::mem::replace(&mut link.listed, true)
        {
            self.free.push_back(key);
        }
    }

    /// Gives messages that have come to connections.
    pub(super) fn dispatch(&mut self, cx: &mut Cx<Kernel>) {
        while let Some(parcel) = self.turn.to_send.pop_front() {
            match parcel.via {
                None => self.waiting.push_back(parcel),
                Some(Via(key)) => match self.links.get_mut(key) {
                    Some(link) if link.is_free() => self.transmit(cx, key, parcel),
                    Some(link) if link.leaving.is_none() && link.finished.is_none() => link.queue.push_back(parcel),
                    _ => self.refuse(parcel),
                },
            }
        }
        self.feed(cx);
    }

    /// Sends what is for anybody, as long as some connection is free.
    fn feed(&mut self, cx: &mut Cx<Kernel>) {
        while !self.waiting.is_empty()
            && let Some(key) = self.free.pop_front()
        {
            let Some(link) = self.links.get_mut(key) else { continue };
            link.listed = false;
            if link.is_free()
                && let Some(parcel) = self.waiting.pop_front()
            {
                self.transmit(cx, key, parcel);
                self.list(key);
            }
        }
    }

    /// Sends a message on a free connection, which is reserved until all of it is out.
    fn transmit(&mut self, cx: &mut Cx<Kernel>, key: Key, parcel: Parcel) {
        let Some(link) = self.links.get_mut(key) else { return self.refuse(parcel) };
        let sent = cx.send(link.conn, &parcel.bytes);
        if sent < parcel.bytes.len() {
            (link.owed, link.owed_since) = (Some((parcel, sent)), cx.now());
            self.time(cx, key);
        } else {
            self.is_out(parcel);
        }
    }

    /// There's room on a connection again.
    pub(super) fn send_on(&mut self, cx: &mut Cx<Kernel>, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some((parcel, at)) = link.owed.take() else { return };
        let sent = at + cx.send(link.conn, &parcel.bytes[at..]);
        if sent < parcel.bytes.len() {
            link.owed = Some((parcel, sent));
            return;
        }
        let (leaves, finished, conn) = (link.leaving.is_some(), link.finished, link.conn);
        self.is_out(parcel);
        if leaves {
            return self.leave(cx, key);
        }
        if let Some(why) = finished {
            self.end(key, why);
            return cx.close(conn);
        }
        while let Some(link) = self.links.get_mut(key).filter(|link| link.is_free())
            && let Some(parcel) = link.queue.pop_front()
        {
            self.transmit(cx, key, parcel);
        }
        self.list(key);
        self.feed(cx);
    }

    fn is_out(&mut self, parcel: Parcel) {
        self.queues.counters.tx_messages.add(1);
        self.queues.counters.tx_bytes.add(parcel.bytes.len() as u64);
        self.turn.done += 1;
        let mut bytes = parcel.bytes;
        bytes.clear();
        self.turn.spare.push(bytes);
    }

    /// A connection has failed with a message half sent.
    pub(super) fn try_again(&mut self, mut parcel: Parcel) {
        if parcel.retries == 0 {
            return self.refuse(parcel);
        }
        parcel.retries -= 1;
        self.queues.counters.tx_retries.add(1);
        self.waiting.push_front(parcel);
    }

    /// A message can't be sent.
    fn refuse(&mut self, parcel: Parcel) {
        self.queues.counters.tx_failed.add(1);
        self.turn.done += 1;
        self.turn.received.push(Received::Unsent { ticket: parcel.ticket });
    }

    /// Messages for a connection alone that is gone.
    pub(super) fn give_up_queue(&mut self, link: Link) {
        for parcel in link.queue {
            self.refuse(parcel);
        }
    }
}
