//! What the loop's thread and the program's share: two bounded queues, and orders to the loop.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use midmile_engine::Waker;

use super::figures::{Counters, Figures};
use super::{Closed, Outgoing, Received, Settings, Via};

/// Buffers that are kept for further messages, and the longest that is.
const SPARE_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// A connection that is given back, and what was left over of its bytes.
pub(super) type Released = (OwnedFd, Vec<u8>);

/// What the program asks of the loop.
#[derive(Debug)]
pub(super) enum Order {
    Attach(OwnedFd, SyncSender<io::Result<Via>>),
    Detach(Via, SyncSender<io::Result<Released>>),
}

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) bytes: Vec<u8>,
    pub(super) via: Option<Via>,
    /// How often it may be sent again.
    pub(super) retries: u8,
    pub(super) ticket: u64,
}

/// Both queues.
#[derive(Debug)]
pub(super) struct Queues {
    state: Mutex<State>,
    arrived: Condvar,
    room: Condvar,
    waker: Waker,
    pub(super) counters: Counters,
    queue_messages: usize,
    queue_bytes: usize,
    unsent_messages: usize,
}

#[derive(Debug)]
struct State {
    received: VecDeque<Received>,
    received_bytes: usize,
    /// The loop reads nothing until there's room.
    starved: bool,
    to_send: VecDeque<Parcel>,
    /// Messages that were taken from senders and aren't out: those in `to_send`, and those that the loop has.
    unsent: usize,
    orders: Vec<Order>,
    spare: Vec<Vec<u8>>,
    closed: bool,
}

/// What there's room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What the loop exchanges with the others once a turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// For receivers; empty afterwards.
    pub(super) received: Vec<Received>,
    /// Taken from senders, behind what's there already.
    pub(super) to_send: VecDeque<Parcel>,
    /// Messages that are out, or never will be.
    pub(super) done: usize,
    pub(super) orders: Vec<Order>,
    /// Buffers to use, and used ones.
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) closed: bool,
}

impl Queues {
    pub(super) fn new(settings: &Settings, waker: Waker) -> Self {
        let state = State {
            received: VecDeque::with_capacity(settings.queue_messages.min(SPARE_MAX)),
            received_bytes: 0,
            starved: false,
            to_send: VecDeque::new(),
            unsent: 0,
            orders: Vec::new(),
            spare: Vec::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            room: Condvar::new(),
            waker,
            counters: Counters::default(),
            queue_messages: settings.queue_messages,
            queue_bytes: settings.queue_bytes,
            unsent_messages: settings.unsent_messages,
        }
    }

    /// Nothing is left half done by a panic: each change is one statement or two.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> Figures {
        self.counters.figures()
    }

    /// Ends it, for everybody.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Whoever awaits an answer is told by its sender's end.
        state.orders.clear();
        drop(state);
        self.arrived.notify_all();
        self.room.notify_all();
        self.waker.wake();
    }

    /// Gives the loop an order and waits for its answer.
    pub(super) fn ask<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order) -> io::Result<T> {
        let (answer, answered) = sync_channel(1);
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, Closed);
        let mut state = self.lock();
        if state.closed {
            return Err(gone());
        }
        state.orders.push(order(answer));
        drop(state);
        self.waker.wake();
        answered.recv().map_err(|_| gone())
    }

    /// Gives the loop an order whose answer is awaited elsewhere.
    #[cfg(test)]
    pub(super) fn post(&self, order: Order) {
        self.lock().orders.push(order);
        self.waker.wake();
    }

    /// As the receiver: takes what has come; what was in `items` is over.
    pub(super) fn take(&self, items: &mut Vec<Received>, most: usize, timeout: Option<Duration>) -> Result<(), Closed> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        for item in items.drain(..) {
            state.recycle(item);
        }
        while state.received.is_empty() {
            if state.closed {
                return Err(Closed);
            }
            state = match until {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(());
                    }
                    self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let count = most.min(state.received.len());
        items.extend(state.received.drain(..count));
        state.received_bytes -= items.iter().map(len_of).sum::<usize>();
        let some_left = !state.received.is_empty();
        let wakes = state.starved && self.is_half_empty(&state);
        state.starved &= !wakes;
        drop(state);
        if wakes {
            self.waker.wake();
        }
        if some_left {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// As the sender: takes messages, as many as there's room for.
    pub(super) fn put(&self, messages: &[Outgoing<'_>], timeout: Option<Duration>) -> Result<usize, Closed> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(Closed);
            }
            if messages.is_empty() {
                return Ok(0);
            }
            if state.unsent < self.unsent_messages {
                break;
            }
            state = match until {
                None => self.room.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(0);
                    }
                    self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let count = messages.len().min(self.unsent_messages - state.unsent);
        for message in &messages[..count] {
            let mut bytes = state.spare.pop().unwrap_or_default();
            bytes.extend_from_slice(message.bytes);
            let retries = u8::from(message.idempotent && message.via.is_none());
            state.to_send.push_back(Parcel { bytes, via: message.via, retries, ticket: message.ticket });
        }
        state.unsent += count;
        let some_left = state.unsent < self.unsent_messages;
        drop(state);
        self.waker.wake();
        if some_left {
            self.room.notify_one();
        }
        Ok(count)
    }

    /// As the loop: hands over what a turn brought, takes what there is to do, and says what there's room for. Where there's none, it's
    /// woken once half of the queue is empty.
    pub(super) fn exchange(&self, turn: &mut Turn) -> Room {
        let mut state = self.lock();
        let some = !turn.received.is_empty();
        for item in turn.received.drain(..) {
            state.received_bytes += len_of(&item);
            state.received.push_back(item);
        }
        turn.to_send.extend(state.to_send.drain(..));
        let done = std::mem::take(&mut turn.done);
        state.unsent -= done;
        turn.orders.append(&mut state.orders);
        // Some stay on each side.
        while turn.spare.len() > SPARE_MAX / 2
            && let Some(bytes) = turn.spare.pop()
        {
            state.keep(bytes);
        }
        while turn.spare.len() < SPARE_MAX / 4
            && let Some(bytes) = state.spare.pop()
        {
            turn.spare.push(bytes);
        }
        turn.closed |= state.closed;
        let room = Room {
            messages: self.queue_messages.saturating_sub(state.received.len()),
            bytes: self.queue_bytes.saturating_sub(state.received_bytes),
        };
        state.starved = room.messages == 0 || room.bytes == 0;
        drop(state);
        if some {
            self.arrived.notify_one();
        }
        if done > 0 {
            self.room.notify_one();
        }
        room
    }

    fn is_half_empty(&self, state: &State) -> bool {
        state.received.len() <= self.queue_messages / 2 && state.received_bytes <= self.queue_bytes / 2
    }
}

impl State {
    fn recycle(&mut self, item: Received) {
        if let Received::Message { bytes, .. } = item {
            self.keep(bytes);
        }
    }

    /// Keeps a buffer for another message, unless there are enough or it's a large one.
    fn keep(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && (1..=SPARE_BYTES_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

/// Bytes that count against the queue's bound.
fn len_of(item: &Received) -> usize {
    match item {
        Received::Message { bytes, .. } => bytes.len(),
        Received::Ended { .. } | Received::Unsent { .. } => 0,
    }
}
