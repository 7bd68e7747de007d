//! The egress side of a trunk: who comes is authenticated, waits as a guest, and becomes a pair when it says hello.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{Addr, Backend, ConnId, Cx, Incoming, Key, MeterId};
use midmile_wire::proxy::Header;
use midmile_wire::trunk::answer::Answer;
use midmile_wire::trunk::auth::{self, AwaitProof, Reject};
use midmile_wire::trunk::hello::{self, Destination, Hello, Host};
use midmile_wire::trunk::{Nonce, Session};

use super::Relay;
use crate::pair::{Given, Pair, State, Token};
use crate::reason::{End, Refusal};
use crate::trunk::{Peer, Permit, Warming};

/// How far a trunk connection has come that was accepted.
#[derive(Debug)]
pub(super) enum GuestState {
    /// Its introduction is awaited.
    Unknown,
    /// Its proof is awaited.
    Challenged(AwaitProof),
    /// Authenticated: padding opens windows.
    Warming(Warming, Session),
    /// Authenticated: its hello is awaited, for as long as the peer's pool keeps it.
    Known(Session),
    /// It has an answer that says why its pair ended, and goes when its peer has seen it.
    Parting,
}

/// A trunk connection that was accepted and isn't a pair yet, or no more.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) conn: ConnId,
    pub(super) serving: Key,
    pub(super) state: GuestState,
    addr: Addr,
    /// Who it says it is, once it has said so.
    peer: Option<Arc<Peer>>,
}

impl Guest {
    /// One that was a pair's client leg.
    pub(super) const fn parting(conn: ConnId, serving: Key, addr: Addr, peer: Option<Arc<Peer>>) -> Self {
        Self { conn, serving, state: GuestState::Parting, addr, peer }
    }
}

impl<L> Relay<L> {
    /// Takes a trunk connection in. The client has been admitted as any other.
    pub(super) fn open_guest<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        serving_key: Key,
        mut incoming: Incoming<B::Socket>,
    ) {
        let Some(serving) = self.servings.get_mut(serving_key) else { return cx.refuse(incoming) };
        let addr = cx.incoming_peer(&mut incoming).clone();
        let guest = Guest { conn: Key::NONE, serving: serving_key, state: GuestState::Unknown, addr, peer: None };
        let Ok(key) = self.guests.insert(guest) else {
            serving.counters.refusals[Refusal::PairsMax.index()].add(1);
            return cx.refuse(incoming);
        };
        // It was seen that there is room; another core may have taken it since.
        if !serving.let_in() {
            self.guests.remove(key);
            serving.counters.refusals[Refusal::PairsMax.index()].add(1);
            return cx.refuse(incoming);
        }
        match cx.admit(incoming, Token::Guest(key).to_bits(), MeterId::NONE) {
            Ok(conn) => {
                cx.set_timer(conn, serving.route.timeouts.header);
                cx.read(conn);
                if let Some(guest) = self.guests.get_mut(key) {
                    guest.conn = conn;
                }
            }
            Err(incoming) => {
                self.guests.remove(key);
                serving.counters.refusals[Refusal::Descriptors.index()].add(1);
                self.servings.pair_ended(serving_key);
                cx.refuse(incoming);
            }
        }
    }

    /// The guest has said something; answers how many bytes were used.
    pub(super) fn guest_data<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) -> usize {
        let Some(guest) = self.guests.get(key) else { return 0 };
        let answer = match &guest.state {
            GuestState::Unknown => self.introduced(cx, key, bytes),
            GuestState::Challenged(_) => self.proved(cx, key, bytes),
            GuestState::Warming(..) => self.guest_padding(cx, key, bytes.len()),
            GuestState::Known(_) => self.said_hello(cx, key, bytes),
            GuestState::Parting => Ok(0),
        };
        match answer {
            Ok(taken) => taken,
            Err(refusal) => {
                self.turn_out(cx, key, Some(refusal));
                0
            }
        }
    }

    fn introduced<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) -> Result<usize, Refusal> {
        let Some((taken, introduction)) = auth::introduction(bytes).map_err(refusal)? else { return Ok(0) };
        let nonce = Nonce(cx.entropy());
        let Some(guest) = self.guests.get_mut(key) else { return Ok(0) };
        let gate = self.servings.get(guest.serving).and_then(|serving| serving.route.gate.as_deref());
        let peer = gate.and_then(|gate| gate.peer(&introduction.dialer(), &introduction.acceptor()));
        let Some(peer) = peer else { return Err(Refusal::TrunkKey) };
        let (next, challenge) = introduction.challenge(&peer.key, nonce);
        guest.state = GuestState::Challenged(next);
        guest.peer = Some(peer.clone());
        send_whole(cx, guest.conn, challenge.as_bytes())?;
        Ok(taken)
    }

    fn proved<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) -> Result<usize, Refusal> {
        let Some(guest) = self.guests.get_mut(key) else { return Ok(0) };
        let GuestState::Challenged(state) = &guest.state else { return Ok(0) };
        let gate = self.servings.get(guest.serving).and_then(|serving| serving.route.gate.as_deref());
        let wanted = gate.map_or(0, |gate| gate.warmth.padding());
        let Some((taken, session, welcome, padding)) = state.handle(bytes, wanted).map_err(refusal)? else {
            return Ok(0);
        };
        send_whole(cx, guest.conn, welcome.as_bytes())?;
        self.guest_proved(cx, key, session, padding);
        if taken < bytes.len()
            && let Some(guest) = self.guests.get(key)
        {
            cx.read(guest.conn);
        }
        Ok(taken)
    }

    /// The guest is put to use: it becomes a pair's client leg.
    fn said_hello<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) -> Result<usize, Refusal> {
        let Some(guest) = self.guests.get(key) else { return Ok(0) };
        let GuestState::Known(session) = &guest.state else { return Ok(0) };
        let decoded = hello::decode(bytes, session).map_err(|_| Refusal::HelloInvalid)?;
        let Some((taken, hello)) = decoded else { return Ok(0) };
        if cx.conns_free() == 0 || !self.pairs.reserve() {
            if let Some(serving) = self.servings.get(guest.serving) {
                serving.counters.refusals[Refusal::PairsMax.index()].add(1);
            }
            self.part(cx, key, Answer::PairsMax);
            return Ok(taken);
        }
        let guest = self.guests.remove(key).expect("it was there just now");
        cx.pause(guest.conn);
        self.pair_of_guest(cx, guest, &hello);
        Ok(taken)
    }

    /// Makes the pair, for which there is room reserved.
    fn pair_of_guest<B: Backend>(&mut self, cx: &mut Cx<B>, guest: Guest, hello: &Hello) {
        let Some(serving) = self.servings.get(guest.serving) else {
            self.pairs.unreserve();
            return cx.reset(guest.conn);
        };
        let (client, listened) = match hello.client {
            Header::Inet { source, destination } => (Addr::Inet(source), Some(destination)),
            Header::Local | Header::Unix { .. } => (guest.addr, None),
        };
        let mut pair = Pair::new(guest.serving, client, State::Dialling, cx.now());
        pair.client = guest.conn;
        pair.came_from = guest.peer;
        pair.destination = listened;
        pair.owes_answer = true;
        let onward = hello.path.next().map(|(next, _)| next);
        let allowed = match (serving.route.gate.as_deref(), onward) {
            (Some(gate), Some(next)) if gate.onward.contains(&next) => Ok(()),
            (Some(gate), None) => given(&gate.permit, &hello.destination).map(|given| pair.given = Some(given)),
            _ => Err(End::NotPermitted),
        };
        let left = Duration::from_millis(u64::from(hello.deadline_ms));
        pair.dial_deadline = cx.now().after(left.min(serving.route.timeouts.dial));
        serving.counters.pairs_opened.add(1);
        serving.counters.pairs_open.add(1);
        if onward.is_some() {
            pair.hello = self.hellos.insert(*hello).expect("there's room for one a pair");
        }
        let key = self.pairs.insert_reserved(pair);
        cx.rename(guest.conn, Token::Client(key).to_bits(), serving.meters.upstream);
        match allowed {
            Ok(()) => self.go_onward(cx, key),
            Err(end) => self.end(cx, key, end),
        }
    }

    /// The guest's timer: its handshake took too long, nobody has used it for as long as a pair may be idle, or its peer doesn't let
    /// go of it.
    pub(super) fn guest_timer<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(guest) = self.guests.get(key) else { return };
        match guest.state {
            GuestState::Warming(..) => self.warm_guest(cx, key),
            GuestState::Known(_) | GuestState::Parting => self.turn_out(cx, key, None),
            GuestState::Unknown | GuestState::Challenged(_) => self.turn_out(cx, key, Some(Refusal::TrunkTimeout)),
        }
    }

    /// The guest has closed or failed. A pool lets go of what it doesn't need, so that is nothing to count; and a peer whose key
    /// isn't ours goes when it sees our challenge.
    pub(super) fn guest_gone<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let refusal = self.guests.get(key).and_then(|guest| match guest.state {
            GuestState::Unknown => Some(Refusal::TrunkInvalid),
            GuestState::Challenged(_) => Some(Refusal::TrunkKey),
            GuestState::Warming(..) | GuestState::Known(_) | GuestState::Parting => None,
        });
        self.turn_out(cx, key, refusal);
    }

    /// Closes a guest at once, under a name if it was at fault. Its hello may be on the way: what ends without an answer is no word
    /// of the server's, and has its peer try another connection.
    pub(super) fn turn_out<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, refusal: Option<Refusal>) {
        let Some(guest) = self.guests.remove(key) else { return };
        cx.reset(guest.conn);
        if let Some(serving) = self.servings.get(guest.serving) {
            if let Some(refusal) = refusal {
                serving.counters.refusals[refusal.index()].add(1);
            }
            self.servings.pair_ended(guest.serving);
        }
    }

    /// The route `before` was replaced by `now`, or is gone. Its guests are the new route's, whose list is what counts for them;
    /// those whom it wouldn't let in go, whatever they had proved.
    pub(super) fn review_guests<B: Backend>(&mut self, cx: &mut Cx<B>, before: Option<Key>, now: Option<Key>) {
        let Some(before) = before.filter(|before| now != Some(*before)) else { return };
        let keys: Vec<Key> = self.guests.keys().collect();
        for key in keys {
            let Some(guest) = self.guests.get_mut(key).filter(|guest| guest.serving == before) else { continue };
            let serving = now.and_then(|now| self.servings.get_mut(now));
            let gate = serving.as_ref().and_then(|serving| serving.route.gate.as_deref());
            let may_come = gate.is_some_and(|gate| guest.peer.as_deref().is_none_or(|peer| gate.lets_in(peer)));
            // The new route may let in fewer.
            let stays = may_come && serving.is_some_and(|serving| serving.let_in());
            let (true, Some(now)) = (stays, now) else {
                self.turn_out(cx, key, None);
                continue;
            };
            guest.serving = now;
            self.servings.pair_ended(before);
        }
    }

    /// Closes all guests: for a drain. Those under way to becoming a pair find no listener any more either.
    pub(super) fn close_guests<B: Backend>(&mut self, cx: &mut Cx<B>) {
        let keys: Vec<Key> = self.guests.keys().collect();
        for key in keys {
            self.turn_out(cx, key, None);
        }
    }
}

/// What may be dialled for a hello.
///
/// # Errors
/// How its pair ends if nothing may, or if there's nothing.
fn given(permit: &Permit, destination: &Destination) -> Result<Given, End> {
    match destination.host() {
        Host::Address(ip) => {
            let addr = SocketAddr::new(ip, destination.port());
            if permit.admits(addr) { Ok(Given::One(Addr::Inet(addr))) } else { Err(End::NotPermitted) }
        }
        Host::Name(name) if permit.is_unresolved(name, destination.port()) => Err(End::NameUnresolved),
        Host::Name(name) => permit.named(name, destination.port()).map(Given::of).ok_or(End::NotPermitted),
    }
}

fn refusal(reject: Reject) -> Refusal {
    match reject {
        Reject::WrongKey => Refusal::TrunkKey,
        _ => Refusal::TrunkInvalid,
    }
}

/// Sends a message of the handshake, for which a fresh connection always has room.
fn send_whole<B: Backend>(cx: &mut Cx<B>, conn: ConnId, message: &[u8]) -> Result<(), Refusal> {
    if cx.send(conn, message) == message.len() { Ok(()) } else { Err(Refusal::TrunkInvalid) }
}
