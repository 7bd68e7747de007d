//! Answers to hellos: what is said to the gateway in front, and what is made of what the gateway behind says.
//!
//! ```text
//!  owed:    the server leg stands ──► `stands`, ahead of the server's bytes
//!           the pair ends before  ──► why, and the end; the connection parts when its peer has seen both
//!  awaited: `stands`              ──► taken off, and the bytes flow
//!           why not               ──► the client is reset under that name; or another connection is tried, where that may help
//!           none: an end, a reset ──► another connection is tried if nothing has crossed; or the client is reset
//! ```
//! A gateway between others awaits one and owes one: what it hears is what it says.

use std::time::Duration;

use midmile_engine::{Backend, Cx, Key, MeterId};
use midmile_wire::trunk::answer::{self, Answer};

use super::Relay;
use super::guest::{Guest, GuestState};
use crate::pair::{Pair, Side, State, Token};
use crate::reason::End;

/// How long an answer and the end behind it may take to be seen. Whoever sees them resets the connection.
const PARTING_WAIT: Duration = Duration::from_secs(5);

/// What is told of a pair that ended so before its answer was given; `None` if there's nobody left to tell.
const fn answer_of(end: End) -> Option<Answer> {
    Some(match end {
        End::DialRefused | End::FarDialRefused => Answer::DialRefused,
        End::DialTimeout | End::IdleTimeout | End::HalfClosedTimeout | End::FarDialTimeout => Answer::DialTimeout,
        End::DialUnreachable | End::NoBackend | End::FarDialUnreachable => Answer::DialUnreachable,
        End::DialExhausted | End::FarDialExhausted => Answer::DialExhausted,
        End::NameUnresolved | End::FarNameUnresolved => Answer::NameUnresolved,
        End::NotPermitted | End::FarNotPermitted => Answer::NotPermitted,
        End::TrunkUnavailable | End::FarTrunkUnavailable => Answer::TrunkUnavailable,
        End::TrunkLost | End::TrunkDead | End::AnswerUnknown | End::FarTrunkLost => Answer::TrunkLost,
        End::FarPairsMax => Answer::PairsMax,
        End::Drained | End::FarDrained => Answer::Drained,
        End::Finished
        | End::ClientReset
        | End::ClientLost
        | End::ClientGone
        | End::ServerReset
        | End::ServerLost
        | End::HeaderInvalid
        | End::HeaderTimeout
        | End::MessageTimeout
        | End::MessageTooLong
        | End::MessageBroken
        | End::MessageCut
        | End::MessageEmpty
        | End::MessageShort
        | End::NotAQuery
        | End::AnswersUnread
        | End::Unanswered
        | End::Answered
        | End::Unclaimed
        | End::Panicked => return None,
    })
}

/// How a pair ends that is answered so; `None` if it doesn't end by it.
const fn end_of(answer: Answer) -> Option<End> {
    Some(match answer {
        Answer::Stands => return None,
        Answer::DialRefused => End::FarDialRefused,
        Answer::DialTimeout => End::FarDialTimeout,
        Answer::DialUnreachable => End::FarDialUnreachable,
        Answer::DialExhausted => End::FarDialExhausted,
        Answer::NameUnresolved => End::FarNameUnresolved,
        Answer::NotPermitted => End::FarNotPermitted,
        Answer::TrunkUnavailable => End::FarTrunkUnavailable,
        Answer::TrunkLost => End::FarTrunkLost,
        Answer::PairsMax => End::FarPairsMax,
        Answer::Drained => End::FarDrained,
    })
}

impl<L> Relay<L> {
    /// Tells the gateway in front, if there is one, that the server's connection stands; false if the pair ended over it. The byte
    /// rides with the server's first ones, so nothing may be forwarded to the client leg yet.
    pub(super) fn answer_stands<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) -> bool {
        let Some(pair) = self.pairs.get_mut(key) else { return false };
        if !std::mem::replace(&mut pair.owes_answer, false) {
            return true;
        }
        let told = cx.send_ahead(pair.client, &[Answer::Stands.to_byte()]) == 1;
        if !told {
            // It has failed just now, or the system has no memory for a byte.
            self.end(cx, key, End::ClientGone);
        }
        told
    }

    /// Whether the pair's server leg is a trunk connection that hasn't answered yet.
    pub(super) fn awaits_answer(&self, key: Key) -> bool {
        self.pairs.get(key).is_some_and(|pair| pair.awaits_answer)
    }

    /// A server leg that is a trunk connection has said something; answers how many bytes were used.
    pub(super) fn heard_answer<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) -> usize {
        if !self.awaits_answer(key) {
            return 0;
        }
        let (taken, end) = match answer::decode(bytes) {
            Ok(None) => return 0,
            Ok(Some((taken, answer))) if answer.is_passing() && self.retries_trunk(cx, key) => {
                self.go_onward(cx, key);
                return taken;
            }
            Ok(Some((taken, answer))) => (taken, end_of(answer)),
            Err(_) => (0, Some(End::AnswerUnknown)),
        };
        if let Some(end) = end {
            self.end(cx, key, end);
        } else if let Some(pair) = self.pairs.get_mut(key) {
            pair.awaits_answer = false;
            let (server, client) = (pair.server, pair.client);
            if self.answer_stands(cx, key) {
                cx.forward(server, client);
            }
        }
        taken
    }

    /// A server leg that is a trunk connection has ended or failed without an answer: nobody knows what became of the hello.
    pub(super) fn unanswered<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        if self.retries_trunk(cx, key) { self.go_onward(cx, key) } else { self.end(cx, key, End::TrunkLost) }
    }

    /// Whether a pair whose trunk connection didn't lead to its server is given another, in place of that one: once, before its dial
    /// timeout is over, and only if nothing has crossed it. Whoever sent a byte can't have it again.
    fn retries_trunk<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) -> bool {
        let Some(pair) = self.pairs.get(key) else { return false };
        let untouched = !cx.has_forwarded(pair.client) && !pair.half_closed();
        let stands = pair.state == State::Flowing && pair.awaits_answer && !pair.retried;
        let in_time = cx.now() < pair.dial_deadline;
        let Some(name) = self.trunk_of(pair).filter(|_| stands && untouched && in_time) else { return false };
        if let Some(pool) = self.pools.pool(&name) {
            pool.counters.retries.add(1);
        }
        self.measure_leg(cx, key, Side::Server);
        if let Some(pair) = self.pairs.get_mut(key) {
            cx.reset(std::mem::replace(&mut pair.server, Key::NONE));
            pair.retried = true;
            pair.awaits_answer = false;
            pair.state = State::Dialling;
        }
        true
    }

    /// Tells the gateway in front why the pair ended, if it hasn't been answered. True: its connection is a guest's now, which counts
    /// as open until it goes; false: it's still to be ended.
    pub(super) fn answer_why<B: Backend>(&mut self, cx: &mut Cx<B>, pair: &Pair, end: End) -> bool {
        let Some(answer) = answer_of(end).filter(|_| pair.owes_answer && pair.client != Key::NONE) else {
            return false;
        };
        let guest = Guest::parting(pair.client, pair.serving, pair.peer.clone(), pair.came_from.clone());
        let Ok(key) = self.guests.insert(guest) else {
            // Without a place to wait in it may be lost with a packet.
            cx.send(pair.client, &[answer.to_byte()]);
            return false;
        };
        cx.rename(pair.client, Token::Guest(key).to_bits(), MeterId::NONE);
        self.part(cx, key, answer);
        true
    }

    /// Answers a guest and ends the connection in order, so that the answer reaches its peer whatever the network loses. Closing it
    /// at once wouldn't do: the client's bytes that nobody read would make a reset of that.
    pub(super) fn part<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, answer: Answer) {
        let Some(guest) = self.guests.get_mut(key) else { return };
        guest.state = GuestState::Parting;
        let conn = guest.conn;
        cx.pause(conn);
        if cx.send(conn, &[answer.to_byte()]) == 0 {
            return self.turn_out(cx, key, None);
        }
        cx.shutdown(conn);
        cx.set_timer(conn, PARTING_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_passed_on_as_it_came_and_named_after_what_it_says() {
        assert_eq!(end_of(Answer::Stands), None);
        for answer in &Answer::ALL[1..] {
            let end = end_of(*answer).expect("the others end the pair");
            assert_eq!(answer_of(end), Some(*answer), "what one gateway hears the one in front of it hears");
            assert_eq!(end.name(), format!("far-{}", answer.name()));
        }
    }

    #[test]
    fn what_this_gateway_counts_is_what_it_answers() {
        for answer in &Answer::ALL[1..] {
            let own = End::ALL.iter().find(|end| end.name() == answer.name());
            // Who is refused for want of room gets no pair.
            assert_eq!(own.is_none(), *answer == Answer::PairsMax, "{answer:?}");
            assert!(own.is_none_or(|end| answer_of(*end) == Some(*answer)), "{answer:?}");
        }
    }
}
