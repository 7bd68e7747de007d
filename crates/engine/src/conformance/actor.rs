//! A peer as it acts: what it has to say, how it reads, and what it has seen.

use std::collections::VecDeque;

use super::world::{Heard, World};
use crate::handler::ConnId;

/// Bytes that a peer reads or writes at once.
pub(super) const STEP: usize = 64 * 1024;

/// How a peer's connection ended, as the peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order, after all bytes.
    End,
    /// By a reset, or it never came to stand.
    Reset,
}

/// What a peer does at each step.
pub(super) struct Actor<P> {
    pub(super) peer: Option<P>,
    pub(super) conn: Option<ConnId>,
    /// Whose bytes it hears; its connection's otherwise.
    pub(super) source: Option<usize>,
    pub(super) to_say: VecDeque<u8>,
    pub(super) said: Vec<u8>,
    pub(super) says_at_once: usize,
    pub(super) finishes: bool,
    pub(super) finished: bool,
    pub(super) reads: usize,
    pub(super) heard: Vec<u8>,
    /// How much of it came from another before.
    pub(super) heard_before: usize,
    pub(super) ending: Option<Ending>,
    /// Steps in a row in which it couldn't send.
    pub(super) stuck: u32,
    /// How far what it said was held against what the program received, and the other way round.
    pub(super) compared: (usize, usize),
}

impl<P> Actor<P> {
    pub(super) const fn new(peer: P) -> Self {
        Self {
            peer: Some(peer),
            conn: None,
            source: None,
            to_say: VecDeque::new(),
            said: Vec::new(),
            says_at_once: STEP,
            finishes: false,
            finished: false,
            reads: STEP,
            heard: Vec::new(),
            heard_before: 0,
            ending: None,
            stuck: 0,
            compared: (0, 0),
        }
    }

    /// Does what can be done at once. Says whether that was anything.
    pub(super) fn step<W: World<Peer = P>>(
        &mut self,
        world: &mut W,
        backend: &mut W::Backend,
        buffer: &mut [u8],
    ) -> bool {
        let Some(peer) = self.peer.as_mut() else { return false };
        if self.ending == Some(Ending::Reset) {
            return false;
        }
        let said = self.said.len();
        while !self.to_say.is_empty() {
            let (front, _) = self.to_say.as_slices();
            let piece = &front[..front.len().min(self.says_at_once)];
            match world.send(backend, peer, piece) {
                Some(sent) => {
                    self.said.extend(self.to_say.drain(..sent));
                    self.stuck = if sent > 0 { 0 } else { self.stuck + 1 };
                    // One piece a step, where pieces are asked for.
                    if sent == 0 || self.says_at_once < STEP {
                        break;
                    }
                }
                // What it is, its reading tells.
                None => self.to_say.clear(),
            }
        }
        if self.finishes && !self.finished && self.to_say.is_empty() {
            self.finished = true;
            world.finish(backend, peer);
        }
        let mut heard = false;
        while self.reads > 0 && self.ending.is_none() {
            let most = self.reads.min(buffer.len());
            match world.recv(backend, peer, &mut buffer[..most]) {
                Heard::Bytes(bytes) => {
                    self.heard.extend(&buffer[..bytes]);
                    heard = true;
                    if self.reads < STEP {
                        break;
                    }
                }
                Heard::Nothing => break,
                Heard::End => self.ending = Some(Ending::End),
                Heard::Reset => self.ending = Some(Ending::Reset),
            }
        }
        heard || self.said.len() > said
    }
}
