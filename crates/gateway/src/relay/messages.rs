//! Clients whose messages are carried: the multiplexor has their connections, and each counts as a pair here, from its admission to its
//! one end.
//!
//! ```text
//!  accepted ──► admission, room ──► a place in the table ──► Mux::admit ──► (the mux's upcalls) ──► Mux::next_ended ──► counted out
//! ```

use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{Addr, Backend, Cx, DatagramId, Flow, Incoming, Key, Slab, Time};
use midmile_mux::{self as mux, Census, Mux, Service, ServiceId};

use super::Relay;
use crate::counters::RouteCounters;
use crate::reason::{End, Refusal};
use crate::report::PairReport;
use crate::serving::DoorId;

/// Requests that a core holds at once: beyond them clients that ask more wait until others are answered.
const REQUESTS_MAX: u32 = 65_536;

/// How long clients are read on when a drain begins: what those who have come just now ask is on its way.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// A client whose messages are carried.
#[derive(Debug)]
struct Visitor {
    /// The route it's served by, in the core's table.
    serving: Key,
    peer: Addr,
    opened: Time,
}

/// The multiplexor of a core, and the clients that it has.
#[derive(Debug)]
pub(super) struct Messages {
    /// Made when the first route of messages opens: its tables are of no use to the others.
    mux: Option<Box<Mux>>,
    visitors: Slab<Visitor>,
    /// When clients go that have come to rest, if a drain has begun.
    drain_at: Option<Time>,
    /// What is left is cut: it isn't that all it had asked is answered.
    cuts: bool,
}

impl Messages {
    /// No clients; at most `clients_max`, for which address space is reserved.
    pub(super) fn new(clients_max: u32) -> Self {
        Self { mux: None, visitors: Slab::with_capacity(clients_max), drain_at: None, cuts: false }
    }

    /// Clients that are there.
    #[cfg(any(test, fuzzing))]
    pub(super) const fn len(&self) -> usize {
        self.visitors.len()
    }

    /// The multiplexor, if a connection's token is its own.
    pub(super) fn of(&mut self, token: u64) -> Option<&mut Mux> {
        self.mux.as_deref_mut().filter(|_| Mux::owns(token))
    }

    fn serve<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        clients_max: u32,
        service: &Arc<Service>,
        counters: &Arc<RouteCounters>,
        census: &Arc<Census>,
    ) -> ServiceId {
        let mux = self.mux.get_or_insert_with(|| Box::new(Mux::new(clients_max, REQUESTS_MAX)));
        mux.serve(cx, service.clone(), counters.mux.clone(), census.clone())
    }
}

impl<L> Relay<L> {
    /// Begins to carry messages for those who come by `door`, if its route does.
    pub(super) fn begin_service<B: Backend>(&mut self, cx: &mut Cx<B>, door: DoorId) {
        let clients_max = self.pairs.max();
        let Some(serving) = self.servings.at(door).and_then(|key| self.servings.get_mut(key)) else { return };
        let Some(service) = &serving.route.mux else { return };
        serving.service = Some(self.messages.serve(cx, clients_max, service, &serving.counters, &serving.census));
    }

    /// The service behind a door, and what it is; taken from there, for the route is about to change.
    pub(super) fn take_service(&mut self, door: DoorId) -> Option<(ServiceId, Arc<Service>)> {
        let serving = self.servings.at(door).and_then(|key| self.servings.get_mut(key))?;
        serving.service.take().zip(serving.route.mux.clone())
    }

    /// Goes on with the service that was behind a door before its route changed, or begins another where messages are told apart or
    /// matched otherwise now.
    pub(super) fn go_on_with_service<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        door: DoorId,
        before: Option<(ServiceId, Arc<Service>)>,
    ) {
        let Some((id, old)) = before else { return self.begin_service(cx, door) };
        let serving = self.servings.at(door).and_then(|key| self.servings.get_mut(key));
        let new = serving.as_ref().and_then(|serving| serving.route.mux.clone());
        let alike = |new: &Arc<Service>| new.framing == old.framing && new.matching == old.matching;
        if let (Some(serving), Some(new), Some(mux)) = (serving, new.filter(alike), &mut self.messages.mux) {
            mux.swap(cx, id, new);
            serving.service = Some(id);
        } else {
            self.retire_service(cx, Some(id));
            self.begin_service(cx, door);
        }
    }

    /// No more clients come to a service; it goes when its last client has gone.
    pub(super) fn retire_service<B: Backend>(&mut self, cx: &mut Cx<B>, id: Option<ServiceId>) {
        if let (Some(id), Some(mux)) = (id, &mut self.messages.mux) {
            mux.retire(cx, id);
        }
    }

    /// Clients go as they come to rest, from a moment on: each once all that it has asked is answered.
    pub(super) fn drain_messages<B: Backend>(&mut self, cx: &Cx<B>) {
        if self.messages.mux.is_some() {
            self.messages.drain_at = Some(cx.now().after(DRAIN_GRACE));
        }
    }

    /// Clients that are left go at once.
    pub(super) fn cut_messages<B: Backend>(&mut self, cx: &mut Cx<B>) {
        self.messages.cuts = true;
        if let Some(mux) = &mut self.messages.mux {
            mux.cut(cx);
        }
        self.count_ended(cx);
    }

    /// Gives an admitted client to the multiplexor.
    pub(super) fn open_visitor<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        serving_key: Key,
        service: ServiceId,
        mut incoming: Incoming<B::Socket>,
    ) {
        let Some(serving) = self.servings.get_mut(serving_key) else { return cx.refuse(incoming) };
        // It was seen that there is room; another core may have taken it since.
        if !self.pairs.reserve() {
            serving.counters.refusals[Refusal::PairsMax.index()].add(1);
            return cx.refuse(incoming);
        }
        if !serving.let_in() {
            self.pairs.unreserve();
            serving.counters.refusals[Refusal::PairsMax.index()].add(1);
            return cx.refuse(incoming);
        }
        let visitor = Visitor { serving: serving_key, peer: cx.incoming_peer(&mut incoming).clone(), opened: cx.now() };
        let owner =
            self.messages.visitors.insert(visitor).expect("the table has room for as many as the bound lets in");
        let mux = self.messages.mux.as_mut().expect("a service was begun");
        match mux.admit(cx, service, incoming, owner.to_bits()) {
            Ok(()) => {
                serving.counters.pairs_opened.add(1);
                serving.counters.pairs_open.add(1);
            }
            Err((incoming, why)) => {
                serving.counters.refusals[Refusal::from(why).index()].add(1);
                self.messages.visitors.remove(owner);
                self.pairs.unreserve();
                self.servings.pair_ended(serving_key);
                cx.refuse(incoming);
            }
        }
    }

    /// A backend has answered by a datagram. Nobody else here has sockets for them.
    pub(super) fn datagram_came<B: Backend>(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        if let Some(mux) = &mut self.messages.mux {
            mux.on_datagram(cx, socket, flow, bytes);
        }
    }

    /// A backend doesn't take datagrams.
    pub(super) fn datagrams_failed<B: Backend>(&mut self, cx: &mut Cx<B>, socket: DatagramId) {
        if let Some(mux) = &mut self.messages.mux {
            mux.on_datagrams_failed(cx, socket);
        }
    }

    /// Counts the clients out that have ended, each under one reason.
    pub(super) fn count_ended<B: Backend>(&mut self, cx: &Cx<B>) {
        while let Some(ended) = self.messages.mux.as_mut().and_then(|mux| mux.next_ended()) {
            let end = match ended.end {
                mux::End::Drained if !self.messages.cuts => End::Answered,
                end => End::from(end),
            };
            let Some(visitor) = self.messages.visitors.remove(Key::from_bits(ended.owner)) else { continue };
            self.pairs.unreserve();
            if let Some(serving) = self.servings.get(visitor.serving) {
                serving.counters.ends[end.index()].add(1);
                serving.counters.pairs_open.sub(1);
                if serving.route.log_pairs {
                    let report = PairReport {
                        route: serving.route.name.clone(),
                        client: visitor.peer,
                        backend: "".into(),
                        end,
                        lasted: cx.now().since(visitor.opened),
                        connected_after: None,
                        first_byte_after: None,
                        upstream_bytes: None,
                        downstream_bytes: None,
                    };
                    if self.reports.try_send(report).is_err() {
                        self.counters.reports_lost.add(1);
                    }
                }
            }
            self.servings.pair_ended(visitor.serving);
        }
    }

    /// The turn ends for the multiplexor: what it has gathered leaves, and the alarm goes off when it has to be asked next.
    pub(super) fn end_turn_of_messages<B: Backend>(&mut self, cx: &mut Cx<B>) {
        let Some(mux) = &mut self.messages.mux else { return };
        if self.messages.drain_at.is_some_and(|at| cx.now() >= at) {
            self.messages.drain_at = None;
            mux.drain(cx);
        }
        mux.on_turn_end(cx);
        let due = mux.due();
        self.count_ended(cx);
        if let Some(due) = due.into_iter().chain(self.messages.drain_at).min() {
            self.arm(cx, due);
        }
    }
}

/// What the multiplexor calls it, as pairs' ends are called.
impl From<mux::End> for End {
    fn from(end: mux::End) -> Self {
        match end {
            mux::End::Finished => Self::Finished,
            mux::End::ClientReset => Self::ClientReset,
            mux::End::ClientLost => Self::ClientLost,
            mux::End::IdleTimeout => Self::IdleTimeout,
            mux::End::MessageTimeout => Self::MessageTimeout,
            mux::End::MessageTooLong => Self::MessageTooLong,
            mux::End::MessageBroken => Self::MessageBroken,
            mux::End::MessageCut => Self::MessageCut,
            mux::End::MessageEmpty => Self::MessageEmpty,
            mux::End::MessageShort => Self::MessageShort,
            mux::End::NotAQuery => Self::NotAQuery,
            mux::End::AnswersUnread => Self::AnswersUnread,
            mux::End::NoBackend => Self::NoBackend,
            mux::End::Unanswered => Self::Unanswered,
            mux::End::Panicked => Self::Panicked,
            mux::End::Drained => Self::Drained,
        }
    }
}

/// What the multiplexor calls it, as refusals are called.
impl From<mux::Refused> for Refusal {
    fn from(refused: mux::Refused) -> Self {
        match refused {
            mux::Refused::ClientsMax => Self::PairsMax,
            mux::Refused::ClientsPerAddress => Self::ClientsPerAddress,
            mux::Refused::Draining => Self::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_the_name_that_the_multiplexor_gives_it() {
        for end in mux::End::ALL {
            assert_eq!(End::from(*end).name(), end.name());
        }
        for refused in mux::Refused::ALL.iter().filter(|refused| **refused != mux::Refused::ClientsMax) {
            assert_eq!(Refusal::from(*refused).name(), refused.name());
        }
    }
}
