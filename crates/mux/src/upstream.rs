//! An upstream: a connection to a backend that carries many clients' requests, or the sockets by which datagrams go there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use midmile_engine::{ConnId, Key, Time};
use midmile_wire::frame::Seen;

use crate::chunks::Chain;
use crate::drawn::Drawn;
use crate::posts::Posts;
use crate::sending::OWED_MAX;
use crate::service::Matching;
use crate::telling::Told;

/// How long an upstream rests after its first failure; twice as long after each that follows, up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// There's none; the next is dialled then.
    Resting { until: Time },
    /// It's being dialled.
    Dialling,
    /// It stands.
    Open,
}

/// At an id that was given up: no request has this key.
const DEAD: Key = Key::from_bits(Key::NONE.to_bits() ^ 1);

/// The requests on an upstream. Those that have been answered otherwise, or given up, stand here until their answer comes: a handle
/// that finds nothing. Where none may ever come, [`Pending::sweep`] lets them go.
#[derive(Debug)]
pub(crate) enum Pending {
    /// By the id that each has here, and no more than `max`. Invariants: an id is free if, and only if, nothing stands at it; at so many
    /// stands [`DEAD`].
    Ids { slots: Box<[Key]>, free: VecDeque<u16>, dead: usize, max: usize },
    /// By ids that nobody can guess, of datagrams.
    Drawn(Drawn),
    /// In the order of their answers.
    Order { queue: VecDeque<Key>, max: usize },
}

impl Pending {
    pub(crate) fn new(matching: Matching, max: u16) -> Self {
        match matching {
            // Ids come round as late as can be, so that what a backend says twice meets nobody.
            Matching::Id => {
                let (slots, free) = (vec![Key::NONE; usize::from(max)].into(), (0..max).collect());
                Self::Ids { slots, free, dead: 0, max: usize::from(max) }
            }
            Matching::Order => Self::Order { queue: VecDeque::with_capacity(usize::from(max)), max: usize::from(max) },
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ids { slots, free, .. } => slots.len() - free.len(),
            Self::Drawn(drawn) => drawn.len(),
            Self::Order { queue, .. } => queue.len(),
        }
    }

    /// How many somebody waits for, as far as the last look showed.
    pub(crate) fn live(&self) -> usize {
        match self {
            Self::Ids { dead, .. } => self.len() - dead,
            Self::Drawn(_) | Self::Order { .. } => self.len(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Ids { max, .. } => self.len() >= *max,
            Self::Drawn(drawn) => drawn.is_full(),
            Self::Order { queue, max } => queue.len() >= *max,
        }
    }

    /// Takes a request in, and says its id here; 0 where there are none. `None` when full, and of datagrams, whose ids are drawn with
    /// the socket ([`Drawn::insert`]).
    pub(crate) fn insert(&mut self, request: Key) -> Option<u16> {
        if self.is_full() {
            return None;
        }
        match self {
            Self::Ids { slots, free, .. } => {
                let id = free.pop_front()?;
                slots[usize::from(id)] = request;
                Some(id)
            }
            Self::Drawn(_) => None,
            Self::Order { queue, .. } => {
                queue.push_back(request);
                Some(0)
            }
        }
    }

    /// Takes on another bound, as a reload brings it. What is out stays, also where that's more.
    pub(crate) fn resize(&mut self, bound: u16) {
        match self {
            Self::Ids { slots, free, max, .. } => {
                *max = usize::from(bound);
                let there = u16::try_from(slots.len()).expect("there are no more ids");
                if there < bound {
                    let mut all = std::mem::take(slots).into_vec();
                    all.resize(*max, Key::NONE);
                    *slots = all.into();
                    free.extend(there..bound);
                }
            }
            Self::Drawn(drawn) => drawn.resize(bound),
            Self::Order { queue, max } => {
                *max = usize::from(bound);
                queue.reserve(max.saturating_sub(queue.len()));
            }
        }
    }

    /// The request at an id, or the next in order.
    pub(crate) fn at(&self, id: u16) -> Option<Key> {
        match self {
            Self::Ids { slots, .. } => slots.get(usize::from(id)).copied().filter(|key| *key != Key::NONE),
            Self::Drawn(drawn) => drawn.at(id),
            Self::Order { queue, .. } => queue.front().copied(),
        }
    }

    /// Lets that go. It's there.
    pub(crate) fn remove(&mut self, id: u16) {
        match self {
            Self::Ids { slots, free, dead, .. } => {
                *dead -= usize::from(std::mem::replace(&mut slots[usize::from(id)], Key::NONE) == DEAD);
                free.push_back(id);
            }
            Self::Drawn(drawn) => drawn.remove(id),
            Self::Order { queue, .. } => {
                queue.pop_front();
            }
        }
    }

    /// Takes back the last insertion, which gave this id.
    pub(crate) fn undo(&mut self, id: u16) {
        match self {
            Self::Ids { slots, free, .. } => {
                slots[usize::from(id)] = Key::NONE;
                free.push_front(id);
            }
            Self::Drawn(drawn) => drawn.remove(id),
            Self::Order { queue, .. } => {
                queue.pop_back();
            }
        }
    }

    /// Any of them, taken out; `None` when none is left.
    pub(crate) fn pop(&mut self, from: &mut usize) -> Option<Key> {
        match self {
            Self::Ids { slots, free, dead, .. } => loop {
                let key = std::mem::replace(slots.get_mut(*from)?, Key::NONE);
                let id = u16::try_from(*from).expect("there are no more ids");
                *from += 1;
                if key != Key::NONE {
                    *dead -= usize::from(key == DEAD);
                    free.push_back(id);
                    return Some(key);
                }
            },
            Self::Drawn(drawn) => drawn.pop(from),
            Self::Order { queue, .. } => queue.pop_front(),
        }
    }

    /// Lets ids go under which nobody waits any more, as `is_live` says: at the second look, so that an answer has some time yet to be
    /// late. They are behind all that are free, so what comes later still meets another question. Of an order nothing can be let go.
    pub(crate) fn sweep(&mut self, is_live: impl Fn(Key) -> bool) {
        let Self::Ids { slots, free, dead, .. } = self else { return };
        for (key, id) in slots.iter_mut().zip(0..) {
            if *key == DEAD {
                (*key, *dead) = (Key::NONE, *dead - 1);
                free.push_back(id);
            } else if *key != Key::NONE && !is_live(*key) {
                (*key, *dead) = (DEAD, *dead + 1);
            }
        }
    }

    /// All of them.
    pub(crate) fn keys(&self) -> Box<dyn Iterator<Item = Key> + '_> {
        match self {
            Self::Ids { slots, .. } => Box::new(slots.iter().copied().filter(|key| *key != Key::NONE)),
            Self::Drawn(drawn) => Box::new(drawn.keys()),
            Self::Order { queue, .. } => Box::new(queue.iter().copied()),
        }
    }
}

/// An upstream, standing or not.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) conn: ConnId,
    /// The service's place among them.
    pub(crate) service: u32,
    /// The backend's place in the service; `None` once a reload has dropped it: it then goes when its requests are answered.
    pub(crate) place: Option<usize>,
    /// The sockets of one that is datagrams to a place; nothing of a connection. Empty unless it stands.
    pub(crate) posts: Option<Box<Posts>>,
    /// When those, or the ids of a connection, are looked at next.
    pub(crate) look_at: Time,
    /// The request that it's there for alone, a zone's transfer or a suspect; [`Key::NONE`]: it's for all.
    pub(crate) own: Key,
    /// That is a suspect.
    pub(crate) lone: bool,
    /// It isn't read, because that request's client hasn't taken what came.
    pub(crate) held: bool,
    /// Which of the backend's addresses is dialled next, counted on and on.
    pub(crate) addr: usize,
    pub(crate) stand: Stand,
    /// Invariant: none unless it stands.
    pub(crate) pending: Pending,
    pub(crate) seen: Seen,
    /// What couldn't be sent yet.
    pub(crate) out: Chain,
    /// It stands among those to be flushed.
    pub(crate) queued: bool,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// When all of its backend's addresses had last been tried in vain.
    pub(crate) failed_at: Time,
    /// When a message last came from it.
    pub(crate) heard: Time,
    /// How many answers it has given since it came to stand.
    pub(crate) answered: usize,
    /// How many answers the connection before had given, if that was closed with requests unanswered; otherwise 0.
    pub(crate) closed_after: usize,
    /// How many requests may be out on it, besides its bound: fewer where its backend closes after so many.
    pub(crate) most: usize,
    /// When the latest of the requests was sent that it has answered, and of those that are late.
    pub(crate) proved: Time,
    pub(crate) late_at: Time,
    /// It left a request unanswered for too long and has said nothing since.
    pub(crate) suspect: bool,
    pub(crate) told: Told,
}

impl Upstream {
    pub(crate) fn new(service: u32, place: usize, matching: Matching, max: u16, now: Time) -> Self {
        Self {
            conn: Key::NONE,
            service,
            place: Some(place),
            posts: None,
            look_at: now,
            own: Key::NONE,
            lone: false,
            held: false,
            addr: 0,
            stand: Stand::Resting { until: now },
            pending: Pending::new(matching, max),
            seen: Seen::default(),
            out: Chain::EMPTY,
            queued: false,
            failures: 0,
            failed_at: Time::ZERO,
            heard: now,
            answered: 0,
            closed_after: 0,
            most: usize::MAX,
            proved: now,
            late_at: Time::ZERO,
            suspect: false,
            told: Told::NEVER,
        }
    }

    /// One of datagrams to a place, of which `max` may be out at most.
    pub(crate) fn of_datagrams(service: u32, place: usize, peer: SocketAddr, max: u16, now: Time) -> Self {
        Self {
            posts: Some(Box::new(Posts::new(peer))),
            pending: Pending::Drawn(Drawn::new(max)),
            ..Self::new(service, place, Matching::Order, 0, now)
        }
    }

    /// Whether it's datagrams.
    pub(crate) const fn is_datagrams(&self) -> bool {
        self.posts.is_some()
    }

    /// Whether it's to a place, standing or not, and for all requests.
    pub(crate) fn is_shared(&self) -> bool {
        self.own == Key::NONE && self.place.is_some()
    }

    /// Whether it leads there now. Datagrams that failed last don't until one is answered.
    pub(crate) fn leads_on(&self) -> bool {
        self.stand == Stand::Open && self.is_shared() && (self.failures == 0 || !self.is_datagrams())
    }

    /// Whether a request more can be put on it. One of datagrams that has failed is tried with one at a time until that is answered.
    pub(crate) fn has_room(&self) -> bool {
        let out = self.pending.len();
        let may_try = |posts: &Posts| posts.window.has_room(out) && (self.failures == 0 || out == 0);
        self.stand == Stand::Open
            && self.posts.as_deref().is_none_or(may_try)
            && !self.is_full()
            && self.out.len() <= OWED_MAX
    }

    /// When the last request was sent that shows that it seems to be read no more: it's late, and none sent then or later has been
    /// answered. [`Time::ZERO`]: none shows that. Where all seem so, the one that has been left alone the longest is tried.
    pub(crate) fn stuck_at(&self) -> Time {
        if self.late_at > self.proved && self.pending.live() > 0 { self.late_at } else { Time::ZERO }
    }

    /// Whether it has as many requests as it may have.
    fn is_full(&self) -> bool {
        self.pending.is_full() || self.pending.live() >= self.most
    }

    /// When it has to be looked at, whatever else happens.
    pub(crate) fn due(&self) -> Option<Time> {
        match self.stand {
            Stand::Resting { until } => Some(until),
            // Datagrams that nobody waits for are nobody's hurry, but those of one that is to go.
            Stand::Open if self.is_datagrams() && self.place.is_none() => Some(self.look_at),
            // Others may wait for an id that nobody waits for.
            Stand::Open if matches!(self.pending, Pending::Ids { .. }) && self.is_full() => Some(self.look_at),
            Stand::Dialling | Stand::Open => None,
        }
    }

    /// Notes that it has answered. Where it has answered more than may be out, as many more may be.
    pub(crate) const fn has_answered(&mut self, now: Time) {
        (self.heard, self.suspect, self.failures) = (now, false, 0);
        self.answered = self.answered.saturating_add(1);
        if self.answered > self.most {
            self.most += 1;
        }
    }

    /// Notes that its backend has closed. Twice with requests unanswered, and after about as many answers, and no more are put on the
    /// next: some close after so many. Once may have any reason.
    pub(crate) fn was_closed(&mut self) {
        let answered = if self.pending.live() > 0 { self.answered } else { 0 };
        let before = std::mem::replace(&mut self.closed_after, answered);
        let (least, most) = (answered.min(before), answered.max(before));
        if least > 0 && most <= least.saturating_mul(2) {
            self.most = most;
        }
    }

    /// Notes a failure, and says until when it rests. Each of `addrs` addresses is tried before it does.
    pub(crate) fn rest(&mut self, now: Time, addrs: usize) {
        self.failures = self.failures.saturating_add(1);
        self.addr = self.addr.wrapping_add(1);
        let addrs = u32::try_from(addrs.max(1)).unwrap_or(u32::MAX);
        let rounds = self.failures / addrs;
        if self.failures.is_multiple_of(addrs) {
            self.failed_at = now;
        }
        let pause = match rounds {
            0 => Duration::from_millis(1),
            _ => PAUSE_MAX.min(PAUSE_FIRST.saturating_mul(1 << (rounds - 1).min(16))),
        };
        self.stand = Stand::Resting { until: now.after(pause) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_come_round_late() {
        let mut slab = midmile_engine::Slab::with_capacity(8);
        let keys: Vec<Key> = (0..8).map(|at| slab.insert(at).unwrap()).collect();
        let mut pending = Pending::new(Matching::Id, 3);
        let ids: Vec<u16> = keys[..3].iter().map(|key| pending.insert(*key).unwrap()).collect();
        assert_eq!((ids, pending.insert(keys[3]), pending.is_full()), (vec![0, 1, 2], None, true));
        pending.remove(1);
        assert_eq!((pending.at(1), pending.at(9), pending.len()), (None, None, 2));
        pending.remove(2);
        assert_eq!(pending.insert(keys[4]), Some(1));
        assert_eq!(pending.at(1), Some(keys[4]));
        let mut from = 0;
        let left: Vec<Key> = std::iter::from_fn(|| pending.pop(&mut from)).collect();
        assert_eq!((left, pending.len()), (vec![keys[0], keys[4]], 0));
    }

    #[test]
    fn an_id_that_nobody_waits_for_is_free_after_the_second_look() {
        let mut slab = midmile_engine::Slab::with_capacity(8);
        let keys: Vec<Key> = (0..8).map(|at| slab.insert(at).unwrap()).collect();
        let mut pending = Pending::new(Matching::Id, 4);
        keys[..4].iter().for_each(|key| assert!(pending.insert(*key).is_some()));
        pending.remove(3);
        let is_live = |key| key == keys[1];
        pending.sweep(is_live);
        assert_eq!((pending.len(), pending.live(), pending.keys().count()), (3, 1, 3));
        assert!(slab.get(DEAD).is_none() && pending.at(0).is_some(), "a late answer is known as one");
        // One that comes all the same.
        pending.remove(0);
        pending.sweep(is_live);
        assert_eq!((pending.len(), pending.live(), pending.at(2)), (1, 1, None));
        assert_eq!(
            [4, 5, 6].map(|at| pending.insert(keys[at])),
            [Some(3), Some(0), Some(2)],
            "the last free is the last used"
        );
        pending.sweep(|_| false);
        let mut from = 0;
        assert_eq!(std::iter::from_fn(|| pending.pop(&mut from)).count(), 4);
        assert_eq!((pending.len(), pending.live()), (0, 0));
    }

    #[test]
    fn order_is_first_in_first_out() {
        let mut slab = midmile_engine::Slab::with_capacity(8);
        let keys: Vec<Key> = (0..3).map(|at| slab.insert(at).unwrap()).collect();
        let mut pending = Pending::new(Matching::Order, 2);
        assert_eq!([0, 1, 2].map(|at| pending.insert(keys[at])), [Some(0), Some(0), None]);
        assert_eq!(pending.at(0), Some(keys[0]));
        pending.remove(0);
        assert_eq!((pending.at(0), pending.pop(&mut 0), pending.pop(&mut 0)), (Some(keys[1]), Some(keys[1]), None));
    }

    #[test]
    fn a_bound_can_be_another_while_requests_are_out() {
        let mut slab = midmile_engine::Slab::with_capacity(8);
        let keys: Vec<Key> = (0..8).map(|at| slab.insert(at).unwrap()).collect();
        for matching in [Matching::Id, Matching::Order] {
            let mut pending = Pending::new(matching, 2);
            assert!(pending.insert(keys[0]).is_some() && pending.insert(keys[1]).is_some());
            pending.resize(4);
            assert!(pending.insert(keys[2]).is_some() && !pending.is_full());
            pending.resize(1);
            assert_eq!((pending.insert(keys[3]), pending.len(), pending.keys().count()), (None, 3, 3));
            for id in 0..3 {
                pending.remove(id);
            }
            assert!(pending.insert(keys[4]).is_some() && pending.is_full());
        }
    }

    #[test]
    fn what_closes_twice_after_as_many_answers_is_asked_less_at_once_until_it_stays() {
        let mut slab = midmile_engine::Slab::with_capacity(8);
        let mut upstream = Upstream::new(0, 0, Matching::Id, 500, Time::ZERO);
        let mut closes_after = |upstream: &mut Upstream, answers: usize, unanswered: bool| {
            upstream.answered = 0;
            (0..answers).for_each(|_| upstream.has_answered(Time::ZERO));
            let id = unanswered.then(|| upstream.pending.insert(slab.insert(0).unwrap()).unwrap());
            upstream.was_closed();
            id.into_iter().for_each(|id| upstream.pending.remove(id));
            upstream.most
        };
        // Once; with nothing unanswered between; after quite another number; without any answer.
        let steps = [(100, true), (90, false), (100, true), (30, true), (0, true), (0, true)];
        for (answers, unanswered) in steps {
            assert_eq!(closes_after(&mut upstream, answers, unanswered), usize::MAX, "{answers}, {unanswered}");
        }
        assert_eq!([100, 90].map(|answers| closes_after(&mut upstream, answers, true)), [usize::MAX, 100]);
        upstream.answered = 0;
        (0..250).for_each(|_| upstream.has_answered(Time::ZERO));
        assert_eq!(upstream.most, 250, "it stays narrow");
    }

    #[test]
    fn pauses_grow_once_all_addresses_were_tried() {
        let mut upstream = Upstream::new(0, 0, Matching::Order, 1, Time::ZERO);
        let waits: Vec<u64> = (0..20)
            .map(|_| {
                upstream.rest(Time::ZERO, 2);
                let Stand::Resting { until } = upstream.stand else { panic!("it rests") };
                until.as_millis()
            })
            .collect();
        assert_eq!(waits[..6], [1, 50, 50, 100, 100, 200]);
        assert_eq!(waits[19], 5000);
    }
}
