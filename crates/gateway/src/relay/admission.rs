//! Who is let in, and the pair that each gets.

use std::net::{IpAddr, SocketAddr};

use midmile_engine::{Backend, Cx, Handler, Incoming, Key};

use super::{Relay, original};
use crate::pair::{Pair, Side, State, Token};
use crate::reason::Refusal;
use crate::serving::{DoorId, Serving};

/// Longest accept queue that is let in before its listener closes.
const QUEUE_MAX: u32 = 65_535;

impl<L> Relay<L> {
    /// Accepts those who had connected before a listener closes: closing it would reset them.
    pub(super) fn let_in_the_queued<B: Backend<Listener = L>>(&mut self, cx: &mut Cx<B>, only: Option<DoorId>) {
        for listener in self.servings.listeners(only) {
            // A queue is never longer; whoever connects meanwhile can't keep us here.
            for _ in 0..QUEUE_MAX {
                let Some(incoming) = cx.take_incoming(listener) else { break };
                self.on_accept(cx, listener, incoming);
            }
        }
    }

    /// Whether the client may have a pair, or why not.
    pub(super) fn admits(&self, serving: &Serving, incoming: Option<IpAddr>, room: usize) -> Result<(), Refusal> {
        if incoming.is_some_and(|ip| !serving.route.admits(ip)) {
            return Err(Refusal::NotAllowed);
        }
        let legs = if serving.route.gate.is_some() || serving.service.is_some() { 1 } else { 2 };
        if self.pairs.is_full() || room < legs || serving.is_full() {
            return Err(Refusal::PairsMax);
        }
        Ok(())
    }

    /// Gives an admitted client a pair: the one that its SYN opened, or a new one.
    pub(super) fn take_in<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        serving: Key,
        incoming: Incoming<B::Socket>,
        destination: Option<SocketAddr>,
    ) {
        let early = self.servings.get(serving).is_some_and(|serving| serving.route.early_dial);
        let unheralded = if early { self.claim(cx, serving, incoming) } else { Some(incoming) };
        if let Some(incoming) = unheralded {
            self.open_pair(cx, serving, incoming, destination);
        }
    }

    fn open_pair<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        serving_key: Key,
        mut incoming: Incoming<B::Socket>,
        destination: Option<SocketAddr>,
    ) {
        let Some(serving) = self.servings.get_mut(serving_key) else { return cx.refuse(incoming) };
        if serving.route.gate.is_some() {
            return self.open_guest(cx, serving_key, incoming);
        }
        if let Some(service) = serving.service {
            return self.open_visitor(cx, serving_key, service, incoming);
        }
        let state = if serving.route.accept_proxy.is_some() { State::Header } else { State::Dialling };
        let mut pair = Pair::new(serving_key, cx.incoming_peer(&mut incoming).clone(), state, cx.now());
        pair.destination = destination;
        pair.given = destination.and_then(|destination| original::original(&serving.route, destination));
        // It was seen that there is room; another core may have taken it since.
        let Some(key) = self.pairs.insert(pair) else {
            serving.counters.refusals[Refusal::PairsMax.index()].add(1);
            return cx.refuse(incoming);
        };
        if !serving.let_in() {
            self.pairs.remove(key);
            serving.counters.refusals[Refusal::PairsMax.index()].add(1);
            return cx.refuse(incoming);
        }
        let token = Token::leg(key, Side::Client).to_bits();
        let client = match cx.admit(incoming, token, serving.meters.upstream) {
            Ok(client) => client,
            Err(incoming) => {
                self.pairs.remove(key);
                serving.counters.refusals[Refusal::Descriptors.index()].add(1);
                self.servings.pair_ended(serving_key);
                return cx.refuse(incoming);
            }
        };
        serving.counters.pairs_opened.add(1);
        serving.counters.pairs_open.add(1);
        let timeouts = serving.route.timeouts;
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.client = client;
        }
        if state == State::Header {
            cx.read(client);
            cx.set_timer(client, timeouts.header);
        } else {
            self.begin_dialling(cx, key);
        }
    }
}
