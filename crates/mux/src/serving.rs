//! Services as this core serves them.

use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{Key, Time};
use midmile_wire::frame::{Framing, Resp, Side};

use crate::census::Census;
use crate::client::Origin;
use crate::counters::Counters;
use crate::detour::By;
use crate::list::List;
use crate::outage::Outage;
use crate::pace::Pace;
use crate::prospect::Prospect;
use crate::request::State;
use crate::service::{Place, Service};
use crate::turns::ROWS;

/// A service, its upstreams and its requests.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) service: Arc<Service>,
    pub(crate) counters: Arc<Counters>,
    /// How backends' messages are told apart.
    pub(crate) answers: Framing,
    pub(crate) upstreams: Vec<Key>,
    /// None of them leads anywhere ([`crate::Matching::Id`]).
    pub(crate) outage: Option<Outage>,
    /// How many of them are there for one transfer each.
    pub(crate) transfers: usize,
    /// And how many for one suspect each.
    pub(crate) lone: usize,
    /// With which of them the next choice begins.
    pub(crate) next: usize,
    /// All its requests.
    pub(crate) age: List,
    /// Clients whose turn is to come: of which something waits, and which may have more out.
    pub(crate) rows: [List; ROWS],
    /// Transfers that wait for an upstream of their own, or until theirs stands. Nobody else waits behind them.
    pub(crate) waiting_transfers: List,
    /// Suspects that wait for a connection of their own, or until theirs stands.
    pub(crate) waiting_lone: List,
    /// When the first of them has waited for long enough.
    pub(crate) lone_due: Option<Time>,
    /// Those on an upstream that may be sent on another yet: of which the answer may still come soon, and those that are late.
    pub(crate) sent: List,
    pub(crate) late: List,
    /// Those that were sent as a datagram once, and twice.
    pub(crate) posted: List,
    pub(crate) reposted: List,
    /// Whether any place is asked by datagrams.
    pub(crate) has_datagrams: bool,
    pub(crate) clients: usize,
    /// How long the answers of late were, of all clients.
    pub(crate) prospect: Prospect,
    /// How fast they came.
    pub(crate) pace: Pace,
    /// Clients by where they are from, those of other cores too.
    pub(crate) census: Arc<Census>,
    pub(crate) retired: bool,
}

impl Serving {
    pub(crate) fn new(service: Arc<Service>, counters: Arc<Counters>, census: Arc<Census>) -> Self {
        Self {
            answers: of_answers(&service.framing),
            has_datagrams: service.has_datagrams(),
            service,
            counters,
            upstreams: Vec::new(),
            outage: None,
            transfers: 0,
            lone: 0,
            next: 0,
            age: List::EMPTY,
            rows: [List::EMPTY; ROWS],
            waiting_transfers: List::EMPTY,
            waiting_lone: List::EMPTY,
            lone_due: None,
            sent: List::EMPTY,
            late: List::EMPTY,
            posted: List::EMPTY,
            reposted: List::EMPTY,
            clients: 0,
            prospect: Prospect::OF_SERVICE,
            pace: Pace::FIRST,
            census,
            retired: false,
        }
    }

    /// Goes on with another version, and says which was there before.
    pub(crate) fn replace(&mut self, service: Arc<Service>) -> Arc<Service> {
        self.answers = of_answers(&service.framing);
        self.has_datagrams = service.has_datagrams();
        self.outage = None;
        std::mem::replace(&mut self.service, service)
    }

    /// The place that is the same as one of another version.
    pub(crate) fn place_like(&self, other: &Place) -> Option<usize> {
        let is_like = |place: &Arc<Place>| {
            place.name == other.name && place.addrs == other.addrs && place.transport == other.transport
        };
        self.service.backends.iter().position(is_like)
    }

    /// Where requests wait that are alone on an upstream: suspects, or transfers.
    pub(crate) const fn waiting_by(&mut self, by: By) -> &mut List {
        match by {
            By::Lone => &mut self.waiting_lone,
            _ => &mut self.waiting_transfers,
        }
    }

    /// The list in which requests stand that are in a state on an upstream, if they stand in one.
    pub(crate) const fn list_of(&mut self, state: State) -> Option<&mut List> {
        match state {
            State::Sent => Some(&mut self.sent),
            State::Late => Some(&mut self.late),
            State::Posted => Some(&mut self.posted),
            State::Reposted => Some(&mut self.reposted),
            State::Waiting | State::Settled => None,
        }
    }

    /// How long after a request was sent its answer is late.
    pub(crate) fn patience(&self) -> Duration {
        self.pace.patience().min(self.service.bounds.attempt_timeout)
    }

    /// Counts a client in, which the census has already.
    pub(crate) fn welcome(&mut self) {
        self.clients += 1;
        self.counters.clients_opened.add(1);
        self.counters.clients_open.add(1);
    }

    /// Counts a client out.
    pub(crate) fn farewell(&mut self, origin: Option<Origin>) {
        self.clients -= 1;
        self.counters.clients_open.sub(1);
        if let Some(origin) = origin {
            self.census.leave(origin);
        }
    }
}

/// How the answers to messages of this framing are told apart.
fn of_answers(framing: &Framing) -> Framing {
    match framing {
        Framing::Resp(resp) => Framing::Resp(Resp { side: Side::Answers, ..*resp }),
        other => other.clone(),
    }
}

/// All services of a core, by their places.
#[derive(Debug, Default)]
pub(crate) struct Services {
    places: Vec<Option<Serving>>,
}

impl Services {
    pub(crate) fn insert(&mut self, serving: Serving) -> u32 {
        let at = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        if at == self.places.len() {
            self.places.push(None);
        }
        self.places[at] = Some(serving);
        u32::try_from(at).expect("few services")
    }

    pub(crate) fn remove(&mut self, at: u32) {
        self.places[at as usize] = None;
    }

    pub(crate) fn get(&self, at: u32) -> Option<&Serving> {
        self.places.get(at as usize)?.as_ref()
    }

    /// One more than the last place.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.places.len()).expect("few services")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Serving> {
        self.places.iter().flatten()
    }

    /// The places at which a service is.
    pub(crate) fn places(&self) -> Vec<u32> {
        (0..self.len()).filter(|at| self.get(*at).is_some()).collect()
    }
}

impl Index<u32> for Services {
    type Output = Serving;

    fn index(&self, at: u32) -> &Serving {
        self.places[at as usize].as_ref().expect("a service stays as long as anything of it")
    }
}

impl IndexMut<u32> for Services {
    fn index_mut(&mut self, at: u32) -> &mut Serving {
        self.places[at as usize].as_mut().expect("a service stays as long as anything of it")
    }
}
