//! What holds between clients, requests, upstreams and chunks at all times.

use std::collections::HashMap;

use midmile_engine::Key;

use crate::chunks::Chain;
use crate::detour::By;
use crate::list::List;
use crate::mux::Mux;
use crate::request::State;
use crate::service::Matching;
use crate::serving::Serving;
use crate::token::Token;
use crate::transfer::CLIENT_TRANSFERS_MAX;
use crate::turns::{ROWS, row_of};
use crate::upstream::{Pending, Stand};

impl Mux {
    /// Asserts, between turns, the invariants between all of its tables. Simulation calls it each turn; it looks at everything.
    ///
    /// # Panics
    /// When one of them doesn't hold.
    pub fn check(&self) {
        self.check_clients();
        self.check_requests();
        self.check_rows();
        self.check_upstreams();
        let requests = self.requests.keys().filter_map(|key| Some(&self.requests.get(key)?.bytes));
        let clients = self.clients.keys().filter_map(|key| Some(&self.clients.get(key)?.out));
        let upstreams = self.upstreams.keys().filter_map(|key| Some(&self.upstreams.get(key)?.out));
        let chunks: usize = requests.chain(clients).chain(upstreams).map(Chain::chunks).sum();
        assert_eq!(self.chunks.used(), chunks, "a chunk has leaked");
    }

    fn check_clients(&self) {
        let mut outstanding: HashMap<Key, (u16, u16, u16, usize)> = HashMap::new();
        for request in self.requests.keys().filter_map(|key| self.requests.get(key)) {
            let by_order = self.services[request.service].service.matching == Matching::Order;
            let (all, carried, transfers, kept) = outstanding.entry(request.client).or_default();
            *all += 1;
            *carried += u16::from(by_order && request.state != State::Waiting);
            *transfers += u16::from(request.is_transfer());
            *kept += request.bytes.len();
        }
        let mut by_service: HashMap<u32, usize> = HashMap::new();
        for key in self.clients.keys() {
            let Some(client) = self.clients.get(key) else { continue };
            *by_service.entry(client.service).or_default() += 1;
            let counted = outstanding.get(&key).copied().unwrap_or_default();
            assert_eq!(
                (client.outstanding, client.carried, client.transfers, client.kept),
                counted,
                "a client's requests"
            );
            assert_eq!(
                client.carried == 0,
                client.upstream == Key::NONE,
                "a client is bound to an upstream for nothing"
            );
            assert!(client.transfers <= CLIENT_TRANSFERS_MAX, "a client has more transfers than it may");
            assert!(!client.queued || self.dirty.contains(&Token::Client(key)), "a client believes that it's queued");
            assert!(!client.noted || self.noted.contains(&key), "a client believes that it's noted");
            assert_eq!(client.starved, self.starved.contains(&key), "a client doesn't know that it waits");
            assert!(!client.starved || !client.reading, "a client that waits is read");
            assert!(client.begun.is_none() || client.partial, "a message has begun, and none has come in part");
            assert!(client.ending.is_none() || !client.reading, "a client that ends is read");
            let waits = client.starved || client.outstanding > 0 || !client.out.is_empty();
            assert!(client.reading || waits || client.ending.is_some(), "a client isn't read, for no reason");
        }
        for at in self.services.places() {
            let count = by_service.get(&at).copied().unwrap_or(0);
            assert_eq!(self.services[at].clients, count, "a service's clients");
        }
    }

    fn check_requests(&self) {
        let mut all = 0;
        for serving in self.services.iter() {
            all += serving.age.len();
            let ages = self.in_list(&serving.age, &self.ages);
            for pair in ages.windows(2) {
                let since = |key| self.requests.get(key).map(|request| request.since);
                assert!(since(pair[0]) <= since(pair[1]), "requests stand out of their order");
            }
            self.check_states(serving, &ages);
        }
        assert_eq!(all, self.requests.len(), "a request belongs to no service");
    }

    fn check_states(&self, serving: &Serving, ages: &[Key]) {
        let lists = [
            (&serving.waiting_transfers, State::Waiting, Some(By::Own)),
            (&serving.waiting_lone, State::Waiting, Some(By::Lone)),
            (&serving.sent, State::Sent, None),
            (&serving.late, State::Late, None),
            (&serving.posted, State::Posted, None),
            (&serving.reposted, State::Reposted, None),
        ];
        for (list, state, by) in lists {
            let listed = self.in_list(list, &self.turns);
            let is_of = |key: &&Key| {
                let request = self.requests.get(**key);
                request.is_some_and(|request| request.state == state && by.is_none_or(|by| request.by == by))
            };
            assert_eq!(listed.len(), ages.iter().filter(is_of).count(), "requests of {state:?}");
            assert!(listed.iter().all(|key| is_of(&key)), "requests of another state than {state:?}");
            let sent: Vec<_> = listed.iter().filter_map(|key| Some(self.requests.get(*key)?.sent_at)).collect();
            assert!(state == State::Waiting || sent.is_sorted(), "requests of {state:?} stand out of their order");
        }
        for key in ages {
            let Some(request) = self.requests.get(*key).filter(|request| request.state != State::Waiting) else {
                continue;
            };
            let upstream = self.upstreams.get(request.upstream).expect("a request is on an upstream that is there");
            assert!(
                upstream.pending.keys().any(|other| other == *key),
                "an upstream doesn't know a request of its own"
            );
            if matches!(request.state, State::Posted | State::Reposted) {
                let known = upstream.pending.at(request.posted_id);
                assert!(upstream.is_datagrams() && known == Some(*key), "a datagram is out under another id");
            }
        }
    }

    /// That each request which waits stands in its client's list, and each client of which some do in its row.
    fn check_rows(&self) {
        let mut listed = 0;
        for (key_of_client, client) in self.clients.keys().filter_map(|key| Some((key, self.clients.get(key)?))) {
            let serving = &self.services[client.service];
            for row in 0..ROWS {
                let waiting = self.in_list(&client.waiting[row], &self.turns);
                listed += waiting.len();
                let is_right = |key: &Key| {
                    let request = self.requests.get(*key).expect("it's listed");
                    (request.client, request.state) == (key_of_client, State::Waiting)
                        && row_of(request.by) == Some(row)
                };
                assert!(waiting.iter().all(is_right), "a request waits in another's list");
                let should = !waiting.is_empty() && client.may_send(serving);
                assert_eq!(client.lined_up[row], should, "a client doesn't stand in its row, or for nothing");
            }
        }
        for (serving, row) in self.services.iter().flat_map(|serving| (0..ROWS).map(move |row| (serving, row))) {
            let slots: Vec<u32> =
                std::iter::successors(serving.rows[row].front(), |slot| self.rows[row].after(*slot)).collect();
            let stands = |slot: &u32| self.clients.get(self.clients.key_at(*slot)?).map(|client| client.lined_up[row]);
            assert!(slots.iter().all(|slot| stands(slot) == Some(true)), "somebody else stands in a row");
            assert_eq!(slots.len(), serving.rows[row].len());
        }
        let waits =
            |key: &Key| self.requests.get(*key).is_some_and(|it| it.state == State::Waiting && row_of(it.by).is_some());
        assert_eq!(listed, self.requests.keys().filter(waits).count(), "a request waits in no list");
    }

    fn in_list(&self, list: &List, links: &crate::list::Links) -> Vec<Key> {
        let slots = std::iter::successors(list.front(), |slot| links.after(*slot));
        let keys: Vec<Key> = slots.map(|slot| self.requests.key_at(slot).expect("a listed request is there")).collect();
        assert_eq!((keys.len(), keys.is_empty()), (list.len(), list.is_empty()));
        keys
    }

    fn check_upstreams(&self) {
        let mut sockets = 0;
        for key in self.upstreams.keys() {
            sockets += self.check_datagrams(key);
            let Some(upstream) = self.upstreams.get(key) else { continue };
            assert!(self.services[upstream.service].upstreams.contains(&key), "an upstream belongs to no service");
            assert_eq!(upstream.pending.keys().count(), upstream.pending.len(), "an id is lost, or is in use twice");
            let empty = upstream.pending.len() == 0 && upstream.out.is_empty();
            assert!(upstream.stand == Stand::Open || empty, "requests are on an upstream that doesn't stand");
            let lone = self.requests.get(upstream.own).is_some_and(|request| request.by == By::Lone);
            assert_eq!(upstream.lone, lone, "an upstream is there for another kind of request");
            let over = upstream.own != Key::NONE && self.requests.get(upstream.own).is_none();
            assert!(!over, "a transfer's upstream has outlasted it");
            assert!(!upstream.queued || self.dirty.contains(&Token::Upstream(key)), "an upstream believes it's queued");
        }
        let listed: usize = self.services.iter().map(|serving| serving.upstreams.len()).sum();
        assert_eq!(listed, self.upstreams.len(), "a service lists an upstream that's gone");
        assert_eq!(sockets, self.owners.count(), "a socket belongs to nobody");
    }

    /// Of an upstream of datagrams; says how many sockets it has.
    fn check_datagrams(&self, key: Key) -> usize {
        let Some(upstream) = self.upstreams.get(key) else { return 0 };
        let Some(posts) = &upstream.posts else { return 0 };
        let Pending::Drawn(drawn) = &upstream.pending else { panic!("datagrams whose ids aren't drawn") };
        drawn.check();
        let bound: Vec<_> = posts.bound().collect();
        assert!(bound.iter().all(|(_, socket)| self.owners.of(*socket) == Some(key)), "a socket of another's");
        assert_eq!(upstream.stand == Stand::Open, posts.in_use() > 0, "datagrams have no socket to go by");
        let uses = drawn.posts().all(|place| posts.at(place).is_some());
        assert!(uses, "a request went by a socket that's gone");
        bound.len()
    }
}
