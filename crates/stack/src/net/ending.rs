//! How connections change their state, and how they end.

use midmile_engine::{ConnError, Key};
use smoltcp::socket::tcp::State;

use super::bare::Bare;
use super::flow::{Phase, UNARMED};
use super::packet::Segment;
use super::{CHALLENGE_EVERY_MS, Net};
use crate::link::Transmit;

impl Net {
    /// A segment has brought a connection from one state to another.
    pub(super) fn changed<T: Transmit>(&mut self, key: Key, from: State, to: State, segment: &Segment, tx: &mut T) {
        match (from, to) {
            // A reset of a half-open connection: smoltcp would listen again.
            (_, State::Listen) => self.release(key),
            (_, State::Closed) => {
                let error = match from {
                    _ if !segment.flags.rst() => None,
                    State::SynSent => Some(ConnError::Refused),
                    _ => Some(ConnError::Reset),
                };
                self.ended(key, error);
            }
            (_, State::TimeWait) => self.begin_wait(key, from, segment, tx),
            (State::SynReceived, _) => {
                self.stands(key);
                self.tell(key);
            }
            (State::SynSent, State::SynReceived) => {}
            (State::SynSent, _) => {
                // Acknowledged before the program hears of it: if it ends it at once, its peer has accepted it all the same.
                self.egress(key, tx);
                self.finish_if_due(key);
                self.tell(key);
            }
            _ => self.tell(key),
        }
    }

    /// Its handshake is finished.
    fn stands(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.owed_since = None;
        if let Phase::HalfOpen(index) = flow.phase {
            flow.phase = Phase::Queued(index);
            self.half_open_len -= 1;
            if let Some(Some(door)) = self.doors.get_mut(index as usize) {
                door.queue.push_back(key);
            }
        } else {
            self.finish_if_due(key);
        }
    }

    /// A dial was told to finish sending before it stood.
    fn finish_if_due(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key)
            && std::mem::take(&mut flow.finishes)
        {
            flow.with_tcp(|tcp| tcp.close());
        }
    }

    /// Nothing more will come or go.
    pub(super) fn ended(&mut self, key: Key, error: Option<ConnError>) {
        self.unlist(key);
        let Some(flow) = self.flows.get_mut(key) else { return };
        (flow.over, flow.failed) = (true, error);
        if flow.phase == Phase::Held { self.tell(key) } else { self.release(key) }
    }

    /// Both ends are acknowledged: what is left is to wait for stray segments, and that takes no socket.
    fn begin_wait<T: Transmit>(&mut self, key: Key, from: State, segment: &Segment, tx: &mut T) {
        self.unlist(key);
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.over = true;
        let (tuple, link, held) = (flow.tuple, flow.link, flow.phase == Phase::Held);
        let (seq, ack, keys) = (segment.ack, segment.end(), self.keys);
        if self.waits.insert(self.now, |tuple| tuple.hash(&keys), tuple, seq, ack) {
            self.gauges.waits_dropped += 1;
        }
        if from != State::Closing {
            self.acknowledge(&tuple, link, Bare { seq, ack, window: 0 }, tx);
        }
        if held { self.tell(key) } else { self.release(key) }
    }

    /// Ends a connection of nobody's with a reset, which leaves when it's settled.
    pub(super) fn abort(&mut self, key: Key) {
        let Some(flow) = self.awake(key) else { return };
        if flow.over || flow.phase == Phase::Resolving || flow.state() == State::SynSent {
            self.release(key);
            return;
        }
        flow.with_tcp(|tcp| tcp.abort());
        flow.phase = Phase::Orphan;
        (flow.over, flow.held_until) = (true, None);
        self.mark(key);
    }

    /// Its peer hasn't given a sign for too long. Answers whether there's still something to send: a reset, to whom may hear it.
    pub(super) fn give_up(&mut self, key: Key) -> bool {
        let Some(flow) = self.flows.get_mut(key) else { return false };
        match flow.phase {
            Phase::Held if flow.state() == State::SynSent => {
                self.ended(key, Some(ConnError::TimedOut));
                false
            }
            Phase::Held => {
                flow.with_tcp(|tcp| tcp.abort());
                (flow.over, flow.failed, flow.held_until) = (true, Some(ConnError::TimedOut), None);
                self.tell(key);
                true
            }
            Phase::HalfOpen(_) | Phase::Queued(_) | Phase::Resolving | Phase::Orphan => {
                self.release(key);
                false
            }
        }
    }

    /// A segment that can't be its connection's next: another SYN, or one whose numbers are old or a stranger's. The socket doesn't hear of
    /// it. But a reset it's answered by an acknowledgement, one a second (RFC 9293, 3.10.7.4; RFC 5961, 4.2 and 7): an honest peer that
    /// asks whether we're there, or hasn't heard that all came, is content, and one that has begun anew resets.
    pub(super) fn handle_misfit<T: Transmit>(&mut self, key: Key, segment: &Segment, tx: &mut T) {
        self.gauges.misfits += 1;
        // Once in seven weeks one is kept waiting for it.
        let now_ms = u32::try_from(self.now.as_millis() & u64::from(u32::MAX)).expect("it was cut");
        let Some(flow) = self.flows.get_mut(key) else { return };
        let again = now_ms.wrapping_sub(flow.challenged_ms) < CHALLENGE_EVERY_MS;
        if segment.flags.rst() || flow.over || again {
            return;
        }
        flow.challenged_ms = now_ms;
        self.acknowledge_again(key, 0, tx);
    }

    /// Forgets a connection.
    pub(super) fn release(&mut self, key: Key) {
        self.unlist(key);
        let Some(flow) = self.flows.remove(key) else { return };
        if matches!(flow.phase, Phase::HalfOpen(_)) {
            self.half_open_len -= 1;
        }
        if flow.armed_ms != UNARMED {
            self.timers.clear(key.slot());
        }
        if flow.rest().is_some() {
            self.resting -= 1;
        }
        self.put_away(flow.body);
    }
}
