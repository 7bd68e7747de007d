//! Early dial: the onward connection is begun when the client's SYN comes, one round trip before the client is accepted.
//!
//! ```text
//!  SYN ──► heralded: a pair without a client leg ──► accepted: claimed, the bytes flow
//!                         └── not accepted in time, or the server failed first ──► ended; a client that still comes is served anew
//! ```
//! A SYN proves nothing: its sender may be forged. So what it sets off is bounded here as well as where it is heard: so many pairs
//! without a client at once, each for a few seconds.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use midmile_engine::{Addr, Backend, Cx, Incoming, Key, Time};

use super::Relay;
use super::original::{canonical, original};
use crate::pair::{Pair, State, Token};
use crate::reason::{End, Refusal};
use crate::serving::DoorId;

/// How long a client may take from its SYN to being accepted: one retransmission of each packet of the handshake (RFC 6298: 1 s
/// and 2 s), and some.
const CLAIM_WAIT: Duration = Duration::from_secs(4);
/// Pairs without a client at once, on a core.
const UNCLAIMED_MAX: usize = 1024;
/// Places in which clients are remembered that were accepted lately; a power of two.
const ACCEPTED_PLACES: usize = 4096;

/// A client's SYN, as it was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    /// The way in that it is for.
    pub(crate) door: DoorId,
    /// Who seems to have sent it.
    pub(crate) client: SocketAddr,
    /// The address that it was sent to.
    pub(crate) listener: SocketAddr,
}

/// Pairs that wait for their client.
#[derive(Debug)]
pub(super) struct Heralds {
    syns: Receiver<Syn>,
    /// By serving and client. Never more than `max`, for which there's room.
    unclaimed: HashMap<(Key, SocketAddr), Key>,
    /// In the order in which their time runs out. Those claimed since are skipped.
    deadlines: VecDeque<(Time, Key, SocketAddr)>,
    max: usize,
    /// Hashes of clients that were accepted unheralded: on a short path the word of a SYN comes after its connection.
    accepted: Box<[u64]>,
    hasher: RandomState,
}

impl Heralds {
    pub(super) fn new(syns: Receiver<Syn>, pairs_max: u32) -> Self {
        let max = UNCLAIMED_MAX.min(pairs_max as usize / 4);
        Self {
            syns,
            // Twice the room, so that places of those removed are cleared without growing.
            unclaimed: HashMap::with_capacity(2 * max),
            deadlines: VecDeque::with_capacity(max),
            max,
            accepted: vec![0; ACCEPTED_PLACES].into(),
            hasher: RandomState::new(),
        }
    }

    /// Whether any pair waits for its client.
    pub(super) fn is_idle(&self) -> bool {
        self.deadlines.is_empty()
    }

    fn place(&mut self, serving: Key, client: SocketAddr) -> (&mut u64, u64) {
        let hash = self.hasher.hash_one((serving, client)) | 1;
        let index = usize::try_from(hash >> 32).unwrap_or(0) % ACCEPTED_PLACES;
        (&mut self.accepted[index], hash)
    }

    fn note_accepted(&mut self, serving: Key, client: SocketAddr) {
        let (place, hash) = self.place(serving, client);
        *place = hash;
    }

    /// Whether the client was accepted before its SYN was heard of; each acceptance counts once.
    fn was_accepted(&mut self, serving: Key, client: SocketAddr) -> bool {
        let (place, hash) = self.place(serving, client);
        let was = *place == hash;
        if was {
            *place = 0;
        }
        was
    }
}

impl<L> Relay<L> {
    /// Opens a pair for each SYN that was heard of.
    pub(super) fn hear<B: Backend>(&mut self, cx: &mut Cx<B>) {
        while let Ok(syn) = self.heralds.syns.try_recv() {
            self.herald(cx, syn);
        }
    }

    fn herald<B: Backend>(&mut self, cx: &mut Cx<B>, syn: Syn) {
        let Some(serving_key) = self.servings.at(syn.door) else { return };
        let Some(serving) = self.servings.get(serving_key) else { return };
        if !serving.route.early_dial || self.heralds.was_accepted(serving_key, syn.client) {
            return;
        }
        let place = (serving_key, syn.client);
        let admitted = self.admits(serving, Some(syn.client.ip()), cx.conns_free()).is_ok();
        if !admitted || self.heralds.deadlines.len() >= self.heralds.max || self.heralds.unclaimed.contains_key(&place)
        {
            serving.counters.early_declined.add(1);
            return;
        }
        if serving.route.original && !serving.route.is_intercepted(syn.listener) {
            return;
        }
        let mut pair = Pair::new(serving_key, Addr::Inet(syn.client), State::Dialling, cx.now());
        pair.unclaimed = true;
        pair.destination = Some(syn.listener);
        pair.given = original(&serving.route, syn.listener);
        let Some(key) = self.pairs.insert(pair) else { return };
        if let Some(serving) = self.servings.get_mut(serving_key) {
            if !serving.let_in() {
                self.pairs.remove(key);
                return;
            }
            serving.counters.pairs_opened.add(1);
            serving.counters.pairs_open.add(1);
            serving.counters.early_dials.add(1);
        }
        self.heralds.unclaimed.insert(place, key);
        self.heralds.deadlines.push_back((cx.now().after(CLAIM_WAIT), serving_key, syn.client));
        self.watch_clock(cx);
        self.begin_dialling(cx, key);
    }

    /// Gives an accepted client the pair that was opened at its SYN; gives the client back if there's none.
    pub(super) fn claim<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        serving: Key,
        mut incoming: Incoming<B::Socket>,
    ) -> Option<Incoming<B::Socket>> {
        // Its SYN was heard of as IPv4, also where the listener sees it as IPv6.
        let Some(client) = canonical(cx.incoming_peer(&mut incoming)) else { return Some(incoming) };
        if !self.is_claimed_by(cx, (serving, client), &incoming) {
            return Some(incoming);
        }
        let key = self.heralds.unclaimed.remove(&(serving, client));
        let Some(pair) = key.and_then(|key| self.pairs.get_mut(key)).filter(|pair| pair.unclaimed) else {
            if key.is_none() {
                self.heralds.note_accepted(serving, client);
            }
            return Some(incoming);
        };
        let key = key?;
        let Some(serving) = self.servings.get(pair.serving) else { return Some(incoming) };
        match cx.admit(incoming, Token::Client(key).to_bits(), serving.meters.upstream) {
            Ok(conn) => {
                pair.client = conn;
                pair.unclaimed = false;
                pair.opened = cx.now();
                serving.counters.early_used.add(1);
                self.go_on_claimed(cx, key);
            }
            Err(incoming) => {
                serving.counters.refusals[Refusal::Descriptors.index()].add(1);
                cx.refuse(incoming);
                self.end(cx, key, End::ClientGone);
            }
        }
        None
    }

    /// Whether the pair that waits for this client, if one does, goes where the client went: of an intercepted one that may be
    /// anywhere, and one port of it may go to several places.
    fn is_claimed_by<B: Backend>(&self, cx: &Cx<B>, place: (Key, SocketAddr), incoming: &Incoming<B::Socket>) -> bool {
        let waiting = self.heralds.unclaimed.get(&place).and_then(|key| self.pairs.get(*key));
        let Some(given) = waiting.and_then(|pair| pair.given.as_ref()) else { return true };
        cx.incoming_addr(incoming).is_some_and(|addr| given.addr().is_some_and(|to| canonical(&addr) == canonical(to)))
    }

    /// The pair has its client: does what couldn't be done without it.
    fn go_on_claimed<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        if pair.state == State::Dialling {
            // If it waits for a trunk connection, those that are kept for clients are there for it now.
            self.pools.served = false;
            return cx.set_timer(pair.client, pair.dial_deadline.since(cx.now()));
        }
        // The server leg stood before the client did: nobody waited for it.
        pair.connected_after = Some(NonZeroU64::MIN);
        if let Some(serving) = self.servings.get(pair.serving) {
            serving.counters.connect.observe(Duration::ZERO);
        }
        if pair.awaits_answer {
            cx.read(pair.server);
        } else {
            cx.forward(pair.server, pair.client);
        }
        match pair.state {
            State::Flowing => self.flow(cx, key),
            _ => cx.set_timer(pair.client, pair.dial_deadline.since(cx.now())),
        }
    }

    /// Ends the pairs whose client hasn't come in time; all of them if `all`.
    pub(super) fn reap_unclaimed<B: Backend>(&mut self, cx: &mut Cx<B>, all: bool) {
        while let Some((deadline, serving, client)) = self.heralds.deadlines.front().copied()
            && (all || deadline <= cx.now())
        {
            self.heralds.deadlines.pop_front();
            // A later SYN of the same client may stand there by now; it has a deadline of its own.
            let due = |key: &Key| self.pairs.get(*key).is_none_or(|pair| pair.opened.after(CLAIM_WAIT) <= deadline);
            let Some(key) = self.heralds.unclaimed.get(&(serving, client)).copied().filter(due) else { continue };
            self.heralds.unclaimed.remove(&(serving, client));
            if self.pairs.get(key).is_some_and(|pair| pair.unclaimed) {
                self.end(cx, key, End::Unclaimed);
            }
        }
    }
}
