//! Backends that are asked by datagrams, in the simulated world: what they answer, and what others say in their place.

use std::net::SocketAddr;
use std::time::Duration;

use midmile_engine::Time;
use midmile_engine::sim::{Rng, Sim, Weather};

use super::actors::{AXFR, answer_to};
use crate::detour::DATAGRAM_MAX;

/// A letter to be sent.
#[derive(Debug)]
struct Letter {
    due: Time,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// A backend at an address.
#[derive(Debug)]
pub(super) struct Correspondent {
    at: SocketAddr,
    unkind: bool,
    /// It never answers.
    silent: bool,
    /// Letters that it has read.
    read: usize,
    due: Vec<Letter>,
    /// When it's gone, or there again.
    turns_at: Time,
    bound: bool,
}

/// What happens to datagrams in a world.
pub(super) fn weather(rng: &mut Rng, unkind: bool) -> Weather {
    let mut one_in = |most: usize| if rng.one_in(2) { 0 } else { 2 + rng.up_to(most) };
    let (lost_one_in, doubled_one_in) = if unkind { (one_in(20), one_in(20)) } else { (0, 0) };
    let delay_max = Duration::from_micros(if unkind { rng.up_to(30_000) as u64 } else { 1000 });
    let (queue_max, room) = if unkind { (1 + rng.up_to(20), 1 + rng.up_to(20)) } else { (1000, 100) };
    Weather { lost_one_in, doubled_one_in, delay_max, queue_max, room, ..Weather::default() }
}

/// The answer to a query that says that it was cut.
pub(crate) fn cut_answer_to(query: &[u8]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    (bytes[2], bytes[3]) = (0x83, 0x80);
    bytes
}

impl Correspondent {
    pub(super) fn new(rng: &mut Rng, at: SocketAddr, unkind: bool) -> Self {
        let silent = unkind && rng.one_in(8);
        Self { at, unkind, silent, read: 0, due: Vec::new(), turns_at: Time::ZERO, bound: true }
    }

    /// Does what it does now, and says when it wants to do more.
    pub(super) fn act(&mut self, sim: &mut Sim, rng: &mut Rng, now: Time) -> Option<Time> {
        if self.unkind && now >= self.turns_at {
            self.bound = !self.bound || !rng.one_in(3);
            sim.set_bound(self.at, self.bound);
            self.turns_at = now.after(Duration::from_millis(1 + rng.up_to(300) as u64));
        }
        let new: Vec<(SocketAddr, Vec<u8>)> = sim.posted(self.at)[self.read..].to_vec();
        self.read += new.len();
        for (from, query) in new {
            self.hear(rng, now, from, &query);
        }
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|letter| letter.due <= now);
        self.due = later;
        let due: Vec<Letter> = due;
        for letter in due {
            sim.post(Duration::ZERO, letter.from, letter.to, letter.bytes);
        }
        self.due.iter().map(|letter| letter.due).min()
    }

    fn hear(&mut self, rng: &mut Rng, now: Time, from: SocketAddr, query: &[u8]) {
        assert!(query.len() <= usize::from(DATAGRAM_MAX), "a datagram of {} bytes", query.len());
        assert!(!query.ends_with(&[AXFR.to_be_bytes(), [0, 1]].concat()), "a transfer by a datagram");
        if self.silent {
            return;
        }
        let answer = if rng.one_in(6) { cut_answer_to(query) } else { answer_to(query) };
        let delay = match rng.up_to(9) {
            0 if self.unkind => 150_000,
            1 if self.unkind => 60_000,
            _ => 6_000,
        };
        let at = now.after(Duration::from_micros(rng.up_to(delay) as u64));
        let mut say = |due, who: SocketAddr, whom, bytes| self.due.push(Letter { due, from: who, to: whom, bytes });
        if self.unkind && rng.one_in(4) {
            let mut wrong = answer.clone();
            let elsewhere = SocketAddr::new(self.at.ip(), self.at.port() + 1);
            let other_host = SocketAddr::new([10, 0, 0, 99].into(), self.at.port());
            let other_socket = SocketAddr::new(from.ip(), from.port() ^ 1);
            // Whoever believes any of these hands on what nobody was to have.
            wrong.push(0xbd);
            match rng.up_to(5) {
                0 => say(now, elsewhere, from, wrong),
                1 => say(now, other_host, from, wrong),
                2 => say(now, self.at, other_socket, wrong),
                3 => {
                    wrong[0] ^= 0x5a;
                    say(now, self.at, from, wrong);
                }
                4 => {
                    wrong[14] ^= 0x40;
                    say(now, self.at, from, wrong);
                }
                _ => say(now, self.at, from, wrong[..rng.up_to(11)].to_vec()),
            }
        }
        say(at, self.at, from, answer);
    }
}
