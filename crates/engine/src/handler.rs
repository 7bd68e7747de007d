//! Upcalls: what the engine tells a program.

use crate::addr::Addr;
use crate::backend::Backend;
use crate::cx::Cx;
use crate::error::ConnError;
use crate::slab::Key;

/// A handle to a connection. Inert once the connection is gone.
pub type ConnId = Key;

/// A listener of this core, by the order in which it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) u32);

/// A connection that was taken from the accept queue and belongs to nobody yet: admit it or refuse it. Dropping it resets it, where
/// the transport can.
#[derive(Debug)]
pub struct Incoming<S> {
    pub(crate) socket: S,
    /// Who connects.
    pub peer: Addr,
}

/// A program on the engine: one value a core, called by that core's loop only.
///
/// # Order of upcalls
/// - For an admitted connection: nothing until the program asks for something ([`Cx::read`], [`Cx::forward`], a timer), save
///   [`Handler::on_error`] if it fails meanwhile.
/// - For a dialled one: first [`Handler::on_connect`], or [`Handler::on_error`] if the dial failed.
/// - Then any number of `on_data`, `on_writable`, `on_timer`.
/// - [`Handler::on_peer_close`] at most once, when the peer has finished sending and all it sent was offered to `on_data` or
///   handed to the connection that it's forwarded to. Sending goes on.
/// - [`Handler::on_error`] at most once, last. What the peer sent before it failed has been offered or handed on by then, unless
///   the connection wasn't being read.
/// - After the program has called [`Cx::close`] or [`Cx::reset`]: nothing.
///
/// # Re-entry
/// Downcalls on [`Cx`] never call back: what follows from them comes as an upcall later, in the same turn or the next.
///
/// # Time
/// [`Cx::now`] stands still within a turn.
pub trait Handler<B: Backend>: Sized {
    /// Someone connects. Call [`Cx::admit`] or [`Cx::refuse`]; a dropped `incoming` is reset where the
    /// transport can, which is what a program without this upcall does.
    fn on_accept(&mut self, _cx: &mut Cx<B>, _listener: ListenerId, _incoming: Incoming<B::Socket>) {}

    /// The listener found no descriptor or memory to accept with, and rests for a moment.
    fn on_accept_exhausted(&mut self, _cx: &mut Cx<B>, _listener: ListenerId) {}

    /// The dialled connection stands.
    fn on_connect(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64) {}

    /// Bytes have come. They are lent for the length of the call; the answer says how many were used, and the rest is offered
    /// again, in front of what comes next. While [`Config::read_bytes`](crate::Config::read_bytes) bytes are left over, nothing more is read.
    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize;

    /// There is room again after a short [`Cx::send`].
    fn on_writable(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64) {}

    /// The peer has finished sending.
    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64);

    /// The connection has failed, or the dial did. It's gone when this returns.
    fn on_error(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, error: ConnError);

    /// The connection's timer has run out.
    fn on_timer(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64) {}

    /// The program's alarm has run out ([`Cx::set_alarm`]).
    fn on_alarm(&mut self, _cx: &mut Cx<B>) {}

    /// Another thread woke this core.
    fn on_wake(&mut self, _cx: &mut Cx<B>) {}

    /// A turn has ended: a place to publish figures or to send what was gathered.
    fn on_turn_end(&mut self, _cx: &mut Cx<B>) {}
}
