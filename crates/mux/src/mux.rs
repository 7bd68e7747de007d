//! The public half.

use std::sync::Arc;

use midmile_engine::{Backend, ConnError, ConnId, Cx, Frame, Incoming, Time};

use crate::counters::Counters;
use crate::reason::{End, Refused};
use crate::service::{Service, ServiceId};

/// Tokens with this bit are the mux's.
const OURS: u64 = 1 << 63;

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
pub struct Mux {}

impl Mux {
    /// A mux for at most `clients_max` clients and about `requests_max` requests at once: with so many, each client that comes with
    /// one more waits until others are answered. Reserves all memory: some 600 bytes a request and 1,300 a client, touched as it's
    /// used.
    #[must_use]
    pub fn new(clients_max: u32, requests_max: u32) -> Self {
        let _ = (clients_max, requests_max);
        Self {}
    }

    /// Whether a connection's token is the mux's.
    #[must_use]
    pub const fn owns(token: u64) -> bool {
        token & OURS != 0
    }

    /// Begins a service: its upstreams are dialled.
    pub fn serve<B: Backend>(&mut self, cx: &mut Cx<B>, service: Arc<Service>, counters: Arc<Counters>) -> ServiceId {
        let _ = (cx, service, counters);
        ServiceId(0)
    }

    /// Goes on with another version of the service, as a reload brings it. Upstreams to places that are still there (by name and addresses)
    /// are kept. Framing and matching stay: for others, retire the service and begin another.
    ///
    /// # Panics
    /// If the matching is another.
    pub fn swap<B: Backend>(&mut self, cx: &mut Cx<B>, id: ServiceId, service: Arc<Service>) {
        let _ = (cx, id, service);
    }

    /// Takes no more clients for the service. It goes when its last client has gone.
    pub fn retire<B: Backend>(&mut self, cx: &mut Cx<B>, id: ServiceId) {
        let _ = (cx, id);
    }

    /// Takes a client in and reads it. `owner` is handed back when it ends.
    ///
    /// # Errors
    /// The connection, and why it isn't taken; counted already. The owner refuses it ([`Cx::refuse`]).
    pub fn admit<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        id: ServiceId,
        incoming: Incoming<B::Socket>,
        owner: u64,
    ) -> Result<(), (Incoming<B::Socket>, Refused)> {
        let _ = (cx, id, owner);
        Err((incoming, Refused::ClientsMax))
    }

    /// Ends clients as they come to rest: idle ones now, others once what they have asked is answered. Their end is
    /// [`End::Drained`]. No more are admitted.
    pub fn drain<B: Backend>(&mut self, cx: &mut Cx<B>) {
        let _ = cx;
    }

    /// As [`Mux::drain`], of one service.
    pub fn drain_service<B: Backend>(&mut self, cx: &mut Cx<B>, id: ServiceId) {
        let _ = (cx, id);
    }

    /// Ends all clients now, with a reset, and closes all upstreams.
    pub fn cut<B: Backend>(&mut self, cx: &mut Cx<B>) {
        let _ = cx;
    }

    /// A client that has ended since it was last asked; `None` when all were told.
    pub fn next_ended(&mut self) -> Option<Ended> {
        None
    }

    /// Clients that are there.
    #[must_use]
    pub fn clients(&self) -> usize {
        0
    }

    /// When [`Mux::on_turn_end`] has to be called next, whatever else happens or not.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        None
    }

    /// An upstream stands.
    pub fn on_connect<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let _ = (cx, conn, token);
    }

    /// Says what stands at the front of received bytes.
    pub fn frame(&mut self, conn: ConnId, token: u64, bytes: &[u8]) -> Frame {
        let _ = (conn, token, bytes);
        Frame::Broken
    }

    /// A request or an answer has come.
    pub fn on_message<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) {
        let _ = (cx, conn, token, bytes);
    }

    /// There's room again for what waits to be sent.
    pub fn on_writable<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let _ = (cx, conn, token);
    }

    /// The peer has finished sending.
    pub fn on_peer_close<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let _ = (cx, conn, token);
    }

    /// The connection has failed.
    pub fn on_error<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, error: ConnError) {
        let _ = (cx, conn, token, error);
    }

    /// The connection's timer has run out.
    pub fn on_timer<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let _ = (cx, conn, token);
    }

    /// The turn ends: what was gathered leaves, and what is due happens.
    pub fn on_turn_end<B: Backend>(&mut self, cx: &mut Cx<B>) {
        let _ = cx;
    }
}
