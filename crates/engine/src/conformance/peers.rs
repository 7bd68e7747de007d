//! The peers' side of a stage: what they are to do, and what they have seen.

use super::actor::{Actor, Ending};
use super::stage::{PeerId, Stage};
use super::world::World;
use crate::addr::Addr;
use crate::handler::ConnId;

impl<W: World> Stage<'_, W> {
    /// A peer that begins to connect to the listener.
    pub fn connect(&mut self) -> PeerId {
        let at = self.listen();
        let peer = self.world.connect(self.core.parts().1.backend(), &at);
        self.enter(peer)
    }

    pub(super) fn enter(&mut self, peer: W::Peer) -> PeerId {
        self.actors.push(Actor::new(peer));
        PeerId(self.actors.len() - 1)
    }

    /// Has the bytes of `conn` and `peer` compared as they come.
    pub fn introduce(&mut self, conn: ConnId, peer: PeerId) {
        self.actors[peer.0].conn = Some(conn);
    }

    /// Has what `to` hears compared with what `from` says: one's connection is forwarded to the other's.
    pub fn relay(&mut self, from: PeerId, to: PeerId) {
        self.actors[to.0].source = Some(from.0);
    }

    /// Has what `peer` hears compared with what its connection sends again, from now on.
    pub fn unrelay(&mut self, peer: PeerId) {
        let actor = &mut self.actors[peer.0];
        actor.source = None;
        actor.heard_before = actor.heard.len();
        actor.compared.1 = 0;
    }

    /// Has nothing compared of what these peers hear.
    pub fn strangers(&mut self, peers: &[PeerId]) {
        for peer in peers {
            self.actors[peer.0].conn = None;
        }
    }

    /// The peer sends `bytes` after what it has to send already.
    pub fn say(&mut self, peer: PeerId, bytes: &[u8]) {
        self.actors[peer.0].to_say.extend(bytes);
        self.step_peer(peer.0);
    }

    /// The peer sends at most so many bytes at once.
    pub fn says_at_once(&mut self, peer: PeerId, most: usize) {
        self.actors[peer.0].says_at_once = most;
    }

    /// The peer reads at most so many bytes at once from now on; 0: none.
    pub fn reads(&mut self, peer: PeerId, most: usize) {
        self.actors[peer.0].reads = most;
    }

    /// The peer finishes sending once it has sent all.
    pub fn finish(&mut self, peer: PeerId) {
        self.actors[peer.0].finishes = true;
        self.step_peer(peer.0);
    }

    /// The peer sends nothing of what it hasn't sent yet.
    pub fn hold_tongue(&mut self, peer: PeerId) {
        self.actors[peer.0].to_say.clear();
    }

    /// The peer closes its socket now.
    pub fn leave(&mut self, peer: PeerId) {
        if let Some(peer) = self.actors[peer.0].peer.take() {
            self.world.close(self.core.parts().1.backend(), peer);
        }
    }

    /// The peer resets the connection now.
    pub fn rip(&mut self, peer: PeerId) {
        if let Some(peer) = self.actors[peer.0].peer.take() {
            self.world.reset(self.core.parts().1.backend(), peer);
        }
    }

    /// The peer is gone with its host, without a word: it answers nothing from now on.
    pub fn vanish(&mut self, peer: PeerId) {
        if let Some(peer) = self.actors[peer.0].peer.take() {
            self.world.vanish(self.core.parts().1.backend(), peer);
        }
    }

    /// What the peer has sent.
    #[must_use]
    pub fn said(&self, peer: PeerId) -> &[u8] {
        &self.actors[peer.0].said
    }

    /// Whether the peer has sent all that it was to, and finished if it was to.
    #[must_use]
    pub fn said_all(&self, peer: PeerId) -> bool {
        let actor = &self.actors[peer.0];
        actor.to_say.is_empty() && (actor.finished || !actor.finishes)
    }

    /// What the peer has received.
    #[must_use]
    pub fn heard(&self, peer: PeerId) -> &[u8] {
        &self.actors[peer.0].heard
    }

    /// How the connection ended for the peer, if it did.
    #[must_use]
    pub fn ending(&self, peer: PeerId) -> Option<Ending> {
        self.actors[peer.0].ending
    }

    /// Steps in a row in which the peer had something to send and found no room.
    #[must_use]
    pub fn stuck(&self, peer: PeerId) -> u32 {
        self.actors[peer.0].stuck
    }

    /// The address that the peer connects from.
    pub fn addr_of(&mut self, peer: PeerId) -> Option<Addr> {
        let peer = self.actors[peer.0].peer.as_ref()?;
        self.world.addr_of(self.core.parts().1.backend(), peer)
    }

    /// Who connected to the peer, as it sees it.
    pub fn caller_of(&mut self, peer: PeerId) -> Option<Addr> {
        let peer = self.actors[peer.0].peer.as_ref()?;
        self.world.caller_of(self.core.parts().1.backend(), peer)
    }
}
