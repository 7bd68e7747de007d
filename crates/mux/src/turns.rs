//! Whose turn it is: clients whose requests wait are served in rounds, one request of each. So who has hundreds waiting delays no other by
//! more than one.

use midmile_engine::{Backend, Cx, Key};

use crate::detour::By;
use crate::mux::Mux;
use crate::service::Matching;

/// How many clients that must wait for one upstream are passed over when others wait behind them.
const PASSED_MAX: usize = 64;
/// Rows in which clients wait: those for whose requests only a connection will do don't hold up those that may go as datagrams.
pub(crate) const ROWS: usize = 2;

/// The row in which a request's client stands while that waits; transfers and suspects wait by themselves.
pub(crate) const fn row_of(by: By) -> Option<usize> {
    match by {
        By::Connection => Some(0),
        By::Datagram => Some(1),
        By::Own | By::Lone => None,
    }
}

impl Mux {
    /// Has a request wait that stands in no list: behind its client's others, or before them; a suspect behind all others.
    pub(crate) fn join_waiting(&mut self, key: Key, before: bool) {
        let Some(request) = self.requests.get(key) else { return };
        let (client, before) = (request.client, before && request.by != By::Lone);
        let list = match row_of(request.by) {
            None => self.services[request.service].waiting_by(request.by),
            Some(row) => {
                let client = self.clients.get_mut(client).expect("what a client that's gone has asked doesn't wait");
                &mut client.waiting[row]
            }
        };
        if before {
            self.turns.push_front(list, key.slot());
        } else {
            self.turns.push_back(list, key.slot());
        }
        self.line_up(client);
    }

    /// Has a request no longer wait.
    pub(crate) fn leave_waiting(&mut self, key: Key) {
        let Some(request) = self.requests.get(key) else { return };
        let client = request.client;
        match row_of(request.by) {
            None => self.turns.remove(self.services[request.service].waiting_by(request.by), key.slot()),
            Some(row) => {
                let client = self.clients.get_mut(client).expect("what a client that's gone has asked doesn't wait");
                self.turns.remove(&mut client.waiting[row], key.slot());
            }
        }
        self.line_up(client);
    }

    /// Has a client stand in the rows where it should: it has something there that waits, and may have more out.
    pub(crate) fn line_up(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let serving = &mut self.services[client.service];
        let may_send = client.may_send(serving);
        for row in 0..ROWS {
            let should = may_send && !client.waiting[row].is_empty();
            match (std::mem::replace(&mut client.lined_up[row], should), should) {
                (false, true) => self.rows[row].push_back(&mut serving.rows[row], key.slot()),
                (true, false) => self.rows[row].remove(&mut serving.rows[row], key.slot()),
                _ => {}
            }
        }
    }

    /// Gives those behind a client their turn before its next.
    fn go_behind(&mut self, key: Key, row: usize) {
        if let Some(client) = self.clients.get(key).filter(|client| client.lined_up[row]) {
            let list = &mut self.services[client.service].rows[row];
            self.rows[row].remove(list, key.slot());
            self.rows[row].push_back(list, key.slot());
        }
    }

    /// Sends what waits in a row, as far as there's room for it.
    pub(crate) fn dispatch_row<B: Backend>(&mut self, cx: &mut Cx<B>, at: u32, row: usize) {
        let mut passed = 0;
        while let Some(slot) = self.services[at].rows[row].front() {
            let client = self.clients.key_at(slot).expect("a client stands in a row as long as it's there");
            let first = self.clients.get(client).and_then(|client| client.waiting[row].front());
            let key = first.and_then(|slot| self.requests.key_at(slot)).expect("something of it waits");
            if let Some(upstream) = self.choice(key) {
                if !self.send_waiting(cx, key, upstream) {
                    break;
                }
            } else {
                passed += 1;
                let serving = &self.services[at];
                if serving.service.matching != Matching::Order || passed > PASSED_MAX.min(serving.rows[row].len()) {
                    break;
                }
            }
            self.go_behind(client, row);
        }
    }

    /// Lets go what a client has waiting, which is about to end.
    pub(crate) fn drop_waiting(&mut self, key: Key) {
        for row in 0..ROWS {
            while let Some(slot) = self.clients.get(key).and_then(|client| client.waiting[row].front()) {
                let request = self.requests.key_at(slot).expect("a request waits as long as it's there");
                self.finish(request);
            }
        }
    }
}
