//! The public half: services and clients come and go, upcalls find their way in.

use std::collections::VecDeque;
use std::sync::Arc;

use midmile_engine::{Backend, ConnError, ConnId, Cx, DatagramId, Flow, Frame, Incoming, Key, MeterId, Slab, Time};

use crate::census::Census;
use crate::chunks::Chunks;
use crate::client::{Client, Origin};
use crate::counters::Counters;
use crate::list::Links;
use crate::posts::{Lots, Owners};
use crate::reason::{End, Refused};
use crate::request::Request;
use crate::sending::How;
use crate::service::{Matching, Service, ServiceId};
use crate::serving::{Services, Serving};
use crate::token::Token;
use crate::turns::ROWS;
use crate::upstream::Upstream;

/// Most upstreams of a core, of all services.
const UPSTREAMS_MAX: u32 = 16_384;
/// Chunks besides one for each request and two for each client: 16 MiB.
const CHUNKS_MORE: u32 = 32_768;

/// A client that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What [`Mux::admit`] was given for it.
    pub owner: u64,
    /// Its service.
    pub service: ServiceId,
    /// Why.
    pub end: End,
}

/// The multiplexor of one core. See the crate's documentation for what its owner has to do.
#[derive(Debug)]
pub struct Mux {
    pub(crate) clients: Slab<Client>,
    pub(crate) upstreams: Slab<Upstream>,
    pub(crate) requests: Slab<Request>,
    /// The order of requests by when their time began, and of those that wait or were sent.
    pub(crate) ages: Links,
    pub(crate) turns: Links,
    /// The order of clients of which some wait.
    pub(crate) rows: [Links; ROWS],
    pub(crate) chunks: Chunks,
    pub(crate) services: Services,
    /// Whose each socket for datagrams is, and where its ids and ports are drawn from.
    pub(crate) owners: Owners,
    pub(crate) lots: Lots,
    /// Clients and upstreams to be flushed at the turn's end. Invariant: each that says it's queued, and others that are gone.
    pub(crate) dirty: Vec<Token>,
    /// Upstreams whose backends are to be told of their answers, and when the first of them is; and others that are gone.
    pub(crate) untold: Vec<Key>,
    pub(crate) tell_at: Option<Time>,
    /// Clients of which a message has begun in this turn.
    pub(crate) noted: Vec<Key>,
    /// Clients that wait until there's room for requests, in the order of their coming.
    pub(crate) starved: VecDeque<Key>,
    pub(crate) ended: VecDeque<Ended>,
    /// With so many requests, clients wait.
    pub(crate) requests_max: usize,
    draining: bool,
}

impl Mux {
    /// A mux for at most `clients_max` clients and about `requests_max` requests at once: with so many, each client that comes with
    /// one more waits until others are answered. Reserves all memory: some 700 bytes a request and 1,300 a client, and 16 MiB,
    /// touched as it's used.
    #[must_use]
    pub fn new(clients_max: u32, requests_max: u32) -> Self {
        let slots = requests_max.saturating_add(clients_max);
        let many = clients_max as usize;
        Self {
            clients: Slab::with_capacity(clients_max),
            upstreams: Slab::with_capacity(UPSTREAMS_MAX),
            requests: Slab::with_capacity(slots),
            ages: Links::with_capacity(slots),
            turns: Links::with_capacity(slots),
            rows: std::array::from_fn(|_| Links::with_capacity(clients_max)),
            chunks: Chunks::new(slots.saturating_add(clients_max).saturating_add(CHUNKS_MORE)),
            services: Services::default(),
            owners: Owners::default(),
            lots: Lots::default(),
            dirty: Vec::with_capacity(2 * many + UPSTREAMS_MAX as usize),
            untold: Vec::with_capacity(UPSTREAMS_MAX as usize),
            tell_at: None,
            noted: Vec::with_capacity(2 * many),
            starved: VecDeque::with_capacity(2 * many),
            ended: VecDeque::with_capacity(many),
            requests_max: requests_max as usize,
            draining: false,
        }
    }

    /// Whether a connection's token is the mux's.
    #[must_use]
    pub const fn owns(token: u64) -> bool {
        Token::is_ours(token)
    }

    /// Begins a service: its upstreams are dialled. `counters` are this core's own, `census` is for all cores that serve it.
    ///
    /// # Panics
    /// If a place is asked by datagrams and answers are matched by their order: datagrams have none.
    pub fn serve<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        service: Arc<Service>,
        counters: Arc<Counters>,
        census: Arc<Census>,
    ) -> ServiceId {
        assert!(service.matching == Matching::Id || !service.has_datagrams(), "datagrams have no order");
        let at = self.services.insert(Serving::new(service, counters, census));
        self.man(cx, at);
        ServiceId(at)
    }

    /// Goes on with another version of the service, as a reload brings it. Upstreams to places that are still there (by name and addresses)
    /// are kept, with the new bounds; others go once their requests are answered. Framing and matching stay: for others, retire the service and begin
    /// another.
    ///
    /// # Panics
    /// If the matching is another, or as [`Mux::serve`].
    pub fn swap<B: Backend>(&mut self, cx: &mut Cx<B>, id: ServiceId, service: Arc<Service>) {
        let serving = &mut self.services[id.0];
        assert_eq!(serving.service.matching, service.matching, "a service's matching stays");
        assert!(service.matching == Matching::Id || !service.has_datagrams(), "datagrams have no order");
        let before = serving.replace(service);
        let keys = std::mem::take(&mut serving.upstreams);
        let places: Vec<_> = before.backends.iter().map(|place| serving.place_like(place)).collect();
        // Connections, and upstreams of datagrams, of each place.
        let mut kept = vec![[0, 0]; serving.service.backends.len()];
        let bounds = &serving.service.bounds;
        let bounds = [bounds.outstanding_per_upstream, bounds.datagrams_max()];
        for key in keys {
            let serving = &mut self.services[id.0];
            let Some(upstream) = self.upstreams.get_mut(key) else { continue };
            serving.upstreams.push(key);
            if upstream.own != Key::NONE {
                self.dismiss(cx, key);
                continue;
            }
            let place = upstream.place.and_then(|place| places[place]);
            let sort = usize::from(upstream.is_datagrams());
            let most = [serving.service.bounds.upstreams_per_backend, 1][sort];
            match place.filter(|place| kept[*place][sort] < most) {
                Some(place) => {
                    kept[place][sort] += 1;
                    upstream.place = Some(place);
                    upstream.pending.resize(bounds[sort]);
                }
                None => self.dismiss(cx, key),
            }
        }
        self.follow_places(id.0, &places);
        let clients: Vec<Key> = self.clients.keys().collect();
        clients.into_iter().for_each(|key| self.line_up(key));
        self.man(cx, id.0);
    }

    /// Takes no more clients for the service. It goes when its last client has gone.
    pub fn retire<B: Backend>(&mut self, cx: &mut Cx<B>, id: ServiceId) {
        self.services[id.0].retired = true;
        self.bury(cx, id.0);
    }

    /// Takes a client in and reads it. `owner` is handed back when it ends.
    ///
    /// # Errors
    /// The connection, and why it isn't taken; counted already. The owner refuses it ([`Cx::refuse`]).
    pub fn admit<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        id: ServiceId,
        mut incoming: Incoming<B::Socket>,
        owner: u64,
    ) -> Result<(), (Incoming<B::Socket>, Refused)> {
        let serving = &mut self.services[id.0];
        let bound = serving.service.bounds.clients_per_address;
        let origin = if bound > 0 { Origin::of(cx.incoming_peer(&mut incoming)) } else { None };
        let refused = if self.draining || serving.retired {
            Some(Refused::Draining)
        } else if origin.is_some_and(|origin| !serving.census.enter(origin, bound)) {
            Some(Refused::ClientsPerAddress)
        } else {
            None
        };
        if let Some(refused) = refused {
            serving.counters.refusals[refused.index()].add(1);
            return Err((incoming, refused));
        }
        self.take_in(cx, id, incoming, owner, origin).map_err(|incoming| {
            let serving = &self.services[id.0];
            serving.counters.refusals[Refused::ClientsMax.index()].add(1);
            if let Some(origin) = origin {
                serving.census.leave(origin);
            }
            (incoming, Refused::ClientsMax)
        })
    }

    fn take_in<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        id: ServiceId,
        incoming: Incoming<B::Socket>,
        owner: u64,
        origin: Option<Origin>,
    ) -> Result<(), Incoming<B::Socket>> {
        let serving = &self.services[id.0];
        let prospect = serving.prospect.of_client(serving.service.bounds.message_max);
        let client = Client::new(id.0, owner, origin, prospect, cx.now());
        let Ok(key) = self.clients.insert(client) else { return Err(incoming) };
        let conn = cx.admit(incoming, Token::Client(key).to_bits(), MeterId::NONE).inspect_err(|_| {
            self.clients.remove(key);
        })?;
        let serving = &mut self.services[id.0];
        let wait = serving.service.bounds.idle_timeout;
        let client = self.clients.get_mut(key).expect("it was put in just now");
        (client.conn, client.timer_at) = (conn, cx.now().after(wait));
        cx.set_timer(conn, wait);
        cx.read_messages(conn);
        serving.welcome();
        Ok(())
    }

    /// Ends clients as they come to rest: idle ones now, others once what they have asked is answered. Their end is
    /// [`End::Drained`]. No more are admitted.
    pub fn drain<B: Backend>(&mut self, cx: &mut Cx<B>) {
        self.draining = true;
        let keys: Vec<Key> = self.clients.keys().collect();
        for key in keys {
            let client = self.clients.get(key).expect("it was there just now");
            if client.outstanding == 0 && client.out.is_empty() && client.ending.is_none() {
                self.end_client(cx, key, End::Drained, How::Close);
            } else {
                self.end_after_answers(cx, key, End::Drained);
            }
        }
    }

    /// Ends all clients now, with a reset, and all services.
    pub fn cut<B: Backend>(&mut self, cx: &mut Cx<B>) {
        self.draining = true;
        let keys: Vec<Key> = self.clients.keys().collect();
        for key in keys {
            self.end_client(cx, key, End::Drained, How::Reset);
        }
        for at in self.services.places() {
            self.services[at].retired = true;
            self.bury(cx, at);
        }
    }

    /// A client that has ended since it was last asked; `None` when all were told.
    pub fn next_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// Clients that are there.
    #[must_use]
    pub const fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Requests that are under way.
    #[must_use]
    pub const fn requests(&self) -> usize {
        self.requests.len()
    }

    /// When [`Mux::on_turn_end`] has to be called next, whatever else happens or not. It moves on with each turn; an owner whose alarm
    /// goes off before that needs to set it anew only then.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.services.iter().filter_map(|serving| self.due_of(serving)).chain(self.tell_at).min()
    }

    /// An upstream stands.
    pub fn on_connect<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        match Token::from_bits(token) {
            Token::Upstream(key) => self.upstream_stands(cx, key),
            Token::Client(_) => cx.reset(conn),
        }
    }

    /// Says what stands at the front of received bytes.
    pub fn frame(&mut self, _conn: ConnId, token: u64, bytes: &[u8]) -> Frame {
        match Token::from_bits(token) {
            Token::Client(key) => self.frame_request(key, bytes),
            Token::Upstream(key) => self.frame_answer(key, bytes),
        }
    }

    /// A request or an answer has come.
    pub fn on_message<B: Backend>(&mut self, cx: &mut Cx<B>, _conn: ConnId, token: u64, bytes: &[u8]) {
        match Token::from_bits(token) {
            Token::Client(key) => self.request_came(cx, key, bytes),
            Token::Upstream(key) => self.answer_came(cx, key, bytes),
        }
    }

    /// A datagram has come. Says whether the socket is the mux's.
    pub fn on_datagram<B: Backend>(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) -> bool {
        let ours = self.owners.of(socket).is_some();
        if ours {
            self.datagram_came(cx, socket, flow, bytes);
        }
        ours
    }

    /// What was sent by a socket isn't taken. Says whether the socket is the mux's.
    pub fn on_datagrams_failed<B: Backend>(&mut self, cx: &mut Cx<B>, socket: DatagramId) -> bool {
        let upstream = self.owners.of(socket);
        if let Some(key) = upstream {
            self.lose_datagrams(cx, key, true);
        }
        upstream.is_some()
    }

    /// There's room again for what waits to be sent.
    pub fn on_writable<B: Backend>(&mut self, cx: &mut Cx<B>, _conn: ConnId, token: u64) {
        match Token::from_bits(token) {
            Token::Client(key) => self.flush_client(cx, key),
            Token::Upstream(key) => self.flush_upstream(cx, key),
        }
    }

    /// The peer has finished sending.
    pub fn on_peer_close<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        match Token::from_bits(token) {
            Token::Client(key) => self.client_finished(cx, conn, key),
            Token::Upstream(key) => self.lose_upstream(cx, key, How::Close),
        }
    }

    /// The connection has failed.
    pub fn on_error<B: Backend>(&mut self, cx: &mut Cx<B>, _conn: ConnId, token: u64, error: ConnError) {
        match Token::from_bits(token) {
            Token::Client(key) => {
                let end = match error {
                    ConnError::TooLong => End::MessageTooLong,
                    ConnError::Broken => End::MessageBroken,
                    ConnError::Panicked => End::Panicked,
                    ConnError::Reset => End::ClientReset,
                    _ => End::ClientLost,
                };
                self.end_client(cx, key, end, How::Gone);
            }
            Token::Upstream(key) => self.lose_upstream(cx, key, How::Gone),
        }
    }

    /// The connection's timer has run out.
    pub fn on_timer<B: Backend>(&mut self, cx: &mut Cx<B>, _conn: ConnId, token: u64) {
        match Token::from_bits(token) {
            Token::Client(key) => self.client_due(cx, key),
            // Its dial has taken too long, or it was to have gone by now.
            Token::Upstream(key) => self.lose_upstream(cx, key, How::Reset),
        }
    }

    /// The turn ends: what was gathered leaves, and what is due happens.
    pub fn on_turn_end<B: Backend>(&mut self, cx: &mut Cx<B>) {
        self.look_at_noted(cx);
        for at in 0..self.services.len() {
            if self.services.get(at).is_some() {
                self.expire(cx, at);
                // Those that are over leave room for others.
                self.look_at_transfers(cx, at);
                self.look_at_outage(cx, at);
                // Before requests are sent: sockets for datagrams stand at once, and no event tells of it.
                self.redial(cx, at);
                self.dispatch(cx, at);
            }
        }
        self.flush_all(cx);
        self.tell_due(cx);
        self.feed_starved(cx);
        for at in 0..self.services.len() {
            // Behind the flush, which may have made the room that a transfer waits for: nothing else would tell of it.
            if self.services.get(at).is_some() {
                self.look_at_transfers(cx, at);
            }
        }
        if self.services.iter().any(|serving| serving.retired) {
            for at in self.services.places() {
                self.bury(cx, at);
            }
        }
    }
}
