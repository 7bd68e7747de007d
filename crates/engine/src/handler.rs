//! Upcalls: what the engine tells a program.

use crate::addr::Addr;
use crate::backend::Backend;
use crate::cx::Cx;
use crate::datagram::{DatagramId, Flow};
use crate::error::ConnError;
use crate::mesh::CoreId;
use crate::slab::Key;

/// A handle to a connection. Inert once the connection is gone.
pub type ConnId = Key;

/// A handle to a listener of this core. Inert once the listener is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) Key);

/// A connection that was taken from the accept queue and belongs to nobody yet: admit it or refuse it. Dropping it resets it, where
/// the transport can.
#[derive(Debug)]
pub struct Incoming<S> {
    pub(crate) socket: S,
    /// Who connects, where it's known already.
    pub(crate) peer: Option<Addr>,
}

/// What stands at the front of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of so many bytes, at least one. If not all of them have come, the framer is asked again when more have.
    Message(usize),
    /// The beginning of a message; its length can't be told yet.
    More,
    /// No message, whatever follows: the connection ends with [`ConnError::Broken`].
    Broken,
}

/// The answer of a decoder without I/O (`midmile-wire` has some): bytes of the message, `None` while it isn't whole.
impl<E> From<Result<Option<usize>, E>> for Frame {
    fn from(answer: Result<Option<usize>, E>) -> Self {
        match answer {
            Ok(Some(len)) => Self::Message(len),
            Ok(None) => Self::More,
            Err(_) => Self::Broken,
        }
    }
}

/// A program on the engine: one value a core, called by that core's loop only.
///
/// # The upcalls, sorted
/// - About a listener: [`on_accept`](Self::on_accept), [`on_accept_exhausted`](Self::on_accept_exhausted).
/// - The beginning of a connection: [`on_connect`](Self::on_connect), [`on_hand_off`](Self::on_hand_off),
///   [`on_hand_off_lost`](Self::on_hand_off_lost).
/// - What is received: [`on_data`](Self::on_data), or [`frame`](Self::frame) and [`on_message`](Self::on_message).
/// - Room to send: [`on_writable`](Self::on_writable). Time: [`on_timer`](Self::on_timer).
/// - The end of a connection: [`on_peer_close`](Self::on_peer_close), [`on_error`](Self::on_error).
/// - About a socket for datagrams: [`on_datagram`](Self::on_datagram), [`on_datagrams_writable`](Self::on_datagrams_writable),
///   [`on_datagrams_failed`](Self::on_datagrams_failed).
/// - About the core: [`on_wake`](Self::on_wake), [`on_alarm`](Self::on_alarm), [`on_turn_end`](Self::on_turn_end).
///
/// # Order of upcalls
/// - For an admitted connection: nothing until the program asks for something ([`Cx::read`], [`Cx::forward`], a timer), save
///   [`Handler::on_error`] if it fails meanwhile.
/// - For a dialled one: first [`Handler::on_connect`], or [`Handler::on_error`] if the dial failed.
/// - Then any number of `on_data` or `on_message`, `on_writable`, `on_timer`.
/// - [`Handler::on_peer_close`] at most once, when the peer has finished sending and all it sent was offered to the program or
///   handed to the connection that it's forwarded to: so not on one that isn't read. Sending goes on. What was left over is offered
///   again if the program asks ([`Cx::read`]); nothing new follows. The connection stays open, and counts against
///   [`Config::conns_max`](crate::Config::conns_max), until the program ends it ([`Cx::close`], [`Cx::reset`]) or it fails.
/// - [`Handler::on_error`] at most once, last; the connection is gone when it returns, and needs no [`Cx::close`]. What the peer sent
///   before it failed has been offered or handed on by then, unless the connection wasn't being read.
/// - For one that another core handed over: first [`Handler::on_hand_off`]; or nothing but [`Handler::on_hand_off_lost`].
/// - After the program has called [`Cx::close`] or [`Cx::reset`]: nothing.
/// - For a socket for datagrams: any number of `on_datagram`, `on_datagrams_writable` and `on_datagrams_failed`; after [`Cx::unbind`] nothing.
///
/// # Re-entry
/// Downcalls on [`Cx`] never call back: what follows from them comes as an upcall later, in the same turn or the next. Any downcall
/// may be made in any upcall, about any connection of the core, the one that it's about among them; [`frame`](Self::frame) alone
/// has none, for it only looks.
///
/// # Ownership of buffers
/// Bytes are lent for one upcall, from the core's one buffer or from the block in which a rest was kept; whoever needs them longer copies
/// them. What is sent is copied by the transport before the downcall returns; what it had no room for is the program's to keep.
///
/// # Panics
/// Where an upcall panics, its connection is told [`ConnError::Panicked`] by [`Handler::on_error`] and ends with a reset, and the core
/// goes on; an accepted connection that wasn't admitted yet ends with a reset alone. What the panic left of the program's own
/// state is the program's to put right. A panic of `on_error` itself isn't told again. [`Gauges::panics`](crate::Gauges::panics)
/// counts them, [`Config::catch_panics`](crate::Config::catch_panics) switches this off.
///
/// # Time
/// [`Cx::now`] stands still within a turn: it's read once, when events have been waited for. Timers have a grain of a millisecond, never
/// fire early, and fire at most once for each time that they're set. Each core counts from its own beginning.
pub trait Handler<B: Backend>: Sized {
    /// Someone connects. Call [`Cx::admit`] or [`Cx::refuse`]; a dropped `incoming` is reset where the
    /// transport can, which is what a program without this upcall does.
    fn on_accept(&mut self, _cx: &mut Cx<B>, _listener: ListenerId, _incoming: Incoming<B::Socket>) {}

    /// The listener found no descriptor or memory to accept with, or to be watched with after a rest, and rests for
    /// [`Config::accept_rest_ms`](crate::Config::accept_rest_ms). It's told each time.
    fn on_accept_exhausted(&mut self, _cx: &mut Cx<B>, _listener: ListenerId) {}

    /// The dialled connection stands.
    fn on_connect(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64) {}

    /// Bytes have come. They are lent for the length of the call; the answer says how many were used, and the rest is offered
    /// again, in front of what comes next. While [`Config::read_bytes`](crate::Config::read_bytes) bytes are left over, nothing more is read.
    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize;

    /// Says what stands at the front of `bytes`, on a connection that is read by [`Cx::read_messages`]. The program says it for every
    /// message, and again for a beginning each time that more of it has come: let it look at the front only.
    ///
    /// A program that reads messages has this upcall; without it nothing is one.
    fn frame(&mut self, _conn: ConnId, _token: u64, _bytes: &[u8]) -> Frame {
        Frame::Broken
    }

    /// A whole message has come: all of its bytes, as [`Handler::frame`] measured it, and no others. They are lent for the length of the
    /// call. Several that came together are told one after another, each by a call of its own, until the program asks for something
    /// else ([`Cx::pause`], [`Cx::read`], [`Cx::forward`]); the rest is then left over.
    ///
    /// A message has at most [`Config::read_bytes`](crate::Config::read_bytes) bytes: one that is longer ends the connection with
    /// [`ConnError::TooLong`]. Where the peer finishes in the midst of one, [`Handler::on_peer_close`] comes, and [`Cx::left_over`]
    /// says so.
    fn on_message(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, _bytes: &[u8]) {}

    /// There is room again after a short answer of [`Cx::send`] or another of its kind, which says when this isn't told. Once for each
    /// wait, however many answers were short.
    fn on_writable(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64) {}

    /// The peer has finished sending. What isn't sent to it any more by now doesn't end by itself: call [`Cx::close`], at once or when
    /// all answers have gone, else the connection stays in use for as long as the peer likes.
    ///
    /// Closing drops what is left over ([`Cx::left_over`]). A program that leaves bytes over for want of room calls [`Cx::pause`] until
    /// [`Handler::on_writable`]: the end isn't told before the rest was offered.
    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64);

    /// The connection has failed, or the dial did. It's gone when this returns.
    fn on_error(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, error: ConnError);

    /// A datagram has come. Its bytes are lent for the length of the call; sent to the same `flow`, an answer goes to whoever sent it,
    /// from the address that it came to.
    fn on_datagram(&mut self, _cx: &mut Cx<B>, _socket: DatagramId, _flow: Flow, _bytes: &[u8]) {}

    /// There is room again after [`Cx::send_to`] answered [`SendToError::Full`](crate::SendToError::Full).
    fn on_datagrams_writable(&mut self, _cx: &mut Cx<B>, _socket: DatagramId) {}

    /// What was sent by a socket with one peer ([`DatagramOptions::peer`](crate::DatagramOptions::peer)) isn't taken: nobody is bound
    /// there ([`ConnError::Refused`], by ICMP), there's no way, or this host may not. Datagrams that were sent before may be lost or
    /// not. Told at most once for all that failed in a turn.
    fn on_datagrams_failed(&mut self, _cx: &mut Cx<B>, _socket: DatagramId, _error: ConnError) {}

    /// The connection's timer has run out.
    fn on_timer(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64) {}

    /// The program's alarm has run out ([`Cx::set_alarm`]).
    fn on_alarm(&mut self, _cx: &mut Cx<B>) {}

    /// The connection is on this core from now on, under this handle: another core has handed it over ([`Cx::hand_off`]), or this core
    /// couldn't. Nothing is read until it's asked for; what the other core left over then comes first. Its bytes are counted nowhere
    /// until [`Cx::rename`] says where, and its timer isn't set. A program that doesn't know what to do with it resets it, as this does.
    fn on_hand_off(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.reset(conn);
    }

    /// A connection that `from` handed over couldn't be taken in: this core has as many as it may ([`ConnError::Exhausted`]), or its
    /// backend can't watch it. Its peer sees a reset. The token is all that is left of it; what the program keeps behind that may go.
    fn on_hand_off_lost(&mut self, _cx: &mut Cx<B>, _from: CoreId, _token: u64, _error: ConnError) {}

    /// Another thread woke this core, or a core of its mesh did. It may come once for several calls, and now and then for none.
    fn on_wake(&mut self, _cx: &mut Cx<B>) {}

    /// A turn has ended: a place to publish figures or to send what was gathered.
    fn on_turn_end(&mut self, _cx: &mut Cx<B>) {}
}
