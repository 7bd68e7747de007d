//! Datagrams in their turn.

use super::Core;
use crate::backend::{Backend, Ready};
use crate::datagram::{DatagramId, LOOP_DATAGRAMS, TURN_DATAGRAMS};
use crate::handler::Handler;
use crate::slab::Key;
use crate::upcall::Upcall;

impl<B: Backend, H: Handler<B>> Core<B, H> {
    /// Takes an event of a socket in: it's read after the connections had their events, and sent by at once.
    pub(super) fn dispatch_datagrams(&mut self, id: DatagramId, ready: Ready) {
        let Some(bound) = self.cx.datagrams.sockets.get_mut(id.0) else { return };
        if ready.readable || ready.failed {
            bound.readable = true;
            self.cx.datagrams.enqueue(id);
        }
        if ready.writable {
            self.datagrams_writable(id);
        }
    }

    fn datagrams_writable(&mut self, id: DatagramId) {
        let Some(bound) = self.cx.datagrams.sockets.get_mut(id.0) else { return };
        bound.writable = true;
        self.cx.flush(id);
        if let Some(bound) = self.cx.datagrams.sockets.get_mut(id.0)
            && bound.writable
            && std::mem::take(&mut bound.awaits_room)
        {
            self.upcall(Upcall::DatagramsWritable, Key::NONE, |handler, cx| handler.on_datagrams_writable(cx, id));
        }
    }

    /// Reads each socket that may have something, until the datagrams of a loop are used up.
    pub(super) fn run_datagrams(&mut self) {
        let mut told = 0;
        for _ in 0..self.cx.datagrams.queue.len() {
            if told >= LOOP_DATAGRAMS {
                break;
            }
            let Some(id) = self.cx.datagrams.dequeue() else { break };
            told += self.receive(id);
        }
    }

    /// Tells the program what came to a socket, and says how many datagrams that was.
    fn receive(&mut self, id: DatagramId) -> usize {
        let Some(mut inbox) = self.cx.datagrams.inbox.take() else { return 0 };
        let mut told = 0;
        while told < TURN_DATAGRAMS
            && let Some(()) = self.cx.fetch_datagrams(id, &mut inbox)
        {
            for index in 0..inbox.len() {
                if self.cx.datagrams.sockets.get(id.0).is_some()
                    && let Some((flow, bytes)) = inbox.get(index)
                {
                    self.upcall(Upcall::Datagram, Key::NONE, |handler, cx| handler.on_datagram(cx, id, flow, bytes));
                }
            }
            told += inbox.len();
        }
        self.cx.datagrams.inbox = Some(inbox);
        if let Some(error) = self.cx.take_datagram_trouble(id) {
            self.upcall(Upcall::DatagramsFailed, Key::NONE, |handler, cx| handler.on_datagrams_failed(cx, id, error));
        }
        if self.cx.datagrams.sockets.get(id.0).is_some_and(|bound| bound.readable) {
            self.cx.datagrams.enqueue(id);
        }
        told
    }
}
