//! The engine calls the program. A program that panics loses the connection that the call was about, and nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::backend::Backend;
use crate::core::Core;
use crate::cx::Cx;
use crate::error::ConnError;
use crate::handler::{ConnId, Handler};

/// An upcall, by its name in [`Handler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Upcall {
    /// [`Handler::on_accept`].
    Accept,
    /// [`Handler::on_accept_exhausted`].
    AcceptExhausted,
    /// [`Handler::on_connect`].
    Connect,
    /// [`Handler::on_data`].
    Data,
    /// [`Handler::frame`].
    Frame,
    /// [`Handler::on_message`].
    Message,
    /// [`Handler::on_writable`].
    Writable,
    /// [`Handler::on_peer_close`].
    PeerClose,
    /// [`Handler::on_error`].
    Error,
    /// [`Handler::on_datagram`].
    Datagram,
    /// [`Handler::on_datagrams_writable`].
    DatagramsWritable,
    /// [`Handler::on_datagrams_failed`].
    DatagramsFailed,
    /// [`Handler::on_timer`].
    Timer,
    /// [`Handler::on_alarm`].
    Alarm,
    /// [`Handler::on_wake`].
    Wake,
    /// [`Handler::on_hand_off`].
    HandOff,
    /// [`Handler::on_hand_off_lost`].
    HandOffLost,
    /// [`Handler::on_turn_end`].
    TurnEnd,
}

impl Upcall {
    /// All of them, each at the place of its number.
    pub const ALL: &'static [Self] = &[
        Self::Accept,
        Self::AcceptExhausted,
        Self::Connect,
        Self::Data,
        Self::Frame,
        Self::Message,
        Self::Writable,
        Self::PeerClose,
        Self::Error,
        Self::Datagram,
        Self::DatagramsWritable,
        Self::DatagramsFailed,
        Self::Timer,
        Self::Alarm,
        Self::Wake,
        Self::HandOff,
        Self::HandOffLost,
        Self::TurnEnd,
    ];

    /// The name of its method.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "on_accept",
            Self::AcceptExhausted => "on_accept_exhausted",
            Self::Connect => "on_connect",
            Self::Data => "on_data",
            Self::Frame => "frame",
            Self::Message => "on_message",
            Self::Writable => "on_writable",
            Self::PeerClose => "on_peer_close",
            Self::Error => "on_error",
            Self::Datagram => "on_datagram",
            Self::DatagramsWritable => "on_datagrams_writable",
            Self::DatagramsFailed => "on_datagrams_failed",
            Self::Timer => "on_timer",
            Self::Alarm => "on_alarm",
            Self::Wake => "on_wake",
            Self::HandOff => "on_hand_off",
            Self::HandOffLost => "on_hand_off_lost",
            Self::TurnEnd => "on_turn_end",
        }
    }
}

impl<B: Backend, H: Handler<B>> Core<B, H> {
    /// Calls the program, about `id` if it's about a connection. `None` when it panicked; the connection is gone then.
    #[inline]
    pub(crate) fn upcall<R>(
        &mut self,
        upcall: Upcall,
        id: ConnId,
        call: impl FnOnce(&mut H, &mut Cx<B>) -> R,
    ) -> Option<R> {
        self.cx.upcalls += 1;
        self.cx.pulse.enter(self.cx.upcalls, upcall, id);
        // Unwind safety: what a downcall changes is changed whole, for they don't call back; the program is told of its panic.
        let answer = catch_unwind(AssertUnwindSafe(|| call(&mut self.handler, &mut self.cx)));
        self.cx.pulse.leave();
        match answer {
            Ok(answer) => Some(answer),
            Err(panic) => {
                self.panicked(upcall, id, panic);
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn panicked(&mut self, upcall: Upcall, id: ConnId, panic: Box<dyn Any + Send>) {
        if !self.cx.config.catch_panics {
            resume_unwind(panic);
        }
        // What was thrown may panic in its turn when it's dropped.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        self.cx.panics += 1;
        let id = if upcall == Upcall::Accept { self.cx.admitted } else { id };
        let Some(conn) = self.cx.conns.get(id) else { return };
        let token = conn.token;
        if upcall != Upcall::Error {
            self.upcall(Upcall::Error, id, |handler, cx| handler.on_error(cx, id, token, ConnError::Panicked));
        }
        self.cx.reset(id);
    }
}
